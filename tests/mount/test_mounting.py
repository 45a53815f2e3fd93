"""Mounting, replacing and unmounting for real, with the toy filesystem behind the device."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from netfs.client import mount, mountinfo
from netfs.client.config import MountConfig
from netfs.client.mount import MountError, MountErrorKind
from netfs.supervisor.fusectl import Control
from tests.fakes import toymount

pytestmark = [pytest.mark.mount, pytest.mark.root]


def test_the_mount_shows_its_type_and_source_and_is_nosuid_nodev(tmp_path: Path) -> None:
    source = "user@host:/a b,c"
    with toymount.mounted(tmp_path, "--fsname", source, "--flag", "noatime"):
        entry = mountinfo.topmost(mountinfo.read(), str(tmp_path))
        assert entry is not None
        assert (entry.fstype, entry.source) == ("fuse.netfs", source)
        lines = Path("/proc/mounts").read_text().splitlines()
        (line,) = [line for line in lines if str(tmp_path) in line]
        assert {"nosuid", "nodev", "noatime", "rw"} <= set(line.split()[3].split(","))


def test_a_read_only_mount_is_read_only(tmp_path: Path) -> None:
    with toymount.mounted(tmp_path, "--read-only"):
        assert (tmp_path / "file").read_bytes() == b"hello\n"
        with pytest.raises(OSError, match="Read-only"):
            (tmp_path / "new").touch()


def test_the_toy_works_as_a_filesystem(tmp_path: Path) -> None:
    with toymount.mounted(tmp_path):
        assert sorted(os.listdir(tmp_path)) == ["file", "hangdir", "hangfile", "hanglookup"]
        data = os.urandom(3 << 20)
        (tmp_path / "big").write_bytes(data)
        assert (tmp_path / "big").read_bytes() == data
        (tmp_path / "big").rename(tmp_path / "renamed")
        assert (tmp_path / "renamed").stat().st_size == len(data)
        assert os.statvfs(tmp_path).f_blocks == 100
        with pytest.raises(OSError, match="not supported"):
            os.setxattr(tmp_path / "file", "user.x", b"")


def test_a_dead_mount_is_replaced(tmp_path: Path) -> None:
    with toymount.mounted(tmp_path) as first:
        first.process.kill()
        first.process.wait()
        with pytest.raises(OSError, match="Transport endpoint"):
            os.listdir(tmp_path)
        with toymount.mounted(tmp_path):
            assert (tmp_path / "file").read_bytes() == b"hello\n"
            entries = [entry for entry in mountinfo.read() if entry.mountpoint == str(tmp_path)]
            assert len(entries) == 1


def test_a_living_mount_is_not_replaced(tmp_path: Path) -> None:
    with toymount.mounted(tmp_path), pytest.raises(MountError, match="already") as caught:
        mount.check_mountpoint(str(tmp_path))
    assert caught.value.kind is MountErrorKind.IN_USE


def test_a_mount_that_hangs_is_neither_touched_nor_replaced(tmp_path: Path) -> None:
    with toymount.mounted(tmp_path) as toy:
        toy.process.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        try:
            for path in (tmp_path, tmp_path / "below"):
                with pytest.raises(MountError, match="does not answer") as caught:
                    mount.check_mountpoint(str(path))
                assert caught.value.kind is MountErrorKind.IN_USE
        finally:
            toy.process.send_signal(signal.SIGCONT)
        assert time.monotonic() - began < 4 * mount.LOOK_S


def test_an_unmount_ends_the_daemon(tmp_path: Path) -> None:
    with toymount.mounted(tmp_path) as toy:
        assert mount.unmount_at(str(tmp_path))
        toy.wait_for("unmounted")
        assert toy.process.wait(5) == 0
    assert mount.unmount_at(str(tmp_path))  # again: nothing there


def test_a_mount_in_use_is_only_detached(tmp_path: Path) -> None:
    with toymount.mounted(tmp_path) as toy:
        with (tmp_path / "file").open("rb") as file:
            assert not mount.unmount_at(str(tmp_path))
            assert mount.unmount_at(str(tmp_path), lazy=True)
            assert file.read() == b"hello\n"
            assert toy.process.poll() is None
        toy.wait_for("unmounted")


def test_an_abort_differs_from_an_unmount(tmp_path: Path) -> None:
    with toymount.mounted(tmp_path) as toy:
        entry = mountinfo.topmost(mountinfo.read(), str(tmp_path))
        assert entry is not None
        control = tmp_path.parent / "control"
        control.mkdir()
        subprocess.run(["mount", "-t", "fusectl", "none", control], check=True)
        try:
            (control / str(entry.connection) / "abort").write_text("1")
        finally:
            subprocess.run(["umount", control], check=True)
        toy.wait_for("aborted")


def test_the_control_files_of_a_mount_that_has_gone_do_nothing_to_the_next(
    tmp_path: Path,
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for path in (first, second):
        path.mkdir()
    with toymount.mounted(first):
        minor = os.minor(os.stat(first).st_dev)
        control = Control(minor)
        assert control.available
    for _ in range(5):  # another test's mount may be quicker to get the number
        with toymount.mounted(second):
            assert control.waiting() is None
            assert not control.available
            assert not control.abort()
            assert (second / "file").read_bytes() == b"hello\n"
            if os.minor(os.stat(second).st_dev) == minor:
                break
    else:
        pytest.skip("the number was always taken")
    control.close()


def test_read_ahead_is_raised(tmp_path: Path) -> None:
    with toymount.mounted(tmp_path):
        entry = mountinfo.topmost(mountinfo.read(), str(tmp_path))
        assert entry is not None
        assert mount.raise_read_ahead(entry.connection)
        knob = Path(f"/sys/class/bdi/0:{entry.connection}/read_ahead_kb")
        assert int(knob.read_text()) == mount.READ_AHEAD_KIB
    assert not mount.raise_read_ahead(999_999)


def test_only_what_was_mounted_is_unmounted(tmp_path: Path) -> None:
    with toymount.mounted(tmp_path):
        other = mount.Mounted(
            fd=-1, mountpoint=str(tmp_path), method=mount.Method.KERNEL, connection=999_999
        )
        assert mount.unmount(other)
        assert mountinfo.topmost(mountinfo.read(), str(tmp_path)) is not None


def test_a_user_without_privileges_is_told_what_fails(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    with pytest.raises(MountError, match="does not exist"):
        mount.mount(MountConfig(mountpoint=str(missing)), "x")
    assert not any(str(missing) in entry.mountpoint for entry in mountinfo.read())


def test_a_user_mounts_by_fusermount(tmp_path: Path) -> None:
    """In a namespace of its own, where /dev/fuse is open to users as on usual machines."""
    for directory in (tmp_path, *tmp_path.parents):
        if directory.owner() == "root" and len(directory.parts) > 2:
            directory.chmod(0o755)
    mountpoint = tmp_path / "m"
    mountpoint.mkdir()
    os.chown(mountpoint, 65534, 65534)
    script = """
        mknod "$1/fuse" c 10 229; chmod 666 "$1/fuse"; mount --bind "$1/fuse" /dev/fuse
        exec setpriv --reuid=65534 --regid=65534 --clear-groups "$2" -c '
