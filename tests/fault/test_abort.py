"""After ``abort_after`` no task waits unkillably, whatever stuck: the link, or netfs itself.

The deadlocks are those of the kernel's documentation (filesystems/fuse.rst): the daemon touches
its own mount; it faults in a page of a file on its own mount while it answers.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.support import Cli, answers
from tests.harness import mounts, processes
from tests.harness.relay import Relay
from tests.harness.sshd import Sshd
from tests.harness.waiting import wait_until

pytestmark = [pytest.mark.mount, pytest.mark.sshd, pytest.mark.root]

ABORT_S = 3
PATIENCE_S = 6.0  # beyond abort_after: the watchdog looks each second, and a busy machine

CALLS = (
    "os.mkdir('d/new')",
    "os.stat('d/unknown')",  # behind the mkdir: the kernel holds the directory's lock
    "os.rename('old', 'd/other')",
    "os.listdir('d')",
    "open('f', 'rb').read()",
    "os.truncate('f', 3)",
    "os.unlink('gone')",
)


@pytest.fixture
def cli(need_fuse: None, sshd: Sshd, remote: Path, tmp_path: Path) -> Iterator[Cli]:
    (remote / "d").mkdir()
    for name in ("f", "old", "gone"):
        (remote / name).write_text("hello")
    (remote / "big").write_bytes(os.urandom(8 << 20))
    made = Cli(sshd, tmp_path)
    yield made
    made.clean_up()


def call(point: Path, code: str) -> subprocess.Popen[bytes]:
    """A process that is there already when *point* gets stuck, and then waits in *code*."""
    program = f"import os, sys; os.chdir({str(point)!r}); print(flush=True); input(); {code}"
    caller = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert caller.stdout is not None
    caller.stdout.readline()
    return caller


def go(callers: list[subprocess.Popen[bytes]]) -> None:
    for caller in callers:
        assert caller.stdin is not None
        caller.stdin.write(b"\n")
        caller.stdin.flush()


def unkillable(callers: list[subprocess.Popen[bytes]]) -> list[str]:
    """What waits in D state, and where."""
    return [
        Path(f"/proc/{caller.pid}/stack").read_text()
        for caller in callers
        if processes.state(caller.pid) == "D"
    ]


def wait_free(callers: list[subprocess.Popen[bytes]], began: float) -> None:
    """All have ended within ABORT_S, by errors; they were not killed."""
    wait_until(
        lambda: all(caller.poll() is not None for caller in callers),
        ABORT_S + PATIENCE_S - (time.monotonic() - began),
        f"the callers' end: {unkillable(callers)}",
    )
    assert not unkillable(callers)
    assert all(caller.returncode == 1 for caller in callers)  # an exception: the error was seen
    for caller in callers:
        caller.communicate()


def test_a_lost_link_leaves_no_task_in_d_state(cli: Cli, remote: Path) -> None:
    with Relay(cli.server.port) as relay:
        port = cli.server.trust(relay.port)
        options = f"hard,abort_after={ABORT_S},ServerAliveInterval=1,no_kernel_cache"
        point = cli.mount(remote, options, port=port)
        callers = [call(point, code) for code in CALLS]
        relay.cut("blackhole")
        go(callers)
        wait_until(lambda: len(unkillable(callers)) > 1, 20, "tasks in D state")
        wait_until(lambda: "link down" in cli.log(), 30, "the link counts as lost")
        wait_free(callers, time.monotonic())
        cli.wait_state(point, "aborted")
        relay.heal(reset=True)
        wait_until(lambda: answers(point / "f"), 30, "the mount", every_s=0.1)


@pytest.mark.parametrize("how", ["touch", "fault"])
def test_a_deadlock_of_netfs_with_itself_leaves_no_task_in_d_state(
    cli: Cli, remote: Path, how: str
) -> None:
    point = cli.folder / "mnt"
    point.mkdir()
    cli.made.append(point)
    flag = cli.folder / "flag"
    words = cli.words(remote, point, [f"abort_after={ABORT_S},no_readahead,no_kernel_cache"])
    subprocess.run(
        [sys.executable, "-m", "tests.cli.suicidal", how, str(flag), *words],
        env=mounts.environment(),
        check=True,
        timeout=30,
        cwd=mounts.PROJECT,
    )
    worker = cli.worker(point)
    if how == "fault":
        flag.touch()
        subprocess.run(["stat", "-f", str(point)], check=True, capture_output=True, timeout=10)
        maps = Path(f"/proc/{worker}/maps")
        wait_until(lambda: str(point / "big") in maps.read_text(), 30, "the mapping")
    callers = [call(point, code) for code in ("os.statvfs('.')", *CALLS)]
    flag.touch()
    began = time.monotonic()
    go(callers[:1])
    wait_until(lambda: processes.state(worker) in ("D", "S") and not flag.exists(), 20, "it hangs")
    go(callers[1:])
    wait_free(callers, began)
    wait_until(lambda: answers(point / "f"), 30, "the mount", every_s=0.05)
    wait_until(lambda: not processes.alive(worker), 30, "the stuck worker's end")
    assert processes.state(worker) != "D"
    assert "suicidal.py" in cli.log()  # the stack dump names the culprit
