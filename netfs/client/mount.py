"""Mounting and unmounting: by mount(2) as root, by fusermount3 otherwise.

Nothing here touches a mount whose daemon may be stuck: what is mounted is read from mountinfo, and
a path on a network file system is looked at only by a child that may be left behind.  All of it
blocks; the event loop must not serve the mount in question meanwhile.
"""

from __future__ import annotations

import ctypes
import enum
import errno
import os
import re
import select
import signal
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from netfs.client import fusermount, mountinfo
from netfs.client.config import MountConfig
from netfs.client.mounterrors import DEVICE, MountError, MountErrorKind
from netfs.client.mountinfo import MountEntry

__all__ = [
    "Method",
    "MountError",
    "MountErrorKind",
    "Mounted",
    "allowed_uids",
    "check_mountpoint",
    "mount",
    "raise_read_ahead",
    "unmount",
    "unmount_at",
]

READ_AHEAD_KIB: Final = 4096
"""Kernel read-ahead where it may be raised: 17 times the sequential throughput at 10 ms."""

LOOK_S: Final = 2.0
"""How long a child may take to look at a path that lies on a network file system."""

_OURS: Final = frozenset({"fuse.netfs", "fuse.sshfs"})
"""Whose dead mounts are replaced."""

MS_FLAGS: Final[Mapping[str, tuple[int, bool]]] = {
    "ro": (1, True),
    "rw": (1, False),
    "nosuid": (2, True),
    "suid": (2, False),
    "nodev": (4, True),
    "dev": (4, False),
    "noexec": (8, True),
    "exec": (8, False),
    "sync": (16, True),
    "async": (16, False),
    "dirsync": (128, True),
    "nosymfollow": (256, True),
    "noatime": (1024, True),
    "atime": (1024, False),
    "nodiratime": (2048, True),
    "diratime": (2048, False),
    "relatime": (1 << 21, True),
    "norelatime": (1 << 21, False),
    "strictatime": (1 << 24, True),
    "nostrictatime": (1 << 24, False),
    "lazytime": (1 << 25, True),
    "nolazytime": (1 << 25, False),
}
"""Words for flags of mount(2): (bit, set or cleared).  Source: linux/mount.h."""

_MNT_DETACH: Final = 2
_UMOUNT_NOFOLLOW: Final = 8


class Method(enum.Enum):
    """How a mount was made, and so how it is unmounted."""

    KERNEL = "mount(2)"
    HELPER = "fusermount3"
    INHERITED = "/dev/fd/N"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mounted:
    """A mount that was made.  The kernel sends INIT to *fd*; whoever has it closes it."""

    fd: int
    mountpoint: str
    method: Method
    connection: int | None  # its number in the control file system; None: not visible here


def mount(config: MountConfig, source: str) -> Mounted:
    """Mount, replacing a dead mount at the same place.

    Args:
        source: shown as the mount's source unless ``config.fsname`` says otherwise.

    Raises:
        MountError
    """
    inherited = re.fullmatch(r"/dev/fd/(\d+)", config.mountpoint)
    if inherited:
        return _take_over(int(inherited[1]))
    check_mountpoint(config.mountpoint, _OURS | {f"fuse.{config.subtype}"})
    fsname = config.fsname if config.fsname is not None else source
    if os.geteuid() == 0:
        fd = _mount_directly(config, fsname)
        method = Method.KERNEL
    else:
        fd = fusermount.mount(config, fsname)
        method = Method.HELPER
    entry = mountinfo.topmost(mountinfo.read(), config.mountpoint)
    connection = entry.connection if entry is not None and entry.is_fuse else None
    return Mounted(fd=fd, mountpoint=config.mountpoint, method=method, connection=connection)


def unmount(mounted: Mounted, *, lazy: bool = False) -> bool:
    """Unmount what ``mount`` made, if it is still there.

    Args:
        lazy: detach it now even if it is in use; it ends with its last user.

    Returns:
        Whether it is gone; False when it is in use.

    Raises:
        MountError: it can't be unmounted for another reason.
    """
    if mounted.method is Method.INHERITED:
        return True  # whoever mounted it unmounts it
    entry = mountinfo.topmost(mountinfo.read(), mounted.mountpoint)
    if entry is None or not entry.is_fuse or entry.connection != mounted.connection:
        return True
    return unmount_at(mounted.mountpoint, lazy=lazy)


