"""The shared bottom of both codecs: a cursor over received bytes and the buffer type.

No protocol knowledge belongs here.
"""

from __future__ import annotations

import struct
from typing import Any, Final

Buffer = bytes | bytearray | memoryview
"""What payloads are made of until they are written (3.11 has no collections.abc.Buffer)."""

_U32: Final = struct.Struct(">I")
_U64: Final = struct.Struct(">Q")


class Truncated(ValueError):
    """The bytes end before the value does."""


class Reader:
    """A cursor over one received packet, in network byte order.

    A read that fails consumes nothing and raises Truncated.
    """

    __slots__ = ("_buf", "_end", "_pos")

    def __init__(self, buf: Buffer) -> None:
        self._buf = memoryview(buf)
        self._pos = 0
        self._end = len(self._buf)

    def __len__(self) -> int:
        """Bytes that are left."""
        return self._end - self._pos

    def u8(self) -> int:
        if self._pos >= self._end:
            raise Truncated("u8")
        value = self._buf[self._pos]
        self._pos += 1
        return value

    def u32(self) -> int:
        pos = self._pos
        if pos + 4 > self._end:
            raise Truncated("u32")
        self._pos = pos + 4
        return int(_U32.unpack_from(self._buf, pos)[0])

    def u64(self) -> int:
        pos = self._pos
        if pos + 8 > self._end:
            raise Truncated("u64")
        self._pos = pos + 8
        return int(_U64.unpack_from(self._buf, pos)[0])

    def unpack(self, layout: struct.Struct) -> tuple[Any, ...]:
        """The values of one fixed-size *layout* (its byte order is the caller's)."""
        pos = self._pos
        end = pos + layout.size
        if end > self._end:
            raise Truncated(layout.format)
        self._pos = end
        return layout.unpack_from(self._buf, pos)

    def view(self) -> memoryview:
        """A length-prefixed string, not copied."""
        pos = self._pos
        length = self.u32()
        start = pos + 4
        if length > self._end - start:
            self._pos = pos
            raise Truncated("string")
        self._pos = start + length
        return self._buf[start : start + length]

    def string(self) -> bytes:
        """A length-prefixed string, copied."""
        return bytes(self.view())

    def rest(self) -> memoryview:
        """All that is left, not copied."""
        view = self._buf[self._pos : self._end]
        self._pos = self._end
        return view


def string(value: Buffer) -> bytes:
    """*value* with its length before it."""
    return _U32.pack(len(value)) + bytes(value)
