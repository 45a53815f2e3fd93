"""The link over SSH: an asyncssh connection, with netfs's own sessions on its channels.

Logging in is sshdial.py's.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

import asyncssh

from netfs import sshfast
from netfs.client.config import KIB, MIB
from netfs.client.remote.channel import (
    HIGH_WATER,
    Channel,
    LandingReceiver,
    Receiver,
    check_greeting,
    not_sftp,
    readable,
)
from netfs.client.remote.errors import ConnectError, ConnectErrorKind
from netfs.client.remote.sshlogin import Login
from netfs.client.remote.sshsettings import Settings
from netfs.wire import Buffer

WINDOW: Final = 32 * MIB
"""Bytes the server may send ahead: enough for 1 Gbit/s at 250 ms."""

MAX_PACKET: Final = 256 * KIB
"""Per CHANNEL_DATA towards us; OpenSSH's server still sends at most 32 KiB."""

MAX_CHANNELS: Final = 10
"""OpenSSH's default MaxSessions.  Source: sshd_config(5)."""

_SMALLEST_PACKET: Final = 1024
"""A server that takes less, or nothing, would make sending go on for ever."""

_STDERR_KEPT: Final = 4 * KIB
_CLOSE_PATIENCE_S: Final = 2.0
_EXPLAIN_PATIENCE_S: Final = 3.0


class Underlay(Protocol):
    """What a connection runs over: sockets, hops, proxies."""

    def abort(self) -> None:
        """Drop everything at once."""
        ...

    def acked_at(self) -> float | None:
        """See channel.Link; of the outermost connection."""
        ...

    async def undo(self) -> None:
        """Drop everything and wait until it is gone."""
        ...


