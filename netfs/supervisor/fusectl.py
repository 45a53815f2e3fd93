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
    """The control directory of one connection."""

    __slots__ = ("_name", "_root")

    def __init__(self, minor: int) -> None:
        self._root = open_root()
        self._name = str(minor)

    @property
    def available(self) -> bool:
        """Whether this connection can be watched and aborted here."""
        return self.waiting() is not None

    def waiting(self) -> int | None:
        """Requests that wait for an answer; None when it can't be told."""
        if self._root is None:
            return None
        try:
            fd = os.open(f"{self._name}/waiting", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._root)
        except OSError:
            return None  # the connection has ended, or belongs to somebody else
        try:
            return int(os.read(fd, 32))
        except (OSError, ValueError):
            return None
        finally:
            os.close(fd)

    def abort(self) -> bool:
        """End every request with an error; whether that was possible."""
        if self._root is None:
            return False
        try:
            fd = os.open(f"{self._name}/abort", os.O_WRONLY | os.O_CLOEXEC, dir_fd=self._root)
        except OSError:
            return False
        try:
            os.write(fd, b"1")
        except OSError:
            return False
        finally:
            os.close(fd)
        return True

    def close(self) -> None:
        if self._root is not None:
            os.close(self._root)
            self._root = None
