"""The kernel documentation's four ways to end a mount, and its two deadlocks.

Source: Documentation/filesystems/fuse.rst, "Aborting a filesystem connection" and what follows.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.support import Cli, answers
from tests.harness import mounts
from tests.harness.relay import Relay
from tests.harness.sshd import Sshd
from tests.harness.waiting import wait_until

pytestmark = [pytest.mark.mount, pytest.mark.sshd, pytest.mark.root]


@pytest.fixture
def relay(sshd: Sshd) -> Iterator[Relay]:
    with Relay(sshd.port) as made:
        yield made


@pytest.fixture
def stuck(cli: Cli, remote: Path, relay: Relay) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    """A mount whose server is silent, and a caller that waits for it and ignores signals."""
    (remote / "f").write_text("hello")
    point = cli.mount(remote, "hard", port=relay.port)
    relay.cut("blackhole")
    caller = subprocess.Popen(["stat", str(point / "f")], stderr=subprocess.DEVNULL)
    wait_until(lambda: cli.status(point)["supervisor"]["waiting"], 20, "a caller that waits")
    yield point, caller
    caller.kill()
    caller.wait(10)


def back(point: Path, relay: Relay) -> None:
    relay.heal(reset=True)
    wait_until(lambda: answers(point / "f"), 30, "the mount", every_s=0.05)


def test_ending_the_daemon(
    cli: Cli, stuck: tuple[Path, subprocess.Popen[bytes]], relay: Relay
) -> None:
    point, caller = stuck
    os.kill(cli.worker(point), signal.SIGKILL)
    assert caller.wait(20) != 0
    back(point, relay)


def test_ending_the_daemon_and_its_users(
    cli: Cli, stuck: tuple[Path, subprocess.Popen[bytes]], relay: Relay
) -> None:
    point, caller = stuck
    os.kill(cli.worker(point), signal.SIGKILL)
    caller.kill()
    assert caller.wait(20) != 0
    back(point, relay)


def test_umount_f(cli: Cli, stuck: tuple[Path, subprocess.Popen[bytes]], relay: Relay) -> None:
    point, caller = stuck
    supervisor = cli.supervisor(point)
    # it aborts; whether it also unmounts depends on whether the caller is gone by then
    done = subprocess.run(["umount", "-i", "-f", str(point)], capture_output=True, timeout=10)
    assert caller.wait(20) != 0
    if done.returncode == 0:
        relay.heal(reset=True)
        wait_until(lambda: not os.path.exists(f"/proc/{supervisor}"), 30, "the end")
    else:
        back(point, relay)


def test_abort(cli: Cli, stuck: tuple[Path, subprocess.Popen[bytes]], relay: Relay) -> None:
    point, caller = stuck
    assert cli.tool("abort", str(point)).returncode == 0
    assert caller.wait(20) != 0
    back(point, relay)


@pytest.mark.parametrize("how", ["touch", "fault"])
def test_a_deadlock_is_resolved_within_abort_after(cli: Cli, remote: Path, how: str) -> None:
    (remote / "f").write_text("hello")
    (remote / "big").write_bytes(os.urandom(8 << 20))
    point = cli.folder / "mnt"
    point.mkdir()
    cli.made.append(point)
    flag = cli.folder / "flag"
    command = [sys.executable, "-m", "tests.cli.suicidal", how, str(flag)]
    words = cli.words(remote, point, ["abort_after=3,no_readahead,no_kernel_cache"])
    subprocess.run(
        [*command, *words], env=mounts.environment(), check=True, timeout=30, cwd=mounts.PROJECT
    )
    worker = cli.worker(point)
    if how == "fault":
        flag.touch()
        subprocess.run(["stat", "-f", str(point)], check=True, capture_output=True, timeout=10)
        maps = Path(f"/proc/{worker}/maps")
        wait_until(lambda: str(point / "big") in maps.read_text(), 30, "the mapping")
    flag.touch()
    began = time.monotonic()
    caller = subprocess.Popen(["stat", "-f", str(point)], stderr=subprocess.DEVNULL)
    assert caller.wait(30) != 0
    assert time.monotonic() - began < 3 + 3
    wait_until(lambda: answers(point / "f"), 30, "the mount", every_s=0.05)
    wait_until(lambda: not os.path.exists(f"/proc/{worker}"), 30, "the stuck worker's end")
    assert "suicidal.py" in cli.log()  # the stack dump names the culprit
