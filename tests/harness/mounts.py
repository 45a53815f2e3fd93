"""Mounts of netfs and sshfs for tests: made, awaited without touching them, always cleaned up."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from tests.harness import processes
from tests.harness.packages import require
from tests.harness.sshd import Sshd
from tests.harness.waiting import wait_until

PROJECT: Final = Path(__file__).resolve().parents[2]
Peer = Literal["netfs", "sshfs"]


class MountFailed(RuntimeError):
    """The client ended, or did not mount in time; carries what it said."""


def is_mounted(mountpoint: str | Path) -> bool:
    """Whether something is mounted there, read from mountinfo: a stuck mount is not touched."""
    return connection_of(mountpoint) is not None


def connection_of(mountpoint: str | Path) -> int | None:
    """The device's minor number: the mount's directory in the fuse control filesystem."""
    wanted = os.fspath(mountpoint)
    found = None
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[4].replace("\\040", " ") == wanted:
            found = int(fields[2].split(":")[1])  # the last one is on top
    return found


def unmount_lazily(mountpoint: str | Path) -> None:
    """Detach whatever is mounted there, without resolving the path through it."""
    for _ in range(4):
        if not is_mounted(mountpoint):
            return
        if os.geteuid() == 0:
            command = ["umount", "-l", "-c", "-i", os.fspath(mountpoint)]
        else:
            command = [require("fusermount3"), "-u", "-z", os.fspath(mountpoint)]
        subprocess.run(command, capture_output=True, timeout=20)


def drop_caches() -> None:
    """Empty the page, dentry and inode caches of this machine (root only; no effect otherwise)."""
    subprocess.run(["sync"], timeout=120, check=True)
    if os.geteuid() == 0:
        Path("/proc/sys/vm/drop_caches").write_text("3")


@dataclass
class Mount:
    """A mounted directory and the foreground process that serves it."""

    path: Path
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        """The process that was started: netfs's supervisor, or sshfs."""
        return self.process.pid

    def pids(self) -> list[int]:
        """That process and all below it."""
        return [self.pid, *processes.descendants(self.pid)]

    def worker(self) -> int:
        """netfs's worker: the descendant that holds /dev/fuse."""
        for pid in self.pids():
            if "/dev/fuse" in _open_files(pid):
                return pid
        raise ProcessLookupError(f"no process below {self.pid} has /dev/fuse open")

    def text(self) -> str:
        """What the client printed so far."""
        return self.log.read_text(errors="replace")

    def unmount(self, timeout_s: float = 30.0) -> int:
        """End it as a user would (umount or fusermount3 -u); returns the client's exit status."""
        if is_mounted(self.path):
            if os.geteuid() == 0:
                command = ["umount", os.fspath(self.path)]
            else:
                command = [require("fusermount3"), "-u", os.fspath(self.path)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s)
            if done.returncode:
                raise RuntimeError(f"umount {self.path}: {done.stderr.strip()}")
        return self.process.wait(timeout_s)

    def clean_up(self) -> None:
        """Whatever state it is in: nothing of it is left afterwards."""
        if self.process.poll() is None and is_mounted(self.path):
            with contextlib.suppress(RuntimeError, subprocess.TimeoutExpired):  # the hard way next
                self.unmount(10)
        if self.process.poll() is None:
            processes.end_tree(self.pid)
        unmount_lazily(self.path)
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)


def netfs_command(*arguments: str) -> list[str]:
    """The argv of this tree's netfs under the interpreter that runs the tests.

    NETFS_TEST_PROGRAM names another one, such as an installed ``netfs``.
    """
    program = shlex.split(os.environ.get("NETFS_TEST_PROGRAM", ""))
    return [*(program or (sys.executable, "-m", "netfs")), *arguments]


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment in which ``python -m netfs`` finds this tree from any directory."""
    found = {**os.environ, "PYTHONPATH": os.fspath(PROJECT), **(extra or {})}
    found.pop("SSH_AUTH_SOCK", None)
    found.pop("PYTHONDONTWRITEBYTECODE", None)  # as installed: it would be compiled for each mount
    return found


def command_for(
    peer: Peer,
    server: Sshd,
    remote: str | Path,
    mountpoint: Path,
    options: Sequence[str] = (),
    port: int | None = None,
    source: str | None = None,
) -> list[str]:
    """The argv that mounts *remote* of *server*; *options* are words for ``-o``.

    *source* replaces ``user@127.0.0.1:remote``.
    """
    arguments = [
        source or server.source(remote),
        os.fspath(mountpoint),
        "-f",
        *server.options(port),
    ]
    for option in options:
        arguments += ["-o", option]
    return netfs_command(*arguments) if peer == "netfs" else [require("sshfs"), *arguments]


def start(
    command: Sequence[str],
    mountpoint: Path,
    *,
    timeout_s: float = 20.0,
    wait: bool = True,
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    stdin: int = subprocess.DEVNULL,
    stdout: int | None = None,
    cwd: Path | None = None,
) -> Mount:
    """Start a client in the foreground; returns when the kernel lists its mount."""
    mountpoint.mkdir(parents=True, exist_ok=True)
    log = mountpoint.with_name(mountpoint.name + ".log")
    with log.open("ab") as output:
        process = subprocess.Popen(
            list(command),
            stdin=stdin,
            stdout=output if stdout is None else stdout,
            stderr=output,
            env=environment(env),
            start_new_session=True,
            pass_fds=pass_fds,
            cwd=cwd or mountpoint.parent,
        )
    mount = Mount(mountpoint, process, log)
    if wait:
        try:
            wait_ready(mount, timeout_s)
        except BaseException:
            mount.clean_up()
            raise
    return mount


def wait_ready(mount: Mount, timeout_s: float = 20.0) -> None:
    """Wait until the kernel lists the mount and its root answers.

    Raises:
        MountFailed: the client ended or was too slow; the message holds what it printed.
    """

    def listed() -> bool:
        if mount.process.poll() is not None:
            raise MountFailed(f"ended with {mount.process.returncode}:\n{mount.text()[-4000:]}")
        return is_mounted(mount.path)

    try:
        wait_until(listed, timeout_s, f"a mount at {mount.path}", every_s=0.005)
        subprocess.run(
            ["stat", "-f", os.fspath(mount.path)], capture_output=True, timeout=timeout_s
        )
    except (TimeoutError, subprocess.TimeoutExpired) as error:
        raise MountFailed(f"{error}\n{mount.text()[-4000:]}") from None


@contextlib.contextmanager
def mounted(
    server: Sshd,
    remote: str | Path,
    mountpoint: Path,
    *,
    options: Sequence[str] = (),
    peer: Peer = "netfs",
    port: int | None = None,
    source: str | None = None,
    timeout_s: float = 20.0,
    env: Mapping[str, str] | None = None,
) -> Iterator[Mount]:
    """*remote* of *server* at *mountpoint* for the length of the block; *port*: a relay's."""
    command = command_for(peer, server, remote, mountpoint, options, port, source)
    mount = start(command, mountpoint, timeout_s=timeout_s, env=env)
    try:
        yield mount
    finally:
        mount.clean_up()


def _open_files(pid: int) -> list[str]:
    """What the descriptors of *pid* lead to; a descriptor closed meanwhile is left out."""
    found = []
    with contextlib.suppress(OSError):  # the process ended while we looked
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):  # only this descriptor was closed
                found.append(os.readlink(link))
    return found