def unmount_at(mountpoint: str, *, lazy: bool = False) -> bool:
    """Unmount the topmost mount at *mountpoint*.  See ``unmount``."""
    if os.geteuid() == 0:
        number = _umount2(mountpoint, (_MNT_DETACH if lazy else 0) | _UMOUNT_NOFOLLOW)
        if number == 0 or number == errno.EINVAL:
            return True  # EINVAL: not mounted any more
        if number == errno.EBUSY:
            return False
        raise MountError(
            MountErrorKind.NOT_PERMITTED if number == errno.EPERM else MountErrorKind.REFUSED,
            f"can't unmount {mountpoint}: {os.strerror(number)}",
        )
    message = fusermount.unmount(mountpoint, lazy=lazy)
    if message is None or mountinfo.topmost(mountinfo.read(), mountpoint) is None:
        return True
    if "busy" in message:
        return False
    raise MountError(MountErrorKind.REFUSED, f"can't unmount {mountpoint}: {message}")


def raise_read_ahead(connection: int, kib: int = READ_AHEAD_KIB) -> bool:
    """Raise the kernel's read-ahead of a mount, after INIT; only root may.

    Returns:
        Whether it was done; files opened from now on have it.
    """
    try:
        with open(f"/sys/class/bdi/0:{connection}/read_ahead_kb", "w", encoding="ascii") as file:
            file.write(str(kib))
    except OSError:
        return False  # not root, or no /sys here: the daemon's own read-ahead has to do
    return True


# Before mounting


def check_mountpoint(mountpoint: str, ours: frozenset[str] = _OURS) -> None:
    """See that a directory can be mounted on, and remove dead mounts of types *ours* from it.

    Raises:
        MountError
    """
    for _ in range(16):  # dead mounts may be stacked
        entries = mountinfo.read()
        entry = mountinfo.topmost(entries, mountpoint)
        if entry is None or entry.fstype not in ours:
            break
        _replace(mountpoint, entry)
    below = mountinfo.containing(mountinfo.read(), mountpoint)
    number, mode = _look(mountpoint, careful=below is not None and _may_hang(below))
    if number == errno.ETIMEDOUT:
        assert below is not None
        raise MountError(
            MountErrorKind.IN_USE,
            f"{mountpoint} lies on {below.mountpoint} ({below.source}), which does not answer",
        )
    if number in (errno.ENOENT, errno.ENOTDIR):
        raise MountError(
            MountErrorKind.MISSING, f"the mountpoint {mountpoint} does not exist: make it first"
        )
    if number:
        raise MountError(
            MountErrorKind.NOT_PERMITTED, f"the mountpoint {mountpoint}: {os.strerror(number)}"
        )
    if not stat.S_ISDIR(mode):
        raise MountError(
            MountErrorKind.NOT_A_DIRECTORY,
            f"the mountpoint {mountpoint} is not a directory: name or make one",
        )


def _replace(mountpoint: str, entry: MountEntry) -> None:
    """Unmount a dead mount of ours, or say who is in the way."""
    number, _ = _look(mountpoint, careful=True)
    if number == errno.ENOTCONN:
        unmount_at(mountpoint, lazy=True)
        return
    if number == errno.ETIMEDOUT:
        raise MountError(
            MountErrorKind.IN_USE,
            f"{entry.source} is mounted at {mountpoint} and does not answer: "
            f"end it first with 'netfs abort {mountpoint}' or 'umount -l {mountpoint}'",
        )
    raise MountError(
        MountErrorKind.IN_USE,
        f"{entry.source} ({entry.fstype}) is mounted at {mountpoint} already: "
        f"end it with 'netfs umount {mountpoint}', or choose another mountpoint",
    )


def _may_hang(entry: MountEntry) -> bool:
    return entry.is_fuse or entry.fstype in ("nfs", "nfs4", "cifs", "smb3", "ceph", "9p", "autofs")


