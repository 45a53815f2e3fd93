"""Open files: OPEN, CREATE, READ, WRITE, FLUSH, FSYNC, RELEASE, FALLOCATE, LSEEK and
COPY_FILE_RANGE.

What these mean in terms of ``client.data``; no bytes are kept here.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Coroutine
from functools import partial
from typing import Any, Final

from netfs.client import convert
from netfs.client.data.changes import Changes
from netfs.client.data.files import OpenFile
from netfs.client.data.pool import error
from netfs.client.operations import namespace
from netfs.client.operations.context import Context
from netfs.client.remote import api
from netfs.fuse import abi, replies, requests
from netfs.fuse.replies import EMPTY, Reply
from netfs.sftp.attrs import Attrs

_ACCESS: Final = {
    os.O_RDONLY: api.READ,
    os.O_WRONLY: api.WRITE,
    os.O_RDWR: api.READ | api.WRITE,
}

_COPY_STEP: Final = 16 * 1024 * 1024
"""Bytes per copy-data: a server copies while everybody else on the channel waits."""

_KEEP_SIZE: Final = 1  # FALLOC_FL_KEEP_SIZE

_NOFLUSH_MINOR: Final = 35  # FOPEN_NOFLUSH


def _access(flags: int) -> int:
    access = _ACCESS.get(flags & os.O_ACCMODE)
    if access is None:
        raise error(errno.EINVAL)
    return access


# --- opening -------------------------------------------------------------------------------------


def open_(ctx: Context, request: requests.Open) -> Reply | Coroutine[Any, Any, Reply]:
    node = ctx.nodes.get(request.nodeid)
    access = _access(request.flags)
    ctx.tree.opened(node)
    if not request.flags & os.O_TRUNC:
        file = ctx.files.open_nowait(node, access)
        if file is not None:
            return _opened(ctx, file)
    return _open(ctx, request, access)


async def _open(ctx: Context, request: requests.Open, access: int) -> Reply:
    node = ctx.nodes.get(request.nodeid)
    if not request.flags & os.O_TRUNC:
        await ctx.tree.revalidate(node)
        file = ctx.files.open_nowait(node, access)
        if file is not None:
            return _opened(ctx, file)
    file = await ctx.files.open(node, access, truncate=bool(request.flags & os.O_TRUNC))
    return _opened(ctx, file)


def _opened(ctx: Context, file: OpenFile) -> Reply:
    body = replies.open_(file.fh, _open_flags(ctx, file))
    return Reply((body,), partial(ctx.files.release, file.fh))


def _open_flags(ctx: Context, file: OpenFile) -> int:
    flags = 0
    data = file.data
    if ctx.files.pool.is_direct:
        flags |= abi.FOPEN_DIRECT_IO
    elif data.kernel_valid and ctx.files.pool.keeps_kernel_cache:
        flags |= abi.FOPEN_KEEP_CACHE
    # Without KEEP_CACHE the kernel drops its pages now; what it reads next is this version.
    data.kernel_valid = True
    if not file.access & api.WRITE and ctx.capabilities.minor >= _NOFLUSH_MINOR:
        flags |= abi.FOPEN_NOFLUSH
    return flags


async def create(ctx: Context, request: requests.Create) -> Reply:
    name = request.name
    nodes = ctx.nodes
    parent = nodes.get(request.nodeid)
    access = _access(request.flags)
    pflags = access | api.CREAT
    if request.flags & os.O_EXCL:
        pflags |= api.EXCL
    if request.flags & os.O_TRUNC:
        pflags |= api.TRUNC | api.WRITE
    path = nodes.path_of(parent, name)
    mode = stat.S_IMODE(request.mode)
    namespace.keep_told(ctx, parent)
    with namespace.changing(ctx, parent, name):
        at = ctx.clock()
        handle, attrs = await ctx.remote.open_stat(path, pflags, mode)
        try:
            if attrs.mode is not None and stat.S_ISLNK(attrs.mode):
                attrs = await ctx.remote.fstat(handle)
            attrs = await namespace.give_to_creator(ctx, request, parent, path, attrs)
            node = ctx.coherence.created(parent, name, attrs, at)
        except BaseException:
            # Cancelled or refused: the file exists, but nobody will use this handle.
            ctx.spawn(ctx.remote.close(handle))
            raise
    file = ctx.files.created(node, handle, access)
    if attrs.size == 0 and attrs.mode is not None and stat.S_IMODE(attrs.mode) != mode:
        # The server's umask took bits off that the creator's leaves.
        file.data.set_attrs(Attrs(mode=mode), None)
    entry = convert.entry(ctx, node, ctx.clock())
    nodes.hold(node)
    body = replies.create(entry, file.fh, _open_flags(ctx, file))
    return Reply((body,), partial(_undo_create, ctx, node.nodeid, file.fh))


def _undo_create(ctx: Context, nodeid: int, fh: int) -> None:
    ctx.files.release(fh)
    ctx.nodes.forget(nodeid, 1)


def release(ctx: Context, request: requests.Release) -> Reply:
    ctx.files.release(request.fh)
    return EMPTY


# --- bytes ---------------------------------------------------------------------------------------


def read(ctx: Context, request: requests.Read) -> Reply | Coroutine[Any, Any, Reply]:
    file = ctx.files.get(request.fh)
    parts = file.data.read_nowait(request.offset, request.size, file.ahead)
    if parts is not None:
        return Reply(tuple(parts))
    return _read(file, request.offset, request.size)


async def _read(file: OpenFile, offset: int, size: int) -> Reply:
    return Reply(tuple(await file.data.read(offset, size, file.ahead)))


def write(ctx: Context, request: requests.Write) -> Reply | Coroutine[Any, Any, Reply]:
    file = ctx.files.get(request.fh)
    if not request.from_cache and file.error_seen != file.data.error_seq:
        # A page written back belongs to whoever stored into the mapping, not to this fh.
        file.check()
    if request.flags & os.O_APPEND and not request.from_cache:
        if not file.data.is_busy:
            return _append(ctx, file, request)
        _move_to_end(ctx, file, request)
    if not ctx.files.pool.dirty.has_room or ctx.files.is_synchronous:
        return _write(ctx, file, request)
    file.data.write(request.offset, request.data)
    return Reply((replies.write(len(request.data)),))


async def _append(ctx: Context, file: OpenFile, request: requests.Write) -> Reply:
    """The end may have moved on the server since it was last seen."""
    await file.data.see_end()
    _move_to_end(ctx, file, request)
    return await _write(ctx, file, request)


def _move_to_end(ctx: Context, file: OpenFile, request: requests.Write) -> None:
    """Write to the end that is known here: the kernel's may be from before others appended."""
    data = file.data
    if request.offset != data.size:
        request.offset = data.size
        ctx.notifier.invalidate_inode(data.node.nodeid)  # where the kernel has put the bytes


