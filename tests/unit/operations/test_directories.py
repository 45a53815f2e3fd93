"""Open directories: listings in batches, stable offsets, what READDIRPLUS gives the kernel."""

from __future__ import annotations

import asyncio
import errno
import os
import stat

import pytest

from netfs.client.config import CacheConfig, IdentityConfig
from netfs.fuse.abi import Opcode
from tests.fakes.context import make_config, mounted
from tests.fakes.remote import FakeRemote

ROOT = 1


@pytest.fixture
def remote() -> FakeRemote:
    return FakeRemote()


def raises(number: int):
    return pytest.raises(OSError, match=os.strerror(number))


async def read_all(mount, fh: int, *, nodeid: int = ROOT, plus: bool = False, size: int = 4096):
    """All entries from offset 0, as a program reads them."""
    entries, offset = [], 0
    while True:
        read = mount.kernel.readdirplus if plus else mount.kernel.readdir
        batch = await read(nodeid, fh, offset, size)
        if not batch:
            return entries
        entries += batch
        offset = batch[-1].offset


def names(entries) -> list[bytes]:
    return [each.name for each in entries if each.name not in (b".", b"..")]


async def test_a_directory_is_listed_with_its_dots(remote):
    remote.put(b"/x")
    remote.mkdirs(b"/d")
    async with mounted(remote) as mount:
        fh = await mount.kernel.opendir(ROOT)
        entries = await read_all(mount, fh)
        assert [each.name for each in entries] == [b".", b"..", b"x", b"d"]
        assert [each.type for each in entries] == [4, 4, 8, 4]
        assert entries[0].ino == entries[1].ino == (await mount.kernel.getattr_(ROOT)).ino
        await mount.kernel.releasedir(ROOT, fh)


async def test_the_dots_of_a_subdirectory_have_the_right_numbers(remote):
    remote.mkdirs(b"/d")
    async with mounted(remote) as mount:
        entry = await mount.kernel.lookup(ROOT, b"d")
        fh = await mount.kernel.opendir(entry.nodeid)
        dot, dotdot = await read_all(mount, fh, nodeid=entry.nodeid)
        assert dot.ino == entry.attr.ino
        assert dotdot.ino == (await mount.kernel.getattr_(ROOT)).ino


async def test_readdirplus_counts_exactly_what_it_packs(remote):
    for number in range(50):
        remote.put(b"/file%02d" % number)
    async with mounted(remote) as mount:
        fh = await mount.kernel.opendir(ROOT)
        first = await mount.kernel.readdirplus(ROOT, fh, 0, 2048)
        assert 2 < len(first) < 50
        assert first[0].entry.nodeid == first[1].entry.nodeid == 0, "the dots are not counted"
        children = mount.ctx.nodes.root.children
        counted = {name: node.nlookup for name, node in children.items()}
        assert counted == {name: 1 if name in names(first) else 0 for name in sorted(children)}
        assert mount.ctx.nodes.root.nlookup == 1
        await mount.kernel.readdirplus(ROOT, fh, 0, 2048)
        assert children[b"file00"].nlookup == 2


async def test_a_listing_that_nobody_takes_counts_nothing(remote):
    remote.put(b"/x")
    async with mounted(remote) as mount:
        gate = remote.hold("readdir")
        opening = mount.kernel.send(Opcode.OPENDIR, ROOT, bytes(8))
        await gate.arrived()
        mount.kernel.give_up(opening)
        gate.release()
        fh = await mount.kernel.opendir(ROOT)
        assert mount.ctx.directories.get(fh - 1) is None, "the reply of the first found nobody"
        assert mount.ctx.nodes.root.children[b"x"].nlookup == 0


async def test_after_a_listing_nothing_is_asked(remote):
    remote.put(b"/x", b"abc")
    async with mounted(remote) as mount:
        fh = await mount.kernel.opendir(ROOT)
        await read_all(mount, fh)
        remote.calls.clear()
        entry = await mount.kernel.lookup(ROOT, b"x")
        assert entry.attr.size == 3
        assert (await mount.kernel.lookup(ROOT, b"no")).nodeid == 0
        await read_all(mount, await mount.kernel.opendir(ROOT), plus=True)
        assert remote.count() == 0


async def test_a_listing_is_believed_for_its_time(remote):
    remote.put(b"/x")
    async with mounted(remote) as mount:
        await read_all(mount, await mount.kernel.opendir(ROOT))
        remote.put(b"/new")
        mount.clock.advance(19)
        assert names(await read_all(mount, await mount.kernel.opendir(ROOT))) == [b"x"]
        mount.clock.advance(2)
        assert names(await read_all(mount, await mount.kernel.opendir(ROOT))) == [b"x", b"new"]


