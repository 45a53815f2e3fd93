"""A server that cannot store: full, read-only, gone. The caller gets the true errno, once."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Mounter

pytestmark = [
    pytest.mark.mount,
    pytest.mark.sshd,
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="a small filesystem is mounted: root only"),
]


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of 4 MiB on the server's side.

    It must be seen by the server: mounted below a directory that both share.
    """
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", place], check=True)
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_a_full_disk_is_enospc_and_works_again_when_there_is_room(
    small: Path, mount_own: Mounter
) -> None:
    mount = mount_own(small)
    fd = os.open(mount.path / "f", os.O_CREAT | os.O_WRONLY)
    with pytest.raises(OSError, match="No space") as caught:  # noqa: PT012 (writes are buffered)
        for _ in range(8):
            os.write(fd, bytes(1 << 20))
        os.fsync(fd)
    assert caught.value.errno == errno.ENOSPC
    with contextlib.suppress(OSError):  # what is left could not be stored either
        os.close(fd)
    os.unlink(mount.path / "f")
    (mount.path / "g").write_bytes(b"x" * 100_000)
    assert (small / "g").read_bytes() == b"x" * 100_000
    assert os.statvfs(mount.path).f_blocks * os.statvfs(mount.path).f_frsize == 4 << 20


def test_a_read_only_server_side_is_erofs(small: Path, mount_own: Mounter) -> None:
    (small / "f").write_text("content")
    mount = mount_own(small)
    subprocess.run(["mount", "-o", "remount,ro", small], check=True)
    for action in (
        lambda: (mount.path / "new").write_text("x"),
        lambda: (mount.path / "f").write_text("x"),
        lambda: os.mkdir(mount.path / "d"),
        lambda: os.unlink(mount.path / "f"),
        lambda: os.rename(mount.path / "f", mount.path / "g"),
        lambda: os.chmod(mount.path / "f", 0o600),
    ):
        with pytest.raises(OSError, match="Read-only") as caught:
            action()
        assert caught.value.errno == errno.EROFS
    assert (mount.path / "f").read_text() == "content"
    subprocess.run(["mount", "-o", "remount,rw", small], check=True)
    (mount.path / "f").write_text("changed")
    assert (small / "f").read_text() == "changed"


def test_a_removed_directory_is_enoent_and_comes_back(remote: Path, mount_at: Mounter) -> None:
    (remote / "d").mkdir()
    (remote / "d" / "f").write_text("1")
    mount = mount_at(remote / "d", "cache_timeout=0")
    assert (mount.path / "f").read_text() == "1"
    shutil.rmtree(remote / "d")
    with pytest.raises(FileNotFoundError):
        (mount.path / "new").write_text("x")
    (remote / "d").mkdir()
    (mount.path / "new").write_text("x")
    assert (remote / "d" / "new").read_text() == "x"
