"""Further channels of one conversation, for big files that are written.

Opened when a file asks for them, shared by all that do, closed when nobody has used them for a
while.  A server that gives no more (OpenSSH: MaxSessions) is not asked again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from netfs.client.remote.api import WRITE
from netfs.client.remote.files import SftpFiles
from netfs.client.remote.handles import SessionHandle
from netfs.client.remote.spread import Strand
from netfs.sftp.attrs import Attrs

_log = logging.getLogger(__name__)

MOST: Final = 6
"""With the two that every conversation has, OpenSSH's MaxSessions (10) leaves two."""

IDLE_S: Final = 30.0
"""Without use a lane is closed after this; a server process stands behind each."""


class Lanes:
    """See the module.

    *open_lane* gives one more channel, or None where there is none to have; *close_lane* closes
    one of them.
    """

    def __init__(
        self,
        open_lane: Callable[[], Awaitable[SftpFiles | None]],
        close_lane: Callable[[SftpFiles], None],
        most: int,
    ) -> None:
        self._open_lane = open_lane
        self._close_lane = close_lane
        self._most = min(MOST, most)
        self._lanes: list[SftpFiles] = []
        self._users = 0
        self._opening = asyncio.Lock()
        self._idle: asyncio.TimerHandle | None = None
        self._is_stopped = False

    async def get(self, count: int) -> list[SftpFiles]:
        """Up to *count* lanes; the caller is a user of all of them until ``release``."""
        self._users += 1
        self._stop_timer()
        async with self._opening:
            missing = min(count, self._most) - len(self._lanes)
            if missing > 0:
                opened = await asyncio.gather(*[self._open_lane() for _ in range(missing)])
                self._lanes += [lane for lane in opened if lane is not None]
                if None in opened:
                    self._most = len(self._lanes)
            return self._lanes[:count]

    def release(self) -> None:
        """A user of the lanes needs them no more."""
        self._users -= 1
        if not self._users and not self._is_stopped:
            self._idle = asyncio.get_running_loop().call_later(IDLE_S, self._retire)

    def stop(self) -> None:
        """The conversation ends."""
        self._is_stopped = True
        self._stop_timer()

    def _stop_timer(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _retire(self) -> None:
        self._idle = None
        lanes, self._lanes = self._lanes, []
        for lane in lanes:
            self._close_lane(lane)


async def widen(handle: SessionHandle, lanes: Lanes, count: int) -> None:
    """Give *handle* up to *count* strands, if its path leads to the very same file there.

    Raises:
        Disconnected
    """
    spread = handle.spread
    opened: list[Strand] = []
    is_used = False
    files = await lanes.get(count)
    try:
        path = handle.path
        if not handle.file.is_removed and not handle.is_closed:
            fresh = files[len(spread.strands) :]
            strands = await asyncio.gather(*[_open(lane, path) for lane in fresh])
            opened += [strand for strand in strands if strand is not None]
            is_used = bool(opened) and await _is_same(handle, path, opened)
        if is_used:
            spread.strands = [*spread.strands, *opened]
            if spread.release is None:
                spread.release = lanes.release
            else:
                lanes.release()
            _log.debug("%r is written over %d channels", path, 1 + len(spread.strands))
    finally:
        if not is_used:
            spread.is_final = True
            for strand in opened:
                strand.files.requester.dismiss(strand.sftp.handle)
            lanes.release()


async def _open(lane: SftpFiles, path: bytes) -> Strand | None:
    """None: the server won't have it (the mode forbids it by now, no more handles)."""
    try:
        return Strand(lane, await lane.open(path, WRITE))
    except OSError as exc:
        _log.debug("%r is not opened again for writing: %s", path, exc)
        return None


async def _is_same(handle: SessionHandle, path: bytes, opened: list[Strand]) -> bool:
    """Whether the strands are open on *handle*'s file.

    Asked while nothing of the file is under way: its size and times are exact then, and another
    file has not all of them in common with one that is just being written.
    """
    spread = handle.spread
    files = handle.files
    spread.is_wide = True
    begun, earlier = spread.begin_other()
    try:
        if earlier is not None:
            await spread.turn_of_other(earlier)
        if handle.is_closed or handle.files is not files:
            return False
        own, *others = await asyncio.gather(
            files.fstat(handle.sftp),
            *[strand.files.fstat(strand.sftp) for strand in opened],
        )
    except OSError as exc:
        _log.debug("fstat of %r: %s", path, exc)
        return False
    finally:
        spread.end(begun)
    return (
        all(_identity(attrs) == _identity(own) for attrs in others)
        and handle.files is files
        and handle.path == path
        and not handle.file.is_removed
    )


def _identity(attrs: Attrs) -> tuple[int | None, ...]:
    return attrs.ino, attrs.size, attrs.mtime, attrs.mode, attrs.uid, attrs.gid
