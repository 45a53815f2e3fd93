"""docs/server.md as written: its blocks are copied out and run, with the paths of a sandbox."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from netfs.server import authorized
from tests.harness.packages import require
from tests.harness.processes import end_tree
from tests.harness.sshd import free_port, make_key, running_sshd
from tests.harness.waiting import wait_until
from tests.server.served import TREE, environment

pytestmark = [pytest.mark.sshd, pytest.mark.root]

TEXT = (TREE / "docs" / "server.md").read_text()


def blocks(kind: str) -> list[str]:
    """The fenced blocks of docs/server.md that are marked *kind*."""
    return re.findall(rf"^```{kind}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def block(start: str) -> str:
    """The one shell block that has *start* in it."""
    (found,) = (text for text in blocks("sh") if start in text)
    return found


class Machine:
    """A machine made of directories: commands run as written, with its paths and its port."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.port = free_port()
        self.servers: list[subprocess.Popen[bytes]] = []
        self.home = base / "root"
        bin_ = base / "bin"
        for directory in (self.home / ".ssh", bin_, base / "etc", base / "srv", base / "mnt"):
            directory.mkdir(parents=True)
        netfs = bin_ / "netfs"
        netfs.write_text(f'#!/bin/sh\nPYTHONPATH={TREE} exec {sys.executable} -m netfs "$@"\n')
        # Making users is not a test's business; there is one who owns nothing.
        for name, script in {"useradd": "true", "systemctl": "true"}.items():
            (bin_ / name).write_text(f"#!/bin/sh\n{script}\n")
        for program in bin_.iterdir():
            program.chmod(0o755)
        key = make_key(self.home / ".ssh" / "id_ed25519")
        shutil.copy(key.with_suffix(".pub"), self.home / ".ssh" / "authorized_keys")
        (self.home / ".ssh" / "config").write_text(
            f"Host *\n UserKnownHostsFile {self.home}/.ssh/known_hosts\n BatchMode yes\n"
            f" IdentityFile {self.home}/.ssh/id_ed25519\n IdentityFile {self.home}/.ssh/id_export\n"
            " StrictHostKeyChecking accept-new\n IdentityAgent none\n"
        )

    def here(self, text: str) -> str:
        """*text* with this machine's places for the ones in the documentation."""
        for path in ("/srv/", "/etc/netfs", "/etc/systemd", "/mnt/"):
            text = text.replace(path, f"{self.base}{path}")
        text = text.replace("~/", f"{self.home}/").replace("2022", str(self.port))
        text = text.replace("/usr/local/bin/netfs", str(self.base / "bin" / "netfs"))
        text = text.replace("netfs-export", "nobody").replace("-g nobody", "-g nogroup")
        ssh = f"-F {self.home}/.ssh/config"
        return re.sub(
            r"^(netfs -p|sshfs)|(?<=\| )(sftp)", rf"\g<0> {ssh}", text, flags=re.MULTILINE
        ).replace(f"netfs -p {ssh}", f"netfs {ssh} -p")

    @property
    def env(self) -> dict[str, str]:
        return {
            **environment(),
            "HOME": str(self.home),
            "PATH": f"{self.base}/bin:{os.environ['PATH']}",
            "STATE_DIRECTORY": str(self.base / "state"),
        }

    def run(self, text: str) -> str:
        """Run a block to its end; its output."""
        done = subprocess.run(
            ["sh", "-euc", self.here(text)], env=self.env, capture_output=True, text=True,
            timeout=60, cwd=TREE,
        )  # fmt: skip
        assert done.returncode == 0, f"{self.here(text)}\n{done.stdout}{done.stderr}"
        return done.stdout

    def serve(self, text: str) -> None:
        """Run a block whose last line is a server; returns when it listens."""
        log = self.base / "serve.log"
        with open(log, "wb") as output:
            process = subprocess.Popen(
                ["sh", "-euc", self.here(text)], env=self.env, stdin=subprocess.DEVNULL,
                stdout=output, stderr=output, cwd=TREE, start_new_session=True,
            )  # fmt: skip
        self.servers.append(process)
        wait_until(lambda: process.poll() is not None or "listening" in log.read_text(), 20, "it")
        assert process.poll() is None, log.read_text()

    def stop(self) -> None:
        while self.servers:
            server = self.servers.pop()
            end_tree(server.pid)
            server.wait(10)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    for parent in (tmp_path, *tmp_path.parents):
        if parent in (Path("/tmp"), Path("/")):
            break
        parent.chmod(0o755)
    made = Machine(tmp_path)
    yield made
    with contextlib.suppress(FileNotFoundError):
        subprocess.run(["umount", "-l", tmp_path / "mnt" / "export"], capture_output=True)
    made.stop()


