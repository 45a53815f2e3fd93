"""Which content a file has: what tells two versions of it apart, and when that can be trusted.

Policy, pure.  SFTP v3 gives times in whole seconds, so a file that was changed twice within one
looks unchanged; a version seen that young proves nothing about what was read before.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from netfs.sftp.attrs import Attrs

YOUNG_S: Final = 2.0
"""mtime this near to now (s): the resolution, and as much again for clocks that differ."""

_YOUNG_NS_S: Final = 0.1
"""The same where the server tells nanoseconds: its kernel's clock ticks, some milliseconds."""


class Version(NamedTuple):
    """What the server told; equal versions have equal content if the version is trusted."""

    size: int | None  # bytes
    mtime: int | None  # seconds since the epoch
    ino: int | None = None  # the rest: only where the server tells it
    mtime_ns: int | None = None
    ctime_ns: int | None = None


def version_of(attrs: Attrs) -> Version:
    return Version(attrs.size, attrs.mtime, attrs.ino, attrs.mtime_ns, attrs.ctime_ns)


def is_trusted(version: Version, now: float) -> bool:
    """Whether a change after *now* (seconds since the epoch, when it was seen) would show."""
    if version.ctime_ns is not None:
        return now - version.ctime_ns / 1e9 > _YOUNG_NS_S
    if version.mtime is None:
        return False
    # A time in the future is as good as an old one only if a change would set another.
    return now - version.mtime > YOUNG_S
