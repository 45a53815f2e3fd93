"""Requests that wait for their operation: the dispatcher's record, and what ``netfs ps`` shows.

What is done with them belongs to the dispatcher.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from netfs.client.turns import Operation
from netfs.fuse.replies import Reply
from netfs.fuse.requests import Rename, Request


class InFlightRequest(NamedTuple):
    """What ``netfs ps`` shows of a request that waits."""

    unique: int
    opcode: str
    nodeid: int
    pid: int
    since: float  # on the dispatcher's clock
    interrupted: bool


class InFlight(Operation[Reply]):
    """A request that waits, and its operation."""

    __slots__ = (
        "answered",
        "begun",
        "cancelled",
        "interrupted",
        "nodeid",
        "nodeids",
        "opcode",
        "pid",
        "quit_at",
        "since",
        "unique",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        coroutine: Coroutine[Any, Any, Reply],
        on_end: Callable[[InFlight, Reply | None, BaseException | None], None],
        opcode: int,
        request: Request,
        since: float,
    ) -> None:
        super().__init__(loop, coroutine, on_end)
        self.unique = request.unique
        self.opcode = opcode
        self.nodeid = request.nodeid
        self.nodeids: tuple[int, ...] = (request.nodeid,)  # which are busy with it
        if type(request) is Rename and request.new_parent != request.nodeid:
            self.nodeids = (request.nodeid, request.new_parent)
        self.pid = request.pid
        self.since = since
        self.begun = False
        self.answered = False
        self.cancelled = False
        self.interrupted = False  # the kernel sent an INTERRUPT
        self.quit_at: float | None = None  # INTERRUPT says so; on the dispatcher's clock
