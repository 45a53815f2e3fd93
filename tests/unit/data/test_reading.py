"""How reads are answered: from memory, by shared fetches, ahead, and within the budgets."""

from __future__ import annotations

import asyncio
import errno
import os

import pytest

from netfs.client.config import CacheConfig, SemanticsConfig
from netfs.client.operations import files as operations
from netfs.fuse import requests
from netfs.sftp.attrs import Limits
from tests.fakes.mounted_files import WHO, Open, Rig
from tests.fakes.remote import FakeRemote

KIB = 1024


@pytest.fixture
def remote() -> FakeRemote:
    remote = FakeRemote()
    remote.limits = Limits(100_000, 64 * KIB, 64 * KIB, 100)
    remote.put(b"/a", bytes(range(256)) * 4096)  # 1 MiB
    remote.put(b"/big", b"0123456789abcdef" * (512 * KIB))  # 8 MiB
    remote.now += 100
    return remote


def start(rig: Rig, file: Open, offset: int, size: int) -> asyncio.Task:
    request = requests.Read(2, file.nodeid, *WHO, file.fh, offset, size, 0)
    answer = operations.read(rig.ctx, request)
    assert asyncio.iscoroutine(answer)
    return asyncio.ensure_future(answer)


async def test_concurrent_reads_of_a_place_share_one_fetch(remote):
    async with Rig(remote) as rig:
        file = await rig.open(b"a")
        tasks = [start(rig, file, 100 * KIB, 4 * KIB) for _ in range(5)]
        replies = await asyncio.gather(*tasks)
        assert len({b"".join(reply.body) for reply in replies}) == 1
        assert remote.count("read") == 1


async def test_random_reads_fetch_no_more_than_they_use(remote):
    async with Rig(remote) as rig:
        file = await rig.open(b"big")
        for page in (701, 33, 1800, 90, 5, 1201):
            await rig.read(file, page * 4 * KIB, 4 * KIB)
        await rig.until_idle()
        assert [read[2] for read in remote.reads] == [4 * KIB] * 6


async def test_a_whole_small_file_is_one_request(remote):
    remote.put(b"/s", b"x" * (50 * KIB))
    async with Rig(remote) as rig:
        file = await rig.open(b"s")
        await rig.read(file, 0, 16 * KIB)
        await rig.read(file, 16 * KIB, 64 * KIB)
        assert not rig.asked
        assert remote.reads == [(b"/s", 0, 50 * KIB)]


async def test_sequential_reads_are_answered_from_memory_after_a_while(remote):
    async with Rig(remote) as rig:
        file = await rig.open(b"big")
        waited = []
        for offset in range(0, 8 * 1024 * KIB, 128 * KIB):
            data = await rig.read(file, offset, 128 * KIB)
            assert data == b"0123456789abcdef" * (8 * KIB)
            waited.append(rig.asked)
            await rig.until_idle()
        assert not any(waited[1:])
        assert len(remote.reads) == 128
        assert {read[2] for read in remote.reads} == {64 * KIB}


async def test_what_is_fetched_ahead_and_left_counts_as_wasted(remote):
    async with Rig(remote) as rig:
        file = await rig.open(b"big")
        await rig.read(file, 0, 16 * KIB)
        await rig.until_idle()
        await rig.close(file)
        remote.put(b"/big", b"changed")
        rig.clock.advance(30)
        file = await rig.open(b"big")
        assert await rig.read(file, 0, 100) == b"changed"
        assert rig.files.statistics().ahead_wasted >= 128 * KIB


async def test_closing_stops_read_ahead(remote):
    async with Rig(remote) as rig:
        file = await rig.open(b"big")
        gates = [remote.hold("read") for _ in range(4)]
        task = start(rig, file, 0, 16 * KIB)
        await gates[3].arrived()
        gates[0].release()
        await asyncio.wait_for(task, 5)
        await rig.close(file)
        await rig.until_idle()
        assert rig.files.pool.download.in_flight == 0
        assert not remote.open_handles


