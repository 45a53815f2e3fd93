"""From the device to the handlers and back: the loop over requests.

Answers that need no waiting are given at once; what must wait becomes an ``InFlight``, registered
under the request's ``unique``.  The only catch-all of the daemon is here.  What requests mean
belongs to the operations, and who may be interrupted to interrupts.py.
"""

from __future__ import annotations

import asyncio
import enum
import errno
import logging
import os
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Final

from netfs.client import interrupts
from netfs.client.device import Aborted, Device, Unmounted, wait_readable
from netfs.client.inflight import (
    AnyInFlight,
    InFlight,
    InFlightRequest,
    InFlightTable,
    Question,
)
from netfs.client.stats import BOUNDS_S, RequestCounters, slot
from netfs.client.turns import Turn
from netfs.fuse import handshake, requests
from netfs.fuse.abi import Opcode
from netfs.fuse.errors import (
    FuseProtocolError,
    MalformedRequest,
    NameTooLong,
    UnsupportedVersion,
)
from netfs.fuse.replies import EMPTY, ERRNO_MAX, Reply

if TYPE_CHECKING:
    from netfs.client.operations.refused import Refusal

log = logging.getLogger(__name__)
wire_log = logging.getLogger("netfs.fuse")

Result = Reply | Coroutine[Any, Any, Reply] | Question | None
Handler = Callable[[Any, Any], Result]
"""``(context, request)``; None only where the kernel expects no reply."""

DRAIN: Final = 32
"""Requests taken per turn of the event loop: then the network gets its turn."""

MAX_TASKS: Final = 1024
"""Operations under way at a time.  The kernel bounds only its own background requests (128), not
those of callers, one per thread; more of them wait here, in order and interruptibly."""

PARK_S: Final = 1.0
"""How long an INTERRUPT waits for a request that is not known (yet)."""

MAX_PARKED: Final = 256

# Plain ints: comparing with a member costs a call.
_WRITE: Final = int(Opcode.WRITE)
_FLUSH: Final = int(Opcode.FLUSH)

_NO_REPLY: Final = frozenset(
    {Opcode.FORGET, Opcode.BATCH_FORGET, Opcode.INTERRUPT, Opcode.NOTIFY_REPLY}
)


class End(enum.Enum):
    """Why there are no more requests."""

    UNMOUNTED = "unmounted"
    ABORTED = "aborted"


async def shake_hands(
    device: Device, *, cache_symlinks: bool = True, time_gran_ns: int = 1
) -> handshake.Capabilities:
    """Wait for INIT and answer it.

    Raises:
        UnsupportedVersion: the kernel is too old (it is told so).
        Unmounted, Aborted: nobody wants the mount any more.
        FuseProtocolError: the first message is not INIT.
    """
    while True:
        message = device.read()
        if message is not None:
            break
        await wait_readable(device)
    request = requests.decode(message)
    if not isinstance(request, requests.Init):
        raise FuseProtocolError(f"the kernel began with {type(request).__name__}, not INIT")
    try:
        capabilities, body = handshake.negotiate(
            request, cache_symlinks=cache_symlinks, time_gran_ns=time_gran_ns
        )
    except UnsupportedVersion:
        device.reply_error(request.unique, errno.EPROTO)
        raise
    device.reply(request.unique, Reply((body,)))
    return capabilities


