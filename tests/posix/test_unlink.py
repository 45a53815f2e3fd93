"""unlink(2)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.posix.conftest import Actor


def test_a_file_and_a_link_go(root: Actor, place: Path) -> None:
    root("create", place / "file")
    root("symlink", "file", place / "link")
    assert root("unlink", place / "link") == "ok"
    assert root("listdir", place) == ["file"]
    assert root("unlink", place / "file") == "ok"
    assert root("stat", place / "file") == "ENOENT"


def test_a_directory_is_eisdir(root: Actor, place: Path) -> None:
    root("mkdir", place / "d", 0o755)
    assert root("unlink", place / "d") == "EISDIR"


def test_in_a_sticky_directory_only_owners_remove(
    root: Actor, alice: Actor, bob: Actor, shared: Path
) -> None:
    root("chmod", shared, 0o1777)
    assert alice("create", shared / "file", 0o666) == "ok"
    assert bob("unlink", shared / "file") == "EPERM"
    assert root("unlink", shared / "file") == "ok"


def test_an_open_file_lives_on_without_its_name(root: Actor, place: Path) -> None:
    path = place / "file"
    fd = os.open(path, os.O_CREAT | os.O_RDWR)
    try:
        os.write(fd, b"before")
        os.unlink(path)
        os.write(fd, b" after")
        assert os.pread(fd, 100, 0) == b"before after"
        assert os.fstat(fd).st_size == 12
        os.ftruncate(fd, 3)
        assert os.pread(fd, 100, 0) == b"bef"
        os.fchmod(fd, 0o600)
        assert os.fstat(fd).st_mode & 0o777 == 0o600
        assert root("listdir", place) == []
    finally:
        os.close(fd)


def test_a_new_file_of_the_old_name_is_another(root: Actor, place: Path) -> None:
    path = place / "file"
    path.write_bytes(b"old")
    with path.open("rb") as old:
        path.unlink()
        path.write_bytes(b"new content")
        assert old.read() == b"old"
    assert path.read_bytes() == b"new content"


def test_another_hard_link_keeps_the_content(root: Actor, place: Path) -> None:
    (place / "a").write_text("content")
    root("link", place / "a", place / "b")
    assert root("unlink", place / "a") == "ok"
    assert root("read", place / "b") == "content"
    assert root("facts", place / "b")["nlink"] == 1


@pytest.mark.parametrize("how", ["unlinked", "replaced", "unlinked, looked up before"])
def test_an_open_file_without_a_name_has_no_links(root: Actor, place: Path, how: str) -> None:
    path = place / "file"
    path.write_bytes(b"content")
    if "before" in how:
        assert root("listdir", place) == ["file"]
    with path.open("rb") as file:
        assert os.fstat(file.fileno()).st_nlink == 1
        if how == "replaced":
            (place / "other").write_bytes(b"other")
            assert root("rename", place / "other", path) == "ok"
        else:
            assert root("unlink", path) == "ok"
        assert os.fstat(file.fileno()).st_nlink == 0
        assert file.read() == b"content"
        assert os.fstat(file.fileno()).st_nlink == 0


def test_an_open_file_that_has_another_name_has_one_link(root: Actor, place: Path) -> None:
    (place / "a").write_bytes(b"content")
    root("link", place / "a", place / "b")
    with (place / "a").open("rb") as file:
        assert root("unlink", place / "a") == "ok"
        assert os.fstat(file.fileno()).st_nlink == 1
