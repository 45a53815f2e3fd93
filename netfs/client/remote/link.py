"""The state of the link: when it is suspected, when it counts as lost, when to try again.

``Pulse`` decides, and is pure: times go in, a decision comes out.  ``LinkKeeper`` is the shell
that probes, gives up on a link and makes a new one.

    UP -> SUSPECT -> DOWN -> CONNECTING -> UP
                              |-> AUTH_FAILED, HOST_KEY_CHANGED: only retry() leads on

Two kinds of silence are told apart.  *The network* is silent when TCP acknowledges nothing: then
a link with requests waiting is given up soon, since a new connection is the quickest cure.  *The
server* is silent when it does not answer a probe although TCP does: it may be busy, or our own
megabytes may be in the way on a slow line, so that ServerAliveInterval x ServerAliveCountMax is
waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
import math
import random
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar

from netfs.client.remote.errors import ConnectError, ConnectErrorKind

log = logging.getLogger(__name__)

LATE_S: Final = 2.0
"""A request that waits longer asks for a probe; twice the worst usual round trip (satellite)."""

SUSPECT_S: Final = 1.0
"""An unanswered probe makes the link suspect after this."""

SOON_LATE_S: Final = 0.45
SOON_SUSPECT_S: Final = 0.35
"""The same, beyond some round trips, where the way is known to be short and TCP tells of
acknowledgements: what is cached is shown within a second of a cut.  While our own megabytes are on
their way TCP acknowledges them, and a busy disk does not keep sshd from answering probes."""

SOON_ROUND_TRIPS: Final = 4

SILENT_S: Final = 8.0
"""Requests wait and the network has been silent for this long: lost.  Beyond the hiccups of
roaming Wi-Fi; with a new login well below the 30 s after which requests fail."""

HURRIED_S: Final = 3.0
"""The same just after the network or the clock has changed: the old way is probably gone."""

STABLE_S: Final = 5.0
"""A link that lasted less does not reset the back-off: a server that hangs up is not hammered."""

REFUSED_S: Final = 3.0
"""Longest pause after a refused connection: it costs the server one packet, and a server that is
being restarted refuses for some seconds."""

EAGER_S: Final = 60.0
"""For so long after a loss the same goes for every attempt that ended before a login: with longer
pauses a link that is back after 20 s would be found after the 30 s for which requests wait."""

_DELAYS: Final = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0)


class LinkState(enum.Enum):
    """The states of design §6; the values are what ``netfs status`` shows."""

    UP = "up"
    SUSPECT = "suspect"
    DOWN = "down"
    CONNECTING = "connecting"
    AUTH_FAILED = "authentication failed"
    HOST_KEY_CHANGED = "host key changed"

    @property
    def is_usable(self) -> bool:
        """Requests may be sent."""
        return self in (LinkState.UP, LinkState.SUSPECT)


STOPPING: Final = {
    ConnectErrorKind.AUTH_FAILED: LinkState.AUTH_FAILED,
    ConnectErrorKind.KEY_UNREADABLE: LinkState.AUTH_FAILED,
    ConnectErrorKind.HOST_KEY_CHANGED: LinkState.HOST_KEY_CHANGED,
    ConnectErrorKind.HOST_KEY_UNKNOWN: LinkState.HOST_KEY_CHANGED,
    ConnectErrorKind.HOST_KEY_REVOKED: LinkState.HOST_KEY_CHANGED,
}
"""Errors after which nothing is tried again without a person, and the state they lead to."""

UNREACHED: Final = frozenset(
    {
        ConnectErrorKind.HOST_UNKNOWN,
        ConnectErrorKind.UNREACHABLE,
        ConnectErrorKind.TIMED_OUT,
        ConnectErrorKind.LOST,
    }
)
"""Errors of attempts that cost the server next to nothing."""


def backoff(jitter: Callable[[], float] = random.random) -> Iterator[float]:
    """Seconds before each attempt, for ever: at once, then growing to 15 s.

    Up to half of each is random, so that a hundred clients of a rebooted server do not come
    together.
    """
    for delay in _DELAYS:
        yield delay * (1 - jitter() / 2)
    while True:
        yield _DELAYS[-1] * (1 - jitter() / 2)


class Signs(NamedTuple):
    """Signs of life, in seconds on the monotonic clock."""

    heard_at: float  # when the server said something last
    acked_at: float | None  # when TCP acknowledged something last; None: can't be known
    oldest_at: float | None  # when the request that waits longest was sent
    round_trip_s: float | None = None  # the shortest of late; None: not known


class Decision(NamedTuple):
    """What to do now, and when to look again at the latest."""

    state: LinkState  # UP, SUSPECT or DOWN
    probe: bool
    wake_at: float


class Pulse:
    """Decides from signs of life whether a link lives.  Pure."""

    def __init__(self, interval_s: float, count_max: int) -> None:
        """ServerAliveInterval and ServerAliveCountMax; an interval of 0 sends none when idle."""
        self._interval_s = interval_s or math.inf
        self._answer_s = self._interval_s * count_max
        self._probe_at: float | None = None  # of the probe that nothing was heard since
        self._answered_at = -math.inf
        self._hurried = False

    def hurry(self) -> None:
        """The network or the clock has changed: probe now and be strict."""
        self._hurried = True

    def answered(self, now: float) -> None:
        """The probe was answered."""
        self._answered_at = now
        self._probe_at = None
        self._hurried = False

    def decide(self, now: float, signs: Signs) -> Decision:
        """What *signs* mean at *now*."""
        heard_at = max(signs.heard_at, self._answered_at)
        if self._probe_at is not None and heard_at > self._probe_at:
            self._probe_at = None
            self._hurried = False
        if self._probe_at is not None:
            return self._judge(now, self._probe_at, signs)
        due = heard_at + self._interval_s
        late_s = _soon(signs, SOON_LATE_S, LATE_S)
        if signs.oldest_at is not None:
            due = min(due, max(signs.oldest_at, heard_at) + late_s)
        if now >= due or self._hurried:
            self._probe_at = now
            suspect_s = _soon(signs, SOON_SUSPECT_S, SUSPECT_S)
            return Decision(LinkState.UP, True, now + min(suspect_s, self._answer_s))
        # A request that is sent later can be late late_s from now at the earliest.
        return Decision(LinkState.UP, False, min(due, now + late_s))

    def _judge(self, now: float, probe_at: float, signs: Signs) -> Decision:
        """A probe waits for its answer."""
        limit = probe_at + self._answer_s
        if signs.acked_at is not None:
            if self._hurried:
                patience = HURRIED_S
            elif signs.oldest_at is not None:
                patience = SILENT_S
            else:
                patience = max(SILENT_S, min(self._interval_s, self._answer_s))
            limit = min(limit, max(probe_at, signs.acked_at) + patience)
        if now >= limit:
            return Decision(LinkState.DOWN, False, now)
        suspect_at = probe_at + SUSPECT_S
        if signs.acked_at is not None:
            soon_s = _soon(signs, SOON_SUSPECT_S, SUSPECT_S)
            suspect_at = min(suspect_at, max(probe_at, signs.acked_at) + soon_s)
        if now < suspect_at:
            return Decision(LinkState.UP, False, min(suspect_at, limit))
        return Decision(LinkState.SUSPECT, False, min(limit, now + SUSPECT_S))


def _soon(signs: Signs, short_s: float, long_s: float) -> float:
    """*short_s* and some round trips if these are known, *long_s* at most."""
    if signs.acked_at is None or signs.round_trip_s is None:
        return long_s
    return min(long_s, short_s + SOON_ROUND_TRIPS * signs.round_trip_s)


class Live(Protocol):
    """A link in use, as far as its life matters here."""

    def signs(self) -> Signs: ...

    async def probe(self) -> None:
        """Return when the server has answered a no-op; an error means the link is lost."""
        ...

    async def wait_lost(self) -> Exception | None:
        """Return the reason when the link has ended by itself."""
        ...

    def abort(self) -> None:
        """Drop it at once, so that nothing written to it is executed any more."""
        ...


LiveT = TypeVar("LiveT", bound=Live)


@dataclass(frozen=True, slots=True)
class LinkStatus:
    """A snapshot for ``netfs status`` and the watchdog."""

    state: LinkState
    since: float  # monotonic seconds
    reason: str  # why it is not up; empty when it is
    reconnects: int
    attempts: int  # since it was up


class LinkKeeper(Generic[LiveT]):
    """Keeps one link up: watches it, drops it when it is dead, makes the next."""

    def __init__(
        self,
        dial: Callable[[], Awaitable[LiveT]],
        pulse: Callable[[], Pulse],
        clock: Callable[[], float],
        on_state: Callable[[LinkStatus], None],
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """*dial* makes a link that is ready for requests, or raises ConnectError."""
        self._dial = dial
        self._new_pulse = pulse
        self._clock = clock
        self._on_state = on_state
        self._jitter = jitter
        self._live: LiveT | None = None
        self._pulse = pulse()
        self._nudged = asyncio.Event()
        self._retry = asyncio.Event()
        self._changed = asyncio.Event()
        self._status = LinkStatus(LinkState.DOWN, clock(), "", 0, 0)

    @property
    def status(self) -> LinkStatus:
        return self._status

    @property
    def live(self) -> LiveT | None:
        """The link, while its state is usable."""
        return self._live

    async def wait_live(self) -> LiveT:
        """The link, as soon as there is one.  Cancel it to stop waiting."""
        while self._live is None:
            await self._changed.wait()
        return self._live

    def nudge(self) -> None:
        """The network changed or the machine woke up: look at once, and don't wait to retry."""
        self._pulse.hurry()
        self._nudged.set()

    def retry(self) -> None:
        """Somebody has repaired the authentication or the host key: try again."""
        self._retry.set()
        self._nudged.set()

    async def run(self, first: LiveT | None, *, reconnect: bool = True) -> Exception | None:
        """Keep the link up until cancelled; without *reconnect* return why it was lost.

        *first* is a link made by the caller (who had a terminal), or None.
        """
        live = first
        delays = backoff(self._jitter)
        try:
            while True:
                if live is None:
                    live = await self._reconnect(delays)
                began = self._clock()
                self._go_up(live)
                try:
                    reason = await self._watch(live)
                except Exception as exc:  # a bug: it may cost this link, not the mount
                    log.exception("watching the link")
                    reason = exc
                self._live = None
                self._set(LinkState.DOWN, str(reason or "the server ended it"))
                live.abort()
                live = None
                if not reconnect:
                    return reason
                if self._clock() - began >= STABLE_S:
                    delays = backoff(self._jitter)
        finally:
            if live is not None:
                self._live = None
                live.abort()

    async def _reconnect(self, delays: Iterator[float]) -> LiveT:
        """Try until it works.  Only a person leads out of the states of STOPPING."""
        longest = math.inf
        began = self._clock()
        while True:
            await self._pause(min(next(delays), longest))
            self._set(LinkState.CONNECTING, self._status.reason, attempt=True)
            try:
                return await self._dial()
            except ConnectError as exc:
                stop = STOPPING.get(exc.kind)
                longest = math.inf
                if exc.kind is ConnectErrorKind.REFUSED or (
                    exc.kind in UNREACHED and self._clock() - began < EAGER_S
                ):
                    longest = REFUSED_S
                self._set(stop or LinkState.DOWN, str(exc))
                if stop is not None:
                    self._retry.clear()
                    await self._retry.wait()
                    delays = backoff(self._jitter)
            except Exception as exc:  # a bug: what waits to be delivered outlives it
                log.exception("connecting")
                self._set(LinkState.DOWN, f"connecting failed: {exc!r}")

    async def _watch(self, live: LiveT) -> Exception | None:
        """Returns the reason as soon as *live* is dead."""
        self._pulse = self._new_pulse()
        self._nudged.clear()
        lost = asyncio.ensure_future(live.wait_lost())
        probe: asyncio.Future[None] | None = None
        try:
            while True:
                now = self._clock()
                decision = self._pulse.decide(now, live.signs())
                if decision.state is LinkState.DOWN:
                    return ConnectError(ConnectErrorKind.LOST, "the server does not answer")
                if decision.state is not self._status.state:
                    self._set(decision.state, "" if decision.state is LinkState.UP else "no answer")
                if decision.probe:
                    if probe is not None:
                        probe.cancel()
                    probe = asyncio.ensure_future(live.probe())
                waiting: list[asyncio.Future[Any]] = [f for f in (lost, probe) if f is not None]
                await self._sleep(waiting, decision.wake_at - now)
                if lost.done():
                    return lost.result()
                if probe is not None and probe.done():
                    if probe.cancelled():
                        return ConnectError(ConnectErrorKind.LOST, "the probe was given up")
                    failure = probe.exception()
                    if isinstance(failure, Exception):
                        return failure
                    self._pulse.answered(self._clock())
                    probe = None
        finally:
            for future in (lost, probe):
                if future is not None:
                    future.cancel()

    async def _sleep(self, futures: list[asyncio.Future[Any]], seconds: float) -> None:
        """Until one of *futures* is done, somebody nudged, or *seconds* have passed."""
        nudged = asyncio.ensure_future(self._nudged.wait())
        try:
            await asyncio.wait(
                [*futures, nudged],
                timeout=max(0.0, seconds),
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            nudged.cancel()
        self._nudged.clear()

    async def _pause(self, seconds: float) -> None:
        """Wait before the next attempt; a nudge ends it."""
        self._nudged.clear()
        with contextlib.suppress(TimeoutError):  # time is up: that is what was waited for
            async with asyncio.timeout(seconds):
                await self._nudged.wait()

    def _go_up(self, live: LiveT) -> None:
        self._live = live
        self._set(LinkState.UP, "")
        self._changed.set()

    def _set(self, state: LinkState, reason: str, *, attempt: bool = False) -> None:
        before = self._status
        is_up = state is LinkState.UP
        came_back = is_up and before.state not in (LinkState.UP, LinkState.SUSPECT)
        if not state.is_usable:
            self._changed.clear()
        self._status = LinkStatus(
            state,
            before.since if state is before.state else self._clock(),
            reason,
            before.reconnects + (came_back and before.attempts > 0),
            0 if is_up else before.attempts + attempt,
        )
        if state is not before.state:
            level = logging.INFO
            if state in (LinkState.AUTH_FAILED, LinkState.HOST_KEY_CHANGED):
                level = logging.ERROR
            elif state is LinkState.DOWN and before.state.is_usable:
                level = logging.WARNING
            why = "" if state is LinkState.CONNECTING else reason  # it has been said
            log.log(level, "link %s%s", state.value, f": {why}" if why else "")
        self._on_state(self._status)
