"""Finds out whether the file that is open is still the one that its name leads to.

The name is looked at between two looks at the handle: only if those agree and it does not, another
file has the name.  A file that somebody is writing looks different each time.
"""

from __future__ import annotations

import asyncio
import errno
import stat
from typing import TYPE_CHECKING, Final, Protocol

from netfs.client.data.pool import Pool, error
from netfs.client.data.version import version_of
from netfs.sftp.attrs import Attrs

if TYPE_CHECKING:
    from netfs.client.data.handles import Handles
    from netfs.client.nodes import Node

_TRIES: Final = 5


class Owner(Protocol):
    """The file in doubt."""

    node: Node
    handles: Handles
    changes: int  # counts own changes

    @property
    def is_busy(self) -> bool:
        """Whether some of them are under way."""
        ...

    def identified(self) -> None:
        """The doubt has ended."""
        ...

    def replaced(self, held: Attrs) -> None:
        """Another file has the name; *held* is what the server says of the open one."""
        ...


class Identifier:
    """One file's doubt; ``is_suspect`` until it is settled."""

    __slots__ = ("_errno", "_owner", "_pool", "_task", "is_suspect")

    def __init__(self, owner: Owner, pool: Pool) -> None:
        self._owner = owner
        self._pool = pool
        self._task: asyncio.Task[None] | None = None
        self._errno: int | None = None  # of the last try
        self.is_suspect = False

    def suspect(self) -> None:
        """Somebody else changed the file, or has put another one in its place."""
        self.is_suspect = True
        _ = self._begin()

    async def settle(self) -> None:
        """Wait until it is known which file the handles are of.

        Raises: OSError when the server cannot be asked.
        """
        while self.is_suspect:
            task = self._begin()
            await asyncio.wait([task])
            if self._errno is not None:
                raise error(self._errno)

    def _begin(self) -> asyncio.Task[None]:
        if self._task is None:
            self._task = self._pool.start(self._identify())
        return self._task

    async def _identify(self) -> None:
        owner = self._owner
        remote = self._pool.remote
        self._errno = None
        try:
            for _ in range(_TRIES):
                handle = owner.handles.any
                if handle is None or owner.node.removed:
                    break
                changes, path = owner.changes, self._pool.nodes.path(owner.node)
                # One after the other: handles and paths may be served by different channels.
                before = await remote.fstat(handle)
                named = await remote.lstat(path)
                after = await remote.fstat(handle)
                if changes != owner.changes or owner.is_busy or _is_link(named):
                    break  # own changes hide others' now; a link is not what was opened
                if version_of(named) == version_of(after):
                    break
                if version_of(before) == version_of(after):
                    owner.replaced(after)
                    break
            self.is_suspect = False
        except OSError as exc:
            if exc.errno == errno.ENOENT:
                self.is_suspect = False  # removed meanwhile: lookups tell
            else:
                self._errno = exc.errno
        finally:
            self._task = None
            if not self.is_suspect:
                owner.identified()


def _is_link(attrs: Attrs) -> bool:
    return attrs.mode is not None and stat.S_ISLNK(attrs.mode)
