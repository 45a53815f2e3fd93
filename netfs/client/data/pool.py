"""What the data of all files of a mount share: the server, the budgets, the windows, the tasks."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

from netfs.client.config import CacheConfig, SemanticsConfig
from netfs.client.data.cache import BlockCache
from netfs.client.data.rescue import Rescue
from netfs.client.turns import Operation
from netfs.sftp.attrs import Limits

if TYPE_CHECKING:
    from netfs.client.coherence import Coherence
    from netfs.client.data.changes import Changes
    from netfs.client.data.content import FileData
    from netfs.client.nodes import NodeTable
    from netfs.client.operations.context import Notifications
    from netfs.client.remote.api import Remote

log = logging.getLogger(__name__)

MIB: Final = 1024 * 1024

LINK_ERRORS: Final = frozenset(
    {
        errno.ETIMEDOUT,
        errno.ENOTCONN,
        errno.ECONNRESET,
        errno.ECONNABORTED,
        errno.ECONNREFUSED,
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
        errno.EPIPE,
    }
)
"""The server did not say no: what was to be written is kept and tried again."""

_PAGE: Final = 4096

LINGER_S: Final = 0.020
"""How long less than a whole request waits to be joined with more; far below a user's notice."""

MOST_OF_CACHE: Final = 1 / 8
"""Of the block cache for what one program reads or writes of a file from end to end."""

_MOST_SENT: Final = 16 * MIB
"""Written bytes given to ``Remote``: what 1 Gbit/s holds at 100 ms, and some."""

_MOST_AHEAD: Final = 32 * MIB
_LEAST_AHEAD: Final = 2 * MIB
"""Bounds of read-ahead in bytes, in memory or under way; the kernel alone asks 4 MiB ahead."""


