"""The byte budget of all files' clean blocks: who was not read for longest goes first.

Whether a block is still true is not decided here.
"""

from __future__ import annotations

from typing import Final

from cachetools import LRUCache

from netfs.client.data.extents import Extent

_OVERHEAD: Final = 700
"""Bytes an extent costs besides its data: the object, its view, its places in map and cache."""


class BlockCache(LRUCache[Extent, Extent]):
    """Clean extents of all files, at most *size* bytes of them."""

    def __init__(self, size: int) -> None:
        super().__init__(size, getsizeof=lambda extent: len(extent.data) + _OVERHEAD)
        self.ahead_used = 0  # bytes fetched ahead and then read
        self.ahead_wasted = 0  # bytes fetched ahead and dropped unread

    def admit(self, extent: Extent) -> None:
        """Keep it; others, or itself if it is larger than the cache, may have to go."""
        if len(extent.data) + _OVERHEAD > self.maxsize:
            extent.home.remove(extent)
        else:
            self[extent] = extent

    def touch(self, extent: Extent) -> None:
        """It was read."""
        _ = self[extent]  # now it was used last
        if extent.ahead:
            extent.ahead = False
            self.ahead_used += len(extent.data)

    def discard(self, extent: Extent) -> None:
        """Its file drops it."""
        if extent in self:  # what is evicted has gone already
            del self[extent]
        if extent.ahead:
            extent.ahead = False
            self.ahead_wasted += len(extent.data)

    def popitem(self) -> tuple[Extent, Extent]:
        """Evict the one that was not read for longest."""
        item = super().popitem()
        item[0].home.remove(item[0])
        return item
