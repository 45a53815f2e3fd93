"""Names: looked up, made, moved, removed."""

from __future__ import annotations

import asyncio
import errno
import os
import stat

import pytest

from netfs.client.config import CacheConfig, MountConfig, SemanticsConfig
from netfs.client.identity import Login
from netfs.client.remote.pending import Disconnected
from netfs.fuse import abi
from netfs.fuse.abi import Opcode
from tests.fakes.context import Content, make_config, mounted
from tests.fakes.kernel import parse_entry
from tests.fakes.remote import OPENSSH, FakeRemote

ROOT = 1


@pytest.fixture
def remote() -> FakeRemote:
    return FakeRemote()


def raises(number: int):
    return pytest.raises(OSError, match=os.strerror(number).replace("(", r"\("))


# --- LOOKUP


async def test_a_name_is_asked_once_within_its_time(remote):
    remote.put(b"/x", b"abc")
    async with mounted(remote) as mount:
        first = await mount.kernel.lookup(ROOT, b"x")
        mount.clock.advance(19)
        second = await mount.kernel.lookup(ROOT, b"x")
        assert first.attr == second.attr
        assert first.attr.size == 3
        assert remote.count("lstat") == 1
        mount.clock.advance(2)
        await mount.kernel.lookup(ROOT, b"x")
        assert remote.count("lstat") == 2


async def test_the_kernel_may_keep_a_name_for_the_rest_of_its_time(remote):
    remote.put(b"/x")
    async with mounted(remote) as mount:
        assert (await mount.kernel.lookup(ROOT, b"x")).entry_valid_s == 20
        mount.clock.advance(15)
        entry = await mount.kernel.lookup(ROOT, b"x")
        assert (entry.entry_valid_s, entry.attr_valid_s) == (5, 5)


async def test_kernel_timeouts_can_be_set(remote):
    remote.put(b"/x")
    config = make_config(cache=CacheConfig(attr_timeout_s=3, entry_timeout_s=0))
    async with mounted(remote, config=config) as mount:
        entry = await mount.kernel.lookup(ROOT, b"x")
        assert (entry.entry_valid_s, entry.attr_valid_s) == (0, 3)


async def test_every_lookup_counts_one_reference(remote):
    remote.put(b"/x")
    async with mounted(remote) as mount:
        entry = await mount.kernel.lookup(ROOT, b"x")
        await mount.kernel.lookup(ROOT, b"x")
        assert mount.node(entry.nodeid).nlookup == 2
        mount.kernel.batch_forget([(entry.nodeid, 2)])
        await mount.kernel.statfs()
        assert mount.node(entry.nodeid).nlookup == 0


async def test_a_reply_that_nobody_takes_counts_no_reference(remote):
    remote.put(b"/x")
    async with mounted(remote) as mount:
        gate = remote.hold("lstat")
        unique = mount.kernel.send(abi.Opcode.LOOKUP, ROOT, b"x\0")
        await gate.arrived()
        mount.kernel.give_up(unique)
        gate.release()
        entry = await mount.kernel.lookup(ROOT, b"x")
        assert mount.node(entry.nodeid).nlookup == 1


async def test_a_missing_name_is_asked_once_within_its_time(remote):
    async with mounted(remote) as mount:
        entry = await mount.kernel.lookup(ROOT, b"no")
        assert (entry.nodeid, entry.entry_valid_s) == (0, 20)
        mount.clock.advance(19)
        assert (await mount.kernel.lookup(ROOT, b"no")).nodeid == 0
        assert remote.count("lstat") == 1


async def test_without_caches_everything_is_asked(remote):
    remote.put(b"/x")
    async with mounted(remote, config=make_config(cache=CacheConfig(enabled=False))) as mount:
        for _ in range(3):
            assert (await mount.kernel.lookup(ROOT, b"x")).entry_valid_s == 0
            with raises(errno.ENOENT):
                await mount.kernel.lookup(ROOT, b"no")
        assert remote.count("lstat") == 6


