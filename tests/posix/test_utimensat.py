"""utimensat(2)."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

import pytest

from tests.posix.conftest import Actor

SECOND: Final = 1_000_000_000
NOW: Final = (0, (1 << 30) - 1)
OMIT: Final = (0, (1 << 30) - 2)


def test_times_are_set_to_the_second(root: Actor, place: Path) -> None:
    root("create", place / "f")
    root("mkdir", place / "d", 0o755)
    for name in ("f", "d"):
        assert root("utime", place / name, 1_500_000_000 * SECOND, 1_400_000_000 * SECOND) == "ok"
        found = root("facts", place / name)
        assert (found["atime"], found["mtime"]) == (1_500_000_000, 1_400_000_000)


def test_fractions_are_cut_off(root: Actor, place: Path, on_mount: bool) -> None:
    (place / "f").touch()
    assert root("utime", place / "f", 1_500_000_000_100_000_007, 1_400_000_000_200_000_008) == "ok"
    found = (place / "f").stat()
    expected = (1_500_000_000_100_000_007, 1_400_000_000_200_000_008)
    if on_mount:
        expected = (1_500_000_000 * SECOND, 1_400_000_000 * SECOND)
    assert (found.st_atime_ns, found.st_mtime_ns) == expected


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(-1, 0), (-(10**9), 0), (2**32 - 1, 2**32 - 1), (2**32, 2**32 - 1), (10**10, 2**32 - 1)],
)
def test_times_that_sftp_cannot_say_are_clamped(
    root: Actor, place: Path, on_mount: bool, seconds: int, shown: int
) -> None:
    (place / "f").touch()
    (place / "link").symlink_to("nowhere")
    for call, name in (("utime", "f"), ("lutime", "link")):
        assert root(call, place / name, seconds * SECOND, seconds * SECOND) == "ok"
        if on_mount:  # local filesystems differ in what they can say
            assert root("facts", place / name)["mtime"] == shown


def test_the_time_of_change_is_the_mtime(root: Actor, place: Path, on_mount: bool) -> None:
    (place / "f").touch()
    root("utime", place / "f", SECOND, SECOND)
    assert root("chmod", place / "f", 0o600) == "ok"
    changed = (place / "f").stat().st_ctime
    assert changed == 1 if on_mount else abs(changed - time.time()) < 5


def test_omit_keeps_one_and_sets_the_other(root: Actor, place: Path) -> None:
    root("create", place / "f")
    root("utime", place / "f", 1_500_000_000 * SECOND, 1_400_000_000 * SECOND)
    assert root("utimensat", place / "f", OMIT, (1_300_000_000, 0)) == "ok"
    found = root("facts", place / "f")
    assert (found["atime"], found["mtime"]) == (1_500_000_000, 1_300_000_000)
    assert root("utimensat", place / "f", (1_200_000_000, 0), OMIT) == "ok"
    found = root("facts", place / "f")
    assert (found["atime"], found["mtime"]) == (1_200_000_000, 1_300_000_000)
    assert root("utimensat", place / "f", OMIT, OMIT) == "ok"


def test_now_is_about_now(root: Actor, place: Path) -> None:
    root("create", place / "f")
    root("utime", place / "f", 1_500_000_000 * SECOND, 1_400_000_000 * SECOND)
    assert root("utimensat", place / "f", OMIT, NOW) == "ok"
    found = root("facts", place / "f")
    assert found["atime"] == 1_500_000_000
    assert abs(found["mtime"] - time.time()) < 5


def test_the_link_itself_has_times(root: Actor, place: Path) -> None:
    root("create", place / "f")
    root("utime", place / "f", 1_000 * SECOND, 2_000 * SECOND)
    root("symlink", "f", place / "link")
    root("symlink", "nowhere", place / "dangling")
    for name in ("link", "dangling"):
        assert root("lutime", place / name, 3_000 * SECOND, 4_000 * SECOND) == "ok"
        assert root("facts", place / name)["mtime"] == 4_000
    assert root("facts", place / "f")["mtime"] == 2_000


def test_who_may(root: Actor, alice: Actor, bob: Actor, shared: Path) -> None:
    alice("create", shared / "f", 0o644)
    assert alice("utime", shared / "f", SECOND, SECOND) == "ok"
    assert bob("utime", shared / "f", SECOND, SECOND) == "EPERM"
    assert bob("utime_now", shared / "f") == "EACCES"
    root("chmod", shared / "f", 0o666)
    assert bob("utime_now", shared / "f") == "ok"
    assert bob("utime", shared / "f", SECOND, SECOND) == "EPERM"


def test_writing_moves_mtime_on(root: Actor, place: Path) -> None:
    root("create", place / "f")
    root("utime", place / "f", SECOND, SECOND)
    root("write", place / "f", "content")
    assert abs(root("facts", place / "f")["mtime"] - time.time()) < 5


def test_making_and_removing_moves_the_directory_on(root: Actor, place: Path) -> None:
    root("mkdir", place / "d", 0o755)
    for call in (("create", place / "d" / "x"), ("unlink", place / "d" / "x")):
        root("utime", place / "d", SECOND, SECOND)
        assert root(*call) == "ok"
        assert abs(root("facts", place / "d")["mtime"] - time.time()) < 5


def test_set_times_survive_a_write_before_them(root: Actor, place: Path) -> None:
    path = place / "f"
    with path.open("wb") as file:
        file.write(b"x" * 70_000)
        file.flush()
        assert root("utime", path, 1_000 * SECOND, 2_000 * SECOND) == "ok"
    assert root("facts", path)["mtime"] == 2_000
