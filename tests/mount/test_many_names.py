"""Walks over more names than are kept, through a kernel that never forgets by itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Mounter
from tests.harness.mounts import Mount, environment
from tests.harness.waiting import wait_until

pytestmark = [pytest.mark.mount, pytest.mark.sshd]

LIMIT = 4000
SLACK = 2 * (LIMIT // 32)
DIRECTORIES, FILES = 30, 300


@pytest.fixture
def tree(remote: Path) -> Path:
    for number in range(DIRECTORIES):
        (remote / f"d{number}").mkdir()
        for each in range(FILES):
            (remote / f"d{number}" / f"f{each}").write_bytes(b"x" * number)
    return remote


def known(mount: Mount) -> int:
    """How many names netfs remembers."""
    command = [sys.executable, "-m", "netfs", "status", "--json", str(mount.path)]
    shown = subprocess.run(
        command, env=environment(), capture_output=True, timeout=20, check=True
    ).stdout
    body = json.loads(shown)
    count = body["names"]["known"]
    assert isinstance(count, int)
    return count


def walk(top: Path) -> None:
    """As find(1): each directory to its end, then each of its names is looked at."""
    for number in range(DIRECTORIES):
        names = os.listdir(top / f"d{number}")
        assert len(names) == FILES
        for name in names:
            assert os.stat(top / f"d{number}" / name).st_size == number


def test_what_is_remembered_does_not_grow_with_walks(mount_at: Mounter, tree: Path) -> None:
    mount = mount_at(tree, f"dcache_max_size={LIMIT}")
    for _ in range(3):
        walk(mount.path)
        wait_until(lambda: known(mount) <= LIMIT + SLACK, 10, "the kernel to give names back")


def test_what_is_in_use_goes_on_however_many_names_come_after(
    mount_at: Mounter, tree: Path
) -> None:
    mount = mount_at(tree, f"dcache_max_size={LIMIT}")
    directory = os.open(mount.path / "d1", os.O_RDONLY | os.O_DIRECTORY)
    file = os.open(mount.path / "d2" / "f7", os.O_RDWR)
    try:
        for _ in range(2):
            walk(mount.path)
            assert len(os.listdir(directory)) == FILES
            assert os.stat("f3", dir_fd=directory).st_size == 1
            assert os.fstat(directory).st_ino == os.stat(mount.path / "d1").st_ino
            assert os.pread(file, 10, 0) == b"xx"
        os.pwrite(file, b"yy", 0)
    finally:
        os.close(file)
        os.close(directory)
    assert (tree / "d2" / "f7").read_bytes() == b"yy"
