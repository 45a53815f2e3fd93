"""The vocabulary between a transport and the one who speaks SFTP over it.

Implemented by ssh.py, pipe.py and tcp.py.  All calls happen on the event loop's thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol, runtime_checkable

from netfs.buffers import Landing
from netfs.client.remote.errors import ConnectError, ConnectErrorKind
from netfs.client.turns import Turn
from netfs.wire import Buffer

HIGH_WATER: Final = 1024 * 1024
"""Bytes waiting in a channel above which the receiver's pause_writing is called: what waits here
can't be overtaken by a small request any more."""

_MAX_VERSION_PACKET: Final = 256 * 1024  # the limit OpenSSH's sftp has for any packet
_VERSION_TYPE: Final = 2  # SSH_FXP_VERSION, draft-ietf-secsh-filexfer-02 §4


class Receiver(Protocol):
    """Who gets what arrives on a channel."""

    turn: Turn  # to be begun and ended around what arrives together

    def data_received(self, data: Buffer) -> None:
        """Take bytes of the stream.  The buffer is the receiver's and never reused."""
        ...

    def connection_lost(self, exc: Exception | None) -> None:
        """The channel is gone; called once, and nothing after it.  None: close() was called."""
        ...

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...


@runtime_checkable
class LandingReceiver(Receiver, Protocol):
    """One who has a place for what comes next."""

    @property
    def landing(self) -> Landing:
        """Always the same object."""
        ...

    def landed(self, count: int) -> None:
        """The next *count* bytes of the stream, not more than are missing, are in that place."""
        ...


class Channel(Protocol):
    """One SFTP stream."""

    def write(self, buffers: Sequence[Buffer]) -> None:
        """Send the joined buffers.  Never blocks; dropped silently once the channel is lost."""
        ...

    def write_buffer_size(self) -> int:
        """Bytes accepted by write() that have not left yet."""
        ...

    def close(self) -> None:
        """Send what is buffered and let the server finish.  connection_lost(None) follows."""
        ...

    def abort(self) -> None:
        """Close now and drop what is buffered."""
        ...


class Link(Protocol):
    """A way to a server, over which SFTP channels are opened."""

    max_channels: int  # how many open_channel calls can succeed; 1 for passive
    may_ask: bool  # open_channel may wait for a person: it has no deadline of its own

    async def open_channel(self, receiver: Receiver) -> Channel:
        """Start the server's SFTP on a new stream.

        Raises:
            ConnectError: NO_SFTP, LOST ...
        """
        ...

    def acked_at(self) -> float | None:
        """When TCP heard of the other side last (monotonic seconds); None: can't be known."""
        ...

    async def wait_lost(self) -> Exception | None:
        """Return the reason when the link ends; None after close()."""
        ...

    def abort(self) -> None:
        """Drop the link at once: nothing more of what was written reaches the server's end."""
        ...

    async def close(self) -> None:
        """End the link in an orderly way, bounded in time."""
        ...


@runtime_checkable
class ProbedLink(Link, Protocol):
    """A Link whose life shows outside of SFTP; over any other one something is asked by SFTP."""

    async def probe(self) -> None:
        """Return as soon as the server has answered a no-op.

        Raises:
            ConnectError: LOST.
        """
        ...


def check_greeting(data: bytes) -> str | None:
    """Whether *data*, the stream's first bytes, can begin an SFTP VERSION packet.

    Returns None if so (or while too little is known), else what was printed instead.
    A login script that prints something makes every SFTP client read a length out of text.
    """
    if len(data) < 5:
        prefix_possible = data[:1] in (b"", b"\0")
        return None if prefix_possible else readable(data)
    length = int.from_bytes(data[:4], "big")
    if 5 <= length <= _MAX_VERSION_PACKET and data[4] == _VERSION_TYPE:
        return None
    return readable(data)


def readable(data: bytes, limit: int = 80) -> str:
    """The first line of *data* fit for a terminal."""
    line = data.decode("utf-8", "replace").strip().split("\n", 1)[0].strip()
    text = "".join(c if c.isprintable() else "?" for c in line)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def not_sftp(text: str) -> ConnectError:
    """The error for a stream that began with *text*."""
    return ConnectError(
        ConnectErrorKind.NO_SFTP,
        f'the server printed "{text}" where SFTP was expected; '
        "silence the login scripts there (.bashrc and the like) for sessions without a terminal",
    )
