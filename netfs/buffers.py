"""Memory that bulk data passes through, used again instead of taken from the system anew.

Fresh memory costs a page fault per 4 KiB, or is cleared before it is filled; what was just used is
also still in the processor's cache.
"""

from __future__ import annotations

from typing import Final

MARGIN: Final = 272
"""Bytes free before and behind a landing: what an unpacker may leave there.  An SSH packet has a
head of 10 bytes before its data, and at most 255 of padding behind.  Source: RFC 4253 §6."""


class Spares:
    """Buffers of one size that are lent until nobody holds a view of them."""

    __slots__ = ("_kept", "_most", "size")

    def __init__(self, size: int, most: int) -> None:
        """*most* buffers are kept, of *size* bytes each; a lent one is looked at in vain for half
        a microsecond."""
        self.size = size
        self._most = most
        self._kept: list[bytearray] = []

    def take(self) -> bytearray:
        """One that nobody holds a view of; its content is arbitrary.

        It is the first that is free, so that no more memory is in turn than is lent at a time.
        """
        for buffer in self._kept:
            try:
                buffer.pop()  # refused while anybody holds a view of it
            except BufferError:
                continue
            buffer.append(0)
            return buffer
        buffer = bytearray(self.size)
        if len(self._kept) < self._most:
            self._kept.append(buffer)
        return buffer


class Landing:
    """Where the next ``missing`` bytes of a stream may be put: in ``block``, from ``at`` on.

    Who puts some there tells the stream's receiver.  MARGIN bytes before and behind are free to be
    written to as well, but what was before ``at`` must be there again afterwards.
    """

    __slots__ = ("at", "block", "missing")

    def __init__(self) -> None:
        self.block = memoryview(b"")
        self.at = 0
        self.missing = 0  # 0: there is no such place now
