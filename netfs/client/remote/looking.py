"""An LSTAT whose answer is told by a call: most of what a walk or a build asks.

A future, and a coroutine for each layer above it, cost more than what is done with the answer.
"""

from __future__ import annotations

from netfs.client.remote.narrow import error_of_look
from netfs.client.remote.pending import Asker, Disconnected, StatusError
from netfs.sftp.attrs import Attrs
from netfs.sftp.responses import AttrsResponse, Response, StatusResponse


class Looking(Asker):
    """Who wants a name's attributes; told one of three things, once, unless ``is_done``."""

    def found(self, attrs: Attrs) -> None:
        raise NotImplementedError

    def refused(self, error: OSError) -> None:
        raise NotImplementedError

    def lost(self, lost: Disconnected) -> None:
        """The link was: ``Remote.look_again``."""
        raise NotImplementedError

    def told(self, response: Response) -> None:
        """See Asker."""
        if type(response) is AttrsResponse:
            self.found(response.attrs)
        else:
            assert isinstance(response, StatusResponse)
            self.refused(error_of_look(StatusError(self.request, response)))

    def failed(self, error: Exception) -> None:
        """See Asker."""
        assert isinstance(error, Disconnected)  # a path is nothing that the protocol can't say
        self.lost(error)
