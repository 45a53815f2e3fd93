"""Tree read-ahead on a served kernel: what reaches the server, and what does not get in the way."""

from __future__ import annotations

import errno
import logging

import pytest

from netfs.client.config import CacheConfig
from netfs.sftp.attrs import Attrs
from tests.fakes.context import make_config, mounted
from tests.fakes.remote import FakeRemote

ROOT = 1


@pytest.fixture
def remote() -> FakeRemote:
    remote = FakeRemote()
    for number in range(6):
        for file in range(4):
            remote.put(b"/d%d/file%d" % (number, file), b"abc")
    return remote


class Content:
    """All of a file's, as far as tree read-ahead looks at it."""

    is_complete = True

    def told(self, attrs: Attrs) -> None:
        pass

    def overlay(self, attrs: Attrs) -> Attrs:
        return attrs


async def listing(mount, nodeid: int) -> dict[bytes, int]:
    """As ls does it; name -> nodeid."""
    fh = await mount.kernel.opendir(nodeid)
    entries = await mount.kernel.readdirplus(nodeid, fh)
    await mount.kernel.releasedir(nodeid, fh)
    assert all(each.entry is not None for each in entries)
    return {each.name: each.entry.nodeid for each in entries if each.entry.nodeid}


async def test_a_walk_finds_its_directories_listed(remote):
    async with mounted(remote) as mount:
        directories = await listing(mount, ROOT)
        await listing(mount, directories[b"d0"])
        await mount.settle()
        remote.calls.clear()
        for name in (b"d1", b"d2", b"d3", b"d4", b"d5"):
            assert len(await listing(mount, directories[name])) == 4
        assert remote.count() == 0
        assert mount.ctx.tree.statistics().listings_used == 5


async def test_one_listing_is_no_walk(remote):
    async with mounted(remote) as mount:
        await listing(mount, ROOT)
        await mount.settle()
        assert remote.count("scandir") == 1


async def test_it_can_be_switched_off(remote):
    config = make_config(cache=CacheConfig(tree_read_ahead=False))
    async with mounted(remote, config=config) as mount:
        directories = await listing(mount, ROOT)
        await listing(mount, directories[b"d0"])
        await mount.settle()
        assert remote.count("scandir") == 2


async def test_small_files_opened_in_a_row_bring_the_next_ones(remote):
    async with mounted(remote) as mount:
        directories = await listing(mount, ROOT)
        files = await listing(mount, directories[b"d0"])
        for name in (b"file0", b"file1", b"file2"):
            mount.ctx.tree.opened(mount.node(files[name]))
        await mount.settle()
        fetched = {(node.parent.name, node.name) for node in mount.files.prefetched}
        assert (b"d0", b"file3") in fetched
        assert (b"d1", b"file0") in fetched, "across directories"


async def test_in_a_scan_old_attributes_are_renewed_by_one_listing(remote):
    async with mounted(remote) as mount:
        directories = await listing(mount, ROOT)
        files = await listing(mount, directories[b"d0"])
        for nodeid in files.values():
            mount.node(nodeid).data = Content()
        mount.clock.advance(5)
        for name in (b"file0", b"file1", b"file2", b"file3"):
            mount.ctx.tree.opened(mount.node(files[name]))
        remote.calls.clear()
        await mount.ctx.tree.revalidate(mount.node(files[b"file3"]))
        assert mount.node(files[b"file3"]).attrs_at == mount.clock()
        assert remote.count("lstat") == 0


async def test_targets_of_symlinks_are_read_ahead_once_one_was_wanted(remote):
    for number in range(6):
        remote.put_symlink(b"/d%d/link" % number, b"file0")
    async with mounted(remote) as mount:
        directories = await listing(mount, ROOT)
        gates = [remote.hold("readdir", b"/d%d" % number) for number in range(1, 6)]
        first = await listing(mount, directories[b"d0"])
        await mount.kernel.readlink(first[b"link"])
        for gate in gates:
            await gate.arrived()
            gate.release()
        await mount.settle()
        assert remote.count("readlink") == 6


async def test_what_fails_ahead_disturbs_nobody(remote):
    async with mounted(remote) as mount:
        directories = await listing(mount, ROOT)
        held = [remote.hold("scandir", b"/d%d" % number) for number in range(1, 6)]
        await listing(mount, directories[b"d0"])
        for gate in held:
            await gate.arrived()
            gate.release(errno.EACCES)
        await mount.settle()
        assert len(await listing(mount, directories[b"d1"])) == 4


async def test_a_mistake_in_the_planner_ends_read_ahead_and_nothing_else(
    remote, monkeypatch, caplog
):
    async with mounted(remote) as mount:
        directories = await listing(mount, ROOT)
        monkeypatch.setattr("netfs.client.tree.TreePlanner.entered", lambda *_args, **_more: 1 // 0)
        with caplog.at_level(logging.ERROR):
            for name in (b"d0", b"d1"):
                assert len(await listing(mount, directories[name])) == 4
        assert caplog.text.count("read-ahead is off") == 1
