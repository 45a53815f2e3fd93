"""The open files and directories of one client, behind opaque handles.

A handle is a number that is never given twice in a session, so a closed one can never mean another
file.  Used by one thread at a time.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator
from typing import Final, TypeVar

from netfs.server import attributes

_HANDLE: Final = struct.Struct(">Q")


class OpenFile:
    """A regular file."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def close(self) -> None:
        os.close(self.fd)


class OpenDirectory:
    """A directory and how far it is read."""

    __slots__ = ("_entries", "fd")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._entries: Iterator[attributes.Entry] | None = None

    def entries(self) -> Iterator[attributes.Entry]:
        """What is still to be read; the same iterator each time."""
        if self._entries is None:
            self._entries = attributes.scan(self.fd)
        return self._entries

    def close(self) -> None:
        self._entries = None  # it holds a descriptor of its own
        os.close(self.fd)


Opened = OpenFile | OpenDirectory
_O = TypeVar("_O", OpenFile, OpenDirectory)


class HandleTable:
    """At most *limit* handles at a time."""

    __slots__ = ("_next", "_opened", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._next = 1
        self._opened: dict[bytes, Opened] = {}

    def __len__(self) -> int:
        return len(self._opened)

    def __repr__(self) -> str:
        return f"<HandleTable {len(self._opened)} of {self.limit}>"

    def check_room(self) -> None:
        """Raises OSError EMFILE if not one more may be opened (before anything is created)."""
        if len(self._opened) >= self.limit:
            raise OSError(errno.EMFILE, f"{self.limit} handles are open, which is the limit")

    def add(self, opened: Opened) -> bytes:
        handle = _HANDLE.pack(self._next)
        self._next += 1
        self._opened[handle] = opened
        return handle

    def opened(self, handle: bytes) -> Opened:
        """Raises OSError EBADF for a handle that is not open."""
        try:
            return self._opened[handle]
        except KeyError:
            raise OSError(errno.EBADF, "no such handle is open") from None

    def file(self, handle: bytes) -> OpenFile:
        return self._of_kind(handle, OpenFile, "file")

    def directory(self, handle: bytes) -> OpenDirectory:
        return self._of_kind(handle, OpenDirectory, "directory")

    def _of_kind(self, handle: bytes, kind: type[_O], name: str) -> _O:
        opened = self.opened(handle)
        if type(opened) is not kind:
            raise OSError(errno.EBADF, f"the handle is not one of a {name}")
        return opened

    def close(self, handle: bytes) -> None:
        """Raises OSError EBADF for an unknown handle, or what close(2) says (the data's fate)."""
        opened = self.opened(handle)
        del self._opened[handle]  # also if closing fails: Linux has freed the descriptor then
        opened.close()

    def close_all(self) -> list[OSError]:
        """Close what is open; returns what close(2) said, for the log."""
        errors: list[OSError] = []
        while self._opened:
            _, opened = self._opened.popitem()
            try:
                opened.close()
            except OSError as error:
                errors.append(error)
        return errors
