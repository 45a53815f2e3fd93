"""``Remote``: the vocabulary between the operations and whatever carries them out.

Implemented by ``session.Session`` (the network, across reconnects) and by the tests' fake.
Paths and names are bytes, absolute on the server.  Every method that can fail raises OSError with
a *local* errno (already narrowed: a bare FAILURE has become ENOTEMPTY, EEXIST, ENOSPC ... where
looking can tell); nothing else than OSError and CancelledError comes out.  Cancelling a call
abandons its requests: unsent ones are removed, late handles are closed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple, Protocol

from netfs.client.remote.looking import Looking
from netfs.client.remote.pending import Disconnected
from netfs.sftp.attrs import Attrs, Limits, StatVfs
from netfs.wire import Buffer

READ = 0x1
WRITE = 0x2
APPEND = 0x4
CREAT = 0x8
TRUNC = 0x10
EXCL = 0x20
"""pflags of ``open``.  Source: draft-ietf-secsh-filexfer-02 §6.3."""


class DirEntry(NamedTuple):
    """One name of a directory ('.' and '..' and illegal names never appear)."""

    name: bytes
    attrs: Attrs  # as LSTAT gives them, with nlink where the longname tells it


class RemoteHandle(Protocol):
    """An open file on the server; survives reconnects (the owner reopens it)."""

    pflags: int

    @property
    def path(self) -> bytes:
        """Follows renames made through the same Remote."""
        ...


class Remote(Protocol):
    """A served tree.  See the module for errors and cancellation."""

    limits: Limits  # max_read and max_write are always > 0 here
    extensions: frozenset[bytes]  # as the server offered them, e.g. b"hardlink@openssh.com"
    is_up: bool  # asking the server makes sense now: requests would not wait for the link

    async def lstat(self, path: bytes) -> Attrs: ...

    def look(self, path: bytes, looking: Looking[Any]) -> bool:
        """Begin an ``lstat`` whose outcome *looking* is told by a call; to cancel it,
        ``end`` it.  False: not now, use ``lstat``.

        Raises: OSError: a name that cannot be said to the server.
        """
        ...

    async def look_again(self, looking: Looking[Any], lost: Disconnected) -> Attrs:
        """What ``lstat`` would do next whose request was *lost*."""
        ...

    async def stat(self, path: bytes) -> Attrs: ...

    async def readlink(self, path: bytes) -> bytes: ...

    async def realpath(self, path: bytes) -> bytes: ...

    def scandir(self, path: bytes) -> AsyncIterator[list[DirEntry]]:
        """The whole directory in batches; several READDIRs are in flight.  One handle, closed."""
        ...

    async def mkdir(self, path: bytes, mode: int) -> None: ...

    async def rmdir(self, path: bytes) -> None: ...

    async def remove(self, path: bytes) -> None: ...

    async def rename(self, old: bytes, new: bytes, *, replace: bool = True) -> None:
        """Rename; with *replace* atomically over an existing file, else EEXIST if *new* exists."""
        ...

    def also_named(self, path: bytes, other: bytes) -> None:
        """The caller knows that the file at *path* has the name *other*, too: an open one is
        found there again when *path* has gone."""
        ...

    async def symlink(self, target: bytes, path: bytes) -> None: ...

    async def link(self, existing: bytes, path: bytes) -> None: ...

    async def setstat(self, path: bytes, attrs: Attrs, *, follow: bool = True) -> None:
        """Set what *attrs* carries; without *follow* on a symlink itself (else EOPNOTSUPP)."""
        ...

    async def statvfs(self, path: bytes) -> StatVfs: ...

    async def open(self, path: bytes, pflags: int, mode: int | None = None) -> RemoteHandle:
        """APPEND may be refused (EINVAL): writes are sent again at their offsets."""
        ...

    async def open_stat(
        self, path: bytes, pflags: int, mode: int | None = None
    ) -> tuple[RemoteHandle, Attrs]:
        """OPEN and LSTAT of the same path in one packet: one round trip."""
        ...

    async def fstat(self, handle: RemoteHandle) -> Attrs: ...

    async def fsetstat(self, handle: RemoteHandle, attrs: Attrs) -> None: ...

    async def read(
        self, handle: RemoteHandle, offset: int, size: int, *, end: int | None = None
    ) -> Buffer:
        """Up to *size* bytes; fewer only at the end of the file.

        A server may answer a READ with less than there is, so a short answer is asked on until
        EOF: a round trip more.  One that reaches *end* (the size as last known) is not.
        """
        ...

    async def write(self, handle: RemoteHandle, offset: int, data: Sequence[Buffer]) -> None:
        """Write the joined buffers (together <= limits.max_write); returns when acknowledged.

        The buffers belong to the callee until then (a reconnect sends them again).
        """
        ...

    async def fsync(self, handle: RemoteHandle) -> None:
        """fsync@openssh.com; returns without it where the server has none."""
        ...

    async def close(self, handle: RemoteHandle) -> None: ...

    def let_go(self, handle: RemoteHandle) -> bool:
        """Close *handle*, and nobody waits for that.  False: something of it is under way, use
        ``close``."""
        ...

    async def copy_data(
        self, source: RemoteHandle, offset: int, length: int, dest: RemoteHandle, dest_offset: int
    ) -> None:
        """Copy inside the server (length 0: to the end).  EOPNOTSUPP where it can't."""
        ...

    async def users(
        self, uids: Sequence[int], gids: Sequence[int]
    ) -> tuple[list[bytes], list[bytes]]:
        """Names by users-groups-by-id@openssh.com, b"" for unknown ones."""
        ...
