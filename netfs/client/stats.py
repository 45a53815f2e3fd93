"""Counters of what the kernel asked, kept without locks on the event loop's thread.

What is shown of them, and how, is not decided here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from netfs.fuse.abi import Opcode

BOUNDS_S: Final = (0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0)
"""Upper bounds of the buckets of the latency histogram; one more bucket has no bound."""

_SLOTS: Final = max(Opcode) + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestStatistics:
    """A snapshot."""

    requests: dict[str, int]  # by opcode name, those that came at all
    errors: dict[str, int]  # answered with an errno, by opcode name
    waited: int  # needed a task
    latency: tuple[int, ...]  # of those, by BOUNDS_S
    interrupts: int  # INTERRUPTs received
    interrupted: int  # requests answered EINTR for them
    gone: int  # replies that nobody waited for any more
    malformed: int


class RequestCounters:
    """Counts per opcode; unknown opcodes share number 0."""

    __slots__ = (
        "errors",
        "gone",
        "interrupted",
        "interrupts",
        "latency",
        "malformed",
        "requests",
        "waited",
    )

    def __init__(self) -> None:
        self.requests = [0] * _SLOTS
        self.errors = [0] * _SLOTS
        self.latency = [0] * (len(BOUNDS_S) + 1)  # by bisect_left(BOUNDS_S, seconds)
        self.waited = 0
        self.interrupts = 0
        self.interrupted = 0
        self.gone = 0
        self.malformed = 0

    def statistics(self) -> RequestStatistics:
        return RequestStatistics(
            requests=_by_name(self.requests),
            errors=_by_name(self.errors),
            waited=self.waited,
            latency=tuple(self.latency),
            interrupts=self.interrupts,
            interrupted=self.interrupted,
            gone=self.gone,
            malformed=self.malformed,
        )


def slot(opcode: int) -> int:
    """Where *opcode* is counted."""
    return opcode if opcode < _SLOTS else 0


def _by_name(counts: list[int]) -> dict[str, int]:
    names = {int(opcode): opcode.name for opcode in Opcode}
    return {names.get(number, "unknown"): n for number, n in enumerate(counts) if n}
