"""SFTP over plain TCP or vsock: ``directport`` and ``vsock``.  No SSH, no login, no secrecy."""

from __future__ import annotations

import asyncio
import socket

from netfs.client.config import Config
from netfs.client.remote.channel import Channel, Receiver
from netfs.client.remote.errors import ConnectError, ConnectErrorKind
from netfs.client.remote.sockets import acked_at, open_tcp, open_vsock, reset_on_close
from netfs.client.remote.stream import StreamChannel


class TcpLink:
    """Each channel is a connection.  Implements channel.Link."""

    may_ask = False

    def __init__(self, config: Config) -> None:
        self._config = config
        self.max_channels = max(1, config.ssh.max_conns)
        self._channels: list[tuple[StreamChannel, socket.socket]] = []
        self._lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    def __repr__(self) -> str:
        return f"<TcpLink {self._where} channels={len(self._channels)}>"

    @property
    def _where(self) -> str:
        ssh = self._config.ssh
        if ssh.vsock is not None:
            return f"vsock {ssh.vsock[0]}:{ssh.vsock[1]}"
        return f"{self._config.source.host} port {ssh.directport}"

    async def open_channel(self, receiver: Receiver) -> Channel:
        """See channel.Link."""
        timeout_s = self._config.ssh.connect_timeout_s or None
        try:
            async with asyncio.timeout(timeout_s):
                sock = await self._connect()
        except TimeoutError:
            raise ConnectError(
                ConnectErrorKind.TIMED_OUT, f"{self._where}: no answer in {timeout_s:g} s"
            ) from None
        loop = asyncio.get_running_loop()
        _, channel = await loop.create_connection(
            lambda: StreamChannel(receiver, self._explain), sock=sock
        )
        self._channels.append((channel, sock))
        channel.ended.add_done_callback(lambda ended: self._ended(channel, ended.result()))
        return channel

    async def _connect(self) -> socket.socket:
        ssh = self._config.ssh
        if ssh.vsock is None:
            assert ssh.directport is not None
            sock = await open_tcp(self._config.source.host, ssh.directport)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return sock
        try:
            return await open_vsock(*ssh.vsock)
        except TimeoutError as exc:
            if exc.errno is None:
                raise  # our own patience ended
            kind, why = ConnectErrorKind.TIMED_OUT, exc.strerror
        except OSError as exc:
            kind, why = ConnectErrorKind.UNREACHABLE, exc.strerror
        raise ConnectError(kind, f"{self._where}: {(why or '').lower()}; does one listen there?")

    def _explain(self, has_begun: bool) -> ConnectError:
        if has_begun:
            return ConnectError(ConnectErrorKind.LOST, f"the connection to {self._where} was lost")
        return ConnectError(
            ConnectErrorKind.NO_SFTP,
            f"{self._where} closed the connection; does an SFTP server listen there?",
        )

    def _ended(self, channel: StreamChannel, reason: Exception | None) -> None:
        self._channels = [pair for pair in self._channels if pair[0] is not channel]
        if reason is not None and not self._lost.done():
            self._lost.set_result(reason)

    def acked_at(self) -> float | None:
        """See channel.Link; of the channel that heard something last."""
        times = [at for _, sock in self._channels if (at := acked_at(sock)) is not None]
        return max(times, default=None)

    async def wait_lost(self) -> Exception | None:
        """See channel.Link."""
        return await asyncio.shield(self._lost)

    def abort(self) -> None:
        """See channel.Link."""
        for channel, sock in list(self._channels):
            reset_on_close(sock)
            channel.abort()
        if not self._lost.done():
            self._lost.set_result(None)

    async def close(self) -> None:
        """See channel.Link."""
        ending = [channel.ended for channel, _ in self._channels]
        for channel, _ in list(self._channels):
            channel.close()
        if ending:
            await asyncio.wait(ending, timeout=2.0)
        self.abort()
