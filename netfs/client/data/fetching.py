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

if TYPE_CHECKING:
    from netfs.client.remote.api import RemoteHandle

log = logging.getLogger(__name__)


class Fetch:
    """The bytes [start, end) under way."""

    __slots__ = (
        "data", "end", "error", "finished", "is_ahead", "is_done", "is_tainted", "start", "task",
        "waiters",
    )  # fmt: skip

    def __init__(self, start: int, end: int, *, ahead: bool) -> None:
        self.start = start
        self.end = end
        self.is_ahead = ahead  # nobody has asked for it yet
        self.is_tainted = False
        self.data: memoryview | None = None  # fewer bytes than asked for: the file's end
        self.error: OSError | None = None
        self.task: asyncio.Task[None] | None = None  # None: its only reader carries it
        self.finished: asyncio.Future[None] | None = None  # for further readers of such a one
        self.is_done = False
        self.waiters = 0

    @property
    def is_short(self) -> bool:
        return self.data is not None and len(self.data) < self.end - self.start

    def __repr__(self) -> str:
        flags = ("tainted " if self.is_tainted else "") + ("ahead" if self.is_ahead else "")
        return f"<Fetch {self.start}-{self.end} {flags}>"


class Source(Protocol):
    """The file that is fetched."""

    extents: ExtentMap
    size: int
    opens: int

    async def reading_handle(self) -> RemoteHandle: ...

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
            pending = [_ending(fetch) for fetch in mine if not fetch.is_done]
            if pending:
                await asyncio.wait(pending)
        except asyncio.CancelledError:
            for fetch in mine:
                if fetch.waiters == 1 and fetch.task is not None:
                    fetch.task.cancel()
            raise
        finally:
            for fetch in mine:
                fetch.waiters -= 1
                self._leave(fetch)

    async def fetch_one(self, start: int, end: int) -> Fetch | None:
        """Fetch the missing bytes [start, end) within the reader's own task, which is cheaper;
        None: part of it is under way, or it is more than one request."""
        if end - start > self._pool.read_chunk or self._next_start(start, end) < end:
            return None
        if self._covering(start) is not None:
            return None
        fetch = Fetch(start, end, ahead=False)
        fetch.waiters = 1
        self._fetches.append(fetch)
        self._pool.download.in_flight += end - start
        try:
            await self._carry(fetch)
        finally:
            fetch.waiters -= 1
            self._leave(fetch)
        return fetch

    def taint(self, start: int, end: int) -> None:
        """What is under way for [start, end) is outdated."""
        for fetch in self._fetches:
            if fetch.start < end and start < fetch.end:
                fetch.is_tainted = True

    def cancel_ahead(self) -> None:
        """Nobody will read on: stop what nobody waits for."""
        for fetch in list(self._fetches):
            if fetch.waiters == 0 and fetch.task is not None:
                fetch.task.cancel()

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
        fetch = Fetch(start, end, ahead=ahead)
        self._fetches.append(fetch)
        self._pool.download.in_flight += end - start
        fetch.task = self._pool.start(self._carry(fetch))
        return fetch

    async def _carry(self, fetch: Fetch) -> None:
        pool = self._pool
        size = fetch.end - fetch.start
        try:
            handle = await self._source.reading_handle()
            data = compact(await pool.remote.read(handle, fetch.start, size, end=self._source.size))
        except OSError as exc:
            fetch.error = exc
            if fetch.waiters == 0:
                # Who reads there asks again, and gets the error if it is still one.
                log.debug("read-ahead of %d bytes at %d: %s", size, fetch.start, exc)
        except asyncio.CancelledError:
            fetch.is_tainted = True
            raise
        else:
            fetch.data = data
            if not fetch.is_tainted and len(data):
                self._source.extents.fill(fetch.start, data, ahead=fetch.is_ahead)
        finally:
            pool.download.in_flight -= size
            if fetch.data is None and fetch.error is None and not fetch.is_tainted:
                fetch.error = error(errno.EIO)  # a bug, logged by the pool; nobody waits for ever
            fetch.task = None
            fetch.is_done = True
            if fetch.finished is not None and not fetch.finished.done():
                fetch.finished.set_result(None)
            self._leave(fetch)

    def _leave(self, fetch: Fetch) -> None:
        if fetch.is_done and fetch.waiters == 0 and fetch in self._fetches:
            self._fetches.remove(fetch)
            if not self._fetches and not self._source.opens:
                self._source.ended()


def _ending(fetch: Fetch) -> asyncio.Future[None]:
    """What is done when *fetch* is."""
    if fetch.task is not None:
        return fetch.task
    if fetch.finished is None:
        fetch.finished = asyncio.get_running_loop().create_future()
    return fetch.finished
