"""netfs as a service: as PID 1, under systemd, with a password on stdin, as a plain user."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.support import Cli, answers
from tests.harness import mounts
from tests.harness.packages import require
from tests.harness.sftpd import running_sftpd
from tests.harness.waiting import wait_until
from tests.server.served import serving

pytestmark = [pytest.mark.mount, pytest.mark.sshd]


@pytest.mark.root
def test_as_pid_1_it_reaps_orphans_and_ends_with_zero_on_sigterm(cli: Cli, remote: Path) -> None:
    (remote / "f").write_text("hello")
    point = cli.folder / "mnt"
    point.mkdir()
    words = mounts.netfs_command(*cli.words(remote, point), "-f")
    # a pid namespace whose first process is netfs itself, and an orphan that it inherits
    command = [require("unshare"), "--pid", "--fork", "--mount-proc", "--kill-child=KILL"]
    script = '(sleep 0.4 & exec sleep 0.1) & exec "$@"'
    process = subprocess.Popen(
        [*command, "bash", "-c", script, "bash", *words],
        env=mounts.environment(),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")

        def first() -> int | None:
            found = children.read_text().split()
            return int(found[0]) if found else None

        pid = wait_until(first, 30, "the first process")
        assert pid is not None
        inside = [require("nsenter"), "-t", str(pid), "-m", "-p"]

        def mounted() -> bool:
            done = subprocess.run([*inside, "cat", str(point / "f")], capture_output=True)
            return done.stdout == b"hello"

        wait_until(mounted, 30, "the mount")

        def no_zombie() -> bool:
            done = subprocess.run([*inside, "ps", "-e", "-o", "stat="], capture_output=True)
            return b"Z" not in done.stdout

        wait_until(no_zombie, 20, "the orphans to be reaped")
        os.kill(pid, signal.SIGTERM)
        assert process.wait(30) == 0, process.stderr and process.stderr.read()
    finally:
        process.kill()
        process.wait(10)
        if process.stderr is not None:
            process.stderr.close()


def test_systemd_is_told_ready_watchdog_and_stopping(cli: Cli, remote: Path) -> None:
    point = cli.folder / "mnt"
    point.mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(str(cli.folder / "notify"))
        notified.settimeout(60)
        process = subprocess.Popen(
            mounts.netfs_command(*cli.words(remote, point), "-f"),
            env=mounts.environment({"NOTIFY_SOCKET": str(cli.folder / "notify")}),
            stderr=subprocess.DEVNULL,
        )
        try:
            said: list[str] = []
            while not any(line.startswith("READY=1") for line in said):
                said += notified.recv(4096).decode().splitlines()
            assert mounts.is_mounted(point)
            assert f"MAINPID={process.pid}" in said
            while "WATCHDOG=1" not in said:
                said += notified.recv(4096).decode().splitlines()
            process.terminate()
            while "STOPPING=1" not in said:
                said += notified.recv(4096).decode().splitlines()
            assert process.wait(30) == 0
        finally:
            process.kill()
            process.wait(10)
            mounts.unmount_lazily(point)


@contextlib.contextmanager
def password_server(folder: Path, root: Path) -> Iterator[tuple[str, ...]]:
    """A server that takes somebody's password 'right'; the words that lead there."""
    hashed = subprocess.run(
        mounts.netfs_command("serve", "--hash-password"),
        input="right\n",
        capture_output=True,
        text=True,
        check=True,
        env=mounts.environment(),
    ).stdout
    (folder / "passwords").write_text(f"somebody:{hashed}")
    with serving(folder / "serve", root, "--passwords", str(folder / "passwords")) as one:
        options = "StrictHostKeyChecking=no,UserKnownHostsFile=/dev/null,IdentityAgent=none"
        yield (
            *mounts.netfs_command("somebody@127.0.0.1:/", str(folder / "mnt")),
            *("-p", str(one.port), "-F", "none"),
            *("-o", f"{options},PubkeyAuthentication=no"),
            *("-o", f"runtime_dir={folder / 'run'},log_file={folder / 'log'}"),
        )


