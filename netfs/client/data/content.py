"""``FileData``: the content of one file as this mount sees it, and what it still owes the server.

Three things are true at any time: a read finds the newest bytes written here; bytes of two
versions are never in memory together; the server gets the changes in their order.

*Version.*  ``told`` compares what the server says with what is known.  Another version drops the
blocks.  When the file is open, an FSTAT of its handle tells whether it changed in place (readers
see the new bytes, as on a local disk) or was replaced (the node loses its name, readers go on with
the old file; see ``identifying``).

*Own changes.*  From the first one until the server has been asked again after the last one
(``is_local``), size and times are this machine's, and what the server says meanwhile is ignored
(see ``changes``).

What only a file in use needs is made then and dropped afterwards: thousands are known.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from typing import TYPE_CHECKING, Final

from netfs.client.data.changes import Changes
from netfs.client.data.extents import ExtentMap
from netfs.client.data.fetching import Fetch, Fetcher
from netfs.client.data.handles import Handles
from netfs.client.data.identifying import Identifier
from netfs.client.data.pool import MOST_OF_CACHE, Pool
from netfs.client.data.readahead import ReadAhead
from netfs.client.data.version import Version, is_trusted, version_of
from netfs.client.data.writequeue import Flight, Setting
from netfs.client.remote import api
from netfs.client.turns import Awaited
from netfs.sftp.attrs import Attrs
from netfs.wire import Buffer

if TYPE_CHECKING:
    from netfs.client.nodes import Node

log = logging.getLogger(__name__)

_END: Final = 1 << 63
_ANSWERED_S: Final = 0.1  # in which answers that are ready reach the kernel


class FileData:
    """See the module.  ``size`` is in bytes and local while ``is_local``."""

    __slots__ = (
        "_fetcher", "_identifier", "_pool", "changes", "creators", "error", "error_seq",
        "extents", "handles", "is_trusted", "kernel_valid", "node", "opens", "own", "prefetching",
        "size", "version",
    )  # fmt: skip

    def __init__(self, node: Node, pool: Pool) -> None:
        self.node = node
        self._pool = pool
        self.extents = ExtentMap(pool.cache)
        self.handles = Handles(node, pool)
        self._fetcher: Fetcher | None = None  # while it is read
        self.own: Changes | None = None  # while own changes are shown
        self._identifier: Identifier | None = None  # while it is in doubt which file it is
        self.opens = 0  # open files
        self.creators = 0  # those of them that created the file
        self.size = 0
        self.version: Version | None = None
        self.is_trusted = False  # a change since the version was seen would show
        self.kernel_valid = False  # the kernel's pages are of this version
        self.error: OSError | None = None  # of a change the server refused
        self.error_seq = 0  # counts them: each open file reports each once
        self.changes = 0  # counts own changes
        self.prefetching: asyncio.Task[None] | None = None
        if node.attrs is not None:
            self.told(node.attrs)

    # --- what others see -------------------------------------------------------------------------

    @property
    def is_busy(self) -> bool:
        """Whether the server lacks anything."""
        return self.own is not None and self.own.is_busy

    @property
    def is_local(self) -> bool:
        """Whether own changes are shown that the server has not been asked about since."""
        return self.own is not None

    @property
    def is_suspect(self) -> bool:
        """Whether the name may lead to another file than the handles."""
        return self._identifier is not None

    @property
    def has_unsent(self) -> bool:
        """Whether SETATTR has to join the queue: own changes are under way or not yet confirmed,
        or its creator is still busy with it."""
        return self.own is not None or self.creators > 0

    @property
    def is_complete(self) -> bool:
        """Whether all of it is in memory."""
        return self._identifier is None and self.extents.is_complete(self.size)

    @property
    def is_disposable(self) -> bool:
        """Whether only a cache is lost with it."""
        return (
            not (self.opens or self.prefetching)
            and (self.own is None or self.own.is_idle)
            and (self._fetcher is None or self._fetcher.is_idle)
        )

    def ended(self) -> None:
        """Something that kept it from being disposable has ended; it may have been the last."""
        if self.opens == 0 and self.node.parent is None:
            self._pool.on_idle(self)

    def overlay(self, attrs: Attrs) -> Attrs:
        """*attrs* as the server told them, with the own changes that it did not know then."""
        own = self.own
        return attrs if own is None else own.overlay.shown(attrs, self.size)

    def is_fresh(self, now: float) -> bool:
        """Whether the version counts as revalidated without asking (design: close-to-open)."""
        if self._identifier is not None:
            return False
        if not self._pool.remote.is_up:
            return self.version is not None  # better old than none
        own = self.own
        if own is not None:
            return own.is_busy or own.overlay.is_recent(now, self._pool.cto_window_s)
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
        own_changes = self.own
        if attrs.size is None or (own_changes is not None and own_changes.is_busy):
            return  # of a file half written it says nothing
        pool = self._pool
        self.handles.check_permissions(attrs)
        version = version_of(attrs)
        age = max(0.0, pool.clock() - self.node.attrs_at)
        trusted = is_trusted(version, pool.wall_clock() - age)
        if own_changes is not None:
            as_expected = attrs.size == self.size
            pool.clock_offset_s += own_changes.overlay.end(attrs)
            self.own = None
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
        if self.extents:
            self.extents.drop_clean(keep_own=keep_own)
        if self._fetcher is not None:
            self._fetcher.taint(0, _END)
        self.kernel_valid = False

    def _suspect(self) -> None:
        """Somebody else changed it, or has put another file in its place."""
        if self.opens:
            self._pool.notifier.invalidate_inode(self.node.nodeid)
        if self.handles.any is not None:
            if self._identifier is None:
                self._identifier = Identifier(self, self._pool)
            self._identifier.suspect()

    def identified(self) -> None:
        """There is no doubt any more (see ``identifying``)."""
        self._identifier = None

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
        if self._identifier is not None:
            await self._identifier.settle()

    # --- reading ---------------------------------------------------------------------------------

    def read_nowait(self, offset: int, size: int, ahead: ReadAhead) -> list[Buffer] | None:
        """The bytes, if they are in memory; None: ``read`` has to wait for some."""
        pool = self._pool
        if self._identifier is not None or pool.is_direct:
            return None
        end = min(offset + size, self.size)
        if offset >= end:
            return None if self._fetcher is not None and self._fetcher.in_front(offset) else []
        remote_end = self.size if self.own is None else self.own.queue.zeros_from(self.size)
        parts = self.extents.find(offset, end, remote_end)
        if parts is None:
            pool.misses += 1
        else:
            pool.hits += 1
        ranges = ahead.plan(offset, size, remote_end, pool.ahead_limit) if pool.reads_ahead else ()
        if ranges:
            fetcher = self._fetches()
            if parts is None and ranges[0][0] == end:
                # One request brings what is asked for and what comes next.
                fetcher.want(offset, min(ranges[0][1], max(end, offset + pool.read_chunk)))
            elif parts is None:
                fetcher.want(offset, min(end, remote_end))
            for low, high in ranges:
                reached = fetcher.want_ahead(low, high)
                if reached < high:
                    ahead.reached(reached)
                    break
        if parts is not None and ahead.is_streaming:
            self._passed(offset, end)
        return parts

    def _passed(self, offset: int, end: int) -> None:
        """A reader went on: the kernel has the pages, and of a large file these blocks would only
        push out everybody else's (and take fresh memory instead of what was just used)."""
        pool = self._pool
        if self.own is None and self.size > pool.cache.maxsize * MOST_OF_CACHE:
            self.extents.drop_read(offset, end)

    def _fetches(self) -> Fetcher:
        fetcher = self._fetcher
        if fetcher is None:
            fetcher = self._fetcher = Fetcher(self, self._pool)
        return fetcher

    async def read(self, offset: int, size: int, ahead: ReadAhead) -> list[Buffer]:
        """The bytes, fetched if need be; fewer only at the end of the file.

        Raises: OSError as the server answers.
        """
        if self._pool.is_direct:
            return await self._read_through(offset, offset + size)
        fetcher = self._fetches()
        got: list[Fetch] = []
        if self._identifier is None and self.own is None and offset < self.size:
            end = min(offset + size, self.size)
            alone = fetcher.alone(offset, end) if self.extents.has_none(offset, end) else None
            if alone is not None:
                # Most reads that have to wait: one request brings all of it, and nothing else.
                await fetcher.carry(alone)
                if not alone.is_tainted:
                    if alone.error is not None:
                        raise alone.error
                    assert alone.data is not None
                    if len(alone.data) == end - offset:
                        return [alone.data]
                    got.append(alone)
        while True:
            if self._identifier is not None:
                await self.settle_identity()
            end = min(offset + size, self.size)
            if offset >= end:
                await self._let_pass(fetcher, offset)
                return []
            remote_end = self.size if self.own is None else self.own.queue.zeros_from(self.size)
            extra = [
                (fetch.start, fetch.data)
                for fetch in got
                if fetch.data is not None and not fetch.is_tainted
            ]
            parts = self.extents.find(offset, end, remote_end, extra)
            if parts is not None:
                if ahead.is_streaming:
                    self._passed(offset, end)
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
            fetches = [fetch for gap in gaps for fetch in fetcher.want(*gap)]
            await fetcher.wait(fetches)
            for fetch in fetches:
                if fetch.error is not None and not fetch.is_tainted:
                    raise fetch.error
            got = [fetch for fetch in got + fetches if not fetch.is_tainted]

    async def _let_pass(self, fetcher: Fetcher, offset: int) -> None:
        """Nothing is there any more: let those in front be answered first.

        The kernel takes the first short answer for the end of the file, and shows zeros up to it.
        """
        while in_front := fetcher.in_front(offset):
            await fetcher.wait(in_front)
            answered: Awaited[None] = Awaited()
            asyncio.get_running_loop().call_soon(answered.deliver, None)
            await answered

    async def _read_through(self, offset: int, end: int) -> list[Buffer]:
        """Ask the server, whatever is known (option direct_io)."""
        await self.drain()
        handle = await self.handles.get(api.READ)
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
        if self.own is not None:
            # Behind the server's end, before the local one: a hole that own writes made.
            fetch.data = memoryview(bytes(fetch.data) + bytes(fetch.end - eof))
            return
        # Somebody made it shorter.
        fetch.end = eof
        self.size = min(self.size, eof)
        self.version = None
        self._drop()
        self._pool.nodes.drop_attrs(self.node)
        # Not before the answers: to one that is overtaken by news the kernel gives no credit, and
        # shows zeros up to the old end.
        invalidate = self._pool.notifier.invalidate_inode
        asyncio.get_running_loop().call_later(_ANSWERED_S, invalidate, self.node.nodeid)

    async def fetch_all(self) -> None:
        """Bring all of it into memory, as fetched ahead.

        Raises: OSError as the server answers.
        """
        fetcher = self._fetches()
        want = fetcher.want(0, self.size)
        await fetcher.wait(want, ahead=True)
        for fetch in want:
            if fetch.error is not None:
                raise fetch.error

    # --- changing --------------------------------------------------------------------------------

    def write(self, offset: int, data: Buffer) -> None:
        """Take bytes that will be sent; ``pool.dirty`` was asked for room before."""
        if not data:
            return
        end = offset + len(data)
        own = self._changing()
        if self._fetcher is not None:
            self._fetcher.taint(min(offset, self.size), end)
        if end > self.size:
            self.size = end
        own.write(offset, data)

    async def see_end(self) -> None:
        """Ask how long the file is, for who appends to it when nothing of ours is under way."""
        pool = self._pool
        handle = self.handles.any
        if handle is None or not pool.remote.is_up or (self.creators and not self.changes):
            return  # (Nobody else knows yet what was just created.)
        seq = self.changes
        at = pool.clock()
        try:
            attrs = await pool.remote.fstat(handle)
        except OSError as exc:
            log.debug("fstat before appending: %s", exc)  # the write will tell
            return
        if seq == self.changes:
            pool.coherence.store(self.node, attrs, at, pool.nodes.stamp)

    def set_attrs(self, attrs: Attrs, done: asyncio.Future[None] | None) -> None:
        """Queue a SETSTAT behind the writes; *done* gets its outcome, else it is the file's."""
        own = self._changing()
        if attrs.size is not None:
            if self._fetcher is not None:
                self._fetcher.taint(min(self.size, attrs.size), _END)
            self.size = attrs.size
        own.set_attrs(attrs, done)

    def _changing(self) -> Changes:
        """A change begins."""
        self.changes += 1
        own = self.own
        if own is None:
            own = self.own = Changes(self, self._pool)
        if not own.is_busy:
            own.begin()
        return own

    def written_by_server(self, end: int) -> None:
        """The server changed it by our order, and not through the queue; perhaps up to *end*."""
        self._drop()
        self.size = max(self.size, end)
        own = self._changing()
        own.overlay.wrote(self._pool.wall_clock())
        own.settle()
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
        if self.own is not None:
            await self.own.drain()

    def refresh_soon(self) -> None:
        """Ask for the attributes after own changes, if all of those are on their way."""
        if self.own is not None:
            self.own.refresh_soon()

    def refused(self, change: Flight | Setting, exc: OSError) -> None:
        if isinstance(change, Setting):
            if change.done is None or change.done.done():  # nobody waits for it, or no longer
                self._fail(exc)
            if change.attrs.size is not None:
                self._forget_local_size()
            if self.own is not None:
                self.own.overlay.attrs_failed()
            return
        self._fail(exc)
        self._pool.rescue.save(
            self.path(), [(change.start, change.parts)], os.strerror(exc.errno or errno.EIO)
        )
        self._forget_local_size()

    def _forget_local_size(self) -> None:
        """A change did not happen: what is in memory is not what the server has."""
        if self.own is not None:
            self.own.overlay.failed()
        self._drop()
        self.changes += 1  # an FSTAT under way does not count
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
        if self._fetcher is not None:
            self._fetcher.cancel_ahead()
            if self._fetcher.is_idle:
                self._fetcher = None

    def abandon(self, reason: str) -> None:
        """The mount ends and the server does not take the rest: save it."""
        lost = self.own.abandon() if self.own is not None else None
        if lost:
            self._pool.rescue.save(self.path(), lost, reason)

    def forget(self) -> None:
        """Drop all that is cached."""
        self.extents.drop_clean()
        self._fetcher = self.own = None

    def __repr__(self) -> str:
        state = " local" if self.is_local else ""
        return f"<FileData {self.node.name!r} size={self.size} opens={self.opens}{state}>"


def _is_in(low: int, high: int, extra: list[tuple[int, memoryview]]) -> bool:
    """Whether one piece of *extra* covers [low, high)."""
    return any(start <= low and high <= start + len(data) for start, data in extra)