@pytest.mark.parametrize(
    ("name", "is_there", "is_known"),
    [(b"x", True, False), (b"no", False, False), (b"x", True, True)],
)
async def test_a_name_whose_question_is_lost_with_the_link_is_asked_again(
    name, is_there, is_known, remote, monkeypatch
):
    remote.put(b"/x", b"abc")
    cuts = []
    lstat = remote.lstat

    async def cut_once(path):
        try:
            return await lstat(path)
        finally:
            if cuts:
                raise cuts.pop()

    monkeypatch.setattr(remote, "lstat", cut_once)
    async with mounted(remote) as mount:
        if is_known:
            await mount.kernel.lookup(ROOT, name)
            mount.clock.advance(30)
            remote.calls.clear()
        cuts.append(Disconnected("cut", sent=True))
        assert bool((await mount.kernel.lookup(ROOT, name)).nodeid) == is_there
        assert remote.count("lstat") == 2


async def test_names_are_bytes_of_up_to_255(remote):
    names = [b"\xff\xfe raw", b"n" * 255, "ü".encode()]
    for name in names:
        remote.put(b"/" + name)
    async with mounted(remote) as mount:
        for name in names:
            assert (await mount.kernel.lookup(ROOT, name)).nodeid
        with raises(errno.ENAMETOOLONG):
            await mount.kernel.lookup(ROOT, b"n" * 256)


async def test_a_file_made_on_the_server_is_seen_when_its_absence_is_old(remote):
    async with mounted(remote) as mount:
        await mount.kernel.lookup(ROOT, b"x")
        remote.put(b"/x")
        mount.clock.advance(20.5)
        assert (await mount.kernel.lookup(ROOT, b"x")).nodeid


async def test_a_file_that_became_a_directory_is_another_node(remote):
    remote.put(b"/x")
    async with mounted(remote) as mount:
        before = await mount.kernel.lookup(ROOT, b"x")
        remote.delete(b"/x")
        remote.mkdirs(b"/x")
        mount.clock.advance(30)
        after = await mount.kernel.lookup(ROOT, b"x")
        assert after.nodeid != before.nodeid
        assert stat.S_ISDIR(after.attr.mode)


async def test_while_the_link_is_down_what_is_known_is_served_however_old(remote):
    remote.put(b"/x", b"abc")
    async with mounted(remote) as mount:
        entry = await mount.kernel.lookup(ROOT, b"x")
        await mount.kernel.lookup(ROOT, b"no")
        mount.clock.advance(10_000)
        remote.is_up = False
        again = await mount.kernel.lookup(ROOT, b"x")
        assert (again.nodeid, again.entry_valid_s) == (entry.nodeid, 0)
        assert (await mount.kernel.getattr_(entry.nodeid)).size == 3
        with raises(errno.ENOENT):
            await mount.kernel.lookup(ROOT, b"no")
        # The second name of a directory has it listed.
        assert (remote.count("lstat"), remote.count("scandir")) == (1, 1)


async def test_a_lost_link_does_not_make_a_known_name_fail(remote):
    remote.mkdirs(b"/d")
    async with mounted(remote) as mount:
        entry = await mount.kernel.lookup(ROOT, b"d")
        mount.clock.advance(30)
        remote.fail_next("lstat", errno.ETIMEDOUT)
        assert (await mount.kernel.lookup(ROOT, b"d")).nodeid == entry.nodeid
        mount.clock.advance(30)
        remote.fail_next("lstat", errno.ETIMEDOUT)
        with raises(errno.ETIMEDOUT):
            await mount.kernel.lookup(ROOT, b"unknown")


async def ask_old_name(remote, mount):
    """A LOOKUP of a known name whose time is over, and where its question stands."""
    entry = await mount.kernel.lookup(ROOT, b"x")
    mount.clock.advance(30)
    gate = remote.hold("lstat")
    unique = mount.kernel.send(Opcode.LOOKUP, ROOT, b"x\0")
    await gate.arrived()
    assert mount.ctx.coherence.when_down
    return entry, gate, unique


