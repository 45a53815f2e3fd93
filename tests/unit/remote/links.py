"""Links to real sftp-servers that record and can be cut at any packet."""

import asyncio
from collections.abc import Callable, Sequence

from netfs.client.remote.channel import Receiver
from netfs.client.remote.errors import ConnectError, ConnectErrorKind
from netfs.sftp.codes import PacketType
from netfs.sftp.framing import FrameSplitter
from netfs.wire import Buffer
from tests.unit.remote.pipe import PipeChannel, SftpServer, open_pipe


class Cut:
    """Where to cut: at the *nth* packet of *kind*, counted from now.

    Points: "before" it reaches the server; "executed": it ran and its answer is lost.
    """

    def __init__(self, kind: PacketType, point: str, nth: int = 1, name: bytes = b"") -> None:
        self.kind = kind
        self.point = point
        self.left = nth
        self.name = name  # must be in the packet
        self.request_id: bytes | None = None
        self.done = False


class CutLink:
    """A Link whose channel is an sftp-server's; dies by ``cut``."""

    max_channels = 1
    may_ask = False

    def __init__(self, world: "World") -> None:
        self._world = world
        self._lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self._receiver: Receiver | None = None
        self.pipe: PipeChannel | None = None
        self.server: SftpServer | None = None
        self._up = FrameSplitter(1 << 20)
        self._down = FrameSplitter(1 << 20)
        self.is_dead = False
        self.is_black_hole = False

    async def open_channel(self, receiver: Receiver) -> "CutChannel":
        self._receiver = receiver
        self.pipe, self.server = await open_pipe(self)
        return CutChannel(self)

    # The channel.

    def write(self, buffers: Sequence[Buffer]) -> None:
        for packet in self._up.feed(b"".join(buffers)):
            if self.is_dead or self.is_black_hole:
                return
            cut = self._world.next_cut
            if cut is not None and cut.request_id is None and self._matches(cut, packet):
                cut.left -= 1
                if cut.left == 0:
                    cut.request_id = bytes(packet[1:5])
                    if cut.point == "before":
                        self._cut(cut)
                        return
            self._forward(packet)

    def _matches(self, cut: Cut, packet: memoryview) -> bool:
        return packet[0] == cut.kind and cut.name in bytes(packet)

    def _forward(self, packet: memoryview) -> None:
        assert self.pipe is not None
        self.pipe.write((len(packet).to_bytes(4, "big"), packet))

    def _cut(self, cut: Cut) -> None:
        cut.done = True
        self._world.next_cut = None
        self.lose()

    # The receiver of the real channel.

    def data_received(self, data: Buffer) -> None:
        assert self._receiver is not None
        for packet in self._down.feed(data):
            if self.is_dead or self.is_black_hole:
                return
            cut = self._world.next_cut
            if cut is not None and cut.request_id == bytes(packet[1:5]):
                self._cut(cut)
                return
            self._receiver.data_received(len(packet).to_bytes(4, "big") + bytes(packet))

    def connection_lost(self, exc: Exception | None) -> None:
        self.lose()

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...

    # The link.

    def lose(self) -> None:
        if self.is_dead:
            return
        self.is_dead = True
        if self.pipe is not None:
            self.pipe.abort()
        if self.server is not None:
            self.server.kill()
        if self._receiver is not None:
            self._receiver.connection_lost(ConnectionResetError("cut"))
        if not self._lost.done():
            self._lost.set_result(ConnectError(ConnectErrorKind.LOST, "cut"))

    async def probe(self) -> None:
        if self.is_black_hole:
            await asyncio.Event().wait()

    async def wait_lost(self) -> Exception | None:
        return await asyncio.shield(self._lost)

    def acked_at(self) -> float | None:
        return None

    def abort(self) -> None:
        self.lose()

    async def close(self) -> None:
        self.lose()


class CutChannel:
    """The Channel of a CutLink."""

    def __init__(self, link: CutLink) -> None:
        self._link = link

    def write(self, buffers: Sequence[Buffer]) -> None:
        self._link.write(buffers)

    def write_buffer_size(self) -> int:
        return 0

    def close(self) -> None:
        self._link.lose()

    def abort(self) -> None:
        self._link.lose()


class World:
    """Makes links one after the other."""

    def __init__(self) -> None:
        self.links: list[CutLink] = []
        self.next_cut: Cut | None = None
        self.between: Callable[[], None] = lambda: None  # runs before each new link
        self.is_reachable = asyncio.Event()
        self.is_reachable.set()

    async def connect(self) -> CutLink:
        await self.is_reachable.wait()
        if self.links:
            self.between()
        link = CutLink(self)
        self.links.append(link)
        return link

    @property
    def link(self) -> CutLink:
        return self.links[-1]

    def cut(self, cut: Cut) -> None:
        self.next_cut = cut
