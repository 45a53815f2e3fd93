"""One file's own changes: the queue of those that the server does not have yet, their sending, and
what the file looks like until the server was asked again after the last of them.

They are sent many at once, and again after a lost link.  What may leave when is the queue's to
say; what an error means for the file is ``content``'s.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from netfs.client.data.overlay import Overlay
from netfs.client.data.pool import LINK_ERRORS, MOST_OF_CACHE, Pool
from netfs.client.data.writequeue import Flight, Setting, WriteQueue
from netfs.client.remote import api
from netfs.client.turns import Awaited
from netfs.sftp.attrs import Attrs
from netfs.wire import Buffer

if TYPE_CHECKING:
    from netfs.client.data.content import FileData
    from netfs.client.remote.api import RemoteHandle

log = logging.getLogger(__name__)

_RETRY_S: Final = 0.5
"""Between attempts while the link is down; ``Remote`` itself waits for the link besides."""


class Changes:
    """See the module.  A file has one from its first change on, until the server's word after the
    last."""

    __slots__ = (
        "_force", "_is_asking", "_is_pumping", "_late", "_owner", "_pool", "_waiters", "_word",
        "is_busy", "overlay", "queue",
    )  # fmt: skip

    def __init__(self, owner: FileData, pool: Pool) -> None:
        self._owner = owner
        self._pool = pool
        self.queue = WriteQueue(
            owner.extents, chunk=pool.get_write_chunk, account=pool.dirty.account
        )
        self.overlay = Overlay()
        self.is_busy = False  # the server lacks something
        self._waiters: set[asyncio.Future[None]] = set()  # those who wait for the queue
        self._word: tuple[int, Attrs, float] | None = None  # an FSTAT's answer, kept for a moment
        self._is_asking = False  # an FSTAT is under way
        self._is_pumping = False
        self._force = False  # the last, small rest has waited long enough
        self._late = 0  # changes that the link did not carry; they are sent again

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way."""
        return not (self.is_busy or self._is_asking)

    # --- changing --------------------------------------------------------------------------------

    def begin(self) -> None:
        """The server is going to lack something."""
        self.is_busy = True
        pool = self._pool
        node = self._owner.node
        pool.busy[self._owner] = None
        pool.nodes.begin_change(node)
        pool.coherence.wrote(node)

    def write(self, offset: int, data: Buffer) -> None:
        """Queue bytes."""
        pool = self._pool
        is_whole = self.queue.write(offset, data)
        self.overlay.wrote(pool.wall_clock())
        if is_whole or self._force:
            self.pump()
        else:
            pool.linger(self)  # nothing leaves that could not leave before it came

    def set_attrs(self, attrs: Attrs, done: asyncio.Future[None] | None) -> None:
        """Queue a SETSTAT behind the writes; *done* gets its outcome, else it is the file's."""
        if attrs.size is not None:
            self.overlay.wrote(self._pool.wall_clock())
        self.queue.set_attrs(attrs, done)
        if done is not None:
            self._waiters.add(done)
            done.add_done_callback(self._waiters.discard)
        self.overlay.set_attrs(attrs)
        self.pump()

    async def drain(self) -> None:
        """Until the server has all that was changed before.

        Raises: OSError(ETIMEDOUT and the like) when the link does not carry it; it stays queued.
        """
        if not self.is_busy:
            return
        reached = self._mark()
        try:
            await reached
        finally:
            self._waiters.discard(reached)

    async def flush(self) -> None:
        """``drain``, and have the server say in the same burst what became of the file."""
        if self.is_busy:
            reached = self._mark()
            self.refresh_soon()
            try:
                await reached
            finally:
                self._waiters.discard(reached)
        if not self._is_asking:
            self.refresh_soon()

    def _mark(self) -> Awaited[None]:
        """What is done when the server has all that was changed before."""
        reached: Awaited[None] = Awaited()
        self.queue.mark(reached)  # which forces out what waits before it
        self._waiters.add(reached)
        self.pump()
        return reached

    # --- asking what became of it ----------------------------------------------------------------

    def refresh_soon(self) -> None:
        """Ask for the attributes after own changes, if all of those are on their way."""
        owner = self._owner
        if (
            owner.extents.unsent
            or self._is_asking
            or self._late  # it would be answered before what is sent again
            or owner.own is not self
        ):
            return
        handle = owner.handles.any
        if handle is not None:
            self._pool.run(self._refresh(handle))

    async def _refresh(self, handle: RemoteHandle) -> None:
        self._is_asking = True
        seq = self._owner.changes
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
            self._is_asking = False
            self._owner.ended()

    def _take_word(self) -> None:
        """Believe an FSTAT that the server answered after the last own change, once all of those
        are acknowledged: it runs one file's requests in their order."""
        word = self._word
        if word is None or self.is_busy:
            return
        self._word = None
        seq, attrs, at = word
        owner = self._owner
        if seq == owner.changes and owner.own is self:
            pool = self._pool
            pool.coherence.store(owner.node, attrs, at, pool.nodes.stamp)

    # --- sending ---------------------------------------------------------------------------------

    def pump(self, most: int = 0) -> None:
        """Start sending what may leave, at most *most* changes (0: as many as the window takes)."""
        if self._is_pumping:
            return  # the loop below goes on
        pool = self._pool
        upload = pool.upload
        queue = self.queue
        count = 0
        self._is_pumping = True
        try:
            while upload.in_flight < upload.limit:
                if self._late:
                    return  # ``_carry`` pumps again
                if most and count == most:
                    break
                change = queue.next(force=self._force)
                if change is None:
                    self._rest()
                    return
                count += 1
                upload.in_flight += change.size
                pool.run(self._carry(change))
        finally:
            self._is_pumping = False
            if queue.woken:
                queue.wake()
        pool.queue_sender(self)

    def lingered(self) -> None:
        """Nothing came to be joined with a small rest."""
        self._force = True
        self.pump()

    def _rest(self) -> None:
        """Nothing more may leave now."""
        if self._owner.extents.unsent:
            if not self._force:
                self._pool.linger(self)
            return
        self._force = False
        self._pool.linger_no_more(self)
        if not self.queue.flights:
            self.settle()

    async def _carry(self, change: Flight | Setting) -> None:
        pool = self._pool
        handles = self._owner.handles
        refusal: OSError | None = None
        is_late = False
        try:
            while True:
                try:
                    if isinstance(change, Flight):
                        writer = handles.writer
                        if writer is None:
                            writer = await handles.get(api.WRITE)
                        await pool.remote.write(writer, change.start, change.parts)
                    else:
                        await handles.set_attrs(change.attrs)
                except OSError as exc:
                    if exc.errno in LINK_ERRORS:
                        if not is_late:
                            is_late = True
                            self._late += 1
                        self._stalled(exc)
                        await asyncio.sleep(_RETRY_S)
                        continue
                    refusal = exc
                break
        finally:
            # If it is cancelled the mount ends, and the table saves what was not delivered.
            pool.upload.in_flight -= change.size
            self._late -= is_late
        queue = self.queue
        if refusal is None:
            queue.done(change, keep=self._keeps_own())
        else:
            self._owner.refused(change, refusal)
            queue.failed(change)
        if isinstance(change, Setting) and change.done is not None and not change.done.done():
            if refusal is not None:
                change.done.set_exception(refusal)
            else:
                change.done.set_result(None)
        if queue.items:
            pool.queue_sender(self)
        pool.pump_next()
        if not queue.flights:
            self.settle()
        if queue.woken:
            queue.wake()

    def _keeps_own(self) -> bool:
        """Whether what was written stays in memory: not if it would push out everybody else's."""
        pool = self._pool
        return not pool.is_direct and self._owner.size <= pool.cache.maxsize * MOST_OF_CACHE

    def _stalled(self, exc: OSError) -> None:
        """The link does not carry a change now; it will be tried again."""
        self._owner.changes += 1  # an FSTAT under way does not count
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(exc)
        self._waiters.clear()

    def settle(self) -> None:
        """See whether the server has all changes by now, or refused them."""
        if not self.is_busy or self.queue.flights or self.queue.items:
            return
        self.is_busy = False
        pool = self._pool
        owner = self._owner
        nodes = pool.nodes
        node = owner.node
        del pool.busy[owner]
        self.overlay.drained(pool.clock(), pool.wall_clock())
        if node.attrs is not None:
            nodes.change_attrs(node, self.overlay.shown(node.attrs, owner.size))
        nodes.drop_attrs(node)
        nodes.end_change(node)
        pool.coherence.wrote(node)
        if self._word is not None:
            self._take_word()
        owner.handles.close_unneeded(is_busy=False)
        owner.ended()

    # --- the end ---------------------------------------------------------------------------------

    def abandon(self) -> list[tuple[int, list[Buffer]]]:
        """The mount ends: what the server does not have."""
        self._pool.linger_no_more(self)
        return self.queue.drop_all()
