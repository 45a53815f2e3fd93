"""One written file over several channels, each a real sftp-server of its own."""

import asyncio
import os
import random
import signal
from collections.abc import Coroutine
from pathlib import Path

import pytest

from netfs.client.remote import api, lanes, spread
from netfs.client.remote.channel import Receiver
from netfs.client.remote.errors import ConnectError, ConnectErrorKind
from netfs.client.remote.handles import SessionHandle
from netfs.client.remote.session import Session
from netfs.client.remote.spread import Spread
from netfs.client.remote.window import new_links
from netfs.sftp.attrs import Attrs
from tests.unit.remote.links import World
from tests.unit.remote.pipe import PipeChannel, SftpServer
from tests.unit.remote.test_session import TwoChannelLink, content, put, running, until_two

BLOCK = 32 * 1024


class WideLink(TwoChannelLink):
    """As many channels as OpenSSH gives; fewer where the world says so."""

    max_channels = 10
    asked = 0

    async def open_channel(self, receiver: Receiver) -> PipeChannel:  # type: ignore[override]
        world = self._world
        assert isinstance(world, WideWorld)
        self.asked += 1
        if self.asked > world.allowed:
            raise ConnectError(ConnectErrorKind.NO_SFTP, "open failed")
        return await super().open_channel(receiver)


class WideWorld(World):
    def __init__(self, allowed: int = 10) -> None:
        super().__init__()
        self.allowed = allowed

    async def connect(self) -> WideLink:
        await self.is_reachable.wait()
        if self.links:
            self.between()
        link = WideLink(self)
        self.links.append(link)
        return link

    @property
    def servers(self) -> list[SftpServer]:
        link = self.link
        assert isinstance(link, WideLink)
        return [server for _, server in link.channels]

    def open_fds(self, top: bytes) -> int:
        return sum(server.open_fds(top) for server in self.servers if server.process.poll() is None)


@pytest.fixture
def top(tmp_path: Path) -> bytes:
    return os.fsencode(tmp_path)