async def _write(ctx: Context, file: OpenFile, request: requests.Write) -> Reply:
    dirty = ctx.files.pool.dirty
    if not dirty.has_room:
        await dirty.wait()
        if not request.from_cache:
            try:
                file.check()
            except OSError:
                dirty.account(0)  # it was let in and writes nothing: let in the next one
                raise
    file.data.write(request.offset, request.data)
    if ctx.files.is_synchronous:
        await file.data.drain()
        file.check()
    return Reply((replies.write(len(request.data)),))


def flush(ctx: Context, request: requests.Flush) -> Reply | Coroutine[Any, Any, Reply]:
    file = ctx.files.get(request.fh)
    if not file.access & api.WRITE:
        return EMPTY
    changes = file.data.own
    if changes is None or not changes.is_busy:
        file.data.refresh_soon()
        file.check()
        return EMPTY
    return _flush(file, changes)


async def _flush(file: OpenFile, changes: Changes) -> Reply:
    await changes.flush()
    file.check()
    return EMPTY


async def fsync(ctx: Context, request: requests.FSync) -> Reply:
    file = ctx.files.get(request.fh)
    await file.data.drain()
    handle = file.data.handles.any
    if handle is not None:
        await ctx.remote.fsync(handle)
    file.check()
    return EMPTY


# --- the rarer ones ------------------------------------------------------------------------------


def fallocate(ctx: Context, request: requests.FAllocate) -> Reply | Coroutine[Any, Any, Reply]:
    """Mode 0 makes the file longer; no space is reserved, SFTP has nothing for it.

    Refusing it would make posix_fallocate(3) write a byte into each block instead.
    """
    file = ctx.files.get(request.fh)
    if request.mode == _KEEP_SIZE or request.mode & ~_KEEP_SIZE:
        raise error(errno.EOPNOTSUPP)
    end = request.offset + request.length
    if end <= file.data.size:
        return EMPTY
    return _extend(ctx, file, end)


async def _extend(ctx: Context, file: OpenFile, end: int) -> Reply:
    await ctx.files.setattr(file.data.node, Attrs(size=end))
    return EMPTY


def lseek(ctx: Context, request: requests.LSeek) -> Reply:
    """SEEK_DATA and SEEK_HOLE: SFTP does not tell holes, and the kernel then takes the whole file
    as data, without asking again."""
    raise error(errno.ENOSYS)


async def copy_file_range(ctx: Context, request: requests.CopyFileRange) -> Reply:
    """Copy inside the server; EOPNOTSUPP has the kernel copy by reading and writing."""
    if b"copy-data" not in ctx.remote.extensions:
        raise error(errno.EOPNOTSUPP)
    source = ctx.files.get(request.fh_in)
    dest = ctx.files.get(request.fh_out)
    dest.check()
    copied = await ctx.files.copy(
        source,
        request.offset_in,
        dest,
        request.offset_out,
        min(request.length, _COPY_STEP),
    )
    return Reply((replies.write(copied),))