def _look(path: str, *, careful: bool) -> tuple[int, int]:
    """stat() by name: (errno, mode).  *careful*: in a child, ETIMEDOUT if it does not return."""
    if not careful:
        try:
            return 0, os.stat(path).st_mode
        except OSError as error:
            return error.errno or errno.EIO, 0
    program = (
        "import os, sys\n"
        "try:\n"
        # the root's attributes may be cached by the kernel, also of a dead mount; statfs never is
        " os.statvfs(sys.argv[1])\n"
        " print(0, os.stat(sys.argv[1]).st_mode)\n"
        "except OSError as error: print(error.errno, 0)\n"
    )
    # Not subprocess: it would wait for a child that even SIGKILL does not end.
    output, their_end = os.pipe()
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        child = os.posix_spawn(
            sys.executable,
            [sys.executable, "-I", "-S", "-c", program, path],
            {},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, null, 0),
                (os.POSIX_SPAWN_DUP2, their_end, 1),
                (os.POSIX_SPAWN_DUP2, null, 2),
            ],
        )
        os.close(their_end)
        their_end = -1
        is_over, _, _ = select.select([output], [], [], LOOK_S)
        if not is_over:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, os.WNOHANG)  # what is still stuck is reaped when we end
            return errno.ETIMEDOUT, 0
        number, mode = os.read(output, 100).split()
        os.waitpid(child, 0)
        return int(number), int(mode)
    except ValueError:
        return errno.EIO, 0  # the child failed without saying why
    finally:
        for fd in (output, null, their_end):
            if fd >= 0:
                os.close(fd)


def _take_over(fd: int) -> Mounted:
    try:
        is_device = stat.S_ISCHR(os.fstat(fd).st_mode)
    except OSError:
        is_device = False
    if not is_device:
        raise MountError(MountErrorKind.MISSING, f"/dev/fd/{fd} is not an open /dev/fuse")
    return Mounted(fd=fd, mountpoint=f"/dev/fd/{fd}", method=Method.INHERITED, connection=None)


# mount(2)


def mount_flags(config: MountConfig) -> int:
    """The flags of mount(2): nosuid and nodev unless the words say otherwise, the last one wins.

    Raises:
        MountError: there is no such word.
    """
    flags = MS_FLAGS["nosuid"][0] | MS_FLAGS["nodev"][0]
    for word in config.flags:
        if word not in MS_FLAGS:
            raise MountError(MountErrorKind.REFUSED, f"unknown mount flag {word!r}")
        bit, is_set = MS_FLAGS[word]
        flags = flags | bit if is_set else flags & ~bit
    if config.read_only:
        flags |= MS_FLAGS["ro"][0]
    return flags


def allowed_uids(config: MountConfig) -> frozenset[int] | None:
    """Whose requests the dispatcher answers; None: the kernel alone decides."""
    if config.allow_root and not config.allow_other:
        return frozenset({0, os.getuid()})
    return None


def _mount_directly(config: MountConfig, fsname: str) -> int:
    fd = _open_device()
    try:
        options = [
            f"fd={fd}",
            f"rootmode={stat.S_IFDIR:o}",
            f"user_id={os.getuid()}",
            f"group_id={os.getgid()}",
            *fusermount.kernel_options(config),
        ]
        number = _mount2(
            fsname, config.mountpoint, f"fuse.{config.subtype}", mount_flags(config), options
        )
        if number:
            raise _mount_error(number, config.mountpoint)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _open_device() -> int:
    try:
        return os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM):
            way_out = "give this user (or container) access to the device"
        else:
            way_out = "load the kernel module 'fuse', or give the container '--device /dev/fuse'"
        raise MountError(
            MountErrorKind.NO_DEVICE, f"can't open {DEVICE}: {error.strerror}; {way_out}"
        ) from error


def _mount_error(number: int, mountpoint: str) -> MountError:
    text = f"can't mount on {mountpoint}: {os.strerror(number)}"
    if number in (errno.EPERM, errno.EACCES):
        return MountError(
            MountErrorKind.NOT_PERMITTED,
            f"{text}; in a container, mounting needs the capability SYS_ADMIN",
        )
    if number == errno.ENODEV:
        return MountError(MountErrorKind.NO_DEVICE, f"{text}; the kernel has no FUSE")
    if number in (errno.ENOENT, errno.ENOTDIR):
        return MountError(MountErrorKind.MISSING, text)
    return MountError(MountErrorKind.REFUSED, text)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _mount2(source: str, target: str, fstype: str, flags: int, options: list[str]) -> int:
    call = _libc().mount
    call.argtypes = (
        ctypes.c_char_p,
        ctypes.c_char_p,
        ctypes.c_char_p,
        ctypes.c_ulong,
        ctypes.c_char_p,
    )
    result = call(
        os.fsencode(source),
        os.fsencode(target),
        os.fsencode(fstype),
        flags,
        os.fsencode(",".join(options)),
    )
    return ctypes.get_errno() if result else 0


def _umount2(target: str, flags: int) -> int:
    call = _libc().umount2
    call.argtypes = (ctypes.c_char_p, ctypes.c_int)
    return ctypes.get_errno() if call(os.fsencode(target), flags) else 0