class SshLink:
    """A logged-in connection.  Implements channel.Link."""

    max_channels = MAX_CHANNELS
    may_ask = False

    def __init__(
        self,
        connection: asyncssh.SSHClientConnection,
        login: Login,
        settings: Settings,
        sftp_server: str | None,
        underlay: Underlay,
    ) -> None:
        self._connection = connection
        self._login = login
        self._settings = settings
        self._sftp_server = sftp_server
        self._underlay = underlay
        self._path = sshfast.install(connection)

    def __repr__(self) -> str:
        settings, info = self._settings, self._connection.get_extra_info
        state = "closed" if self._connection.is_closed() else "open"
        return (
            f"<SshLink {settings.user}@{settings.host}:{settings.port} {state} "
            f"{info('send_cipher')} {info('server_version')}>"
        )

    async def open_channel(self, receiver: Receiver) -> Channel:
        """See channel.Link."""
        session = _Session(receiver, self._sftp_server, self._ask_shell)
        opening = asyncio.ensure_future(self._open(session))
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            # asyncssh would leave the channel open at both ends.
            opening.add_done_callback(_abort_late)
            raise

    async def _open(self, session: _Session) -> SshChannel:
        server = self._sftp_server
        is_command = server is not None and "/" in server
        try:
            channel, _ = await self._connection.create_session(
                lambda: session,
                command=server if is_command else None,
                subsystem=None if is_command else server or "sftp",
                env=dict(self._settings.environment),
                request_pty=False,
                encoding=None,
                window=WINDOW,
                max_pktsize=MAX_PACKET,
            )
        except asyncssh.ChannelOpenError as exc:
            if self._connection.is_closed():
                raise self._lost_error(exc) from None
            raise ConnectError(ConnectErrorKind.NO_SFTP, self._no_sftp(exc.reason)) from None
        except (OSError, asyncssh.Error) as exc:
            raise self._lost_error(exc) from None
        if getattr(channel, "_send_pktsize", _SMALLEST_PACKET) < _SMALLEST_PACKET:
            channel.abort()
            raise ConnectError(
                ConnectErrorKind.PROTOCOL, f"{self._settings.host} takes no packets of useful size"
            )
        writer = None
        if self._path is not None:
            writer = sshfast.new_writer(self._path, self._connection, channel, session)
        session.writer = writer
        return SshChannel(channel, session, writer)

    def _no_sftp(self, reason: str) -> str:
        where = self._settings.host
        if self._sftp_server is not None:
            return (
                f"{where} does not start the subsystem {self._sftp_server} "
                f"({readable(reason.encode())}); -o sftp_server=PATH names a program"
            )
        return (
            f"{where} offers no sftp subsystem ({readable(reason.encode())}); its "
            "sshd_config needs 'Subsystem sftp internal-sftp', or name its program with "
            "-o sftp_server=PATH"
        )

    async def _ask_shell(self) -> str:
        """The first line that a command's session prints, where an SFTP session ends at once.

        sshd and nologin tell only such a session why: a subsystem's stderr is not sent.
        """
        try:
            async with asyncio.timeout(_EXPLAIN_PATIENCE_S):
                done = await self._connection.run(
                    "true", check=False, encoding=None, stdin=asyncssh.DEVNULL
                )
        except (TimeoutError, OSError, asyncssh.Error):
            return ""  # no explanation; what failed is told without it
        return readable(bytes(done.stderr or b"") or bytes(done.stdout or b""))  # type: ignore[arg-type]

    def acked_at(self) -> float | None:
        """See channel.Link."""
        return self._underlay.acked_at()

    async def wait_lost(self) -> Exception | None:
        """See channel.Link."""
        reason = await asyncio.shield(self._login.lost)
        return None if reason is None else self._lost_error(reason)

    def abort(self) -> None:
        """See channel.Link."""
        self._connection.abort()
        self._underlay.abort()

    async def close(self) -> None:
        """See channel.Link."""
        self._connection.close()
        with contextlib.suppress(TimeoutError):  # then undo() resets what does not answer
            async with asyncio.timeout(_CLOSE_PATIENCE_S):
                await self._connection.wait_closed()
        await self._underlay.undo()

    def _lost_error(self, exc: Exception | None) -> ConnectError:
        if exc is None and self._login.lost.done():
            exc = self._login.lost.result()
        why = f": {exc}" if exc is not None and str(exc) else ""
        return ConnectError(
            ConnectErrorKind.LOST, f"the connection to {self._settings.host} was lost{why}"
        )


class ProbedSshLink(SshLink):
    """Where asyncssh has the request that a probe takes.  Implements channel.ProbedLink."""

    async def probe(self) -> None:
        """See channel.ProbedLink.  The request of ssh's own keepalive; any answer will do."""
        if not self._connection.is_closed():
            await self._connection._make_global_request(b"keepalive@openssh.com")
        if self._connection.is_closed():
            raise self._lost_error(None)