async def test_a_known_name_is_shown_as_it_was_as_soon_as_the_link_is_down(remote):
    remote.put(b"/x", b"abc")
    async with mounted(remote) as mount:
        entry, gate, unique = await ask_old_name(remote, mount)
        remote.set_up(False)
        again = parse_entry((await mount.kernel.answer(unique)).body)
        assert (again.nodeid, again.attr.size, again.entry_valid_s) == (entry.nodeid, 3, 0)
        assert not mount.ctx.coherence.when_down
        gate.release()
        remote.set_up(True)
        remote.put(b"/x", b"abcd")
        assert (await mount.kernel.lookup(ROOT, b"x")).attr.size == 4
    assert mount.kernel.answered_twice == []


@pytest.mark.parametrize("outcome", ["found", "missing", "killed"])
async def test_a_known_name_that_was_answered_does_not_wait_for_the_link_any_more(outcome, remote):
    remote.put(b"/x", b"abc")
    async with mounted(remote) as mount:
        _, gate, unique = await ask_old_name(remote, mount)
        if outcome == "missing":
            remote.delete(b"/x")
        if outcome == "killed":
            mount.kernel.interrupt(unique)
        else:
            gate.release()
        answer = await mount.kernel.answer(unique)
        assert answer.error == (errno.EINTR if outcome == "killed" else 0)
        assert not mount.ctx.coherence.when_down
        remote.set_up(False)
        gate.release()
    assert mount.kernel.answered_twice == []


async def test_an_unmapped_nodeid_is_stale(remote):
    async with mounted(remote) as mount:
        with raises(errno.ESTALE):
            await mount.kernel.lookup(77, b"x")


# --- READLINK and symlinks


async def test_a_target_is_asked_once(remote):
    remote.put_symlink(b"/l", b"t" * 4095)
    async with mounted(remote) as mount:
        link = await mount.kernel.lookup(ROOT, b"l")
        for _ in range(2):
            assert await mount.kernel.readlink(link.nodeid) == b"t" * 4095
        assert remote.count("readlink") == 1


async def test_a_symlink_that_was_replaced_is_another_node(remote):
    remote.put_symlink(b"/l", b"old")
    async with mounted(remote) as mount:
        before = await mount.kernel.lookup(ROOT, b"l")
        await mount.kernel.readlink(before.nodeid)
        remote.now += 5
        remote.put_symlink(b"/l", b"new")
        mount.clock.advance(21)
        after = await mount.kernel.lookup(ROOT, b"l")
        assert after.nodeid != before.nodeid
        assert await mount.kernel.readlink(after.nodeid) == b"new"


async def test_a_symlink_is_made_in_one_round_trip_and_its_target_known(remote):
    async with mounted(remote) as mount:
        entry = await mount.kernel.symlink(ROOT, b"l", b"some/where")
        assert stat.S_ISLNK(entry.attr.mode)
        assert await mount.kernel.readlink(entry.nodeid) == b"some/where"
        assert [call.method for call in remote.calls] == ["symlink", "lstat"]
        with raises(errno.ENAMETOOLONG):
            await mount.kernel.symlink(ROOT, b"m", b"t" * 4096)


async def test_symlinks_can_be_followed(remote):
    remote.put(b"/file", b"abc")
    remote.put_symlink(b"/l", b"file")
    remote.put_symlink(b"/dangling", b"nowhere")
    config = make_config(semantics=SemanticsConfig(follow_symlinks=True))
    async with mounted(remote, config=config) as mount:
        fh = await mount.kernel.opendir(ROOT)
        entries = {each.name: each for each in await mount.kernel.readdirplus(ROOT, fh)}
        assert entries[b"l"].type == 0, "DT_UNKNOWN: whatever it leads to"
        assert (await mount.kernel.lookup(ROOT, b"l")).attr.size == 3
        assert stat.S_ISLNK((await mount.kernel.lookup(ROOT, b"dangling")).attr.mode)


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        (b"/srv/data/a/b", b"../a/b"),
        (b"/srv/data", b".."),
        (b"/srv/database/x", b"/srv/database/x"),
        (b"/srv/data/../x", b"/srv/data/../x"),
        (b"rel/../x", b"rel/../x"),
    ],
)
async def test_absolute_targets_inside_can_be_transformed(remote, target, shown):
    remote.put_symlink(b"/srv/data/d/l", target)
    config = make_config(semantics=SemanticsConfig(transform_symlinks=True))
    async with mounted(remote, config=config, root=b"/srv/data") as mount:
        directory = await mount.kernel.lookup(ROOT, b"d")
        link = await mount.kernel.lookup(directory.nodeid, b"l")
        assert await mount.kernel.readlink(link.nodeid) == shown


