"""netfs doctor finds and names broken set-ups, and says what to do."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import asyncssh
import pytest

from netfs import runtime
from netfs.cli import checks, install
from netfs.cli.checks import Finding, Level, Machine
from netfs.supervisor import fusectl
from tests.cli.support import Cli
from tests.harness.sshd import Sshd


@pytest.fixture
def place(tmp_path: Path) -> Machine:
    """A machine on which everything is as it should be."""
    tools = tmp_path / "bin"
    tools.mkdir()
    helper = tools / "fusermount3"
    helper.write_text("#!/bin/sh\n")
    helper.chmod(0o4755)
    (tmp_path / "fuse.conf").write_text("user_allow_other\n")
    for name in install.NAMES:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("#!/bin/sh\n")
    return Machine(
        device=Path("/dev/null"),
        fuse_conf=tmp_path / "fuse.conf",
        prefix=tmp_path,
        path=str(tools),
        is_root=False,
    )


def found(place: Machine, subject: str) -> Finding:
    return next(one for one in checks.machine(place) if one.subject == subject)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a file that is set-user-ID root")
def test_a_good_machine_has_nothing_bad(place: Machine) -> None:
    assert all(one.level is not Level.BAD for one in checks.machine(place))


def test_a_missing_device(place: Machine, tmp_path: Path) -> None:
    finding = found(_replace(place, device=tmp_path / "nothing"), "FUSE device")
    assert finding.level is Level.BAD
    assert "modprobe fuse" in finding.advice


def test_a_device_that_is_none(place: Machine, tmp_path: Path) -> None:
    (tmp_path / "fuse").write_text("")
    finding = found(_replace(place, device=tmp_path / "fuse"), "FUSE device")
    assert "is not a device" in finding.text


def test_a_missing_fusermount3(place: Machine) -> None:
    finding = found(_replace(place, path="/nowhere"), "fusermount3")
    assert finding.level is Level.BAD
    assert "fuse3" in finding.advice
    assert found(_replace(place, path="/nowhere", is_root=True), "fusermount3").level is Level.NOTE


def test_a_fusermount3_that_is_not_set_user_id(place: Machine, tmp_path: Path) -> None:
    (tmp_path / "bin" / "fusermount3").chmod(0o755)
    finding = found(place, "fusermount3")
    assert finding.level is Level.BAD
    assert "chmod u+s" in finding.advice


def test_allow_other_that_is_not_allowed(place: Machine) -> None:
    place.fuse_conf.write_text("# user_allow_other\n")
    finding = found(place, "user_allow_other")
    assert finding.level is Level.NOTE
    assert "user_allow_other" in finding.advice


def test_no_control_filesystem(place: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fusectl, "open_root", lambda: None)
    monkeypatch.setattr(checks.mounts, "table", list)
    finding = found(place, "control filesystem")
    assert finding.level is Level.NOTE
    assert "mount -t fusectl" in finding.advice


def test_a_missing_helper(place: Machine, tmp_path: Path) -> None:
    (tmp_path / "sbin" / "mount.netfs").unlink()
    finding = found(place, "mount.netfs")
    assert "install-helper" in finding.advice


def test_a_helper_whose_interpreter_is_gone(place: Machine, tmp_path: Path) -> None:
    (tmp_path / "sbin" / "mount.netfs").write_text("#!/venv/that/was/removed/python -I\n")
    finding = found(place, "mount.netfs")
    assert finding.level is Level.BAD
    assert "/venv/that/was/removed/python" in finding.text


def test_a_runtime_directory_of_somebody_else(
    place: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(runtime, "directory", lambda given=None: tmp_path / "file" / "run")
    assert found(place, "runtime directory").level is Level.BAD


def test_a_key_that_others_can_read(tmp_path: Path) -> None:
    key = tmp_path / "id"
    key.write_text("")
    key.chmod(0o644)
    finding = checks.key_file(str(key), is_named=True)
    assert finding is not None
    assert finding.level is Level.BAD
    assert finding.advice == f"chmod 0600 {key}"


def test_a_key_that_is_not_there(tmp_path: Path) -> None:
    finding = checks.key_file(str(tmp_path / "id"), is_named=True)
    assert finding is not None
    assert finding.level is Level.BAD
    assert checks.key_file(str(tmp_path / "id"), is_named=False) is None


def test_an_agent_that_is_dead_or_none(tmp_path: Path) -> None:
    path = str(tmp_path / "agent")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)  # nobody listens
    assert checks.agent(path).level is Level.BAD
    assert checks.agent(None).level is Level.NOTE


def _replace(place: Machine, **changes: object) -> Machine:
    values = {name: getattr(place, name) for name in Machine.__dataclass_fields__}
    return Machine(**{**values, **changes})


# --- servers ---


@pytest.fixture
def cli(sshd: Sshd, tmp_path: Path) -> Cli:
    return Cli(sshd, tmp_path)


Ask = Callable[..., dict[str, Finding]]


@pytest.fixture
def ask(cli: Cli, remote: Path) -> Ask:
    def run(
        *words: str,
        source: str | None = None,
        path: Path | None = None,
        is_bare: bool = False,
    ) -> dict[str, Finding]:
        where = source or cli.server.source(path or remote)
        options = [] if is_bare else cli.server.options()
        done = cli.run("doctor", "--json", where, *options, *words)
        rows = json.loads(done.stdout)
        return {
            row["subject"]: Finding(Level(row["level"]), row["subject"], row["text"], row["advice"])
            for row in rows
        }

    return run


@pytest.mark.sshd
def test_a_good_server(ask: Ask) -> None:
    rows = ask()
    for subject in ("known_hosts", "reachability", "connection", "SFTP limits", "round trip"):
        assert rows[subject].level is Level.OK, rows[subject]
    assert rows["remote directory"].level is Level.OK


@pytest.mark.sshd
@pytest.mark.parametrize(
    ("case", "subject", "text"),
    [
        ("unknown host", "host name", "nosuchhost.invalid"),
        ("refused", "reachability", "refused"),
        ("unknown host key", "known_hosts", "is in none of"),
        ("changed host key", "connection", "changed"),
        ("writable known_hosts", "known_hosts", "written by others"),
        ("no key fits", "connection", ""),
        ("no subsystem", "connection", "does not start"),
        ("no directory", "remote directory", ""),
        ("a file", "remote directory", "is not a directory"),
    ],
)
def test_what_is_wrong_with_a_server_is_named(
    ask: Ask, cli: Cli, remote: Path, tmp_path: Path, case: str, subject: str, text: str
) -> None:
    known = tmp_path / "known"
    match case:
        case "unknown host":
            rows = ask(source="nosuchhost.invalid:")
        case "refused":
            rows = ask(source="sftp://root@127.0.0.1:1/", is_bare=True)
        case "unknown host key":
            known.write_text("")
            rows = ask("-o", f"UserKnownHostsFile={known}")
        case "changed host key":
            public = cli.server.host_key.with_suffix(".pub").read_text().split()
            other = other_key()
            known.write_text(f"[127.0.0.1]:{cli.server.port} {public[0]} {other}\n")
            rows = ask("-o", f"UserKnownHostsFile={known}")
        case "writable known_hosts":
            shutil.copy(cli.server.known_hosts, known)
            known.chmod(0o666)
            rows = ask("-o", f"UserKnownHostsFile={known}")
        case "no key fits":
            rows = ask("-o", "PubkeyAuthentication=no,BatchMode=yes")
        case "no subsystem":
            rows = ask("-o", "sftp_server=nothing")
        case "no directory":
            rows = ask(path=remote / "nothing")
        case _:
            (remote / "file").write_text("")
            rows = ask(path=remote / "file")
    finding = rows[subject]
    assert finding.level is not Level.OK
    assert text in finding.text
    assert finding.advice


def other_key() -> str:
    """The base64 of another ed25519 key."""
    return asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode().split()[1]
