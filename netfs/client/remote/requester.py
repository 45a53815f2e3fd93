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
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from netfs.client.remote.channel import Channel
from netfs.client.remote.window import BulkWindow, Mark, RoundTrip
from netfs.client.turns import Awaited, Turn, Waker
from netfs.sftp.codes import Status
from netfs.sftp.connection import Answer, ClientConnection, Reaped, Version
from netfs.sftp.errors import LocalProtocolError, RemoteProtocolError
from netfs.sftp.requests import Close, Read, Request, Write
from netfs.sftp.responses import Handle, Response, StatusResponse
from netfs.wire import Buffer

_log = logging.getLogger(__name__)

_BULK: Final = 16 * 1024
"""Bytes from which a READ or WRITE counts as bulk: ten packets of an Ethernet."""


class StatusError(Exception):
    """The server answered with a status other than OK."""

    def __init__(self, request: Request, status: StatusResponse) -> None:
        text = status.message.decode("utf-8", "replace")
        super().__init__(f"{type(request).__name__}: status {status.code} ({text})")
        self.request = request
        self.code = status.code
        self.message = status.message


class Disconnected(Exception):
    """The conversation ended before the answer came.

    ``sent`` tells whether the request may have been carried out.
    """

    def __init__(self, reason: str, *, sent: bool) -> None:
        super().__init__(reason)
        self.sent = sent


class Expired(Disconnected):
    """No answer came in the time that a request may take while the link is in doubt."""


class Links(NamedTuple):
    """What the channels of one link share: the measured way to the server."""

    round_trip: RoundTrip
    reads: BulkWindow
    writes: BulkWindow


def new_links() -> Links:
    """Nothing measured yet."""
    round_trip = RoundTrip()
    return Links(round_trip, BulkWindow(round_trip), BulkWindow(round_trip))


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


class Pending(Awaited[Response]):
    """A request's future with what the queue must know of it."""

    request: Request
    size: int = 0  # bytes of bulk, else 0
    window: BulkWindow | None = None
    mark: Mark
    sent_at: float  # on the requester's clock
    handle: bytes | None = None


class _Lane:
    """Bulk of one direction, first in first out."""

    __slots__ = ("queue", "window")

    def __init__(self, window: BulkWindow) -> None:
        self.window = window
        self.queue: deque[Pending] = deque()


