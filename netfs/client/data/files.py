"""``FileTable``: the open files by fh, and the data of all files, open or only cached.

What a file's bytes are is ``content``'s; what a request means is ``operations.files``'s.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from netfs.client.config import CacheConfig, LinkConfig, SemanticsConfig
from netfs.client.data.content import FileData
from netfs.client.data.pool import LINK_ERRORS, Pool, error
from netfs.client.data.readahead import ReadAhead
from netfs.client.data.rescue import Rescued
from netfs.client.remote import api
from netfs.sftp.attrs import Attrs

if TYPE_CHECKING:
    from netfs.client.coherence import Coherence
    from netfs.client.nodes import Node, NodeTable
    from netfs.client.operations.context import Notifications
    from netfs.client.remote.api import Remote, RemoteHandle

log = logging.getLogger(__name__)

_MAX_CLOSED: Final = 16384
"""Closed files whose version and blocks are remembered; about a kilobyte each, blocks apart."""

PREFETCH_LIMIT: Final = 1024 * 1024
"""Files up to this size (bytes) are worth fetching whole before anybody opens them."""


class OpenFile:
    """One open(2) of a file; the kernel knows it by ``fh``."""

    __slots__ = ("access", "ahead", "data", "error_seen", "fh", "is_new")

    def __init__(self, fh: int, data: FileData, access: int) -> None:
        self.fh = fh
        self.data = data
        self.access = access  # api.READ | api.WRITE
        self.ahead = ReadAhead()
        self.error_seen = data.error_seq
        self.is_new = False  # created by this open: its owner surely may change it

    def check(self) -> None:
        """Report, once, what the server refused since the last time.

        Raises: OSError with the server's errno.
        """
        data = self.data
        if self.error_seen != data.error_seq:
            self.error_seen = data.error_seq
            number = data.error.errno if data.error is not None else None
            raise error(number or errno.EIO)


class FileStatistics(NamedTuple):
    """Bytes unless said otherwise."""

    open_files: int  # files
    known_files: int  # files with cached data, open or not
    cached: int
    cache_size: int
    dirty: int
    dirty_limit: int
    dirty_files: int  # files
    hits: int  # reads
    misses: int  # reads
    ahead_used: int
    ahead_wasted: int
    losses: tuple[Rescued, ...]


class FileTable:
    """See the module."""

    def __init__(
        self,
        *,
        cache: CacheConfig,
        semantics: SemanticsConfig,
        link: LinkConfig,
        remote: Remote,
        nodes: NodeTable,
        coherence: Coherence,
        notifier: Notifications,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.pool = Pool(
            cache=cache,
            semantics=semantics,
            rescue_dir=link.rescue_dir,
            remote=remote,
            nodes=nodes,
            coherence=coherence,
            notifier=notifier,
            clock=clock,
            on_idle=self._idle,
        )
        self.is_synchronous = semantics.sync
        self._nodes = nodes
        self._open: dict[int, OpenFile] = {}
        self._next_fh = 1
        self._known: dict[FileData, None] = {}
        self._closed: OrderedDict[FileData, None] = OrderedDict()  # least recently closed first
        nodes.on_useless = self._idle

    # --- finding ---------------------------------------------------------------------------------

    def get(self, fh: int) -> OpenFile:
        """Raises: OSError(EBADF) for an unknown fh."""
        file = self._open.get(fh)
        if file is None:
            raise error(errno.EBADF)
        return file

    def data_of(self, node: Node) -> FileData:
        """The file's data, begun if there is none."""
        data = node.data
        if data is None:
            data = node.data = FileData(node, self.pool)
            self._known[data] = None
            self._add_closed(data)
        return data

    def dirty_files(self) -> list[FileData]:
        """The files that owe the server something."""
        return list(self.pool.busy)

    # --- opening and closing ---------------------------------------------------------------------

    def open_nowait(self, node: Node, access: int) -> OpenFile | None:
        """Open a file without asking the server, where its word is known; None: ask."""
        data = node.data
        if (
            data is None
            or data.handles.allowed & access != access
            or (access & api.WRITE and data.handles.writer is None)
            or not (data.is_complete or data.handles.reader is not None or access == api.WRITE)
            or not data.is_fresh(self.pool.clock())
        ):
            return None
        return self._register(data, access)

    async def open(self, node: Node, access: int, *, truncate: bool) -> OpenFile:
        """Open a file as close-to-open asks for: at most one round trip.

        Raises: OSError as the server answers; ESTALE when the name leads to another file by now.
        """
        data = self.data_of(node)
        nodes = self._nodes
        pool = self.pool
        nodes.pin(node)
        try:
            if data.prefetching is not None:
                await asyncio.wait([data.prefetching])
            if not truncate:
                file = self.open_nowait(node, access)
                if file is not None:
                    return file
            elif data.is_busy:
                await data.drain()
            if _has_other_names(node):
                await self._drain_other_names(data)
            was_removed = node.removed
            if truncate:
                await self._open_truncating(data, access)
            elif data.handles.allowed & access != access or not (
                data.handles.has(access) or (access == api.READ and data.is_complete)
            ):
                handle, _ = await data.handles.open_at_server(access)
                await self._take(data, handle, access, was_removed=was_removed)
            elif not data.is_fresh(pool.clock()) and not node.removed:
                at, asked = pool.clock(), nodes.stamp
                attrs = await pool.remote.lstat(nodes.path(node))
                pool.coherence.store(node, attrs, at, asked)
            await data.settle_identity()
            if node.removed and not was_removed:
                raise error(errno.ESTALE)
            return self._register(data, access)
        finally:
            nodes.unpin(node)

    async def _drain_other_names(self, data: FileData) -> None:
        """Have the server know what was written under names that may be of the same file."""
        for other in self.dirty_files():
            if other is not data and _has_other_names(other.node):
                await other.drain()

    async def _open_truncating(self, data: FileData, access: int) -> None:
        nodes = self._nodes
        node = data.node
        # Truncating is writing, whatever the open file may do later.
        access |= api.WRITE
        was_removed = node.removed
        nodes.begin_change(node)
        try:
            handle, _ = await data.handles.open_at_server(access | api.TRUNC)
        finally:
            nodes.end_change(node)
        data.emptied()
        self.pool.coherence.wrote(node)
        await self._take(data, handle, access, was_removed=was_removed)

    async def _take(
        self, data: FileData, handle: RemoteHandle, access: int, *, was_removed: bool
    ) -> None:
        """Keep a handle just opened, unless it is of another file than those open before."""
        try:
            await data.settle_identity()
            if data.node.removed and not was_removed:
                raise error(errno.ESTALE)
        except BaseException:
            data.handles.close(handle)
            raise
        data.handles.take(handle, access)

    def created(self, node: Node, handle: RemoteHandle, access: int) -> OpenFile:
        """A file that was just created by an OPEN."""
        data = node.data
        if data is None:
            data = node.data = FileData(node, self.pool)
            self._known[data] = None
        data.handles.take(handle, access)
        file = self._register(data, access)
        file.is_new = True
        data.creators += 1
        return file

    def _register(self, data: FileData, access: int) -> OpenFile:
        file = OpenFile(self._next_fh, data, access)
        self._next_fh += 1
        self._open[file.fh] = file
        data.opens += 1
        if access & api.READ:
            data.handles.readers += 1
        if access & api.WRITE:
            data.handles.writers += 1
        self._closed.pop(data, None)
        self._nodes.pin(data.node)
        return file

    def release(self, fh: int) -> None:
        """The kernel is done with an open file."""
        file = self._open.pop(fh, None)
        if file is None:
            return
        data = file.data
        data.opens -= 1
        if file.is_new:
            data.creators -= 1
        if file.access & api.READ:
            data.handles.readers -= 1
        if file.access & api.WRITE:
            data.handles.writers -= 1
        data.handles.close_unneeded(is_busy=data.is_busy)
        if data.opens == 0:
            data.idle_reads()
            self._add_closed(data)
        self._nodes.unpin(data.node)

    def _add_closed(self, data: FileData) -> None:
        if data.node.removed and data.is_disposable:
            self._forget(data)
            return
        self._closed[data] = None
        self._closed.move_to_end(data)
        if len(self._closed) > _MAX_CLOSED:
            for oldest in self._closed:
                if oldest.is_disposable:
                    self._forget(oldest)
                    break

    def _idle(self, data: FileData) -> None:
        if data.node.removed and data.opens == 0 and data.is_disposable:
            self._forget(data)

    def _forget(self, data: FileData) -> None:
        node = data.node
        self._closed.pop(data, None)
        self._known.pop(data, None)
        data.forget()
        self._nodes.pin(node)
        if node.data is data:
            node.data = None
        self._nodes.unpin(node)

    # --- for other operations --------------------------------------------------------------------

    async def setattr(self, node: Node, changes: Attrs) -> None:
        """SETSTAT in the order of the file's other changes.

        Times, mode and unchanged owners of a file that whoever created it still has open are not
        waited for: its owner may set them.  They leave with its bytes, and close reports errors.

        Raises: OSError as the server answers.
        """
        data = self.data_of(node)
        if data.creators and self._is_certain(data, changes):
            data.set_attrs(changes, None)
            return
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        data.set_attrs(changes, done)
        await done
        data.refresh_soon()

    def _is_certain(self, data: FileData, changes: Attrs) -> bool:
        known = data.node.attrs
        return (
            known is not None
            and changes.size is None
            and changes.uid in (None, known.uid)
            and changes.gid in (None, known.gid)
        )

    async def getattr(self, node: Node) -> Attrs:
        """FSTAT through an open handle, for files that have no name any more.

        Raises: OSError as the server answers; ENOENT when there is no handle.
        """
        handle = node.data.handles.any if node.data is not None else None
        if handle is None:
            raise error(errno.ENOENT)
        at, asked = self.pool.clock(), self._nodes.stamp
        try:
            attrs = await self.pool.remote.fstat(handle)
        except OSError as exc:
            if exc.errno not in (errno.EBADF, errno.ENOENT) or node.attrs is None:
                raise
            # Some servers look at the path that it was opened by (MySecureShell).  Who has it open
            # can still read and write it, and nobody but us changes it.
            log.debug("fstat of what has no name: %s", exc)
            return node.attrs
        self.pool.coherence.store(node, attrs, at, asked)
        return attrs

    async def copy(
        self, source: OpenFile, offset: int, dest: OpenFile, dest_offset: int, length: int
    ) -> int:
        """Copy inside the server; the bytes copied, 0 at the source's end.

        Raises: OSError: EOPNOTSUPP where it can't, for whatever reason.
        """
        if source.data is dest.data:
            raise error(errno.EOPNOTSUPP)  # OpenSSH refuses it, with no more than FAILURE
        await source.data.drain()
        await dest.data.drain()
        length = min(length, source.data.size - offset)
        if length <= 0:
            return 0
        reader = await source.data.handles.get(api.READ)
        writer = await dest.data.handles.get(api.WRITE)
        try:
            await self.pool.remote.copy_data(reader, offset, length, writer, dest_offset)
        except OSError as exc:
            if exc.errno in LINK_ERRORS:
                raise
            # By reading and writing it works, or the true reason shows.
            raise error(errno.EOPNOTSUPP) from exc
        finally:
            dest.data.written_by_server(dest_offset + length)
        return length

    async def keep_open(self, node: Node) -> None:
        """Before the name goes: see that an open file can go on without it.

        Raises: OSError as the server answers.
        """
        data = node.data
        if data is None or not data.opens or data.handles.any is not None:
            return
        await data.handles.get(api.READ)

    async def prefetch(self, nodes: Sequence[Node]) -> None:
        """Fetch small files whole, because they are going to be read."""
        tasks = []
        for node in nodes:
            size = node.attrs.size if node.attrs is not None else None
            if size is None or size > PREFETCH_LIMIT or node.removed or self.pool.is_direct:
                continue
            data = self.data_of(node)
            if data.prefetching is None and not (data.opens or data.is_local or data.is_complete):
                data.prefetching = self.pool.start(self._prefetch(data))
            if data.prefetching is not None:
                tasks.append(data.prefetching)
        if tasks:
            await asyncio.wait(tasks)

    async def _prefetch(self, data: FileData) -> None:
        try:
            handle, _ = await data.handles.open_at_server(api.READ)
            data.handles.take(handle, api.READ)
            if data.size <= PREFETCH_LIMIT:  # it may have grown since it was listed
                await data.fetch_all()
        except OSError as exc:
            # Only a guess: who opens it gets the server's answer.
            log.debug("prefetch: %s", exc)
        finally:
            data.prefetching = None
            data.handles.close_unneeded(is_busy=data.is_busy)
            data.ended()

    # --- the end ---------------------------------------------------------------------------------

    async def drain(self) -> None:
        """Have the server take all that is owed; returns when it has, or the link fails."""
        for data in self.dirty_files():
            try:
                await data.drain()
            except OSError as exc:
                log.warning("unsent data remain: %s", exc)

    async def close(self, reason: str) -> None:
        """End all work; what the server did not take is saved to the rescue directory."""
        for data in self.dirty_files():
            data.abandon(reason)
        await self.pool.stop()

    def statistics(self) -> FileStatistics:
        pool = self.pool
        return FileStatistics(
            open_files=len(self._open),
            known_files=len(self._known),
            cached=int(pool.cache.currsize),
            cache_size=int(pool.cache.maxsize),
            dirty=pool.dirty.used,
            dirty_limit=pool.dirty.limit,
            dirty_files=len(self.dirty_files()),
            hits=pool.hits,
            misses=pool.misses,
            ahead_used=pool.cache.ahead_used,
            ahead_wasted=pool.cache.ahead_wasted,
            losses=tuple(pool.rescue.losses),
        )

    def __repr__(self) -> str:
        return f"<FileTable open={len(self._open)} known={len(self._known)}>"


def _has_other_names(node: Node) -> bool:
    """Whether other nodes may stand for the same file: nothing but its number would tell."""
    attrs = node.attrs
    return attrs is not None and (attrs.nlink or 1) > 1 and not attrs.ino
