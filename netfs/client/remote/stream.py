"""An SFTP channel over a plain byte stream: a socket, or a pair of pipes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import cast

from netfs.client.remote.channel import HIGH_WATER, Receiver, check_greeting, not_sftp
from netfs.client.remote.errors import ConnectError, ConnectErrorKind
from netfs.wire import Buffer


class StreamChannel(asyncio.Protocol):
    """The protocol of a reading and a writing transport.  Implements channel.Channel."""

    def __init__(self, receiver: Receiver, explain: Callable[[bool], ConnectError]) -> None:
        """*explain* tells, when the stream has ended, why: its argument is whether SFTP began."""
        self._receiver = receiver
        self._explain = explain
        self._reading: asyncio.BaseTransport | None = None
        self._writing: asyncio.WriteTransport | None = None
        self._greeting: bytearray | None = bytearray()  # None once the stream is SFTP
        self._is_wanted = True  # False: closed by us
        self._has_ended = False
        self._problem: ConnectError | None = None
        self.ended: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The reading side, which is the writing one as well unless there is one already."""
        self._reading = transport
        if self._writing is None:
            self.write_to(cast(asyncio.WriteTransport, transport))

    def write_to(self, transport: asyncio.WriteTransport) -> None:
        """Write to *transport* from now on."""
        self._writing = transport
        transport.set_write_buffer_limits(HIGH_WATER, HIGH_WATER // 4)

    def data_received(self, data: bytes) -> None:
        if self._has_ended:
            return
        if self._greeting is None:
            self._receiver.data_received(data)
            return
        self._greeting += data
        printed = check_greeting(bytes(self._greeting))
        if printed is not None:
            self._problem = not_sftp(printed)
            self.abort()
        elif len(self._greeting) >= 5:
            first, self._greeting = bytes(self._greeting), None
            self._receiver.data_received(first)

    def eof_received(self) -> bool:
        return False  # half a stream is of no use: close the other half, too

    def connection_lost(self, exc: Exception | None) -> None:
        if self._has_ended:
            return
        self._has_ended = True
        for transport in (self._reading, self._writing):
            if transport is not None:
                transport.close()
        reason: Exception | None = self._problem
        if reason is None and self._is_wanted:
            reason = self._explain(self._greeting is None)
            if isinstance(exc, OSError) and reason.kind is ConnectErrorKind.LOST:
                reason = ConnectError(reason.kind, f"{reason}: {(exc.strerror or '').lower()}")
        self.ended.set_result(reason)
        self._receiver.connection_lost(reason)

    def pause_writing(self) -> None:
        self._receiver.pause_writing()

    def resume_writing(self) -> None:
        self._receiver.resume_writing()

    def write(self, buffers: Sequence[Buffer]) -> None:
        """See channel.Channel."""
        if self._writing is not None and not self._writing.is_closing():
            self._writing.writelines(buffers)

    def write_buffer_size(self) -> int:
        """See channel.Channel."""
        return 0 if self._writing is None else self._writing.get_write_buffer_size()

    def close(self) -> None:
        """See channel.Channel."""
        self._is_wanted = False
        if self._writing is not None:
            self._writing.close()
        if self._reading is not None:
            self._reading.close()

    def abort(self) -> None:
        """See channel.Channel."""
        if self._problem is None:
            self._is_wanted = False
        if self._writing is not None:
            self._writing.abort()
        if self._reading is not None and self._reading is not self._writing:
            self._reading.close()


class WritingSide(asyncio.BaseProtocol):
    """The protocol of a pipe that only a StreamChannel's writing goes to."""

    def __init__(self, channel: StreamChannel) -> None:
        self._channel = channel

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._channel.write_to(cast(asyncio.WriteTransport, transport))

    def connection_lost(self, exc: Exception | None) -> None:
        self._channel.connection_lost(exc)

    def pause_writing(self) -> None:
        self._channel.pause_writing()

    def resume_writing(self) -> None:
        self._channel.resume_writing()
