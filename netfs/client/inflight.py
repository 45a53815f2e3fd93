"""Requests that wait, for their operation or for one answer: the dispatcher's record of each, and
what ``netfs ps`` shows.

What is done with them belongs to the dispatcher.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from netfs.client.remote.looking import Looking
from netfs.client.remote.pending import Disconnected
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


class Question(Looking[Reply]):
    """A request that waits for the attributes of one name, and needs no coroutine for that.

    Begun, cancelled and ended as an ``InFlight``; where one answer does not do, it goes on as an
    operation.
    """

    # Set by the dispatcher.
    unique: int
    opcode: int
    nodeid: int
    pid: int
    since: float
    begun = False
    answered = False
    cancelled = False
    interrupted = False
    quit_at: float | None = None

    _operation: Operation[Reply] | None = None

    @property
    def nodeids(self) -> tuple[int, ...]:
        """Which are busy with it."""
        return (self.nodeid,)

    # What it means is its operation's.

    @abstractmethod
    def ask(self) -> Coroutine[Any, Any, Reply] | None:
        """Ask by ``Remote.look``; or return what else to do."""

    @abstractmethod
    def ask_again(self, lost: Disconnected) -> Coroutine[Any, Any, Reply]:
        """What to do when the link was lost."""

    # How it goes on.

    def step(self) -> None:
        """Begin."""
        try:
            other = self.ask()
        except Exception as error:
            self.on_end(self, None, error)
            return
        if other is not None:
            self.go_on(other)

    def lost(self, lost: Disconnected) -> None:
        """See Looking."""
        if not self.answered:  # it may have been cancelled meanwhile
            self.go_on(self.ask_again(lost))

    def cancel(self) -> None:
        """As Operation.cancel."""
        if self._operation is not None:
            self._operation.cancel()
            return
        self.end()
        self.on_end(self, None, asyncio.CancelledError())

    def discard(self) -> None:
        """Never begin it."""
        self.end()

    def go_on(self, other: Coroutine[Any, Any, Reply]) -> None:
        """As an operation."""
        loop = asyncio.get_running_loop()
        self._operation = Operation(loop, other, self._operation_ended)
        self._operation.step()

    def _operation_ended(
        self, _operation: Operation[Reply], reply: Reply | None, error: BaseException | None
    ) -> None:
        self.on_end(self, reply, error)


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


AnyInFlight = InFlight | Question


class InFlightTable(dict[int, AnyInFlight]):
    """By unique, oldest first."""

    def busy(self) -> set[int]:
        """The nodeids that have unanswered requests.  From any thread."""
        return {nodeid for one in list(self.values()) for nodeid in one.nodeids}
