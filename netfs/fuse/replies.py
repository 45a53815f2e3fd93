"""Replies to the kernel: what a handler hands back, and the encoding of each body.

What is cached for how long and which errno fits is not decided here.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final, NamedTuple

from netfs.fuse import abi
from netfs.wire import Buffer


class Reply(NamedTuple):
    """A successful answer: what follows the out header, in one writev."""

    body: tuple[Buffer, ...] = ()
    undo: Callable[[], None] | None = None
    """Run when the kernel no longer knows the request (its caller is gone): takes back an nlookup,
    closes an fh."""


EMPTY = Reply()

ERRNO_MAX: Final = 511
"""The kernel refuses larger ones, and their caller waits for ever.  Source: fuse_dev_do_write."""


class Attr(NamedTuple):
    """struct fuse_attr.  Times are seconds since the epoch and may be negative."""

    ino: int
    size: int  # bytes
    blocks: int  # of 512 bytes
    atime: int
    mtime: int
    ctime: int
    atimensec: int
    mtimensec: int
    ctimensec: int
    mode: int  # with the file type: without one the caller gets EIO
    nlink: int
    uid: int
    gid: int
    rdev: int
    blksize: int
    flags: int = 0


AttrFields = tuple[int, int, int, int, int, int, int, int, int, int, int, int, int, int, int, int]
"""An ``Attr``, or a tuple like it: where one is made per file, a plain one costs a quarter."""


def header(unique: int, error: int, size: int) -> bytes:
    """The out header of a reply whose body has *size* bytes; *error* is 0 or -errno."""
    return abi.OUT_HEADER.pack(abi.OUT_HEADER.size + size, error, unique)


Validity = tuple[int, int, int, int]
"""How long a name and its attributes may be kept: seconds of each, then nanoseconds of each."""

NOT_VALID: Final[Validity] = (0, 0, 0, 0)


def validity(entry_valid_s: float, attr_valid_s: float) -> Validity:
    """Two time-outs, which must not be negative."""
    entry_s = int(entry_valid_s)
    attr_s = int(attr_valid_s)
    return (
        entry_s,
        attr_s,
        int((entry_valid_s - entry_s) * 1e9),
        int((attr_valid_s - attr_s) * 1e9),
    )


def entry(nodeid: int, generation: int, valid: Validity, attr: AttrFields) -> bytes:
    """struct fuse_entry_out: counts one nlookup of *nodeid*."""
    return abi.ENTRY_OUT.pack(nodeid, generation, *valid, *attr)


def negative_entry(entry_valid_s: float) -> bytes:
    """The answer to LOOKUP "there is no such name", to be remembered for *entry_valid_s*."""
    seconds = int(entry_valid_s)
    return abi.ENTRY_OUT.pack(0, 0, seconds, 0, int((entry_valid_s - seconds) * 1e9), 0, *_NO_ATTR)


def attr(attr_valid_s: float, value: AttrFields) -> bytes:
    """struct fuse_attr_out."""
    seconds = int(attr_valid_s)
    return abi.ATTR_OUT.pack(seconds, int((attr_valid_s - seconds) * 1e9), 0, *value)


def open_(fh: int, open_flags: int = 0) -> bytes:
    """struct fuse_open_out; *open_flags* are abi.FOPEN_*."""
    return abi.OPEN_OUT.pack(fh, open_flags, 0)


def create(entry_bytes: bytes, fh: int, open_flags: int = 0) -> bytes:
    """The answer to CREATE: an entry and an open file."""
    return entry_bytes + abi.OPEN_OUT.pack(fh, open_flags, 0)


def write(size: int) -> bytes:
    """struct fuse_write_out, for WRITE and COPY_FILE_RANGE: bytes taken."""
    return abi.WRITE_OUT.pack(size, 0)


def statfs(
    blocks: int,
    bfree: int,
    bavail: int,
    files: int,
    ffree: int,
    bsize: int,
    namelen: int,
    frsize: int,
) -> bytes:
    """struct fuse_statfs_out; blocks are of *frsize* bytes."""
    return abi.STATFS_OUT.pack(
        blocks, bfree, bavail, files, ffree, bsize, namelen, frsize, 0, 0, 0, 0, 0, 0, 0
    )


def lseek(offset: int) -> bytes:
    """struct fuse_lseek_out."""
    return abi.LSEEK_OUT.pack(offset)


def statx(attr_valid_s: float, value: Attr, btime_ns: int | None = None) -> bytes:
    """struct fuse_statx_out with what *value* holds; the birth time only if it is known."""
    seconds = int(attr_valid_s)
    mask = _STATX_BASIC | (_STATX_BTIME if btime_ns is not None else 0)
    btime_s, btime_nsec = divmod(btime_ns or 0, 10**9)
    return abi.STATX_OUT.pack(
        seconds,
        int((attr_valid_s - seconds) * 1e9),
        0,
        0,
        0,
        mask,
        value.blksize,
        0,
        value.nlink,
        value.uid,
        value.gid,
        value.mode,
        0,
        value.ino,
        value.size,
        value.blocks,
        0,
        value.atime,
        value.atimensec,
        0,
        btime_s,
        btime_nsec,
        0,
        value.ctime,
        value.ctimensec,
        0,
        value.mtime,
        value.mtimensec,
        0,
        os.major(value.rdev),
        os.minor(value.rdev),
        0,
        0,
        *_NO_SPARE,
    )


_NO_ATTR: Final = (0,) * 16
_NO_SPARE: Final = (0,) * 14
_STATX_BASIC: Final = 0x7FF  # STATX_BASIC_STATS
_STATX_BTIME: Final = 0x800
