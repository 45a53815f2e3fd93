"""SFTP attributes become FUSE attributes here, and nowhere else.

What is shown is decided by ``identity`` (owner, mode) and by the file's unsent data (size, times);
how long it may be believed is asked of ``coherence``.
"""

from __future__ import annotations

import stat
from functools import partial
from typing import TYPE_CHECKING, Final

from netfs.client.nodes import ROOT_ID, Node
from netfs.fuse import replies
from netfs.fuse.replies import AttrFields, Reply

if TYPE_CHECKING:
    from netfs.client.operations.context import Context

BLOCK_SIZE: Final = 1 << 20
"""st_blksize, bytes: makes cp and cat use as much as one WRITE carries."""

_new = tuple.__new__  # a NamedTuple, without the call of its own constructor

_NS: Final = 10**9
_MAX_SIZE: Final = (1 << 63) - 1
"""The kernel refuses attributes with a larger size, whoever sent them."""

_TYPES: Final = frozenset(
    kind >> 12
    for kind in (
        stat.S_IFREG,
        stat.S_IFDIR,
        stat.S_IFLNK,
        stat.S_IFIFO,
        stat.S_IFSOCK,
        stat.S_IFCHR,
        stat.S_IFBLK,
    )
)


def attr(ctx: Context, node: Node) -> AttrFields:
    """What stat(2) shows of *node*, as ``replies.Attr``; its attributes must be known.

    Raises: OSError(EPERM) for an owner that idmap=file does not map.
    """
    attrs = node.attrs
    assert attrs is not None
    if node.data is not None:
        attrs = node.data.overlay(attrs)
    size, uid, gid, mode, atime, mtime, nlink, ino, blocks, atime_ns, mtime_ns, ctime_ns = attrs
    if size is None:
        size = 0
    elif size > _MAX_SIZE:
        size = _MAX_SIZE
    if mode is None or mode >> 12 not in _TYPES:
        # A server that tells no type means a file; the kernel needs one.
        kind = stat.S_IFDIR if node.nodeid == ROOT_ID else stat.S_IFREG
        mode = kind | stat.S_IMODE(mode or 0)
    if mtime is None:
        mtime = 0
    if atime is None:
        atime = mtime
    atime_nsec = mtime_nsec = 0
    if mtime_ns is not None:
        mtime, mtime_nsec = divmod(mtime_ns, _NS)
    if atime_ns is not None:
        atime, atime_nsec = divmod(atime_ns, _NS)
    ctime, ctime_nsec = mtime, mtime_nsec
    if ctime_ns is not None:
        ctime, ctime_nsec = divmod(ctime_ns, _NS)
    identity = ctx.identity
    return (
        ino or node.ino or ctx.nodes.make_ino(node),
        size,
        blocks if blocks is not None else (size + 511) >> 9,
        atime,
        mtime,
        ctime,
        atime_nsec,
        mtime_nsec,
        ctime_nsec,
        identity.modes[mode],
        nlink or (1 if node.parent is not None else int(not node.removed)),
        identity.uids[uid],
        identity.gids[gid],
        0,
        BLOCK_SIZE,
        0,
    )


def entry(ctx: Context, node: Node, now: float) -> bytes:
    """A fuse_entry_out of *node*; the caller counts the nlookup (``nodes.hold``)."""
    return replies.entry(node.nodeid, 0, ctx.coherence.kernel_valid(node, now), attr(ctx, node))


def entry_reply(ctx: Context, node: Node) -> Reply:
    """The answer to LOOKUP and its kin: gives the kernel one reference to *node*."""
    nodeid = node.nodeid
    valid = ctx.coherence.kernel_valid(node, ctx.clock())
    body = replies.entry(nodeid, 0, valid, attr(ctx, node))
    ctx.nodes.hold(node)
    return _new(Reply, ((body,), partial(ctx.nodes.forget, nodeid, 1)))


def attr_reply(ctx: Context, node: Node) -> Reply:
    """The answer to GETATTR and SETATTR."""
    valid_s = ctx.coherence.kernel_attr_s(node, ctx.clock())
    return Reply((replies.attr(valid_s, attr(ctx, node)),))