async def test_a_name_that_a_new_listing_lacks_is_expired_in_the_kernel(remote):
    remote.put(b"/x")
    async with mounted(remote) as mount:
        await read_all(mount, await mount.kernel.opendir(ROOT), plus=True)
        remote.delete(b"/x")
        mount.clock.advance(30)
        assert names(await read_all(mount, await mount.kernel.opendir(ROOT))) == []
        assert mount.notes.told == [("expire", ROOT, b"x")]


async def test_errors_of_listing_come_from_opendir(remote):
    remote.mkdirs(b"/d")
    async with mounted(remote) as mount:
        nodeid = (await mount.kernel.lookup(ROOT, b"d")).nodeid
        remote.fail_next("scandir", errno.EACCES)
        with raises(errno.EACCES):
            await mount.kernel.opendir(nodeid)
        assert mount.node(nodeid).opens == 0
        assert await mount.kernel.opendir(nodeid), "it is tried again"


async def test_an_error_in_the_middle_comes_after_what_was_listed(remote):
    for number in range(250):
        remote.put(b"/f%03d" % number)
    async with mounted(remote) as mount:
        first, second = remote.hold("readdir"), remote.hold("readdir")
        opening = asyncio.ensure_future(mount.kernel.opendir(ROOT))
        await first.arrived()
        first.release()
        fh = await opening
        await second.arrived()
        second.release(errno.EIO)
        batch = await mount.kernel.readdir(ROOT, fh, 0, 32768)
        assert len(batch) == 102
        with raises(errno.EIO):
            await mount.kernel.readdir(ROOT, fh, batch[-1].offset, 32768)
        assert mount.ctx.nodes.root.listed_at < 0


async def test_entries_are_given_before_the_directory_has_ended(remote):
    for number in range(250):
        remote.put(b"/f%03d" % number)
    async with mounted(remote) as mount:
        first, second = remote.hold("readdir"), remote.hold("readdir")
        opening = asyncio.ensure_future(mount.kernel.opendir(ROOT))
        await first.arrived()
        first.release()
        fh = await opening
        await second.arrived()
        batch = await mount.kernel.readdir(ROOT, fh, 0, 32768)
        assert len(batch) == 102, "the first hundred and the dots"
        waiting = asyncio.ensure_future(mount.kernel.readdir(ROOT, fh, batch[-1].offset, 32768))
        second.release()
        assert len(await waiting) >= 100


async def test_two_who_list_the_same_share_one_fetch(remote):
    remote.put(b"/x")
    async with mounted(remote) as mount:
        gate = remote.hold("readdir")
        first = asyncio.ensure_future(mount.kernel.opendir(ROOT))
        await gate.arrived()
        second = asyncio.ensure_future(mount.kernel.opendir(ROOT))
        await mount.kernel.statfs()
        gate.release()
        for fh in (await first, await second):
            assert names(await read_all(mount, fh)) == [b"x"]
        assert remote.count("scandir") == 1


async def test_a_fetch_that_nobody_waits_for_stops(remote):
    for number in range(1000):
        remote.put(b"/f%04d" % number)
    async with mounted(remote) as mount:
        second = remote.hold("readdir")
        opening = asyncio.ensure_future(mount.kernel.opendir(ROOT))
        await second.arrived()
        mount.kernel.interrupt(max(mount.kernel.waiting))
        with raises(errno.EINTR):
            await opening
        second.release()
        await mount.settle()
        assert remote.count("readdir") == 1
        assert mount.ctx.directories.under_way(mount.ctx.nodes.root) is None


async def test_who_comes_while_a_fetch_is_being_stopped_gets_one_of_their_own(remote, monkeypatch):
    remote.mkdirs(b"/d")
    for number in range(250):
        remote.put(b"/d/f%03d" % number)
    stopping, stopped = asyncio.Event(), asyncio.Event()
    scandir = remote.scandir

    async def slow_to_end(path: bytes):
        try:
            async for batch in scandir(path):
                yield batch
        finally:
            stopping.set()
            await stopped.wait()

    async with mounted(remote) as mount:
        monkeypatch.setattr(remote, "scandir", slow_to_end)
        nodeid = (await mount.kernel.lookup(ROOT, b"d")).nodeid
        second = remote.hold("readdir")
        opening = asyncio.ensure_future(mount.kernel.opendir(nodeid))
        await second.arrived()
        mount.kernel.interrupt(max(mount.kernel.waiting))
        with raises(errno.EINTR):
            await opening
        second.release()
        async with asyncio.timeout(5):
            await stopping.wait()
        other = asyncio.ensure_future(mount.kernel.opendir(nodeid))
        async with asyncio.timeout(5):
            while not mount.kernel.waiting:
                await asyncio.sleep(0)
        stopped.set()
        assert len(names(await read_all(mount, await other, nodeid=nodeid))) == 250


