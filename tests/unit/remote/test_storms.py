"""Many cancels and cuts at random: nothing leaks, nothing is lost."""

import asyncio
import os
import random
from pathlib import Path

import pytest

from netfs.client.remote import api
from netfs.client.remote.session import Session
from netfs.sftp.codes import PacketType
from tests.unit.remote.links import Cut, World
from tests.unit.remote.test_session import config, refused, running


async def use(session: Session, top: bytes, number: int) -> None:
    path = top + b"/%d" % (number % 50)
    handle = await session.open(path, api.READ | api.WRITE | api.CREAT, 0o600)
    try:
        await session.write(handle, 0, [b"x" * 100])
        await session.read(handle, 0, 100)
        async for _ in session.scandir(top + b"/empty"):
            break
    finally:
        await session.close(handle)


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_ten_thousand_cancels_leave_no_handle(tmp_path: Path) -> None:
    top = os.fsencode(tmp_path)
    os.mkdir(top + b"/empty")
    chance = random.Random(7)
    world = World()
    async with running(world, seconds=280) as session:
        cancels = 0
        number = 0
        while cancels < 10_000:
            tasks = [asyncio.ensure_future(use(session, top, number + n)) for n in range(250)]
            number += 250
            for task in chance.sample(tasks, 240):
                for _ in range(chance.choice((0, 0, 0, 1, 3))):
                    await asyncio.sleep(0)
                cancels += task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        async for _ in session.scandir(top):
            pass
        server = world.link.server
        assert server is not None
        async with asyncio.timeout(5):
            while server.open_fds(top):
                await session.lstat(top)
        statistics = session.statistics()
        assert statistics.open_files == 0
        assert len(statistics.channels) == 1
        assert (statistics.channels[0].queued, statistics.channels[0].pending) == (0, 0)
        assert session.links.reads.in_flight == session.links.writes.in_flight == 0


async def test_writes_are_whole_after_many_cuts(tmp_path: Path) -> None:
    top = os.fsencode(tmp_path)
    chance = random.Random(11)
    world = World()
    kinds = (PacketType.WRITE, PacketType.WRITE, PacketType.READ, PacketType.EXTENDED)
    async with running(world) as session:
        handle = await session.open(top + b"/f", api.READ | api.WRITE | api.CREAT, 0o600)
        model = bytearray()
        for _ in range(30):
            world.cut(Cut(chance.choice(kinds), chance.choice(("before", "executed"))))
            writes = []
            for _ in range(5):
                data = chance.randbytes(chance.randrange(1, 40_000))
                offset = len(model)
                model += data
                writes.append(session.write(handle, offset, [data]))
            await asyncio.gather(*writes)
            start = chance.randrange(len(model))
            assert await session.read(handle, start, 1000) == model[start : start + 1000]
            await session.fsync(handle)
        assert len(world.links) > 20
        await session.close(handle)
    assert Path(os.fsdecode(top + b"/f")).read_bytes() == model


async def test_a_silent_server_costs_link_timeout_and_leaks_nothing(tmp_path: Path) -> None:
    top = os.fsencode(tmp_path)
    world = World()
    async with running(world, config(link_timeout_s=0.3)) as session:
        await session.lstat(top)
        world.link.is_black_hole = True
        session.nudge()  # as when the network changes: probe at once
        assert await refused(session.lstat(top))
        assert not session.is_up
        world.link.lose()
        await session.wait_up()
        await session.lstat(top)
