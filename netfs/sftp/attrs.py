"""ATTRS, the attributes of a file in SFTP v3, and what ``attrs@netfs`` adds.

Source: draft-ietf-secsh-filexfer-02 §5.  Identity and TTL do not belong here.
"""

from __future__ import annotations

from typing import NamedTuple


class Attrs(NamedTuple):
    """Attributes; None means that the packet does not carry the field.

    The last six are only there with netfs's own server (docs/protocol.md), except ``nlink``,
    which a listing's longname may tell.
    """

    size: int | None = None  # bytes
    uid: int | None = None
    gid: int | None = None
    mode: int | None = None  # st_mode; "permissions" in the draft
    atime: int | None = None  # seconds since the epoch, u32
    mtime: int | None = None
    nlink: int | None = None
    ino: int | None = None
    blocks: int | None = None  # of 512 bytes
    atime_ns: int | None = None  # nanoseconds since the epoch
    mtime_ns: int | None = None
    ctime_ns: int | None = None


class StatVfs(NamedTuple):
    """Reply of statvfs@openssh.com.  Source: OpenSSH PROTOCOL §4.4 (there u64 each)."""

    bsize: int
    frsize: int
    blocks: int  # of frsize bytes
    bfree: int
    bavail: int
    files: int
    ffree: int
    favail: int
    fsid: int
    flag: int  # 1 read-only, 2 nosuid
    namemax: int


class Limits(NamedTuple):
    """Reply of limits@openssh.com; 0 means "not told".  Source: OpenSSH PROTOCOL §4.8."""

    max_packet: int = 0  # bytes
    max_read: int = 0  # bytes
    max_write: int = 0  # bytes
    max_handles: int = 0