class Dispatcher:
    """Serves one mounted device.  ``run`` it once; all else is called on the loop's thread."""

    def __init__(
        self,
        device: Device,
        context: Any,
        handlers: Mapping[Opcode, Handler],
        refused: Mapping[Opcode, Refusal],
        *,
        minor: int,
        clock: Callable[[], float],
        read_signals: Callable[[int], interrupts.Signals | None] = interrupts.read_signals,
        is_exiting: Callable[[int], bool] = interrupts.is_exiting,
        is_link_up: Callable[[], bool] = lambda: True,
        in_flight: InFlightTable | None = None,
        debug: bool = False,
        max_tasks: int = MAX_TASKS,
        allowed_uids: frozenset[int] | None = None,
        turn: Turn | None = None,
    ) -> None:
        """
        Args:
            context: handed to each handler.
            handlers, refused: together they name each opcode that is not the dispatcher's own.
            minor: what INIT agreed on.
            clock: monotonic, seconds.
            is_link_up: whether the server can be reached, as far as is known.
            in_flight: kept up to date: the requests that wait.
            debug: log each request and reply on ``netfs.fuse``.
            allowed_uids: callers that are answered (allow_root); None: the kernel decides alone.
            turn: ends after each batch of requests, so that what they ask for leaves together.
        """
        self._device = device
        self._context = context
        self._handlers: dict[int, Handler] = {int(code): row for code, row in handlers.items()}
        self._refused = {int(opcode): refusal.errno for opcode, refusal in refused.items()}
        self._minor = minor
        self._clock = clock
        self._read_signals = read_signals
        self._is_exiting = is_exiting
        self._is_link_up = is_link_up
        self._debug = debug
        self._max_tasks = max_tasks
        self._allowed_uids = allowed_uids
        self._counters = RequestCounters()
        self._in_flight = InFlightTable() if in_flight is None else in_flight
        self._turn = turn
        self._running = 0  # operations begun
        self._is_burst = False  # requests came together lately: look for more after each
        self._is_starting = False
        self._all_ended: asyncio.Future[None] | None = None  # whom ``close`` waits for
        self._queue: deque[AnyInFlight] = deque()
        self._watched: dict[int, AnyInFlight] = {}
        self._leaving: dict[int, float] = {}  # pid -> until when it is remembered
        self._parked: dict[int, tuple[int, float]] = {}  # target -> (unique, expiry)
        self._recheck: asyncio.TimerHandle | None = None
        self._ended: asyncio.Future[End] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def __repr__(self) -> str:
        return f"<Dispatcher in_flight={len(self._in_flight)} queued={len(self._queue)}>"

    @property
    def counters(self) -> RequestCounters:
        return self._counters

    def in_flight(self) -> list[InFlightRequest]:
        """The requests that wait, oldest first."""
        return [
            InFlightRequest(
                one.unique, _name(one.opcode), one.nodeid, one.pid, one.since, one.cancelled
            )
            for one in self._in_flight.values()
        ]

    async def run(self) -> End:
        """Serve until the filesystem is unmounted or aborted; may be cancelled.

        Operations that are under way then go on: see ``close``.
        """
        self._loop = asyncio.get_running_loop()
        if self._turn is None:
            self._turn = Turn(self._loop)
        self._ended = self._loop.create_future()
        self._loop.add_reader(self._device.fileno(), self._receive)
        try:
            return await self._ended
        finally:
            self._loop.remove_reader(self._device.fileno())

    async def close(self, timeout_s: float) -> None:
        """Let operations end for *timeout_s*, then cancel them: each request is answered."""
        if self._recheck is not None:
            self._recheck.cancel()
            self._recheck = None
        while self._queue:
            self._drop(self._queue[0], errno.EIO)
        await self._wait_ended(timeout_s)
        for one in list(self._in_flight.values()):
            if one.begun:
                one.cancel()
        # A cancelled operation may close handles; it is not waited for without end.
        await self._wait_ended(timeout_s)
        for one in list(self._in_flight.values()):
            log.warning("unique %d: %s did not end", one.unique, _name(one.opcode))
            self._answer_error(one, errno.EIO)

    async def _wait_ended(self, timeout_s: float) -> None:
        """Until no operation runs, at most for *timeout_s*."""
        if self._running:
            self._all_ended = asyncio.get_running_loop().create_future()
            await asyncio.wait((self._all_ended,), timeout=timeout_s)
            self._all_ended = None

    # Requests

    def _receive(self) -> None:
        """Take what the kernel asks, in one turn: what is asked of the server leaves together."""
        turn = self._turn
        assert turn is not None
        read = self._device.read
        turn.depth += 1
        try:
            for count in range(DRAIN):
                if count == 1 and not self._is_burst and self._running < 2:
                    return  # one caller, who has his answer or waits for it: there is no more
                try:
                    message = read()
                except (Unmounted, Aborted, OSError) as error:
                    self._device_ended(error)
                    return
                if message is None:
                    self._is_burst = count > 1
                    return
                self._dispatch(message)
            self._is_burst = True
        finally:
            turn.end()

    def _device_ended(self, error: Exception) -> None:
        if isinstance(error, OSError):
            log.error("reading /dev/fuse: %s", error)
        self._end(End.UNMOUNTED if isinstance(error, Unmounted) else End.ABORTED)

    def _end(self, end: End) -> None:
        assert self._loop is not None
        assert self._ended is not None
        self._loop.remove_reader(self._device.fileno())
        if not self._ended.done():
            self._ended.set_result(end)

    def _dispatch(self, message: memoryview) -> None:
        if len(message) < requests.HEADER_SIZE:
            self._counters.malformed += 1
            log.error("%d bytes are no request", len(message))
            return
        header = requests.decode_header(message)
        _, opcode, unique, _, uid, _, _, _, _ = header
        handler = self._handlers.get(opcode)
        if handler is None:
            self._dispatch_other(header, message)
            return
        self._counters.requests[opcode] += 1
        if self._allowed_uids is not None and uid not in self._allowed_uids:
            # The kernel's own requests (RELEASE, FORGET, writeback) come as uid 0.
            self._reply_error(unique, opcode, errno.EACCES)
            return
        try:
            if opcode == _WRITE:
                message = self._device.own(message)
            request = requests.decode_body(header, message, self._minor)
            if self._debug:
                wire_log.debug("-> %d %s", unique, _shown(opcode, request))
            result = handler(self._context, request)
        except Exception as error:
            number = self._errno(error, unique, opcode)
            if opcode not in _NO_REPLY:
                self._reply_error(unique, opcode, number)
            return
        if type(result) is Reply:
            if self._debug:
                wire_log.debug("<- %d ok %d", unique, sum(map(len, result.body)))
            if not self._device.reply(unique, result):
                self._counters.gone += 1
        elif result is not None:
            assert self._loop is not None
            assert not isinstance(result, Reply)
            if isinstance(result, Question):
                result.unique = unique
                result.opcode = opcode
                result.nodeid = request.nodeid
                result.pid = request.pid
                result.since = self._clock()
                result.on_end = self._ended_one
                self._begin(result)
            else:
                end = self._ended_one
                self._begin(InFlight(self._loop, result, end, opcode, request, self._clock()))
        elif opcode not in _NO_REPLY:
            log.error("unique %d: the handler of %s gave no reply", unique, _name(opcode))
            self._reply_error(unique, opcode, errno.EIO)

    def _dispatch_other(self, header: requests.Header, message: memoryview) -> None:
        """What is not served: the dispatcher's own opcodes, and refusals."""
        _, opcode, unique, nodeid, _, _, pid, *_ = header
        self._counters.requests[slot(opcode)] += 1
        if opcode == Opcode.INTERRUPT:
            try:
                request = requests.decode_body(header, message, self._minor)
            except MalformedRequest as error:
                self._counters.malformed += 1
                log.error("unique %d: %s", unique, error)
                return
            assert isinstance(request, requests.Interrupt)
            self._interrupt(unique, request.target)
        elif opcode == Opcode.DESTROY:
            # Only block devices and virtiofs send it; ENODEV follows, which is what ends us.
            self._device.reply(unique, EMPTY)
        elif opcode == Opcode.NOTIFY_REPLY:
            log.error("unique %d: a NOTIFY_REPLY that nobody asked for", unique)
        else:
            if self._debug:
                wire_log.debug("-> %d %s node=%d pid=%d", unique, _name(opcode), nodeid, pid)
            # An opcode newer than the tables: ENOSYS is what the kernel expects of old daemons.
            self._reply_error(unique, opcode, self._refused.get(opcode, errno.ENOSYS))

    def _errno(self, error: BaseException, unique: int, opcode: int) -> int:
        """The errno of a failure; what is not an OSError is a bug and is logged as one."""
        if isinstance(error, OSError) and error.errno is not None:
            if 0 < error.errno <= ERRNO_MAX:
                return error.errno
            log.error("unique %d: %s failed with errno %d", unique, _name(opcode), error.errno)
        elif isinstance(error, NameTooLong):
            return errno.ENAMETOOLONG
        elif isinstance(error, MalformedRequest):
            self._counters.malformed += 1
            log.error("unique %d: malformed request: %s", unique, error)
        else:
            log.error("unique %d: %s failed", unique, _name(opcode), exc_info=error)
        return errno.EIO

    def _reply_error(self, unique: int, opcode: int, number: int) -> None:
        self._counters.errors[slot(opcode)] += 1
        if self._debug:
            wire_log.debug("<- %d %s", unique, errno.errorcode.get(number, number))
        if not self._device.reply_error(unique, number):
            self._counters.gone += 1

    # Operations that wait

    def _begin(self, one: AnyInFlight) -> None:
        unique = one.unique
        self._in_flight[unique] = one
        self._counters.waited += 1
        if self._queue or self._running >= self._max_tasks:
            self._queue.append(one)
        else:
            self._running += 1
            one.begun = True
            one.step()
        if one.answered:
            return
        if one.opcode == _FLUSH:
            self._watched[unique] = one  # no signal tells of an exiting caller
            if self._leaving:
                self._look(one)
            self._set_recheck()
        if self._parked:
            parked = self._parked.pop(unique, None)
            if parked is not None:
                self._watch(one)

    def _drop(self, one: AnyInFlight, number: int) -> None:
        """Answer a request whose operation has not begun."""
        self._queue.remove(one)
        one.discard()
        self._answer_error(one, number)

    def _ended_one(
        self, one: AnyInFlight, reply: Reply | None, error: BaseException | None
    ) -> None:
        """An operation has ended; if others wait for that, the first of them begins."""
        self._running -= 1
        if error is not None or reply is None:
            self._answer_error(one, self._errno_of_end(one, error))
        elif one.answered:
            # The caller was told EINTR meanwhile: it got nothing, so nothing is kept for it.
            if reply.undo is not None:
                reply.undo()
        else:
            self._finish(one)
            if self._debug:
                wire_log.debug(
                    "<- %d ok %d, %.1f ms",
                    one.unique,
                    sum(map(len, reply.body)),
                    (self._clock() - one.since) * 1e3,
                )
            if not self._device.reply(one.unique, reply):
                self._counters.gone += 1
            self._count_latency(one)
        if self._queue and not self._is_starting:
            self._start_queued()
        if self._all_ended is not None and not self._running and not self._all_ended.done():
            self._all_ended.set_result(None)

    def _start_queued(self) -> None:
        self._is_starting = True  # one may end at once: the loop goes on with the next
        try:
            while self._queue and self._running < self._max_tasks:
                one = self._queue.popleft()
                self._running += 1
                one.begun = True
                one.step()
        finally:
            self._is_starting = False

    def _errno_of_end(self, one: AnyInFlight, error: BaseException | None) -> int:
        if error is None or isinstance(error, asyncio.CancelledError):
            return errno.EINTR if one.cancelled else errno.EIO
        return self._errno(error, one.unique, one.opcode)

    def _answer_error(self, one: AnyInFlight, number: int) -> None:
        if one.answered:
            return
        self._finish(one)
        self._reply_error(one.unique, one.opcode, number)
        self._count_latency(one)

    def _count_latency(self, one: AnyInFlight) -> None:
        """After the reply: it is on its way."""
        self._counters.latency[bisect_left(BOUNDS_S, self._clock() - one.since)] += 1

    def _finish(self, one: AnyInFlight) -> None:
        """No longer in flight.  Before the reply: the kernel may use its number again at once."""
        one.answered = True
        unique = one.unique
        del self._in_flight[unique]
        if self._watched:
            self._watched.pop(unique, None)

    # Interruption

    def _interrupt(self, unique: int, target: int) -> None:
        """The kernel's INTERRUPT; it is not answered unless its request never comes."""
        self._counters.interrupts += 1
        if self._debug:
            wire_log.debug("-> %d INTERRUPT of %d", unique, target)
        one = self._in_flight.get(target)
        if one is not None:
            self._watch(one)
        elif len(self._parked) < MAX_PARKED:
            # Answered meanwhile, most likely.  If not, the request has been read by nobody yet.
            self._parked[target] = (unique, self._clock() + PARK_S)
            self._set_recheck()

    def _watch(self, one: AnyInFlight) -> None:
        one.interrupted = True
        self._watched[one.unique] = one
        self._look(one)
        self._set_recheck()

    def _look(self, one: AnyInFlight) -> None:
        """Decide about an interrupted request by the signals its caller has pending."""
        now = self._clock()
        if one.cancelled:
            if one.quit_at is not None and now >= one.quit_at:
                self._answer_error(one, errno.EINTR)
            return
        if one.opcode == Opcode.FLUSH and self._is_leaving(one):
            verdict = interrupts.Verdict.LEAVE
        elif one.interrupted:
            verdict = interrupts.judge(self._read_signals(one.pid))
        else:
            return
        grace = interrupts.grace_s(one.opcode, verdict)
        if grace is None:
            one.quit_at = None
            return
        one.quit_at = now + grace if one.quit_at is None else min(one.quit_at, now + grace)
        if now >= one.quit_at:
            self._cancel(one)

    def _is_leaving(self, one: AnyInFlight) -> bool:
        """Whether a FLUSH is the last close of a caller that no signal reaches any more."""
        now = self._clock()
        self._leaving = {pid: until for pid, until in self._leaving.items() if now < until}
        if one.pid not in self._leaving and self._is_link_up():
            return False
        return self._is_exiting(one.pid)

    def _cancel(self, one: AnyInFlight) -> None:
        one.cancelled = True
        if one.pid:
            self._leaving[one.pid] = self._clock() + interrupts.LEAVING_S
        self._counters.interrupted += 1
        if self._debug:
            wire_log.debug("   %d interrupted", one.unique)
        if not one.begun:
            self._drop(one, errno.EINTR)
            return
        one.cancel()
        one.quit_at = self._clock() + interrupts.ANSWER_S

    def _set_recheck(self) -> None:
        if self._recheck is None and (self._watched or self._parked):
            assert self._loop is not None
            self._recheck = self._loop.call_later(self._recheck_delay_s(), self._look_again)

    def _recheck_delay_s(self) -> float:
        now = self._clock()
        due = [one.quit_at - now for one in self._watched.values() if one.quit_at is not None]
        return max(0.0, min([*due, interrupts.RECHECK_S]))

    def _look_again(self) -> None:
        self._recheck = None
        for one in list(self._watched.values()):
            self._look(one)
        now = self._clock()
        for target, (unique, expiry) in list(self._parked.items()):
            if now >= expiry:
                del self._parked[target]
                # ENOENT is usual: its request has been answered long ago.  If it has not, EAGAIN
                # makes the kernel send the INTERRUPT again, at most once per PARK_S.
                self._device.reply_error(unique, errno.EAGAIN)
        self._set_recheck()


def _name(opcode: int) -> str:
    try:
        return Opcode(opcode).name
    except ValueError:
        return f"opcode {opcode}"


def _shown(opcode: int, request: requests.Request) -> str:
    """One line for the debug log; contents are never shown."""
    fields = []
    for name in type(request).__slots__:
        value = getattr(request, name)
        if name == "data":
            fields.append(f"size={len(value)}")
        elif isinstance(value, bytes):
            fields.append(f"{name}={os.fsdecode(value)!r}")
        elif value is not None and value is not False:
            fields.append(f"{name}={value}")
    return f"{_name(opcode)} node={request.nodeid} pid={request.pid} {' '.join(fields)}"
