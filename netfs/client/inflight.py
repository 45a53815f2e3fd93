"""Requests that wait for their operation: the dispatcher's record, and what ``netfs ps`` shows.

What is done with them belongs to the dispatcher.
"""

from __future__ import annotations

from typing import NamedTuple

from netfs.client.turns import Operation
from netfs.fuse.replies import Reply


class InFlightRequest(NamedTuple):
    """What ``netfs ps`` shows of a request that waits."""

    unique: int
    opcode: str
    nodeid: int
    pid: int
    since: float  # on the dispatcher's clock
    interrupted: bool


class InFlight(Operation[Reply]):
    """A request that waits, and its operation.  Filled in by the dispatcher."""

    __slots__ = (
        "also",
        "answered",
        "begun",
        "cancelled",
        "interrupted",
        "nodeid",
        "opcode",
        "pid",
        "quit_at",
        "since",
        "unique",
    )

    unique: int
    opcode: int
    nodeid: int  # which is busy with it
    also: int | None  # another one
    pid: int
    since: float  # on the dispatcher's clock
    begun: bool
    answered: bool
    cancelled: bool
    interrupted: bool  # the kernel sent an INTERRUPT
    quit_at: float | None  # INTERRUPT says so; on the dispatcher's clock
