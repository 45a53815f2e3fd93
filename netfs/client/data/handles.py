"""The server handles of one file: opened when needed, shared by all its open files.

Reading and writing have one handle each at most; one that can do both serves both.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import stat
from typing import TYPE_CHECKING

from netfs.client.data.pool import Pool, error
from netfs.client.remote import api
from netfs.sftp.attrs import Attrs

if TYPE_CHECKING:
    from netfs.client.nodes import Node
    from netfs.client.remote.api import RemoteHandle

log = logging.getLogger(__name__)


class Handles:
    """See the module.  ``readers`` and ``writers`` count the open files of each mode."""

    __slots__ = (
        "_node", "_opening", "_permissions", "_pool", "allowed", "reader", "readers", "writer",
        "writers",
    )  # fmt: skip

    def __init__(self, node: Node, pool: Pool) -> None:
        self._node = node
        self._pool = pool
        self.reader: RemoteHandle | None = None
        self.writer: RemoteHandle | None = None
        self.readers = 0
        self.writers = 0
        self.allowed = 0  # api.READ, api.WRITE: what the server has allowed on this mount
        self._permissions: tuple[int | None, ...] | None = None  # mode, uid, gid then
        self._opening: dict[int, asyncio.Future[RemoteHandle | OSError]] | None = None

    @property
    def any(self) -> RemoteHandle | None:
        """Some handle of the file; the writing one rather."""
        return self.writer if self.writer is not None else self.reader

    def has(self, access: int) -> bool:
        """Whether there are handles for *access* (api.READ | api.WRITE)."""
        return not (
            (access & api.READ and self.reader is None)
            or (access & api.WRITE and self.writer is None)
        )

    def check_permissions(self, attrs: Attrs) -> None:
        """The server's present attributes: with other permissions, opens are proven anew."""
        permissions = (attrs.mode, attrs.uid, attrs.gid)
        if permissions != self._permissions:
            self._permissions = permissions
            self.allowed = 0

    def take(self, handle: RemoteHandle, access: int) -> None:
        """Keep a new handle; one that is not needed is closed."""
        self.allowed |= access
        is_used = False
        if access & api.WRITE and self.writer is None:
            self.writer = handle
            is_used = True
        if access & api.READ and self.reader is None:
            self.reader = handle
            is_used = True
        if not is_used:
            self.close(handle)

    async def get(self, access: int) -> RemoteHandle:
        """The handle for *access* (one of the two), opened if there is none.

        Raises: OSError as the server answers; ESTALE for a file without a name.
        """
        handle = self.reader if access == api.READ else self.writer
        if handle is not None:
            return handle
        under_way = self._opening
        if under_way is None:
            under_way = self._opening = {}
        opening = under_way.get(access)
        if opening is None:
            opening = asyncio.get_running_loop().create_future()
            under_way[access] = opening
            self._pool.run(self._open(access, opening))
        outcome = await asyncio.shield(opening)
        if isinstance(outcome, OSError):
            raise error(outcome.errno or errno.EIO)
        return outcome

    async def _open(self, access: int, opening: asyncio.Future[RemoteHandle | OSError]) -> None:
        try:
            if self._node.removed:
                raise error(errno.ESTALE)
            handle, _ = await self.open_at_server(access)
            self.take(handle, access)
            opening.set_result(handle)
        except OSError as exc:
            opening.set_result(exc)
        finally:
            opening.cancel()  # without effect once it has a result
            if self._opening is not None:
                del self._opening[access]
                self._opening = self._opening or None

    async def open_at_server(self, pflags: int) -> tuple[RemoteHandle, Attrs]:
        """OPEN, and what the server says of the file then, which is stored.

        Raises: OSError as the server answers; ENOENT for a file without a name.
        """
        pool = self._pool
        nodes = pool.nodes
        node = self._node
        path = nodes.path(node)
        at, asked = pool.clock(), nodes.stamp
        handle, attrs = await pool.remote.open_stat(path, pflags)
        if attrs.mode is not None and stat.S_ISLNK(attrs.mode):
            attrs = await pool.remote.fstat(handle)
        if pflags & api.TRUNC:
            asked = nodes.stamp
        pool.coherence.store(node, attrs, at, asked)
        return handle, attrs

    async def set_attrs(self, attrs: Attrs) -> None:
        """SETSTAT through a handle that may, else by the path.

        Raises: OSError as the server answers; ENOENT for a file without name and handle.
        """
        remote = self._pool.remote
        handle = self.writer if attrs.size is not None else self.any
        if handle is not None:
            await remote.fsetstat(handle, attrs)
        else:
            await remote.setstat(self._pool.nodes.path(self._node), attrs)

    def close_unneeded(self, *, is_busy: bool) -> None:
        """Close the handles that no open file needs; *is_busy*: there is something to write."""
        writer, reader = self.writer, self.reader
        if self.writers == 0 and not is_busy and writer is not None:
            self.writer = None
            if writer is not reader:
                self.close(writer)
        if self.readers == 0 and reader is not None and reader is not self.writer:
            self.reader = None
            self.close(reader)

    def close(self, handle: RemoteHandle) -> None:
        """CLOSE, which nobody waits for."""
        # All that was written is acknowledged already: an error would say no more than that.
        pool = self._pool
        if not pool.remote.let_go(handle):
            pool.run(pool.remote.close(handle))