SFTP = block("echo ls | sftp")


def test_for_a_moment(machine: Machine) -> None:
    machine.serve(block("mkdir -p /srv/export\nnetfs serve"))
    (machine.base / "srv" / "export" / "hello").write_text("hi")
    assert "hello" in machine.run(SFTP)


@pytest.mark.mount
def test_for_a_moment_mounted(machine: Machine, need_fuse: None) -> None:
    machine.serve(block("mkdir -p /srv/export\nnetfs serve"))
    (machine.base / "srv" / "export" / "hello").write_text("hi")
    machine.run(block("netfs -p 2022"))
    mountpoint = machine.base / "mnt" / "export"
    assert (mountpoint / "hello").read_text() == "hi"
    machine.run("umount /mnt/export")


def test_as_a_service(machine: Machine) -> None:
    machine.run(block("useradd --system"))
    (machine.home / ".ssh" / "authorized_keys").unlink()
    machine.run("mkdir -p /etc/systemd/system\n" + blocks("systemd")[0])
    assert (machine.base / "etc/systemd/system/netfs-serve.socket").exists()
    machine.serve(block("--user netfs-export --umask"))
    machine.run(SFTP.replace("echo ls", "echo mkdir made"))
    assert (machine.base / "srv" / "export" / "made").stat().st_uid == 65534


def test_certificates(machine: Machine) -> None:
    machine.run(block("useradd --system"))
    (machine.home / ".ssh" / "authorized_keys").unlink()
    machine.serve(block("--user-ca"))
    machine.run(SFTP)


def test_passwords(machine: Machine) -> None:
    machine.run(block("useradd --system"))
    machine.serve(block("--hash-password"))
    text = (machine.base / "etc" / "netfs" / "passwords").read_text()
    passwords, refused = authorized.parse_passwords(text, "passwords")
    assert not refused
    assert passwords["somebody"].is_right("correct horse")


def test_inside_an_sshd(machine: Machine) -> None:
    (line,) = blocks("sshd_config")
    export = machine.base / "srv" / "export"
    export.mkdir()
    (export / "hello").write_text("hi")
    subsystem = machine.here(line).strip().removeprefix("Subsystem sftp ")
    with running_sshd(machine.base / "sshd", subsystem=subsystem) as sshd:
        done = subprocess.run(
            [require("sftp"), *sshd.options(), "-b", "-", f"{sshd.user}@127.0.0.1"],
            input="ls -1 /\n", capture_output=True, text=True, timeout=30,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "hello" in done.stdout


@pytest.mark.mount
def test_chosen_by_sshfs(machine: Machine, need_fuse: None) -> None:
    export = machine.base / "srv" / "export"
    export.mkdir()
    (export / "hello").write_text("hi")
    mountpoint = machine.base / "mnt" / "export"
    mountpoint.mkdir()
    with running_sshd(machine.base / "sshd") as sshd:
        text = block("sshfs -o sftp_server").replace("user@host", f"{sshd.user}@127.0.0.1")
        config = " ".join(sshd.options())
        machine.run(text.replace("sshfs -o", f"sshfs {config} -o"))
        assert (mountpoint / "hello").read_text() == "hi"
        machine.run("umount /mnt/export")


def test_the_key_lines_are_understood() -> None:
    lines = "".join(blocks("authorized_keys"))
    entries, refused = authorized.parse(lines, "docs")
    assert not refused
    assert entries[0].root == "/srv/export/public"
    assert entries[0].read_only
    assert entries[1].admits("10.2.3.4", 0)
    assert not entries[1].admits("10.0.0.1", 0)
    assert not entries[1].admits("10.2.3.4", 2e9)


def test_every_shell_block_is_run_by_a_test() -> None:
    source = Path(__file__).read_text()
    used = set(re.findall(r'(?:block|SFTP = block)\("((?:[^"\\]|\\.)*)"\)', source))
    starts = [start.encode().decode("unicode_escape") for start in used]
    for text in blocks("sh"):
        assert any(start in text for start in starts), text


def test_the_options_of_the_documentation_exist() -> None:
    from netfs.cli.serve import make_parser

    known = {option for action in make_parser()._actions for option in action.option_strings}
    assert set(re.findall(r"--[a-z][a-z-]+", TEXT)) - known <= {
        "--now", "--system", "--home-dir", "--shell",
    }  # fmt: skip
