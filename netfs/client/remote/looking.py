"""An LSTAT whose answer is told by a call: most of what a walk or a build asks.

A future, and a coroutine for each layer above it, cost more than what is done with the answer.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from netfs.client.remote.narrow import error_of_look
from netfs.client.remote.pending import Asker, Disconnected, StatusError
from netfs.sftp.attrs import Attrs
from netfs.sftp.responses import AttrsResponse, Response, StatusResponse

_T = TypeVar("_T")


class Looking(Asker, Generic[_T]):
    """Who wants a name's attributes, to make a result of them."""

    on_end: Callable[[Any, _T | None, BaseException | None], None]
    """Gets this, and its result or the exception."""

    @abstractmethod
    def found(self, attrs: Attrs) -> _T: ...

    @abstractmethod
    def refused(self, error: OSError) -> _T:
        """Raises: OSError, if it has no better answer."""

    @abstractmethod
    def lost(self, lost: Disconnected) -> None:
        """The link was: see ``Remote.look_again``."""

    def told(self, response: Response) -> None:
        """See Asker."""
        try:
            if type(response) is AttrsResponse:
                result = self.found(response.attrs)
            else:
                assert isinstance(response, StatusResponse)
                result = self.refused(error_of_look(StatusError(self.request, response)))
        except Exception as error:
            self.on_end(self, None, error)
            return
        self.on_end(self, result, None)

    def failed(self, error: Exception) -> None:
        """See Asker."""
        assert isinstance(error, Disconnected)  # a path is nothing that the protocol can't say
        self.lost(error)
