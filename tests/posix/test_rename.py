"""rename(2) and renameat2(2)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.posix.conftest import Actor

NOREPLACE, EXCHANGE = 1, 2


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_a_name_moves(root: Actor, place: Path, kind: str) -> None:
    {
        "file": lambda: root("create", place / "old"),
        "directory": lambda: root("mkdir", place / "old", 0o755),
        "link": lambda: root("symlink", "nowhere", place / "old"),
    }[kind]()
    before = root("facts", place / "old")
    root("mkdir", place / "sub", 0o755)
    assert root("rename", place / "old", place / "sub" / "new") == "ok"
    assert root("facts", place / "old") == "ENOENT"
    after = root("facts", place / "sub" / "new")
    assert {**after, "atime": 0} == {**before, "atime": 0}


def test_a_file_replaces_a_file_and_readers_go_on(root: Actor, place: Path) -> None:
    (place / "a").write_text("new")
    (place / "b").write_text("old")
    with (place / "b").open() as reader:
        assert root("rename", place / "a", place / "b") == "ok"
        assert reader.read() == "old"
    assert root("read", place / "b") == "new"
    assert root("listdir", place) == ["b"]


def test_a_directory_replaces_an_empty_one_only(root: Actor, place: Path) -> None:
    root("mkdir", place / "a", 0o755)
    root("create", place / "a" / "x")
    root("mkdir", place / "empty", 0o755)
    root("mkdir", place / "full", 0o755)
    root("create", place / "full" / "y")
    assert root("rename", place / "a", place / "full") in ("ENOTEMPTY", "EEXIST")
    assert root("rename", place / "a", place / "empty") == "ok"
    assert root("listdir", place / "empty") == ["x"]


def test_directory_and_file_do_not_replace_each_other(root: Actor, place: Path) -> None:
    root("mkdir", place / "d", 0o755)
    root("create", place / "f")
    assert root("rename", place / "f", place / "d") == "EISDIR"
    assert root("rename", place / "d", place / "f") == "ENOTDIR"


def test_a_directory_does_not_move_into_itself(root: Actor, place: Path) -> None:
    root("mkdir", place / "d", 0o755)
    root("mkdir", place / "d" / "e", 0o755)
    assert root("rename", place / "d", place / "d" / "e" / "f") == "EINVAL"
    assert root("rename", place / "d" / "e", place / "d") == "ENOTEMPTY"


def test_two_names_of_one_file_stay_two(root: Actor, place: Path) -> None:
    (place / "a").write_text("x")
    root("link", place / "a", place / "b")
    assert root("rename", place / "a", place / "b") == "ok"
    assert sorted(root("listdir", place)) == ["a", "b"]


def test_an_open_file_follows_its_new_name_and_parent(root: Actor, place: Path) -> None:
    root("mkdir", place / "d", 0o755)
    with (place / "d" / "file").open("w+") as file:
        file.write("one ")
        file.flush()
        os.rename(place / "d" / "file", place / "d" / "renamed")
        file.write("two ")
        file.flush()
        os.rename(place / "d", place / "moved")
        file.write("three")
    assert root("read", place / "moved" / "renamed") == "one two three"


def test_names_below_a_moved_directory_are_found(root: Actor, place: Path) -> None:
    root("mkdir", place / "a", 0o755)
    root("mkdir", place / "a" / "b", 0o755)
    root("create", place / "a" / "b" / "c")
    assert root("rename", place / "a", place / "z") == "ok"
    assert root("stat", place / "z" / "b" / "c") == "ok"
    assert root("stat", place / "a" / "b" / "c") == "ENOENT"
    root("mkdir", place / "a", 0o755)
    assert root("listdir", place / "a") == []


def test_sticky_directories_protect_both_ends(
    root: Actor, alice: Actor, bob: Actor, shared: Path
) -> None:
    root("chmod", shared, 0o1777)
    alice("create", shared / "hers")
    bob("create", shared / "his")
    assert bob("rename", shared / "hers", shared / "stolen") == "EPERM"
    assert bob("rename", shared / "his", shared / "hers") == "EPERM"
    assert bob("rename", shared / "his", shared / "still his") == "ok"


def test_noreplace_does_not_replace(root: Actor, place: Path) -> None:
    (place / "a").write_text("a")
    (place / "b").write_text("b")
    assert root("renameat2", place / "a", place / "b", NOREPLACE) == "EEXIST"
    assert root("read", place / "b") == "b"
    assert root("renameat2", place / "a", place / "c", NOREPLACE) == "ok"
    assert sorted(root("listdir", place)) == ["b", "c"]


def test_exchange_is_refused_where_it_cannot_be_kept(
    root: Actor, place: Path, on_mount: bool
) -> None:
    (place / "a").write_text("a")
    (place / "b").write_text("b")
    expected = "EINVAL" if on_mount else "ok"
    assert root("renameat2", place / "a", place / "b", EXCHANGE) == expected


@pytest.mark.parametrize("name", [".", ".."])
def test_dot_and_dot_dot_are_ebusy(root: Actor, place: Path, name: str) -> None:
    root("mkdir", place / "d", 0o755)
    assert root("rename", f"{place}/d/{name}", place / "x") == "EBUSY"