async def test_a_cancelled_reader_does_not_harm_the_others(remote):
    async with Rig(remote) as rig:
        file = await rig.open(b"a")
        gate = remote.hold("read")
        one, two = start(rig, file, 512 * KIB, 4 * KIB), start(rig, file, 512 * KIB, 4 * KIB)
        await gate.arrived()
        one.cancel()
        with pytest.raises(asyncio.CancelledError):
            await one
        gate.release()
        assert len(b"".join((await two).body)) == 4 * KIB
        assert rig.files.pool.download.in_flight == 0


async def test_a_fetch_that_nobody_waits_for_any_more_is_given_up(remote):
    async with Rig(remote) as rig:
        file = await rig.open(b"a")
        gate = remote.hold("read")
        task = start(rig, file, 512 * KIB, 4 * KIB)
        await gate.arrived()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await rig.until_idle()
        assert rig.files.pool.download.in_flight == 0
        assert len(await rig.read(file, 512 * KIB, 4 * KIB)) == 4 * KIB


async def test_an_error_reaches_the_reader_and_is_not_kept(remote):
    async with Rig(remote) as rig:
        file = await rig.open(b"a")
        remote.fail_next("read", errno.EIO)
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            await rig.read(file, 512 * KIB, 4 * KIB)
        assert len(await rig.read(file, 512 * KIB, 4 * KIB)) == 4 * KIB


async def test_a_file_made_shorter_elsewhere_ends_there(remote):
    async with Rig(remote) as rig:
        file = await rig.open(b"a")
        del remote.at(b"/a").data[600_000:]
        assert await rig.read(file, 512 * KIB, 128 * KIB) == remote.at(b"/a").data[512 * KIB :]
        assert await rig.read(file, 700_000, 4 * KIB) == b""
        assert not rig.notes.told, "before the answers it would keep the kernel from believing them"
        await asyncio.sleep(0.2)
        assert rig.notes.told


async def test_a_write_overtakes_a_fetch_under_way(remote):
    async with Rig(remote) as rig:
        file = await rig.open(b"a", os.O_RDWR)
        gate = remote.hold("read", after=True)
        task = start(rig, file, 512 * KIB, 8)
        await gate.arrived()
        await rig.write(file, 512 * KIB, b"NEW")
        late = start(rig, file, 512 * KIB, 8)
        gate.release()
        assert b"".join((await late).body) == b"NEW\x03\x04\x05\x06\x07"
        await task


async def test_the_cache_budget_holds(remote):
    size = 300 * KIB
    async with Rig(remote, cache=CacheConfig(cache_size=size)) as rig:
        for name in (b"a", b"big", b"a"):
            file = await rig.open(name)
            for offset in range(0, 1024 * KIB, 64 * KIB):
                data = await rig.read(file, offset, 64 * KIB)
                assert data == remote.at(b"/" + name).data[offset : offset + 64 * KIB]
                assert rig.files.pool.cache.currsize <= size
            await rig.close(file)


async def test_the_dirty_budget_holds_back_writers_in_turn(remote):
    limit = 128 * KIB
    async with Rig(remote, cache=CacheConfig(dirty_limit=limit)) as rig:
        files = [await rig.create(b"w%d" % index) for index in range(3)]
        gates = [remote.hold("write") for _ in range(2)]
        await rig.write(files[0], 0, b"x" * limit)
        tasks = [asyncio.ensure_future(rig.write(file, limit, b"y" * (64 * KIB))) for file in files]
        await gates[1].arrived()
        assert not any(task.done() for task in tasks)
        assert rig.files.pool.dirty.used == limit
        tasks[1].cancel()
        for gate in gates:
            gate.release()
        await tasks[0]
        await tasks[2]
        for file in files:
            await rig.close(file)
        assert len(remote.at(b"/w0").data) == limit + 64 * KIB
        assert len(remote.at(b"/w1").data) == 0
        assert len(remote.at(b"/w2").data) == limit + 64 * KIB