@pytest.mark.parametrize(
    ("target", "allowed"), [(b"/etc", False), (b"a/../../x", False), (b"..", False), (b"a/b", True)]
)
async def test_targets_can_be_contained(remote, target, allowed):
    remote.put_symlink(b"/l", target)
    config = make_config(semantics=SemanticsConfig(contain_symlinks=True))
    async with mounted(remote, config=config) as mount:
        link = await mount.kernel.lookup(ROOT, b"l")
        if allowed:
            assert await mount.kernel.readlink(link.nodeid) == target
        else:
            with raises(errno.EPERM):
                await mount.kernel.readlink(link.nodeid)


# --- MKDIR, MKNOD


async def test_a_made_directory_is_known_in_full(remote):
    async with mounted(remote) as mount:
        entry = await mount.kernel.mkdir(ROOT, b"d", 0o700)
        assert entry.attr.mode == stat.S_IFDIR | 0o700
        assert mount.node(entry.nodeid).nlookup == 1
        assert [call.method for call in remote.calls] == ["mkdir", "lstat"]
        assert (await mount.kernel.lookup(entry.nodeid, b"anything")).nodeid == 0
        fh = await mount.kernel.opendir(entry.nodeid)
        assert len(await mount.kernel.readdir(entry.nodeid, fh)) == 2
        assert remote.count() == 2


async def test_bits_that_the_servers_umask_took_off_are_given_back(remote):
    remote.umask = 0o022
    async with mounted(remote) as mount:
        entry = await mount.kernel.mkdir(ROOT, b"d", 0o1777)
        assert entry.attr.mode == stat.S_IFDIR | 0o1777
        assert remote.at(b"/d").mode == stat.S_IFDIR | 0o1777
        assert [call.method for call in remote.calls] == ["mkdir", "lstat", "setstat"]
        remote.fail_next("setstat", errno.EPERM)  # the server decides itself
        entry = await mount.kernel.mkdir(ROOT, b"e", 0o777)
        assert entry.attr.mode == stat.S_IFDIR | 0o755


async def test_permissions_that_a_server_gives_unasked_are_taken_back(remote):
    async with mounted(remote) as mount:
        remote.unasked = 0o755
        entry = await mount.kernel.mkdir(ROOT, b"d", 0o700)
        assert entry.attr.mode == remote.at(b"/d").mode == stat.S_IFDIR | 0o700
        assert [call.method for call in remote.calls] == ["mkdir", "lstat", "setstat"]


async def test_a_link_whose_server_looks_behind_it_is_a_link(remote):
    """ProFTPD's LSTAT; the kernel takes another kind than it asked for for EIO."""
    async with mounted(remote) as mount:
        remote.put(b"/t", b"content")
        remote.looks_behind_links = True
        entry = await mount.kernel.symlink(ROOT, b"l", b"t")
        assert stat.S_ISLNK(entry.attr.mode)
        assert await mount.kernel.readlink(entry.nodeid) == b"t"


async def test_a_made_name_is_no_longer_missing(remote):
    async with mounted(remote) as mount:
        await mount.kernel.lookup(ROOT, b"d")
        await mount.kernel.mkdir(ROOT, b"d")
        assert (await mount.kernel.lookup(ROOT, b"d")).nodeid


