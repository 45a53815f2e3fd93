"""Attributes: GETATTR, SETATTR, STATX, ACCESS, STATFS.

The root's attributes and STATFS answer within a second whatever the link does: automount, df and
`ls /mnt` must not hang on them.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import stat
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final

from netfs.client import convert
from netfs.client.coherence import FilesystemSize, Prompt
from netfs.client.nodes import NEVER, ROOT_ID, Node
from netfs.client.operations.context import Context
from netfs.client.operations.namespace import LINK_ERRNOS, keep_told, look, os_error, then_look
from netfs.client.remote import api
from netfs.fuse import replies, requests
from netfs.fuse.replies import EMPTY, Reply
from netfs.sftp.attrs import Attrs, StatVfs

log = logging.getLogger(__name__)

ROOT_WAIT_S: Final = 0.35
"""How long STATFS and the root's attributes wait for the server: df asks for both and has its
answer within one second."""

SILENT_S: Final = 5.0
"""After a wait in vain the next ones are answered from memory for so long."""

TIME_MAX: Final = 0xFFFFFFFF
"""Seconds since the epoch in SFTP v3 are a u32: until 2106.  Others are clamped, as Linux does for
filesystems with such a range (timestamp_truncate)."""

STATFS_TTL_S: Final = 1.0

_NS: Final = 10**9

_ROOT_UNSEEN: Final = Attrs(size=4096, mode=stat.S_IFDIR | 0o755, atime=0, mtime=0)
"""The root before the server was ever reached (delay_connect)."""

_STATVFS_UNTOLD: Final = StatVfs(
    4096, 4096, 1 << 28, 1 << 28, 1 << 28, 10**9, 10**9, 10**9, 0, 0, 255
)
"""1 TiB and all of it free: what a server without statvfs@openssh.com is shown as."""


# --- GETATTR, STATX ------------------------------------------------------------------------------


def getattr_(ctx: Context, request: requests.GetAttr) -> Reply | Coroutine[Any, Any, Reply]:
    node = ctx.nodes.get(request.nodeid)
    node.used = True
    if ctx.coherence.has_attrs(node, ctx.clock()):
        return convert.attr_reply(ctx, node)
    return _getattr(ctx, node)


async def _getattr(ctx: Context, node: Node) -> Reply:
    await refresh(ctx, node)
    return convert.attr_reply(ctx, node)


def statx(ctx: Context, request: requests.StatX) -> Reply | Coroutine[Any, Any, Reply]:
    """As GETATTR: SFTP knows no birth time."""
    node = ctx.nodes.get(request.nodeid)
    if ctx.coherence.has_attrs(node, ctx.clock()):
        return _statx_reply(ctx, node)
    return _statx(ctx, node)


async def _statx(ctx: Context, node: Node) -> Reply:
    await refresh(ctx, node)
    return _statx_reply(ctx, node)


def _statx_reply(ctx: Context, node: Node) -> Reply:
    valid_s = ctx.coherence.kernel_attr_s(node, ctx.clock())
    return Reply((replies.statx(valid_s, replies.Attr(*convert.attr(ctx, node))),))


async def refresh(ctx: Context, node: Node, *, only_new: bool = False) -> None:
    """Ask the server for the attributes; afterwards ``node.attrs`` is not None.

    Args:
        only_new: wait for the server, though the link is lost and old attributes are there.

    Raises: OSError, unless the link is lost and old attributes will do.
    """
    if node.nodeid == ROOT_ID and not only_new:
        await _refresh_root(ctx, node)
        return
    at, asked = ctx.clock(), ctx.nodes.stamp
    try:
        if node.removed:
            attrs = await ctx.files.getattr(node)
        elif node.nodeid == ROOT_ID:
            attrs = await ctx.remote.stat(ctx.nodes.path(node))
        elif node.attrs is None or only_new:
            attrs = await look(ctx, ctx.nodes.path(node))
        else:
            async with ctx.coherence.while_up():
                attrs = await look(ctx, ctx.nodes.path(node))
    except OSError as exc:
        if isinstance(exc, TimeoutError) or exc.errno in LINK_ERRNOS:
            if node.attrs is not None and not only_new:
                return
            raise os_error(exc.errno or errno.ETIMEDOUT) from None
        if exc.errno == errno.ENOENT and node.parent is not None:
            ctx.coherence.missing(node.parent, node.name, at, asked)
        raise
    if node.parent is not None:
        now_there = ctx.coherence.learned(node.parent, node.name, attrs, at, asked)
        if now_there is not node:
            raise os_error(errno.ESTALE)  # another file has the name: the kernel looks it up anew
    else:
        ctx.coherence.store(node, attrs, at, asked)
    if node.attrs is None:
        ctx.nodes.set_attrs(node, attrs, NEVER)


async def _refresh_root(ctx: Context, root: Node) -> None:
    async def ask() -> None:
        at, asked = ctx.clock(), ctx.nodes.stamp
        attrs = await ctx.remote.stat(ctx.nodes.path(root))
        ctx.coherence.store(root, attrs, at, asked)

    await _promptly(ctx, ctx.coherence.root_prompt, ask)
    if root.attrs is None:
        ctx.nodes.set_attrs(root, _ROOT_UNSEEN, NEVER)


async def _promptly(
    ctx: Context, prompt: Prompt, ask: Callable[[], Coroutine[Any, Any, None]]
) -> None:
    """Ask the server and wait for its answer, but not long; it is stored whenever it comes."""
    ended = prompt.ended

    async def run() -> None:
        try:
            await ask()
        except OSError as exc:
            # Whatever is wrong shows as soon as something below the root is used.
            log.debug("the root cannot be asked: %s", exc)
        finally:
            prompt.ended = None
            if ended is not None:
                ended.set()

    if ended is None:
        ended = prompt.ended = asyncio.Event()
        ctx.spawn(run())
    if ctx.clock() < prompt.silent_until:
        return
    try:
        async with asyncio.timeout(ROOT_WAIT_S):
            await ended.wait()
    except TimeoutError:
        prompt.silent_until = ctx.clock() + SILENT_S


# --- SETATTR -------------------------------------------------------------------------------------


def setattr_(ctx: Context, request: requests.SetAttr) -> Reply | Coroutine[Any, Any, Reply]:
    node = ctx.nodes.get(request.nodeid)
    if not _sets_anything(request):
        if ctx.coherence.has_attrs(node, ctx.clock()):
            return convert.attr_reply(ctx, node)
        return _getattr(ctx, node)
    if _is_settled(ctx, node, request):
        changes = wanted_changes(ctx, request, node.attrs or Attrs())
        ctx.spawn(ctx.remote.setstat(ctx.nodes.path(node), changes))
        return convert.attr_reply(ctx, node)
    return _setattr(ctx, node, request)


def _is_settled(ctx: Context, node: Node, request: requests.SetAttr) -> bool:
    """Whether owner or mode of a directory are set to what they are, and the server cannot refuse
    that, so that its answer need not be waited for.

    The last change made here was one of this directory's attributes: the server carried it out
    just now, and its answer showed that owner and mode.  Whoever may do that, being the owner or
    root, may set them again.  Should somebody else change them at this moment, the outcome is that
    of one order or the other.  (With files a chown clears bits, and their changes have a queue.)
    """
    attrs = node.attrs
    login = ctx.identity.login
    if (
        attrs is None
        or not node.is_dir
        or login is None
        or attrs.uid is None
        or attrs.mode is None
        or ctx.coherence.set_last != (node.nodeid, ctx.nodes.stamp)
        or ctx.clock() - node.attrs_at > ctx.config.cache.cto_window_s
        or request.size is not None
        or _sets_times(request)
        or not ctx.remote.is_up
        or node.removed
        or login.uid not in (0, attrs.uid)
    ):
        return False
    wanted = wanted_changes(ctx, request, attrs)
    mode = stat.S_IMODE(attrs.mode)
    return (
        wanted.uid in (None, attrs.uid)
        and wanted.gid in (None, attrs.gid)
        and wanted.mode in (None, mode)
        and not (wanted.mode is not None and mode & (stat.S_ISUID | stat.S_ISGID))
    )


def _sets_anything(request: requests.SetAttr) -> bool:
    """ctime alone is nothing: no server can set it."""
    return (
        request.mode is not None
        or request.owner is not None
        or request.group is not None
        or request.size is not None
        or _sets_times(request)
    )


def _sets_times(request: requests.SetAttr) -> bool:
    return (
        request.atime_ns is not None
        or request.mtime_ns is not None
        or request.atime_now
        or request.mtime_now
    )


async def _setattr(ctx: Context, node: Node, request: requests.SetAttr) -> Reply:
    if node.is_dir and node.parent is not None and _sets_times(request):
        keep_told(ctx, node.parent)  # an archive's directories get their times from below upwards
    known = await _halves(ctx, node, request)
    changes = wanted_changes(ctx, request, known)
    nodes = ctx.nodes
    nodes.begin_change(node)
    ctx.coherence.wrote(node)
    at, known_at = ctx.clock(), node.attrs_at
    try:
        data = node.data
        if changes.size is not None or node.removed or (data is not None and data.has_unsent):
            await ctx.files.setattr(node, changes)
            if node.attrs is not None:
                nodes.change_attrs(node, _applied(node.attrs, changes))
            if changes.size is not None and node.attrs_at == known_at:
                nodes.drop_attrs(node)  # the server has set a new mtime
        else:
            path = nodes.path(node)
            follow = not node.is_symlink
            setting = partial(ctx.remote.setstat, path, changes, follow=follow)
            attrs = await then_look(ctx, setting, path)
            if ctx.config.semantics.follow_symlinks:
                attrs = await look(ctx, path)
            nodes.set_attrs(node, attrs, at)
            if data is not None:
                data.told(attrs, own=True)
    except (OSError, asyncio.CancelledError):
        nodes.drop_attrs(node)  # it may have happened, or half of it
        raise
    finally:
        nodes.end_change(node)
    ctx.coherence.set_last = (node.nodeid, nodes.stamp)
    if node.attrs is None:
        await refresh(ctx, node)
    return convert.attr_reply(ctx, node)


async def _halves(ctx: Context, node: Node, request: requests.SetAttr) -> Attrs:
    """What SFTP must be told again because it sets owner and group, and both times, together.

    The server is asked for it unless it told it just now: the other half must not be set back.
    """
    one_owner = (request.owner is None) != (request.group is None)
    sets_atime = request.atime_now or request.atime_ns is not None
    sets_mtime = request.mtime_now or request.mtime_ns is not None
    if one_owner or sets_atime != sets_mtime:
        window_s = ctx.config.cache.cto_window_s
        # Names changed here change only the mtime of what is needed.
        at = node.told_at if sets_atime <= sets_mtime else node.attrs_at
        if node.attrs is None or ctx.clock() - at > window_s:
            await refresh(ctx, node, only_new=True)
    attrs = node.attrs
    if attrs is None:
        return Attrs()
    return attrs if node.data is None else node.data.overlay(attrs)


def wanted_changes(ctx: Context, request: requests.SetAttr, known: Attrs) -> Attrs:
    """The request in the server's terms: its ids, whole seconds where it has no finer ones.

    Raises: OSError(EPERM) for an owner that idmap=file does not map.
    """
    uid = gid = None
    if request.owner is not None or request.group is not None:
        identity = ctx.identity
        uid = known.uid if request.owner is None else identity.remote_uid(request.owner)
        gid = known.gid if request.group is None else identity.remote_gid(request.group)
    atime_ns = mtime_ns = None
    now_ns = time.time_ns()  # SFTP cannot say "your now"
    if request.atime_now:
        atime_ns = now_ns
    elif request.atime_ns is not None:
        atime_ns = request.atime_ns
    if request.mtime_now:
        mtime_ns = now_ns
    elif request.mtime_ns is not None:
        mtime_ns = request.mtime_ns
    if atime_ns is not None or mtime_ns is not None:
        if atime_ns is None:
            atime_ns = _known_ns(known.atime_ns, known.atime)
        if mtime_ns is None:
            mtime_ns = _known_ns(known.mtime_ns, known.mtime)
    fine = known.mtime_ns is not None  # attrs@netfs: the server has nanoseconds
    return Attrs(
        size=request.size,
        uid=uid,
        gid=gid,
        mode=None if request.mode is None else stat.S_IMODE(request.mode),
        atime=_seconds(atime_ns),
        mtime=_seconds(mtime_ns),
        atime_ns=atime_ns if fine else None,
        mtime_ns=mtime_ns if fine else None,
    )


def _known_ns(ns: int | None, seconds: int | None) -> int:
    return ns if ns is not None else (seconds or 0) * _NS


def _seconds(ns: int | None) -> int | None:
    return None if ns is None else min(max(ns // _NS, 0), TIME_MAX)


def _applied(attrs: Attrs, changes: Attrs) -> Attrs:
    """*attrs* after *changes* as POSIX has it, for what is sent later than shown."""
    mode = attrs.mode
    if mode is not None:
        if changes.mode is not None:
            mode = stat.S_IFMT(mode) | changes.mode
        elif changes.uid is not None and mode & 0o111 and stat.S_ISREG(mode):
            mode &= ~(stat.S_ISUID | stat.S_ISGID)  # chown(2)
    told = {
        field: value
        for field, value in changes._asdict().items()
        if value is not None and field != "mode"
    }
    if changes.mtime is not None and changes.mtime_ns is None:
        told.update(atime_ns=None, mtime_ns=None)
    if changes.size is not None:
        told["blocks"] = None
    return attrs._replace(mode=mode, **told)


# --- ACCESS --------------------------------------------------------------------------------------


def access(ctx: Context, request: requests.Access) -> Reply | Coroutine[Any, Any, Reply]:
    """access(2) and chdir(2): what the server would say to a real attempt."""
    node = ctx.nodes.get(request.nodeid)
    if not request.mask or (
        ctx.coherence.has_attrs(node, ctx.clock()) and _may(ctx, node, request)
    ):
        return EMPTY
    return _access(ctx, node, request)


def _may(ctx: Context, node: Node, request: requests.Access) -> bool | None:
    attrs = node.attrs
    assert attrs is not None
    allowed = ctx.identity.may(request.mask, attrs.uid, attrs.gid, attrs.mode or 0)
    if allowed is False:
        raise os_error(errno.EACCES)
    return allowed


async def _access(ctx: Context, node: Node, request: requests.Access) -> Reply:
    if not ctx.coherence.has_attrs(node, ctx.clock()):
        await refresh(ctx, node)
    if _may(ctx, node, request):
        return EMPTY
    # It depends on what only the server knows, such as the login's groups: try.  Execution and
    # writing to a directory cannot be tried without doing it; there the attempt itself will tell.
    if stat.S_ISREG(node.mode) and not node.removed:
        pflags = (api.READ if request.mask & os.R_OK else 0) | (
            api.WRITE if request.mask & os.W_OK else 0
        )
        if pflags:
            await ctx.remote.close(await ctx.remote.open(ctx.nodes.path(node), pflags))
    return EMPTY


# --- STATFS --------------------------------------------------------------------------------------


def statfs(ctx: Context, request: requests.StatFs) -> Reply | Coroutine[Any, Any, Reply]:
    size = ctx.coherence.filesystem
    told = size.told
    if told is not None and (ctx.clock() - size.at < STATFS_TTL_S or not ctx.remote.is_up):
        return _statfs_reply(told)
    return _statfs(ctx, size)


async def _statfs(ctx: Context, size: FilesystemSize) -> Reply:
    async def ask() -> None:
        at = ctx.clock()
        size.told = await ctx.remote.statvfs(ctx.nodes.path(ctx.nodes.root))
        size.at = at

    await _promptly(ctx, size.prompt, ask)
    # No extension, or no link: the last answer serves, or one that says nothing.
    return _statfs_reply(size.told or _STATVFS_UNTOLD)


def _statfs_reply(told: StatVfs) -> Reply:
    return Reply(
        (
            replies.statfs(
                told.blocks,
                told.bfree,
                told.bavail,
                told.files,
                told.ffree,
                told.bsize,
                min(told.namemax, 255) or 255,
                told.frsize,
            ),
        )
    )
