"""Where a file's bytes are in memory: disjoint extents, those still to be sent among them.

A read finds the newest bytes here whatever became of them; what is missing the caller fetches.
When to fetch, to send or to evict is not decided here.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final, Protocol

from netfs.wire import Buffer

if TYPE_CHECKING:
    from netfs.client.data.writequeue import Batch, Flight

FETCHED: Final = 0  # as the server has them
OWN: Final = 1  # written here, and acknowledged by the server
SENT: Final = 2  # written here, not acknowledged
UNSENT: Final = 3
GONE: Final = 4  # no longer in any map

_ZEROS: Final = memoryview(bytes(1 << 20))
_COPY_REST: Final = 64 * 1024
"""A rest up to this size (bytes) is copied, so that it does not keep a larger buffer alive."""


class Extent:
    """The bytes [start, end) of a file.

    ``data`` is a bytearray while small writes are still appended to it, else a memoryview.
    """

    __slots__ = ("ahead", "batch", "data", "end", "flight", "home", "start", "state", "waits")

    def __init__(self, home: ExtentMap, start: int, data: bytearray | memoryview, state: int):
        self.home = home
        self.start = start
        self.end = start + len(data)
        self.data = data
        self.state = state
        self.ahead = False  # fetched ahead of any read, and not read yet
        self.batch: Batch | None = None  # of an UNSENT one
        self.flight: Flight | None = None  # of a SENT one
        self.waits: tuple[Flight, ...] = ()
        """Older bytes of the same place that are under way: an UNSENT one is sent after them."""

    def view(self, start: int, end: int) -> Buffer:
        data = self.data
        if type(data) is bytearray:
            # A view would forbid that the next write is appended.
            return bytes(data[start - self.start : end - self.start])
        if start == self.start and end == self.end:
            return data
        return data[start - self.start : end - self.start]

    def seal(self) -> memoryview:
        """Nothing is appended any more; the bytes as they stay."""
        data = self.data
        if type(data) is bytearray:
            data = memoryview(data)
            self.data = data
        assert isinstance(data, memoryview)
        return data

    def __len__(self) -> int:
        return self.end - self.start

    def __repr__(self) -> str:
        state = ("FETCHED", "OWN", "SENT", "UNSENT", "GONE")[self.state]
        return f"<Extent {self.start}-{self.end} {state}>"


class Keeper(Protocol):
    """Who decides how long clean extents stay (``cache.BlockCache``)."""

    def admit(self, extent: Extent) -> None: ...

    def touch(self, extent: Extent) -> None: ...

    def discard(self, extent: Extent) -> None: ...


class ExtentMap:
    """The extents of one file, sorted and disjoint.

    Clean ones (FETCHED, OWN) are admitted to *keeper*, which may evict them at any time; the
    others stay until the server has them.
    """

    __slots__ = ("_extents", "_keeper", "_starts", "unsent")

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._starts: list[int] = []
        self._extents: list[Extent] = []
        self.unsent = 0  # bytes in UNSENT extents

    # --- reading ---------------------------------------------------------------------------------

    def find(
        self,
        start: int,
        end: int,
        zeros_from: int,
        extra: Sequence[tuple[int, memoryview]] = (),
    ) -> list[Buffer] | None:
        """The bytes [start, end) in pieces, or None if some are not here.

        What is missing from *zeros_from* on reads as zeros; what is missing before may be in
        *extra*: (offset, bytes) that the caller holds.
        """
        extents = self._extents
        count = len(extents)
        index = bisect_right(self._starts, start) - 1
        if index < 0 or extents[index].end <= start:
            index += 1
            if (
                start < zeros_from
                and not extra
                and (index == count or extents[index].start > start)
            ):
                return None  # the usual miss
        parts: list[Buffer] = []
        at = start
        while at < end:
            if index < count and extents[index].start <= at:
                extent = extents[index]
                stop = extent.end if extent.end < end else end
                parts.append(extent.view(at, stop))
                if extent.state <= OWN:
                    self._keeper.touch(extent)
                at = stop
                index += 1
                continue
            limit = min(end, extents[index].start) if index < count else end
            if at >= zeros_from:
                parts.extend(zeros(limit - at))
                at = limit
                continue
            for offset, data in extra:
                if offset <= at < offset + len(data):
                    stop = min(limit, offset + len(data))
                    parts.append(data[at - offset : stop - offset])
                    at = stop
                    break
            else:
                return None
        return parts

    def has_none(self, start: int, end: int) -> bool:
        """Whether nothing of [start, end) is here."""
        index = bisect_left(self._starts, end) - 1
        return index < 0 or self._extents[index].end <= start

    def gaps(self, start: int, end: int) -> list[tuple[int, int]]:
        """What of [start, end) is not here."""
        found = []
        at = start
        for index in range(self._first(start), len(self._extents)):
            extent = self._extents[index]
            if extent.start >= end:
                break
            if extent.start > at:
                found.append((at, extent.start))
            at = extent.end
        if at < end:
            found.append((at, end))
        return found

    # --- changing --------------------------------------------------------------------------------

    def put(self, start: int, data: bytearray | memoryview, state: int) -> Extent:
        """Add bytes where nothing is (after ``punch``)."""
        extent = Extent(self, start, data, state)
        index = bisect_left(self._starts, start)
        self._starts.insert(index, start)
        self._extents.insert(index, extent)
        if state == UNSENT:
            self.unsent += len(data)
        elif state <= OWN:
            self._keeper.admit(extent)
        return extent

    def fill(self, start: int, data: memoryview, *, ahead: bool) -> None:
        """Add bytes as fetched, where nothing is known."""
        starts = self._starts
        end = start + len(data)
        index = bisect_left(starts, start)
        if (index == 0 or self._extents[index - 1].end <= start) and (
            index == len(starts) or starts[index] >= end
        ):
            self._insert(index, Extent(self, start, data, FETCHED), ahead=ahead)
            return
        for low, high in self.gaps(start, end):
            piece = data[low - start : high - start]
            if len(piece) <= _COPY_REST:
                piece = memoryview(bytes(piece))
            self._insert(bisect_left(starts, low), Extent(self, low, piece, FETCHED), ahead=ahead)

    def _insert(self, index: int, extent: Extent, *, ahead: bool) -> None:
        extent.ahead = ahead
        self._starts.insert(index, extent.start)
        self._extents.insert(index, extent)
        self._keeper.admit(extent)

    def punch(self, start: int, end: int) -> tuple[Flight, ...]:
        """Forget the bytes [start, end).

        Returns: what is under way, or must go out before what is put there next.
        """
        extents = self._extents
        if not extents or extents[-1].end <= start:
            return ()
        first = index = self._first(start)
        flights: dict[Flight, None] = {}
        while index < len(extents) and extents[index].start < end:
            extent = extents[index]
            if extent.flight is not None:
                flights[extent.flight] = None
            for flight in extent.waits:
                if not flight.is_done:
                    flights[flight] = None
            index += 1
        if index > first:
            cut = extents[first:index]
            kept = []
            for extent in cut:
                if extent.start < start:
                    kept.append(self._rest(extent, extent.start, start))
                if extent.end > end:
                    kept.append(self._rest(extent, end, extent.end))
                self._leave(extent)
            extents[first:index] = kept
            self._starts[first:index] = [extent.start for extent in kept]
            for extent in kept:
                if extent.state <= OWN:
                    self._keeper.admit(extent)
        return tuple(flights)

    def append(self, extent: Extent, data: Buffer) -> bool:
        """Let an UNSENT extent whose data is a bytearray grow, if nothing is behind it there."""
        assert type(extent.data) is bytearray
        end = extent.end + len(data)
        index = bisect_right(self._starts, extent.start)
        if index < len(self._starts) and self._starts[index] < end:
            return False
        extent.data += data
        extent.end = end
        self.unsent += len(data)
        return True

    def clean(self, extent: Extent) -> None:
        """The server has a SENT extent now."""
        extent.state = OWN
        self._keeper.admit(extent)

    def split(self, extent: Extent, at: int) -> Extent:
        """Cut an UNSENT extent in two; the second one, which is in no batch yet."""
        index = self._first(extent.start)
        assert self._extents[index] is extent
        data = extent.seal()
        second = Extent(self, at, data[at - extent.start :], extent.state)
        second.waits = extent.waits
        extent.data = data[: at - extent.start]
        extent.end = at
        self._starts.insert(index + 1, at)
        self._extents.insert(index + 1, second)
        return second

    def remove(self, extent: Extent) -> None:
        """Forget one extent."""
        if extent.state == GONE:
            return
        index = self._first(extent.start)
        assert self._extents[index] is extent
        del self._starts[index]
        del self._extents[index]
        self._leave(extent)

    def drop_read(self, start: int, end: int) -> None:
        """Forget what was fetched and ends within [start, end)."""
        extents = self._extents
        first = index = self._first(start)
        while (
            index < len(extents) and extents[index].end <= end and extents[index].state == FETCHED
        ):
            index += 1
        dropped = extents[first:index]
        del extents[first:index], self._starts[first:index]
        for extent in dropped:
            self._leave(extent)

    def drop_clean(self, *, keep_own: bool = False) -> None:
        """Forget what the server has (with *keep_own*: only what was fetched from it)."""
        limit = FETCHED if keep_own else OWN
        dropped = [extent for extent in self._extents if extent.state <= limit]
        if dropped:
            self._extents = [extent for extent in self._extents if extent.state > limit]
            self._starts = [extent.start for extent in self._extents]
            for extent in dropped:
                self._leave(extent)

    def is_complete(self, size: int) -> bool:
        """Whether all bytes up to *size* are here."""
        at = 0
        for extent in self._extents:
            if extent.start > at:
                break
            at = extent.end
        return at >= size

    def __len__(self) -> int:
        return len(self._extents)

    def __iter__(self) -> Iterator[Extent]:
        return iter(self._extents)

    # --- inside ----------------------------------------------------------------------------------

    def _first(self, start: int) -> int:
        """Index of the first extent that ends behind *start*."""
        index = bisect_right(self._starts, start) - 1
        if index < 0 or self._extents[index].end <= start:
            index += 1
        return index

    def _rest(self, extent: Extent, start: int, end: int) -> Extent:
        """What remains of *extent*; as dirty as it was."""
        data: memoryview | bytearray = extent.seal()[start - extent.start : end - extent.start]
        if len(data) <= _COPY_REST and extent.state != SENT:
            data = memoryview(bytes(data))
        rest = Extent(self, start, data, extent.state)
        rest.ahead = extent.ahead
        rest.waits = extent.waits
        if extent.batch is not None:
            self.unsent += len(data)
            extent.batch.add(rest)
        if extent.flight is not None:
            rest.flight = extent.flight
            extent.flight.extents.append(rest)
        return rest

    def _leave(self, extent: Extent) -> None:
        if extent.state <= OWN:
            self._keeper.discard(extent)
        elif extent.state == UNSENT:
            self.unsent -= extent.end - extent.start
        extent.state = GONE


def compact(data: Buffer) -> memoryview:
    """*data* as it is kept: not as a small view that keeps a large buffer alive."""
    view = memoryview(data)
    if 2 * len(view) < memoryview(view.obj).nbytes:
        return memoryview(bytes(view))
    return view


def zeros(size: int) -> list[Buffer]:
    """*size* zero bytes in pieces that cost nothing."""
    parts: list[Buffer] = []
    while size > 0:
        piece = _ZEROS[:size] if size < len(_ZEROS) else _ZEROS
        parts.append(piece)
        size -= len(piece)
    return parts
