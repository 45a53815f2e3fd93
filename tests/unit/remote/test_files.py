"""SftpFiles on a real sftp-server."""

import asyncio
import contextlib
import errno
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from netfs.client.config import SemanticsConfig
from netfs.client.remote import api
from netfs.client.remote.files import SftpFiles
from netfs.client.remote.pending import Disconnected
from netfs.sftp import requests as req
from netfs.sftp.attrs import Attrs
from tests.unit.remote.pipe import SftpServer, sftp_files


@pytest_asyncio.fixture
async def served() -> AsyncIterator[tuple[SftpFiles, SftpServer]]:
    async with sftp_files() as pair:
        yield pair


@pytest.fixture
def files(served: tuple[SftpFiles, SftpServer]) -> SftpFiles:
    return served[0]


@pytest.fixture
def top(tmp_path: Path) -> bytes:
    return os.fsencode(tmp_path)


async def refused(awaitable: object) -> int:
    with pytest.raises(OSError) as caught:
        await awaitable  # type: ignore[misc]
    assert caught.value.errno is not None
    return caught.value.errno


async def names(files: SftpFiles, path: bytes) -> set[bytes]:
    return {entry.name async for batch in files.scandir(path) for entry in batch}


async def test_limits_are_the_servers(files: SftpFiles) -> None:
    assert files.limits.max_read == files.limits.max_write == 261120
    assert b"posix-rename@openssh.com" in files.extensions


async def test_a_file_is_written_and_read_back(files: SftpFiles, top: bytes) -> None:
    handle, attrs = await files.open_stat(
        top + b"/f", api.READ | api.WRITE | api.CREAT | api.EXCL, 0o640
    )
    assert attrs.mode == 0o100640
    content = os.urandom(700_000)
    await files.write(handle, 0, [content[:1000], memoryview(content)[1000:]])
    assert await files.read(handle, 0, 1_000_000) == content
    assert await files.read(handle, 699_990, 100) == content[-10:]
    assert await files.read(handle, 700_000, 100) == b""
    assert await files.read(handle, 0, 10, end=5) == content[:10]
    await files.fsync(handle)
    assert (await files.fstat(handle)).size == 700_000
    await files.fsetstat(handle, Attrs(size=3))
    await files.close(handle)
    assert Path(os.fsdecode(top + b"/f")).read_bytes() == content[:3]


async def test_a_directory_of_a_thousand_names_is_listed(files: SftpFiles, top: bytes) -> None:
    for number in range(1000):
        os.close(os.open(top + b"/%d" % number, os.O_CREAT))
    assert await names(files, top) == {b"%d" % number for number in range(1000)}


async def test_names_and_attributes(files: SftpFiles, top: bytes) -> None:
    await files.mkdir(top + b"/d", 0o750)
    await files.done(req.Symlink(b"target", top + b"/l"))
    assert await files.readlink(top + b"/l") == b"target"
    Path(os.fsdecode(top + b"/f")).write_bytes(b"x")
    await files.link(top + b"/f", top + b"/d/g")
    await files.setstat(top + b"/f", Attrs(atime=5, mtime=6))
    await files.setstat(top + b"/l", Attrs(atime=7, mtime=8), follow=False)
    assert os.stat(top + b"/d/g").st_mtime == 6
    assert os.lstat(top + b"/l").st_mtime == 8
    entries = {e.name: e.attrs async for batch in files.scandir(top) for e in batch}
    assert entries[b"f"].nlink == 2
    assert (await files.lstat(top + b"/d")).mode == 0o40750
    assert await files.realpath(top + b"/d/..") == top
    assert (await files.statvfs(top)).namemax == 255
    users, groups = await files.users([0, 4_000_000_000], [0])
    assert users == [b"root", b""]
    assert groups == [b"root"]
    await files.rename(top + b"/d/g", top + b"/f2")
    await files.rmdir(top + b"/d")
    await files.remove(top + b"/f2")
    assert await names(files, top) == {b"l", b"f"}


async def test_data_is_copied_inside_the_server(files: SftpFiles, top: bytes) -> None:
    Path(os.fsdecode(top + b"/f")).write_bytes(b"0123456789")
    source = await files.open(top + b"/f", api.READ)
    dest = await files.open(top + b"/g", api.WRITE | api.CREAT)
    await files.copy_data(source, 2, 5, dest, 1)
    assert Path(os.fsdecode(top + b"/g")).read_bytes() == b"\x0023456"


