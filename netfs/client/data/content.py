"""``FileData``: the content of one file as this mount sees it, and what it still owes the server.

Three things are true at any time: a read finds the newest bytes written here; bytes of two
versions are never in memory together; the server gets the changes in their order.

*Version.*  ``told`` compares what the server says with what is known.  Another version drops the
blocks.  When the file is open, an FSTAT of its handle tells whether it changed in place (readers
see the new bytes, as on a local disk) or was replaced (the node loses its name, readers go on with
the old file; see ``identifying``).

*Own changes.*  From the first one until the server has been asked again after the last one
(``is_local``), size and times are this machine's, and what the server says meanwhile is ignored
(see ``overlay``).
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from typing import TYPE_CHECKING, Final

from netfs.client.data.extents import ExtentMap
from netfs.client.data.fetching import Fetch, Fetcher
from netfs.client.data.handles import Handles
from netfs.client.data.identifying import Identifier
from netfs.client.data.overlay import Overlay
from netfs.client.data.pool import Pool, error
from netfs.client.data.readahead import ReadAhead
from netfs.client.data.sending import Sender
from netfs.client.data.version import Version, is_trusted, version_of
from netfs.client.data.writequeue import Flight, Setting, WriteQueue
from netfs.client.remote import api
from netfs.sftp.attrs import Attrs
from netfs.wire import Buffer

if TYPE_CHECKING:
    from netfs.client.nodes import Node
    from netfs.client.remote.api import RemoteHandle

log = logging.getLogger(__name__)

_END: Final = 1 << 63
_MOST_OF_CACHE: Final = 1 / 8  # of the block cache for one file's own writes


class FileData:
    """See the module.  ``size`` is in bytes and local while ``is_local``."""

    __slots__ = (
        "_fetcher", "_identifier", "_overlay", "_pool", "_queue", "_refreshing", "_sender", "_seq",
        "_waiters", "_word", "creators", "error", "error_seq", "extents", "handles", "is_trusted",
        "kernel_valid", "node", "opens", "prefetching", "size", "version",
    )  # fmt: skip

    def __init__(self, node: Node, pool: Pool) -> None:
        self.node = node
        self._pool = pool
        self.extents = ExtentMap(pool.cache)
        self.handles = Handles(node, pool)
        self._fetcher = Fetcher(self, pool)
        self._queue = WriteQueue(
            self.extents,
            chunk=lambda: pool.write_chunk,
            account=pool.dirty.account,
            keep=self._keeps_own,
        )
        self._sender = Sender(self, self._queue, pool)
        self._overlay = Overlay()
        self._identifier = Identifier(self, pool)
        self.opens = 0  # open files
        self.creators = 0  # those of them that created the file
        self.size = 0
        self.version: Version | None = None
        self.is_trusted = False  # a change since the version was seen would show
        self.kernel_valid = False  # the kernel's pages are of this version
        self.error: OSError | None = None  # of a change the server refused
        self.error_seq = 0  # counts them: each open file reports each once
        self.prefetching: asyncio.Task[None] | None = None
        self._refreshing: asyncio.Task[None] | None = None
        self._waiters: set[asyncio.Future[None]] = set()  # those who wait for the queue
        self._seq = 0  # counts own changes
        self._word: tuple[int, Attrs, float] | None = None  # an FSTAT's answer, kept for a moment
        if node.attrs is not None:
            self.told(node.attrs)

    # --- what others see -------------------------------------------------------------------------

    @property
    def is_busy(self) -> bool:
        """Whether the server lacks anything."""
        return self._queue.is_busy

    @property
    def is_local(self) -> bool:
        """Whether own changes are shown that the server has not been asked about since."""
        return self._overlay.is_active

    @property
    def is_suspect(self) -> bool:
        """Whether the name may lead to another file than the handles."""
        return self._identifier.is_suspect

    @property
    def changes(self) -> int:
        """Counts own changes."""
        return self._seq

    @property
    def has_unsent(self) -> bool:
        """Whether SETATTR has to join the queue: own changes are under way or not yet confirmed,
        or its creator is still busy with it."""
        return self.is_local or self.creators > 0

    @property
    def is_complete(self) -> bool:
        """Whether all of it is in memory."""
        return not self.is_suspect and self.extents.is_complete(self.size)

    @property
    def is_disposable(self) -> bool:
        """Whether only a cache is lost with it."""
        return (
            not (self.opens or self._queue.is_busy or self.prefetching or self._refreshing)
            and self._fetcher.is_idle
        )

    def ended(self) -> None:
        """Something that kept it from being disposable has ended; it may have been the last."""
        self._pool.on_idle(self)

    def overlay(self, attrs: Attrs) -> Attrs:
        """*attrs* as the server told them, with the own changes that it did not know then."""
        return self._overlay.shown(attrs, self.size)

    def is_fresh(self, now: float) -> bool:
        """Whether the version counts as revalidated without asking (design: close-to-open)."""
        if self.is_suspect:
            return False
        if not self._pool.coherence.is_up:
            return self.version is not None  # better old than none
        if self.is_local:
            return self.is_busy or self._overlay.is_recent(now, self._pool.cto_window_s)
        if self.version is None:
            return False
        node = self.node
        return now - node.attrs_at <= self._pool.cto_window_s and (
            self._pool.coherence.attr_left(node, now) > 0
        )

    # --- versions --------------------------------------------------------------------------------

    def told(self, attrs: Attrs, *, own: bool = False) -> None:
        """The server's word on the file, asked for after the last own change.

        *own*: what is new in it was set by us, past this queue.
        """
        if self._queue.is_busy or attrs.size is None:
            return  # of a file half written it says nothing
        self.handles.check_permissions(attrs)
        version = version_of(attrs)
        age = max(0.0, self._pool.clock() - self.node.attrs_at)
        trusted = is_trusted(version, self._pool.wall_clock() - age)
        if self.is_local:
            as_expected = attrs.size == self.size
            self._pool.clock_offset_s += self._overlay.end(attrs)
            self._adopt(version, trusted)
            # Blocks fetched before may have been overtaken by somebody else's writes that own
            # ones hide.
            self._drop(keep_own=as_expected)
            if not as_expected:
                self._suspect()
        elif version != self.version:
            is_first = self.version is None
            self._adopt(version, trusted)
            if not is_first:
                self._drop()
                if not own:
                    self._suspect()
        else:
            if not self.is_trusted:
                self._drop()
            self.is_trusted = trusted

    def _adopt(self, version: Version, trusted: bool) -> None:
        assert version.size is not None
        self.version = version
        self.size = version.size
        self.is_trusted = trusted

    def _drop(self, *, keep_own: bool = False) -> None:
        """The blocks in memory, here and in the kernel, prove nothing any more."""
        self.extents.drop_clean(keep_own=keep_own)
        self._fetcher.taint(0, _END)
        self.kernel_valid = False

    def _suspect(self) -> None:
        """Somebody else changed it, or has put another file in its place."""
        if self.opens:
            self._pool.notifier.invalidate_inode(self.node.nodeid)
        if self.handles.any is not None:
            self._identifier.suspect()

    def replaced(self, held: Attrs) -> None:
        """Another file has the name now: the kernel is to look it up anew, as another node."""
        nodes = self._pool.nodes
        node = self.node
        for parent, name in node.names:
            nodes.begin_change(parent)
            nodes.remove(parent, name)
            nodes.drop_listing(parent)
            nodes.end_change(parent)
            self._pool.notifier.expire_entry(parent.nodeid, name)
        nodes.set_attrs(node, held._replace(nlink=0), self._pool.clock())
        self._adopt(version_of(held), trusted=False)

    async def settle_identity(self) -> None:
        """Wait until it is known which file the handles are of.

        Raises: OSError when the server cannot be asked.
        """
        await self._identifier.settle()

    # --- reading ---------------------------------------------------------------------------------

    def read_nowait(self, offset: int, size: int, ahead: ReadAhead) -> list[Buffer] | None:
        """The bytes, if they are in memory; None: ``read`` has to wait for some."""
        pool = self._pool
        if self.is_suspect or pool.is_direct:
            return None
        end = min(offset + size, self.size)
        if offset >= end:
            return []
        remote_end = self._zeros_from()  # nothing behind it is fetched
        parts = self.extents.find(offset, end, remote_end)
        ranges = (
            ahead.plan(offset, size, remote_end, pool.ahead_limit()) if pool.reads_ahead else ()
        )
        if parts is None:
            pool.misses += 1
            if ranges:
                needed = min(end, remote_end)
                if ranges[0][0] == end:
                    # One request brings what is asked for and what comes next.
                    needed = min(ranges[0][1], max(end, offset + pool.read_chunk))
                self._fetcher.want(offset, needed)
        else:
            pool.hits += 1
        for low, high in ranges:
            reached = self._fetcher.want_ahead(low, high)
            if reached < high:
                ahead.reached(reached)
                break
        return parts

    async def read(self, offset: int, size: int) -> list[Buffer]:
        """The bytes, fetched if need be; fewer only at the end of the file.

        Raises: OSError as the server answers.
        """
        if self._pool.is_direct:
            return await self._read_through(offset, offset + size)
        got: list[Fetch] = []
        while True:
            if self.is_suspect:
                await self.settle_identity()
            end = min(offset + size, self.size)
            if offset >= end:
                return []
            remote_end = self._zeros_from()
            extra = [
                (fetch.start, fetch.data)
                for fetch in got
                if fetch.data is not None and not fetch.is_tainted
            ]
            parts = self.extents.find(offset, end, remote_end, extra)
            if parts is not None:
                return parts
            short = next((fetch for fetch in got if fetch.is_short and not fetch.is_tainted), None)
            if short is not None:
                self._ended_early(short)
                continue
            gaps = [
                gap
                for gap in self.extents.gaps(offset, min(end, remote_end))
                if not _is_in(*gap, extra)
            ]
            single = await self._fetcher.fetch_one(*gaps[0]) if len(gaps) == 1 else None
            if single is not None:
                fetches = [single]
            else:
                fetches = [fetch for gap in gaps for fetch in self._fetcher.want(*gap)]
                await self._fetcher.wait(fetches)
            for fetch in fetches:
                if fetch.error is not None and not fetch.is_tainted:
                    raise fetch.error
            got = [fetch for fetch in got + fetches if not fetch.is_tainted]

    async def _read_through(self, offset: int, end: int) -> list[Buffer]:
        """Ask the server, whatever is known (option direct_io)."""
        await self.drain()
        handle = await self.reading_handle()
        chunk = self._pool.read_chunk
        pieces = await asyncio.gather(
            *(
                self._pool.remote.read(handle, at, min(chunk, end - at))
                for at in range(offset, end, chunk)
            )
        )
        parts = []
        for at, piece in zip(range(offset, end, chunk), pieces, strict=True):
            parts.append(piece)
            if len(piece) < min(chunk, end - at):
                break
        return parts

    def _ended_early(self, fetch: Fetch) -> None:
        """The server had fewer bytes than the size says."""
        assert fetch.data is not None
        eof = fetch.start + len(fetch.data)
        if self.is_local:
            # Behind the server's end, before the local one: a hole that own writes made.
            fetch.data = memoryview(bytes(fetch.data) + bytes(fetch.end - eof))
            return
        # Somebody made it shorter.
        fetch.end = eof
        self.size = min(self.size, eof)
        self.version = None
        self._drop()
        self._pool.nodes.drop_attrs(self.node)
        self._pool.notifier.invalidate_attributes(self.node.nodeid)

    def _zeros_from(self) -> int:
        return self._queue.zeros_from(self.size) if self.is_local else self.size

    async def fetch_all(self) -> None:
        """Bring all of it into memory, as fetched ahead.

        Raises: OSError as the server answers.
        """
        want = self._fetcher.want(0, self.size)
        await self._fetcher.wait(want, ahead=True)
        for fetch in want:
            if fetch.error is not None:
                raise fetch.error

    async def reading_handle(self) -> RemoteHandle:
        return await self.handles.get(api.READ)

    # --- changing --------------------------------------------------------------------------------

    def write(self, offset: int, data: Buffer) -> None:
        """Take bytes that will be sent; ``pool.dirty`` was asked for room before."""
        if not data:
            return
        end = offset + len(data)
        self._begin_change()
        self._fetcher.taint(offset, end)
        self._queue.write(offset, data)
        if end > self.size:
            self._fetcher.taint(self.size, end)
            self.size = end
        self._overlay.wrote(self._pool.wall_clock())
        self._sender.pump()

    def set_attrs(self, attrs: Attrs, done: asyncio.Future[None] | None) -> None:
        """Queue a SETSTAT behind the writes; *done* gets its outcome, else it is the file's."""
        self._begin_change()
        if attrs.size is not None:
            self._fetcher.taint(min(self.size, attrs.size), _END)
            self.size = attrs.size
            self._overlay.wrote(self._pool.wall_clock())
        self._queue.set_attrs(attrs, done)
        if done is not None:
            self._waiters.add(done)
            done.add_done_callback(self._waiters.discard)
        self._overlay.set_attrs(attrs)
        self._sender.pump()

    def _begin_change(self) -> None:
        self._seq += 1
        if not self._queue.is_busy:
            self._overlay.is_active = True
            self._pool.busy[self] = None
            self._pool.nodes.begin_change(self.node)
            self._pool.coherence.wrote(self.node)

    def _keeps_own(self) -> bool:
        """Whether what was written stays in memory: not if it would push out everybody else's."""
        pool = self._pool
        return not pool.is_direct and self.size <= pool.cache.maxsize * _MOST_OF_CACHE

    def written_by_server(self, end: int) -> None:
        """The server changed it by our order, and not through the queue; perhaps up to *end*."""
        self._drop()
        self.size = max(self.size, end)
        self._overlay.wrote(self._pool.wall_clock())
        self._begin_change()
        self.acknowledged()
        self.refresh_soon()

    def emptied(self) -> None:
        """The server was made to truncate it at open: nothing of before counts."""
        self._drop()
        # What somebody else has written meanwhile may have come after.
        self.size = max((extent.end for extent in self.extents), default=0)

    async def drain(self) -> None:
        """Until the server has all that was changed before.

        Raises: OSError(ETIMEDOUT and the like) when the link does not carry it; it stays queued.
        """
        if not self._queue.is_busy:
            return
        reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.mark(reached)
        self._sender.pump()
        self._waiters.add(reached)
        try:
            await reached
        finally:
            self._waiters.discard(reached)

    async def flush(self) -> None:
        """``drain``, and have the server say what became of the file in the same burst."""
        if self._queue.is_busy:
            reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._queue.mark(reached)
            self._sender.pump()
            self._waiters.add(reached)
            self.refresh_soon()
            try:
                await reached
            finally:
                self._waiters.discard(reached)
        self.refresh_soon()

    def refresh_soon(self) -> None:
        """Ask for the attributes after own changes, if all of those are on their way."""
        if (
            self.is_local
            and self._queue.unsent == 0
            and self._refreshing is None
            and not self._sender.is_late  # it would be answered before what is sent again
        ):
            handle = self.handles.any
            if handle is not None:
                self._refreshing = self._pool.start(self._refresh(handle, self._seq))

    async def _refresh(self, handle: RemoteHandle, seq: int) -> None:
        at = self._pool.clock()
        try:
            attrs = await self._pool.remote.fstat(handle)
        except OSError as exc:
            # Only a saving: the next open or stat asks by itself.
            log.debug("fstat after own writes: %s", exc)
        else:
            self._word = (seq, attrs, at)
            self._take_word()
        finally:
            self._refreshing = None
            self.ended()

    def _take_word(self) -> None:
        """Believe an FSTAT that the server answered after the last own change, once all of those
        are acknowledged: it runs one file's requests in their order."""
        word = self._word
        if word is None or self._queue.is_busy:
            return
        self._word = None
        seq, attrs, at = word
        if seq == self._seq and self.is_local:
            self._pool.coherence.store(self.node, attrs, at, self._pool.nodes.stamp)

    # --- the sender's side -----------------------------------------------------------------------

    async def writing_handle(self) -> RemoteHandle:
        return await self.handles.get(api.WRITE)

    async def apply(self, attrs: Attrs) -> None:
        await self.handles.set_attrs(attrs)

    def acknowledged(self) -> None:
        pool = self._pool
        if self._queue.is_busy or self not in pool.busy:
            return
        node = self.node
        del pool.busy[self]
        self._overlay.drained(pool.clock(), pool.wall_clock())
        if node.attrs is not None:
            pool.nodes.change_attrs(node, self.overlay(node.attrs))
        pool.nodes.drop_attrs(node)
        pool.nodes.end_change(node)
        pool.coherence.wrote(node)
        self._take_word()
        self.handles.close_unneeded(is_busy=False)
        self.ended()

    def stalled(self, exc: OSError) -> None:
        self._seq += 1  # an FSTAT under way does not count
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(exc)
        self._waiters.clear()

    def refused(self, change: Flight | Setting, exc: OSError) -> None:
        if isinstance(change, Setting):
            if change.done is None or change.done.done():  # nobody waits for it, or no longer
                self._fail(exc)
            if change.attrs.size is not None:
                self._forget_local_size()
            self._overlay.attrs_failed()
            return
        self._fail(exc)
        self._pool.rescue.save(
            self.path(), [(change.start, change.parts)], os.strerror(exc.errno or errno.EIO)
        )
        self._forget_local_size()

    def _forget_local_size(self) -> None:
        """A change did not happen: what is in memory is not what the server has."""
        self._overlay.failed()
        self._drop()
        self._seq += 1  # an FSTAT under way does not count
        self._pool.nodes.drop_attrs(self.node)
        self._pool.notifier.invalidate_inode(self.node.nodeid)

    def _fail(self, exc: OSError) -> None:
        self.error = exc
        self.error_seq += 1

    # --- the end ---------------------------------------------------------------------------------

    def path(self) -> bytes:
        """The remote path, for messages."""
        if self.node.removed:
            return self.node.name
        return self._pool.nodes.path(self.node)

    def idle_reads(self) -> None:
        """Nobody reads on: stop what is only fetched ahead."""
        self._fetcher.cancel_ahead()

    def abandon(self, reason: str) -> None:
        """The mount ends and the server does not take the rest: save it."""
        self._sender.stop()
        lost = self._queue.drop_all()
        if lost:
            self._pool.rescue.save(self.path(), lost, reason)

    def forget(self) -> None:
        """Drop all that is cached."""
        self.extents.drop_clean()

    def raise_error(self, seen: int) -> int:
        """Report what the server refused since *seen* of ``error_seq``; the new *seen*."""
        if self.error_seq != seen and self.error is not None:
            raise error(self.error.errno or errno.EIO)
        return self.error_seq

    def __repr__(self) -> str:
        state = " local" if self.is_local else ""
        return f"<FileData {self.node.name!r} size={self.size} opens={self.opens}{state}>"


def _is_in(low: int, high: int, extra: list[tuple[int, memoryview]]) -> bool:
    """Whether one piece of *extra* covers [low, high)."""
    return any(start <= low and high <= start + len(data) for start, data in extra)
