"""OPENDIR, READDIR, READDIRPLUS, RELEASEDIR.

Which entries there are is decided by ``client/directories.py``; this is how they are told.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import stat
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from typing import Any, Final

from netfs.client import convert
from netfs.client.directories import DirectoryTable, Entry, OpenDirectory
from netfs.client.nodes import NEVER, Node, NodeTable
from netfs.client.operations.context import Context
from netfs.client.operations.metadata import ROOT_WAIT_S, SILENT_S
from netfs.client.operations.namespace import os_error
from netfs.fuse import dirents, replies, requests
from netfs.fuse.replies import EMPTY, Reply

_ENTRIES_AT_ONCE: Final = 64
"""While a listing is arriving, an answer is given when as many are there: fewer round trips through
the kernel than one per entry, and nobody waits for the end of a large directory."""

_UNKNOWN_INO: Final = 0xFFFFFFFF
"""d_ino of a name about which nothing else is known; 0 would mean "no entry" (FUSE_UNKNOWN_INO)."""

_DOTS: Final = frozenset((b".", b".."))

_SLICE: Final = 512
"""Entries copied at a time: about what an answer holds."""

_Pack = Callable[[Context, OpenDirectory, requests.ReadDir], Reply]


def opendir(ctx: Context, request: requests.OpenDir) -> Reply | Coroutine[Any, Any, Reply]:
    node = ctx.nodes.get(request.nodeid)
    directories = ctx.directories
    fh = directories.open(node)
    directory = directories.get(fh)
    assert directory is not None
    ctx.tree.opened_directory(node)
    try:
        directories.take_snapshot(directory)
    except OSError:
        directories.close(fh)
        raise
    if directory.listing is None:
        return _opened(directories, fh)
    # df and automount open the mount's root before they ask for anything: it always opens soon
    patience_s = None
    if node is ctx.nodes.root:
        patience_s = ROOT_WAIT_S if ctx.remote.is_up else 0
    return _opendir(ctx, directory, fh, patience_s)


async def _opendir(
    ctx: Context, directory: OpenDirectory, fh: int, patience_s: float | None
) -> Reply:
    """Wait for the first entries, because errors belong to opendir(3); READDIR would wait too."""
    directories = ctx.directories
    was_listed = directory.node.listed_at > NEVER
    try:
        if directory.listing is not None:
            async with (
                asyncio.timeout(patience_s),
                ctx.coherence.while_up() if was_listed else contextlib.nullcontext(),
            ):
                await directory.listing.wait_entries(0)
    except TimeoutError:
        # The server's ETIMEDOUT, or nobody here waits any longer.
        if was_listed and not ctx.remote.is_up:
            directories.take_snapshot(directory)  # as it was
        elif patience_s is None:
            directories.close(fh)
            raise os_error(errno.ETIMEDOUT) from None
        else:  # READDIR waits for the rest
            ctx.coherence.root_prompt.silent_until = ctx.clock() + SILENT_S
    except (OSError, asyncio.CancelledError):
        directories.close(fh)
        raise
    return _opened(directories, fh)


def _opened(directories: DirectoryTable, fh: int) -> Reply:
    return Reply((replies.open_(fh),), partial(directories.close, fh))


def releasedir(ctx: Context, request: requests.ReleaseDir) -> Reply:
    ctx.directories.close(request.fh)
    return EMPTY


def readdir(ctx: Context, request: requests.ReadDir) -> Reply | Coroutine[Any, Any, Reply]:
    return _answer(ctx, request, _pack)


def readdirplus(ctx: Context, request: requests.ReadDirPlus) -> Reply | Coroutine[Any, Any, Reply]:
    return _answer(ctx, request, _pack_plus)


def _answer(
    ctx: Context, request: requests.ReadDir, pack: _Pack
) -> Reply | Coroutine[Any, Any, Reply]:
    directory = ctx.directories.get(request.fh)
    if directory is None:
        raise os_error(errno.EBADF)
    if request.offset == 0:
        if directory.read:
            ctx.directories.take_snapshot(directory)  # rewinddir(3)
        directory.read = True
    if _is_ready(directory, request):
        return pack(ctx, directory, request)
    return _wait(ctx, directory, request, pack)


def _is_ready(directory: OpenDirectory, request: requests.ReadDir) -> bool:
    listing = directory.listing
    if listing is None or listing.done:
        return True
    return len(directory.entries) >= max(0, request.offset - 2) + _ENTRIES_AT_ONCE


async def _wait(
    ctx: Context, directory: OpenDirectory, request: requests.ReadDir, pack: _Pack
) -> Reply:
    listing = directory.listing
    assert listing is not None
    await listing.wait_entries(max(0, request.offset - 2))
    return pack(ctx, directory, request)


# --- which entries -------------------------------------------------------------------------------


def _from(directory: OpenDirectory, position: int) -> Iterator[Entry]:
    """The names from *position* on, as they are by now.

    What was removed since the snapshot has an empty name; what took its place is shown.
    """
    here = directory.node
    if position == 0:
        yield b".", here, stat.S_IFDIR
    if position <= 1:
        yield b"..", here.parent or here, stat.S_IFDIR
    children = here.children or {}  # stays the same while one answer is made
    entries = directory.entries
    for first in range(max(0, position - 2), len(entries), _SLICE):
        for name, node, mode in entries[first : first + _SLICE]:
            child = children.get(name)
            if child is not None:
                yield name, child, child.mode or mode
            elif node is None or (node.parent is here and node.name == name):
                yield name, None, mode  # only its name is known, or the rest was evicted
            else:
                yield b"", None, 0


# --- packing -------------------------------------------------------------------------------------


def _pack(ctx: Context, directory: OpenDirectory, request: requests.ReadDir) -> Reply:
    writer = dirents.DirentWriter(request.size)
    nodes = ctx.nodes
    position = request.offset
    for name, child, mode in _from(directory, position):
        position += 1
        if not name:
            continue
        ino = nodes.ino(child) if child is not None else _UNKNOWN_INO
        if not writer.add(ino, position, mode, name):
            break
    return Reply((writer.body(),))


def _pack_plus(ctx: Context, directory: OpenDirectory, request: requests.ReadDir) -> Reply:
    writer = dirents.DirentPlusWriter(request.size)
    nodes = ctx.nodes
    position = request.offset
    held: list[Node] = []
    believed = _Believed(ctx)
    for name, child, mode in _from(directory, position):
        position += 1
        if not name:
            continue
        if child is None or child.attrs is None or name in _DOTS:
            ino = nodes.ino(child) if child is not None else _UNKNOWN_INO
            if not writer.add(ino, position, mode, name):
                break
            continue
        try:
            attr = convert.attr(ctx, child)
        except OSError:
            # An owner that idmap=file does not map: the name shows, a stat will fail.
            if not writer.add(nodes.ino(child), position, mode, name):
                break
            continue
        if not writer.add(attr[0], position, mode, name, child.nodeid, believed.of(child), attr):
            break
        held.append(child)
    nodes.hold_all(held)
    return Reply((writer.body(),), partial(_let_go, nodes, held))


class _Believed:
    """How long the names and attributes of one directory's entries may be kept."""

    __slots__ = ("_at", "_coherence", "_now", "_same")

    def __init__(self, ctx: Context) -> None:
        self._coherence = ctx.coherence
        self._now = ctx.clock()
        self._at: float | None = None
        self._same = replies.NOT_VALID

    def of(self, node: Node) -> replies.Validity:
        attrs = node.attrs
        assert attrs is not None
        if node.attrs_at == self._at and attrs.nlink == 1:
            return self._same  # as the one before: most of a listing was told at one time
        valid = self._coherence.kernel_valid(node, self._now)
        if attrs.nlink == 1:
            self._at, self._same = node.attrs_at, valid
        return valid


def _let_go(nodes: NodeTable, held: list[Node]) -> None:
    for node in held:
        nodes.forget(node.nodeid, 1)
