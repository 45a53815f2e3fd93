"""mkdir(2) and rmdir(2)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.posix.conftest import Actor


@pytest.mark.parametrize("mode", [0o755, 0o700, 0o1777, 0o151, 0])
def test_the_mode_is_what_was_asked(root: Actor, place: Path, mode: int) -> None:
    assert root("mkdir", place / "d", mode) == "ok"
    found = root("facts", place / "d")
    assert (found["type"], found["mode"]) == ("d", mode)


def test_the_umask_takes_bits_off(root: Actor, place: Path) -> None:
    root("umask", 0o077)
    try:
        assert root("mkdir", place / "d", 0o777) == "ok"
    finally:
        root("umask", 0)
    assert root("facts", place / "d")["mode"] == 0o700


def test_a_new_directory_belongs_to_the_caller(alice: Actor, shared: Path) -> None:
    assert alice("mkdir", shared / "d", 0o755) == "ok"
    found = alice("facts", shared / "d")
    assert (found["uid"], found["gid"]) == (10001, 10001)


def test_a_setgid_directory_gives_its_group_on(root: Actor, alice: Actor, shared: Path) -> None:
    root("chown", shared, 0, 10003)
    root("chmod", shared, 0o2777)
    assert alice("mkdir", shared / "d", 0o755) == "ok"
    found = alice("facts", shared / "d")
    assert (found["uid"], found["gid"], found["mode"]) == (10001, 10003, 0o2755)


def test_rmdir_removes_an_empty_directory(root: Actor, place: Path) -> None:
    root("mkdir", place / "d", 0o755)
    assert root("rmdir", place / "d") == "ok"
    assert root("stat", place / "d") == "ENOENT"


@pytest.mark.parametrize("content", ["file", "directory", "link"])
def test_rmdir_refuses_what_is_not_empty(root: Actor, place: Path, content: str) -> None:
    root("mkdir", place / "d", 0o755)
    {
        "file": lambda: root("create", place / "d" / "x"),
        "directory": lambda: root("mkdir", place / "d" / "x", 0o755),
        "link": lambda: root("symlink", "nowhere", place / "d" / "x"),
    }[content]()
    assert root("rmdir", place / "d") == "ENOTEMPTY"


def test_rmdir_of_what_is_no_directory_is_enotdir(root: Actor, place: Path) -> None:
    root("create", place / "file")
    root("symlink", "d", place / "link")
    root("mkdir", place / "d", 0o755)
    assert root("rmdir", place / "file") == "ENOTDIR"
    assert root("rmdir", place / "link") == "ENOTDIR"


def test_rmdir_of_dot_is_einval_and_of_dot_dot_enotempty(root: Actor, place: Path) -> None:
    root("mkdir", place / "d", 0o755)
    assert root("rmdir", f"{place}/d/.") == "EINVAL"
    assert root("rmdir", f"{place}/d/..") == "ENOTEMPTY"


def test_rmdir_in_a_sticky_directory_is_for_owners(
    root: Actor, alice: Actor, bob: Actor, shared: Path
) -> None:
    root("chmod", shared, 0o1777)
    assert alice("mkdir", shared / "d", 0o777) == "ok"
    assert bob("rmdir", shared / "d") == "EPERM"
    assert alice("rmdir", shared / "d") == "ok"
