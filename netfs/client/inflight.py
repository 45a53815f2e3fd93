"""Requests that wait for their operation: the dispatcher's record, and what ``netfs ps`` shows.

What is done with them belongs to the dispatcher.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, NamedTuple

from netfs.client.turns import Operation
from netfs.fuse import requests
from netfs.fuse.replies import Reply


class InFlightRequest(NamedTuple):
    """What ``netfs ps`` shows of a request that waits."""

    unique: int
    opcode: str
    nodeid: int
    pid: int
    since: float  # on the dispatcher's clock
    interrupted: bool


class InFlight:
    """A request that waits for its operation."""

    __slots__ = (
        "answered",
        "cancelled",
        "coroutine",
        "interrupted",
        "nodeid",
        "nodeids",
        "opcode",
        "operation",
        "pid",
        "quit_at",
        "since",
        "unique",
    )

    def __init__(
        self, header: requests.Header, coroutine: Coroutine[Any, Any, Reply], since: float
    ) -> None:
        self.unique = header.unique
        self.opcode = header.opcode
        self.nodeid = header.nodeid
        self.nodeids: tuple[int, ...] = (header.nodeid,)
        self.pid = header.pid
        self.coroutine = coroutine
        self.since = since
        self.operation: Operation[Reply] | None = None  # None: it has not begun
        self.answered = False
        self.cancelled = False
        self.interrupted = False  # the kernel sent an INTERRUPT
        self.quit_at: float | None = None  # INTERRUPT says so; on the dispatcher's clock
