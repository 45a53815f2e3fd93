"""How often the worker may die, and how long to wait before it is started again.  Pure."""

from __future__ import annotations

from collections import deque
from typing import Final

MOST: Final = 3
WINDOW_S: Final = 60.0
_FIRST_S: Final = 1.0
_LONGEST_S: Final = 30.0


class Deaths:
    """The worker's deaths within the last minute (monotonic seconds)."""

    __slots__ = ("_times",)

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=MOST)

    def add(self, now: float) -> bool:
        """Count one death; whether that was one too many."""
        self._times.append(now)
        return len(self._times) == MOST and now - self._times[0] <= WINDOW_S


def backoff(attempt: int, jitter: float) -> float:
    """Seconds before the next attempt to connect: 1, 2, 4 ... 30.

    *attempt* counts from 0; *jitter* in [0, 1) spreads the clients of a server that comes back.
    """
    return min(_LONGEST_S, _FIRST_S * 2.0 ** min(attempt, 10)) * (0.75 + 0.5 * jitter)
