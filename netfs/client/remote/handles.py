"""Open files that survive reconnects: each is opened again by its path, if it still is the same.

Which file is the same is decided by ``opened.py``.  A handle that can't come back is broken for
good: ESTALE where the file is gone or another one, else what the server said (EACCES ...).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Final, NamedTuple

from netfs.client.remote.api import WRITE
from netfs.client.remote.files import SftpFiles, SftpHandle
from netfs.client.remote.opened import OpenedFile, OpenedFiles
from netfs.client.remote.replay import REOPEN_MASK
from netfs.client.remote.requester import Disconnected
from netfs.client.remote.spread import Spread
from netfs.sftp.attrs import Attrs

_log = logging.getLogger(__name__)

_GONE: Final = frozenset(
    (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENXIO, errno.ENAMETOOLONG)
)
"""The path leads to nothing that could be the file."""
_FOREVER: Final = frozenset((errno.EACCES, errno.EPERM, errno.EROFS))
"""Somebody decided that we may not have it any more.  Other errors (EMFILE, EIO) may pass."""


class SessionHandle:
    """An open file.  Implements ``api.RemoteHandle``."""

    __slots__ = (
        "broken",
        "busy",
        "file",
        "files",
        "idle",
        "is_closed",
        "pflags",
        "reopening",
        "sftp",
        "spread",
    )

    def __init__(self, file: OpenedFile, pflags: int, files: SftpFiles, sftp: SftpHandle) -> None:
        self.file = file
        self.pflags = pflags
        self.files = files  # the channel on which ``sftp`` is valid
        self.sftp = sftp
        self.broken: int | None = None  # errno of every use from now on
        self.reopening: asyncio.Task[None] | None = None
        self.busy = 0  # requests under way, over reconnects
        self.idle: asyncio.Event | None = None  # set when ``busy`` comes to 0
        self.is_closed = False
        self.spread = Spread()

    def is_open_in(self, files: SftpFiles) -> bool:
        """Whether it can be used in the conversation whose names go over *files*."""
        return self.files is files or self.files is files.data

    @property
    def path(self) -> bytes:
        return self.file.path

    @path.setter
    def path(self, path: bytes) -> None:
        self.file.path = path

    def __repr__(self) -> str:
        state = "closed" if self.is_closed else errno.errorcode.get(self.broken or 0, "open")
        return f"<SessionHandle {state} {self.file!r}>"


class _Move(NamedTuple):
    """A rename under way."""

    old: bytes
    new: bytes
    ended: asyncio.Future[None]


class SessionHandles:
    """All open files of a session."""

    def __init__(self, spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]) -> None:
        self._spawn = spawn
        self._handles: set[SessionHandle] = set()
        self._refreshing: set[OpenedFile] = set()
        self._moves: set[_Move] = set()
        self.opened = OpenedFiles()
        self.reopened = 0
        self.stale = 0

    def __len__(self) -> int:
        return len(self._handles)

    def add(
        self, files: SftpFiles, sftp: SftpHandle, attrs: Attrs, *, truncated: bool
    ) -> SessionHandle:
        """A file was just opened; *attrs* are what the server says of it."""
        file = self.opened.attach(sftp.path, attrs, truncated=truncated)
        handle = SessionHandle(file, sftp.pflags, files, sftp)
        self._handles.add(handle)
        return handle

    def discard(self, handle: SessionHandle) -> None:
        """It is closed."""
        self._handles.remove(handle)
        self.opened.detach(handle.file)

    @contextlib.contextmanager
    def moving(self, old: bytes, new: bytes) -> Iterator[None]:
        """Around a rename, from before it is sent until its outcome is known."""
        move = _Move(old, new, asyncio.get_running_loop().create_future())
        self._moves.add(move)
        try:
            yield
            self.opened.renamed(old, new)
        finally:
            self._moves.discard(move)
            move.ended.set_result(None)

    async def ready(self, handle: SessionHandle, files: SftpFiles) -> None:
        """See that *handle* is open in the conversation of *files*.

        Raises:
            OSError: it can't be opened again.
            Disconnected
        """
        while not handle.is_open_in(files):
            if handle.broken is not None:
                raise OSError(handle.broken, os.strerror(handle.broken), handle.path)
            if handle.is_closed and not handle.busy:
                return
            if handle.reopening is None:
                handle.reopening = self._spawn(self._reopen(handle, files))
            # Shielded: others may wait for it, and a cancelled OPEN would have to come again.
            await asyncio.shield(handle.reopening)
            if files.requester.is_ended or files.data.requester.is_ended:
                raise Disconnected("the link was lost again", sent=False)

    async def lend(
        self, handle: SessionHandle, channel: SftpFiles, files: SftpFiles | None
    ) -> tuple[SftpHandle, bool]:
        """*handle*'s file, open on *channel*; True if it was opened for this and must be closed.

        Raises:
            OSError: EOPNOTSUPP: the path may no longer lead to that file; copy it by hand.
            Disconnected
        """
        if files is None:
            raise Disconnected("the link was lost", sent=False)
        await self.ready(handle, files)
        if handle.files is channel:
            return handle.sftp, False
        sftp = await channel.open(handle.path, handle.pflags & REOPEN_MASK)
        try:
            if handle.file.is_removed or not handle.file.fits(await channel.fstat(sftp)):
                raise OSError(errno.EOPNOTSUPP, "the file has changed", handle.path)
        except BaseException:
            channel.requester.dismiss(sftp.handle)
            raise
        return sftp, True

    def reopen_all(self, files: SftpFiles) -> None:
        """A new conversation has begun: get the files back before others change them."""
        for handle in self._handles:
            if handle.broken is None and (not handle.is_closed or handle.busy):
                task = self._spawn(self.ready(handle, files))
                task.add_done_callback(_forget_outcome)

    async def _reopen(self, handle: SessionHandle, files: SftpFiles) -> None:
        file = handle.file
        files = files.data if handle.pflags & WRITE else files
        try:
            while not file.is_removed:
                path = file.path
                try:
                    sftp = await files.open(path, handle.pflags & REOPEN_MASK)
                except OSError as exc:
                    if exc.errno in _GONE:
                        if await self._has_moved(file, path):
                            continue
                        self._break(handle, errno.ESTALE, f"{exc.strerror}")
                    elif exc.errno in _FOREVER:
                        self._break(handle, exc.errno or errno.EIO, f"{exc.strerror}")
                    else:
                        raise
                    return
                try:
                    attrs = await files.fstat(sftp)
                    is_same = file.fits(attrs)
                    # It may be what was renamed to this path meanwhile, and no file of ours.
                    is_doubtful = not is_same or any(
                        _leads_to(path, move.new) for move in self._moves
                    )
                    has_moved = is_doubtful and await self._has_moved(file, path)
                except BaseException:
                    files.requester.dismiss(sftp.handle)
                    raise
                if has_moved:
                    files.requester.dismiss(sftp.handle)
                    continue
                if not is_same:
                    files.requester.dismiss(sftp.handle)
                    self._break(handle, errno.ESTALE, "another file, or changed by somebody else")
                    return
                if handle.is_closed and not handle.busy:
                    files.requester.dismiss(sftp.handle)
                    return
                file.learn(attrs)
                handle.sftp = sftp
                handle.files = files
                handle.spread.cut()
                self.reopened += 1
                return
            self._break(handle, errno.ESTALE, "it was removed")
        finally:
            handle.reopening = None

    async def _has_moved(self, file: OpenedFile, path: bytes) -> bool:
        """Wait for the renames of *path* that are under way; whether to look for the file again.

        The server may have carried them out already, and does the requests of several channels in
        any order.
        """
        ended = [
            move.ended
            for move in self._moves
            if _leads_to(path, move.old) or _leads_to(path, move.new)
        ]
        if ended:
            await asyncio.wait(ended)
        return bool(ended) or file.path != path or file.is_removed

    def _break(self, handle: SessionHandle, number: int, reason: str) -> None:
        handle.broken = number
        self.stale += 1
        _log.warning("the open file %r is lost after the reconnect: %s", handle.path, reason)

    def seen(self, path: bytes, attrs: Attrs, files: SftpFiles | None) -> None:
        """The server said *attrs* of *path*: if an open file no longer fits, ask its handle."""
        for file in self.opened.at(path):
            if not file.fits(attrs):
                for handle in self._handles:
                    if handle.file is file:
                        self.refresh(handle, files)
                        break

    def refresh(self, handle: SessionHandle, files: SftpFiles | None) -> None:
        """Somebody else changes the open file: learn how it is now, through the handle."""
        if files is None or not handle.is_open_in(files) or handle.is_closed:
            return
        if handle.file not in self._refreshing:
            self._refreshing.add(handle.file)
            _ = self._spawn(self._refresh(handle))

    async def _refresh(self, handle: SessionHandle) -> None:
        try:
            handle.file.learn(await handle.files.fstat(handle.sftp))
        except (OSError, Disconnected) as exc:
            _log.debug("fstat of %r: %s", handle.path, exc)  # then the old version stands
        finally:
            self._refreshing.discard(handle.file)


def _leads_to(path: bytes, name: bytes) -> bool:
    """Whether *path* is *name* or lies below it."""
    return path == name or path.startswith(name + b"/")


def _forget_outcome(task: asyncio.Task[None]) -> None:
    """Who needs the file will see the error again; reading it silences asyncio's warning."""
    if not task.cancelled():
        task.exception()
