"""A real sftp-server on a socket pair: a channel without SSH."""

import asyncio
import contextlib
import os
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Sequence

from netfs.client.config import SemanticsConfig
from netfs.client.remote import files
from netfs.client.remote.channel import Receiver
from netfs.client.remote.requester import Requester
from netfs.client.remote.window import new_links
from netfs.wire import Buffer

SERVER = "/usr/lib/openssh/sftp-server"


class PipeChannel(asyncio.Protocol):
    """The Channel and its transport's protocol at once."""

    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver
        self.transport: asyncio.Transport
        self.writes: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        self.receiver.data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.receiver.connection_lost(exc)

    def pause_writing(self) -> None:
        self.receiver.pause_writing()

    def resume_writing(self) -> None:
        self.receiver.resume_writing()

    def write(self, buffers: Sequence[Buffer]) -> None:
        data = b"".join(buffers)
        self.writes.append(data[:64])
        self.transport.write(data)

    def write_buffer_size(self) -> int:
        return self.transport.get_write_buffer_size()

    def close(self) -> None:
        self.transport.close()

    def abort(self) -> None:
        self.transport.abort()


class SftpServer:
    """The process behind a channel."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process

    def open_fds(self, below: bytes) -> int:
        """How many files under *below* the server has open."""
        count = 0
        for fd in os.listdir(f"/proc/{self.process.pid}/fd"):
            with contextlib.suppress(FileNotFoundError):
                target = os.readlink(f"/proc/{self.process.pid}/fd/{fd}")
                count += target.encode().startswith(below)
        return count

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


async def open_pipe(receiver: Receiver, *arguments: str) -> tuple[PipeChannel, SftpServer]:
    """Start an sftp-server and a channel to it."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen([SERVER, *arguments], stdin=theirs, stdout=theirs)
    ours.setblocking(False)
    loop = asyncio.get_running_loop()
    _, channel = await loop.create_connection(lambda: PipeChannel(receiver), sock=ours)
    return channel, SftpServer(process)


@contextlib.asynccontextmanager
async def sftp_files(
    *arguments: str, semantics: SemanticsConfig | None = None
) -> AsyncIterator[tuple[files.SftpFiles, SftpServer]]:
    """An SftpFiles on an sftp-server of its own."""
    requester = Requester(new_links(), time.monotonic)
    channel, server = await open_pipe(requester, *arguments)
    try:
        yield await files.start(requester, channel, semantics or SemanticsConfig()), server
        channel.close()
        await requester.wait_ended()
    finally:
        server.kill()