async def test_a_server_that_looks_too_early_is_asked_again(remote):
    async with mounted(remote) as mount:
        gate = remote.hold("mkdir")
        made = asyncio.ensure_future(mount.kernel.mkdir(ROOT, b"d"))
        await gate.arrived()
        async with asyncio.timeout(5):
            while remote.count("lstat") < 1:
                await asyncio.sleep(0)
            for _ in range(5):
                await asyncio.sleep(0)
        gate.release()
        assert stat.S_ISDIR((await made).attr.mode)
        assert remote.count("lstat") == 2


async def test_making_what_exists_shows_that_it_exists(remote):
    async with mounted(remote) as mount:
        await mount.kernel.lookup(ROOT, b"d")
        remote.mkdirs(b"/d")
        with raises(errno.EEXIST):
            await mount.kernel.mkdir(ROOT, b"d")
        assert (await mount.kernel.lookup(ROOT, b"d")).nodeid


async def test_mknod_makes_regular_files_and_nothing_else(remote):
    async with mounted(remote) as mount:
        entry = await mount.kernel.mknod(ROOT, b"f", stat.S_IFREG | 0o640)
        assert entry.attr.mode == stat.S_IFREG | 0o640
        assert entry.attr.nlink == 1
        assert not remote.open_handles
        for kind in (stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK):
            with raises(errno.EPERM):
                await mount.kernel.mknod(ROOT, b"special", kind | 0o600)


async def test_names_too_long_are_refused_by_every_operation(remote):
    long = b"n" * 256
    remote.put(b"/x")
    async with mounted(remote) as mount:
        kernel = mount.kernel
        node = (await kernel.lookup(ROOT, b"x")).nodeid
        before = remote.count()
        for attempt in (
            kernel.mkdir(ROOT, long),
            kernel.mknod(ROOT, long, stat.S_IFREG),
            kernel.symlink(ROOT, long, b"t"),
            kernel.link(node, ROOT, long),
            kernel.unlink(ROOT, long),
            kernel.rmdir(ROOT, long),
            kernel.rename(ROOT, long, ROOT, b"y"),
            kernel.rename(ROOT, b"x", ROOT, long),
        ):
            with raises(errno.ENAMETOOLONG):
                await attempt
        assert remote.count() == before


async def test_what_a_caller_creates_belongs_to_the_caller(remote):
    remote.login = (0, 0)
    config = make_config(mount=MountConfig(mountpoint="/mnt", allow_other=True))
    async with mounted(remote, config=config, login=Login(0, 0)) as mount:
        mount.kernel.uid, mount.kernel.gid = 1234, 1235
        entry = await mount.kernel.mkdir(ROOT, b"d")
        assert (entry.attr.uid, entry.attr.gid) == (1234, 1235)
        made = remote.at(b"/d")
        assert (made.uid, made.gid) == (1234, 1235)


async def test_in_a_setgid_directory_the_group_is_the_directorys(remote):
    remote.login = (0, 77)
    remote.root.mode |= stat.S_ISGID
    config = make_config(mount=MountConfig(mountpoint="/mnt", allow_other=True))
    async with mounted(remote, config=config, login=Login(0, 0)) as mount:
        mount.kernel.uid, mount.kernel.gid = 1234, 1235
        await mount.kernel.getattr_(ROOT)
        await mount.kernel.mknod(ROOT, b"f", stat.S_IFREG | 0o600)
        made = remote.at(b"/f")
        assert (made.uid, made.gid) == (1234, 77)


async def test_an_ordinary_login_keeps_what_it_creates(remote):
    config = make_config(mount=MountConfig(mountpoint="/mnt", allow_other=True))
    async with mounted(remote, config=config) as mount:
        await mount.kernel.mkdir(ROOT, b"d")
        assert remote.count("setstat") == 0


# --- LINK


