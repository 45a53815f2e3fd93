"""Directory records, packed until the size the kernel asked for is full.

A record that does not fit is left out whole; what is listed is not decided here.
"""

from __future__ import annotations

from typing import Final

from netfs.fuse import abi

NO_ENTRY: Final = bytes(abi.ENTRY_OUT.size)
"""In a direntplus: no attributes given, nothing counted.  For '.', '..' and what is not known."""

_PADDING: Final = tuple(bytes(size) for size in range(8))


class DirentWriter:
    """The answer to READDIR.  Source: struct fuse_dirent."""

    __slots__ = ("_parts", "_room")

    def __init__(self, size: int) -> None:
        """*size* as the request says, bytes."""
        self._parts: list[bytes] = []
        self._room = size

    def add(self, ino: int, next_offset: int, mode: int, name: bytes) -> bool:
        """Append a record; False if it does not fit (then the answer is complete).

        Args:
            ino: shown by readdir(3).
            next_offset: the cookie with which the kernel asks for what follows this entry.
            mode: st_mode of the entry; its file type is used.
            name: 1 to 1024 bytes.
        """
        length = len(name)
        padding = -length % 8
        size = 24 + length + padding
        if size > self._room:
            return False
        self._room -= size
        self._parts += (
            abi.DIRENT.pack(ino, next_offset, length, mode >> 12 & 0xF),
            name,
            _PADDING[padding],
        )
        return True

    def body(self) -> bytes:
        """All records; nothing if the directory has ended."""
        return b"".join(self._parts)


class DirentPlusWriter:
    """The answer to READDIRPLUS.  Source: struct fuse_direntplus."""

    __slots__ = ("_parts", "_room")

    def __init__(self, size: int) -> None:
        """*size* as the request says, bytes."""
        self._parts: list[bytes] = []
        self._room = size

    def fits(self, name: bytes) -> bool:
        """Whether a record for *name* has room: asked before an nlookup is counted for it."""
        return 152 + len(name) + -len(name) % 8 <= self._room

    def add(self, entry: bytes, ino: int, next_offset: int, mode: int, name: bytes) -> bool:
        """Append a record; False if it does not fit.  See ``DirentWriter.add``.

        Args:
            entry: ``replies.entry(...)``, which counts one nlookup, or NO_ENTRY.
        """
        length = len(name)
        padding = -length % 8
        size = 152 + length + padding
        if size > self._room:
            return False
        self._room -= size
        self._parts += (
            entry,
            abi.DIRENT.pack(ino, next_offset, length, mode >> 12 & 0xF),
            name,
            _PADDING[padding],
        )
        return True

    def body(self) -> bytes:
        """All records; nothing if the directory has ended."""
        return b"".join(self._parts)
