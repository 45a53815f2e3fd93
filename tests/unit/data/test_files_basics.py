"""Open files over a fake server: what system calls promise."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import stat

import pytest

from netfs.client.data.content import FileData
from tests.fakes.mounted_files import Rig
from tests.fakes.remote import FakeRemote


@pytest.fixture
def remote() -> FakeRemote:
    return FakeRemote()


def raises(number: int):
    return pytest.raises(OSError, match=os.strerror(number))


async def test_a_file_is_read_to_its_end(remote):
    remote.put(b"/a", b"0123456789")
    async with Rig(remote) as rig:
        file = await rig.open(b"a")
        assert await rig.read(file, 0, 4096) == b"0123456789"
        assert await rig.read(file, 4, 3) == b"456"
        assert await rig.read(file, 10, 4096) == b""


async def test_what_was_read_once_is_answered_without_waiting(remote):
    remote.put(b"/a", b"0123456789")
    async with Rig(remote) as rig:
        file = await rig.open(b"a")
        await rig.read(file, 0, 4096)
        assert rig.asked
        await rig.read(file, 0, 4096)
        assert not rig.asked


async def test_what_is_written_reaches_the_server_at_close(remote):
    async with Rig(remote) as rig:
        file = await rig.create(b"a")
        assert await rig.write(file, 0, b"hello ") == 6
        assert not rig.asked
        await rig.write(file, 6, b"world")
        assert remote.at(b"/a").data == b""
        await rig.close(file)
        assert remote.at(b"/a").data == b"hello world"
        assert remote.writes == [(b"/a", 0, 11)], "adjacent writes are joined"


async def test_unsent_bytes_are_read_back(remote):
    remote.put(b"/a", b"abcdef")
    async with Rig(remote) as rig:
        file = await rig.open(b"a", os.O_RDWR)
        await rig.write(file, 2, b"XY")
        assert await rig.read(file, 0, 100) == b"abXYef"
        await rig.write(file, 9, b"Z")
        assert await rig.read(file, 0, 100) == b"abXYef\0\0\0Z"
        await rig.close(file)
        assert remote.at(b"/a").data == b"abXYef\0\0\0Z"


async def test_stat_shows_unsent_changes(remote):
    async with Rig(remote) as rig:
        file = await rig.create(b"a")
        await rig.write(file, 0, b"hello")
        assert (await rig.stat(b"a"))[0] == 5
        assert remote.at(b"/a").data == b""
        await rig.close(file)
        assert (await rig.stat(b"a"))[0] == 5


async def test_fsync_returns_when_the_server_has_everything(remote):
    async with Rig(remote) as rig:
        file = await rig.create(b"a")
        await rig.write(file, 0, b"hello")
        await rig.fsync(file)
        assert remote.at(b"/a").data == b"hello"
        assert remote.count("fsync") == 1


async def test_fsync_of_a_file_open_for_reading_syncs_what_was_closed_before(remote):
    async with Rig(remote) as rig:
        file = await rig.create(b"a")
        await rig.write(file, 0, b"hello")
        await rig.close(file)
        rig.clock.advance(30)
        file = await rig.open(b"a")
        await rig.fsync(file)
        assert remote.count("fsync") == 1


async def test_truncate_joins_the_unsent_writes_in_order(remote):
    async with Rig(remote) as rig:
        file = await rig.create(b"a")
        await rig.write(file, 0, b"0123456789")
        await rig.truncate(file.nodeid, 4)
        assert await rig.read(file, 0, 100) == b"0123"
        await rig.write(file, 6, b"X")
        assert await rig.read(file, 0, 100) == b"0123\0\0X"
        await rig.close(file)
        assert remote.at(b"/a").data == b"0123\0\0X"


async def test_times_set_while_writing_are_the_last_word(remote):
    async with Rig(remote) as rig:
        file = await rig.create(b"a")
        await rig.write(file, 0, b"x")
        await rig.setattr(file.nodeid, times_s=(5, 6))
        assert (await rig.stat(b"a"))[1] == 6
        await rig.close(file)
        assert remote.at(b"/a").mtime == 6
        assert (await rig.stat(b"a"))[1] == 6


@pytest.mark.parametrize("mode", [0o100600, 0o600])
async def test_a_mode_set_while_writing_leaves_the_file_what_it_is(remote, mode):
    async with Rig(remote) as rig:
        file = await rig.create(b"new")
        await rig.write(file, 0, b"bytes")
        await rig.setattr(file.nodeid, mode=mode)  # leaves with the bytes
        gate = remote.hold("fstat")
        await rig.flush(file)
        await gate.arrived()  # the server has all of it; what it says of it is still to come
        node = rig.node(b"new")
        assert stat.S_ISREG(node.attrs.mode)
        batch = [entry async for part in remote.scandir(b"/") for entry in part]
        told = [(entry.name, entry.attrs) for entry in batch]
        coherence, root = rig.ctx.coherence, rig.nodes.root
        assert coherence.learned_all(root, told, rig.clock(), rig.nodes.stamp) == [node]
        gate.release()
        await rig.setattr(file.nodeid, times_s=(1, 2))
        await rig.close(file)
        assert (await rig.stat(b"new"))[1:] == (2, 0o100600)


async def test_open_with_truncation_empties_the_file(remote):
    remote.put(b"/a", b"old")
    async with Rig(remote) as rig:
        reader = await rig.open(b"a")
        assert await rig.read(reader, 0, 10) == b"old"
        file = await rig.open(b"a", os.O_WRONLY | os.O_TRUNC)
        assert remote.at(b"/a").data == b""
        assert await rig.read(reader, 0, 10) == b""
        await rig.close(file)


async def test_reading_and_truncating_needs_the_right_to_write(remote):
    remote.put(b"/a", b"old")
    async with Rig(remote) as rig:
        file = await rig.open(b"a", os.O_RDONLY | os.O_TRUNC)
        assert await rig.read(file, 0, 10) == b""
        assert remote.at(b"/a").data == b""


async def test_an_unlinked_file_goes_on(remote):
    remote.put(b"/a", b"content")
    async with Rig(remote) as rig:
        file = await rig.open(b"a", os.O_RDWR)
        await rig.unlink(b"a")
        assert await rig.read(file, 0, 10) == b"content"
        await rig.write(file, 0, b"CON")
        await rig.flush(file)
        assert await rig.read(file, 0, 10) == b"CONtent"
        await rig.close(file)
        await rig.until_idle()
        assert not remote.open_handles


async def test_handles_are_closed_with_the_last_open_file(remote):
    remote.put(b"/a", b"content")
    async with Rig(remote) as rig:
        one, two = await rig.open(b"a"), await rig.open(b"a")
        await rig.close(one)
        await rig.until_idle()
        assert await rig.read(two, 0, 10) == b"content"
        await rig.close(two)
        await rig.until_idle()
        assert not remote.open_handles


async def test_a_refused_write_is_reported_once_to_each_open_file(remote, tmp_path):
    async with Rig(remote, rescue_dir=str(tmp_path)) as rig:
        file = await rig.create(b"a")
        other = await rig.open(b"a", os.O_WRONLY)
        remote.fail_next("write", errno.ENOSPC)
        await rig.write(file, 0, b"lost bytes")
        with raises(errno.ENOSPC):
            await rig.flush(file)
        await rig.flush(file)
        with raises(errno.ENOSPC):
            await rig.write(other, 0, b"x")
        await rig.close(other)
        await rig.close(file)
        (loss,) = rig.files.statistics().losses
        assert (loss.path, loss.size) == (b"/a", 10)
        assert loss.saved_as is not None
        with open(loss.saved_as, "rb") as saved:
            assert saved.read() == b"lost bytes"


async def test_a_late_link_keeps_what_was_written(remote):
    async with Rig(remote) as rig:
        file = await rig.create(b"a")
        remote.fail_next("write", errno.ETIMEDOUT)
        await rig.write(file, 0, b"kept")
        with raises(errno.ETIMEDOUT):
            await rig.flush(file)
        await rig.flush(file)
        assert remote.at(b"/a").data == b"kept"


async def test_a_late_link_does_not_hold_back_who_cuts_a_file_with_unsent_bytes(remote):
    async with Rig(remote) as rig:
        file = await rig.create(b"a")
        await rig.write(file, 0, b"0123456789")
        remote.fail_next("write", errno.ETIMEDOUT)
        with raises(errno.ETIMEDOUT):
            await rig.truncate(file.nodeid, 4)
        assert await rig.read(file, 0, 100) == b"0123"
        await rig.close(file)
        assert remote.at(b"/a").data == b"0123"


async def test_an_answer_that_overtook_a_late_write_is_not_believed(remote):
    remote.put(b"/a", b"old")
    async with Rig(remote) as rig:
        file = await rig.open(b"a", os.O_RDWR)
        remote.fail_next("write", errno.ETIMEDOUT)
        await rig.write(file, 0, b"longer than before")
        with raises(errno.ETIMEDOUT):
            await rig.flush(file)
        flushing = asyncio.ensure_future(rig.flush(file))  # while the write waits to be repeated
        await asyncio.sleep(0.05)
        await flushing
        assert (await rig.stat(b"a"))[0] == 18
        assert await rig.read(file, 0, 100) == b"longer than before"
        await rig.close(file)


async def test_opening_an_unchanged_file_again_asks_nothing_within_the_window(remote):
    remote.now += 100
    remote.put(b"/a", b"content")
    remote.now += 100
    async with Rig(remote) as rig:
        file = await rig.open(b"a")
        await rig.read(file, 0, 100)
        await rig.close(file)
        calls = len(remote.calls)
        rig.clock.advance(0.9)
        file = await rig.open(b"a")
        assert file.keeps_cache
        assert await rig.read(file, 0, 100) == b"content"
        await rig.close(file)
        await rig.until_idle()
        assert remote.calls[calls:] == []


async def test_an_older_open_costs_one_lstat(remote):
    remote.put(b"/a", b"content")
    remote.now += 100
    async with Rig(remote) as rig:
        file = await rig.open(b"a")
        await rig.read(file, 0, 100)
        await rig.close(file)
        await rig.until_idle()
        calls = len(remote.calls)
        rig.clock.advance(5)
        file = await rig.open(b"a")
        assert file.keeps_cache
        assert await rig.read(file, 0, 100) == b"content"
        await rig.close(file)
        await rig.until_idle()
        assert [call.method for call in remote.calls[calls:]] == ["lstat"]


async def test_a_change_elsewhere_is_seen_at_open(remote):
    remote.put(b"/a", b"old content")
    remote.now += 100
    async with Rig(remote) as rig:
        file = await rig.open(b"a")
        await rig.read(file, 0, 100)
        await rig.close(file)
        remote.put(b"/a", b"new")
        rig.clock.advance(2)
        file = await rig.open(b"a")
        assert not file.keeps_cache
        assert await rig.read(file, 0, 100) == b"new"


async def test_a_young_version_is_not_trusted(remote):
    remote.put(b"/a", b"one")
    async with Rig(remote) as rig:
        file = await rig.open(b"a")
        assert await rig.read(file, 0, 100) == b"one"
        await rig.close(file)
        remote.put(b"/a", b"two")  # the same second, the same size
        rig.clock.advance(2)
        remote.now += 2
        file = await rig.open(b"a")
        assert not file.keeps_cache
        assert await rig.read(file, 0, 100) == b"two"


async def test_a_file_replaced_elsewhere_keeps_its_readers(remote):
    remote.put(b"/a", b"the old content")
    remote.now += 100
    async with Rig(remote) as rig:
        old = await rig.open(b"a")
        assert await rig.read(old, 0, 3) == b"the"
        inode = remote.put(b"/b", b"new")
        remote.delete(b"/a")
        remote.mkdirs(b"/").entries[b"a"] = inode
        rig.clock.advance(30)
        with raises(errno.ESTALE):
            await rig.open(b"a")  # the kernel looks it up anew then
        new = await rig.open(b"a")
        assert new.nodeid != old.nodeid
        assert await rig.read(new, 0, 100) == b"new"
        assert await rig.read(old, 0, 100) == b"the old content"


async def test_a_reader_of_a_file_changed_in_place_sees_the_change(remote):
    remote.put(b"/a", b"the old content")
    remote.now += 100
    async with Rig(remote) as rig:
        old = await rig.open(b"a")
        assert await rig.read(old, 0, 3) == b"the"
        remote.put(b"/a", b"new")
        rig.clock.advance(30)
        new = await rig.open(b"a")
        assert new.nodeid == old.nodeid
        assert await rig.read(new, 0, 100) == b"new"
        assert await rig.read(old, 0, 100) == b"new"
        assert ("inode", old.nodeid, 0, 0) in rig.notes.told


async def test_prefetched_files_are_opened_and_read_without_asking(remote):
    remote.put(b"/a", b"content")
    remote.now += 100
    async with Rig(remote) as rig:
        await rig.lookup(b"a")
        await rig.files.prefetch([rig.node(b"a")])
        await rig.until_idle()
        calls = len(remote.calls)
        file = await rig.open(b"a")
        assert await rig.read(file, 0, 100) == b"content"
        assert not rig.asked
        await rig.close(file)
        assert len(remote.calls) == calls
        assert not remote.open_handles
        assert rig.files.statistics().ahead_used == 7


async def test_copying_inside_the_server(remote):
    remote.put(b"/a", b"0123456789")
    async with Rig(remote) as rig:
        source, dest = await rig.open(b"a", os.O_RDWR), await rig.create(b"b")
        await rig.write(source, 0, b"AB")
        await rig.write(dest, 0, b"x")
        assert await rig.copy(source, 1, dest, 3, 4) == 4
        assert await rig.read(dest, 0, 100) == b"x\0\0B234"
        assert (await rig.stat(b"b"))[0] == 7
        assert remote.at(b"/b").data == b"x\0\0B234"


async def test_copying_is_left_to_the_kernel_where_the_server_cannot():
    remote = FakeRemote(extensions=frozenset())
    remote.put(b"/a", b"0123456789")
    async with Rig(remote) as rig:
        file = await rig.open(b"a", os.O_RDWR)
        with raises(errno.EOPNOTSUPP):
            await rig.copy(file, 1, file, 3, 4)


async def test_a_refused_copy_is_left_to_the_kernel(remote):
    remote.put(b"/a", b"0123456789")
    async with Rig(remote) as rig:
        source, dest = await rig.open(b"a", os.O_RDWR), await rig.create(b"b")
        with raises(errno.EOPNOTSUPP):
            await rig.copy(source, 0, source, 5, 2)
        remote.fail_next("copy_data", errno.EDQUOT)
        with raises(errno.EOPNOTSUPP):
            await rig.copy(source, 0, dest, 5, 2)


async def test_fallocate_makes_a_file_longer_and_never_shorter(remote):
    remote.put(b"/a", b"0123456789")
    async with Rig(remote) as rig:
        file = await rig.open(b"a", os.O_RDWR)
        await rig.fallocate(file, 0, 5)
        assert (await rig.stat(b"a"))[0] == 10
        await rig.fallocate(file, 10, 10)
        assert remote.at(b"/a").data == b"0123456789" + bytes(10)
        for mode in (1, 2, 3, 16):
            with raises(errno.EOPNOTSUPP):
                await rig.fallocate(file, 0, 100, mode)


async def test_names_of_one_file_never_show_stale_data(remote):
    remote.put(b"/a", b"old")
    remote.put_link(b"/a", b"/b")
    remote.now += 100
    async with Rig(remote) as rig:
        for name in (b"a", b"b"):  # as a listing tells it
            await rig.lookup(name)
            node = rig.node(name)
            assert node.attrs is not None
            rig.nodes.change_attrs(node, node.attrs._replace(nlink=2))
        reader = await rig.open(b"b")
        assert await rig.read(reader, 0, 10) == b"old"
        await rig.close(reader)
        writer = await rig.open(b"a", os.O_RDWR)
        await rig.write(writer, 0, b"new")
        reader = await rig.open(b"b")
        assert not reader.keeps_cache
        assert await rig.read(reader, 0, 10) == b"new"


async def test_each_reopening_shows_one_version(remote):
    versions = [bytes([65 + index]) * 300_000 for index in range(6)]
    remote.limits = remote.limits._replace(max_read=64 * 1024)
    remote.put(b"/a", versions[0])
    async with Rig(remote) as rig:
        for version in versions[1:]:
            remote.now += 1
            file = await rig.open(b"a")
            await rig.read(file, 0, 100_000)
            remote.put(b"/a", version)
            await rig.read(file, 100_000, 100_000)
            await rig.close(file)
            rig.clock.advance(1.5)
            file = await rig.open(b"a")
            pieces = [await rig.read(file, at, 50_000) for at in range(0, 300_000, 50_000)]
            assert b"".join(pieces) == version
            await rig.close(file)


async def test_large_files_written_leave_the_cache_to_others(remote):
    async with Rig(remote) as rig:
        size = rig.files.pool.cache.maxsize // 8
        file = await rig.create(b"w")
        await rig.write(file, 0, bytes(1 << 20))
        await rig.flush(file)
        assert rig.files.pool.cache.currsize > 1 << 20
        await rig.truncate(file.nodeid, int(size))
        await rig.write(file, int(size) - (1 << 20) + 1, bytes(1 << 20))
        await rig.flush(file)
        assert rig.files.pool.cache.currsize < 2 << 20


async def test_a_removed_file_that_nobody_holds_leaves_nothing_in_memory(remote):
    remote.put(b"/a", b"0123456789")
    async with Rig(remote) as rig:
        known = len(rig.nodes)
        file = await rig.open(b"a")
        await rig.read(file, 0, 4096)
        await rig.close(file)
        node = rig.node(b"a")
        assert rig.files.statistics().cached > 0
        rig.nodes.remove(rig.nodes.root, b"a")
        rig.nodes.forget(node.nodeid, node.nlookup)
        assert rig.files.statistics().cached == 0
        assert rig.nodes.find(node.nodeid) is None
        assert len(rig.nodes) == known


async def test_a_forgotten_file_is_freed_without_the_collector(remote):
    async with Rig(remote) as rig:
        file = await rig.create(b"a")
        await rig.write(file, 0, b"0123456789")
        assert await rig.read(file, 0, 4096) == b"0123456789"
        await rig.close(file)
        await rig.until_idle()
        node = rig.node(b"a")
        gc.collect()
        gc.disable()
        try:
            assert sum(isinstance(each, FileData) for each in gc.get_objects()) == 1
            rig.nodes.remove(rig.nodes.root, b"a")
            rig.nodes.forget(node.nodeid, node.nlookup)
            assert not any(isinstance(each, FileData) for each in gc.get_objects())
        finally:
            gc.enable()


@pytest.mark.parametrize("last", ["fstat after a close", "read ahead"])
async def test_a_removed_file_goes_when_the_last_answer_about_it_has_come(remote, last):
    remote.put(b"/a", b"0123456789")
    async with Rig(remote) as rig:
        known = len(rig.nodes)
        await rig.lookup(b"a")
        node = rig.node(b"a")
        if last == "read ahead":
            gate = remote.hold("read")
            ahead = asyncio.ensure_future(rig.files.prefetch([node]))
            await gate.arrived()
        else:
            gate = remote.hold("fstat")
            file = await rig.open(b"a", os.O_RDWR)
            await rig.write(file, 0, b"x")
            await rig.close(file)
            await gate.arrived()
        await rig.unlink(b"a")
        rig.nodes.forget(node.nodeid, node.nlookup)
        assert rig.nodes.find(node.nodeid) is node  # it is needed still
        gate.release()
        await rig.until_idle()
        if last == "read ahead":
            await ahead
        assert rig.nodes.find(node.nodeid) is None
        assert len(rig.nodes) == known


async def test_what_has_no_name_is_shown_as_last_known_if_the_server_looks_at_its_path(remote):
    """MySecureShell's FSTAT."""
    remote.put(b"/a", b"0123456789")
    async with Rig(remote) as rig:
        await rig.open(b"a")
        node = rig.node(b"a")
        known = node.attrs
        assert known is not None
        for number in (errno.EBADF, errno.ENOENT):
            remote.fail_next("fstat", number)
            assert await rig.files.getattr(node) == known
        remote.fail_next("fstat", errno.EIO)
        with raises(errno.EIO):
            await rig.files.getattr(node)
        assert (await rig.files.getattr(node)).size == 10