def _abort_late(opening: asyncio.Future[SshChannel]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().abort()


class SshChannel:
    """An SFTP stream.  Implements channel.Channel."""

    __slots__ = ("_channel", "_session", "_writer", "write")

    write: Callable[[Sequence[Buffer]], None]
    """See channel.Channel."""

    def __init__(
        self,
        channel: asyncssh.SSHClientChannel[bytes],
        session: _Session,
        writer: sshfast.FastWriter | None,
    ) -> None:
        self._channel = channel
        self._session = session
        self._writer = writer
        self.write = self._write if writer is None else writer.write

    def _write(self, buffers: Sequence[Buffer]) -> None:
        # A channel that is being lost drops what is written: connection_lost tells the receiver.
        with contextlib.suppress(OSError):
            self._channel.write(b"".join(buffers))

    def write_buffer_size(self) -> int:
        """See channel.Channel."""
        if self._writer is not None:
            return self._writer.waiting()
        return self._channel.get_write_buffer_size()

    def close(self) -> None:
        """See channel.Channel."""
        self._session.is_wanted = False
        if self._writer is not None:
            self._writer.end()
        # Only the end of its input lets the server finish what it was sent and answer it; the
        # CLOSE would close its output first, and it would die of that.
        with contextlib.suppress(OSError):  # it is closed already
            self._channel.write_eof()

    def abort(self) -> None:
        """See channel.Channel."""
        self._session.is_wanted = False
        if self._writer is not None:
            self._writer.end()
            self._writer.clear()
        self._channel.abort()


class _Session(asyncssh.SSHClientSession[bytes]):
    """What asyncssh calls for one channel; hands the stream to the receiver."""

    def __init__(
        self,
        receiver: Receiver,
        sftp_server: str | None,
        ask_shell: Callable[[], Awaitable[str]],
    ) -> None:
        self._receiver = receiver
        self._sftp_server = sftp_server
        self._ask_shell = ask_shell
        self._explaining: asyncio.Task[None] | None = None
        self._channel: asyncssh.SSHClientChannel[bytes] | None = None
        self._greeting: bytearray | None = bytearray()  # None once the stream is SFTP
        self._stderr = bytearray()
        self._status: int | None = None
        self._has_ended = False
        self.is_wanted = True  # False: closed by us
        self.writer: sshfast.FastWriter | None = None  # None again when the channel is gone

    def connection_made(self, chan: asyncssh.SSHClientChannel[bytes]) -> None:
        self._channel = chan
        chan.set_write_buffer_limits(HIGH_WATER, HIGH_WATER // 4)

    def data_received(self, data: bytes, datatype: int | None) -> None:
        if datatype is not None:
            self._stderr += data
            del self._stderr[:-_STDERR_KEPT]
        elif self._greeting is None:
            self._receiver.data_received(data)
        else:
            self._first_data(data)

    def _first_data(self, data: bytes) -> None:
        assert self._greeting is not None
        self._greeting += data
        printed = check_greeting(bytes(self._greeting))
        if printed is not None:
            self._end(not_sftp(printed))
            if self._channel is not None:
                self._channel.abort()
        elif len(self._greeting) >= 5:
            first, self._greeting = bytes(self._greeting), None
            if self.writer is not None:
                receiver, landing, landed = self._receiver, None, None
                if isinstance(receiver, LandingReceiver):
                    landing, landed = receiver.landing, receiver.landed
                self.writer.deliver_to(receiver.data_received, receiver.turn, landing, landed)
            self._receiver.data_received(first)

    def exit_status_received(self, status: int) -> None:
        self._status = status

    def connection_lost(self, exc: Exception | None) -> None:
        reason = None if not self.is_wanted else self._reason(exc)
        if (
            reason is not None
            and reason.kind is ConnectErrorKind.NO_SFTP
            and self._status is not None
            and not self._stderr
        ):
            self._explaining = asyncio.ensure_future(self._end_explained(reason))
        else:
            self._end(reason)

    async def _end_explained(self, reason: ConnectError) -> None:
        said = await self._ask_shell()
        self._end(ConnectError(reason.kind, f"{reason}: {said}") if said else reason)

    def pause_writing(self) -> None:
        self._receiver.pause_writing()

    def resume_writing(self) -> None:
        self._receiver.resume_writing()

    def _end(self, reason: Exception | None) -> None:
        if not self._has_ended:
            self._has_ended = True
            if self.writer is not None:
                self.writer.close()
                self.writer = None
            self._receiver.connection_lost(reason)

    def _reason(self, exc: Exception | None) -> ConnectError:
        said = readable(bytes(self._stderr))
        status = f" with status {self._status}" if self._status is not None else ""
        text = f"{status}: {said}" if said else status
        if self._greeting is not None and exc is None:
            name = self._sftp_server or "its sftp subsystem"
            return ConnectError(ConnectErrorKind.NO_SFTP, f"the server ended {name} at once{text}")
        why = f": {exc}" if exc is not None and str(exc) else text
        return ConnectError(ConnectErrorKind.LOST, f"the server ended the SFTP session{why}")
