"""Open files whose names change around a cut: each goes on as the same file, or is ESTALE."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.support import Cli
from tests.harness.mounts import mounted
from tests.harness.relay import Relay
from tests.harness.sftpd import running_sftpd
from tests.harness.sshd import Sshd
from tests.harness.waiting import wait_until

pytestmark = [pytest.mark.mount, pytest.mark.sshd]

EXTENDED = 200  # posix-rename is one
RENAMER = "import os, sys; sys.stdin.readline(); os.rename(sys.argv[1], sys.argv[2])"


@pytest.fixture
def cut(sshd: Sshd, remote: Path, tmp_path: Path, need_fuse: None) -> Iterator[tuple[Path, Relay]]:
    """A mountpoint, and the relay in front of its server."""
    (remote / "f").write_bytes(b"0123")
    with (
        Relay(sshd.port) as relay,
        mounted(sshd, remote, tmp_path / "m", port=sshd.trust(relay.port)) as mount,
    ):
        yield mount.path, relay
        relay.heal(reset=True)


def write(fd: int, data: bytes) -> None:
    os.pwrite(fd, data, 0)
    os.fsync(fd)


@pytest.mark.parametrize("point", ["hold", "hold_reply"])
def test_a_file_whose_rename_was_interrupted_goes_on(
    point: str, sshd: Sshd, remote: Path, tmp_path: Path, need_fuse: None
) -> None:
    (remote / "f").write_bytes(b"0123")
    place = tmp_path / "m"
    source = f"127.0.0.1:{remote}"
    command = [sys.executable, "-c", RENAMER, str(place / "f"), str(place / "g")]
    with running_sftpd() as port, Relay(port) as relay:
        options = (f"directport={relay.port}",)
        with (
            mounted(sshd, remote, place, options=options, source=source),
            subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as renamer,
        ):
            fd = os.open(place / "f", os.O_RDWR)
            try:
                relay.arm(EXTENDED, point)
                assert renamer.stdin is not None
                renamer.stdin.write(b"\n")
                renamer.stdin.flush()
                wait_until(relay.fired, 20, "the request")
                began = time.monotonic()
                renamer.send_signal(signal.SIGINT)
                assert renamer.wait(20) == -signal.SIGINT
                assert time.monotonic() - began < 2  # 0.5 s, and a busy machine
                relay.cut("rst")
                relay.heal()
                write(fd, b"x")
            finally:
                os.close(fd)
            name = "f" if point == "hold" else "g"
            assert (remote / name).read_bytes() == b"x123"
            assert os.listdir(place) == [name]


def test_a_file_goes_on_under_the_name_that_is_left(cut: tuple[Path, Relay], remote: Path) -> None:
    point, relay = cut
    os.mkdir(point / "d")
    os.link(point / "f", point / "d" / "second")
    os.link(point / "f", point / "third")
    fd = os.open(point / "f", os.O_RDWR)
    try:
        os.unlink(point / "f")
        os.rename(point / "d", point / "e")
        os.unlink(point / "third")
        (point / "f").write_text("another file")
        relay.cut("rst")
        relay.heal()
        write(fd, b"x")
    finally:
        os.close(fd)
    assert (remote / "e" / "second").read_bytes() == b"x123"
    assert (remote / "f").read_text() == "another file"


def test_a_file_that_was_replaced_and_opened_with_o_trunc_is_not_the_one_open_before(
    cut: tuple[Path, Relay], remote: Path
) -> None:
    point, relay = cut
    old = os.open(point / "f", os.O_RDWR)
    try:
        (remote / "new").write_text("put there by somebody else")
        os.rename(remote / "new", remote / "f")
        new = os.open(point / "f", os.O_WRONLY | os.O_TRUNC)
        try:
            relay.cut("rst")
            relay.heal()
            write(new, b"new")
            with pytest.raises(OSError, match="Stale") as caught:
                write(old, b"old")
            assert caught.value.errno == errno.ESTALE
        finally:
            os.close(new)
    finally:
        with contextlib.suppress(OSError):  # ESTALE again
            os.close(old)
    assert (remote / "f").read_bytes() == b"new"


@pytest.mark.parametrize("why", ["replaced", "a directory in its place"])
def test_what_can_t_be_delivered_is_saved_and_named_in_log_and_status(
    why: str, own_sshd: Sshd, remote: Path, tmp_path: Path, need_fuse: None
) -> None:
    (remote / "f").write_text("old content")
    options = [f"rescue_dir={tmp_path / 'rescue'}", f"runtime_dir={tmp_path / 'run'}"]
    with (
        Relay(own_sshd.port) as relay,
        mounted(
            own_sshd, remote, tmp_path / "m", options=options, port=own_sshd.trust(relay.port)
        ) as mount,
    ):
        fd = os.open(mount.path / "f", os.O_WRONLY)
        try:
            os.write(fd, b"1")
            os.fsync(fd)
            relay.cut("refuse")
            os.pwrite(fd, b"never delivered", 1)
            if why == "replaced":
                (remote / "new").write_text("another file altogether, longer")
                os.rename(remote / "new", remote / "f")
            else:
                os.unlink(remote / "f")
                os.mkdir(remote / "f")
            relay.heal()
            with pytest.raises(OSError, match="Stale"):
                os.fsync(fd)
        finally:
            with contextlib.suppress(OSError):  # ESTALE again
                os.close(fd)
        (saved,) = wait_until(
            lambda: list((tmp_path / "rescue").glob("*.data")), 20, "the rescued bytes"
        )
        assert b"never delivered" in saved.read_bytes()
        assert str(saved) in mount.text()
        status = Cli(own_sshd, tmp_path).status(mount.path)
        assert str(saved) in str(status["files"]["losses"])