async def test_a_writer_that_is_refused_while_held_back_lets_the_next_one_in(remote):
    limit = 64 * KIB
    async with Rig(remote, cache=CacheConfig(dirty_limit=limit)) as rig:
        full, other = await rig.create(b"full"), await rig.create(b"other")
        gate = remote.hold("write")
        await rig.write(full, 0, b"x" * limit)
        tasks = [
            asyncio.ensure_future(rig.write(file, 0, b"y" * KIB)) for file in (full, other, other)
        ]
        await gate.arrived()
        gate.release(errno.ENOSPC)
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            await tasks[0]
        await tasks[1]
        await tasks[2]
        await rig.close(other)
        assert len(remote.at(b"/other").data) == KIB


async def test_synchronous_writes_return_when_acknowledged(remote):
    async with Rig(remote, semantics=SemanticsConfig(sync=True)) as rig:
        file = await rig.create(b"w")
        await rig.write(file, 0, b"abc")
        assert remote.at(b"/w").data == b"abc"
        remote.fail_next("write", errno.ENOSPC)
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            await rig.write(file, 3, b"def")


async def test_direct_io_asks_the_server_each_time(remote):
    remote.put(b"/d", b"one")
    async with Rig(remote, semantics=SemanticsConfig(direct_io=True)) as rig:
        file = await rig.open(b"d", os.O_RDWR)
        assert await rig.read(file, 0, 200 * KIB) == b"one"
        remote.put(b"/d", b"and longer")
        assert await rig.read(file, 0, 200 * KIB) == b"and longer"
        await rig.write(file, 0, b"AND")
        assert await rig.read(file, 0, 200 * KIB) == b"AND longer"


async def test_sparse_files_beyond_four_gigabytes(remote):
    async with Rig(remote) as rig:
        file = await rig.create(b"s")
        far = 5 << 30
        gate = remote.hold("write")  # the fake would really make it
        await rig.write(file, far, b"end")
        assert (await rig.stat(b"s"))[0] == far + 3
        assert await rig.read(file, far - 5, 100) == bytes(5) + b"end"
        await gate.arrived()
        gate.release(errno.EFBIG)
        with pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
            await rig.close(file)


async def test_a_file_without_room_to_send_is_done_all_the_same(remote):
    async with Rig(remote) as rig:
        file = await rig.create(b"w")
        upload = rig.files.pool.upload
        limit, upload.limit = upload.limit, 3
        gate = remote.hold("write")
        await rig.write(file, 0, b"abc")
        flushing = asyncio.ensure_future(rig.flush(file))
        await gate.arrived()
        upload.limit = 0  # others fill the window
        gate.release()
        await rig.until_idle()
        assert not flushing.done()
        upload.limit = limit
        rig.files.pool.pump_next()
        await asyncio.wait_for(flushing, 5)
        assert rig.files.dirty_files() == []
        assert await rig.write(file, 3, b"") == 0
        assert rig.files.dirty_files() == []


async def test_many_small_files_do_not_hold_large_buffers(remote):
    remote.put(b"/s", b"tiny")
    async with Rig(remote) as rig:
        file = await rig.open(b"s")
        await rig.read(file, 0, 4096)
        data = file and rig.node(b"s").data
        assert data is not None
        (extent,) = data.extents
        assert memoryview(extent.data.obj).nbytes == 4


async def test_a_large_file_read_from_end_to_end_leaves_the_cache_to_others(remote):
    remote.put(b"/small", b"s" * (100 * KIB))
    async with Rig(remote, cache=CacheConfig(cache_size=8 * 1024 * KIB)) as rig:
        small, file = await rig.open(b"small"), await rig.open(b"big")
        await rig.read(small, 0, 100 * KIB)
        for _ in range(2):
            for offset in range(0, 8 * 1024 * KIB, 128 * KIB):
                data = await rig.read(file, offset, 128 * KIB)
                assert data == b"0123456789abcdef" * (8 * KIB)
        await rig.until_idle()
        assert rig.files.statistics().cached < 5 * 1024 * KIB
        await rig.read(small, 0, 100 * KIB)
        assert not rig.asked
