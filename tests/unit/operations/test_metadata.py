"""Attributes: shown, set, checked; and the size of the filesystem."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import time

import pytest

from netfs.client.config import CacheConfig, IdentityConfig
from netfs.client.identity import Login
from netfs.fuse.abi import Opcode
from netfs.sftp.attrs import Attrs
from tests.fakes.context import Content, make_config, mounted
from tests.fakes.remote import OPENSSH, FakeRemote

ROOT = 1
SECOND = 10**9


@pytest.fixture
def remote() -> FakeRemote:
    return FakeRemote()


def raises(number: int):
    return pytest.raises(OSError, match=os.strerror(number))


async def lookup(mount, name: bytes) -> int:
    return (await mount.kernel.lookup(ROOT, name)).nodeid


# --- GETATTR


async def test_attributes_are_shown_as_sftp_tells_them(remote):
    inode = remote.put(b"/x", b"a" * 1000, 0o640)
    inode.atime, inode.mtime = 111, 222
    async with mounted(remote) as mount:
        attr = await mount.kernel.getattr_(await lookup(mount, b"x"))
        assert attr.size == 1000
        assert attr.blocks == 2
        assert (attr.atime, attr.mtime, attr.ctime) == (111, 222, 222)
        assert attr.mode == stat.S_IFREG | 0o640
        assert (attr.nlink, attr.uid, attr.gid) == (1, 501, 502)
        assert attr.ino > 1


async def test_attributes_of_netfs_own_server_are_shown_in_full():
    remote = FakeRemote(tells_ino=True)
    inode = remote.put(b"/x", b"abc")
    inode.nlink = 3
    async with mounted(remote) as mount:
        attr = await mount.kernel.getattr_(await lookup(mount, b"x"))
        assert (attr.ino, attr.nlink, attr.blocks) == (inode.ino, 3, 1)


async def test_nanoseconds_are_split_also_before_the_epoch(remote):
    remote.put(b"/x")
    async with mounted(remote) as mount:
        node = mount.node(await lookup(mount, b"x"))
        fine = node.attrs._replace(mtime_ns=-1, atime_ns=5 * SECOND + 7, ctime_ns=SECOND)
        mount.ctx.nodes.change_attrs(node, fine)
        attr = await mount.kernel.getattr_(node.nodeid)
        assert (attr.mtime, attr.mtimensec) == (-1, SECOND - 1)
        assert (attr.atime, attr.atimensec) == (5, 7)
        assert (attr.ctime, attr.ctimensec) == (1, 0)


async def test_unsent_data_shows_in_the_size(remote):
    remote.put(b"/x", b"abc")
    async with mounted(remote) as mount:
        node = mount.node(await lookup(mount, b"x"))
        node.data = Content(unsent_size=5000)
        attr = await mount.kernel.getattr_(node.nodeid)
        assert (attr.size, attr.blocks) == (5000, 10)


async def test_new_attributes_are_told_to_the_content(remote):
    remote.put(b"/x", b"abc")
    async with mounted(remote) as mount:
        node = mount.node(await lookup(mount, b"x"))
        content = node.data = Content()
        remote.put(b"/x", b"changed")
        mount.clock.advance(30)
        await mount.kernel.getattr_(node.nodeid)
        assert [attrs.size for attrs in content.versions] == [7]


async def test_specials_are_shown(remote):
    remote.put_special(b"/fifo", stat.S_IFIFO | 0o600)
    remote.put_special(b"/socket", stat.S_IFSOCK | 0o600)
    async with mounted(remote) as mount:
        assert stat.S_ISFIFO((await mount.kernel.lookup(ROOT, b"fifo")).attr.mode)
        assert stat.S_ISSOCK((await mount.kernel.lookup(ROOT, b"socket")).attr.mode)


async def test_a_mode_without_a_type_is_a_file(remote):
    remote.put(b"/x").mode = 0o644
    async with mounted(remote) as mount:
        assert stat.S_ISREG((await mount.kernel.lookup(ROOT, b"x")).attr.mode)


async def test_a_file_that_vanished_is_gone(remote):
    remote.put(b"/x")
    async with mounted(remote) as mount:
        nodeid = await lookup(mount, b"x")
        remote.delete(b"/x")
        assert (await mount.kernel.getattr_(nodeid)).size == 0, "within its time"
        mount.clock.advance(30)
        with raises(errno.ENOENT):
            await mount.kernel.getattr_(nodeid)


async def test_statx_answers_as_getattr(remote):
    remote.put(b"/x", b"abc")
    async with mounted(remote) as mount:
        nodeid = await lookup(mount, b"x")
        body = await mount.kernel.call(Opcode.STATX, nodeid, bytes(24))
        assert len(body) == 288


# --- files with several names


async def test_names_with_a_link_count_do_not_serve_each_others_stale_data(remote):
    remote.put(b"/x", b"abc")
    remote.put_link(b"/x", b"/y")
    async with mounted(remote) as mount:
        fh = await mount.kernel.opendir(ROOT)
        listed = {each.name: each.entry for each in await mount.kernel.readdirplus(ROOT, fh)}
        x, y = listed[b"x"], listed[b"y"]
        assert (x.attr.nlink, y.attr.nlink) == (2, 2)
        assert (x.attr_valid_s, y.attr_valid_s) == (0, 0), "the kernel keeps neither"
        await mount.kernel.getattr_(y.nodeid)
        assert remote.count("lstat") == 0, "nothing was changed here: the listing serves"
        await mount.kernel.setattr_(x.nodeid, mode=stat.S_IFREG | 0o600)
        mount.clock.advance(0.1)
        assert (await mount.kernel.getattr_(y.nodeid)).mode == stat.S_IFREG | 0o600


async def test_a_change_to_a_file_with_one_name_leaves_the_linked_ones_alone(remote):
    remote.put(b"/x", b"abc")
    remote.put_link(b"/x", b"/y")
    remote.put(b"/single")
    async with mounted(remote) as mount:
        fh = await mount.kernel.opendir(ROOT)
        listed = {each.name: each.entry for each in await mount.kernel.readdirplus(ROOT, fh)}
        await mount.kernel.setattr_(listed[b"single"].nodeid, mode=stat.S_IFREG | 0o600)
        before = remote.count()
        await mount.kernel.getattr_(listed[b"y"].nodeid)
        assert remote.count() == before


# --- the root


async def test_the_root_answers_while_the_link_is_silent(remote):
    async with mounted(remote) as mount:
        remote.hold("stat")
        started = time.monotonic()
        attr = await mount.kernel.getattr_(ROOT)
        assert stat.S_ISDIR(attr.mode)
        assert time.monotonic() - started < 1.5


async def test_the_root_answers_when_it_cannot_be_looked_at(remote):
    remote.root.mode = stat.S_IFDIR | 0o711
    async with mounted(remote) as mount:
        await mount.kernel.getattr_(ROOT)
        mount.clock.advance(100)
        mount.clock.advance(30)
        remote.fail_next("stat", errno.ETIMEDOUT)
        assert (await mount.kernel.getattr_(ROOT)).mode == stat.S_IFDIR | 0o711


# --- SETATTR


async def test_a_mode_is_set_and_what_came_of_it_shown(remote):
    remote.put(b"/x")
    async with mounted(remote) as mount:
        nodeid = await lookup(mount, b"x")
        remote.calls.clear()
        attr = await mount.kernel.setattr_(nodeid, mode=stat.S_IFREG | 0o4750)
        assert attr.mode == stat.S_IFREG | 0o4750
        assert [call.method for call in remote.calls] == ["setstat", "lstat"]
        assert remote.at(b"/x").mode == stat.S_IFREG | 0o4750


async def test_half_an_owner_keeps_the_other_half(remote):
    inode = remote.put(b"/x")
    async with mounted(remote) as mount:
        nodeid = await lookup(mount, b"x")
        mount.clock.advance(5)
        inode.gid = 55  # changed elsewhere since
        await mount.kernel.setattr_(nodeid, owner=2000)
        assert (inode.uid, inode.gid) == (2000, 55)
        await mount.kernel.setattr_(nodeid, group=56)
        assert (inode.uid, inode.gid) == (2000, 56)


async def test_owners_are_mapped_back(remote):
    inode = remote.put(b"/x")
    inode.uid = 7
    async with mounted(remote) as mount:
        nodeid = await lookup(mount, b"x")
        attr = await mount.kernel.setattr_(nodeid, owner=501, group=502)
        assert (inode.uid, inode.gid) == (1000, 1000)
        assert (attr.uid, attr.gid) == (501, 502)


async def test_an_unmapped_owner_is_refused(remote):
    remote.put(b"/x")
    config = make_config(
        identity=IdentityConfig(idmap="file", uid_map={1000: 501}, gid_map={1000: 502})
    )
    async with mounted(remote, config=config) as mount:
        nodeid = await lookup(mount, b"x")
        with raises(errno.EPERM):
            await mount.kernel.setattr_(nodeid, owner=9)
        remote.at(b"/x").uid = 9
        mount.clock.advance(30)
        with raises(errno.EPERM):
            await mount.kernel.lookup(ROOT, b"x")


async def test_one_time_keeps_the_other(remote):
    inode = remote.put(b"/x")
    inode.atime, inode.mtime = 100, 200
    async with mounted(remote) as mount:
        nodeid = await lookup(mount, b"x")
        await mount.kernel.setattr_(nodeid, mtime_ns=300 * SECOND + 999)
        assert (inode.atime, inode.mtime) == (100, 300)
        await mount.kernel.setattr_(nodeid, atime_ns=400 * SECOND)
        assert (inode.atime, inode.mtime) == (400, 300)


@pytest.mark.parametrize("name", [b"x", b""])
async def test_one_time_keeps_the_other_as_the_server_has_it_although_the_link_is_down(
    remote, name
):
    inode = remote.put(b"/x") if name else remote.root
    inode.atime, inode.mtime = 100, 200
    async with mounted(remote) as mount:
        nodeid = await lookup(mount, name) if name else ROOT
        await mount.kernel.getattr_(nodeid)
        mount.clock.advance(30)
        inode.atime, inode.mtime = 101, 201  # changed elsewhere
        remote.set_up(False)
        gate = remote.hold("lstat" if name else "stat")
        setting = asyncio.ensure_future(mount.kernel.setattr_(nodeid, mtime_ns=300 * SECOND))
        await gate.arrived()
        remote.set_up(True)
        gate.release()
        await setting
        assert (inode.atime, inode.mtime) == (101, 300)


async def test_names_made_in_a_directory_leave_its_other_time_known(remote):
    remote.mkdirs(b"/d")
    inode = remote.at(b"/d")
    async with mounted(remote) as mount:
        nodeid = await lookup(mount, b"d")
        await mount.kernel.mkdir(nodeid, b"sub")
        inode.atime = 100
        remote.calls.clear()
        await mount.kernel.setattr_(nodeid, mtime_ns=300 * SECOND)
        assert [call.method for call in remote.calls] == ["setstat", "lstat"]
        assert inode.mtime == 300
        await mount.kernel.mkdir(nodeid, b"other")
        inode.mtime = 500
        await mount.kernel.setattr_(nodeid, atime_ns=400 * SECOND)
        assert (inode.atime, inode.mtime) == (400, 500), "that time was the server's to tell"


async def test_its_other_time_stays_known_as_long_as_names_are_made_in_it(remote):
    remote.mkdirs(b"/d")
    inode = remote.at(b"/d")
    async with mounted(remote) as mount:
        nodeid = await lookup(mount, b"d")
        for number in range(10):
            mount.clock.advance(0.4)
            await mount.kernel.mkdir(nodeid, b"sub%d" % number)
        await mount.settle()
        assert mount.node(nodeid).attrs_at < 0, "its times are not"
        remote.calls.clear()
        inode.atime, kept = 100, mount.node(nodeid).attrs.atime
        await mount.kernel.setattr_(nodeid, mtime_ns=300 * SECOND)
        assert [call.method for call in remote.calls] == ["setstat", "lstat"]
        assert (inode.atime, inode.mtime) == (kept, 300)


async def test_setting_times_from_below_upwards_asks_for_none_of_them_first(remote):
    remote.mkdirs(b"/a/b/c")
    async with mounted(remote) as mount:
        nodeids = [ROOT]
        for name in (b"a", b"b", b"c"):
            nodeids.append((await mount.kernel.lookup(nodeids[-1], name)).nodeid)
        await mount.kernel.mkdir(nodeids[-1], b"made")
        mount.clock.advance(5)
        waits = []
        for nodeid in reversed(nodeids[1:]):
            remote.calls.clear()
            await mount.kernel.setattr_(nodeid, mtime_ns=300 * SECOND)
            await mount.settle()
            methods = [call.method for call in remote.calls]
            waits.append(methods.index("setstat"))
        assert waits[1:] == [1, 0], "only the answer for the one above is asked for before it"


async def test_what_is_told_meanwhile_of_a_directory_does_not_undo_what_is_set(remote):
    remote.mkdirs(b"/d")
    async with mounted(remote) as mount:
        nodeid = await lookup(mount, b"d")
        mount.clock.advance(0.8)
        gate = remote.hold("lstat", b"/d", after=True)
        await mount.kernel.mkdir(nodeid, b"sub")
        await gate.arrived()
        await mount.kernel.setattr_(nodeid, mode=stat.S_IFDIR | 0o700)
        gate.release()
        await mount.settle()
        assert stat.S_IMODE((await mount.kernel.getattr_(nodeid)).mode) == 0o700


# --- what is set to what it is


async def settled(mount, remote, name=b"d", **changes):
    """The nodeid of a directory after an own change of its attributes; no call counts yet."""
    nodeid = await lookup(mount, name)
    await mount.kernel.setattr_(nodeid, mtime_ns=300 * SECOND, **changes)
    remote.calls.clear()
    return nodeid


async def test_the_owner_that_a_directory_has_is_set_without_waiting(remote):
    remote.mkdirs(b"/d")
    async with mounted(remote) as mount:
        nodeid = await settled(mount, remote)
        gate = remote.hold("setstat")
        attr = await mount.kernel.setattr_(nodeid, owner=501, group=502)
        assert (attr.uid, attr.gid) == (501, 502)
        await gate.arrived()
        gate.release()
        await mount.settle()
        assert [call.method for call in remote.calls] == ["setstat"]


async def test_a_mode_that_a_directory_has_is_too(remote):
    remote.mkdirs(b"/d")
    async with mounted(remote) as mount:
        nodeid = await settled(mount, remote)
        gate = remote.hold("setstat")
        await mount.kernel.setattr_(nodeid, mode=stat.S_IFDIR | 0o755)
        gate.release()
        await mount.settle()


@pytest.mark.parametrize(
    "changes",
    [
        {"owner": 7},
        {"group": 7},
        {"mode": stat.S_IFDIR | 0o700},
        {"owner": 501, "mtime_ns": 400 * SECOND},
    ],
)
async def test_what_changes_something_is_waited_for(remote, changes):
    remote.mkdirs(b"/d")
    async with mounted(remote) as mount:
        nodeid = await settled(mount, remote)
        remote.fail_next("setstat", errno.EPERM)
        with raises(errno.EPERM):
            await mount.kernel.setattr_(nodeid, **changes)


@pytest.mark.parametrize("case", ["file", "other login", "later", "no change before", "refused"])
async def test_what_the_server_may_refuse_is_waited_for(remote, case):
    directory = remote.mkdirs(b"/d")
    remote.put(b"/x")
    if case == "other login":
        directory.uid = 77
    async with mounted(remote) as mount:
        nodeid = await settled(mount, remote, b"x" if case == "file" else b"d")
        if case == "later":
            mount.clock.advance(2)
        elif case == "no change before":
            await mount.kernel.mkdir(ROOT, b"other")
        elif case == "refused":
            remote.fail_next("setstat", errno.EPERM)
            with raises(errno.EPERM):
                await mount.kernel.setattr_(nodeid, mode=stat.S_IFDIR | 0o700)
        remote.fail_next("setstat", errno.EPERM)
        with raises(errno.EPERM):
            owner = 77 if case == "other login" else 501
            await mount.kernel.setattr_(nodeid, owner=owner, group=502)


async def test_now_is_now(remote):
    inode = remote.put(b"/x")
    async with mounted(remote) as mount:
        nodeid = await lookup(mount, b"x")
        await mount.kernel.setattr_(nodeid, atime_now=True, mtime_now=True)
        assert abs(inode.mtime - time.time()) < 5
        assert abs(inode.atime - time.time()) < 5


@pytest.mark.parametrize(
    ("wanted_s", "set_s"), [(-5, 0), (1 << 32, (1 << 32) - 1), ((1 << 32) - 1, (1 << 32) - 1)]
)
async def test_times_out_of_range_are_clamped(remote, wanted_s, set_s):
    inode = remote.put(b"/x")
    async with mounted(remote) as mount:
        nodeid = await lookup(mount, b"x")
        attr = await mount.kernel.setattr_(
            nodeid, atime_ns=wanted_s * SECOND, mtime_ns=wanted_s * SECOND
        )
        assert inode.mtime == attr.mtime == set_s


async def test_a_symlinks_own_times_are_set_also_when_it_dangles(remote):
    link = remote.put_symlink(b"/l", b"nowhere")
    async with mounted(remote) as mount:
        nodeid = await lookup(mount, b"l")
        await mount.kernel.setattr_(nodeid, atime_ns=SECOND, mtime_ns=2 * SECOND)
        assert (link.atime, link.mtime) == (1, 2)
        assert await lookup(mount, b"l") == nodeid


async def test_without_lsetstat_a_symlink_cannot_be_changed():
    remote = FakeRemote(extensions=OPENSSH - {b"lsetstat@openssh.com"})
    remote.put_symlink(b"/l", b"nowhere")
    async with mounted(remote) as mount:
        nodeid = await lookup(mount, b"l")
        with raises(errno.EOPNOTSUPP):
            await mount.kernel.setattr_(nodeid, atime_ns=SECOND, mtime_ns=SECOND)


async def test_a_size_goes_through_the_files_own_queue(remote):
    inode = remote.put(b"/x", b"abcdef")
    async with mounted(remote) as mount:
        nodeid = await lookup(mount, b"x")
        attr = await mount.kernel.setattr_(nodeid, size=2)
        assert attr.size == 2
        assert bytes(inode.data) == b"ab"
        assert mount.files.set == [(nodeid, Attrs(size=2))]
        remote.calls.clear()
        await mount.kernel.getattr_(nodeid)
        assert remote.count("lstat") == 1, "the server has set an mtime"


async def test_with_unsent_data_everything_goes_through_the_files_queue(remote):
    remote.put(b"/x", b"abcdef", 0o6755)
    async with mounted(remote) as mount:
        node = mount.node(await lookup(mount, b"x"))
        node.data = Content(unsent_size=100)
        attr = await mount.kernel.setattr_(node.nodeid, owner=1, group=1)
        assert mount.files.set == [(node.nodeid, Attrs(uid=1, gid=1))]
        assert attr.mode == stat.S_IFREG | 0o755, "chown clears set-user-ID and set-group-ID"
        assert attr.size == 100


async def test_setting_nothing_shows_the_attributes(remote):
    remote.put(b"/x")
    async with mounted(remote) as mount:
        nodeid = await lookup(mount, b"x")
        await mount.kernel.setattr_(nodeid)
        await mount.kernel.setattr_(nodeid, ctime_ns=1)
        assert remote.count("setstat") == 0


async def test_after_a_failed_change_the_server_is_asked(remote):
    remote.put(b"/x")
    async with mounted(remote) as mount:
        nodeid = await lookup(mount, b"x")
        remote.fail_next("setstat", errno.EACCES)
        with raises(errno.EACCES):
            await mount.kernel.setattr_(nodeid, mode=stat.S_IFREG | 0o600)
        before = remote.count("lstat")
        await mount.kernel.getattr_(nodeid)
        assert remote.count("lstat") == before + 1


async def test_an_interrupted_change_leaves_nothing_believed(remote):
    remote.put(b"/x")
    async with mounted(remote) as mount:
        nodeid = await lookup(mount, b"x")
        gate = remote.hold("setstat", after=True)
        attempt = asyncio.ensure_future(mount.kernel.setattr_(nodeid, mode=stat.S_IFREG | 0o600))
        await gate.arrived()
        mount.kernel.interrupt(max(mount.kernel.waiting))
        with raises(errno.EINTR):
            await attempt
        assert (await mount.kernel.getattr_(nodeid)).mode == stat.S_IFREG | 0o600


# --- ACCESS


@pytest.mark.parametrize(
    ("mode", "owner", "group", "mask", "errno_"),
    [
        (0o600, 1000, 1000, os.R_OK | os.W_OK, 0),
        (0o600, 1000, 1000, os.X_OK, errno.EACCES),
        (0o070, 1000, 1000, os.R_OK, errno.EACCES),
        (0o640, 5, 1000, os.R_OK, 0),
        (0o640, 5, 1000, os.W_OK, errno.EACCES),
        (0o604, 5, 6, os.W_OK, errno.EACCES),
        (0o644, 5, 6, os.R_OK, 0),
        (0o000, 5, 6, os.F_OK, 0),
    ],
)
async def test_access_follows_what_the_server_takes_us_for(
    remote, mode, owner, group, mask, errno_
):
    inode = remote.put(b"/x", b"", mode)
    inode.uid, inode.gid = owner, group
    async with mounted(remote) as mount:
        nodeid = await lookup(mount, b"x")
        if errno_:
            with raises(errno_):
                await mount.kernel.access(nodeid, mask)
        else:
            await mount.kernel.access(nodeid, mask)
        assert remote.count("open") == 0


async def test_root_there_may_everything_but_run_what_nobody_may(remote):
    remote.put(b"/x", b"", 0o000).uid = 5
    async with mounted(remote, login=Login(0, 0)) as mount:
        nodeid = await lookup(mount, b"x")
        await mount.kernel.access(nodeid, os.R_OK | os.W_OK)
        with raises(errno.EACCES):
            await mount.kernel.access(nodeid, os.X_OK)


async def test_what_depends_on_groups_is_tried(remote):
    inode = remote.put(b"/x", b"", 0o640)
    inode.uid, inode.gid = 5, 6
    async with mounted(remote) as mount:
        nodeid = await lookup(mount, b"x")
        await mount.kernel.access(nodeid, os.R_OK)
        assert remote.count("open") == 1
        assert not remote.open_handles
        remote.fail_next("open", errno.EACCES)
        with raises(errno.EACCES):
            await mount.kernel.access(nodeid, os.R_OK)


# --- STATFS


async def test_statfs_is_the_servers(remote):
    async with mounted(remote) as mount:
        for _ in range(3):
            assert await mount.kernel.statfs() == (1000, 500, 400, 100, 50, 4096, 255, 4096)
        assert remote.count("statvfs") == 1
        mount.clock.advance(2)
        await mount.kernel.statfs()
        assert remote.count("statvfs") == 2


async def test_statfs_answers_while_the_link_is_silent(remote):
    async with mounted(remote) as mount:
        await mount.kernel.statfs()
        mount.clock.advance(5)
        remote.hold("statvfs")
        started = time.monotonic()
        assert (await mount.kernel.statfs())[0] == 1000
        assert time.monotonic() - started < 1.5
        remote.is_up = False
        mount.clock.advance(5)
        assert (await mount.kernel.statfs())[0] == 1000


async def test_statfs_without_the_extension_shows_room():
    remote = FakeRemote(extensions=frozenset())
    async with mounted(remote) as mount:
        blocks, bfree, *_rest = await mount.kernel.statfs()
        assert blocks == bfree > 0


# --- what is shown of modes and owners


@pytest.mark.parametrize(
    ("identity", "file_mode", "dir_mode"),
    [
        (IdentityConfig(), 0o640, 0o755),
        (IdentityConfig(umask=0o027), 0o750, 0o750),
        (IdentityConfig(fmask=0o133), 0o644, 0o755),
        (IdentityConfig(umask=0o077, dmask=0o022), 0o700, 0o755),
    ],
)
async def test_masks_replace_permissions(remote, identity, file_mode, dir_mode):
    remote.put(b"/x", b"", 0o640)
    remote.mkdirs(b"/d")
    async with mounted(remote, config=make_config(identity=identity)) as mount:
        shown = await mount.kernel.lookup(ROOT, b"x")
        assert stat.S_IMODE(shown.attr.mode) == file_mode
        shown = await mount.kernel.lookup(ROOT, b"d")
        assert stat.S_IMODE(shown.attr.mode) == dir_mode


@pytest.mark.parametrize(
    ("identity", "owner"),
    [
        (IdentityConfig(idmap="none"), (1000, 1000)),
        (IdentityConfig(idmap="user"), (501, 502)),
        (IdentityConfig(uid=1, gid=2), (1, 2)),
        (IdentityConfig(idmap="file", nomap="ignore", uid_map={1000: 8}), (8, 1000)),
    ],
)
async def test_owners_are_shown_as_asked(remote, identity, owner):
    remote.put(b"/x")
    config = make_config(identity=identity, cache=CacheConfig())
    async with mounted(remote, config=config) as mount:
        shown = await mount.kernel.lookup(ROOT, b"x")
        assert (shown.attr.uid, shown.attr.gid) == owner
