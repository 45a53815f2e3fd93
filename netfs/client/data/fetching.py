"""Brings one file's missing bytes into memory: each byte is under way once, whoever waits for it.

A fetch that own writes or a new version overtake is tainted: what it brings is thrown away, and
those who waited look again.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

from netfs.client.data.extents import ExtentMap, compact
from netfs.client.data.pool import Pool, error
from netfs.client.remote import api
from netfs.client.turns import Awaited, Operation

if TYPE_CHECKING:
    from netfs.client.data.handles import Handles

log = logging.getLogger(__name__)


class Fetch:
    """The bytes [start, end) under way."""

    __slots__ = (
        "data", "end", "error", "is_ahead", "is_done", "is_tainted", "start", "waiters", "waiting",
        "work",
    )  # fmt: skip

    def __init__(self, start: int, end: int, *, ahead: bool) -> None:
        self.start = start
        self.end = end
        self.is_ahead = ahead  # nobody has asked for it yet
        self.is_tainted = False
        self.data: memoryview | None = None  # fewer bytes than asked for: the file's end
        self.error: OSError | None = None
        self.work: Operation[None] | None = None  # None: its first reader carries it, or it is done
        self.waiting: list[Awaited[None]] | None = None  # of those who wait, that reader apart
        self.is_done = False
        self.waiters = 0

    def ending(self) -> Awaited[None]:
        """What is done when it is; each who waits has his own, which he may cancel."""
        ending: Awaited[None] = Awaited()
        if self.waiting is None:
            self.waiting = [ending]
        else:
            self.waiting.append(ending)
        return ending

    @property
    def is_short(self) -> bool:
        return self.data is not None and len(self.data) < self.end - self.start

    def __repr__(self) -> str:
        flags = ("tainted " if self.is_tainted else "") + ("ahead" if self.is_ahead else "")
        return f"<Fetch {self.start}-{self.end} {flags}>"


class Source(Protocol):
    """The file that is fetched."""

    extents: ExtentMap
    handles: Handles
    size: int
    opens: int

    def ended(self) -> None:
        """What nobody has open is not fetched any more either."""
        ...


class Fetcher:
    """The fetches of one file."""

    __slots__ = ("_fetches", "_pool", "_source")

    def __init__(self, source: Source, pool: Pool) -> None:
        self._source = source
        self._pool = pool
        self._fetches: list[Fetch] = []  # under way, or waited for

    def want(self, start: int, end: int) -> list[Fetch]:
        """Have the bytes [start, end) that are missing fetched.

        Returns: the fetches that bring them.
        """
        found: list[Fetch] = []
        for low, high in self._source.extents.gaps(start, end):
            at = low
            while at < high:
                fetch = self._covering(at) or self._start(at, high, ahead=False)
                found.append(fetch)
                at = fetch.end
        return found

    def want_ahead(self, start: int, end: int) -> int:
        """The same as far as the window allows, for nobody who waits.

        Returns: up to where.
        """
        download = self._pool.download
        for low, high in self._source.extents.gaps(start, end):
            at = low
            while at < high:
                fetch = self._covering(at)
                if fetch is None:
                    if not download.has_room:
                        return at
                    fetch = self._start(at, high, ahead=True)
                at = fetch.end
        return end

    async def wait(self, fetches: Iterable[Fetch], *, ahead: bool = False) -> None:
        """Until they are done; cancelling the wait cancels those nobody else waits for.

        *ahead*: the waiter is no reader.
        """
        mine = list(fetches)
        for fetch in mine:
            fetch.waiters += 1
            fetch.is_ahead = ahead
        try:
            for fetch in mine:
                if not fetch.is_done:
                    await fetch.ending()
        except asyncio.CancelledError:
            for fetch in mine:
                if fetch.waiters == 1 and fetch.work is not None:
                    fetch.work.cancel()
            raise
        finally:
            for fetch in mine:
                fetch.waiters -= 1
                self._leave(fetch)

    def alone(self, start: int, end: int) -> Fetch | None:
        """A fetch of [start, end) that its reader is to ``carry``; None: part of it is under way,
        or it is more than one request."""
        if end - start > self._pool.read_chunk:
            return None
        for fetch in self._fetches:
            if fetch.start < end and start < fetch.end and not fetch.is_tainted:
                return None
        return self._add(start, end, ahead=False)

    def taint(self, start: int, end: int) -> None:
        """What is under way for [start, end) is outdated."""
        for fetch in self._fetches:
            if fetch.start < end and start < fetch.end:
                fetch.is_tainted = True

    def cancel_ahead(self) -> None:
        """Nobody will read on: stop what nobody waits for."""
        for fetch in list(self._fetches):
            if fetch.waiters == 0 and fetch.work is not None:
                fetch.work.cancel()

    def in_front(self, at: int) -> list[Fetch]:
        """Those under way that begin before *at*."""
        return [fetch for fetch in self._fetches if fetch.start < at and not fetch.is_done]

    @property
    def is_idle(self) -> bool:
        return not self._fetches

    # --- inside ----------------------------------------------------------------------------------

    def _covering(self, at: int) -> Fetch | None:
        for fetch in self._fetches:
            if fetch.start <= at < fetch.end and not fetch.is_tainted and not fetch.is_done:
                return fetch
        return None

    def _next_start(self, at: int, end: int) -> int:
        for fetch in self._fetches:
            if at < fetch.start < end and not fetch.is_tainted:
                end = fetch.start
        return end

    def _start(self, start: int, most: int, *, ahead: bool) -> Fetch:
        """Fetch from *start* as much as one request brings, up to *most* at the most."""
        end = min(most, start + self._pool.read_chunk, self._next_start(start, most))
        fetch = self._add(start, end, ahead=ahead)
        work = self._pool.run(self.carry(fetch))
        if not fetch.is_done:
            fetch.work = work
        return fetch

    def _add(self, start: int, end: int, *, ahead: bool) -> Fetch:
        fetch = Fetch(start, end, ahead=ahead)
        self._fetches.append(fetch)
        self._pool.download.in_flight += end - start
        return fetch

    async def carry(self, fetch: Fetch) -> None:
        """Ask the server for it; its end is noted in *fetch*, whatever it is."""
        pool = self._pool
        source = self._source
        start = fetch.start
        size = fetch.end - start
        try:
            handle = source.handles.reader
            if handle is None:
                handle = await source.handles.get(api.READ)
            data = compact(await pool.remote.read(handle, start, size, end=source.size))
        except OSError as exc:
            fetch.error = exc
            if fetch.work is not None and fetch.waiters == 0:
                # Who reads there asks again, and gets the error if it is still one.
                log.debug("read-ahead of %d bytes at %d: %s", size, start, exc)
        except asyncio.CancelledError:
            fetch.is_tainted = True
            raise
        else:
            fetch.data = data
            if not fetch.is_tainted and len(data):
                source.extents.fill(start, data, ahead=fetch.is_ahead)
        finally:
            pool.download.in_flight -= size
            if fetch.data is None and fetch.error is None and not fetch.is_tainted:
                fetch.error = error(errno.EIO)  # a bug, logged by the pool; nobody waits for ever
            fetch.work = None
            fetch.is_done = True
            self._leave(fetch)
            if fetch.waiting is not None:
                for waiting in fetch.waiting:
                    waiting.deliver(None)

    def _leave(self, fetch: Fetch) -> None:
        if fetch.is_done and fetch.waiters == 0 and fetch in self._fetches:
            self._fetches.remove(fetch)
            if not self._fetches and not self._source.opens:
                self._source.ended()
