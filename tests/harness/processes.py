"""Looking at and ending processes that tests started, always by pid."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterable
from pathlib import Path

from tests.harness.waiting import wait_until


def state(pid: int) -> str | None:
    """The state letter of *pid* (R, S, D, T, Z ...), or None when it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text[text.rindex(")") + 2]


def alive(pid: int) -> bool:
    """Whether *pid* runs (a zombie does not)."""
    return state(pid) not in (None, "Z", "X")


def parent(pid: int) -> int | None:
    """The parent of *pid*, or None when it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(text[text.rindex(")") + 2 :].split()[1])


def descendants(pid: int) -> list[int]:
    """All processes below *pid*, parents before children."""
    parents: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            above = parent(int(entry))
            if above is not None:  # else it ended while we looked
                parents.setdefault(above, []).append(int(entry))
    found: list[int] = []
    queue = [pid]
    while queue:
        children = parents.get(queue.pop(0), [])
        found += children
        queue += children
    return found


def send(pids: Iterable[int], number: int) -> None:
    """Signal each of *pids*; one that is gone already is no error."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def end(process: subprocess.Popen[str] | subprocess.Popen[bytes], grace_s: float = 5.0) -> int:
    """SIGTERM, then SIGKILL after *grace_s*; returns the exit status."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(grace_s)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait(10)


def end_tree(pid: int, grace_s: float = 5.0) -> None:
    """End *pid* and what it started; used when a test failed half-way."""
    pids = [pid, *descendants(pid)]
    send(pids, signal.SIGTERM)
    try:
        wait_until(lambda: not any(map(alive, pids)), grace_s, "the processes' end")
    except TimeoutError:
        send(pids, signal.SIGKILL)