async def test_a_fetch_that_fails_by_a_bug_is_eio(remote, monkeypatch, caplog):
    async def broken(path: bytes):
        raise LookupError(path)
        yield []

    async with mounted(remote) as mount:
        monkeypatch.setattr(remote, "scandir", broken)
        with raises(errno.EIO):
            await read_all(mount, await mount.kernel.opendir(ROOT))
    caplog.clear()


async def test_offsets_stay_while_entries_go_and_come(remote):
    for number in range(300):
        remote.put(b"/f%03d" % number)
    async with mounted(remote) as mount:
        fh = await mount.kernel.opendir(ROOT)
        first = await mount.kernel.readdir(ROOT, fh, 0, 1024)
        await mount.kernel.unlink(ROOT, b"f000")
        await mount.kernel.unlink(ROOT, b"f200")
        await mount.kernel.mknod(ROOT, b"new", stat.S_IFREG | 0o644)
        rest, offset = [], first[-1].offset
        while batch := await mount.kernel.readdir(ROOT, fh, offset, 1024):
            rest += batch
            offset = batch[-1].offset
        seen = names(first) + names(rest)
        assert len(seen) == len(set(seen))
        assert set(seen) - {b"new"} == {b"f%03d" % number for number in range(300)} - {b"f200"}
        # telldir, seekdir: the same offset gives the same entry.
        again = await mount.kernel.readdir(ROOT, fh, first[-1].offset, 1024)
        assert again[0].name == rest[0].name


async def test_rewinddir_shows_what_is_there_by_then(remote):
    remote.put(b"/x")
    async with mounted(remote) as mount:
        fh = await mount.kernel.opendir(ROOT)
        assert names(await read_all(mount, fh)) == [b"x"]
        await mount.kernel.unlink(ROOT, b"x")
        await mount.kernel.mkdir(ROOT, b"new")
        before = remote.count("scandir")
        assert names(await read_all(mount, fh)) == [b"new"]
        assert remote.count("scandir") == before, "its own changes are known"
        remote.put(b"/theirs")
        mount.clock.advance(30)
        assert sorted(names(await read_all(mount, fh))) == [b"new", b"theirs"]


async def test_a_file_replaced_while_it_is_listed_stays_in_the_listing(remote):
    remote.put(b"/a")
    remote.put(b"/b")
    async with mounted(remote) as mount:
        await mount.kernel.lookup(ROOT, b"a")
        fh = await mount.kernel.opendir(ROOT)
        await mount.kernel.rename(ROOT, b"a", ROOT, b"b")
        assert names(await read_all(mount, fh)) == [b"b"]


async def test_own_changes_during_a_fetch_are_not_undone_by_it(remote):
    for number in range(250):
        remote.put(b"/f%03d" % number)
    async with mounted(remote) as mount:
        await mount.kernel.lookup(ROOT, b"f150")
        first, second = remote.hold("readdir"), remote.hold("readdir")
        opening = asyncio.ensure_future(mount.kernel.opendir(ROOT))
        await first.arrived()
        first.release()
        fh = await opening
        await second.arrived()
        answered = remote.hold("readdir", after=True)
        second.release()
        await answered.arrived()
        await mount.kernel.unlink(ROOT, b"f150")
        await mount.kernel.mkdir(ROOT, b"made")
        answered.release()
        await read_all(mount, fh)
        assert (await mount.kernel.lookup(ROOT, b"f150")).nodeid == 0
        assert (await mount.kernel.lookup(ROOT, b"made")).nodeid
        assert mount.ctx.nodes.root.listed_at < 0, "it is listed again next time"
        listed = names(await read_all(mount, await mount.kernel.opendir(ROOT)))
        assert b"made" in listed
        assert b"f150" not in listed


async def test_a_large_directory_is_listed_whole(remote):
    remote.batch = 1000
    for number in range(20_000):
        remote.put(b"/file-%05d" % number)
    async with mounted(remote, max_entries=100_000) as mount:
        fh = await mount.kernel.opendir(ROOT)
        entries = await read_all(mount, fh, plus=True, size=1 << 17)
        assert len(entries) == 20_002
        offsets = [each.offset for each in entries]
        assert offsets == list(range(1, 20_003))