async def test_bare_failures_become_the_errno_of_a_local_filesystem(
    files: SftpFiles, top: bytes
) -> None:
    f, d, full, loop = top + b"/f", top + b"/d", top + b"/full", top + b"/loop"
    Path(os.fsdecode(f)).write_bytes(b"x")
    os.mkdir(d)
    os.mkdir(full)
    os.mkdir(full + b"/x")
    os.symlink(b"loop", loop)
    long = top + b"/" + b"n" * 256
    w, c, x = api.WRITE, api.CREAT, api.EXCL
    assert await refused(files.lstat(top + b"/none")) == errno.ENOENT
    assert await refused(files.lstat(long)) == errno.ENAMETOOLONG
    assert await refused(files.readlink(f)) == errno.EINVAL
    assert await refused(files.mkdir(d, 0o755)) == errno.EEXIST
    assert await refused(files.mkdir(f + b"/x", 0o755)) == errno.ENOTDIR
    assert await refused(files.mkdir(top + b"/none/x", 0o755)) == errno.ENOENT
    assert await refused(files.mkdir(top + b"/none/y/x", 0o755)) == errno.ENOENT
    assert await refused(files.mkdir(f + b"/y/x", 0o755)) == errno.ENOTDIR
    assert await refused(files.rmdir(full)) == errno.ENOTEMPTY
    assert await refused(files.rmdir(f)) == errno.ENOTDIR
    assert await refused(files.rmdir(top + b"/none")) == errno.ENOENT
    assert await refused(files.remove(d)) == errno.EISDIR
    assert await refused(files.remove(top + b"/none")) == errno.ENOENT
    assert await refused(files.done(req.Symlink(b"t", f))) == errno.EEXIST
    long_target = req.Symlink(b"t" * 5000, top + b"/new")
    assert await refused(files.done(long_target)) == errno.ENAMETOOLONG
    assert await refused(files.link(f, d)) == errno.EEXIST
    assert await refused(files.link(d, top + b"/new")) == errno.EPERM
    assert await refused(files.link(top + b"/none", top + b"/new")) == errno.ENOENT
    assert await refused(files.rename(d, full)) == errno.ENOTEMPTY
    assert await refused(files.rename(d, f)) == errno.ENOTDIR
    assert await refused(files.rename(f, d)) == errno.EISDIR
    assert await refused(files.rename(d, d + b"/x")) == errno.EINVAL
    assert await refused(files.rename(top + b"/none", f)) == errno.ENOENT
    assert await refused(files.rename(f, top + b"/none/x")) == errno.ENOENT
    assert await refused(files.rename(f, d, replace=False)) == errno.EEXIST
    assert await refused(files.open(f, w | c | x)) == errno.EEXIST
    assert await refused(files.open(d, w)) == errno.EISDIR
    assert await refused(files.open(loop, api.READ)) == errno.ELOOP
    assert await refused(files.open(top + b"/none", api.READ)) == errno.ENOENT
    assert await refused(files.open(f + b"/x", api.READ)) == errno.ENOTDIR
    assert await refused(files.open(long, w | c)) == errno.ENAMETOOLONG
    assert await refused(names(files, f)) == errno.ENOTDIR
    assert await refused(files.setstat(d, Attrs(size=1))) == errno.EISDIR
    handle = await files.open(d, api.READ)
    assert await refused(files.read(handle, 0, 10)) == errno.EISDIR
    assert await refused(files.setstat(f, Attrs(atime=1, mtime=2**33))) == errno.EINVAL


async def test_another_filesystem_is_exdev(files: SftpFiles, top: bytes) -> None:
    Path(os.fsdecode(top + b"/f")).write_bytes(b"x")
    assert await refused(files.rename(top + b"/f", b"/dev/shm/netfs-never")) == errno.EXDEV
    assert await refused(files.link(top + b"/f", b"/dev/shm/netfs-never")) == errno.EXDEV


async def test_a_read_only_server_says_eacces(top: bytes) -> None:
    async with sftp_files("-R") as (files, _):
        assert await refused(files.mkdir(top + b"/d", 0o755)) == errno.EACCES


@pytest.mark.parametrize("kind", ["file", "directory"])
async def test_rename_replaces_without_posix_rename(kind: str, top: bytes) -> None:
    semantics = SemanticsConfig(rename_workaround=True)
    async with sftp_files(semantics=semantics) as (files, _):
        old, new = top + b"/old", top + b"/new"
        if kind == "file":
            Path(os.fsdecode(old)).write_bytes(b"old")
            Path(os.fsdecode(new)).write_bytes(b"new")
        else:
            os.mkdir(old)
            os.mkdir(new)
            os.mkdir(top + b"/full")
            os.mkdir(top + b"/full/x")
            assert await refused(files.rename(old, top + b"/full")) == errno.ENOTEMPTY
            await files.rmdir(top + b"/full/x")
            await files.rmdir(top + b"/full")
        await files.rename(old, new)
        assert await names(files, top) == {b"new"}
        assert await refused(files.rename(old, new)) == errno.ENOENT


async def test_requests_of_one_loop_turn_leave_in_one_write(files: SftpFiles, top: bytes) -> None:
    channel = files.requester._channel
    before = len(channel.writes)  # type: ignore[union-attr]
    await asyncio.gather(*(files.lstat(top) for _ in range(50)))
    assert len(channel.writes) == before + 1  # type: ignore[union-attr]


async def test_cancelled_opens_leave_no_handle(
    served: tuple[SftpFiles, SftpServer], top: bytes
) -> None:
    files, server = served
    Path(os.fsdecode(top + b"/f")).write_bytes(b"x")
    tasks = [asyncio.ensure_future(files.open(top + b"/f", api.READ)) for _ in range(100)]
    await asyncio.sleep(0)
    for task in tasks[:50]:
        task.cancel()  # these never leave
    await tasks[50]
    for task in tasks[51:]:
        task.cancel()
    for task in tasks:
        if not task.cancelled():
            with contextlib.suppress(asyncio.CancelledError):
                files.requester.dismiss((await task).handle)
    await files.lstat(top)
    await files.lstat(top)
    assert server.open_fds(top) == 0


async def test_the_servers_death_tells_whether_requests_were_sent(
    served: tuple[SftpFiles, SftpServer], top: bytes
) -> None:
    files, server = served
    server.process.send_signal(19)  # SIGSTOP
    task = asyncio.ensure_future(files.lstat(top))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    server.kill()
    with pytest.raises(Disconnected) as caught:
        await task
    assert caught.value.sent
    with pytest.raises(Disconnected) as caught:
        await files.lstat(top)
    assert not caught.value.sent
