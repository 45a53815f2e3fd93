"""The byte budget of all files' clean blocks: who was not read for longest goes first.

Whether a block is still true is not decided here.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from netfs.client.data.extents import Extent

_OVERHEAD: Final = 700
"""Bytes an extent costs besides its data: the object, its view, its places in map and cache."""


class BlockCache:
    """Clean extents of all files, at most *size* bytes of them."""

    __slots__ = ("_extents", "ahead_used", "ahead_wasted", "currsize", "maxsize")

    def __init__(self, size: int) -> None:
        self._extents: OrderedDict[Extent, None] = OrderedDict()  # least recently read first
        self.maxsize = size
        self.currsize = 0  # bytes
        self.ahead_used = 0  # bytes fetched ahead and then read
        self.ahead_wasted = 0  # bytes fetched ahead and dropped unread

    def admit(self, extent: Extent) -> None:
        """Keep it; others, or itself if it is larger than the cache, may have to go."""
        size = len(extent.data) + _OVERHEAD
        self._extents[extent] = None
        self.currsize += size
        if size > self.maxsize:
            extent.home.remove(extent)  # which discards it here
        while self.currsize > self.maxsize:
            oldest = next(iter(self._extents))
            oldest.home.remove(oldest)

    def touch(self, extent: Extent) -> None:
        """It was read."""
        self._extents.move_to_end(extent)
        if extent.ahead:
            extent.ahead = False
            self.ahead_used += len(extent.data)

    def discard(self, extent: Extent) -> None:
        """Its file drops it."""
        del self._extents[extent]
        self.currsize -= len(extent.data) + _OVERHEAD
        if extent.ahead:
            extent.ahead = False
            self.ahead_wasted += len(extent.data)
