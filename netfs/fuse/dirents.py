"""Directory records, packed until the size the kernel asked for is full.

A record that does not fit is left out whole; what is listed is not decided here.
"""

from __future__ import annotations

from typing import Final

from netfs.fuse import abi
from netfs.fuse.replies import NOT_VALID, AttrFields, Validity

_NO_ATTR: Final[AttrFields] = (0,) * 16

_FIRST: Final = 8192
"""Bytes of a buffer at first: the kernel may ask for a megabyte, and clearing that takes longer
than packing the names of most directories."""


class DirentWriter:
    """The answer to READDIR.  Source: struct fuse_dirent."""

    __slots__ = ("_buffer", "_size", "_used")

    def __init__(self, size: int) -> None:
        """*size* as the request says, bytes."""
        self._buffer = bytearray(min(size, _FIRST))  # of zeros: what pads the names
        self._size = size
        self._used = 0

    def add(self, ino: int, next_offset: int, mode: int, name: bytes) -> bool:
        """Append a record; False if it does not fit (then the answer is complete).

        Args:
            ino: shown by readdir(3).
            next_offset: the cookie with which the kernel asks for what follows this entry.
            mode: st_mode of the entry; its file type is used.
            name: 1 to 1024 bytes.
        """
        length = len(name)
        start = self._used + 24
        end = start + length
        used = end + (-length & 7)
        buffer = self._buffer
        if used > len(buffer) and not self._widen(used):
            return False
        abi.DIRENT.pack_into(buffer, start - 24, ino, next_offset, length, mode >> 12 & 0xF)
        buffer[start:end] = name
        self._used = used
        return True

    def _widen(self, used: int) -> bool:
        """Make room for *used* bytes, unless the answer would become too long."""
        if used > self._size:
            return False
        have = len(self._buffer)
        self._buffer += bytes(min(self._size, max(2 * have, used)) - have)
        return True

    def body(self) -> memoryview:
        """All records; nothing if the directory has ended."""
        return memoryview(self._buffer)[: self._used]


class DirentPlusWriter(DirentWriter):
    """The answer to READDIRPLUS.  Source: struct fuse_direntplus."""

    __slots__ = ()

    def add(
        self,
        ino: int,
        next_offset: int,
        mode: int,
        name: bytes,
        nodeid: int = 0,
        valid: Validity = NOT_VALID,
        attr: AttrFields = _NO_ATTR,
    ) -> bool:
        """Append a record; False if it does not fit.  See ``DirentWriter.add``.

        Args:
            nodeid: counts one nlookup of it; 0: no attributes are given and nothing is counted,
                as for '.', '..' and what is not known.
        """
        length = len(name)
        start = self._used + 152
        end = start + length
        used = end + (-length & 7)
        buffer = self._buffer
        if used > len(buffer) and not self._widen(used):
            return False
        abi.DIRENTPLUS.pack_into(
            buffer, start - 152, nodeid, 0, *valid, *attr,
            ino, next_offset, length, mode >> 12 & 0xF,
        )  # fmt: skip
        buffer[start:end] = name
        self._used = used
        return True
