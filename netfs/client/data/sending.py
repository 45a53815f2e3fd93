"""Carries one file's queued changes to the server: many at once, and again after a lost link.

What may leave when is the queue's to say; what an error means for the file is ``content``'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from netfs.client.data.pool import LINK_ERRORS, Pool
from netfs.client.data.writequeue import Flight, Setting, WriteQueue

if TYPE_CHECKING:
    from netfs.client.remote.api import RemoteHandle
    from netfs.sftp.attrs import Attrs

_LINGER_S: Final = 0.020
"""How long less than a whole request waits to be joined with more; far below a user's notice."""

_RETRY_S: Final = 0.5
"""Between attempts while the link is down; ``Remote`` itself waits for the link besides."""


class Owner(Protocol):
    """The file whose changes are sent."""

    async def writing_handle(self) -> RemoteHandle: ...

    async def apply(self, attrs: Attrs) -> None:
        """Send a SETSTAT by whatever means there are."""
        ...

    def acknowledged(self) -> None:
        """A change is with the server, or lost; or none is left."""
        ...

    def stalled(self, exc: OSError) -> None:
        """The link does not carry a change now; it will be tried again."""
        ...

    def refused(self, change: Flight | Setting, exc: OSError) -> None:
        """The server will not have a change."""
        ...


class Sender:
    """Sends what *queue* gives out."""

    __slots__ = ("_force", "_late", "_owner", "_pool", "_queue", "_timer")

    def __init__(self, owner: Owner, queue: WriteQueue, pool: Pool) -> None:
        self._owner = owner
        self._queue = queue
        self._pool = pool
        self._force = False  # the last, small rest has waited long enough
        self._timer: asyncio.TimerHandle | None = None
        self._late = 0  # changes that the link did not carry; they are sent again

    @property
    def is_late(self) -> bool:
        """Whether a change is sent again: what is sent now would overtake it."""
        return self._late > 0

    def pump(self, most: int = 0) -> None:
        """Start sending what may leave, at most *most* changes (0: as many as the window takes)."""
        if self._late:
            return  # ``_carry`` pumps again
        upload = self._pool.upload
        queue = self._queue
        count = 0
        while upload.has_room:
            if most and count == most:
                self._pool.queue_sender(self)
                return
            change = queue.next(force=self._force)
            if change is None:
                if not queue.is_busy:
                    self._force = False
                    self._owner.acknowledged()
                elif queue.unsent == 0:
                    self._force = False
                elif self._timer is None and not self._force:
                    loop = asyncio.get_running_loop()
                    self._timer = loop.call_later(_LINGER_S, self._lingered)
                return
            count += 1
            upload.in_flight += change.size
            self._pool.spawn(self._carry(change))
        self._pool.queue_sender(self)

    def _lingered(self) -> None:
        self._timer = None
        self._force = True
        self.pump()

    async def _carry(self, change: Flight | Setting) -> None:
        pool = self._pool
        ended: Callable[[Flight | Setting], None] = self._queue.done
        refusal: OSError | None = None
        is_late = False
        try:
            while True:
                try:
                    if isinstance(change, Flight):
                        handle = await self._owner.writing_handle()
                        await pool.remote.write(handle, change.start, change.parts)
                    else:
                        await self._owner.apply(change.attrs)
                except OSError as exc:
                    if exc.errno in LINK_ERRORS:
                        if not is_late:
                            is_late = True
                            self._late += 1
                        self._owner.stalled(exc)
                        await asyncio.sleep(_RETRY_S)
                        continue
                    refusal = exc
                    ended = self._queue.failed
                break
        finally:
            # If it is cancelled the mount ends, and the table saves what was not delivered.
            pool.upload.in_flight -= change.size
            self._late -= is_late
        if refusal is not None:
            self._owner.refused(change, refusal)
        ended(change)
        if isinstance(change, Setting) and change.done is not None and not change.done.done():
            if refusal is not None:
                change.done.set_exception(refusal)
            else:
                change.done.set_result(None)
        pool.queue_sender(self)
        pool.pump_next()
        self._owner.acknowledged()

    def stop(self) -> None:
        """No timer is left behind."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
