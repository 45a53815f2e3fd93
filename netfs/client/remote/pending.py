"""A request that waits for its answer: its future, or who is called, and what it can end with.

When it leaves, and what becomes of its answer, belongs to the requester.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable
from typing import Final

from netfs.client.remote.window import BulkWindow, Mark
from netfs.client.turns import Awaited, Waker
from netfs.sftp.requests import Request
from netfs.sftp.responses import Response, StatusResponse


class StatusError(Exception):
    """The server answered with a status other than OK."""

    def __init__(self, request: Request, status: StatusResponse) -> None:
        super().__init__(request, status)
        self.request = request
        self.code = status.code
        self.message = status.message

    def __str__(self) -> str:  # seldom wanted: a missing name is a usual answer
        text = self.message.decode("utf-8", "replace")
        return f"{type(self.request).__name__}: status {self.code} ({text})"


class Disconnected(Exception):
    """The conversation ended before the answer came.

    ``sent`` tells whether the request may have been carried out.
    """

    def __init__(self, reason: str, *, sent: bool) -> None:
        super().__init__(reason)
        self.sent = sent


class Expired(Disconnected):
    """No answer came in the time that a request may take while the link is in doubt."""


class Pending(Awaited[Response]):
    """A request's future with what the queue must know of it."""

    __slots__ = ("bulk", "is_sent", "request", "sent_at", "waker")

    request: Request
    sent_at: float  # on the requester's clock; until it is sent: since when it waits
    is_sent: bool
    bulk: Bulk | None  # None: it waits in no lane
    waker: Waker | None


class Opening(Pending):
    """Of an OPEN or OPENDIR."""

    __slots__ = ("foretold",)

    def __init__(self, *, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self.foretold: bytes | None = None  # the handle it will get, from its leaving on


class Follower(Pending):
    """Of what is asked of a handle before it is known: its request has an empty one so far."""

    __slots__ = ("opening",)

    opening: Opening


class Bulk:
    """What the queue must know of a request that waits in a lane."""

    __slots__ = ("handle", "mark", "size", "window")

    def __init__(self, handle: bytes | None) -> None:
        self.handle = handle
        self.size = 0  # bytes that count in the window
        self.window: BulkWindow | None = None
        self.mark: Mark | None = None  # from its leaving on


_NOT_YET: Final[Callable[[], bool]] = False.__bool__
_DONE: Final[Callable[[], bool]] = True.__bool__
"""As a future's ``done`` not functions of Python: each request is asked twice."""


class Asker:
    """Who is told the answer by a call, in the place of a future: for small requests that have one
    answer, of which less is made than a future and the coroutines that wait for it cost."""

    request: Request
    sent_at: float  # as of Pending
    is_sent = False
    bulk: Bulk | None = None
    done: Callable[[], bool] = _NOT_YET
    """Whether nobody wants the answer any more."""

    def end(self) -> None:
        """Nobody does."""
        self.done = _DONE

    @abstractmethod
    def told(self, response: Response) -> None:
        """The answer has come, whatever its status."""

    @abstractmethod
    def failed(self, error: Exception) -> None:
        """There will be no answer: as the exception of a future, told when the loop turns."""


Waiting = Pending | Asker


def fail(waiting: Waiting, error: Exception) -> None:
    """Who waits sees *error*; that nobody does any more is nothing for asyncio to warn of."""
    if isinstance(waiting, Asker):
        waiting.end()
        asyncio.get_running_loop().call_soon(waiting.failed, error)
        return
    waiting.set_exception(error)
    waiting.exception()
