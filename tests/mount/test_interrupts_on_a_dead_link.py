"""Signals against callers that wait for a server behind a link that swallows everything."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import mounts
from tests.harness.mounts import Mount
from tests.harness.relay import Relay
from tests.harness.sshd import Sshd
from tests.harness.waiting import wait_until

pytestmark = [pytest.mark.mount, pytest.mark.sshd, pytest.mark.root]

NAMES = [f"{kind}{number}" for kind in ("file", "old", "gone") for number in range(14)]

OPERATIONS = {
    "stat": "os.stat('directory{n}/new')",
    "open": "os.open('file{n}', os.O_RDONLY)",
    "create": "os.open('create{n}', os.O_CREAT | os.O_EXCL | os.O_RDWR)",
    "read": "os.pread(f, 65536, 512 * 1024 * ({n} + 1))",
    "read directly": "os.preadv(g, [mmap.mmap(-1, 65536)], 512 * 1024 * ({n} + 1))",
    "fsync": "os.fsync(f)",
    "close": "os.close(f)",
    "truncate": "os.ftruncate(f, 3)",
    "chmod": "os.chmod('file{n}', 0o600)",
    "readdir": "os.listdir('directory{n}')",
    "rename": "os.rename('old{n}', 'other{n}')",
    "unlink": "os.unlink('gone{n}')",
    "mkdir": "os.mkdir('made{n}')",
    # the last: afterwards there is no room for what others write
    "write": "while True: os.write(f, bytes(1 << 20))",
}

CALLER = """
import mmap, os, signal, sys
os.chdir({path!r})
signal.signal(signal.SIGINT, signal.SIG_DFL)
{setup}
f = os.open({opened!r}, os.O_RDWR)
g = os.open({opened!r}, os.O_RDONLY | os.O_DIRECT)
print(flush=True)
sys.stdin.readline()
{before}
print(flush=True)
{operation}
os.write(1, b'done')
"""

CAUGHT = "for s in (2, 15): signal.signal(s, lambda *a: os._exit(7))"


class Stuck:
    """A mount whose link is cut while callers stand ready."""

    def __init__(self, mount: Mount, relay: Relay) -> None:
        self.mount = mount
        self.relay = relay

    def start(self, operation: str, number: int, setup: str = "") -> subprocess.Popen[bytes]:
        """A caller with its file open, before the link is cut."""
        source = CALLER.format(
            path=str(self.mount.path),
            setup=setup,
            opened=f"open{number}",
            before="os.write(f, b'x')" if operation in ("fsync", "close") else "",
            operation=OPERATIONS[operation].format(n=number),
        )
        caller = subprocess.Popen(
            [sys.executable, "-c", source],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert caller.stdout is not None
        caller.stdout.readline()
        return caller


@pytest.fixture
def stuck(sshd: Sshd, tmp_path: Path) -> Iterator[Stuck]:
    remote = tmp_path / "remote"
    remote.mkdir()
    for number in range(14):
        (remote / f"directory{number}").mkdir()
        (remote / f"open{number}").write_bytes(bytes(8 << 20))
    for name in NAMES:
        (remote / name).write_bytes(b"x")
    with Relay(sshd.port) as relay:
        port = sshd.trust(relay.port)
        command = mounts.command_for(
            "netfs",
            sshd,
            remote,
            tmp_path / "m",
            ("link_timeout=25", "abort_after=0", "dirty_limit=4M"),
            port=port,
        )
        mount = mounts.start(command, tmp_path / "m")
        try:
            yield Stuck(mount, relay)
        finally:
            relay.heal()
            mount.clean_up()


def waits_for_an_answer(pid: int) -> bool:
    with contextlib.suppress(OSError):
        stack = Path(f"/proc/{pid}/stack").read_text()
        return "request_wait_answer" in stack or "folio_wait" in stack  # the latter: page cache
    return False


def go(caller: subprocess.Popen[bytes]) -> None:
    assert caller.stdin is not None
    caller.stdin.write(b"\n")
    caller.stdin.flush()
    assert caller.stdout is not None
    caller.stdout.readline()
    wait_until(
        lambda: waits_for_an_answer(caller.pid) or caller.poll() is not None,
        10,
        f"{caller.args!r} to wait",
    )
    assert caller.poll() is None, (caller.args, caller.communicate())


def end(caller: subprocess.Popen[bytes], number: int, timeout_s: float = 20) -> float:
    began = time.monotonic()
    os.kill(caller.pid, number)
    caller.communicate(timeout=timeout_s)
    return time.monotonic() - began


@pytest.mark.parametrize(
    ("number", "setup", "status"),
    [
        (signal.SIGINT, "", -signal.SIGINT),
        (signal.SIGTERM, "", -signal.SIGTERM),
        (signal.SIGKILL, "", -signal.SIGKILL),
        (signal.SIGINT, CAUGHT, 7),
    ],
    ids=["ctrl-c", "kill", "kill-9", "ctrl-c-caught"],
)
def test_each_operation_can_be_left(stuck: Stuck, number: int, setup: str, status: int) -> None:
    # One file each: what one caller left unfinished holds kernel locks of that file.
    callers = {
        operation: stuck.start(operation, place, setup)
        for place, operation in enumerate(OPERATIONS)
        if not (setup and operation == "read")  # the kernel itself waits: docs/reliability.md
    }
    stuck.relay.cut("blackhole")
    lived: dict[str, float] = {}
    for operation, caller in callers.items():
        go(caller)
        lived[operation] = end(caller, number)
        assert caller.returncode == status, (operation, caller.returncode)
    print({operation: round(seconds, 2) for operation, seconds in lived.items()})
    assert max(lived.values()) < 1.0
    stuck.relay.heal(reset=True)
    wait_until(lambda: _works(stuck.mount.path), 30, "the mount to work again")


def _works(path: Path) -> bool:
    done = subprocess.run(["cat", path / "file11"], capture_output=True, timeout=60, check=False)
    return done.stdout == b"x"
