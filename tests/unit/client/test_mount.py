"""What is told to the kernel and to fusermount3, and how mountinfo is read."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from netfs.client import fusermount, mount, mountinfo
from netfs.client.config import MountConfig
from netfs.client.mount import Method, MountError, MountErrorKind

MOUNTINFO = r"""21 28 0:20 / /proc rw,nosuid shared:5 - proc proc rw
28 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw
80 28 0:45 / /mnt/a\040b rw,nosuid,nodev master:3 - fuse.netfs u@h:/x\134y\011z rw,user_id=0
81 80 0:46 / /mnt/a\040b rw - fuse.sshfs u@h:/2 rw
82 28 0:47 /sub /mnt/deep/er rw - tmpfs none rw
not a line
"""


def test_mountinfo_is_read() -> None:
    entries = mountinfo.parse(MOUNTINFO)
    assert len(entries) == 5
    first = entries[2]
    assert (first.mountpoint, first.fstype, first.source) == (
        "/mnt/a b",
        "fuse.netfs",
        "u@h:/x\\y\tz",
    )
    assert (first.connection, first.is_fuse, first.parent_id) == (45, True, 28)
    assert not entries[0].is_fuse


def test_of_stacked_mounts_the_topmost_is_seen() -> None:
    entries = mountinfo.parse(MOUNTINFO)
    found = mountinfo.topmost(entries, "/mnt/a b")
    assert found is not None
    assert found.connection == 46
    assert mountinfo.topmost(entries, "/mnt") is None


@pytest.mark.parametrize(
    ("path", "mountpoint"),
    [
        ("/mnt/a b/c", "/mnt/a b"),
        ("/mnt/a b", "/mnt/a b"),
        ("/mnt/a bc", "/"),
        ("/mnt/deep/er/x/y", "/mnt/deep/er"),
        ("/", "/"),
    ],
)
def test_a_path_lies_on_the_deepest_mount(path: str, mountpoint: str) -> None:
    found = mountinfo.containing(mountinfo.parse(MOUNTINFO), path)
    assert found is not None
    assert found.mountpoint == mountpoint


def test_this_process_has_mounts() -> None:
    assert mountinfo.topmost(mountinfo.read(), "/proc") is not None


@pytest.mark.parametrize(
    ("words", "read_only", "flags"),
    [
        ((), False, 2 | 4),
        (("suid", "dev"), False, 0),
        (("suid", "nosuid"), False, 2 | 4),
        (("noexec", "noatime"), False, 2 | 4 | 8 | 1024),
        (("ro",), False, 1 | 2 | 4),
        (("rw",), True, 1 | 2 | 4),
    ],
)
def test_flags_of_mount(words: tuple[str, ...], read_only: bool, flags: int) -> None:
    config = MountConfig(mountpoint="/m", flags=words, read_only=read_only)
    assert mount.mount_flags(config) == flags


def test_an_unknown_flag_is_refused() -> None:
    with pytest.raises(MountError, match="'nosuch'"):
        mount.mount_flags(MountConfig(mountpoint="/m", flags=("nosuch",)))


def test_options_of_the_kernel() -> None:
    assert fusermount.kernel_options(MountConfig(mountpoint="/m")) == []
    config = MountConfig(
        mountpoint="/m", allow_other=True, default_permissions=True, max_read=65536
    )
    assert fusermount.kernel_options(config) == [
        "default_permissions",
        "allow_other",
        "max_read=65536",
    ]


def test_allow_root_is_allow_other_for_two_users() -> None:
    config = MountConfig(mountpoint="/m", allow_root=True)
    assert fusermount.kernel_options(config) == ["allow_other"]
    assert mount.allowed_uids(config) == {0, os.getuid()}
    assert mount.allowed_uids(MountConfig(mountpoint="/m", allow_other=True)) is None
    assert mount.allowed_uids(MountConfig(mountpoint="/m")) is None


def test_options_of_fusermount_are_escaped() -> None:
    config = MountConfig(mountpoint="/m", read_only=True, flags=("noexec", "suid", "dev"))
    assert fusermount.helper_options(config, "u@h:/a,b\\c") == (
        "fsname=u@h:/a\\,b\\\\c,subtype=netfs,noexec,ro"
    )


@pytest.mark.parametrize(
    ("message", "kind", "text"),
    [
        (
            "option allow_other only allowed if 'user_allow_other' is set in /etc/fuse.conf",
            MountErrorKind.NOT_PERMITTED,
            "needs? the line",
        ),
        ("failed to open /dev/fuse: Permission denied", MountErrorKind.NO_DEVICE, "access"),
        ("user has no write access to mountpoint /m", MountErrorKind.NOT_PERMITTED, "writable"),
        ("mount failed: Something else", MountErrorKind.REFUSED, "Something else"),
    ],
)
def test_messages_of_fusermount_are_understood(
    message: str, kind: MountErrorKind, text: str
) -> None:
    error = fusermount._helper_error(message, "/m")
    assert error.kind is kind
    with pytest.raises(MountError, match=text):
        raise error


def test_a_missing_mountpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(MountError, match="does not exist") as caught:
        mount.check_mountpoint(str(tmp_path / "none"))
    assert caught.value.kind is MountErrorKind.MISSING
    (tmp_path / "file").touch()
    with pytest.raises(MountError) as caught:
        mount.check_mountpoint(str(tmp_path / "file" / "below"))
    assert caught.value.kind is MountErrorKind.MISSING


def test_a_file_is_no_mountpoint(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MountError, match="not a directory") as caught:
        mount.check_mountpoint(str(tmp_path / "file"))
    assert caught.value.kind is MountErrorKind.NOT_A_DIRECTORY


def test_without_fusermount_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fusermount.shutil, "which", lambda *a, **k: None)
    with pytest.raises(MountError, match="fuse3") as caught:
        fusermount._find_helper()
    assert caught.value.kind is MountErrorKind.NO_HELPER


def test_without_the_device_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mount, "DEVICE", "/dev/none/fuse")
    with pytest.raises(MountError, match="/dev/none/fuse") as caught:
        mount._open_device()
    assert caught.value.kind is MountErrorKind.NO_DEVICE


def test_an_inherited_descriptor_is_taken_over() -> None:
    fd = os.open("/dev/null", os.O_RDWR)  # any character device
    try:
        mounted = mount.mount(MountConfig(mountpoint=f"/dev/fd/{fd}"), "x")
        assert (mounted.fd, mounted.method) == (fd, Method.INHERITED)
        assert mount.unmount(mounted)
    finally:
        os.close(fd)


@pytest.mark.parametrize("mountpoint", ["/dev/fd/9999", None])
def test_a_descriptor_that_is_no_device_is_refused(mountpoint: str | None) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(MountError, match="not an open"):
        mount.mount(MountConfig(mountpoint=mountpoint or f"/dev/fd/{ours.fileno()}"), "x")


def test_the_helpers_descriptor_is_close_on_exec(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, open(tmp_path / "f", "w") as file:
        socket.send_fds(theirs, [b"x"], [file.fileno()])
        fd = fusermount._receive_fd(ours)
        assert fd is not None
        assert not os.get_inheritable(fd)
        os.close(fd)
        theirs.close()
        assert fusermount._receive_fd(ours) is None
