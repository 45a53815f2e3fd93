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

if TYPE_CHECKING:
    from netfs.client.coherence import Coherence
    from netfs.client.data.content import FileData
    from netfs.client.data.sending import Sender
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
        self._most_ahead = min(_MOST_AHEAD, cache.cache_size // 4)
        self.download = Window(self._most_ahead)
        self.upload = Window(min(_MOST_SENT, cache.dirty_limit))
        self.busy: dict[FileData, None] = {}  # files that owe the server something
        self.hits = 0  # reads answered from memory
        self.misses = 0
        self.clock_offset_s = 0.0  # the server's clock minus this machine's, as far as known
        self._senders: dict[Sender, None] = {}  # those that wait for the upload window, in order
        self.tasks: set[asyncio.Task[Any]] = set()

    @property
    def read_chunk(self) -> int:
        """The most bytes in one READ; the server tells its limits when it is connected."""
        return _whole_pages(self._max_read, self.remote.limits.max_read)

    @property
    def write_chunk(self) -> int:
        """The same in one WRITE."""
        return _whole_pages(self._max_write, self.remote.limits.max_write)

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

    def queue_sender(self, sender: Sender) -> None:
        """Pump it when there is room."""
        self._senders[sender] = None

    def pump_next(self) -> None:
        """There may be room: let the files that wait send, in turn."""
        senders = self._senders
        while senders and self.upload.has_room:
            sender = next(iter(senders))
            del senders[sender]
            sender.pump(most=1)

    # --- tasks -----------------------------------------------------------------------------------

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run work of the data layer; it ends with the mount at the latest."""
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """``start``, for work that nobody looks at again."""
        tasks = self.tasks
        task = asyncio.get_running_loop().create_task(work)
        tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self.tasks.discard(task)
        if not task.cancelled():
            exc = task.exception()
            if exc is not None:
                log.error("data layer: a task failed", exc_info=exc)

    async def stop(self) -> None:
        """End all work."""
        tasks = list(self.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _whole_pages(wanted: int | None, allowed: int) -> int:
    """Bytes per request: whole pages, because both ends keep files in pages."""
    size = min(wanted, allowed) if wanted else allowed
    return max(size - size % _PAGE, min(size, _PAGE))


def error(number: int) -> OSError:
    """An OSError as the kernel is to get it."""
    return OSError(number, os.strerror(number))
