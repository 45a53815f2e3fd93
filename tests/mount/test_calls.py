"""System calls that few programs make, each as the caller sees it: done or refused on purpose."""

from __future__ import annotations

import array
import errno
import fcntl
import os
import select
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.mounts import Mount, mounted
from tests.harness.relay import Relay
from tests.harness.sftpd import running_sftpd
from tests.harness.sshd import Sshd

pytestmark = [pytest.mark.mount, pytest.mark.sshd]

READ, WRITE, EXTENDED = 5, 6, 200
"""Source: draft-ietf-secsh-filexfer-02 §3."""


@pytest.fixture(scope="module")
def wire(
    sshd: Sshd, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Mount, Path, Relay]]:
    """A mount for all of them, the server's side of it, and the relay that sees its requests."""
    if not os.path.exists("/dev/fuse"):
        pytest.skip("this machine has no /dev/fuse")
    folder = tmp_path_factory.mktemp("calls")
    remote = folder / "remote"
    remote.mkdir()
    with running_sftpd() as port, Relay(port) as relay:
        options = (f"directport={relay.port}",)
        source = f"127.0.0.1:{remote}"
        with mounted(sshd, remote, folder / "m", options=options, source=source) as mount:
            yield mount, remote, relay


@pytest.fixture
def place(wire: tuple[Mount, Path, Relay]) -> Path:
    return wire[0].path


def test_copy_file_range_copies_on_the_server(wire: tuple[Mount, Path, Relay]) -> None:
    mount, remote, relay = wire
    data = os.urandom(3_000_000)
    (remote / "source").write_bytes(data)
    with (mount.path / "source").open("rb") as source, (mount.path / "copy").open("wb") as copy:
        relay.record()
        left = len(data)
        while left:
            done = os.copy_file_range(source.fileno(), copy.fileno(), left)
            assert done
            left -= done
        sent = [kind for way, kind, _ in relay.packets() if way == "up"]
    assert EXTENDED in sent
    assert READ not in sent
    assert WRITE not in sent
    assert (remote / "copy").read_bytes() == data


def test_fallocate_makes_longer_and_refuses_the_rest(place: Path) -> None:
    with (place / "allocated").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 100_000)
        assert os.fstat(file.fileno()).st_size == 100_000
    keep_size = ["fallocate", "--keep-size", "--length", "200000", place / "allocated"]
    punch = ["fallocate", "--punch-hole", "--length", "4096", place / "allocated"]
    for command in (keep_size, punch):
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
        assert "supported" in done.stderr
    assert (place / "allocated").stat().st_size == 100_000


def test_lseek_takes_the_whole_file_for_data(place: Path) -> None:
    (place / "sparse").write_bytes(b"x" * 10_000)
    with (place / "sparse").open("rb") as file:
        assert os.lseek(file.fileno(), 100, os.SEEK_DATA) == 100
        assert os.lseek(file.fileno(), 100, os.SEEK_HOLE) == 10_000
        with pytest.raises(OSError) as caught:
            os.lseek(file.fileno(), 10_000, os.SEEK_DATA)
    assert caught.value.errno == errno.ENXIO


def test_ioctl_is_refused_and_poll_is_ready(place: Path) -> None:
    (place / "file").write_text("text")
    with (place / "file").open("rb") as file:
        with pytest.raises(OSError) as caught:
            fcntl.ioctl(file.fileno(), termios.TCGETS, array.array("b", [0] * 64))
        assert caught.value.errno == errno.ENOTTY
        poll = select.poll()
        poll.register(file.fileno(), select.POLLIN | select.POLLOUT)
        assert poll.poll(1000) == [(file.fileno(), select.POLLIN | select.POLLOUT)]


def test_extended_attributes_are_not_supported(place: Path) -> None:
    (place / "file").write_text("text")
    for call in (
        lambda: os.getxattr(place / "file", "user.x"),
        lambda: os.setxattr(place / "file", "user.x", b""),
        lambda: os.removexattr(place / "file", "user.x"),
    ):
        with pytest.raises(OSError) as caught:
            call()
        assert caught.value.errno == errno.EOPNOTSUPP
    with pytest.raises(OSError) as caught:
        os.listxattr(place / "file")
    assert caught.value.errno == errno.EOPNOTSUPP


@pytest.mark.parametrize("kind", ["flock", "lockf"])
def test_locks_hold_between_the_programs_of_this_machine(place: Path, kind: str) -> None:
    program = f"import fcntl, sys\nfcntl.{kind}(open(sys.argv[1], 'r+'), 6)"  # EX | NB
    command = [sys.executable, "-c", program, place / "locked"]
    with (place / "locked").open("w+") as file:
        getattr(fcntl, kind)(file, fcntl.LOCK_EX)
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
        assert "BlockingIOError" in done.stderr
        getattr(fcntl, kind)(file, fcntl.LOCK_UN)
        assert subprocess.run(command, timeout=20).returncode == 0


def test_a_directory_can_be_synced(place: Path) -> None:
    (place / "directory").mkdir()
    fd = os.open(place / "directory", os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def test_only_regular_files_can_be_made(wire: tuple[Mount, Path, Relay]) -> None:
    mount, remote, _ = wire
    os.mknod(mount.path / "regular", 0o100640)
    assert (remote / "regular").is_file()
    with pytest.raises(PermissionError):
        os.mkfifo(mount.path / "fifo")


def test_statx_tells_what_stat_does(place: Path) -> None:
    (place / "file").write_text("text")
    shown = subprocess.run(
        ["stat", "--format=%s %h %U %F %W", place / "file"],
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    ).stdout.split()
    assert shown[0] == "4"
    assert shown[1] == "1"
    assert shown[-1] == "0"  # when it was born nobody tells
