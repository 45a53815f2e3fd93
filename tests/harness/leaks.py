"""What a test leaves behind: mounts, namespaces and processes that were not there before it.

A process belongs to this run of the tests when it lives in the run's own mount namespace or has
inherited its MARK. What was there before the test (servers and mounts that several tests share)
may go on, and may have new children: only what nobody answers for is left behind.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from tests.harness import processes
from tests.harness.waiting import wait_until

MARK: Final = "NETFS_TEST_RUN"
PATIENCE_S: Final = 10.0  # a daemon that was told to end may still be at it
NETNS_FOLDER: Final = "/run/netns"  # mounted on itself by the first 'ip netns add', for good


class MountLine(NamedTuple):
    """One mount, named by the kernel's number for it."""

    id: str
    point: str
    type: str


@dataclass(frozen=True)
class Seen:
    """What there is at one moment."""

    mounts: frozenset[MountLine]
    pids: frozenset[int]


def mark_this_run() -> None:
    """Give all processes that start from now on something to be known by."""
    os.environ[MARK] = f"{os.getpid()}-{secrets.token_hex(4)}"


def look() -> Seen:
    """Look, without touching any mount."""
    return Seen(_mounts(), frozenset(_pids()))


def left_since(before: Seen, patience_s: float = PATIENCE_S) -> list[str]:
    """What has come since *before* and does not go by itself, taken away and described."""
    if not _mounts() - before.mounts and not _strays(before):
        return []
    try:
        wait_until(lambda: not _mounts() - before.mounts and not _strays(before), patience_s)
    except TimeoutError:
        return _take_away(before)
    return []


def _take_away(before: Seen) -> list[str]:
    strays, found = _strays(before), _mounts() - before.mounts
    said = [f"process {pid}: {command(pid)}" for pid in strays]
    said += [f"mount {line.type} on {line.point}" for line in found]
    processes.send(strays, signal.SIGKILL)
    for line in sorted(found, key=lambda line: int(line.id), reverse=True):
        subprocess.run(["umount", "-l", "-c", "-i", line.point], capture_output=True, timeout=20)
    return said


def _mounts() -> frozenset[MountLine]:
    found = set()
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        fields = left.split()
        if fields[4] != NETNS_FOLDER:
            found.add(MountLine(fields[0], fields[4].replace("\\040", " "), right.split()[0]))
    return frozenset(found)


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _strays(before: Seen) -> list[int]:
    """Running processes of ours which are new, and whose parents are new as well, or are we."""
    return [
        pid
        for pid in _pids()
        if pid not in before.pids
        and _is_ours(pid)
        and _is_alone(pid, before)
        and processes.alive(pid)
    ]


def _is_ours(pid: int) -> bool:
    mine = _namespace("self")
    if mine != _namespace(os.getppid()) and mine == _namespace(pid):
        return True
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False  # it has ended, or is somebody else's
    return f"{MARK}={os.environ[MARK]}".encode() in environment.split(b"\0")


def _namespace(pid: int | str) -> str | None:
    """The mount namespace of *pid*; None: it has ended, or is not ours to see."""
    try:
        return os.readlink(f"/proc/{pid}/ns/mnt")
    except OSError:
        return None


def _is_alone(pid: int, before: Seen) -> bool:
    """Whether no process that was there before, but this one and init, is above it."""
    while (parent := processes.parent(pid)) is not None:
        if parent in (os.getpid(), 1):
            return True
        if parent in before.pids:
            return False
        pid = parent
    return True


def command(pid: int) -> str:
    try:
        text = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return "has ended"
    return text.strip()[:300]