async def test_names_made_by_link_are_one_node(remote):
    remote.put(b"/x", b"abc")
    async with mounted(remote) as mount:
        old = await mount.kernel.lookup(ROOT, b"x")
        new = await mount.kernel.link(old.nodeid, ROOT, b"y")
        assert (new.nodeid, new.attr.ino, new.attr.nlink) == (old.nodeid, old.attr.ino, 2)
        assert mount.node(old.nodeid).nlookup == 2
        await mount.kernel.unlink(ROOT, b"x")
        rest = await mount.kernel.getattr_(old.nodeid)
        assert rest.nlink == 1
        assert mount.ctx.nodes.path(mount.node(old.nodeid)) == b"/y"


async def test_links_can_be_disabled_or_missing(remote):
    remote.put(b"/x")
    config = make_config(semantics=SemanticsConfig(disable_hardlink=True))
    async with mounted(remote, config=config) as mount:
        node = (await mount.kernel.lookup(ROOT, b"x")).nodeid
        with raises(errno.EPERM):
            await mount.kernel.link(node, ROOT, b"y")
    bare = FakeRemote(extensions=OPENSSH - {b"hardlink@openssh.com"})
    bare.put(b"/x")
    async with mounted(bare) as mount:
        node = (await mount.kernel.lookup(ROOT, b"x")).nodeid
        with raises(errno.EPERM):
            await mount.kernel.link(node, ROOT, b"y")


# --- UNLINK, RMDIR


async def test_a_removed_name_is_known_to_be_missing(remote):
    remote.put(b"/x")
    async with mounted(remote) as mount:
        await mount.kernel.lookup(ROOT, b"x")
        await mount.kernel.unlink(ROOT, b"x")
        before = remote.count()
        assert (await mount.kernel.lookup(ROOT, b"x")).nodeid == 0
        assert remote.count() == before


async def test_an_open_file_gets_a_handle_before_its_name_goes(remote):
    remote.put(b"/x")
    remote.put(b"/y")
    async with mounted(remote) as mount:
        for name in (b"x", b"y"):
            node = mount.node((await mount.kernel.lookup(ROOT, name)).nodeid)
            node.data = Content()
            mount.ctx.nodes.pin(node)
        await mount.kernel.rename(ROOT, b"x", ROOT, b"y")
        assert mount.files.kept_open == [3], "the replaced one"
        await mount.kernel.unlink(ROOT, b"y")
        assert mount.files.kept_open == [3, 2]


async def test_an_unlinked_open_file_answers_through_its_handle(remote):
    remote.put(b"/x", b"abc")
    async with mounted(remote) as mount:
        node = mount.node((await mount.kernel.lookup(ROOT, b"x")).nodeid)
        mount.ctx.nodes.pin(node)
        await mount.kernel.unlink(ROOT, b"x")
        mount.files.by_handle[node.nodeid] = replace_attrs(node, size=7)
        mount.clock.advance(30)
        attr = await mount.kernel.getattr_(node.nodeid)
        assert (attr.size, attr.nlink) == (7, 0)
        await mount.kernel.setattr_(node.nodeid, mode=stat.S_IFREG | 0o600)
        assert mount.files.set[0][1].mode == 0o600


def replace_attrs(node, **changes):
    return node.attrs._replace(nlink=None, **changes)


async def test_a_directory_that_is_not_empty_after_all_is_listed_again(remote):
    async with mounted(remote) as mount:
        made = await mount.kernel.mkdir(ROOT, b"d")
        remote.put(b"/d/hidden")
        with raises(errno.ENOTEMPTY):
            await mount.kernel.rmdir(ROOT, b"d")
        fh = await mount.kernel.opendir(made.nodeid)
        names = [each.name for each in await mount.kernel.readdir(made.nodeid, fh)]
        assert b"hidden" in names


async def test_subdirectories_are_counted_where_the_server_counts_them(remote):
    remote.mkdirs(b"/d")
    async with mounted(remote) as mount:
        fh = await mount.kernel.opendir(ROOT)
        entries = {each.name: each.entry for each in await mount.kernel.readdirplus(ROOT, fh)}
        directory = entries[b"d"]
        assert directory.attr.nlink == 2
        await mount.kernel.mkdir(directory.nodeid, b"sub")
        assert (await mount.kernel.getattr_(directory.nodeid)).nlink == 3
        await mount.kernel.rmdir(directory.nodeid, b"sub")
        assert (await mount.kernel.getattr_(directory.nodeid)).nlink == 2


