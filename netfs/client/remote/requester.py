"""Futures by request over one SFTP conversation on one channel.

All requests of one loop turn leave in one write.  Small requests go before bulk data that waits
in the queue, except those of the same file, which keep their order.  A cancelled future is an
abandoned request: if it has not left it never leaves, else its answer is dropped when it comes
and a handle in it is closed.  What to ask, and what to do when the link is lost, belong above.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from netfs.buffers import Landing
from netfs.client.remote.channel import Channel
from netfs.client.remote.pending import (
    Asker,
    Bulk,
    Disconnected,
    Expired,
    Follower,
    Opening,
    Pending,
    StatusError,
    Waiting,
    fail,
)
from netfs.client.remote.window import BulkWindow, Links
from netfs.client.turns import Turn
from netfs.sftp.codes import Status
from netfs.sftp.connection import Answer, ClientConnection, Reaped, Version
from netfs.sftp.errors import LocalProtocolError, RemoteProtocolError
from netfs.sftp.requests import Close, Open, Opendir, Read, Readdir, Request, Write
from netfs.sftp.responses import Handle, Response, StatusResponse
from netfs.wire import Buffer

_log = logging.getLogger(__name__)

_BULK: Final = 16 * 1024
"""Bytes from which a READ or WRITE counts as bulk: ten packets of an Ethernet."""

_LATE_S: Final = 0.005
"""How long a CLOSE may wait for something that it can leave with.  No caller waits for it, and a
packet of its own costs both ends as much as a request that somebody waits for."""


class RequesterStatistics(NamedTuple):
    """A snapshot of the counters since the conversation began."""

    requests: int
    answers: int
    abandoned: int  # answers that nobody waited for any more
    orphans: int  # late handles that were closed
    queued: int  # now
    pending: int  # now
    bytes_sent: int
    bytes_received: int


class _Lane:
    """Bulk of one direction, first in first out."""

    __slots__ = ("queue", "window")

    def __init__(self, window: BulkWindow) -> None:
        self.window = window
        self.queue: deque[Waiting] = deque()


class Requester:
    """One conversation; also the channel's Receiver.

    Invariant: each future that ``ask`` gave, and each asker that ``tell`` got, is in a queue, or
    pending in the connection, or done.
    """

    def __init__(
        self,
        links: Links,
        clock: Callable[[], float],
        *,
        log_requests: bool = False,
        turn: Turn | None = None,
    ) -> None:
        """*turn*: at whose end what was asked for leaves."""
        self.on_end: Callable[[], None] | None = None
        """Called at once when the conversation is over, before anybody is told."""
        self._loop = asyncio.get_running_loop()
        self.turn = Turn(self._loop) if turn is None else turn
        self._clock = clock
        self._log_requests = log_requests
        self._connection: ClientConnection[Waiting] = ClientConnection()
        self._channel: Channel | None = None
        self._version: asyncio.Future[Version] = self._loop.create_future()
        self._ended: asyncio.Future[str] = self._loop.create_future()
        self.is_ended = False
        self.loss: Exception | None = None  # what the channel was lost with
        self._small: list[Waiting] = []
        self._round_trip = links.round_trip
        self._reads = _Lane(links.reads)
        self._writes = _Lane(links.writes)
        self._lanes: dict[bytes, tuple[_Lane, int]] = {}  # handle: its lane, how many wait there
        self._flush_scheduled = False
        self._late: asyncio.TimerHandle | None = None  # what may wait leaves then at the latest
        self._paused = False
        self._requests = self._answers = self._abandoned = self._orphans = 0
        self._bytes_sent = self._bytes_received = 0
        self.heard_at = clock()  # when the server said something last
        for lane in (self._reads, self._writes):
            lane.window.subscribe(self._room_came)

    def __repr__(self) -> str:
        state = "ended" if self.is_ended else "open" if self._channel else "new"
        return f"<Requester {state} queued={self._queued()} {self._connection!r}>"

    # What the owner calls.

    async def greet(self, channel: Channel) -> Version:
        """Say hello on *channel* and return what the server says of itself.

        Raises:
            Disconnected: it said goodbye, or nonsense.
        """
        self._channel = channel
        channel.write((self._connection.hello(),))
        await asyncio.wait((self._version, self._ended), return_when=asyncio.FIRST_COMPLETED)
        if not self._version.done():
            raise Disconnected(self._ended.result(), sent=False)
        return self._version.result()

    def ask(self, request: Request, future: Pending | None = None) -> Pending:
        """Queue *request*; its future, made if need be, gives the response, whatever its status.

        The future's exceptions are Disconnected and LocalProtocolError.
        """
        if future is None:
            future = Pending(loop=self._loop)
        future.request = request
        future.sent_at = self._clock()
        future.is_sent = False
        future.bulk = future.waker = None
        if self.is_ended:
            fail(future, Disconnected(self._ended.result(), sent=False))
            return future
        self._requests += 1
        if (
            self._lanes
            or type(request) is Write
            or (type(request) is Read and request.length >= _BULK)
        ):
            self._enqueue(future)
        else:
            self._small.append(future)  # most requests
        if type(request) is Close:
            self._flush_late()
        elif not self._flush_scheduled:
            self._flush_scheduled = True
            self.turn.at_end(self._flush)
        return future

    def tell(self, asker: Asker, request: Request) -> None:
        """Queue *request*, a small one about no handle; *asker* is told what comes of it."""
        asker.request = request
        asker.sent_at = self._clock()
        if self.is_ended:
            fail(asker, Disconnected(self._ended.result(), sent=False))
            return
        self._requests += 1
        self._small.append(asker)
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self.turn.at_end(self._flush)

    async def call(self, request: Request) -> Response:
        """Ask, wait, and return what is not a bad status.

        Raises:
            StatusError, Disconnected, LocalProtocolError
        """
        future = self.ask(request)
        try:
            response = await future
        except asyncio.CancelledError:
            self.drop(future)
            raise
        if type(response) is StatusResponse and response.code != Status.OK:
            raise StatusError(request, response)
        return response

    async def open(
        self, request: Open | Opendir, behind: Sequence[Read | Readdir]
    ) -> tuple[bytes, list[Pending]]:
        """Ask for a handle, and in the same packet what is wanted of it, if it is foretold.

        *behind* are small requests with an empty handle.  Returns the handle, and their futures
        if they have left; else nobody has asked them.

        Raises:
            StatusError, Disconnected, LocalProtocolError
        """
        opening = Opening(loop=self._loop)
        _ = self.ask(request, opening)
        followers: list[Pending] = []
        for each in behind:
            follower = Follower(loop=self._loop)
            follower.opening = opening
            followers.append(self.ask(each, follower))
        try:
            response = await opening
            if isinstance(response, StatusResponse):
                raise StatusError(request, response)
            assert isinstance(response, Handle)
        except BaseException:
            for future in (opening, *followers):
                self.drop(future)
            raise
        if response.handle == opening.foretold:
            return response.handle, followers
        for future in followers:
            self.drop(future)
        return response.handle, []

    def drop(self, future: Pending) -> None:
        """Nobody wants *future* any more: abandon it, or reap what it got."""
        if future.done():
            if not future.cancelled() and future.exception() is None:
                response = future.result()
                if type(response) is Handle:
                    self.dismiss(response.handle)
        else:
            future.cancel()

    def dismiss(self, handle: bytes) -> None:
        """Close *handle* without waiting for it."""
        _ = self.ask(Close(handle))  # nobody can do anything about a failure

    def set_extended_attrs(self) -> None:
        """The server said yes to ``attrs@netfs``."""
        self._connection.extended_attrs = True

    async def wait_ended(self) -> str:
        """Returns why, when the conversation is over."""
        return await asyncio.shield(self._ended)

    def oldest_sent_at(self) -> float | None:
        """When the request that waits longest for its answer left (on the clock)."""
        for _, future in self._connection.waiting():
            if not future.done():
                return future.sent_at
        return None

    def expire(self, before: float, reason: str) -> None:
        """Give up what waits since *before*: Expired; the answers are reaped when they come."""
        for _, future in self._connection.waiting():
            if not future.done() and future.sent_at < before:
                fail(future, Expired(reason, sent=True))
        for queue in (self._small, self._reads.queue, self._writes.queue):
            for future in queue:
                if not future.done() and future.sent_at < before:
                    fail(future, Expired(reason, sent=False))

    def close(self) -> None:
        """Send what is queued, then close the channel."""
        if self._channel is not None:
            self._flush()
            self._channel.close()

    def abort(self, reason: str) -> None:
        """End the conversation now."""
        if self._channel is not None:
            self._channel.abort()
        self._end(reason)

    def statistics(self) -> RequesterStatistics:
        return RequesterStatistics(
            self._requests,
            self._answers,
            self._abandoned,
            self._orphans,
            self._queued(),
            self._connection.pending,
            self._bytes_sent,
            self._bytes_received,
        )

    # What the channel calls.

    @property
    def landing(self) -> Landing:
        """See channel.LandingReceiver."""
        return self._connection.landing

    def landed(self, count: int) -> None:
        """See channel.LandingReceiver."""
        self.data_received(b"", count)

    def data_received(self, data: Buffer, landed: int = 0) -> None:
        """Have what came understood, and tell those who waited for it: *data*, or else the bytes
        that have *landed*."""
        if self.is_ended:
            return
        self._bytes_received += landed or len(data)
        now = self.heard_at = self._clock()
        events: list[Version | Answer[Waiting] | Reaped[Waiting]] = []
        breach: RemoteProtocolError | None = None
        try:
            self._connection.receive_data(data, events, landed)
        except RemoteProtocolError as exc:
            breach = exc
        if not events and breach is None:
            return
        turn = self.turn
        turn.depth += 1
        try:
            # All are answered before the first is woken: what it does may concern the others.
            woken: list[tuple[Callable[[Any], object], object]] = []  # calls
            sent_at = None  # of the youngest that is no bulk
            for event in events:
                if type(event) is not Answer:
                    self._take(event, now)
                    continue
                future, _request, response = event
                if isinstance(future, Asker):
                    woken.append((future.told, response))
                else:
                    waker = future.take_waker()
                    if waker is not None:
                        woken.append((waker, future))
                    future.set_result(response)
                self._answers += 1
                bulk = future.bulk
                if bulk is not None and bulk.window is not None:
                    self._left_window(future, now)
                elif sent_at is None or future.sent_at > sent_at:
                    sent_at = future.sent_at
            if self._log_requests:
                self._log(events, now)
            if breach is not None:
                _log.warning("the server broke the SFTP protocol: %s", breach)
                self.abort(f"the server broke the SFTP protocol: {breach}")
            for call, told in woken:
                call(told)
            if sent_at is not None:  # last: nobody waits for it
                self._round_trip.sample(now - sent_at, now)
        finally:
            turn.end()

    def connection_lost(self, exc: Exception | None) -> None:
        self.loss = exc
        reason = str(exc) if exc is not None else "the channel was closed"
        try:
            self._connection.receive_eof()
        except RemoteProtocolError as error:
            reason = f"{reason}: {error}"
        self._end(reason)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._flush()

    # The queue.

    def _enqueue(self, future: Pending) -> None:
        """Put it where it belongs: bulk into its lane, and what must not overtake that too."""
        request = future.request
        handle: bytes | None = getattr(request, "handle", None)
        lane: _Lane | None = None
        waiting = 0
        own: _Lane | None
        if handle is not None and handle in self._lanes:
            lane, waiting = self._lanes[handle]  # the order within one file is kept
        if isinstance(request, Write):
            size = sum(map(len, request.data))
            own = self._writes
        elif isinstance(request, Read):
            size = request.length
            own = self._reads
        else:
            size = 0
            own = None
        if lane is None and (own is None or size < _BULK):
            self._small.append(future)
            return
        future.bulk = bulk = Bulk(handle)
        if own is not None:
            bulk.size = size
            bulk.window = own.window
            lane = lane or own
        assert lane is not None
        lane.queue.append(future)
        if handle is not None:
            self._lanes[handle] = (lane, waiting + 1)

    def _flush_late(self) -> None:
        """Write what is queued together with what is asked for next, or soon."""
        if self._late is None:
            self._late = self._loop.call_later(_LATE_S, self._is_late)

    def _is_late(self) -> None:
        self._late = None
        self._flush()

    def _flush(self) -> None:
        """Write what may leave now, in one go."""
        self._flush_scheduled = False
        if self._paused or self._channel is None or self.is_ended:
            return
        now = self._clock()
        leaving, self._small = self._small, []
        if self._reads.queue or self._writes.queue:
            leaving += self._bulk_leaving(now)
        buffers: list[Buffer] = []
        send = self._connection.send
        for future in leaving:
            if future.done():  # cancelled while it waited: it never leaves
                continue
            if type(future) is Follower:
                handle = future.opening.foretold
                if handle is None:
                    self._requests -= 1
                    future.cancel()
                    continue
                future.request = _of_handle(future.request, handle)
            try:
                request_id, packet = send(future.request, future)
            except LocalProtocolError as exc:
                self._lose_window(future)
                fail(future, exc)
                continue
            if type(future) is Opening:
                future.foretold = self._connection.foretold
            future.sent_at = now
            future.is_sent = True
            buffers += packet
            if self._log_requests:
                _log.debug("sftp %d > %s", request_id, describe(future.request))
        if buffers:
            self._bytes_sent += sum(map(len, buffers))
            self._channel.write(buffers)

    def _bulk_leaving(self, now: float) -> list[Waiting]:
        """Of each lane what the window lets go."""
        leaving: list[Waiting] = []
        for lane in (self._reads, self._writes):
            queue = lane.queue
            while queue:
                future = queue[0]
                bulk = future.bulk
                assert bulk is not None
                window = bulk.window
                is_wanted = not future.done()
                if window is not None and is_wanted and not window.has_room(bulk.size):
                    break
                del queue[0]
                self._leave_lane(bulk)
                if is_wanted:
                    if window is not None:
                        bulk.mark = window.sent(bulk.size, now)
                    leaving.append(future)
        return leaving

    def _leave_lane(self, bulk: Bulk) -> None:
        if bulk.handle is not None:
            lane, count = self._lanes[bulk.handle]
            if count == 1:
                del self._lanes[bulk.handle]
            else:
                self._lanes[bulk.handle] = (lane, count - 1)

    def _room_came(self) -> None:
        if (self._reads.queue or self._writes.queue) and not self._flush_scheduled:
            self._flush_scheduled = True
            self.turn.at_end(self._flush)

    def _queued(self) -> int:
        return len(self._small) + len(self._reads.queue) + len(self._writes.queue)

    # The answers.

    def _take(self, event: Version | Answer[Waiting] | Reaped[Waiting], now: float) -> None:
        """What is no answer that somebody waits for."""
        if isinstance(event, Version):
            self._version.set_result(event)
        if not isinstance(event, Reaped):
            return
        self._abandoned += 1
        self._left_window(event.waiter, now)
        if event.orphan is not None:
            self._orphans += 1
            self.dismiss(event.orphan)

    def _left_window(self, future: Waiting, now: float) -> None:
        """It was answered."""
        bulk = future.bulk
        if bulk is not None and bulk.window is not None and bulk.mark is not None:
            bulk.window.answered(bulk.size, bulk.mark, future.sent_at, now)

    @staticmethod
    def _lose_window(future: Waiting) -> None:
        """It will never be answered."""
        bulk = future.bulk
        if bulk is not None and bulk.window is not None and bulk.mark is not None:
            bulk.window.lost(bulk.size)

    @staticmethod
    def _log(events: Sequence[Version | Answer[Waiting] | Reaped[Waiting]], now: float) -> None:
        for event in events:
            if isinstance(event, Answer):
                _log.debug(
                    "sftp < %s: %s (%.1f ms)",
                    describe(event.request),
                    describe(event.response),
                    (now - event.waiter.sent_at) * 1000,
                )

    def _end(self, reason: str) -> None:
        """Tell everybody who waits.  May be called more than once."""
        if self.is_ended:
            return
        self.is_ended = True
        if self._late is not None:
            self._late.cancel()
            self._late = None
        if self.on_end is not None:
            self.on_end()
        self._ended.set_result(reason)
        for lane in (self._reads, self._writes):
            lane.window.unsubscribe(self._room_came)
        # Kept here they would keep their errors, whose tracebacks lead to the next conversation.
        for _, future in self._connection.lose():
            self._lose_window(future)
            if not future.done():
                fail(future, Disconnected(reason, sent=True))
        for queue in (self._small, self._reads.queue, self._writes.queue):
            for future in queue:
                if not future.done():
                    fail(future, Disconnected(reason, sent=False))
            queue.clear()
        self._lanes.clear()


def _of_handle(request: Request, handle: bytes) -> Request:
    """*request*, which has none yet, about *handle*."""
    assert isinstance(request, Read | Readdir)
    return request._replace(handle=handle)


def describe(message: Request | Response) -> str:
    """For the debug log: the type and its fields, without payloads."""
    fields = []
    for name, value in message._asdict().items():
        if name == "data":
            size = sum(map(len, value)) if isinstance(value, tuple) else len(value)
            fields.append(f"{size} bytes")
        elif name == "entries":
            fields.append(f"{len(value)} names")
        elif hasattr(value, "_asdict"):
            shown = ", ".join(f"{k}={v}" for k, v in value._asdict().items() if v is not None)
            fields.append(f"({shown})")
        else:
            fields.append(f"{name}={value!r}")
    return f"{type(message).__name__} {' '.join(fields)}"
