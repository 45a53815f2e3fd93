"""SFTP through another program: ``ssh_command`` (the system's ssh), and ``passive``.

The system's ssh can what netfs can't: ControlMaster, PKCS#11, GSSAPI, KnownHostsCommand ...
"""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import subprocess
from collections.abc import Sequence
from typing import Final

from netfs.client.config import Config
from netfs.client.remote.channel import Channel, Receiver, readable
from netfs.client.remote.errors import ConnectError, ConnectErrorKind
from netfs.client.remote.sockets import reap, spawn
from netfs.client.remote.stream import StreamChannel, WritingSide

_STDERR_KEPT: Final = 4096
_IGNORES_INTERRUPT: Final = ("/bin/sh", "-c", 'trap "" INT; exec "$@"', "netfs-ssh")
"""ssh stays on the terminal to ask there, but a ^C is for netfs, which still has data to send."""


def ssh_argv(config: Config) -> list[str]:
    """The command line for the system's ssh; the forced words are sshfs's."""
    ssh, source = config.ssh, config.source
    assert ssh.ssh_command is not None
    if source.host.startswith("-") or (source.user or "").startswith("-"):
        raise ConnectError(
            ConnectErrorKind.BAD_CONFIG, f"{source.host}: a host can't begin with a dash"
        )
    argv = [*ssh.ssh_command, "-x", "-a", "-oClearAllForwardings=yes"]
    if ssh.config_file is not None:
        argv += ["-F", ssh.config_file]
    defaults = {
        "connecttimeout": f"{ssh.connect_timeout_s:g}",
        "serveraliveinterval": f"{ssh.server_alive_interval_s:g}",
        "serveralivecountmax": str(ssh.server_alive_count_max),
    }
    for word, values in ssh.keywords.items():
        defaults.pop(word, None)
        argv += [f"-o{word}={value}" for value in values]
    argv += [f"-o{word}={value}" for word, value in defaults.items() if value != "0"]
    if source.port is not None:
        argv += ["-p", str(source.port)]
    host = source.host if source.user is None else f"{source.user}@{source.host}"
    server = ssh.sftp_server or "sftp"
    return [*argv, "--", host, server] if "/" in server else [*argv, "-s", "--", host, server]


_COMPLAINTS: Final = (
    (b"Permission denied (", ConnectErrorKind.AUTH_FAILED),
    (b"Too many authentication failures", ConnectErrorKind.AUTH_FAILED),
    (b"HOST IDENTIFICATION HAS CHANGED", ConnectErrorKind.HOST_KEY_CHANGED),
    (b"REVOKED HOST KEY", ConnectErrorKind.HOST_KEY_REVOKED),
    (b"Host key verification failed", ConnectErrorKind.HOST_KEY_UNKNOWN),  # said in each case
    (b"Could not resolve hostname", ConnectErrorKind.HOST_UNKNOWN),
    (b"Connection refused", ConnectErrorKind.REFUSED),
    (b"Connection timed out", ConnectErrorKind.TIMED_OUT),
    (b"No route to host", ConnectErrorKind.UNREACHABLE),
    (b"Network is unreachable", ConnectErrorKind.UNREACHABLE),
    (b"subsystem request failed", ConnectErrorKind.NO_SFTP),
    (b"no matching", ConnectErrorKind.NO_ALGORITHM),
)
"""What OpenSSH's ssh says (its exit status is 255 for everything)."""


def kind_of_complaint(said: bytes) -> ConnectErrorKind:
    """The kind of an error from what ssh has written; a refused login must not be tried again."""
    for words, kind in _COMPLAINTS:
        if words in said:
            return kind
    return ConnectErrorKind.PROXY_FAILED


class PipeLink:
    """Each channel is a process.  Implements channel.Link."""

    may_ask = True

    def __init__(self, config: Config) -> None:
        self._argv = ssh_argv(config)
        self.max_channels = max(1, config.ssh.max_conns)
        self._processes: dict[StreamChannel, _Process] = {}
        self._reaping: set[asyncio.Future[None]] = set()
        self._lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    def __repr__(self) -> str:
        return f"<PipeLink {self._argv[0]} channels={len(self._processes)}>"

    async def open_channel(self, receiver: Receiver) -> Channel:
        """See channel.Link."""
        loop = asyncio.get_running_loop()
        process = await _Process.start(self._argv)
        try:
            _, channel = await loop.create_connection(
                lambda: StreamChannel(receiver, process.explain), sock=process.socket
            )
        except BaseException:
            await process.close()
            raise
        self._processes[channel] = process
        channel.ended.add_done_callback(lambda ended: self._ended(channel, ended.result()))
        return channel

    def _ended(self, channel: StreamChannel, reason: Exception | None) -> None:
        process = self._processes.pop(channel)
        reaping = asyncio.ensure_future(process.close())
        self._reaping.add(reaping)
        reaping.add_done_callback(self._reaping.discard)
        if reason is not None and not self._lost.done():
            self._lost.set_result(reason)

    def acked_at(self) -> float | None:
        """See channel.Link."""
        return None

    async def wait_lost(self) -> Exception | None:
        """See channel.Link."""
        return await asyncio.shield(self._lost)

    def abort(self) -> None:
        """See channel.Link.  Killed, ssh can send nothing more of what it has buffered."""
        for channel, process in list(self._processes.items()):
            process.kill()
            channel.abort()
        if not self._lost.done():
            self._lost.set_result(None)

    async def close(self) -> None:
        """See channel.Link."""
        for channel in list(self._processes):
            channel.close()
        ending = [channel.ended for channel in self._processes]
        if ending:
            await asyncio.wait(ending, timeout=2.0)
        self.abort()
        if ending:
            await asyncio.wait(ending)  # aborted channels end by themselves, very soon
        if self._reaping:
            await asyncio.wait(self._reaping)


