"""One SSH channel between asyncssh and a session: the ``sftp`` subsystem and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import asyncssh

from netfs import sshfast
from netfs.server.session import Session
from netfs.wire import Buffer

_SMALLEST: Final = 1024
"""Bytes of an SSH packet that a client must take (RFC 4253 §6.1 has it take 32768)."""


class Owner(Protocol):
    """The channel's connection."""

    def open_session(self, channel: SftpChannel) -> Session | None:
        """The session of a started subsystem; None if it is refused."""
        ...

    def fast_writer(
        self, channel: asyncssh.SSHServerChannel[bytes], session: Session
    ) -> sshfast.FastWriter | None:
        """The short way out for a new session, if there is one."""
        ...

    def channel_closed(self) -> None: ...

    def abort(self) -> None:
        """End the connection at once."""
        ...


class SftpChannel(asyncssh.SSHServerSession[bytes]):
    """One SSH channel, of use only once the ``sftp`` subsystem is asked for.

    Above is the session, for which this is the ``Channel``; below, asyncssh's channel.
    """

    _channel: asyncssh.SSHServerChannel[bytes]  # from connection_made on

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._session: Session | None = None
        self._writer: sshfast.FastWriter | None = None

    def connection_made(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        self._channel = chan
        chan.set_write_buffer_limits(high=1 << 20, low=256 << 10)

    def subsystem_requested(self, subsystem: str) -> bool:
        # asyncssh would send packets of no bytes for ever to a client that takes none larger.
        if subsystem != "sftp" or getattr(self._channel, "_send_pktsize", _SMALLEST) < _SMALLEST:
            return False
        self._session = self._owner.open_session(self)
        if self._session is None:
            return False
        self._writer = self._owner.fast_writer(self._channel, self._session)
        if self._writer is not None:
            self._writer.deliver_to(self._session.data_received)
        return True

    # As the session's Channel.

    def write(self, buffers: Sequence[Buffer]) -> None:
        if self._writer is None:
            self._channel.write(b"".join(buffers))
        elif self._channel.is_closing():
            raise BrokenPipeError
        else:
            self._writer.write(buffers)

    def pause_reading(self) -> None:
        self._channel.pause_reading()

    def resume_reading(self) -> None:
        self._channel.resume_reading()

    def exit(self, status: int) -> None:
        self._channel.exit(status)

    def abort(self) -> None:
        # The connection, not the channel: a channel ends only when the client agrees, and what a
        # client does not take may be waiting in the socket, where its own answer cannot pass.
        self._owner.abort()

    # As asyncssh's session.

    def data_received(self, data: Buffer, datatype: int | None) -> None:
        if self._session is not None:
            self._session.data_received(data)

    def eof_received(self) -> bool:
        if self._session is None:
            return False
        self._session.eof_received()
        return True  # the channel stays open for the answers; the session closes it

    def pause_writing(self) -> None:
        if self._session is not None:
            self._session.pause_writing()

    def resume_writing(self) -> None:
        if self._session is not None:
            self._session.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._owner.channel_closed()
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        if self._session is not None:
            self._session.connection_lost()