async def test_who_removes_a_tree_finds_the_directory_above_known(remote):
    remote.mkdirs(b"/a/b/c/d")
    remote.put(b"/a/b/file")
    async with mounted(remote) as mount:
        a = await mount.kernel.lookup(ROOT, b"a")
        b = await mount.kernel.lookup(a.nodeid, b"b")
        c = await mount.kernel.lookup(b.nodeid, b"c")
        await mount.kernel.lookup(c.nodeid, b"d")
        await mount.kernel.unlink(b.nodeid, b"file")
        remote.calls.clear()
        await mount.kernel.rmdir(c.nodeid, b"d")
        await mount.settle()
        assert sorted(call.method for call in remote.calls) == ["lstat", "rmdir"]
        attr = await mount.kernel.getattr_(b.nodeid)
        assert attr.mtime == remote.at(b"/a/b").mtime
        assert len(remote.calls) == 2


async def test_nothing_is_asked_above_a_directory_that_holds_more(remote):
    remote.mkdirs(b"/a/b/c")
    remote.mkdirs(b"/a/b/d")
    async with mounted(remote) as mount:
        a = await mount.kernel.lookup(ROOT, b"a")
        b = await mount.kernel.lookup(a.nodeid, b"b")
        for name in (b"c", b"d"):
            await mount.kernel.lookup(b.nodeid, name)
        remote.calls.clear()
        await mount.kernel.rmdir(b.nodeid, b"c")
        assert [call.method for call in remote.calls] == ["rmdir"]


# --- RENAME


async def test_a_rename_moves_the_node(remote):
    remote.put(b"/a/x", b"abc")
    remote.mkdirs(b"/b")
    async with mounted(remote) as mount:
        a = (await mount.kernel.lookup(ROOT, b"a")).nodeid
        b = (await mount.kernel.lookup(ROOT, b"b")).nodeid
        x = await mount.kernel.lookup(a, b"x")
        await mount.kernel.rename(a, b"x", b, b"y")
        before = remote.count()
        moved = await mount.kernel.lookup(b, b"y")
        assert (moved.nodeid, moved.attr.ino) == (x.nodeid, x.attr.ino)
        assert (await mount.kernel.lookup(a, b"x")).nodeid == 0
        assert remote.count() == before
        await mount.kernel.rename(ROOT, b"b", a, b"c")
        assert mount.ctx.nodes.path(mount.node(x.nodeid)) == b"/a/c/y"


async def test_a_rename_replaces_a_file_and_an_empty_directory(remote):
    remote.put(b"/old", b"old")
    remote.put(b"/new", b"new")
    remote.mkdirs(b"/d1")
    remote.mkdirs(b"/d2")
    async with mounted(remote) as mount:
        for name in (b"old", b"new", b"d1", b"d2"):
            await mount.kernel.lookup(ROOT, name)
        await mount.kernel.rename(ROOT, b"old", ROOT, b"new")
        assert (await mount.kernel.lookup(ROOT, b"new")).attr.size == 3
        await mount.kernel.rename(ROOT, b"d1", ROOT, b"d2")
        assert (await mount.kernel.lookup(ROOT, b"d1")).nodeid == 0
        assert bytes(remote.at(b"/new").data) == b"old"


async def test_noreplace_does_not_replace(remote):
    remote.put(b"/old")
    remote.put(b"/new")
    async with mounted(remote) as mount:
        with raises(errno.EEXIST):
            await mount.kernel.rename(ROOT, b"old", ROOT, b"new", abi.RENAME_NOREPLACE)
        await mount.kernel.rename(ROOT, b"old", ROOT, b"free", abi.RENAME_NOREPLACE)
        assert (await mount.kernel.lookup(ROOT, b"free")).nodeid


