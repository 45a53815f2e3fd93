"""Daemons that die or stick: nobody stays blocked, and the mount comes back by itself."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.conftest import Mounter
from tests.harness import processes
from tests.harness.mounts import Mount, is_mounted
from tests.harness.waiting import wait_until

pytestmark = [pytest.mark.mount, pytest.mark.sshd]


def answers(path: Path, timeout_s: float = 3) -> bool:
    """Whether the mount is there and lists, tried by a process that may be left behind."""
    if not is_mounted(path):
        return False
    code = f"import os; os.listdir({os.fspath(path)!r})"
    child = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    try:
        return child.wait(timeout_s) == 0
    except subprocess.TimeoutExpired:
        child.kill()
        return False


def replaced(mount: Mount, victim: int) -> bool:
    """Whether another worker than *victim* holds the mount."""
    try:
        return mount.worker() != victim
    except ProcessLookupError:
        return False


def test_a_killed_worker_is_replaced_in_two_seconds_and_blocks_nobody(
    mount_at: Mounter, remote: Path
) -> None:
    mount = mount_at(remote)
    (mount.path / "kept").write_text("closed before the kill")
    fd = os.open(mount.path / "synced", os.O_CREAT | os.O_WRONLY)
    os.write(fd, b"s" * 100_000)
    os.fsync(fd)
    stop = threading.Event()

    def load(number: int) -> None:
        count = 0
        while not stop.is_set():
            try:
                (mount.path / f"load{number}-{count}").write_bytes(b"x" * 50_000)
                os.listdir(mount.path)
            except OSError:
                time.sleep(0.05)  # the mount is being replaced
            count += 1

    threads = [threading.Thread(target=load, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    victim = mount.worker()
    os.kill(victim, signal.SIGKILL)
    killed = time.monotonic()
    wait_until(
        lambda: replaced(mount, victim) and answers(mount.path), 20, "it answers", every_s=0.02
    )
    took = time.monotonic() - killed
    stop.set()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive(), "a process stayed blocked"
    with contextlib.suppress(OSError):  # its mount is gone: ENOTCONN
        os.close(fd)
    assert took < 4, f"{took:.1f} s until the mount was back"
    assert mount.worker() != victim
    assert (remote / "synced").read_bytes() == b"s" * 100_000
    assert (mount.path / "kept").read_text() == "closed before the kill"
    assert mount.unmount() == 0


def test_a_worker_that_dies_again_and_again_is_given_up_with_a_message(
    mount_at: Mounter, remote: Path
) -> None:
    mount = mount_at(remote)
    deadline = time.monotonic() + 50
    while mount.process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(ProcessLookupError):  # none is there at this moment
            os.kill(mount.worker(), signal.SIGKILL)
        time.sleep(0.3)
    assert mount.process.wait(20) != 0
    assert not is_mounted(mount.path)
    assert "giving up" in mount.text(), mount.text()


def test_sigterm_writes_everything_back_and_unmounts(mount_at: Mounter, remote: Path) -> None:
    mount = mount_at(remote)
    data = os.urandom(3 << 20)
    file = (mount.path / "f").open("wb", buffering=0)
    file.write(data)
    os.kill(mount.pid, signal.SIGTERM)
    assert mount.process.wait(20) == 0
    assert not is_mounted(mount.path)
    assert (remote / "f").read_bytes() == data
    with pytest.raises(OSError, match=r"not connected|aborted"):
        file.write(b"x")
    with contextlib.suppress(OSError):  # the mount is gone: closing may say so
        file.close()


def test_sigint_in_the_foreground_ends_it_too(mount_at: Mounter, remote: Path) -> None:
    mount = mount_at(remote)
    os.kill(mount.pid, signal.SIGINT)
    assert mount.process.wait(20) == 0
    assert not is_mounted(mount.path)


def test_unmounting_while_a_file_is_open_is_busy_and_harmless(
    mount_at: Mounter, remote: Path
) -> None:
    mount = mount_at(remote)
    with (mount.path / "f").open("w") as file:
        file.write("content")
        with pytest.raises(RuntimeError, match="busy"):
            mount.unmount()
    assert (mount.path / "f").read_text() == "content"
    assert mount.unmount() == 0


def test_no_process_is_left_when_it_ends(mount_at: Mounter, remote: Path) -> None:
    mount = mount_at(remote)
    pids = mount.pids()
    assert len(pids) >= 2
    assert mount.unmount() == 0
    wait_until(lambda: not any(map(processes.alive, pids)), 5, "all processes have ended")
