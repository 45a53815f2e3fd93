"""A server that cannot store: full, read-only, gone. The caller gets the true errno, once."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Mounter
from tests.harness.mounts import PROJECT, mounted, netfs_command
from tests.harness.packages import require
from tests.harness.sshd import STOCK_SUBSYSTEM, running_sshd

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


@pytest.fixture
def quota(tmp_path: Path) -> Iterator[Path]:
    """A directory on the server's side that may hold 4 MiB, on a disk with more room (btrfs)."""
    if "btrfs" not in Path("/proc/filesystems").read_text():
        pytest.skip("no filesystem with quotas: this kernel has no btrfs")
    image, place = tmp_path / "image", tmp_path / "disk"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(128 << 20)
    btrfs = require("btrfs", "btrfs-progs")
    directory = place / "limited"
    run(require("mkfs.btrfs", "btrfs-progs"), "-q", image)
    run("mount", "-o", "loop", image, place)
    try:
        run(btrfs, "quota", "enable", place)
        run(btrfs, "subvolume", "create", directory)
        run(btrfs, "qgroup", "limit", "4M", directory)
        yield directory
    finally:
        run("umount", "-l", place)


def run(*words: str | Path) -> None:
    subprocess.run([os.fspath(word) for word in words], capture_output=True, timeout=60, check=True)


@pytest.mark.parametrize("server", ["sshd", "netfs serve"])
def test_a_quota_is_edquot_and_what_it_does_not_take_is_saved(
    server: str, quota: Path, tmp_path: Path, need_fuse: None
) -> None:
    serve = shlex.join(netfs_command("serve", "--stdio", "--root", "/"))
    subsystem = STOCK_SUBSYSTEM if server == "sshd" else f"env PYTHONPATH={PROJECT} {serve}"
    options = [f"rescue_dir={tmp_path / 'rescue'}"]
    data = os.urandom(12 << 20)
    with (
        running_sshd(tmp_path / "sshd", subsystem=subsystem) as sshd,
        mounted(sshd, quota, tmp_path / "m", options=options) as mount,
    ):
        accepted = 0
        fd = os.open(mount.path / "f", os.O_CREAT | os.O_WRONLY)
        with pytest.raises(OSError, match="quota") as caught:  # noqa: PT012 (writes are buffered)
            while accepted < len(data):
                accepted += os.write(fd, data[accepted : accepted + (1 << 20)])
            os.fsync(fd)
        assert caught.value.errno == errno.EDQUOT
        with contextlib.suppress(OSError):  # what is left could not be stored either
            os.close(fd)
        (saved,) = (tmp_path / "rescue").glob("*.data")
        assert str(saved) in mount.text()
        stored, kept = (quota / "f").read_bytes(), saved.read_bytes()
        for start in range(0, accepted, 4096):
            piece = data[start : start + 4096]
            found = (stored[start : start + 4096], kept[start : start + 4096])
            assert piece in found, f"neither stored nor saved: {start}"
        os.unlink(mount.path / "f")
        run("sync", "-f", quota)  # btrfs frees quota at its next commit
        (mount.path / "g").write_bytes(b"x" * 100_000)
        assert (quota / "g").read_bytes() == b"x" * 100_000
        assert mount.unmount() == 0
