"""The fuse control filesystem: how many requests wait, and the abort file.

Found through mountinfo; where it is not mounted it is attached to a file descriptor only, which
nobody else can see.  The mount itself is never touched.
"""

from __future__ import annotations

import ctypes
import os
from typing import Final

from netfs.supervisor import mounts

_SYS_FSOPEN: Final = 430
_SYS_FSCONFIG: Final = 431
_SYS_FSMOUNT: Final = 432
"""Since Linux 5.2, the same number on every architecture.  Source: asm-generic/unistd.h."""
_FSOPEN_CLOEXEC: Final = 1
_FSMOUNT_CLOEXEC: Final = 1
_FSCONFIG_CMD_CREATE: Final = 6
"""Source: linux/mount.h."""


def _attach() -> int | None:
    """A directory descriptor of a control filesystem mounted nowhere; None where not permitted."""
    libc = ctypes.CDLL(None, use_errno=True)
    context = libc.syscall(_SYS_FSOPEN, b"fusectl", _FSOPEN_CLOEXEC)
    if context < 0:
        return None
    try:
        if libc.syscall(_SYS_FSCONFIG, context, _FSCONFIG_CMD_CREATE, None, None, 0) < 0:
            return None
        root = libc.syscall(_SYS_FSMOUNT, context, _FSMOUNT_CLOEXEC, 0)
    finally:
        os.close(context)
    return None if root < 0 else int(root)


def open_root() -> int | None:
    """A descriptor of its directory; None: neither mounted nor permitted."""
    for mount in mounts.table():
        if mount.type == "fusectl":
            try:
                return os.open(mount.point, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            except OSError:
                continue  # hidden by another mount; try the next, then a private one
    return _attach()


class Control:
    """The control directory of one connection.

    It is held open: the number that names it is given to another mount as soon as this one has
    gone, while the directory itself stays this connection's, and is empty afterwards.
    """

    __slots__ = ("_directory",)

    def __init__(self, minor: int) -> None:
        """That of the mount whose device is *minor*, which the caller knows to be there."""
        self._directory: int | None = None
        root = open_root()
        if root is None:
            return
        try:
            flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
            self._directory = os.open(str(minor), flags, dir_fd=root)
        except OSError:
            pass  # it has ended, or belongs to somebody else
        finally:
            os.close(root)

    @property
    def available(self) -> bool:
        """Whether this connection can be watched and aborted here."""
        return self.waiting() is not None

    def waiting(self) -> int | None:
        """Requests that wait for an answer; None when it can't be told."""
        fd = self._open("waiting", os.O_RDONLY)
        if fd is None:
            return None
        try:
            return int(os.read(fd, 32))
        except (OSError, ValueError):
            return None
        finally:
            os.close(fd)

    def abort(self) -> bool:
        """End every request with an error; whether that was possible."""
        fd = self._open("abort", os.O_WRONLY)
        if fd is None:
            return False
        try:
            os.write(fd, b"1")
        except OSError:
            return False
        finally:
            os.close(fd)
        return True

    def close(self) -> None:
        if self._directory is not None:
            os.close(self._directory)
            self._directory = None

    def _open(self, name: str, flags: int) -> int | None:
        if self._directory is None:
            return None
        try:
            return os.open(name, flags | os.O_CLOEXEC, dir_fd=self._directory)
        except OSError:
            return None  # the connection has ended, or belongs to somebody else
