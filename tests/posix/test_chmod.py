"""chmod(2)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.posix.conftest import Actor


@pytest.mark.parametrize("mode", [0, 0o111, 0o644, 0o777, 0o4755, 0o2755, 0o1755, 0o7777])
@pytest.mark.parametrize("kind", ["file", "directory"])
def test_each_bit_is_kept(root: Actor, place: Path, kind: str, mode: int) -> None:
    if kind == "file":
        root("create", place / "x")
    else:
        root("mkdir", place / "x", 0o755)
    assert root("chmod", place / "x", mode) == "ok"
    assert root("facts", place / "x")["mode"] == mode
    root("chmod", place / "x", 0o700)


def test_only_the_owner_and_root_may(root: Actor, alice: Actor, bob: Actor, shared: Path) -> None:
    alice("create", shared / "f")
    assert bob("chmod", shared / "f", 0o777) == "EPERM"
    assert alice("chmod", shared / "f", 0o600) == "ok"
    assert root("chmod", shared / "f", 0o640) == "ok"
    assert alice("facts", shared / "f")["mode"] == 0o640


def test_a_link_is_followed(root: Actor, place: Path) -> None:
    root("create", place / "f", 0o644)
    root("symlink", "f", place / "link")
    assert root("chmod", place / "link", 0o600) == "ok"
    assert root("facts", place / "f")["mode"] == 0o600


def test_setgid_is_lost_by_who_is_not_in_the_group(root: Actor, alice: Actor, shared: Path) -> None:
    alice("create", shared / "f", 0o755)
    root("chown", shared / "f", 10001, 10009)
    assert alice("chmod", shared / "f", 0o2755) == "ok"
    assert alice("facts", shared / "f")["mode"] == 0o755


def test_writing_clears_setuid_and_setgid(root: Actor, alice: Actor, shared: Path) -> None:
    alice("create", shared / "f", 0o777)
    root("chmod", shared / "f", 0o6777)
    assert alice("facts", shared / "f")["mode"] == 0o6777
    alice("write", shared / "f", "content")
    assert alice("facts", shared / "f")["mode"] == 0o777


def test_truncating_clears_setuid(root: Actor, bob: Actor, alice: Actor, shared: Path) -> None:
    alice("create", shared / "f", 0o777)
    root("chmod", shared / "f", 0o4777)
    assert bob("truncate", shared / "f", 10) == "ok"
    assert root("facts", shared / "f")["mode"] == 0o777