class DirtyBudget:
    """The bytes that were written and not acknowledged, of all files together."""

    def __init__(self, limit: int) -> None:
        self.limit = limit  # bytes
        self.used = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def has_room(self) -> bool:
        return self.used < self.limit and not self._waiting

    def account(self, delta: int) -> None:
        """Bytes became dirty, or (negative) clean."""
        self.used += delta
        if self._waiting:
            self._wake()

    async def wait(self) -> None:
        """Until there is room; first come, first served."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
            self._wake()  # its turn may have come already
            raise

    def _wake(self) -> None:
        """Let the first in; what it writes, accounted, lets the next in if there is room still."""
        while self._waiting and self.used < self.limit:
            waiter = self._waiting.popleft()
            if not waiter.cancelled():
                waiter.set_result(None)
                break


class Window:
    """Bytes given to ``Remote`` and not answered.

    ``Remote`` itself decides how much of it is under way; this bounds what waits there, out of
    reach of what comes later and matters more.
    """

    __slots__ = ("in_flight", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.in_flight = 0

    @property
    def has_room(self) -> bool:
        return self.in_flight < self.limit


class Pool:
    """See the module."""

    def __init__(
        self,
        *,
        cache: CacheConfig,
        semantics: SemanticsConfig,
        rescue_dir: str | None,
        remote: Remote,
        nodes: NodeTable,
        coherence: Coherence,
        notifier: Notifications,
        clock: Callable[[], float],
        on_idle: Callable[[FileData], None],
    ) -> None:
        self.on_idle = on_idle  # told when a file may have nothing under way any more
        self.remote = remote
        self.nodes = nodes
        self.coherence = coherence
        self.notifier = notifier
        self.clock = clock
        self.is_direct = semantics.direct_io
        self.cto_window_s = cache.cto_window_s
        self.keeps_kernel_cache = cache.kernel_cache and cache.enabled
        self.reads_ahead = cache.read_ahead and not semantics.direct_io
        self.cache = BlockCache(cache.cache_size)
        self.dirty = DirtyBudget(cache.dirty_limit)
        self.rescue = Rescue(rescue_dir)
        self._max_read = cache.max_read
        self._max_write = cache.max_write
        self._limits: Limits | None = None  # of the server, when the chunks were computed
        self._read_chunk = self._write_chunk = 0
        self._most_ahead = min(_MOST_AHEAD, cache.cache_size // 4)
        self.download = Window(self._most_ahead)
        self.upload = Window(min(_MOST_SENT, cache.dirty_limit))
        self.busy: dict[FileData, None] = {}  # files that owe the server something
        self.hits = 0  # reads answered from memory
        self.misses = 0
        self.clock_offset_s = 0.0  # the server's clock minus this machine's, as far as known
        self._senders: dict[Changes, None] = {}  # those that wait for the upload window, in order
        self._is_pumping = False
        self._lingering: dict[Changes, float] = {}  # until when (the loop's clock), in order
        self._linger: asyncio.TimerHandle | None = None
        self.tasks: set[asyncio.Task[Any]] = set()
        self._works: set[Operation[None]] = set()
        self._all_ended: asyncio.Future[None] | None = None  # whom ``stop`` waits for

    @property
    def read_chunk(self) -> int:
        """The most bytes in one READ; the server tells its limits when it is connected."""
        if self.remote.limits is not self._limits:
            self._measure()
        return self._read_chunk

    def get_write_chunk(self) -> int:
        """The same in one WRITE."""
        if self.remote.limits is not self._limits:
            self._measure()
        return self._write_chunk

    def _measure(self) -> None:
        limits = self._limits = self.remote.limits
        self._read_chunk = _whole_pages(self._max_read, limits.max_read)
        self._write_chunk = _whole_pages(self._max_write, limits.max_write)

    def ahead_limit(self) -> int:
        """How far ahead of a reader to be, in bytes: twice what the measured path holds."""
        links = getattr(self.remote, "links", None)  # only what has a network has measured it
        path = links.reads.limit if links is not None else _LEAST_AHEAD
        self.download.limit = min(self._most_ahead, max(_LEAST_AHEAD, 2 * path))
        return self.download.limit

    def wall_clock(self) -> float:
        """The server's time of day (s since the epoch), as far as known."""
        return time.time() + self.clock_offset_s

    # --- the upload window, file by file ---------------------------------------------------------

    def queue_sender(self, sender: Changes) -> None:
        """Pump it when there is room."""
        self._senders[sender] = None

    def pump_next(self) -> None:
        """There may be room: let the files that wait send, in turn."""
        senders = self._senders
        if not senders or self._is_pumping:
            return
        self._is_pumping = True
        try:
            while senders and self.upload.has_room:
                sender = next(iter(senders))
                del senders[sender]
                sender.pump(most=1)
        finally:
            self._is_pumping = False

    def linger(self, sender: Changes) -> None:
        """Have *sender* send its small rest soon, if nothing comes to be joined with it."""
        if sender in self._lingering:
            return
        loop = asyncio.get_running_loop()
        self._lingering[sender] = loop.time() + LINGER_S
        if self._linger is None:
            self._linger = loop.call_later(LINGER_S, self._lingered)

    def linger_no_more(self, sender: Changes) -> None:
        """It has sent it, or never will."""
        self._lingering.pop(sender, None)

    def _lingered(self) -> None:
        self._linger = None
        loop = asyncio.get_running_loop()
        now = loop.time()
        lingering = self._lingering
        while lingering:
            sender, until = next(iter(lingering.items()))
            if until > now:
                self._linger = loop.call_at(until, self._lingered)
                break
            del lingering[sender]
            sender.lingered()

    # --- work ------------------------------------------------------------------------------------

    def run(self, work: Coroutine[Any, Any, None]) -> Operation[None]:
        """Begin work of the data layer at once; it goes on where its answers come in.

        It ends with the mount at the latest.  An OSError that it ends with is of interest to
        nobody.
        """
        operation = Operation(asyncio.get_running_loop(), work, self._work_ended)
        self._works.add(operation)
        operation.step()
        return operation

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """The same as a task, for others to wait for."""
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self.tasks.discard(task)
        if not task.cancelled():
            _report(task.exception())

    def _work_ended(
        self, operation: Operation[None], _value: None, error: BaseException | None
    ) -> None:
        self._works.discard(operation)
        if isinstance(error, OSError):
            log.debug("nobody waited for %r: %s", operation, error)
        elif error is not None and not isinstance(error, asyncio.CancelledError):
            _report(error)
        if self._all_ended is not None and not self._works and not self._all_ended.done():
            self._all_ended.set_result(None)

    @property
    def is_idle(self) -> bool:
        """Whether no work is under way."""
        return not (self.tasks or self._works)

    async def stop(self) -> None:
        """End all work."""
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
        self._lingering.clear()
        tasks = list(self.tasks)
        for task in tasks:
            task.cancel()
        for work in list(self._works):
            work.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._works:
            self._all_ended = asyncio.get_running_loop().create_future()
            await self._all_ended


def _report(exc: BaseException | None) -> None:
    if exc is not None:
        log.error("data layer: work failed", exc_info=exc)


def _whole_pages(wanted: int | None, allowed: int) -> int:
    """Bytes per request: whole pages, because both ends keep files in pages."""
    size = min(wanted, allowed) if wanted else allowed
    return max(size - size % _PAGE, min(size, _PAGE))


def error(number: int) -> OSError:
    """An OSError as the kernel is to get it."""
    return OSError(number, os.strerror(number))