@pytest.fixture(autouse=True)
def _eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any file with two WRITEs under way is big, and every way is long."""
    monkeypatch.setattr(spread, "CARRIED", 1)
    monkeypatch.setattr(spread, "_BIG", 0)
    monkeypatch.setattr(spread, "_FAR_S", 0.0)


async def write_all(session: Session, handle: api.RemoteHandle, data: bytes, at: int = 0) -> None:
    blocks = range(0, len(data), BLOCK)
    await asyncio.gather(
        *(session.write(handle, at + start, [data[start : start + BLOCK]]) for start in blocks)
    )


async def wide(session: Session, path: bytes) -> tuple[SessionHandle, int]:
    """A new file that goes over all channels, with its size."""
    await until_two(session)
    handle = await session.open(path, api.READ | api.WRITE | api.CREAT, 0o600)
    while len(handle.spread.strands) < lanes.MOST:
        await write_all(session, handle, bytes(4 * BLOCK))
    return handle, 4 * BLOCK


async def nothing_open(session: Session, world: WideWorld, top: bytes) -> None:
    async with asyncio.timeout(5):
        while world.open_fds(top):
            await session.lstat(top)


async def test_a_big_file_goes_over_all_channels_and_leaves_nothing_open(top: bytes) -> None:
    world = WideWorld()
    data = random.Random(1).randbytes(64 * BLOCK)
    async with running(world) as session:
        handle, _ = await wide(session, top + b"/f")
        assert len(session.statistics().channels) == 2 + lanes.MOST
        before = [channel.bytes_sent for channel in session.statistics().channels]
        await write_all(session, handle, data)
        after = [channel.bytes_sent for channel in session.statistics().channels]
        assert all(b - a > BLOCK for a, b in zip(before[1:], after[1:], strict=True))
        assert after[0] - before[0] < BLOCK  # names have their channel for themselves
        await session.fsetstat(handle, Attrs(size=len(data)))
        await session.close(handle)
        assert content(top + b"/f") == data
        await nothing_open(session, world, top)
        assert len(world.links) == 1


@pytest.mark.parametrize("what", ["fsync", "fsetstat", "fstat", "close", "copy"])
async def test_what_comes_after_writes_waits_for_all_channels(what: str, top: bytes) -> None:
    world = WideWorld()
    async with running(world) as session:
        handle, size = await wide(session, top + b"/f")
        put(top + b"/source", b"source")
        source = await session.open(top + b"/source", api.READ)
        stopped = world.servers[-1].process
        stopped.send_signal(signal.SIGSTOP)
        writing = asyncio.ensure_future(write_all(session, handle, b"x" * 14 * BLOCK, size))
        while not handle.spread.in_flight:  # all come in one turn
            await asyncio.sleep(0)
        requests: dict[str, Coroutine[None, None, object]] = {
            "fsync": session.fsync(handle),
            "fsetstat": session.fsetstat(handle, Attrs(size=7)),
            "fstat": session.fstat(handle),
            "close": session.close(handle),
            "copy": session.copy_data(source, 0, 6, handle, 0),
        }
        after = asyncio.ensure_future(requests.pop(what))
        for unused in requests.values():
            unused.close()
        later = None
        await asyncio.sleep(0)
        if what != "close":
            later = asyncio.ensure_future(session.write(handle, 3, [b"later"]))
        for _ in range(20):
            await session.lstat(top)
        assert not writing.done()
        assert not after.done()
        assert later is None or not later.done()
        stopped.send_signal(signal.SIGCONT)
        outcome = await after
        assert writing.done()
        if later is not None:
            await later
        if what == "fsetstat":
            assert content(top + b"/f") == bytes(3) + b"later"
        elif what == "fstat":
            assert isinstance(outcome, Attrs)
            assert outcome.size == size + 14 * BLOCK
        else:
            assert content(top + b"/f")[size:] == b"x" * 14 * BLOCK
        await session.close(source)
        if what != "close":
            await session.close(handle)
        await nothing_open(session, world, top)


@pytest.mark.parametrize("lost", ["link", "own channel", "further channel"])
async def test_a_cut_in_the_middle_leaves_the_right_content(lost: str, top: bytes) -> None:
    world = WideWorld()
    data = random.Random(2).randbytes(100 * BLOCK)
    async with running(world) as session:
        handle, _ = await wide(session, top + b"/f")
        for round_ in range(3):
            half = asyncio.ensure_future(write_all(session, handle, data))
            for _ in range(round_):
                await session.lstat(top)
            if lost == "link":
                world.link.lose()
            else:
                world.servers[1 if lost == "own channel" else -1].kill()
            await half
            await session.fsync(handle)
            assert content(top + b"/f")[: len(data)] == data
        assert len(world.links) > 1
        await session.close(handle)
        await nothing_open(session, world, top)


async def test_another_file_at_the_path_is_never_written(top: bytes) -> None:
    path = top + b"/f"
    world = WideWorld()
    async with running(world) as session:
        await until_two(session)
        handle = await session.open(path, api.WRITE | api.CREAT, 0o600)
        put(top + b"/other", b"another")
        os.rename(top + b"/other", path)
        for start in range(0, 20 * BLOCK, 4 * BLOCK):
            await write_all(session, handle, bytes(4 * BLOCK), start)
        async with asyncio.timeout(5):
            while not handle.spread.is_final:
                await write_all(session, handle, bytes(4 * BLOCK))
        assert not handle.spread.strands
        assert content(path) == b"another"
        await session.close(handle)
        await nothing_open(session, world, top)


async def test_a_removed_file_is_not_opened_again(top: bytes) -> None:
    world = WideWorld()
    async with running(world) as session:
        await until_two(session)
        handle = await session.open(top + b"/f", api.WRITE | api.CREAT, 0o600)
        await session.remove(top + b"/f")
        async with asyncio.timeout(5):
            while not handle.spread.is_final:
                await write_all(session, handle, bytes(4 * BLOCK))
        assert not handle.spread.strands
        await session.close(handle)
        assert os.listdir(top) == []


@pytest.mark.parametrize("allowed", [2, 4])
async def test_a_server_that_gives_few_channels_gets_along(allowed: int, top: bytes) -> None:
    world = WideWorld(allowed)
    data = random.Random(3).randbytes(64 * BLOCK)
    async with running(world) as session:
        await until_two(session)
        handle = await session.open(top + b"/f", api.WRITE | api.CREAT, 0o600)
        async with asyncio.timeout(10):
            while not handle.spread.is_final and len(handle.spread.strands) < allowed - 2:
                await write_all(session, handle, data)
        await write_all(session, handle, data)
        await session.close(handle)
        assert content(top + b"/f") == data
        assert len(session.statistics().channels) == allowed
        assert len(world.links) == 1


async def test_channels_that_nobody_uses_are_closed_quietly(
    top: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "IDLE_S", 0.01)
    world = WideWorld(allowed=2 + 2 * lanes.MOST)
    async with running(world) as session:
        for _ in range(2):  # they can be had again
            handle, _ = await wide(session, top + b"/f")
            await session.close(handle)
            async with asyncio.timeout(5):
                while len(session.statistics().channels) > 2:
                    await session.lstat(top)
            for _ in range(5):
                await session.lstat(top)
        assert len(world.links) == 1


async def test_an_abandoned_write_is_waited_for(top: bytes) -> None:
    world = WideWorld()
    async with running(world) as session:
        handle, size = await wide(session, top + b"/f")
        stopped = world.servers[-1].process
        stopped.send_signal(signal.SIGSTOP)
        writing = asyncio.ensure_future(write_all(session, handle, b"x" * 14 * BLOCK, size))
        for _ in range(5):
            await session.lstat(top)
        writing.cancel()
        cutting = asyncio.ensure_future(session.fsetstat(handle, Attrs(size=0)))
        for _ in range(20):
            await session.lstat(top)
        assert not cutting.done()
        stopped.send_signal(signal.SIGCONT)
        await cutting
        assert content(top + b"/f") == b""
        await session.close(handle)


async def test_a_short_way_or_a_small_file_wants_no_further_channels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.undo()
    links = new_links()
    links.writes.in_flight = 8 << 20
    one = Spread()
    one.in_flight = 8 << 20
    assert one.wants(1 << 20, links) == 0  # small so far
    assert one.wants(16 << 20, links) == 0  # nothing is known of the way
    links.round_trip.sample(0.0005, 1.0)
    assert one.wants(1, links) == 0
    links.round_trip.sample(0.0005, 2.0)
    far = new_links()
    far.round_trip.sample(0.1, 1.0)
    far.writes.in_flight = 1 << 20
    assert one.wants(1, far) == 0  # the way holds less than one channel carries
    far.writes.in_flight = 2 << 20
    assert one.wants(1, far) == 1
