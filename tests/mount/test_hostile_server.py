"""A server that lies costs errors at most: no hang, no crash, nothing outside of the mount."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness import hostile
from tests.harness.mounts import Mount, is_mounted, netfs_command, start
from tests.harness.sftpd import running_sftpd
from tests.harness.waiting import wait_until

pytestmark = [pytest.mark.mount, pytest.mark.timeout(60)]

Mounted = Callable[..., Mount]


@pytest.fixture
def lies(need_fuse: None, tmp_path: Path) -> Iterator[Mounted]:
    """Mounts the server of tests/harness/hostile.py; *options* are words for ``-o``."""
    with running_sftpd([sys.executable, "-m", "tests.harness.hostile"]) as port:
        mounts: list[Mount] = []

        def mount(*options: str) -> Mount:
            words = [word for option in options for word in ("-o", option)]
            place = tmp_path / f"m{len(mounts)}"
            source = ("127.0.0.1:/", str(place), "-f", "-o", f"directport={port}")
            mounts.append(start(netfs_command(*source, *words), place))
            return mounts[-1]

        try:
            yield mount
        finally:
            for each in mounts:
                each.clean_up()


def refused(call: Callable[..., object], *arguments: object) -> int | None:
    with pytest.raises(OSError) as caught:
        call(*arguments)
    return caught.value.errno


def read(path: Path) -> bytes:
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.read(fd, 100)
    finally:
        os.close(fd)


def test_names_that_cannot_be_are_left_out(lies: Mounted) -> None:
    mount = lies()
    for _ in range(2):  # from the server, and from what is known of it
        assert sorted(os.listdir(os.fsencode(mount.path / "d-names"))) == sorted(
            set(hostile.GOOD_NAMES)
        )
    assert "illegal name" in mount.text()
    assert mount.unmount() == 0


def test_a_listing_without_an_end_is_an_error_and_holds_up_nobody(lies: Mounted) -> None:
    mount = lies()
    assert refused(os.listdir, mount.path / "d-empty") == errno.EOVERFLOW
    assert refused(os.rmdir, mount.path / "d-empty") is not None
    with subprocess.Popen(["ls", "-1U", mount.path / "d-endless"], stdout=subprocess.PIPE) as ls:
        assert ls.stdout is not None
        assert ls.stdout.readline()
        began = time.monotonic()
        assert read(mount.path / "f-type-0") == b"hello"
        assert time.monotonic() - began < 10
        ls.kill()
    assert mount.unmount() == 0


def test_attributes_that_cannot_be_are_made_into_some_that_can(lies: Mounted) -> None:
    place = lies().path
    for name in ("f-type-0", "f-type-15", "f-no-attrs"):
        assert stat.S_ISREG(os.lstat(place / name).st_mode)
        # (What no size is told of is empty.)
        assert read(place / name) == (b"" if name == "f-no-attrs" else b"hello")
    assert os.lstat(place / "f-huge").st_size == (1 << 63) - 1
    assert stat.S_ISDIR(os.lstat(place / "f-is-a-directory").st_mode)
    assert refused(read, place / "f-is-a-directory") == errno.EISDIR
    assert refused(os.listdir, place / "d-is-a-file") == errno.ENOTDIR
    assert os.statvfs(place).f_blocks == 0


def test_what_a_listing_said_differently_is_no_trap(lies: Mounted) -> None:
    mount = lies()
    assert len(os.listdir(mount.path)) == len(hostile.LISTED)
    for name in ("f-type-0", "f-type-15", "f-nothing"):  # in a row: the next is fetched ahead
        assert len(read(mount.path / name)) <= 5
    assert read(mount.path / "f-huge") == b"hello"
    assert mount.unmount() == 0


@pytest.mark.parametrize("options", [(), ("contain_symlinks",)], ids=["shown", "contained"])
def test_targets_that_cannot_be_are_refused(lies: Mounted, options: tuple[str, ...]) -> None:
    place = lies(*options).path
    assert refused(os.readlink, place / "l-nul") == errno.EPROTO
    assert refused(os.stat, place / "l-nul") == errno.EPROTO
    assert refused(os.readlink, place / "l-long") == errno.ENAMETOOLONG


BREACHES = [
    "b-answers-a-handle", "b-wrong-id", "b-length", "b-cut", "b-garbage", "b-too-much", "b-no-file",
]  # fmt: skip


@pytest.mark.parametrize("name", BREACHES)
def test_an_answer_that_cannot_be_ends_the_conversation(lies: Mounted, name: str) -> None:
    mount = lies("noreconnect")
    assert refused(read, mount.path / name) is not None
    assert mount.process.wait(20) != 0
    assert not is_mounted(mount.path)
    assert "broke the SFTP protocol" in mount.text()


def test_after_answers_that_cannot_be_the_mount_goes_on(lies: Mounted) -> None:
    place = lies("link_timeout=1").path
    assert refused(read, place / "b-wrong-id") == errno.ETIMEDOUT

    def answers() -> bool:
        try:
            return read(place / "f-type-0") == b"hello"
        except TimeoutError:
            return False

    wait_until(answers, 20, "the next connection")
