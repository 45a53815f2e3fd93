"""chown(2) and lchown(2)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.posix.conftest import Actor


def owner(actor: Actor, path: Path) -> tuple[int, int]:
    found = actor("facts", path)
    return found["uid"], found["gid"]


def test_root_gives_files_away_and_minus_one_keeps(root: Actor, place: Path) -> None:
    root("create", place / "f")
    assert root("chown", place / "f", 10001, 10002) == "ok"
    assert owner(root, place / "f") == (10001, 10002)
    assert root("chown", place / "f", -1, 5) == "ok"
    assert owner(root, place / "f") == (10001, 5)
    assert root("chown", place / "f", 7, -1) == "ok"
    assert owner(root, place / "f") == (7, 5)
    assert root("chown", place / "f", -1, -1) == "ok"
    assert owner(root, place / "f") == (7, 5)


def test_a_user_gives_a_group_of_hers_only(
    root: Actor, alice: Actor, bob: Actor, shared: Path
) -> None:
    alice("create", shared / "f")
    assert alice("chown", shared / "f", -1, 10003) == "ok"
    assert owner(alice, shared / "f") == (10001, 10003)
    assert alice("chown", shared / "f", -1, 10002) == "EPERM"
    assert alice("chown", shared / "f", 10002, -1) == "EPERM"
    assert bob("chown", shared / "f", -1, 10002) == "EPERM"
    assert owner(root, shared / "f") == (10001, 10003)


@pytest.mark.parametrize(("before", "after"), [(0o6755, 0o755), (0o4711, 0o711), (0o2745, 0o2745)])
def test_set_bits_of_a_file_are_cleared(
    alice: Actor, shared: Path, before: int, after: int
) -> None:
    alice("create", shared / "f")
    alice("chmod", shared / "f", before)
    assert alice("facts", shared / "f")["mode"] == before
    assert alice("chown", shared / "f", -1, 10003) == "ok"
    assert alice("facts", shared / "f")["mode"] == after


def test_set_bits_of_a_directory_stay(root: Actor, place: Path) -> None:
    root("mkdir", place / "d", 0o755)
    root("chmod", place / "d", 0o6755)
    assert root("chown", place / "d", 10001, 10001) == "ok"
    assert root("facts", place / "d")["mode"] == 0o6755


def test_lchown_changes_the_link_itself(root: Actor, place: Path) -> None:
    root("create", place / "f")
    root("symlink", "f", place / "link")
    root("symlink", "nowhere", place / "dangling")
    assert root("lchown", place / "link", 10001, 10002) == "ok"
    assert owner(root, place / "link") == (10001, 10002)
    assert owner(root, place / "f") == (0, 0)
    assert root("lchown", place / "dangling", 10001, 10002) == "ok"
    assert owner(root, place / "dangling") == (10001, 10002)
    assert root("chown", place / "link", 3, 4) == "ok"
    assert owner(root, place / "f") == (3, 4)
