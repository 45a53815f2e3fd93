"""Servers whose handles see the size that a file had when it was opened (ProFTPD's), or the name
(MySecureShell's)."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from netfs.client.remote import api
from netfs.client.remote.files import SftpFiles, SftpHandle
from netfs.client.remote.requester import Pending
from netfs.sftp import requests as req
from netfs.sftp.attrs import Attrs
from netfs.sftp.codes import PacketType, Status
from netfs.sftp.responses import StatusResponse
from netfs.wire import Buffer
from tests.unit.remote.links import Cut, World
from tests.unit.remote.test_session import running

GROWN = b"grown " * 1000


class Sight:
    """How far each handle of the server sees; a real sftp-server is behind it."""

    def __init__(self) -> None:
        self.ends: dict[SftpHandle, int] = {}
        self.most: int | None = None  # bytes that any sees, as in /sys

    def end(self, handle: SftpHandle) -> int:
        return self.ends[handle] if self.most is None else self.most


@pytest.fixture
def sight(monkeypatch: pytest.MonkeyPatch) -> Sight:
    sight = Sight()
    opened, read_block = SftpFiles._opened, SftpFiles._read_block

    async def opened_now(files: SftpFiles, opening: Pending) -> SftpHandle:
        handle = await opened(files, opening)
        sight.ends[handle] = os.stat(handle.path).st_size
        return handle

    async def read_short(
        files: SftpFiles, handle: SftpHandle, offset: int, size: int, end: int | None
    ) -> Buffer:
        data = await read_block(files, handle, offset, size, end)
        return data[: max(0, sight.end(handle) - offset)]

    monkeypatch.setattr(SftpFiles, "_opened", opened_now)
    monkeypatch.setattr(SftpFiles, "_read_block", read_short)
    return sight


@pytest.fixture
def path(tmp_path: Path) -> bytes:
    (tmp_path / "file").write_bytes(b"short")
    return os.fsencode(tmp_path / "file")


async def test_what_was_written_through_another_handle_is_read(sight: Sight, path: bytes) -> None:
    async with running(World()) as session:
        reader = await session.open(path, api.READ)
        writer = await session.open(path, api.WRITE)
        await session.write(writer, 0, [GROWN])
        parts = await asyncio.gather(
            *(session.read(reader, at, 500) for at in range(0, len(GROWN), 500))
        )
        assert b"".join(parts) == GROWN
        assert len(sight.ends) == 3, "one renewal for all of them"
        assert await session.read(reader, 0, 10_000) == GROWN
        assert len(sight.ends) == 3
        await session.write(writer, len(GROWN), [GROWN])
        assert await session.read(reader, 0, 20_000) == GROWN * 2
        assert len(sight.ends) == 4
        await session.close(reader)
        await session.close(writer)


async def test_what_was_grown_elsewhere_is_read_once_it_is_known(sight: Sight, path: bytes) -> None:
    async with running(World()) as session:
        reader = await session.open(path, api.READ)
        os.truncate(path, 9000)
        assert await session.read(reader, 0, 9000) == b"short"
        await session.fstat(reader)
        assert await session.read(reader, 0, 9000) == b"short" + bytes(8995)


async def test_a_file_that_somebody_cuts_ends_there(sight: Sight, path: bytes) -> None:
    async with running(World()) as session:
        reader = await session.open(path, api.READ)
        os.truncate(path, 2)
        assert await session.read(reader, 0, 100) == b"sh"
        assert await session.read(reader, 0, 100) == b"sh"
        assert len(sight.ends) == 1, "its size is asked for, and it is not opened again"


async def test_another_file_of_that_name_is_not_read_instead(sight: Sight, path: bytes) -> None:
    async with running(World()) as session:
        reader = await session.open(path, api.READ)
        writer = await session.open(path, api.WRITE)
        Path(os.fsdecode(path) + "-other").write_bytes(b"another file")
        os.rename(path + b"-other", path)
        await session.write(writer, 0, [GROWN])
        for _ in range(2):
            with pytest.raises(OSError, match="does not see all"):
                await session.read(reader, 0, 10_000)


async def test_a_removed_file_cannot_be_opened_again(sight: Sight, path: bytes) -> None:
    async with running(World()) as session:
        reader = await session.open(path, api.READ)
        writer = await session.open(path, api.WRITE)
        await session.remove(path)
        await session.write(writer, 0, [GROWN])
        with pytest.raises(OSError, match="does not see all"):
            await session.read(reader, 0, 10_000)
        assert await session.read(reader, 0, 5) == GROWN[:5]


async def test_a_size_that_is_no_promise_is_looked_into_once(sight: Sight, path: bytes) -> None:
    """/sys: each file has 4096 bytes, and some have an end before."""
    sight.most = 3
    async with running(World()) as session:
        reader = await session.open(path, api.READ)
        for _ in range(3):
            assert await session.read(reader, 0, 4096) == b"sho"
        assert len(sight.ends) == 2


@pytest.mark.parametrize("point", ["before", "executed"])
@pytest.mark.parametrize("kind", [PacketType.FSTAT, PacketType.OPEN])
async def test_a_link_lost_meanwhile(
    sight: Sight, path: bytes, kind: PacketType, point: str
) -> None:
    world = World()
    async with running(world) as session:
        reader = await session.open(path, api.READ)
        writer = await session.open(path, api.WRITE)
        await session.write(writer, 0, [GROWN])
        cut = Cut(kind, point)
        world.cut(cut)
        assert await session.read(reader, 0, 10_000) == GROWN
        assert cut.done
        assert await session.read(reader, 0, 10_000) == GROWN


@pytest.fixture
def by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """FSTAT and FSETSTAT look for the name that the handle was opened by (MySecureShell)."""

    async def attrs(files: SftpFiles, request: req.Request) -> Attrs:
        if isinstance(request, req.Fstat):
            raise await files._refusal(request, StatusResponse(Status.NO_SUCH_FILE))
        return await real_attrs(files, request)

    async def done(files: SftpFiles, request: req.Request) -> None:
        if isinstance(request, req.Fsetstat):
            raise await files._refusal(request, StatusResponse(Status.NO_SUCH_FILE))
        await real_done(files, request)

    real_attrs, real_done = SftpFiles.attrs, SftpFiles.done
    monkeypatch.setattr(SftpFiles, "attrs", attrs)
    monkeypatch.setattr(SftpFiles, "done", done)


async def test_a_renamed_open_file_is_found_by_its_new_name(by_name: None, path: bytes) -> None:
    async with running(World()) as session:
        handle = await session.open(path, api.WRITE)
        await session.rename(path, path + b"2")
        assert (await session.fstat(handle)).size == 5
        await session.fsetstat(handle, Attrs(size=3))
        await session.fsetstat(handle, Attrs(mode=0o600))
        found = os.stat(path + b"2")
        assert (found.st_size, found.st_mode) == (3, 0o100600)
        await session.remove(path + b"2")
        with pytest.raises(OSError, match="Bad file descriptor"):
            await session.fstat(handle)
        with pytest.raises(OSError, match="Bad file descriptor"):
            await session.fsetstat(handle, Attrs(size=1))
