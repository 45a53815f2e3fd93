"""link(2), symlink(2) and readlink(2)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.posix.conftest import Actor


def test_two_names_share_one_content_and_count_two(root: Actor, place: Path) -> None:
    (place / "a").write_text("first")
    assert root("link", place / "a", place / "b") == "ok"
    assert root("facts", place / "a")["nlink"] == 2
    assert root("facts", place / "b")["nlink"] == 2
    root("write", place / "b", "FIRST")
    assert root("read", place / "a") == "FIRST"
    root("truncate", place / "a", 2)
    assert root("facts", place / "b")["size"] == 2
    root("chmod", place / "a", 0o604)
    assert root("facts", place / "b")["mode"] == 0o604
    root("unlink", place / "a")
    assert root("facts", place / "b")["nlink"] == 1


def test_a_directory_is_eperm(root: Actor, place: Path) -> None:
    root("mkdir", place / "d", 0o755)
    assert root("link", place / "d", place / "e") == "EPERM"


def test_a_missing_source_is_enoent(root: Actor, place: Path) -> None:
    assert root("link", place / "missing", place / "new") == "ENOENT"


def test_a_link_to_a_link_is_the_link(root: Actor, place: Path) -> None:
    root("symlink", "nowhere", place / "a")
    assert root("link", place / "a", place / "b") == "ok"
    assert root("readlink", place / "b") == "nowhere"


@pytest.mark.parametrize(
    "target", ["x", "/absolute", "../..", "./a/./b", "with blank", "\udcff", "l" * 1000, "m" * 4095]
)
def test_a_symlink_says_what_it_was_told(root: Actor, place: Path, target: str) -> None:
    assert root("symlink", target, place / "link") == "ok"
    assert root("readlink", place / "link") == target
    found = root("facts", place / "link")
    assert (found["type"], found["size"]) == ("l", len(target))


def test_a_target_of_4096_bytes_is_enametoolong(root: Actor, place: Path) -> None:
    assert root("symlink", "x" * 4096, place / "link") == "ENAMETOOLONG"


def test_an_empty_target_is_enoent(root: Actor, place: Path) -> None:
    assert root("symlink", "", place / "link") == "ENOENT"


def test_a_symlink_belongs_to_its_maker(alice: Actor, shared: Path) -> None:
    assert alice("symlink", "x", shared / "link") == "ok"
    found = alice("facts", shared / "link")
    assert (found["uid"], found["gid"]) == (10001, 10001)


def test_readlink_of_anything_else_is_einval(root: Actor, place: Path) -> None:
    root("create", place / "file")
    assert root("readlink", place / "file") == "EINVAL"
    assert root("readlink", place) == "EINVAL"
