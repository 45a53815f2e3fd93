"""One file's changes that the server does not have yet, in the order in which they may leave.

The queue is pure: it says what to send next (``next``) and is told what became of it (``done``,
``failed``).  Its bytes live in the file's ``ExtentMap``, where reads find them, so that what is
overwritten before it was sent is never sent.

The order that is kept:

* writes between two other changes may leave in any order, except that a write waits for an older
  one of the same place that is under way;
* a change of the size waits for everything before it and holds back everything after it;
* any other SETSTAT follows the writes before it without waiting, because a server keeps the order
  of one file's requests.  Source: draft-ietf-secsh-filexfer-02 §3.1 (the order as received).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from netfs.client.data.extents import SENT, UNSENT, Extent, ExtentMap, compact
from netfs.client.turns import Awaited, Waker
from netfs.sftp.attrs import Attrs
from netfs.wire import Buffer

_COPY_BELOW: Final = 64 * 1024
"""Payloads below this (bytes) are copied and joined; above, a copy costs more than a part."""


class Flight:
    """A change that is under way."""

    __slots__ = ("extents", "is_done", "parts", "size", "start")

    def __init__(self, extents: list[Extent], size: int) -> None:
        self.start = extents[0].start
        self.extents = extents  # what the map still shows of it
        self.parts: list[Buffer] = [extent.seal() for extent in extents]
        self.size = size  # bytes
        self.is_done = False


class Setting:
    """A SETSTAT in the queue; ``done`` gets its outcome when somebody waits for it."""

    __slots__ = ("attrs", "done", "is_done", "size")

    def __init__(self, attrs: Attrs, done: asyncio.Future[None] | None) -> None:
        self.attrs = attrs
        self.done = done
        self.is_done = False
        self.size = 0  # bytes of data: none


class Mark:
    """A place in the queue; ``reached`` is set when all before it is with the server."""

    __slots__ = ("behind", "reached")

    def __init__(self, reached: Awaited[None]) -> None:
        self.reached = reached
        self.behind: set[Flight | Setting] = set()  # what it waits for, once it is its turn


class Batch:
    """UNSENT extents between two other changes: those added since ``order`` was sorted, and it."""

    __slots__ = ("added", "order")

    def __init__(self) -> None:
        self.added: list[Extent] = []
        self.order: list[Extent] = []  # descending, so that the next one is popped

    def add(self, extent: Extent) -> None:
        extent.batch = self
        self.added.append(extent)

    def peek(self) -> Extent | None:
        """The next extent to send."""
        while True:
            order = self.order
            while order:
                if order[-1].state == UNSENT:
                    return order[-1]
                order.pop()
            if not self.added:
                return None
            self.added.sort(key=_start, reverse=True)
            self.order, self.added = self.added, []


def _start(extent: Extent) -> int:
    return extent.start


class WriteQueue:
    """See the module.

    *chunk* gives the most bytes in one WRITE; *account* is told how many bytes become dirty (or,
    negative, clean).
    """

    __slots__ = (
        "_account", "_barrier", "_chunk", "_dirty", "_extents", "_marks", "_tail", "flights",
        "items", "woken",
    )  # fmt: skip

    def __init__(
        self,
        extents: ExtentMap,
        *,
        chunk: Callable[[], int],
        account: Callable[[int], None],
    ) -> None:
        self._extents = extents
        self._chunk = chunk
        self._account = account
        self.items: deque[Batch | Setting | Mark] = deque()  # what waits
        self.flights: set[Flight | Setting] = set()  # what is under way
        self._marks: set[Mark] = set()  # those whose turn has come
        self._barrier: Setting | None = None  # a change of the size under way
        self._tail: Extent | None = None  # where small writes are appended
        self._dirty = 0
        self.woken: list[tuple[Waker, Awaited[None]]] = []

    # --- what is asked of it ---------------------------------------------------------------------

    @property
    def is_busy(self) -> bool:
        """Whether the server lacks anything."""
        return bool(self.flights or self.items)

    @property
    def dirty(self) -> int:
        """Bytes written and not acknowledged."""
        return self._dirty

    def zeros_from(self, size: int) -> int:
        """From where on the server's bytes no longer count: the smallest size set meanwhile.

        Bytes behind it that are in the map were written since; the others are zeros.
        """
        limit = size
        if self._barrier is not None and self._barrier.attrs.size is not None:
            limit = min(limit, self._barrier.attrs.size)
        for item in self.items:
            if type(item) is Setting and item.attrs.size is not None:
                limit = min(limit, item.attrs.size)
        return limit

    # --- changes ---------------------------------------------------------------------------------

    def write(self, offset: int, data: Buffer) -> bool:
        """Take bytes; they are visible to reads at once.

        Returns: whether there are enough for a whole request now.
        """
        size = len(data)
        chunk = self._chunk()
        extents = self._extents
        items = self.items
        tail = self._tail
        if (
            tail is not None
            and tail.end == offset
            and type(tail.data) is bytearray
            and tail.state == UNSENT
            and size < _COPY_BELOW
            and len(tail.data) + size <= chunk
            and items
            and tail.batch is items[-1]
            and extents.append(tail, data)
        ):
            self._dirty += size
            self._account(size)
            return extents.unsent >= chunk
        before = extents.unsent
        waits = extents.punch(offset, offset + size)
        own = bytearray(data) if size < _COPY_BELOW else compact(data)  # what is small can grow
        extent = extents.put(offset, own, UNSENT)
        extent.waits = waits
        batch = items[-1] if items else None
        if type(batch) is not Batch:
            batch = Batch()
            items.append(batch)
        batch.add(extent)
        self._tail = extent
        self._changed(before)
        return extents.unsent >= chunk

    def set_attrs(self, attrs: Attrs, done: asyncio.Future[None] | None = None) -> None:
        """Queue a SETSTAT; bytes beyond a new size are forgotten at once."""
        if attrs.size is not None:
            before = self._extents.unsent
            self._extents.punch(attrs.size, _END)
            self._changed(before)
        self.items.append(Setting(attrs, done))

    def mark(self, reached: Awaited[None]) -> None:
        """Have *reached* set when the server has everything queued so far; see ``wake``."""
        self.items.append(Mark(reached))

    # --- sending ---------------------------------------------------------------------------------

    def next(self, *, force: bool) -> Flight | Setting | None:
        """What may leave now, counted as under way from here on; None: nothing.

        Without *force* a rest that is smaller than a whole request stays, to be joined with what
        comes next.
        """
        items = self.items
        while items and self._barrier is None:
            head = items[0]
            if type(head) is Batch:
                flight = self._next_write(head, force=force or len(items) > 1)
                if flight is None and head.peek() is not None:
                    return None
                if not (head.order or head.added):
                    items.popleft()  # also if it is the last: a new one is as good
                if flight is not None:
                    return flight
            elif type(head) is Setting:
                if head.attrs.size is not None:
                    if self.flights:
                        return None
                    self._barrier = head
                items.popleft()
                self.flights.add(head)
                return head
            else:
                assert type(head) is Mark
                items.popleft()
                head.behind = set(self.flights)
                if head.behind:
                    self._marks.add(head)
                else:
                    self._resolve(head.reached)
        return None

    def _next_write(self, batch: Batch, *, force: bool) -> Flight | None:
        chunk = self._chunk()
        if not force and self._extents.unsent < chunk:
            return None
        first = batch.peek()
        if first is None or not _is_free(first):
            return None
        run: list[Extent] = []
        size = 0
        extent: Extent | None = first
        while extent is not None and size < chunk:
            if run and (extent.start != run[-1].end or not _is_free(extent)):
                break
            room = chunk - size
            batch.order.pop()
            if extent.end - extent.start > room:
                rest = self._extents.split(extent, extent.start + room)
                rest.batch = batch
                batch.order.append(rest)
            run.append(extent)
            size += extent.end - extent.start
            extent = batch.peek() if batch.order or batch.added else None
        if size < chunk and not force and run[-1] is self._tail:
            batch.order.extend(reversed(run))
            return None
        flight = Flight(run, size)
        for extent in run:
            extent.state = SENT
            extent.batch = None
            extent.flight = flight
            extent.waits = ()
        self._extents.unsent -= size
        self.flights.add(flight)
        return flight

    def done(self, flight: Flight | Setting, *, keep: bool) -> None:
        """The server has acknowledged it; *keep*: its bytes stay for reads."""
        if type(flight) is Flight:
            for extent in flight.extents:
                if extent.state == SENT and extent.flight is flight:
                    extent.flight = None
                    if keep:
                        self._extents.clean(extent)
                    else:
                        self._extents.remove(extent)
        self._ended(flight)

    def failed(self, flight: Flight | Setting) -> None:
        """The server will never have it; its bytes are forgotten."""
        if type(flight) is Flight:
            for extent in flight.extents:
                if extent.state == SENT and extent.flight is flight:
                    extent.flight = None
                    self._extents.remove(extent)
        self._ended(flight)

    def drop_all(self) -> list[tuple[int, list[Buffer]]]:
        """Give up everything: the unsent bytes and those under way, which then are forgotten."""
        lost: list[tuple[int, list[Buffer]]] = []
        flights = [flight for flight in self.flights if type(flight) is Flight]
        lost.extend((flight.start, flight.parts) for flight in flights)
        unsent = [extent for extent in self._extents if extent.state == UNSENT]
        lost.extend((extent.start, [extent.seal()]) for extent in unsent)
        return lost

    def wake(self) -> None:
        """Let those go on whose mark was reached: at a moment when they may change the queue."""
        woken, self.woken = self.woken, []
        for waker, reached in woken:
            waker(reached)

    # --- inside ----------------------------------------------------------------------------------

    def _ended(self, flight: Flight | Setting) -> None:
        flight.is_done = True
        self.flights.discard(flight)
        if flight is self._barrier:
            self._barrier = None
        if flight.size:
            self._dirty -= flight.size
            self._account(-flight.size)
        for mark in list(self._marks) if self._marks else ():
            mark.behind.discard(flight)
            if not mark.behind:
                self._marks.discard(mark)
                self._resolve(mark.reached)

    def _resolve(self, reached: Awaited[None]) -> None:
        if not reached.done():
            waker = reached.take_waker()
            reached.set_result(None)
            if waker is not None:
                self.woken.append((waker, reached))

    def _changed(self, before: int) -> None:
        delta = self._extents.unsent - before
        if delta:
            self._dirty += delta
            self._account(delta)


def _is_free(extent: Extent) -> bool:
    """Whether no older bytes of its place are under way."""
    waits = extent.waits
    return not waits or all(flight.is_done for flight in waits)


_END: Final = 1 << 63
"""Behind the end of every file."""