async def test_a_directory_larger_than_the_cache_is_listed_whole(remote):
    remote.batch = 1000
    for number in range(5000):
        remote.put(b"/file-%05d" % number)
    async with mounted(remote, max_entries=500) as mount:
        fh = await mount.kernel.opendir(ROOT)
        entries = await read_all(mount, fh, size=1 << 17)
        assert len(set(names(entries))) == 5000
        assert len(mount.ctx.nodes) < 2000


async def test_too_many_nodes_in_the_kernel_are_asked_back(remote):
    for number in range(5000):
        remote.put(b"/d%02d/file-%04d" % (number % 50, number))
    async with mounted(remote, max_entries=500) as mount:
        seen = len(mount.notes.told)
        for number in range(50):
            nodeid = (await mount.kernel.lookup(ROOT, b"d%02d" % number)).nodeid
            fh = await mount.kernel.opendir(nodeid)
            assert len(await read_all(mount, fh, nodeid=nodeid, plus=True)) == 102
            await mount.kernel.releasedir(nodeid, fh)
            asked = [node for told in mount.notes.told[seen:] for node in told[1:]]
            seen = len(mount.notes.told)
            mount.kernel.batch_forget([(node, 1) for node in asked])
        assert mount.ctx.nodes.statistics().held < 1500
        assert len(mount.ctx.nodes) < 2500


async def test_names_of_unmapped_owners_are_listed_without_attributes(remote):
    remote.put(b"/x").uid = 9
    config = make_config(
        identity=IdentityConfig(idmap="file", uid_map={1000: 501}, gid_map={1000: 502})
    )
    async with mounted(remote, config=config) as mount:
        fh = await mount.kernel.opendir(ROOT)
        entries = {each.name: each for each in await read_all(mount, fh, plus=True)}
        assert entries[b"x"].entry.nodeid == 0


async def test_a_cached_listing_serves_while_the_link_is_down(remote):
    remote.put(b"/x")
    async with mounted(remote) as mount:
        await read_all(mount, await mount.kernel.opendir(ROOT))
        remote.is_up = False
        mount.clock.advance(1000)
        assert names(await read_all(mount, await mount.kernel.opendir(ROOT), plus=True)) == [b"x"]
        assert remote.count("scandir") == 1


async def test_without_caches_every_opendir_lists(remote):
    remote.put(b"/x")
    async with mounted(remote, config=make_config(cache=CacheConfig(enabled=False))) as mount:
        for _ in range(2):
            fh = await mount.kernel.opendir(ROOT)
            assert names(await read_all(mount, fh, plus=True)) == [b"x"]
        assert remote.count("scandir") == 2


async def test_a_directory_that_vanished_is_gone(remote):
    remote.mkdirs(b"/d")
    async with mounted(remote) as mount:
        nodeid = (await mount.kernel.lookup(ROOT, b"d")).nodeid
        remote.delete(b"/d")
        with raises(errno.ENOENT):
            await mount.kernel.opendir(nodeid)


@pytest.mark.parametrize("plus", [False, True])
async def test_many_removed_names_in_a_row_are_not_the_end(remote, plus):
    for number in range(3000):
        remote.put(b"/f%04d" % number)
    async with mounted(remote) as mount:
        fh = await mount.kernel.opendir(ROOT)
        assert len(await read_all(mount, fh)) == 3002
        read = mount.kernel.readdirplus if plus else mount.kernel.readdir
        first = await read(ROOT, fh, 0, 1024)
        for name in list(mount.ctx.nodes.root.children):
            if names(first)[-1] < name < b"f2999":
                mount.ctx.nodes.remove(mount.ctx.nodes.root, name)
        rest = await read(ROOT, fh, first[-1].offset, 1024)
        assert names(rest) == [b"f2999"]


async def test_a_name_that_the_server_tells_twice_is_listed_once(remote, monkeypatch):
    for number in range(5):
        remote.put(b"/f%d" % number)
    scandir = remote.scandir

    async def repeating(path):
        async for batch in scandir(path):
            yield batch + batch[:2]
            yield batch[1:3]

    monkeypatch.setattr(remote, "scandir", repeating)
    async with mounted(remote) as mount:
        fh = await mount.kernel.opendir(ROOT)
        assert names(await read_all(mount, fh)) == [b"f0", b"f1", b"f2", b"f3", b"f4"]