@pytest.mark.parametrize("flags", [abi.RENAME_EXCHANGE, abi.RENAME_WHITEOUT, 1 << 7])
async def test_renames_that_sftp_cannot_keep_are_refused(remote, flags):
    remote.put(b"/a")
    remote.put(b"/b")
    async with mounted(remote) as mount:
        with raises(errno.EINVAL):
            await mount.kernel.rename(ROOT, b"a", ROOT, b"b", flags)
        assert remote.count() == 0


# --- outcomes unknown


@pytest.mark.parametrize("operation", ["mkdir", "remove", "rename"])
async def test_after_a_change_of_unknown_outcome_nothing_is_believed(remote, operation):
    remote.put(b"/x")
    async with mounted(remote) as mount:
        kernel = mount.kernel
        await kernel.lookup(ROOT, b"x")
        await kernel.lookup(ROOT, b"y")
        gate = remote.hold(operation, after=True)
        attempts = {
            "mkdir": lambda: kernel.mkdir(ROOT, b"y"),
            "remove": lambda: kernel.unlink(ROOT, b"x"),
            "rename": lambda: kernel.rename(ROOT, b"x", ROOT, b"y"),
        }
        attempt = asyncio.ensure_future(attempts[operation]())
        await gate.arrived()
        kernel.interrupt(max(kernel.waiting))
        with raises(errno.EINTR):
            await attempt
        names = {b"x": b"x" in remote.root.entries, b"y": b"y" in remote.root.entries}
        for name, exists in names.items():
            assert bool((await kernel.lookup(ROOT, name)).nodeid) == exists


async def test_an_answer_overtaken_by_an_own_change_is_not_stored(remote):
    remote.put(b"/x", b"old")
    async with mounted(remote) as mount:
        node = mount.node((await mount.kernel.lookup(ROOT, b"x")).nodeid)
        mount.clock.advance(30)
        gate = remote.hold("lstat", after=True)
        asking = asyncio.ensure_future(mount.kernel.getattr_(node.nodeid))
        await gate.arrived()
        mount.ctx.nodes.begin_change(node)
        mount.ctx.nodes.set_attrs(node, node.attrs._replace(size=99), mount.clock())
        mount.ctx.nodes.end_change(node)
        gate.release()
        assert (await asking).size == 99


async def test_a_question_under_way_is_answered_from_memory_when_the_link_falls_silent(remote):
    remote.mkdirs(b"/d")
    remote.put(b"/d/x", b"abc")
    async with mounted(remote) as mount:
        directory = await mount.kernel.lookup(ROOT, b"d")
        entry = await mount.kernel.lookup(directory.nodeid, b"x")
        mount.clock.advance(10_000)
        gates = [remote.hold("lstat"), remote.hold("lstat")]
        asked = [
            asyncio.ensure_future(mount.kernel.lookup(directory.nodeid, b"x")),
            asyncio.ensure_future(mount.kernel.getattr_(entry.nodeid)),
        ]
        for gate in gates:
            await gate.arrived()
        remote.set_up(False)
        again, attr = await asyncio.wait_for(asyncio.gather(*asked), 5)
        assert again.nodeid == entry.nodeid
        assert attr.size == 3


async def test_who_waited_behind_a_name_that_timed_out_does_not_wait_again(
    remote: FakeRemote,
) -> None:
    remote.put(b"/x", b"abc")
    async with mounted(remote) as mount:
        remote.set_up(False)
        remote.fail_next("lstat", errno.ETIMEDOUT)
        for _ in range(3):  # only the first asks
            with pytest.raises(OSError, match=os.strerror(errno.ETIMEDOUT)):
                await mount.kernel.lookup(ROOT, b"x")
            mount.clock.advance(0.2)
        assert remote.count("lstat") == 1
        mount.clock.advance(0.4)
        remote.fail_next("lstat", errno.ETIMEDOUT)
        with pytest.raises(OSError, match=os.strerror(errno.ETIMEDOUT)):
            await mount.kernel.lookup(ROOT, b"x")
        assert remote.count("lstat") == 2
        remote.set_up(True)
        await mount.kernel.lookup(ROOT, b"x")
