"""open(2), creat(2), and what open flags mean for reads and writes."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest

from tests.posix.conftest import Actor

RW, RD, WR = os.O_RDWR, os.O_RDONLY, os.O_WRONLY


@pytest.mark.parametrize("mode", [0o644, 0o600, 0o755, 0o4755, 0o000, 0o444])
def test_a_new_file_has_the_mode_that_was_asked(root: Actor, place: Path, mode: int) -> None:
    assert root("open", place / "f", os.O_CREAT | RW, mode) == "ok"
    found = root("facts", place / "f")
    assert (found["type"], found["mode"], found["size"]) == ("-", mode, 0)


def test_the_umask_takes_bits_off(root: Actor, place: Path) -> None:
    root("umask", 0o027)
    try:
        root("open", place / "f", os.O_CREAT | WR, 0o666)
    finally:
        root("umask", 0)
    assert root("facts", place / "f")["mode"] == 0o640


def test_a_new_file_belongs_to_the_caller(alice: Actor, shared: Path) -> None:
    assert alice("create", shared / "f") == "ok"
    found = alice("facts", shared / "f")
    assert (found["uid"], found["gid"]) == (10001, 10001)


def test_a_setgid_directory_gives_its_group(root: Actor, alice: Actor, shared: Path) -> None:
    root("chown", shared, 0, 10003)
    root("chmod", shared, 0o2777)
    assert alice("create", shared / "f") == "ok"
    assert alice("facts", shared / "f")["gid"] == 10003


@pytest.mark.parametrize("kind", ["file", "directory", "link", "dangling"])
def test_o_excl_refuses_any_name(root: Actor, place: Path, kind: str) -> None:
    root("create", place / "target")
    {
        "file": lambda: root("create", place / "x"),
        "directory": lambda: root("mkdir", place / "x", 0o755),
        "link": lambda: root("symlink", "target", place / "x"),
        "dangling": lambda: root("symlink", "nowhere", place / "x"),
    }[kind]()
    assert root("open", place / "x", os.O_CREAT | os.O_EXCL | RW, 0o644) == "EEXIST"


def test_creating_through_a_dangling_link_makes_its_target(root: Actor, place: Path) -> None:
    root("symlink", "target", place / "link")
    assert root("open", place / "link", os.O_CREAT | WR, 0o644) == "ok"
    assert sorted(root("listdir", place)) == ["link", "target"]


def test_o_directory_and_o_nofollow(root: Actor, place: Path) -> None:
    root("create", place / "file")
    root("symlink", "file", place / "link")
    assert root("open", place / "file", RD | os.O_DIRECTORY) == "ENOTDIR"
    assert root("open", place / "link", RD | os.O_NOFOLLOW) == "ELOOP"


@pytest.mark.parametrize("flags", [WR, RW, RD | os.O_TRUNC, WR | os.O_TRUNC, RD | os.O_CREAT])
def test_a_directory_opened_for_writing_is_eisdir(root: Actor, place: Path, flags: int) -> None:
    root("mkdir", place / "d", 0o755)
    assert root("open", place / "d", flags) == "EISDIR"


@pytest.mark.parametrize(
    ("mode", "may"),
    [(0o400, "r"), (0o200, "w"), (0o600, "rw"), (0o000, ""), (0o077, "")],
)
def test_the_owner_bits_decide_for_the_owner(
    root: Actor, alice: Actor, place: Path, mode: int, may: str
) -> None:
    root("create", place / "f", mode)
    root("chown", place / "f", 10001, 10001)
    root("chmod", place / "f", mode)
    assert alice("open", place / "f", RD) == ("ok" if "r" in may else "EACCES")
    assert alice("open", place / "f", WR) == ("ok" if "w" in may else "EACCES")
    assert alice("open", place / "f", RW) == ("ok" if may == "rw" else "EACCES")
    assert root("open", place / "f", RW) == "ok"


def test_group_bits_count_for_supplementary_groups(
    root: Actor, alice: Actor, bob: Actor, place: Path
) -> None:
    root("create", place / "f", 0o640)
    root("chown", place / "f", 0, 10003)
    assert alice("open", place / "f", RD) == "ok"
    assert alice("open", place / "f", WR) == "EACCES"
    assert bob("open", place / "f", RD) == "EACCES"


@pytest.mark.parametrize("flags", [WR | os.O_TRUNC, RD | os.O_TRUNC, RW | os.O_TRUNC])
def test_o_trunc_empties_the_file(root: Actor, place: Path, flags: int) -> None:
    (place / "f").write_text("content")
    assert root("open", place / "f", flags) == "ok"
    assert root("facts", place / "f")["size"] == 0
    assert root("read", place / "f") == ""


def test_o_append_writes_at_the_end_whoever_wrote_before(place: Path) -> None:
    path = place / "f"
    path.write_bytes(b"0")
    first = os.open(path, os.O_WRONLY | os.O_APPEND)
    second = os.open(path, os.O_RDWR | os.O_APPEND)
    try:
        for number in range(1, 9):
            os.lseek(first, 0, os.SEEK_SET)
            os.write(first if number % 2 else second, str(number).encode())
        assert os.pread(second, 100, 0) == b"012345678"
    finally:
        os.close(first)
        os.close(second)


def test_a_handle_opened_one_way_does_not_do_the_other(place: Path) -> None:
    path = place / "f"
    path.write_bytes(b"content")
    reading, writing = os.open(path, os.O_RDONLY), os.open(path, os.O_WRONLY)
    try:
        with pytest.raises(OSError, match="Bad file") as caught:
            os.write(reading, b"x")
        assert caught.value.errno == errno.EBADF
        with pytest.raises(OSError, match="Bad file"):
            os.read(writing, 1)
    finally:
        os.close(reading)
        os.close(writing)


def test_a_read_only_new_file_can_be_written_by_its_creator(alice: Actor, shared: Path) -> None:
    fd = os.open(shared / "f", os.O_CREAT | os.O_RDWR, 0o444)
    try:
        assert os.write(fd, b"written") == 7
    finally:
        os.close(fd)
    assert (shared / "f").read_bytes() == b"written"


def test_a_file_being_executed_is_not_opened_for_writing(root: Actor, place: Path) -> None:
    program = place / "sleep"
    program.write_bytes(Path("/bin/sleep").read_bytes())
    program.chmod(0o755)
    running = subprocess.Popen([program, "60"])
    try:
        assert root("open", program, WR) == "ETXTBSY"
        assert root("open", program, RD) == "ok"
    finally:
        running.kill()
        running.wait()


@pytest.mark.parametrize("size", [5 << 30, (1 << 40) + 1])
def test_large_offsets_work(root: Actor, place: Path, size: int) -> None:
    path = place / "large"
    with path.open("wb") as file:
        file.seek(size)
        file.write(b"end")
    assert root("facts", path)["size"] == size + 3
    with path.open("rb") as file:
        file.seek(size - 2)
        assert file.read() == b"\0\0end"


def test_a_hole_reads_as_zeros(place: Path) -> None:
    with (place / "f").open("w+b") as file:
        file.write(b"a")
        file.seek(100_000)
        file.write(b"b")
        file.flush()
        file.seek(0)
        assert file.read() == b"a" + bytes(99_999) + b"b"


def test_o_tmpfile(root: Actor, place: Path, on_mount: bool) -> None:
    expected = "EOPNOTSUPP" if on_mount else "ok"
    assert root("open", place, os.O_TMPFILE | RW, 0o600) in (expected, "ENOTSUP")


def test_access_says_what_open_would(root: Actor, alice: Actor, bob: Actor, place: Path) -> None:
    root("create", place / "f", 0o640)
    root("chown", place / "f", 10001, 10001)
    assert alice("access", place / "f", os.R_OK | os.W_OK) is True
    assert alice("access", place / "f", os.X_OK) is False
    assert bob("access", place / "f", os.R_OK) is False
    assert root("access", place / "f", os.R_OK | os.W_OK) is True
    assert root("access", place / "f", os.X_OK) is False