class Requester:
    """One conversation; also the channel's Receiver.

    Invariant: each future that ``ask`` gave is in a queue, or pending in the connection, or done.
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
        self._loop = asyncio.get_running_loop()
        self._turn = Turn(self._loop) if turn is None else turn
        self._clock = clock
        self._log_requests = log_requests
        self._connection: ClientConnection[Pending] = ClientConnection()
        self._channel: Channel | None = None
        self._version: asyncio.Future[Version] = self._loop.create_future()
        self._ended: asyncio.Future[str] = self._loop.create_future()
        self.is_ended = False
        self.loss: Exception | None = None  # what the channel was lost with
        self._small: deque[Pending] = deque()
        self._round_trip = links.round_trip
        self._reads = _Lane(links.reads)
        self._writes = _Lane(links.writes)
        self._lanes: dict[bytes, tuple[_Lane, int]] = {}  # handle: its lane, how many wait there
        self._flush_scheduled = False
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

    def ask(self, request: Request) -> Pending:
        """Queue *request*; its future gives the response, whatever its status is.

        The future's exceptions are Disconnected and LocalProtocolError.
        """
        future = Pending(loop=self._loop)
        future.request = request
        future.sent_at = self._clock()  # until it is really sent: since when it waits
        if self.is_ended:
            future.set_exception(Disconnected(self._ended.result(), sent=False))
            return future
        self._requests += 1
        self._enqueue(future)
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._turn.at_end(self._flush)
        return future

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
        future = self.ask(Close(handle))
        future.add_done_callback(_forget_outcome)

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
                future.set_exception(Expired(reason, sent=True))
        for queue in (self._small, self._reads.queue, self._writes.queue):
            for future in queue:
                if not future.done() and future.sent_at < before:
                    future.set_exception(Expired(reason, sent=False))

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

    def data_received(self, data: Buffer) -> None:
        self._bytes_received += len(data)
        now = self.heard_at = self._clock()
        woken: list[tuple[Waker, Pending]] = []
        turn = self._turn
        turn.begin()
        try:
            try:
                for event in self._connection.receive_data(data):
                    if type(event) is Answer:
                        future = event.waiter
                        waker = future.take_waker()
                        self._deliver(future, event.response, now)
                        if waker is not None:
                            woken.append((waker, future))
                    elif type(event) is Reaped:
                        self._reap(event.waiter, event.orphan, now)
                    elif isinstance(event, Version) and not self._version.done():
                        self._version.set_result(event)
            except RemoteProtocolError as exc:
                _log.warning("the server broke the SFTP protocol: %s", exc)
                self.abort(f"the server broke the SFTP protocol: {exc}")
            for waker, future in woken:
                waker(future)
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
        request = future.request
        if (
            not self._lanes
            and type(request) is not Write
            and not (type(request) is Read and request.length >= _BULK)
        ):
            self._small.append(future)  # most requests
            return
        handle: bytes | None = getattr(request, "handle", None)
        lane: _Lane | None = None
        own: _Lane | None
        if handle is not None and handle in self._lanes:
            lane = self._lanes[handle][0]  # the order within one file is kept
        if isinstance(request, Write):
            size = sum([len(part) for part in request.data])
            own = self._writes
        elif isinstance(request, Read):
            size = request.length
            own = self._reads
        else:
            size = 0
            own = None
        if own is not None and (lane is not None or size >= _BULK):
            future.size = size
            future.window = own.window
            lane = lane or own
        if lane is None:
            self._small.append(future)
            return
        lane.queue.append(future)
        if handle is not None:
            future.handle = handle
            count = self._lanes[handle][1] if handle in self._lanes else 0
            self._lanes[handle] = (lane, count + 1)

    def _flush(self) -> None:
        """Write what may leave now, in one go."""
        self._flush_scheduled = False
        if self._paused or self._channel is None or self.is_ended:
            return
        buffers: list[Buffer] = []
        now = self._clock()
        while self._small:
            self._send(self._small.popleft(), now, buffers)
        for lane in (self._reads, self._writes):
            queue = lane.queue
            while queue:
                future = queue[0]
                window = future.window
                if window and not future.done() and not window.has_room(future.size):
                    break
                future = queue.popleft()
                self._leave_lane(future)
                self._send(future, now, buffers)
        if buffers:
            self._bytes_sent += sum(map(len, buffers))
            self._channel.write(buffers)

    def _send(self, future: Pending, now: float, buffers: list[Buffer]) -> None:
        if future.done():  # cancelled while it waited: it never leaves
            return
        try:
            request_id, packet = self._connection.send(future.request, future)
        except LocalProtocolError as exc:
            future.set_exception(exc)
            return
        future.sent_at = now
        if future.window is not None:
            future.mark = future.window.sent(future.size, now)
        buffers += packet
        if self._log_requests:
            _log.debug("sftp %d > %s", request_id, describe(future.request))

    def _leave_lane(self, future: Pending) -> None:
        if future.handle is not None:
            lane, count = self._lanes[future.handle]
            if count == 1:
                del self._lanes[future.handle]
            else:
                self._lanes[future.handle] = (lane, count - 1)

    def _room_came(self) -> None:
        if (self._reads.queue or self._writes.queue) and not self._flush_scheduled:
            self._flush_scheduled = True
            self._turn.at_end(self._flush)

    def _queued(self) -> int:
        return len(self._small) + len(self._reads.queue) + len(self._writes.queue)

    # The answers.

    def _deliver(self, future: Pending, response: Response, now: float) -> None:
        self._answers += 1
        future.set_result(response)
        if future.window is not None:
            future.window.answered(future.size, future.mark, future.sent_at, now)
        else:
            self._round_trip.sample(now - future.sent_at, now)
        if self._log_requests:
            _log.debug(
                "sftp < %s: %s (%.1f ms)",
                describe(future.request),
                describe(response),
                (now - future.sent_at) * 1000,
            )

    def _reap(self, future: Pending, orphan: bytes | None, now: float) -> None:
        """An abandoned request was answered."""
        self._abandoned += 1
        if future.window is not None:
            future.window.answered(future.size, future.mark, future.sent_at, now)
        if orphan is not None:
            self._orphans += 1
            self.dismiss(orphan)

    def _end(self, reason: str) -> None:
        """Tell everybody who waits.  May be called more than once."""
        if self.is_ended:
            return
        self.is_ended = True
        self._ended.set_result(reason)
        for lane in (self._reads, self._writes):
            lane.window.unsubscribe(self._room_came)
        for _, future in self._connection.waiting():
            if future.window is not None:
                future.window.lost(future.size)
            if not future.done():
                future.set_exception(Disconnected(reason, sent=True))
        for queue in (self._small, self._reads.queue, self._writes.queue):
            for future in queue:
                if not future.done():
                    future.set_exception(Disconnected(reason, sent=False))
            queue.clear()
        self._lanes.clear()


def _forget_outcome(future: asyncio.Future[Any]) -> None:
    """Nobody can do anything about a close that failed; reading it silences asyncio's warning."""
    if not future.cancelled():
        future.exception()


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
