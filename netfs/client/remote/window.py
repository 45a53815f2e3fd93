"""How many bytes of bulk data may be under way at once, so that a small request need not queue.

Pure: the clock's value is an argument.  A model of the way to the server as BBR has it (Cardwell
et al., "BBR: Congestion-Based Congestion Control", 2016): the way holds delivery rate × round
trip; more than that only stands in a queue, in front of the requests that a person waits for.
TCP's own buffers would take megabytes: at 100 Mbit/s each MiB is 84 ms of waiting.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

_START: Final = 1024 * 1024  # bytes before anything was measured
_BLOCK: Final = 256 * 1024  # bytes; one more block than the way holds keeps it busy
_GAIN: Final = 1.25  # above 1 lets the measured rate grow when the way is faster than thought
_START_GAIN: Final = 2.5  # while nobody knows how fast it is: doubles what is under way
_START_ROUNDS: Final = 3  # round trips without growth after which the way counts as full
_START_GROWTH: Final = 1.25  # what counts as growth
_IDLE_S: Final = 1.0  # after such a pause the way may be another one
_SLACK_S: Final = (
    0.008  # for the work at both ends, more under load; on loopback it is all that counts
)
_NEAR_S: Final = 0.002  # a round trip on the same machine or a wired LAN
_NEAR: Final = 2 * 1024 * 1024
"""There the work at both ends is longer than the way and varies too much to be measured by the
shortest round trip: a window that follows it would slow itself down.  16 ms at 1 Gbit/s."""
_MEMORY_S: Final = 10.0  # how long a best rate or round trip is believed
_PROBE_S: Final = 0.1  # for the queue to run empty; 1 % of the time at most
_LARGEST: Final = 64 * 1024 * 1024


class RoundTrip:
    """The shortest round trip of late, from requests of any kind.

    Under bulk every request waits in the queue that the bulk makes, and the measure would grow
    with it.  So now and then the bulk is held back for a moment (``is_probing``) and what is
    measured then replaces what was known.
    """

    __slots__ = ("_best", "_best_at", "_probe_best", "_probe_until", "is_probing")

    def __init__(self) -> None:
        self._best = math.inf
        self._best_at = -math.inf
        self._probe_best = math.inf
        self._probe_until = 0.0
        self.is_probing = False

    def sample(self, seconds: float, now: float) -> None:
        """A request without bulk took *seconds*."""
        if seconds <= self._best:
            self._best, self._best_at = seconds, now
        if self.is_probing:
            self._probe_best = min(self._probe_best, seconds)
            self.tick(now)
        elif now - self._best_at > _MEMORY_S:
            self.tick(now)

    def tick(self, now: float) -> None:
        """Time passes: begin or end a probe."""
        if self.is_probing:
            if now > self._probe_until and self._probe_best < math.inf:
                self._best, self._best_at = self._probe_best, now
                self.is_probing = False
        elif now - self._best_at > _MEMORY_S and self._best < math.inf:
            self.is_probing = True
            self._probe_best = math.inf
            self._probe_until = now + _PROBE_S + 2 * self._best

    @property
    def shortest_s(self) -> float:
        """Seconds; 0 before the first sample."""
        return self._best if self._best < math.inf else 0.0


class Mark(NamedTuple):
    """How far the delivery was when a request left."""

    delivered: int  # bytes answered
    delivered_at: float  # when the last of them was
    first_sent_at: float  # and when that one had been sent


class BulkWindow:
    """The bytes of one direction that may be under way; shared by all channels of a link."""

    __slots__ = (
        "_delivered",
        "_delivered_at",
        "_first_sent_at",
        "_full",
        "_full_rate",
        "_rates",
        "_round_ends",
        "_round_trip",
        "_wakers",
        "in_flight",
    )

    def __init__(self, round_trip: RoundTrip) -> None:
        self._round_trip = round_trip
        self._rates: deque[tuple[float, float]] = deque()  # (at, bytes/s), rates falling
        self._delivered = 0
        self._delivered_at = self._first_sent_at = 0.0
        self._wakers: list[Callable[[], None]] = []
        self._full = 0  # round trips in a row in which the rate did not grow
        self._full_rate = 0.0  # bytes/s at the last growth
        self._round_ends = 0  # the round trip ends when what leaves from this count on is answered
        self.in_flight = 0  # bytes

    def __repr__(self) -> str:
        return f"<BulkWindow {self.in_flight}/{self.limit} bytes>"

    @property
    def limit(self) -> int:
        """Bytes that may be under way now."""
        if not self._rates:
            return _START
        if self._round_trip.is_probing and self._round_trip.shortest_s >= _NEAR_S:
            return _BLOCK
        trip = self._round_trip.shortest_s
        rate = self._rates[0][1]
        gain = _GAIN if self._full >= _START_ROUNDS else _START_GAIN
        # On a fast way the blocks are short, and a queue that is shorter than the round trip
        # absorbs the moments in which an end has no processor.
        queue = max((gain - 1) * trip, trip - 2 * _BLOCK / rate)
        way = _BLOCK + int(rate * (trip + queue + _SLACK_S))
        return min(_LARGEST, max(way, _NEAR) if trip < _NEAR_S else way)

    @property
    def rate(self) -> float:
        """Best bytes per second of late; 0 before anything was measured."""
        return self._rates[0][1] if self._rates else 0.0

    def has_room(self, size: int) -> bool:
        """Whether a request of *size* bytes may leave; one may always be under way."""
        return self.in_flight == 0 or self.in_flight + size <= self.limit

    def sent(self, size: int, now: float) -> Mark:
        """*size* bytes went; returns the mark to give to ``answered``."""
        if not self.in_flight:
            if now - self._delivered_at > _IDLE_S:
                self._full = 0
                self._full_rate = 0.0
            self._delivered_at = self._first_sent_at = now
        self.in_flight += size
        return Mark(self._delivered, self._delivered_at, self._first_sent_at)

    def answered(self, size: int, mark: Mark, sent_at: float, now: float) -> None:
        """A request of *size* bytes was answered.

        The rate is what was delivered since it was sent, over the longer of the times in which
        that was sent and answered: answers that come in a burst after a pause show no more than
        the way holds.  Source: draft-cheng-iccrg-delivery-rate-estimation §3.
        """
        self._release(size)
        self._delivered += size
        self._delivered_at = now
        self._first_sent_at = sent_at
        trip = self._round_trip
        if trip.is_probing and self._rates:
            trip.sample(max(0.0, now - sent_at - size / self._rates[0][1]), now)
        else:
            trip.tick(now)
        interval = max(sent_at - mark.first_sent_at, now - mark.delivered_at)
        if interval > 0:
            rate = (self._delivered - mark.delivered) / interval
            rates = self._rates
            while rates and rates[-1][1] <= rate:
                rates.pop()
            rates.append((now, rate))
            while now - rates[0][0] > _MEMORY_S and len(rates) > 1:
                rates.popleft()
            if self._full < _START_ROUNDS and mark.delivered >= self._round_ends:
                self._end_round()

    def _end_round(self) -> None:
        """While starting: see whether the last doubling still brought something."""
        self._round_ends = self._delivered
        best = self._rates[0][1]
        if best >= self._full_rate * _START_GROWTH:
            self._full_rate = best
            self._full = 0
        else:
            self._full += 1

    def lost(self, size: int) -> None:
        """A request of *size* bytes will never be answered."""
        self._release(size)

    def subscribe(self, waker: Callable[[], None]) -> None:
        """Call *waker* whenever room may have come."""
        self._wakers.append(waker)

    def unsubscribe(self, waker: Callable[[], None]) -> None:
        self._wakers.remove(waker)

    def _release(self, size: int) -> None:
        self.in_flight -= size
        for waker in self._wakers:
            waker()


class Links(NamedTuple):
    """What the channels of one link share: the measured way to the server."""

    round_trip: RoundTrip
    reads: BulkWindow
    writes: BulkWindow


def new_links() -> Links:
    """Nothing measured yet."""
    round_trip = RoundTrip()
    return Links(round_trip, BulkWindow(round_trip), BulkWindow(round_trip))