class _Process(asyncio.Protocol):
    """One ssh: its socket, its complaints, its end."""

    def __init__(self, process: subprocess.Popen[bytes], sock: socket.socket) -> None:
        self._process = process
        self.socket = sock
        self._said = bytearray()
        self._errors: asyncio.BaseTransport | None = None

    @classmethod
    async def start(cls, argv: Sequence[str]) -> _Process:
        """Raises ConnectError if it can't be started."""
        reading, writing = os.pipe()
        try:
            process, sock = spawn(
                [*_IGNORES_INTERRUPT, *argv],
                f"ssh_command {argv[0]}",
                own_session=False,
                stderr=writing,
            )
        except ConnectError:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        started = cls(process, sock)
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: started, os.fdopen(reading, "rb", buffering=0))
        return started

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._errors = transport

    def data_received(self, data: bytes) -> None:
        """What ssh says goes to the user as it comes, and its end into the error."""
        os.write(2, data)
        self._said += data
        del self._said[:-_STDERR_KEPT]

    def explain(self, has_begun: bool) -> ConnectError:
        """Why the stream has ended."""
        status = self._process.poll()
        lines = [line for line in bytes(self._said).splitlines() if line.strip()]
        said = f": {readable(lines[-1], 200)}" if lines else ""
        ended = "ended" if status is None else f"ended with status {status}"
        kind = ConnectErrorKind.LOST if has_begun else kind_of_complaint(bytes(self._said))
        return ConnectError(kind, f"ssh_command {ended}{said}")

    def kill(self) -> None:
        """End it at once."""
        if self._process.poll() is None:
            self._process.kill()

    async def close(self) -> None:
        """End it and wait until it is gone."""
        await reap(self._process)
        if self._errors is not None:
            self._errors.close()


class PassiveLink:
    """One channel: SFTP on stdin and stdout.  Implements channel.Link."""

    max_channels = 1
    may_ask = False

    def __init__(self, reading: int = 0, writing: int = 1) -> None:
        self._fds = (reading, writing)
        self._channel: StreamChannel | None = None
        self._lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    async def open_channel(self, receiver: Receiver) -> Channel:
        """See channel.Link.

        Raises:
            ConnectError: LOST, the stream has been used: it can't be opened again.
        """
        if self._channel is not None:
            raise ConnectError(ConnectErrorKind.LOST, "passive: the other side is gone")
        loop = asyncio.get_running_loop()
        self._channel = channel = StreamChannel(receiver, self._explain)
        channel.ended.add_done_callback(self._ended)
        reading, writing = map(os.dup, self._fds)
        one, other = os.fstat(reading), os.fstat(writing)
        if stat.S_ISSOCK(one.st_mode) and (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino):
            os.close(writing)
            await loop.create_connection(lambda: channel, sock=socket.socket(fileno=reading))
        else:
            await loop.connect_write_pipe(
                lambda: WritingSide(channel), os.fdopen(writing, "wb", buffering=0)
            )
            await loop.connect_read_pipe(lambda: channel, os.fdopen(reading, "rb", buffering=0))
        return channel

    @staticmethod
    def _explain(has_begun: bool) -> ConnectError:
        kind = ConnectErrorKind.LOST if has_begun else ConnectErrorKind.NO_SFTP
        return ConnectError(kind, "passive: the SFTP server at stdin has ended")

    def _ended(self, ended: asyncio.Future[Exception | None]) -> None:
        if not self._lost.done():
            self._lost.set_result(ended.result())

    def acked_at(self) -> float | None:
        """See channel.Link."""
        return None

    async def wait_lost(self) -> Exception | None:
        """See channel.Link."""
        return await asyncio.shield(self._lost)

    def abort(self) -> None:
        """See channel.Link."""
        if self._channel is not None:
            self._channel.abort()

    async def close(self) -> None:
        """See channel.Link."""
        if self._channel is not None and not self._channel.ended.done():
            self._channel.close()
            await asyncio.wait([self._channel.ended], timeout=2.0)
