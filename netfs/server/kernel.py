"""The system calls that Python does not have: openat2, fchmodat2, renameat2 and ``AT_EMPTY_PATH``.

Each function raises OSError like those of ``os``.  No policy belongs here.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from typing import Final

RESOLVE_NO_XDEV: Final = 0x01
RESOLVE_NO_MAGICLINKS: Final = 0x02
RESOLVE_IN_ROOT: Final = 0x10
"""Source: linux/openat2.h."""

RENAME_NOREPLACE: Final = 0x1
"""Source: linux/fs.h."""

UTIME_OMIT: Final = (1 << 30) - 2
"""Source: linux/stat.h."""

_AT_EMPTY_PATH: Final = 0x1000
_SYS_OPENAT2: Final = 437  # the same on every architecture since the common table of Linux 5.x
_SYS_FCHMODAT2: Final = 452
_OPEN_HOW: Final = struct.Struct("=QQQ")  # linux/openat2.h: struct open_how
_TIMESPECS: Final = struct.Struct("@llll")  # struct timespec[2]

_libc: Final = ctypes.CDLL(None, use_errno=True)
_syscall: Final = _libc.syscall
_syscall.restype = ctypes.c_long  # no argtypes: the converters cost more than the call itself


def _fail(path: bytes) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), path)


def openat2(dir_fd: int, path: bytes, flags: int, mode: int, resolve: int) -> int:
    """Open *path* below *dir_fd*.  *path* must not contain NUL (the caller's check)."""
    how = _OPEN_HOW.pack(flags, mode, resolve)
    fd = _syscall(_SYS_OPENAT2, dir_fd, path, how, 24)
    if fd < 0:
        raise _fail(path)
    return int(fd)


def has_openat2() -> bool:
    """Whether the kernel has openat2 and no seccomp filter takes it away."""
    # A bad size is refused with EINVAL before anything else is looked at.
    _syscall(_SYS_OPENAT2, -1, b"", b"", 0)
    return ctypes.get_errno() == errno.EINVAL


def chmod_fd(fd: int, mode: int) -> None:
    """Change the mode of what *fd* is open on, O_PATH or not.

    Raises:
        OSError: EOPNOTSUPP on a symlink, and where neither fchmodat2 nor /proc is there.
    """
    if _syscall(_SYS_FCHMODAT2, fd, b"", mode, _AT_EMPTY_PATH) == 0:
        return
    number = ctypes.get_errno()
    # Kernels before 6.6 have no fchmodat2, and old seccomp filters answer EPERM for what they
    # do not know; the magic link leads to the very inode that fd is open on.
    if number not in (errno.ENOSYS, errno.EPERM):
        raise OSError(number, os.strerror(number))
    try:
        os.chmod(b"/proc/self/fd/%d" % fd, mode)
    except FileNotFoundError:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP)) from None


def chown_fd(fd: int, uid: int, gid: int) -> None:
    """Change the owner of what *fd* is open on (a symlink itself), O_PATH or not; -1 keeps."""
    call = _libc.fchownat
    if call(fd, b"", ctypes.c_uint(uid & 0xFFFFFFFF), ctypes.c_uint(gid & 0xFFFFFFFF), 0x1000) < 0:
        raise _fail(b"")


def utimes_fd(fd: int, atime_ns: int | None, mtime_ns: int | None) -> None:
    """Set the times of what *fd* is open on (a symlink itself), O_PATH or not; None keeps."""
    values: list[int] = []
    for ns in (atime_ns, mtime_ns):
        values += (0, UTIME_OMIT) if ns is None else divmod(ns, 1_000_000_000)
    if _libc.utimensat(fd, b"", _TIMESPECS.pack(*values), _AT_EMPTY_PATH) < 0:
        raise _fail(b"")


def rename_noreplace(old_dir: int, old: bytes, new_dir: int, new: bytes) -> None:
    """Rename, failing with EEXIST if *new* exists.

    Raises:
        OSError: also EINVAL or ENOSYS where the file system cannot do it.
    """
    if _libc.renameat2(old_dir, old, new_dir, new, RENAME_NOREPLACE) < 0:
        raise _fail(old)
