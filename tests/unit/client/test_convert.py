"""SFTP attributes become FUSE attributes."""

from __future__ import annotations

import stat

import pytest

from netfs.client import convert
from netfs.fuse.replies import Attr
from netfs.sftp.attrs import Attrs
from tests.fakes.context import mounted
from tests.fakes.remote import FakeRemote

BARE = Attrs(size=1000, uid=1000, gid=1000, mode=stat.S_IFREG | 0o640, atime=11, mtime=22)


@pytest.mark.parametrize(
    ("attrs", "field", "shown"),
    [
        (BARE, "blocks", 2),
        (BARE._replace(size=0), "blocks", 0),
        (BARE._replace(size=512), "blocks", 1),
        (BARE._replace(blocks=0), "blocks", 0),
        (BARE._replace(size=None), "size", 0),
        (BARE._replace(size=1 << 64 - 1), "size", (1 << 63) - 1),
        (BARE, "ctime", 22),
        (BARE._replace(ctime_ns=5 * 10**9 + 1), "ctime", 5),
        (BARE._replace(ctime_ns=5 * 10**9 + 1), "ctimensec", 1),
        (BARE._replace(mtime_ns=3 * 10**9 + 7), "mtime", 3),
        (BARE._replace(mtime_ns=3 * 10**9 + 7), "mtimensec", 7),
        (BARE._replace(mtime_ns=3 * 10**9 + 7), "ctimensec", 7),
        (BARE._replace(atime=None), "atime", 22),
        (BARE._replace(mtime=None, atime=None), "mtime", 0),
        (BARE, "nlink", 1),
        (BARE._replace(nlink=0), "nlink", 1),
        (BARE._replace(nlink=4), "nlink", 4),
        (BARE._replace(uid=None), "uid", 501),
        (BARE, "uid", 501),
        (BARE, "gid", 502),
        (BARE, "mode", stat.S_IFREG | 0o640),
        (BARE._replace(mode=0o640), "mode", stat.S_IFREG | 0o640),
        (BARE._replace(mode=None), "mode", stat.S_IFREG),
        (BARE._replace(mode=0o170000 | 0o640), "mode", stat.S_IFREG | 0o640),
        (BARE._replace(mode=stat.S_IFSOCK | 0o600), "mode", stat.S_IFSOCK | 0o600),
        (BARE._replace(ino=77), "ino", 77),
        (BARE, "blksize", convert.BLOCK_SIZE),
    ],
)
async def test_each_field_is_shown(attrs, field, shown):
    remote = FakeRemote()
    async with mounted(remote) as mount:
        nodes = mount.ctx.nodes
        node = nodes.learn(nodes.root, b"x", attrs, 0.0, nodes.stamp)
        assert getattr(Attr(*convert.attr(mount.ctx, node)), field) == shown


async def test_the_root_without_a_type_is_a_directory():
    async with mounted(FakeRemote()) as mount:
        root = mount.ctx.nodes.root
        mount.ctx.nodes.set_attrs(root, BARE._replace(mode=0o755), 0.0)
        assert stat.S_ISDIR(Attr(*convert.attr(mount.ctx, root)).mode)
