"""Open files against a model: whatever the order in which a server answers, bytes are right."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Sequence
from unittest import mock

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from netfs.client.config import CacheConfig
from netfs.client.data import extents, writequeue
from netfs.client.remote import api
from netfs.sftp.attrs import Attrs, Limits
from netfs.wire import Buffer
from tests.fakes.mounted_files import Open, Rig
from tests.fakes.remote import FakeRemote, Handle

SIZE = 200  # bytes: where operations take place
SOURCE = bytes(range(1, 200))  # of a file to copy from


class Shuffling(FakeRemote):
    """Runs the writes of a file in any order and answers everything in any order, as the draft
    allows; other requests of a handle run after the writes before them."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.limits = Limits(100, 16, 16, 100)
        self._random = random.Random(seed)
        self._running: list[asyncio.Future[None]] = []

    async def _turns(self) -> None:
        for _ in range(self._random.choice((0, 0, 1, 2, 3, 8))):
            await asyncio.sleep(0)

    async def write(self, handle: api.RemoteHandle, offset: int, data: Sequence[Buffer]) -> None:
        ran: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._running.append(ran)
        try:
            await self._turns()
            await super().write(handle, offset, data)
        finally:
            self._running.remove(ran)
            ran.set_result(None)
        await self._turns()

    async def _after_writes(self) -> None:
        if self._running:
            await asyncio.wait(list(self._running))

    async def read(
        self, handle: api.RemoteHandle, offset: int, size: int, *, end: int | None = None
    ) -> Buffer:
        await self._turns()
        data = await super().read(handle, offset, size, end=end)
        await self._turns()
        return data

    async def fsetstat(self, handle: api.RemoteHandle, attrs: Attrs) -> None:
        await self._after_writes()
        await super().fsetstat(handle, attrs)
        await self._turns()

    async def fstat(self, handle: api.RemoteHandle) -> Attrs:
        await self._after_writes()
        attrs = await super().fstat(handle)
        await self._turns()
        return attrs

    async def close(self, handle: api.RemoteHandle) -> None:
        assert isinstance(handle, Handle)
        await self._after_writes()
        await super().close(handle)

    async def lstat(self, path: bytes) -> Attrs:
        attrs = await super().lstat(path)
        await self._turns()
        return attrs


offsets = st.integers(0, SIZE)
lengths = st.integers(1, 60)
files = st.integers(0, 3)
operations = st.one_of(
    st.tuples(st.just("write"), files, offsets, lengths),
    st.tuples(st.just("write"), files, offsets, lengths),
    st.tuples(st.just("append"), files, st.integers(1, 9), st.just(0)),
    st.tuples(st.just("append"), files, st.integers(1, 9), st.just(0)),
    st.tuples(st.just("read"), files, offsets, lengths),
    st.tuples(st.just("read"), files, st.just(0), st.just(SIZE * 2)),
    st.tuples(st.just("truncate"), files, offsets, st.just(0)),
    st.tuples(st.just("flush"), files, st.just(0), st.just(0)),
    st.tuples(st.just("fsync"), files, st.just(0), st.just(0)),
    st.tuples(st.just("reopen"), files, st.integers(0, 3), st.just(0)),
    st.tuples(st.just("stat"), files, st.just(0), st.just(0)),
    st.tuples(st.just("times"), files, st.integers(1, 1000), st.just(0)),
    st.tuples(st.just("turns"), files, st.integers(1, 6), st.just(0)),
    st.tuples(st.just("wait"), files, st.integers(1, 30), st.just(0)),
    st.tuples(st.just("copy"), files, offsets, lengths),
)


class Run:
    """One history on one file, with four open files on it."""

    def __init__(self, rig: Rig, opened: list[Open], source: Open) -> None:
        self.rig = rig
        self.opened = opened
        self.source = source
        self.model = bytearray()
        self.next_byte = 1

    def fresh(self, size: int) -> bytes:
        """Bytes unlike those written before."""
        self.next_byte += 1
        return bytes((self.next_byte + index) % 251 + 1 for index in range(size))

    async def step(self, name: str, which: int, first: int, second: int) -> None:
        rig, model, file = self.rig, self.model, self.opened[which]
        if name == "append":
            name, first, second = "write", len(model), first
        if name == "write":
            data = self.fresh(second)
            assert await rig.write(file, first, data) == second
            if first > len(model):
                model.extend(bytes(first - len(model)))
            model[first : first + second] = data
        elif name == "read":
            assert await rig.read(file, first, second) == model[first : first + second]
        elif name == "truncate":
            await rig.truncate(file.nodeid, first)
            del model[first:]
            model.extend(bytes(first - len(model)))
        elif name == "flush":
            await rig.flush(file)
            assert rig.remote.at(b"/a").data == model
        elif name == "fsync":
            await rig.fsync(file)
            assert rig.remote.at(b"/a").data == model
        elif name == "reopen":
            await rig.close(file)
            assert rig.remote.at(b"/a").data == model
            flags = os.O_RDWR | (os.O_TRUNC if first == 0 else 0)
            if first == 0:
                del model[:]
            self.opened[which] = await rig.open(b"a", flags)
        elif name == "stat":
            assert (await rig.stat(b"a"))[0] == len(model)
        elif name == "times":
            await rig.setattr(file.nodeid, times_s=(first, first))
            assert (await rig.stat(b"a"))[1] == first
        elif name == "turns":
            for _ in range(first):
                await asyncio.sleep(0)
        elif name == "wait":
            rig.clock.advance(first)
            rig.remote.now += first
        elif name == "copy":
            copied = await rig.copy(self.source, first, file, first, second)
            if copied:
                model.extend(bytes(max(0, first - len(model))))
                model[first : first + copied] = SOURCE[first : first + copied]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    history=st.lists(operations, max_size=40),
    seed=st.integers(0, 1000),
    cache_size=st.sampled_from([0, 700, 3000, 1 << 20]),
    dirty_limit=st.sampled_from([40, 1 << 20]),
)
def test_bytes_are_right_whatever_the_order_of_answers(history, seed, cache_size, dirty_limit):
    async def run() -> None:
        remote = Shuffling(seed)
        remote.put(b"/source", SOURCE)
        cache = CacheConfig(cache_size=cache_size, dirty_limit=dirty_limit)
        async with Rig(remote, cache=cache) as rig:
            opened = [await rig.create(b"a")]
            opened += [await rig.open(b"a", os.O_RDWR) for _ in range(3)]
            history_run = Run(rig, opened, await rig.open(b"source"))
            for step in history:
                await history_run.step(*step)
            await rig.files.drain()
            assert remote.at(b"/a").data == history_run.model
            for file in [*history_run.opened, history_run.source]:
                await rig.close(file)
            await rig.until_idle()
            assert not remote.open_handles
            assert rig.files.pool.dirty.used == 0
            assert rig.files.dirty_files() == []
            assert rig.files.pool.upload.in_flight == rig.files.pool.download.in_flight == 0
            assert rig.files.pool.cache.currsize <= cache_size

    with (
        mock.patch.object(writequeue, "_COPY_BELOW", 12),
        mock.patch.object(extents, "_COPY_REST", 4),
        mock.patch("netfs.client.data.pool.LINGER_S", 0.0),
    ):
        asyncio.run(run())
