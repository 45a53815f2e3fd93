"""``Session``: the Remote that lasts, one conversation after another as if it were one.

A request that finds the link down, or loses it, waits for the next conversation: at most
``link_timeout`` (then ETIMEDOUT), for ever with ``hard``.  Whether it is sent again or settled by
looking is the policy of ``replay.py``.  When the link is up is the keeper's to know
(``link.py``); what an open file is known by is in ``opened.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import stat
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from typing import Any, NamedTuple, TypeVar

from netfs.client.config import Config
from netfs.client.remote import renaming
from netfs.client.remote.api import APPEND, CREAT, EXCL, TRUNC, WRITE, DirEntry, RemoteHandle
from netfs.client.remote.channel import Link
from netfs.client.remote.conversation import Conversation, converse
from netfs.client.remote.files import DEFAULT_LIMITS, SftpFiles
from netfs.client.remote.handles import SessionHandle, SessionHandles
from netfs.client.remote.lanes import widen
from netfs.client.remote.link import LinkKeeper, LinkState, LinkStatus, Pulse
from netfs.client.remote.opened import touches_version
from netfs.client.remote.replay import Replay, replay_of
from netfs.client.remote.requester import (
    Disconnected,
    Expired,
    Links,
    RequesterStatistics,
    new_links,
)
from netfs.client.remote.settle import has_run
from netfs.client.remote.spread import Begun
from netfs.client.remote.transport import keepalive
from netfs.client.turns import Turn
from netfs.sftp import extensions as ext
from netfs.sftp import requests as req
from netfs.sftp.attrs import Attrs, StatVfs
from netfs.wire import Buffer

_log = logging.getLogger(__name__)

_T = TypeVar("_T")


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


class Session:
    """One served tree across reconnects.  Implements ``api.Remote``."""

    def __init__(
        self,
        config: Config,
        connect: Callable[[], Awaitable[Link]],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """*connect* makes the links after the first; *clock* must be the loop's."""
        self._config = config
        self._connect = connect
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self.turn = Turn(self._loop)
        interval, count = keepalive(config)
        self._keeper: LinkKeeper[Conversation] = LinkKeeper(
            self._dial, lambda: Pulse(interval, count), clock, self._state_changed
        )
        self._current: Conversation | None = None
        self._began = clock()  # of the present conversation: patience starts anew with each
        self._up = asyncio.Event()  # there may be a conversation to use
        self._is_over = False  # there will never be another one
        self._listeners: list[Callable[[LinkStatus], None]] = []
        self._background: set[asyncio.Task[Any]] = set()
        self._expiry: asyncio.TimerHandle | None = None
        self._handles = SessionHandles(self._spawn)
        self._conversations = self._repeated = self._settled = 0
        self._timed_out = self._waiting = 0
        self.limits = DEFAULT_LIMITS
        self.extensions: frozenset[bytes] = frozenset()
        self.has_extended_attrs = False
        self.links: Links = new_links()

    def __repr__(self) -> str:
        return f"<Session {self.link_state.value} {self._current!r}>"

    # The link.

    async def start(self, link: Link | None) -> None:
        """Begin on a *link* that the caller made; None: ``run`` makes the first one too.

        Raises:
            ConnectError: no SFTP on it.
        """
        if link is not None:
            self._adopt(await converse(link, self._config, self._clock, self.turn))

    async def run(self) -> Exception | None:
        """Keep the link up until cancelled; without ``reconnect`` return why it was lost."""
        try:
            return await self._keeper.run(self._current, reconnect=self._config.link.reconnect)
        finally:
            self._end()

    async def end(self) -> None:
        """Say goodbye.  ``run`` should be cancelled before; what still waits gets ENOTCONN."""
        current = self._current
        self._end()
        for task in list(self._background):
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        if current is not None:
            await current.close()

    @property
    def status(self) -> LinkStatus:
        return self._keeper.status

    @property
    def link_state(self) -> LinkState:
        return self._keeper.status.state

    @property
    def since(self) -> float:
        """When ``link_state`` became what it is (on the clock)."""
        return self._keeper.status.since

    @property
    def is_up(self) -> bool:
        """False while requests would wait for the link."""
        return self._now() is not None and self.link_state is not LinkState.SUSPECT

    async def wait_up(self) -> None:
        """Returns when there is a conversation.

        Raises:
            OSError: ENOTCONN: there will never be one.
        """
        while self._now() is None:
            if self._is_over:
                raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
            self._up.clear()
            await self._up.wait()

    def on_change(self, listener: Callable[[LinkStatus], None]) -> None:
        """Call *listener* at each change of the link's state.  It must not block or raise."""
        self._listeners.append(listener)

    def nudge(self) -> None:
        """The network has changed: look at the link at once."""
        self._keeper.nudge()

    def retry(self) -> None:
        """Somebody repaired the keys: leave AUTH_FAILED or HOST_KEY_CHANGED."""
        self._keeper.retry()
        self._keeper.nudge()

    def oldest_sent_at(self) -> float | None:
        """Since when the oldest request waits for its answer (on the clock)."""
        return None if self._current is None else self._current.oldest_sent_at()

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

    async def _dial(self) -> Conversation:
        return await converse(await self._connect(), self._config, self._clock, self.turn)

    def _state_changed(self, status: LinkStatus) -> None:
        live = self._keeper.live
        if live is not None and live is not self._current:
            self._adopt(live)
        if not status.state.is_usable:
            self._current = None
        if status.state is LinkState.SUSPECT:
            self._expire()
        for listener in self._listeners:
            listener(status)

    def _adopt(self, conversation: Conversation) -> None:
        self._current = conversation
        self._began = self._clock()
        self._conversations += 1
        sftp = conversation.files
        self.limits = sftp.limits
        self.extensions = sftp.extensions
        self.has_extended_attrs = sftp.has_extended_attrs
        self.links = conversation.links
        self._up.set()
        self._handles.reopen_all(sftp)

    def _end(self) -> None:
        self._is_over = True
        self._current = None
        if self._expiry is not None:
            self._expiry.cancel()
        self._up.set()

    def _expire(self) -> None:
        """While the link is suspect no request waits longer than it would for a lost one."""
        self._expiry = None
        current = self._current
        if self.link_state is not LinkState.SUSPECT or current is None or self._patience is None:
            return
        current.expire(self._clock() - self._patience, "no answer within link_timeout")
        self._expiry = self._loop.call_later(0.5, self._expire)

    @property
    def _patience(self) -> float | None:
        """Seconds that a request waits for the link; None: for ever."""
        link = self._config.link
        return None if link.hard else link.link_timeout_s

    def _spawn(self, coroutine: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        task = self._loop.create_task(coroutine)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    # How a request gets through.

    def _now(self) -> SftpFiles | None:
        current = self._current
        return None if current is None or current.is_ended else current.files

    async def _files(self, since: float) -> SftpFiles:
        """The present conversation's files, waiting for one if need be.

        Raises:
            OSError: ETIMEDOUT when *since* is ``link_timeout`` ago; ENOTCONN.
        """
        files = self._now()
        if files is not None:
            return files
        patience = self._patience
        self._waiting += 1
        try:
            async with asyncio.timeout_at(None if patience is None else since + patience):
                await self.wait_up()
        except TimeoutError:
            raise self._time_out() from None
        finally:
            self._waiting -= 1
        files = self._now()
        return files if files is not None else await self._files(since)

    def _time_out(self) -> OSError:
        self._timed_out += 1
        return OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))

    async def _ask(self, attempt: Callable[[SftpFiles], Awaitable[_T]]) -> _T:
        """Something that can be asked again: rows SAFE and SAME_RESULT."""
        since = self._clock()
        while True:
            files = self._now()
            if files is None:
                files = await self._files(since)
            since = max(since, self._began)
            try:
                return await attempt(files)
            except Expired:
                raise self._time_out() from None
            except Disconnected:
                self._repeated += 1

    async def _change(
        self, request: req.Request, attempt: Callable[[SftpFiles], Awaitable[None]]
    ) -> None:
        """A change of names, exactly once."""
        since = self._clock()
        may_have_run = False
        while True:
            files = self._now()
            if files is None:
                files = await self._files(since)
            since = max(since, self._began)
            try:
                if may_have_run and replay_of(request) is Replay.SETTLE:
                    if await has_run(files, request):
                        self._settled += 1
                        return
                    may_have_run = False
                await attempt(files)
                return
            except Expired:
                raise self._time_out() from None
            except Disconnected as exc:
                self._repeated += 1
                may_have_run |= exc.sent

    # Names and attributes.

    async def lstat(self, path: bytes) -> Attrs:
        attrs = await self._ask(lambda files: files.lstat(path))
        if self._handles.opened:
            self._handles.seen(path, attrs, self._now())
        return attrs

    async def stat(self, path: bytes) -> Attrs:
        return await self._ask(lambda files: files.stat(path))

    async def readlink(self, path: bytes) -> bytes:
        return await self._ask(lambda files: files.readlink(path))

    async def realpath(self, path: bytes) -> bytes:
        return await self._ask(lambda files: files.realpath(path))

    async def scandir(self, path: bytes) -> AsyncGenerator[list[DirEntry], None]:
        """The whole directory; after a lost link it goes on with the names not yet given."""
        since = self._clock()
        given: set[bytes] = set()
        while True:
            files = await self._files(since)
            try:
                async with contextlib.aclosing(files.scandir(path)) as batches:
                    async for batch in batches:
                        fresh = [entry for entry in batch if entry.name not in given]
                        given.update([entry.name for entry in fresh])
                        if fresh:
                            yield fresh
                        since = self._clock()
                return
            except Expired:
                raise self._time_out() from None
            except Disconnected:
                self._repeated += 1

    async def mkdir(self, path: bytes, mode: int) -> None:
        request = req.Mkdir(path, Attrs(mode=mode))
        await self._change(request, lambda files: files.mkdir(path, mode))

    async def rmdir(self, path: bytes) -> None:
        await self._change(req.Rmdir(path), lambda files: files.rmdir(path))

    async def remove(self, path: bytes) -> None:
        await self._change(req.Remove(path), lambda files: files.remove(path))
        self._handles.opened.removed(path)

    def also_named(self, path: bytes, other: bytes) -> None:
        """See ``api.Remote``."""
        self._handles.opened.also(path, other)

    async def rename(self, old: bytes, new: bytes, *, replace: bool = True) -> None:
        request: req.Rename | ext.PosixRename
        if not replace:
            request = req.Rename(old, new)
            with self._handles.moving(old, new, lambda: self._has_run(request)):
                await self._change(request, lambda files: files.rename_new(old, new))
            return
        files = self._now() or await self._files(self._clock())
        if files.can_replace:
            request = ext.PosixRename(old, new)
            with self._handles.moving(old, new, lambda: self._has_run(request)):
                await self._change(request, lambda files: files.rename_over(old, new))
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
                return await self._ask(lambda files: has_run(files, request))

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
        request = req.Symlink(target, path)
        await self._change(request, lambda files: files.symlink(target, path))

    async def link(self, existing: bytes, path: bytes) -> None:
        request = ext.Hardlink(existing, path)
        await self._change(request, lambda files: files.link(existing, path))

    async def setstat(self, path: bytes, attrs: Attrs, *, follow: bool = True) -> None:
        opened = list(self._handles.opened.at(path)) if touches_version(attrs) else []
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
        return await self._ask(lambda files: files.statvfs(path))

    async def users(
        self, uids: Sequence[int], gids: Sequence[int]
    ) -> tuple[list[bytes], list[bytes]]:
        return await self._ask(lambda files: files.users(uids, gids))

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
        request = req.Open(path, pflags, Attrs(mode=mode))
        since = self._clock()
        may_have_run = False
        while True:
            files = self._now()
            if files is None:
                files = await self._files(since)
            since = max(since, self._began)
            try:
                if may_have_run and replay_of(request) is Replay.SETTLE:
                    if await has_run(files, request):
                        self._settled += 1
                        pflags &= ~(EXCL | CREAT | TRUNC)  # it is made: only open it
                        request = req.Open(path, pflags, Attrs(mode=mode))
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
            except Expired:
                raise self._time_out() from None
            except Disconnected as exc:
                self._repeated += 1
                may_have_run |= exc.sent

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
        attrs = await self._in_order(mine, lambda files: files.fstat(mine.sftp))
        mine.file.learn(attrs)
        return attrs

    async def fsetstat(self, handle: RemoteHandle, attrs: Attrs) -> None:
        mine = _mine(handle)
        if not touches_version(attrs):
            await self._in_order(mine, lambda files: files.fsetstat(mine.sftp, attrs))
            return
        done = False
        mine.file.change_begun(attrs)
        try:
            await self._in_order(mine, lambda files: files.fsetstat(mine.sftp, attrs))
            done = True
        finally:
            mine.file.change_ended(attrs, done=done)

    async def read(
        self, handle: RemoteHandle, offset: int, size: int, *, end: int | None = None
    ) -> Buffer:
        mine = _mine(handle)
        data = await self._through(mine, lambda files: files.read(mine.sftp, offset, size, end=end))
        if offset + len(data) > mine.file.size_high:
            self._handles.refresh(mine, self._now())  # somebody else appends
        return data

    async def write(self, handle: RemoteHandle, offset: int, data: Sequence[Buffer]) -> None:
        mine = _mine(handle)
        size = sum([len(part) for part in data])
        stop = offset + size
        spread = mine.spread
        begun = spread.begin_write()
        done = False
        mine.file.write_begun(stop)
        try:
            if spread.is_wide:
                await spread.turn_of_write()
            await self._through(
                mine, lambda files: spread.write(files, mine.sftp, offset, data, size)
            )
            done = True
        finally:
            mine.file.write_ended(stop, done=done)
            spread.end(begun)
        wanted = spread.wants(size, self.links)
        if wanted and not mine.is_closed:
            spread.is_widening = True
            _ = self._spawn(self._widen(mine, wanted))

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
        mine = _mine(handle)
        await self._in_order(mine, lambda files: files.fsync(mine.sftp))

    async def copy_data(
        self, source: RemoteHandle, offset: int, length: int, dest: RemoteHandle, dest_offset: int
    ) -> None:
        """See ``api.Remote``; with *length* 0 the destination's size isn't known afterwards."""
        mine, other = _mine(dest), _mine(source)
        stop = dest_offset + (length or max(0, other.file.size_high - offset))
        done = False

        async def attempt(channel: SftpFiles) -> None:
            sftp, is_lent = await self._handles.lend(other, channel, self._now())
            try:
                await channel.copy_data(sftp, offset, length, mine.sftp, dest_offset)
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
        spread = mine.spread
        begun, earlier = spread.begin_other()
        if earlier is not None:
            await asyncio.shield(self._spawn(self._close_in_turn(mine, begun, earlier)))
            return
        try:
            await self._close(mine)
        finally:
            spread.end(begun)

    async def _close_in_turn(self, mine: SessionHandle, begun: Begun, earlier: list[Begun]) -> None:
        """CLOSE of a file whose WRITEs are under way on several channels."""
        try:
            await mine.spread.turn_of_other(earlier)
            await self._close(mine)
        finally:
            mine.spread.end(begun)

    async def _close(self, mine: SessionHandle) -> None:
        files = self._now()
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

    async def _in_order(
        self, handle: SessionHandle, attempt: Callable[[SftpFiles], Awaitable[_T]]
    ) -> _T:
        """``_through`` for what is no WRITE and must not overtake one."""
        spread = handle.spread
        begun, earlier = spread.begin_other()
        try:
            if earlier is not None:
                await spread.turn_of_other(earlier)
            return await self._through(handle, attempt)
        finally:
            spread.end(begun)

    async def _through(
        self, handle: SessionHandle, attempt: Callable[[SftpFiles], Awaitable[_T]]
    ) -> _T:
        """Something on an open file, which is opened again first if need be."""

        def on_open(files: SftpFiles) -> Awaitable[_T]:
            if handle.is_open_in(files):
                return attempt(handle.files)
            return self._when_ready(handle, files, attempt)

        handle.busy += 1
        try:
            return await self._ask(on_open)
        finally:
            handle.busy -= 1
            if not handle.busy and handle.idle is not None:
                handle.idle.set()

    async def _when_ready(
        self,
        handle: SessionHandle,
        files: SftpFiles,
        attempt: Callable[[SftpFiles], Awaitable[_T]],
    ) -> _T:
        await self._handles.ready(handle, files)
        return await attempt(handle.files)


def _mine(handle: RemoteHandle) -> SessionHandle:
    assert isinstance(handle, SessionHandle)
    return handle
