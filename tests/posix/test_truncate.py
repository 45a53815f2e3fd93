"""truncate(2) and ftruncate(2)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.posix.conftest import Actor


@pytest.mark.parametrize("size", [0, 1, 6, 7, 8, 4096, 100_001])
def test_a_file_shrinks_and_grows_with_zeros(root: Actor, place: Path, size: int) -> None:
    (place / "f").write_bytes(b"content")
    assert root("truncate", place / "f", size) == "ok"
    assert root("facts", place / "f")["size"] == size
    assert (place / "f").read_bytes() == b"content"[:size].ljust(size, b"\0")


def test_what_was_cut_off_does_not_come_back(root: Actor, place: Path) -> None:
    (place / "f").write_bytes(b"x" * 10_000)
    assert root("truncate", place / "f", 5) == "ok"
    assert root("truncate", place / "f", 10_000) == "ok"
    assert (place / "f").read_bytes() == b"x" * 5 + bytes(9_995)


def test_another_handle_sees_it_at_once(place: Path) -> None:
    path = place / "f"
    path.write_bytes(b"x" * 50_000)
    with path.open("rb") as reader:
        assert reader.read(10) == b"x" * 10
        with path.open("r+b") as writer:
            writer.truncate(20)
        assert os.fstat(reader.fileno()).st_size == 20
        assert os.pread(reader.fileno(), 100, 0) == b"x" * 20


def test_a_directory_is_eisdir(root: Actor, place: Path) -> None:
    assert root("truncate", place, 0) == "EISDIR"


def test_a_negative_size_is_einval(root: Actor, place: Path) -> None:
    root("create", place / "f")
    assert root("truncate", place / "f", -1) == "EINVAL"


def test_it_needs_write_permission(root: Actor, alice: Actor, place: Path) -> None:
    root("create", place / "f", 0o644)
    assert alice("truncate", place / "f", 0) == "EACCES"


@pytest.mark.parametrize("size", [17 << 40, 1 << 62, (1 << 63) - 1])
def test_a_size_beyond_the_servers_filesystem_is_refused_as_it_does(
    root: Actor, place: Path, tmp_path: Path, size: int
) -> None:
    answers = set()
    for file in (place / "f", tmp_path / "f"):
        root("create", file)
        answers.add(root("truncate", file, size))
        root("truncate", file, 0)
    assert len(answers) == 1  # EFBIG on ext4


@pytest.mark.parametrize("offset", [17 << 40, 1 << 62])
def test_a_write_beyond_the_servers_filesystem_is_too(
    root: Actor, place: Path, tmp_path: Path, offset: int
) -> None:
    answers = {root("write_at", file, offset) for file in (place / "f", tmp_path / "f")}
    assert len(answers) == 1
