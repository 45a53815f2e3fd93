"""``Session``: the Remote that lasts.

Whether a request whose answer was lost is sent again or settled by looking is the policy of
``replay.py``; how it waits for the next conversation is ``lasting.py``'s; what an open file is
known by is in ``opened.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import stat
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from typing import Any, NamedTuple, TypeVar, TypeVarTuple

from netfs.client.config import Config
from netfs.client.remote import listing, renaming
from netfs.client.remote.api import APPEND, CREAT, EXCL, TRUNC, WRITE, DirEntry, RemoteHandle
from netfs.client.remote.channel import Link
from netfs.client.remote.conversation import Conversation
from netfs.client.remote.files import DEFAULT_LIMITS, SftpFiles, SftpHandle
from netfs.client.remote.handles import SessionHandle, SessionHandles
from netfs.client.remote.lanes import widen
from netfs.client.remote.lasting import LastingLink
from netfs.client.remote.looking import Looking
from netfs.client.remote.opened import touches_version
from netfs.client.remote.pending import Disconnected, StatusError
from netfs.client.remote.replay import Replay, replay_of
from netfs.client.remote.requester import RequesterStatistics
from netfs.client.remote.settle import has_run
from netfs.client.remote.spread import Begun
from netfs.client.remote.symlinks import Symlinks
from netfs.sftp import extensions as ext
from netfs.sftp import requests as req
from netfs.sftp.attrs import Attrs, StatVfs
from netfs.sftp.codes import Status
from netfs.wire import Buffer

_T = TypeVar("_T")
_Args = TypeVarTuple("_Args")
_R = TypeVar("_R", bound=req.Request)

_new = tuple.__new__  # a NamedTuple, without the call of its own constructor


class SessionStatistics(NamedTuple):
    """A snapshot for ``netfs status``."""

    conversations: int
    repeated: int  # requests sent again after a lost link
    settled: int  # requests found done by looking
    timed_out: int  # requests that waited too long for the link
    waiting: int  # requests that wait for the link now
    open_files: int
    reopened: int
    stale: int  # open files that could not be opened again as the same
    channels: tuple[RequesterStatistics, ...]  # of the present conversation, names first


class Session(LastingLink):
    """One served tree across reconnects.  Implements ``api.Remote``."""

    def __init__(
        self,
        config: Config,
        connect: Callable[[], Awaitable[Link]],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """See ``LastingLink``."""
        super().__init__(config, connect, clock)
        self._handles = SessionHandles(self._spawn)
        self._symlinks = Symlinks()
        self._settled = 0
        self.limits = DEFAULT_LIMITS
        self.extensions: frozenset[bytes] = frozenset()
        self.has_extended_attrs = False

    def __repr__(self) -> str:
        return f"<Session {self.link_state.value} {self._current!r}>"

    def statistics(self) -> SessionStatistics:
        current = self._current
        return SessionStatistics(
            self._conversations,
            self._repeated,
            self._settled,
            self._timed_out,
            self._waiting,
            len(self._handles),
            self._handles.reopened,
            self._handles.stale,
            () if current is None else tuple(r.statistics() for r in current.requesters),
        )

    def _adopt(self, conversation: Conversation) -> None:
        super()._adopt(conversation)
        sftp = conversation.files
        self.limits = sftp.limits
        self.extensions = sftp.extensions
        self.has_extended_attrs = sftp.has_extended_attrs
        self._handles.reopen_all(sftp)

    # How a request gets through: an *attempt* for each conversation until one is not lost.

    async def _ask(
        self,
        attempt: Callable[[SftpFiles, *_Args], Awaitable[_T]],
        *args: *_Args,
        since: float | None = None,
    ) -> _T:
        """Something that can be asked again: rows SAFE and SAME_RESULT.  It waits *since*; now."""
        if since is None:
            since = self._clock()
        while True:
            files = self._now or await self._files(since)
            try:
                return await attempt(files, *args)
            except Disconnected as lost:
                since = self._again(lost, since)

    async def _change(
        self, request: _R, attempt: Callable[[SftpFiles, _R], Awaitable[None]]
    ) -> None:
        """A change of names, exactly once."""
        since = self._clock()
        may_have_run = False
        while True:
            files = self._now or await self._files(since)
            try:
                if may_have_run and replay_of(request) is Replay.SETTLE:
                    if await has_run(files, request):
                        self._settled += 1
                        return
                    may_have_run = False
                await attempt(files, request)
                return
            except Disconnected as lost:
                since = self._again(lost, since)
                may_have_run |= lost.sent

    async def _through(
        self,
        handle: SessionHandle,
        attempt: Callable[[SftpFiles, SftpHandle, *_Args], Awaitable[_T]],
        *args: *_Args,
    ) -> _T:
        """``_ask`` about an open file, which is opened again first if need be."""
        since = self._clock()
        handle.busy += 1
        try:
            while True:
                files = self._now or await self._files(since)
                try:
                    if handle.files is not files and handle.files is not files.data:
                        await self._handles.ready(handle, files)
                    return await attempt(handle.files, handle.sftp, *args)
                except Disconnected as lost:
                    since = self._again(lost, since)
        finally:
            handle.busy -= 1
            if handle.idle is not None and not handle.busy:
                handle.idle.set()

    async def _in_order(
        self,
        handle: SessionHandle,
        attempt: Callable[[SftpFiles, SftpHandle, *_Args], Awaitable[_T]],
        *args: *_Args,
    ) -> _T:
        """``_through`` for what is no WRITE and must not overtake one."""
        order = handle.spread
        begun, earlier = order.begin_other()
        try:
            if earlier is not None:
                await order.turn_of_other(earlier)
            return await self._through(handle, attempt, *args)
        finally:
            order.end(begun)

    # Names and attributes.

    # Those that are one question return its coroutine: one layer less for each step of a wait.

    def lstat(self, path: bytes) -> Coroutine[Any, Any, Attrs]:
        return self._lstat(req.Lstat(path))

    def _lstat(self, request: req.Lstat, since: float | None = None) -> Coroutine[Any, Any, Attrs]:
        asking = self._ask(SftpFiles.attrs, request, since=since)
        if request.path in self._handles.opened.by_name:
            return self._lstat_open(request.path, asking)
        return asking

    def look(self, path: bytes, looking: Looking[Any]) -> bool:
        """See ``api.Remote``."""
        files = self._now
        if files is None or path in self._handles.opened.by_name:
            return False
        files.requester.tell(looking, _new(req.Lstat, (path,)))
        return True

    async def look_again(self, looking: Looking[Any], lost: Disconnected) -> Attrs:
        """See ``api.Remote``."""
        assert isinstance(looking.request, req.Lstat)
        since = self._again(lost, looking.sent_at)
        return await self._lstat(looking.request, since)

    async def _lstat_open(self, path: bytes, asking: Coroutine[Any, Any, Attrs]) -> Attrs:
        """Of a name whose file is open."""
        attrs = await asking
        self._handles.seen(path, attrs, self._now)
        return attrs

    def stat(self, path: bytes) -> Coroutine[Any, Any, Attrs]:
        return self._ask(SftpFiles.attrs, req.Stat(path))

    async def readlink(self, path: bytes) -> bytes:
        return await self._ask(SftpFiles.readlink, path)

    async def realpath(self, path: bytes) -> bytes:
        return await self._ask(SftpFiles.realpath, path)

    async def scandir(self, path: bytes) -> AsyncGenerator[list[DirEntry], None]:
        """The whole directory; after a lost link it goes on with the names not yet given."""
        since = self._clock()
        given: set[bytes] = set()
        while True:
            files = self._now or await self._files(since)
            try:
                async with contextlib.aclosing(files.scandir(path)) as batches:
                    async for batch in batches:
                        fresh = listing.not_yet(given, batch)
                        if fresh:
                            yield fresh
                        since = self._clock()
                return
            except Disconnected as lost:
                since = self._again(lost, since)

    async def mkdir(self, path: bytes, mode: int) -> None:
        await self._change(req.Mkdir(path, Attrs(mode=mode)), SftpFiles.done)

    async def rmdir(self, path: bytes) -> None:
        await self._change(req.Rmdir(path), SftpFiles.done)

    async def remove(self, path: bytes) -> None:
        await self._change(req.Remove(path), SftpFiles.done)
        if path in self._handles.opened.by_name:
            self._handles.opened.removed(path)

    def also_named(self, path: bytes, other: bytes) -> None:
        """See ``api.Remote``."""
        self._handles.opened.also(path, other)

    async def rename(self, old: bytes, new: bytes, *, replace: bool = True) -> None:
        request: req.Rename | ext.PosixRename
        if not replace:
            request = req.Rename(old, new)
            with self._handles.moving(old, new, lambda: self._has_run(request)):
                await self._change(request, lambda files, _: files.rename_new(old, new))
            return
        files = self._now or await self._files(self._clock())
        if files.can_replace:
            request = ext.PosixRename(old, new)
            with self._handles.moving(old, new, lambda: self._has_run(request)):
                await self._change(request, lambda files, _: files.rename_over(old, new))
        else:
            # Cancelled between its steps it would leave the target under another name.
            await asyncio.shield(self._spawn(self._rename_by_steps(old, new)))

    async def _has_run(self, request: req.Request) -> bool:
        """Whether the server has carried out a change that nobody waits for any more.

        It answers in order: what it is asked now it looks up after that change.

        Raises:
            OSError: it can't be told.
        """
        while True:
            await self.wait_up()
            with contextlib.suppress(TimeoutError):  # the link was lost again: later
                return await self._ask(has_run, request)

    async def _rename_by_steps(self, old: bytes, new: bytes) -> None:
        aside = renaming.aside_name(new)
        again = False

        async def attempt(files: SftpFiles) -> None:
            nonlocal again
            was_begun, again = again, True
            await renaming.replace_by_steps(files, old, new, aside, again=was_begun)

        with self._handles.moving(old, new):
            await self._ask(attempt)

    async def symlink(self, target: bytes, path: bytes) -> None:
        making = self._change(req.Symlink(target, path), self._symlinks.make)
        if self._symlinks.is_proven:
            await making
        else:
            # Cancelled between its steps it could leave a link where none belongs.
            await asyncio.shield(self._spawn(making))

    async def link(self, existing: bytes, path: bytes) -> None:
        await self._change(
            ext.Hardlink(existing, path), lambda files, request: files.link(*request)
        )

    async def setstat(self, path: bytes, attrs: Attrs, *, follow: bool = True) -> None:
        opened = self._handles.opened.at(path) if touches_version(attrs) else ()
        done = False
        for file in opened:
            file.change_begun(attrs)
        try:
            await self._ask(lambda files: files.setstat(path, attrs, follow=follow))
            done = True
        finally:
            for file in opened:
                file.change_ended(attrs, done=done)

    async def statvfs(self, path: bytes) -> StatVfs:
        return await self._ask(SftpFiles.statvfs, path)

    async def users(
        self, uids: Sequence[int], gids: Sequence[int]
    ) -> tuple[list[bytes], list[bytes]]:
        return await self._ask(SftpFiles.users, uids, gids)

    # Open files.

    async def open(self, path: bytes, pflags: int, mode: int | None = None) -> SessionHandle:
        handle, _ = await self.open_stat(path, pflags, mode)
        return handle

    async def open_stat(
        self, path: bytes, pflags: int, mode: int | None = None
    ) -> tuple[SessionHandle, Attrs]:
        """See ``api.Remote``.  APPEND is refused (EINVAL): a replay needs offsets."""
        if pflags & APPEND:
            raise OSError(errno.EINVAL, "O_APPEND is the caller's to keep")
        since = self._clock()
        may_have_run = False
        while True:
            files = self._now or await self._files(since)
            try:
                if may_have_run:
                    request = req.Open(path, pflags, Attrs(mode=mode))
                    if replay_of(request) is Replay.SETTLE and await has_run(files, request):
                        self._settled += 1
                        pflags &= ~(EXCL | CREAT | TRUNC)  # it is made: only open it
                    may_have_run = False
                channel = files.data if pflags & WRITE else files
                sftp, attrs = await channel.open_stat(path, pflags, mode)
                if truncated := bool(pflags & TRUNC):
                    same = await self._handles.file_cut_by(files, channel, sftp)
                else:
                    same = None
                handle = self._handles.add(channel, sftp, attrs, truncated=truncated, same=same)
                if attrs.mode is not None and stat.S_ISLNK(attrs.mode):
                    await self._learn_target(handle)
                return handle, attrs
            except Disconnected as lost:
                since = self._again(lost, since)
                may_have_run |= lost.sent

    async def _learn_target(self, handle: SessionHandle) -> None:
        """It was opened through a symlink: know the file, not the link."""
        try:
            handle.file.learn_kind(await self.fstat(handle))
        except BaseException:
            handle.files.requester.dismiss(handle.sftp.handle)
            self._handles.discard(handle)
            raise

    async def fstat(self, handle: RemoteHandle) -> Attrs:
        mine = _mine(handle)
        try:
            attrs = await self._in_order(mine, SftpFiles.fstat)
        except OSError as exc:
            if not _is_by_name(exc, mine):
                raise
            attrs = await self.stat(mine.path)
        mine.file.learn(attrs)
        return attrs

    async def fsetstat(self, handle: RemoteHandle, attrs: Attrs) -> None:
        mine = _mine(handle)
        if not touches_version(attrs):
            await self._fsetstat(mine, attrs)
            return
        done = False
        mine.file.change_begun(attrs)
        try:
            await self._fsetstat(mine, attrs)
            done = True
        finally:
            mine.file.change_ended(attrs, done=done)

    async def _fsetstat(self, mine: SessionHandle, attrs: Attrs) -> None:
        try:
            await self._in_order(mine, SftpFiles.fsetstat, attrs)
        except OSError as exc:
            if not _is_by_name(exc, mine):
                raise
            await self._ask(lambda files: files.setstat(mine.path, attrs))

    async def read(
        self, handle: RemoteHandle, offset: int, size: int, *, end: int | None = None
    ) -> Buffer:
        assert isinstance(handle, SessionHandle)
        data = await self._through(handle, SftpFiles.read, offset, size, end)
        file = handle.file
        stop = offset + len(data)
        if stop > file.size_high:
            self._handles.refresh(handle, self._now)  # somebody else appends
        elif len(data) < size and stop < file.size_low != handle.renewed_for:
            return await self._read_on(handle, stop, size - len(data), end, data)
        return data

    async def _read_on(
        self, handle: SessionHandle, stop: int, rest: int, end: int | None, data: Buffer
    ) -> Buffer:
        """*data* and what is behind it, at *stop*: the server said that the file ends there, and
        before that it goes on.  Somebody has cut it, or the handle does not see all of it."""
        if handle.renewing is None:
            handle.renewing = self._spawn(self._renew(handle))
        try:
            is_same = await asyncio.shield(handle.renewing)
        except Disconnected:
            is_same = True  # all files are opened again
        if handle.file.size_low <= stop:
            return data
        if not is_same:
            raise OSError(errno.EIO, "the server does not see all of this open file", handle.path)
        more = await self._through(handle, SftpFiles.read, stop, rest, end)
        return b"".join((data, more))

    async def _renew(self, handle: SessionHandle) -> bool:
        """See ``SessionHandles.renew``."""
        file = handle.file
        known = file.size_low
        try:
            with contextlib.suppress(OSError):  # then it has the size that it had
                await self.fstat(handle)
            if file.size_low < known:
                return True  # somebody has cut it
            is_same = await self._handles.renew(handle)
            if is_same:
                handle.renewed_for = file.size_low
            return is_same
        finally:
            handle.renewing = None

    async def write(self, handle: RemoteHandle, offset: int, data: Sequence[Buffer]) -> None:
        assert isinstance(handle, SessionHandle)
        size = sum(map(len, data))
        stop = offset + size
        order = handle.spread
        begun = order.begin_write(size)
        done = False
        handle.file.write_begun(stop)
        try:
            if order.is_wide:
                await order.turn_of_write()
                await self._through(handle, order.write, offset, data, size)
            else:
                await self._through(handle, SftpFiles.write, offset, data)
            done = True
        finally:
            handle.file.write_ended(stop, done=done)
            order.end_write(begun, size)
        wanted = order.wants(size, self.links)
        if wanted and not handle.is_closed:
            order.is_widening = True
            _ = self._spawn(self._widen(handle, wanted))

    async def _widen(self, handle: SessionHandle, count: int) -> None:
        """Send *handle*'s WRITEs over up to *count* channels more than its own."""
        current = self._current
        try:
            if current is not None and handle.is_open_in(current.files):
                await widen(handle, current.lanes, count)
        except Disconnected:
            pass  # in the next conversation it may be tried again
        finally:
            handle.spread.is_widening = False

    async def fsync(self, handle: RemoteHandle) -> None:
        await self._in_order(_mine(handle), SftpFiles.fsync)

    async def copy_data(
        self, source: RemoteHandle, offset: int, length: int, dest: RemoteHandle, dest_offset: int
    ) -> None:
        """See ``api.Remote``; with *length* 0 the destination's size isn't known afterwards."""
        mine, other = _mine(dest), _mine(source)
        stop = dest_offset + (length or max(0, other.file.size_high - offset))
        done = False

        async def attempt(channel: SftpFiles, to: SftpHandle) -> None:
            sftp, is_lent = await self._handles.lend(other, channel, self._now)
            try:
                await channel.copy_data(sftp, offset, length, to, dest_offset)
            finally:
                if is_lent:
                    channel.requester.dismiss(sftp.handle)

        mine.file.write_begun(stop)
        try:
            await self._in_order(mine, attempt)
            done = bool(length)
        finally:
            mine.file.write_ended(stop, done=done)

    async def close(self, handle: RemoteHandle) -> None:
        """CLOSE; a lost link has closed the file already.  May be cancelled and still closes."""
        mine = _mine(handle)
        if mine.is_closed:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF), mine.path)
        mine.is_closed = True
        order = mine.spread
        begun, earlier = order.begin_other()
        if earlier is not None:
            await asyncio.shield(self._spawn(self._close_in_turn(mine, begun, earlier)))
            return
        try:
            await self._close(mine)
        finally:
            order.end(begun)

    def let_go(self, handle: RemoteHandle) -> bool:
        """See ``api.Remote``."""
        mine = _mine(handle)
        files = self._now
        if (
            mine.is_closed
            or mine.busy
            or mine.spread.is_wide
            or files is None
            or not mine.is_open_in(files)
        ):
            return False
        mine.is_closed = True
        mine.spread.close()
        # One channel's requests are carried out in order: what is asked next finds it closed.
        mine.files.requester.dismiss(mine.sftp.handle)
        self._handles.discard(mine)
        return True

    async def _close_in_turn(self, mine: SessionHandle, begun: Begun, earlier: set[Begun]) -> None:
        """CLOSE of a file whose WRITEs are under way on several channels."""
        try:
            await mine.spread.turn_of_other(earlier)
            await self._close(mine)
        finally:
            mine.spread.end(begun)

    async def _close(self, mine: SessionHandle) -> None:
        files = self._now
        mine.spread.close()
        try:
            if files is not None and mine.is_open_in(files):
                await mine.files.close(mine.sftp)
        except Disconnected:
            pass  # row DEAD of the replay table
        finally:
            if mine.busy:  # what was under way is repeated on a handle that is opened again
                _ = self._spawn(self._close_when_idle(mine))
            else:
                self._handles.discard(mine)

    async def _close_when_idle(self, handle: SessionHandle) -> None:
        closed_in = handle.files
        handle.idle = asyncio.Event()
        if handle.busy:
            await handle.idle.wait()
        if handle.files is not closed_in:
            handle.files.requester.dismiss(handle.sftp.handle)
        self._handles.discard(handle)


def _mine(handle: RemoteHandle) -> SessionHandle:
    assert isinstance(handle, SessionHandle)
    return handle


def _is_by_name(refusal: OSError, handle: SessionHandle) -> bool:
    """Whether the server has looked for the open file by the name that it was opened by, and it has
    another one by now (MySecureShell)."""
    cause = refusal.__cause__
    return (
        isinstance(cause, StatusError)
        and cause.code == Status.NO_SUCH_FILE
        and not handle.file.is_removed
    )
