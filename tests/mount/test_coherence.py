"""What a mount shows of files that others change on the server."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from tests.conftest import Mounter
from tests.harness.waiting import wait_until

pytestmark = [pytest.mark.mount, pytest.mark.sshd]


def test_a_reader_of_a_growing_file_sees_what_was_appended_and_never_zeros(
    mount_at: Mounter, remote: Path
) -> None:
    mount = mount_at(remote, "cache_timeout=0.2", "cto_window=0")
    for number in range(10):  # before a listing can say that they are not there
        (remote / f"log{number}").write_bytes(b"one\n")
    for number in range(10):
        fd = os.open(mount.path / f"log{number}", os.O_RDONLY)
        try:
            seen = os.read(fd, 100)
            with (remote / f"log{number}").open("ab") as file:
                file.write(b"two\n")

            def more(fd: int = fd) -> bytes:
                os.fstat(fd)  # the size is new: what is read next must be too
                return os.read(fd, 100)

            seen += wait_until(more, 10, "more of the file")
        finally:
            os.close(fd)
        assert seen == b"one\ntwo\n"


def test_a_rotated_log_is_read_to_its_end_and_its_name_leads_to_the_new_one(
    mount_at: Mounter, remote: Path
) -> None:
    log = remote / "log"
    log.write_bytes(b"one\n")
    mount = mount_at(remote, "cache_timeout=0.2", "cto_window=0")
    fd = os.open(mount.path / "log", os.O_RDONLY)
    try:
        assert os.read(fd, 100) == b"one\n"
        log.rename(remote / "log.1")
        log.write_bytes(b"another\n")
        wait_until(lambda: content(mount.path / "log") == b"another\n", 10, "the new file")
        with (remote / "log.1").open("ab") as file:
            file.write(b"two\n")

        def more() -> bytes:
            os.fstat(fd)
            return os.read(fd, 100)

        assert wait_until(more, 10, "more of the old file") == b"two\n"
    finally:
        os.close(fd)


def content(path: Path) -> bytes:
    """What a reader gets; nothing while the name changes hands."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_versions_of_one_size_within_one_second_are_told_apart(
    mount_at: Mounter, remote: Path
) -> None:
    mount = mount_at(remote, "cache_timeout=0", "cto_window=0")
    for number in range(20):
        version = b"%08d" % number
        (remote / "counter").write_bytes(version)
        assert (mount.path / "counter").read_bytes() == version


def test_a_directory_that_became_a_file_is_one(mount_at: Mounter, remote: Path) -> None:
    (remote / "d").mkdir()
    (remote / "d" / "x").touch()
    mount = mount_at(remote, "cache_timeout=0.2")
    assert os.listdir(mount.path / "d") == ["x"]
    (remote / "d" / "x").unlink()
    (remote / "d").rmdir()
    (remote / "d").write_bytes(b"file")
    wait_until(lambda: content(mount.path / "d") == b"file", 10, "the file")


def test_what_is_read_while_the_server_replaces_a_file_is_one_version(
    mount_at: Mounter, remote: Path
) -> None:
    """Sizes and seconds are the same, so that nothing but the bytes tells the versions apart."""
    size = 1 << 20
    (remote / "f").write_bytes(b"\0" * size)
    mount = mount_at(remote)
    stop = threading.Event()

    def replace() -> None:
        number = 0
        while not stop.is_set():
            number = (number + 1) % 256
            (remote / "new").write_bytes(bytes([number]) * size)
            os.replace(remote / "new", remote / "f")

    writer = threading.Thread(target=replace)
    writer.start()
    try:
        for _ in range(40):
            data = (mount.path / "f").read_bytes()
            assert len(data) == size
            assert len(set(data)) == 1
    finally:
        stop.set()
        writer.join()
    last = (remote / "f").read_bytes()
    wait_until(lambda: (mount.path / "f").read_bytes() == last, 5, "the last version is read")


def test_open_sees_what_the_server_changed_long_before_the_cache_timeout(
    mount_at: Mounter, remote: Path
) -> None:
    (remote / "f").write_bytes(b"old")
    mount = mount_at(remote, "cache_timeout=60")
    assert (mount.path / "f").read_bytes() == b"old"
    (remote / "f").write_bytes(b"the new one")
    wait_until(lambda: (mount.path / "f").read_bytes() == b"the new one", 10, "open sees it")


def test_stat_and_listing_see_what_the_server_changed_after_the_cache_timeout(
    mount_at: Mounter, remote: Path
) -> None:
    (remote / "f").write_bytes(b"old")
    mount = mount_at(remote, "cache_timeout=1")
    assert os.listdir(mount.path) == ["f"]
    assert (mount.path / "f").stat().st_size == 3
    (remote / "f").write_bytes(b"the new one")
    (remote / "other").touch()
    wait_until(lambda: (mount.path / "f").stat().st_size == 11, 10, "stat sees it")
    wait_until(lambda: sorted(os.listdir(mount.path)) == ["f", "other"], 10, "a listing sees it")


@pytest.mark.parametrize("size", [0, 10_000, 350_000, 4_000_100])
def test_a_reader_of_a_file_that_was_cut_comes_to_its_end_and_never_to_zeros(
    mount_at: Mounter, remote: Path, size: int
) -> None:
    content = os.urandom(100_000).replace(b"\0", b"x") * 50
    (remote / "file").write_bytes(content)
    os.utime(remote / "file", (1e9, 1e9))  # of long ago, so that it is believed
    with (mount_at(remote).path / "file").open("rb", buffering=0) as reader:
        assert reader.read(10_000) == content[:10_000]
        reader.seek(size // 100_000 * 100_000)
        before = reader.tell()
        os.truncate(remote / "file", size)
        if size == 0:
            reader.seek(1_000_000)
            assert reader.read(100_000) == b""
            return
        assert b"".join(iter(lambda: reader.read(100_000), b"")) in (
            content[before:size],
            content[before:65_536],  # what the kernel had already
        )


def test_what_both_sides_append_is_kept(mount_at: Mounter, remote: Path) -> None:
    """As long as they take turns: SFTP cannot look for the end and write there in one step."""
    place = mount_at(remote).path
    (remote / "log").write_bytes(b"")
    expected = b""
    with (place / "log").open("ab", buffering=0) as mine:
        for turn in range(6):
            for count in range(3):
                line = b"mine %d %d\n" % (turn, count)
                mine.write(line)
                expected += line
            os.fsync(mine.fileno())
            assert (remote / "log").read_bytes() == expected
            assert os.fstat(mine.fileno()).st_size == len(expected)
            with (remote / "log").open("ab") as theirs:
                line = b"theirs %d\n" % turn * (turn * 500 + 1)
                theirs.write(line)
                expected += line
        mine.write(bytes(3_000_000))  # several requests
        expected += bytes(3_000_000)
        os.fsync(mine.fileno())
        assert (place / "log").read_bytes() == (remote / "log").read_bytes() == expected
