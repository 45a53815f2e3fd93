"""A private mount namespace with its own /etc and /usr/sbin, in which set-ups are done for real.

What is installed, configured or mounted in it is seen by nobody else and ends with it.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.harness import processes
from tests.harness.packages import require
from tests.harness.waiting import wait_until

NETFS = Path(sys.executable).with_name("netfs")
"""The command as the package's installation made it."""

_OVERLAID = ("etc", "usr/sbin", "usr/local", "root")


class Space:
    """Runs commands in the namespace that *holder* keeps."""

    def __init__(self, holder: subprocess.Popen[bytes], scratch: Path) -> None:
        self.holder = holder
        self.scratch = scratch
        self.inherited: frozenset[str] = frozenset()
        """netfs mounts of other tests, which were there when the namespace was made."""

    def argv(self, *command: str) -> list[str]:
        return ["nsenter", "-t", str(self.holder.pid), "-m", "--wd=/", "--", *command]

    def run(
        self, command: str, *, check: bool = True, timeout_s: float = 60, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """A shell line; with *check* a non-zero exit fails with what it printed."""
        done = subprocess.run(
            self.argv("sh", "-c", command),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env={**os.environ, "PATH": f"{NETFS.parent}:{os.environ['PATH']}", **environment},
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(f"{command}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def start(
        self, *command: str, log: Path, environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """A daemon in a session of its own."""
        with log.open("ab") as out:
            return subprocess.Popen(
                self.argv(*command),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
                env={**os.environ, **(environment or {})},
            )

    def mounts(self) -> dict[str, str]:
        """mountpoint -> type, from the table: no mount is touched."""
        table = Path(f"/proc/{self.holder.pid}/mountinfo").read_text()
        found = {}
        for line in table.splitlines():
            left, _, right = line.partition(" - ")
            found[left.split()[4].replace("\\040", " ")] = right.split()[0]
        return found

    def netfs_mounts(self) -> list[str]:
        return [
            where
            for where, kind in self.mounts().items()
            if kind == "fuse.netfs" and where not in self.inherited
        ]

    def mount_processes(self) -> list[int]:
        """All netfs processes that live in this namespace."""
        mine = os.readlink(f"/proc/{self.holder.pid}/ns/mnt")
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdigit() and int(entry) != self.holder.pid:
                with contextlib.suppress(OSError):  # it ended while we looked
                    if os.readlink(f"/proc/{entry}/ns/mnt") == mine:
                        found.append(int(entry))
        return found


@contextlib.contextmanager
def private_space(scratch: Path) -> Iterator[Space]:
    """A namespace for the length of the block; whatever still runs in it is killed at the end."""
    setup = ["mount --make-rprivate /"]
    # The overlay's upper half must not lie on an overlay itself (a container's /tmp does).
    setup.append(f"mount -t tmpfs tmpfs {shlex.quote(str(scratch))}")
    for directory in _OVERLAID:
        name = directory.replace("/", "-")
        upper, work = f"{scratch}/{name}", f"{scratch}/{name}.work"
        setup.append(f"mkdir -p {upper} {work}")
        setup.append(
            f"mount -t overlay overlay -o lowerdir=/{directory},upperdir={upper},workdir={work}"
            f" /{directory}"
        )
    setup.append(f"touch {scratch}/ready && exec sleep infinity")
    holder = subprocess.Popen(
        [require("unshare"), "-m", "--propagation", "private", "sh", "-ec", "\n".join(setup)],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    space = Space(holder, scratch)

    def ready() -> bool:
        assert holder.poll() is None, "the namespace could not be set up"
        return Path(f"/proc/{holder.pid}/root{scratch}/ready").exists()

    try:
        wait_until(ready, 10, "the namespace is set up")
        space.inherited = frozenset(space.netfs_mounts())
        yield space
    finally:
        for where in space.netfs_mounts() if holder.poll() is None else []:
            subprocess.run(space.argv("umount", "-l", where), capture_output=True, check=False)
        for number in (signal.SIGTERM, signal.SIGKILL):
            pids = space.mount_processes() if holder.poll() is None else []
            processes.send(pids, number)
            with contextlib.suppress(TimeoutError):  # SIGKILL is the next thing tried
                wait_until(lambda: not any(map(processes.alive, pids)), 5)  # noqa: B023
        processes.end(holder)
