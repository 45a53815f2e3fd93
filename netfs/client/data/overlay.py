"""What own changes make of a file's attributes, until the server has been asked after the last one.

Pure: times are arguments.  The size itself is ``content``'s, because reading needs it too.
"""

from __future__ import annotations

import stat
from typing import Final

from netfs.client.nodes import NEVER
from netfs.sftp.attrs import Attrs

_NOTHING: Final = Attrs()


class Overlay:
    """The own changes of one file, from the first one until the server's word after the last.

    Meanwhile what is shown is local, and what the server says is ignored.
    """

    __slots__ = ("_attrs", "_drained_at", "_drained_wall", "_has_failed", "_wrote_ns")

    def __init__(self) -> None:
        self._wrote_ns: int | None = None  # mtime of own writes
        self._attrs = _NOTHING  # what was set meanwhile
        self._drained_at = NEVER  # when the server had the last of them
        self._drained_wall = 0.0  # the same on its clock, seconds since the epoch
        self._has_failed = False  # a change did not happen

    def wrote(self, wall: float) -> None:
        """Bytes or the size were changed, at *wall* on the server's clock (s since the epoch)."""
        self._wrote_ns = int(wall * 1e9)
        if self._attrs.mtime is not None:
            self._attrs = self._attrs._replace(mtime=None, mtime_ns=None)

    def set_attrs(self, attrs: Attrs) -> None:
        """These were set; what is None stays."""
        changed = {name: value for name, value in attrs._asdict().items() if value is not None}
        self._attrs = self._attrs._replace(**changed)

    def failed(self) -> None:
        """A change of the bytes did not happen."""
        self._has_failed = True

    def attrs_failed(self) -> None:
        """A change of the attributes did not happen."""
        self._attrs = _NOTHING

    def drained(self, now: float, wall: float) -> None:
        """The server has all changes; *now* is monotonic, *wall* the server's time of day."""
        self._drained_at = NEVER if self._has_failed else now
        self._drained_wall = wall

    def is_recent(self, now: float, window_s: float) -> bool:
        """Whether the server took the last change no longer than *window_s* ago."""
        return now - self._drained_at <= window_s

    def shown(self, attrs: Attrs, size: int) -> Attrs:
        """*attrs* as the server told them, with the own changes that it did not know then."""
        told, uid, gid, mode, atime, mtime, nlink, ino, blocks, atime_ns, mtime_ns, ctime_ns = attrs
        if told != size:
            blocks = None
        wrote = self._wrote_ns
        if wrote is not None:
            mtime = wrote // 10**9
            mtime_ns = ctime_ns = wrote if mtime_ns is not None else None  # as exact as it was
        attrs = Attrs(
            size, uid, gid, mode, atime, mtime, nlink, ino, blocks, atime_ns, mtime_ns, ctime_ns
        )
        if self._attrs is _NOTHING:
            return attrs
        changed = {
            name: value
            for name, value in self._attrs._asdict().items()
            if value is not None and name not in ("size", "mode")
        }
        mode = self._attrs.mode
        if mode is not None:
            # A change of mode says nothing of the type, without which the file is not recognised.
            changed["mode"] = stat.S_IFMT(attrs.mode or 0) | stat.S_IMODE(mode)
        return attrs._replace(**changed)

    def end(self, attrs: Attrs) -> float:
        """The server's word after the last change, with which this has ended.

        Returns: by how much its clock is off the one that ``wrote`` was told, in seconds.
        """
        off = 0.0
        if (
            self._wrote_ns is not None
            and attrs.mtime is not None
            and self._attrs.mtime is None
            and not self._has_failed
        ):
            # The server wrote between the two moments; where its clock was not, it is off.
            earliest, latest = self._wrote_ns / 1e9 - 1, self._drained_wall + 1
            off = min(0.0, attrs.mtime - earliest) + max(0.0, attrs.mtime - latest)
        return off