@pytest.fixture
def locked(need_fuse: None, tmp_path: Path, remote: Path) -> Iterator[tuple[Cli, Path, list[str]]]:
    """A mountpoint and the command that mounts there once it has the password."""
    (remote / "f").write_text("hello")
    cli = Cli(None, tmp_path)  # type: ignore[arg-type]  # another server than sshd
    point = tmp_path / "mnt"
    point.mkdir()
    cli.made.append(point)
    with password_server(tmp_path, remote) as words:
        yield cli, point, list(words)
        cli.clean_up()
        assert not list((tmp_path / "run").glob("*.sock"))  # umount --force leaves no supervisor


def test_a_password_on_stdin_serves_a_second_worker_too(
    locked: tuple[Cli, Path, list[str]],
) -> None:
    cli, point, words = locked
    done = subprocess.run(
        [*words, "-o", "password_stdin"],
        input="right\n",
        capture_output=True,
        text=True,
        env=mounts.environment(),
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    assert (point / "f").read_text() == "hello"
    os.kill(cli.worker(point), signal.SIGKILL)
    wait_until(lambda: answers(point / "f"), 30, "the mount", every_s=0.05)


def on_terminal(words: list[str]) -> subprocess.Popen[bytes]:
    """*words* on a terminal of their own, which this process types on."""
    return subprocess.Popen(
        [require("script"), "-qec", f"exec {shlex.join(words)}", "/dev/null"],
        env=mounts.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )


def read_until(process: subprocess.Popen[bytes], text: bytes) -> bytes:
    assert process.stdout is not None
    shown = b""
    while text not in shown:
        piece = os.read(process.stdout.fileno(), 1024)
        assert piece, shown
        shown += piece
    return shown


def test_the_password_is_asked_on_the_terminal_before_anything_is_mounted(
    locked: tuple[Cli, Path, list[str]],
) -> None:
    _, point, words = locked
    with on_terminal(words) as process:
        read_until(process, b"assword")
        assert not mounts.is_mounted(point)
        assert process.stdin is not None
        process.stdin.write(b"right\n")
        process.stdin.flush()
        assert process.wait(30) == 0
    assert (point / "f").read_text() == "hello"


def test_control_c_at_the_password_leaves_nothing(locked: tuple[Cli, Path, list[str]]) -> None:
    _, point, words = locked
    with on_terminal(words) as process:
        read_until(process, b"assword")
        assert process.stdin is not None
        process.stdin.write(b"\x03")
        process.stdin.flush()
        assert process.wait(30) == 130
    assert not mounts.is_mounted(point)
    assert not list((point.parent / "run").iterdir())


@pytest.mark.parametrize(("answer", "code"), [(b"no\n", 14), (b"yes\n", 0)])
def test_an_unknown_host_key_is_asked_about_on_the_terminal(
    cli: Cli, remote: Path, tmp_path: Path, answer: bytes, code: int
) -> None:
    (remote / "f").write_text("hello")
    point = tmp_path / "mnt"
    point.mkdir()
    cli.made.append(point)
    known = tmp_path / "known"
    ask = f"StrictHostKeyChecking=ask,BatchMode=no,UserKnownHostsFile={known}"
    with on_terminal(mounts.netfs_command(*cli.words(remote, point, [ask]))) as process:
        assert b"SHA256:" in read_until(process, b"(yes/no")
        assert not mounts.is_mounted(point)
        assert process.stdin is not None
        process.stdin.write(answer)
        process.stdin.flush()
        assert process.wait(30) == code
    assert mounts.is_mounted(point) == known.exists() == (code == 0)


def test_a_passphrase_is_asked_by_ssh_askpass(cli: Cli, remote: Path, tmp_path: Path) -> None:
    (remote / "f").write_text("hello")
    point = tmp_path / "mnt"
    point.mkdir()
    cli.made.append(point)
    key = tmp_path / "key"
    key.write_bytes(cli.server.user_key.read_bytes())
    key.chmod(0o600)
    change = [require("ssh-keygen"), "-q", "-p", "-P", "", "-N", "a phrase", "-f", str(key)]
    subprocess.run(change, check=True, capture_output=True, timeout=20)
    askpass = tmp_path / "askpass"
    askpass.write_text(f'#!/bin/sh\necho "$1" >> {tmp_path / "asked"}\necho a phrase\n')
    askpass.chmod(0o755)
    words = cli.words(remote, point, [f"BatchMode=no,IdentityFile={key}"])
    config = tmp_path / "ssh_config"
    config.write_text(
        "".join(
            line
            for line in cli.server.client_config.read_text().splitlines(keepends=True)
            if "IdentityFile" not in line
        )
    )
    words[words.index(str(cli.server.client_config))] = str(config)
    done = subprocess.run(
        mounts.netfs_command(*words),
        env=mounts.environment({"SSH_ASKPASS": str(askpass), "SSH_ASKPASS_REQUIRE": "force"}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    assert (point / "f").read_text() == "hello"
    assert str(key) in (tmp_path / "asked").read_text()


USER = """
import os, signal, subprocess, sys, time
sys.path.insert(0, {project!r})
from pathlib import Path
from tests.cli.support import Cli, answers
from tests.harness import mounts
from tests.harness.waiting import wait_until
cli = Cli(None, Path({place!r}))
point = Path({place!r}, "m")
point.mkdir()
words = [{source!r}, str(point), "-o", "directport={port},abort_after=3,link_timeout=5"]
words += ["-o", f"runtime_dir={{cli.folder / 'run'}},log_file={{cli.folder / 'log'}}"]
done = cli.run(*words)
assert done.returncode == 0, done.stderr
cli.made.append(point)
try:
    assert answers(point / "f")
    os.kill(cli.worker(point), signal.SIGKILL)
    wait_until(lambda: answers(point / "f"), 30, "the mount after a death", every_s=0.05)
    os.kill(cli.worker(point), signal.SIGSTOP)
    caller = subprocess.Popen(["stat", str(point / "nothing")], stderr=subprocess.DEVNULL)
    assert caller.wait(30) != 0
    wait_until(lambda: answers(point / "f"), 30, "the mount after a hang", every_s=0.05)
    assert cli.tool("umount", str(point)).returncode == 0
    assert not mounts.is_mounted(point)
    print("done")
finally:
    cli.clean_up()
"""


@pytest.mark.root
def test_a_user_s_mount_survives_death_and_hang_without_privileges(
    fuse_for_users: None, remote: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    (remote / "f").write_text("hello")
    remote.chmod(0o755)
    place = Path("/tmp") / f"netfs-user-{os.getpid()}-{time.monotonic_ns()}"
    place.mkdir()
    os.chown(place, 65534, 65534)
    try:
        with running_sftpd() as port:
            program = USER.format(
                project=str(mounts.PROJECT),
                place=str(place),
                source=f"127.0.0.1:{remote}",
                port=port,
            )
            ids = ["--reuid=65534", "--regid=65534", "--clear-groups"]
            # the interpreter and the server's side may lie where only root may read
            reading = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
            done = subprocess.run(
                [require("setpriv"), *ids, *reading, sys.executable, "-c", program],
                env={**os.environ, "HOME": str(place), "XDG_RUNTIME_DIR": str(place)},
                capture_output=True,
                text=True,
                timeout=100,
                cwd="/",
            )
        assert done.stdout.strip() == "done", done.stderr + (
            (place / "log").read_text() if (place / "log").exists() else ""
        )
    finally:
        subprocess.run(["rm", "-rf", "--one-file-system", str(place)], timeout=30)