import os, subprocess, sys
sys.path.insert(0, sys.argv[2])
from netfs.client import mount
from netfs.client.config import MountConfig
m = mount.mount(MountConfig(mountpoint=sys.argv[1], flags=("noexec",)), "u@h:/x,y")
print(m.method.name, m.connection is not None, os.get_inheritable(m.fd), flush=True)
print(subprocess.run(["grep", sys.argv[1], "/proc/self/mountinfo"], capture_output=True).stdout)
print(mount.unmount(m), mount.unmount(m))
try:
    mount.mount(MountConfig(mountpoint=sys.argv[1], allow_other=True), "x")
except mount.MountError as error:
    print(error.kind.name, error)
try:
    mount.mount(MountConfig(mountpoint="/etc"), "x")
except mount.MountError as error:
    print(error.kind.name, error)
' "$3" "$4"
    """
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [
            *("unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh"),
            *(str(tmp_path), os.path.realpath("/usr/bin/python3"), str(mountpoint), root),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    lines = done.stdout.splitlines()
    assert lines[0] == "HELPER True False", done
    assert "fuse.netfs u@h:/x,y" in lines[1]
    assert "nosuid,nodev,noexec" in lines[1]
    assert lines[2] == "True True"
    assert lines[3].startswith("NOT_PERMITTED allow_other")
    assert lines[4].startswith("NOT_PERMITTED can't mount on /etc")
