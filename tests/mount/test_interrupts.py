"""Signals against callers that wait in a real mount for an answer that never comes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes import toymount
from tests.fakes.toymount import ToyMount

pytestmark = [pytest.mark.mount, pytest.mark.root]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ToyMount]:
    """Without the page cache: a READ whose reader was killed stays in flight, and then the next
    open of that file would wait for it, unkillably."""
    with toymount.mounted(tmp_path_factory.mktemp("toy"), "--direct-io") as mounted:
        yield mounted


# What the caller does, and the operation it then waits in.  f is an open descriptor of hangfile.
OPERATIONS = {
    "stat": ("os.stat('hanglookup')", "lookup"),
    "open": ("os.open('hangfile', os.O_RDONLY | os.O_NONBLOCK)", "open"),
    "read": ("os.read(f, 6)", "read"),
    "write": ("os.write(f, b'x')", "write"),
    "fsync": ("os.fsync(f)", "fsync"),
    "close": ("os.close(f)", "flush"),
    "truncate": ("os.ftruncate(f, 3)", "setattr"),
    "readdir": ("os.listdir('hangdir')", "readdir"),
    "rename": ("os.rename('hangfile', 'other')", "rename"),
    "unlink": ("os.unlink('hangfile')", "unlink"),
}

CALLER = """
import os, signal, sys
os.chdir({path!r})
{setup}
f = os.open('hangfile' if {needs_f} else 'file', os.O_RDWR)
print(flush=True)
{operation}
os.write(1, b'done')
os._exit(0)
"""


def start(toy: ToyMount, operation: str, setup: str = "") -> subprocess.Popen[bytes]:
    program, arrives_as = OPERATIONS[operation]
    source = CALLER.format(
        path=str(toy.path), setup=setup, operation=program, needs_f="(f" in program
    )
    caller = subprocess.Popen(
        [sys.executable, "-c", source],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    toy.wait_for(f"{arrives_as} {caller.pid}")
    return caller


def end(caller: subprocess.Popen[bytes], signals: list[int]) -> float:
    """Send *signals* and return how long the caller still lived."""
    began = time.monotonic()
    for number in signals:
        os.kill(caller.pid, number)
    try:
        caller.communicate(timeout=20)
    except subprocess.TimeoutExpired:
        caller.kill()
        raise
    return time.monotonic() - began


DEFAULT = (
    "for s in (2, 3): signal.signal(s, signal.SIG_DFL)\n"
    "import resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0))"
)
CAUGHT = (
    "def stop(*a): os._exit(7)\n"
    "for s in (2, 15): signal.signal(s, stop)"
)  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_signal_ends_a_stuck_caller(toy: ToyMount, operation: str, number: int) -> None:
    caller = start(toy, operation, DEFAULT)
    lived = end(caller, [number])
    assert caller.returncode == -number
    # close: the process's end closes the file again, which is a second FLUSH.
    assert lived < (1.0 if operation in ("close", "write", "fsync", "truncate") else 0.6)


@pytest.mark.parametrize("operation", ["stat", "open", "readdir", "rename", "unlink"])
def test_a_signal_that_dumps_core_ends_a_caller_with_nothing_to_flush(
    toy: ToyMount, operation: str
) -> None:
    caller = start(toy, operation, DEFAULT)
    assert end(caller, [signal.SIGQUIT]) < 0.6
    assert caller.returncode == -signal.SIGQUIT


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_caught_signal_ends_the_wait(toy: ToyMount, operation: str, number: int) -> None:
    caller = start(toy, operation, CAUGHT)
    lived = end(caller, [number])
    assert caller.returncode == 7
    assert lived < 1.0


@pytest.mark.parametrize("operation", ["stat", "write", "fsync", "readdir"])
def test_a_storm_of_harmless_signals_is_not_noticed_and_ctrl_c_still_works(
    toy: ToyMount, operation: str
) -> None:
    setup = (
        "for s in (signal.SIGURG, signal.SIGALRM, signal.SIGCHLD):\n"
        "    signal.signal(s, lambda *a: os._exit(9))\n" + DEFAULT
    )
    caller = start(toy, operation, setup)
    for _ in range(50):
        for number in (signal.SIGURG, signal.SIGALRM, signal.SIGCHLD):
            os.kill(caller.pid, number)
        time.sleep(0.01)  # the storm's pace
    assert caller.poll() is None
    assert end(caller, [signal.SIGINT]) < 1.5
    # The handlers ran only once the wait was over, if at all.
    assert caller.returncode in (-signal.SIGINT, 9)


def test_a_storm_of_signals_gives_no_eintr_to_requests_that_are_answered(toy: ToyMount) -> None:
    program = f"""
import os, signal
os.chdir({str(toy.path)!r})
for s in (signal.SIGURG, signal.SIGALRM, signal.SIGCHLD):
    signal.signal(s, lambda *a: None)
    signal.siginterrupt(s, True)
print(flush=True)
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
bad = 0
buf = ctypes.create_string_buffer(4096)
for n in range(3000):
    fd = libc.open(b'file', os.O_RDWR)
    for result in (fd, libc.stat(b'file', buf), libc.write(fd, b'hello', 5), libc.close(fd)):
        bad += result < 0
print(bad)
"""
    caller = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert caller.stdout is not None
    caller.stdout.readline()
    while caller.poll() is None:
        for number in (signal.SIGURG, signal.SIGALRM, signal.SIGCHLD):
            os.kill(caller.pid, number)
        time.sleep(0.001)  # the storm's pace
    assert caller.communicate()[0] == b"0\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_buffered_reader_can_be_killed(tmp_path: Path, number: int) -> None:
    with toymount.mounted(tmp_path) as toy:
        caller = subprocess.Popen(
            ["cat", toy.path / "hangfile"],
            stdout=subprocess.PIPE,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        toy.wait_for(f"read {caller.pid}")
        assert end(caller, [number]) < 1.0
        assert caller.returncode == -number


def test_the_mount_works_after_all_that(toy: ToyMount) -> None:
    assert (toy.path / "file").read_bytes().startswith(b"hello")
