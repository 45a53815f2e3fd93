"""Open files that survive reconnects: each is opened again by its path, if it still is the same.

Which file is the same is decided by ``opened.py``.  A handle that can't come back is broken for
good: ESTALE where the file is gone or another one, else what the server said (EACCES ...).
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import errno
import logging
import os
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any, Final, Literal, NamedTuple

from netfs.client.remote.api import WRITE
from netfs.client.remote.files import SftpFiles, SftpHandle
from netfs.client.remote.opened import OpenedFile, OpenedFiles, Renaming
from netfs.client.remote.pending import Disconnected
from netfs.client.remote.replay import REOPEN_MASK
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
        "renewed_for",
        "renewing",
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
        self.renewing: asyncio.Task[bool] | None = None
        self.renewed_for = 0  # bytes; the file's size when that was done last
        self.spread = Spread()

    def is_open_in(self, files: SftpFiles) -> bool:
        """Whether it can be used in the conversation whose names go over *files*."""
        return self.files is files or self.files is files.data

    @property
    def path(self) -> bytes:
        return self.file.path

    def __repr__(self) -> str:
        state = "closed" if self.is_closed else errno.errorcode.get(self.broken or 0, "open")
        return f"<SessionHandle {state} {self.file!r}>"


class _Move(NamedTuple):
    """A rename under way."""

    old: bytes
    new: bytes
    ended: asyncio.Future[None]


class _Failure(NamedTuple):
    """Why an open file is not found under one of its names."""

    errno: int
    reason: str


class _Reopening(enum.Enum):
    DONE = "it is open again, or need not be"
    AGAIN = "its names have changed meanwhile"


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
        self,
        files: SftpFiles,
        sftp: SftpHandle,
        attrs: Attrs,
        *,
        truncated: bool,
        same: OpenedFile | None = None,
    ) -> SessionHandle:
        """A file was just opened; *attrs* are what the server says of it.

        *same*: what ``file_cut_by`` found, if it was *truncated*.
        """
        file = self.opened.attach(sftp.path, attrs, truncated=truncated, same=same)
        handle = SessionHandle(file, sftp.pflags, files, sftp)
        self._handles.add(handle)
        return handle

    async def file_cut_by(
        self, files: SftpFiles, channel: SftpFiles, sftp: SftpHandle
    ) -> OpenedFile | None:
        """Which of the files that are open under its name *sftp*, on *channel*, has cut.

        The name may lead to another file by now, so what is open is asked: only the same file
        looks the same.  The new handle is closed where that can't be told.

        Raises:
            Disconnected
        """
        try:
            for file in list(self.opened.at(sftp.path)):
                for handle in self._handles:
                    if (
                        handle.file is file
                        and handle.is_open_in(files)
                        and not (handle.is_closed or handle.broken)
                    ):
                        if await _is_same(handle, channel, sftp):
                            return file
                        break
        except BaseException:
            channel.requester.dismiss(sftp.handle)
            raise
        return None

    def discard(self, handle: SessionHandle) -> None:
        """It is closed."""
        self._handles.remove(handle)
        self.opened.detach(handle.file)

    @contextlib.contextmanager
    def moving(
        self, old: bytes, new: bytes, has_run: Callable[[], Awaitable[bool]] | None = None
    ) -> Iterator[None]:
        """Around a rename, from before it is sent until its outcome is known.

        *has_run* finds out the outcome of one whose answer nobody waits for any more.
        """
        move = _Move(old, new, asyncio.get_running_loop().create_future())
        self._moves.add(move)
        is_unknown = False
        try:
            yield
            self.opened.renamed(old, new)
        except (asyncio.CancelledError, TimeoutError):
            if has_run is not None and (renamings := self.opened.affected(old, new)):
                is_unknown = True
                _ = self._spawn(self._settle(move, renamings, has_run))
            raise
        finally:
            if not is_unknown:
                self._end(move)

    async def _settle(
        self, move: _Move, renamings: list[Renaming], has_run: Callable[[], Awaitable[bool]]
    ) -> None:
        try:
            if await has_run():
                self.opened.apply(renamings)
        except OSError as exc:
            _log.info("whether %r was renamed can't be told: %s", move.old, exc)
        finally:
            self._end(move)

    def _end(self, move: _Move) -> None:
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

    async def renew(self, handle: SessionHandle) -> bool:
        """Open *handle*'s file once more, and use that from now on.  The server said that the file
        ends where it is known to go on: on some a handle sees the size of when it was opened, and
        what was written through it (ProFTPD).

        Returns: False where its name leads to another file now, or to none.

        Raises:
            OSError: as the server answers.
            Disconnected
        """
        file, channel, old = handle.file, handle.files, handle.sftp
        if file.is_removed:
            return False
        sftp = await channel.open(handle.path, handle.pflags & REOPEN_MASK)
        try:
            is_same = file.fits(await channel.fstat(sftp)) and not file.is_removed
        except BaseException:
            channel.requester.dismiss(sftp.handle)
            raise
        if not is_same or handle.sftp is not old or (handle.is_closed and not handle.busy):
            channel.requester.dismiss(sftp.handle)
            return is_same
        handle.sftp = sftp
        channel.requester.dismiss(old.handle)  # behind what was sent with it
        return True

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
                failures: list[_Failure] = []
                for path in file.names:
                    outcome = await self._reopen_at(path, handle, files)
                    if outcome is _Reopening.DONE:
                        return
                    if outcome is _Reopening.AGAIN:
                        break
                    failures.append(outcome)
                else:
                    self._break(handle, failures[0])
                    return
            self._break(handle, _Failure(errno.ESTALE, "it was removed"))
        finally:
            handle.reopening = None

    async def _reopen_at(
        self, path: bytes, handle: SessionHandle, files: SftpFiles
    ) -> _Failure | Literal[_Reopening.DONE, _Reopening.AGAIN]:
        """Look for *handle*'s file at *path*, one of its names.

        Raises:
            OSError: what may pass.
            Disconnected
        """
        file = handle.file
        try:
            sftp = await files.open(path, handle.pflags & REOPEN_MASK)
        except OSError as exc:
            if exc.errno in _GONE:
                if await self._has_moved(file, path):
                    return _Reopening.AGAIN
                return _Failure(errno.ESTALE, f"{exc.strerror}")
            if exc.errno in _FOREVER:
                return _Failure(exc.errno or errno.EIO, f"{exc.strerror}")
            raise
        try:
            attrs = await files.fstat(sftp)
            is_same = file.fits(attrs)
            # It may be what was renamed to this path meanwhile, and no file of ours.
            is_doubtful = (
                not is_same
                or path not in file.names
                or any(_leads_to(path, move.new) for move in self._moves)
            )
            has_moved = is_doubtful and await self._has_moved(file, path)
        except BaseException:
            files.requester.dismiss(sftp.handle)
            raise
        if has_moved or not is_same or (handle.is_closed and not handle.busy):
            files.requester.dismiss(sftp.handle)
            if has_moved:
                return _Reopening.AGAIN
            if not is_same:
                return _Failure(errno.ESTALE, "another file, or changed by somebody else")
            return _Reopening.DONE
        file.learn(attrs)
        handle.sftp = sftp
        handle.files = files
        handle.spread.cut()
        self.reopened += 1
        return _Reopening.DONE

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
        return bool(ended) or path not in file.names

    def _break(self, handle: SessionHandle, failure: _Failure) -> None:
        handle.broken = failure.errno
        self.stale += 1
        _log.warning(
            "the open file %r is lost after the reconnect: %s", handle.path, failure.reason
        )

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


async def _is_same(handle: SessionHandle, channel: SftpFiles, sftp: SftpHandle) -> bool:
    """Whether *handle* and *sftp* are open on one file, which may be written to meanwhile."""
    for _ in range(2):
        try:
            before, other, after = await asyncio.gather(
                channel.fstat(sftp), handle.files.fstat(handle.sftp), channel.fstat(sftp)
            )
        except OSError as exc:
            _log.debug("fstat of %r: %s", sftp.path, exc)
            return False
        if after.ino is not None and other.ino is not None:
            return after.ino == other.ino
        if other in (before, after):
            return True
    return False


def _leads_to(path: bytes, name: bytes) -> bool:
    """Whether *path* is *name* or lies below it."""
    return path == name or path.startswith(name + b"/")


def _forget_outcome(task: asyncio.Task[None]) -> None:
    """Who needs the file will see the error again; reading it silences asyncio's warning."""
    if not task.cancelled():
        task.exception()
