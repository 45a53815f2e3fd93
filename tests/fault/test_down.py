"""What callers, other mounts and the server are spared while the link is down."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.mounts import Mount, is_mounted, mounted
from tests.harness.relay import Relay
from tests.harness.sshd import Sshd
from tests.harness.waiting import wait_until

pytestmark = [pytest.mark.mount, pytest.mark.sshd]


@pytest.fixture
def far(sshd: Sshd, remote: Path, tmp_path: Path, need_fuse: None) -> Iterator[tuple[Mount, Relay]]:
    (remote / "d").mkdir()
    (remote / "d" / "inner").mkdir()
    (remote / "f").write_text("content")
    options = ("link_timeout=4", "cache_timeout=1", "ServerAliveInterval=1")
    with (
        Relay(sshd.port) as relay,
        mounted(
            sshd, remote, tmp_path / "m", options=options, port=sshd.trust(relay.port)
        ) as mount,
    ):
        yield mount, relay
        relay.heal(reset=True)


def wait_down(mount: Mount) -> None:
    wait_until(lambda: "link down" in mount.text(), 20, "the link counts as lost")


def test_cached_content_is_read_however_old_it_is(far: tuple[Mount, Relay]) -> None:
    mount, relay = far
    assert (mount.path / "f").read_text() == "content"
    relay.cut("blackhole")
    wait_down(mount)
    time.sleep(1.1)  # what is cached is too old to be shown while the server answers
    began = time.monotonic()
    assert (mount.path / "f").read_text() == "content"
    assert time.monotonic() - began < 1


@pytest.mark.skipif(os.geteuid() != 0, reason="a filesystem is mounted on the mount: root only")
def test_what_is_mounted_below_stays_there(far: tuple[Mount, Relay]) -> None:
    mount, relay = far
    inner = mount.path / "d" / "inner"
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", inner], check=True, timeout=20)
    try:
        (inner / "kept").write_text("kept")
        for kind in ("blackhole", "refuse"):
            relay.cut(kind)
            time.sleep(1.1)  # names are asked for anew
            for path in (inner / "kept", mount.path / "d" / "unknown"):
                subprocess.run(["stat", path], capture_output=True, timeout=30)
            assert is_mounted(inner), kind
            relay.heal(reset=True)
            wait_until(lambda: (inner / "kept").exists(), 30, "the link")
        assert (inner / "kept").read_text() == "kept"
    finally:
        subprocess.run(["umount", "-l", inner], check=True, timeout=20)


@pytest.mark.parametrize("name", ["d/unknown{}", "d/unknown", "{}/unknown"])
def test_callers_that_wait_cost_the_server_no_logins_and_wait_side_by_side(
    far: tuple[Mount, Relay], name: str
) -> None:
    mount, relay = far
    os.stat(mount.path / "d")
    outcomes: list[int] = []

    def look(number: int) -> None:
        try:
            os.stat(mount.path / name.format(number))
        except OSError as error:
            outcomes.append(error.errno or 0)

    relay.cut("blackhole")
    wait_down(mount)
    before = relay.counts()["connections"]
    callers = [threading.Thread(target=look, args=(number,)) for number in range(30)]
    began = time.monotonic()
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(30)
    took = time.monotonic() - began
    assert outcomes == [errno.ETIMEDOUT] * 30
    # one attempt at a time: while this one hangs there is no other
    assert relay.counts()["connections"] - before <= 2 + took / 2
    assert took < 4 + 4  # link_timeout, and a busy machine: the kernel has equal names ask in turn


STORM = """
import ctypes, errno, os, signal, sys
os.chdir(sys.argv[1])
for number in (signal.SIGURG, signal.SIGALRM, signal.SIGCHLD):
    signal.signal(number, lambda *_: None)
    signal.siginterrupt(number, True)  # else the C library's calls would be restarted
libc = ctypes.CDLL(None, use_errno=True)  # Python's own calls are restarted, too
libc.opendir.restype = libc.readdir.restype = ctypes.c_void_p
libc.readdir.argtypes = libc.closedir.argtypes = [ctypes.c_void_p]
buffer = ctypes.create_string_buffer(1 << 16)
seen = {}

def check(what, result):
    if result is None or result < 0:
        seen[what, errno.errorcode[ctypes.get_errno()]] = seen.get(what, 0) + 1
    return result

print(flush=True)
for turn in range(60):
    name = b"n%d" % turn
    fd = check("open", libc.open(name, os.O_CREAT | os.O_RDWR, 0o644))
    check("write", libc.write(fd, buffer, 1 << 16))
    check("fsync", libc.fsync(fd))
    check("pread", libc.pread(fd, buffer, 1 << 16, ctypes.c_long(0)))
    check("close", libc.close(fd))
    check("stat", libc.access(b"unknown%d" % turn, 0) + 1)  # -1 and ENOENT is the right answer
    check("rename", libc.rename(name, b"r" + name))
    check("mkdir", libc.mkdir(b"d" + name, 0o755))
    place = check("opendir", libc.opendir(b"d" + name))
    ctypes.set_errno(0)
    while libc.readdir(place):
        pass
    check("readdir", -1 if ctypes.get_errno() else 0)
    libc.closedir(place)
    check("rmdir", libc.rmdir(b"d" + name))
    check("unlink", libc.unlink(b"r" + name))
print(seen)
"""


def test_a_storm_of_harmless_signals_shows_no_eintr(
    sshd: Sshd, remote: Path, tmp_path: Path, need_fuse: None
) -> None:

    with (
        Relay(sshd.port, delay_ms=3) as relay,
        mounted(sshd, remote, tmp_path / "m", port=sshd.trust(relay.port)) as mount,
        subprocess.Popen(
            [sys.executable, "-c", STORM, str(mount.path)], stdout=subprocess.PIPE
        ) as caller,
    ):
        assert caller.stdout is not None
        caller.stdout.readline()
        sent = 0
        while caller.poll() is None:
            for number in (signal.SIGURG, signal.SIGALRM, signal.SIGCHLD):
                os.kill(caller.pid, number)
                sent += 1
            time.sleep(0.002)  # the storm's pace
        assert sent > 300
        assert caller.stdout.read() == b"{}\n"
