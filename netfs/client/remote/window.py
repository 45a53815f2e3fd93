"""How many bytes of bulk data may be under way at once, so that a small request need not queue.

Pure: the clock's value is an argument.  A model of the way to the server as BBR has it (Cardwell
et al., "BBR: Congestion-Based Congestion Control", 2016): the way holds delivery rate × round
trip; more than that only stands in a queue, in front of the requests that a person waits for.
TCP's own buffers would take megabytes: at 100 Mbit/s each MiB is 84 ms of waiting.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

_START: Final = 1024 * 1024  # bytes before anything was measured
_BLOCK: Final = 256 * 1024  # bytes; one more block than the way holds keeps it busy
_GAIN: Final = 1.5  # above 1 lets the measured rate grow when the way is faster than thought
_SLACK_S: Final = 0.004  # for the server's own work; on loopback this is all that counts
_MEMORY_S: Final = 10.0  # how long a best rate or round trip is believed
_LARGEST: Final = 64 * 1024 * 1024


class RoundTrip:
    """The shortest round trip of late, from requests of any kind."""

    __slots__ = ("_best", "_best_at", "_next", "_next_at")

    def __init__(self) -> None:
        self._best = 0.0
        self._best_at = float("-inf")
        self._next = 0.0  # the best since half of the memory ago: takes over when it ends
        self._next_at = float("-inf")

    def sample(self, seconds: float, now: float) -> None:
        if seconds <= self._best or now - self._best_at > _MEMORY_S:
            if seconds > self._best and now - self._next_at <= _MEMORY_S and self._next < seconds:
                self._best, self._best_at = self._next, self._next_at
            else:
                self._best, self._best_at = seconds, now
            self._next, self._next_at = seconds, now
        elif seconds <= self._next or now - self._next_at > _MEMORY_S / 2:
            self._next, self._next_at = seconds, now

    @property
    def shortest_s(self) -> float:
        """Seconds; 0 before the first sample."""
        return self._best


class BulkWindow:
    """The bytes of one direction that may be under way; shared by all channels of a link."""

    __slots__ = (
        "_delivered",
        "_rates",
        "_round_trip",
        "_wakers",
        "in_flight",
    )

    def __init__(self, round_trip: RoundTrip) -> None:
        self._round_trip = round_trip
        self._rates: deque[tuple[float, float]] = deque()  # (at, bytes/s), rates falling
        self._delivered = 0
        self._wakers: list[Callable[[], None]] = []
        self.in_flight = 0  # bytes

    def __repr__(self) -> str:
        return f"<BulkWindow {self.in_flight}/{self.limit} bytes>"

    @property
    def limit(self) -> int:
        """Bytes that may be under way now."""
        if not self._rates:
            return _START
        way = self._rates[0][1] * (_GAIN * self._round_trip.shortest_s + _SLACK_S)
        return min(_LARGEST, _BLOCK + int(way))

    @property
    def rate(self) -> float:
        """Best bytes per second of late; 0 before anything was measured."""
        return self._rates[0][1] if self._rates else 0.0

    def has_room(self) -> bool:
        """Whether one more request may leave; one may always be under way."""
        return self.in_flight == 0 or self.in_flight < self.limit

    def sent(self, size: int) -> int:
        """*size* bytes went; returns the mark to give to ``answered``."""
        self.in_flight += size
        return self._delivered

    def answered(self, size: int, mark: int, sent_at: float, now: float) -> None:
        """A request of *size* bytes was answered."""
        self._release(size)
        self._delivered += size
        taken = now - sent_at
        if taken > 0:
            rate = (self._delivered - mark) / taken
            rates = self._rates
            while rates and rates[-1][1] <= rate:
                rates.pop()
            rates.append((now, rate))
            while now - rates[0][0] > _MEMORY_S and len(rates) > 1:
                rates.popleft()

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
