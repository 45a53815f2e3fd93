"""Policy: which local errno a refused request becomes.

A pure table (request, status) → errno or *look*: v3 has one FAILURE for most errors, and OpenSSH
folds others together (sftp-server.c: errno_to_portable): ENOENT, ENOTDIR, EBADF, ELOOP are
NO_SUCH_FILE; EPERM, EACCES, EFAULT are PERMISSION_DENIED; ENAMETOOLONG, EINVAL are BAD_MESSAGE;
the rest is FAILURE.  Where the table says look, ``narrow.py`` asks the server what is there and
the functions here decide.  No I/O belongs here.
"""

from __future__ import annotations

import enum
import errno
import functools
import os
import re
import stat
from collections.abc import Mapping
from typing import Any, Final

from netfs.sftp import extensions as ext
from netfs.sftp import requests as req
from netfs.sftp.attrs import Attrs, StatVfs
from netfs.sftp.codes import OpenFlag, Status


class Look(enum.Enum):
    """What must be looked at before the errno is known."""

    TARGET = enum.auto()  # the name that is made or removed, and its directory
    PAIR = enum.auto()  # both names of a rename or link
    SPACE = enum.auto()  # the filesystem behind a handle
    OPENED = enum.auto()  # what the path leads to
    DIRECTORY = enum.auto()  # whether the path is a directory
    CHANGE = enum.auto()  # what a change of attributes was about
    SOURCE = enum.auto()  # the handle: a directory can be opened but not read


Rule = int | Look

_PATH: Final[Mapping[Status, Rule]] = {
    # Only looks.  A missing name is the usual answer and must not cost a second question.
    Status.OK: errno.EIO,
    Status.EOF: errno.EIO,
    Status.NO_SUCH_FILE: errno.ENOENT,
    Status.PERMISSION_DENIED: errno.EACCES,
    Status.FAILURE: errno.EIO,
    Status.BAD_MESSAGE: errno.EINVAL,
    Status.NO_CONNECTION: errno.EIO,
    Status.CONNECTION_LOST: errno.EIO,
    Status.OP_UNSUPPORTED: errno.EOPNOTSUPP,
}
_HANDLE: Final = {**_PATH, Status.NO_SUCH_FILE: errno.EBADF}
_NAME: Final = {
    **_PATH,
    Status.NO_SUCH_FILE: Look.TARGET,
    Status.PERMISSION_DENIED: Look.TARGET,
    Status.FAILURE: Look.TARGET,
}
_PAIR: Final = {
    **_PATH,
    Status.NO_SUCH_FILE: Look.PAIR,
    Status.PERMISSION_DENIED: Look.PAIR,
    Status.FAILURE: Look.PAIR,
    Status.BAD_MESSAGE: Look.PAIR,
}
_SPACE: Final = {**_HANDLE, Status.FAILURE: Look.SPACE}
_WRITE: Final = {
    **_SPACE,
    Status.BAD_MESSAGE: Look.SPACE,  # OpenSSH's lseek(2): further than the filesystem's files go
}
_CHANGE: Final = {
    **_PATH,
    Status.PERMISSION_DENIED: Look.CHANGE,
    Status.FAILURE: Look.CHANGE,
}

TABLE: Final[Mapping[type, Mapping[Status, Rule]]] = {
    req.Open: {
        **_PATH,
        Status.NO_SUCH_FILE: Look.OPENED,
        Status.PERMISSION_DENIED: Look.OPENED,
        Status.FAILURE: Look.OPENED,
    },
    req.Close: _SPACE,  # a network filesystem behind the server may report its space here
    req.Read: {**_HANDLE, Status.FAILURE: Look.SOURCE},
    req.Write: _WRITE,
    req.Lstat: _PATH,
    req.Fstat: _HANDLE,
    req.Setstat: _CHANGE,
    req.Fsetstat: {
        **_HANDLE,
        Status.PERMISSION_DENIED: errno.EPERM,
        Status.FAILURE: Look.SPACE,
    },
    req.Opendir: {
        **_PATH,
        Status.NO_SUCH_FILE: Look.DIRECTORY,
        Status.FAILURE: Look.DIRECTORY,
    },
    req.Readdir: _HANDLE,
    req.Remove: _NAME,
    req.Mkdir: _NAME,
    req.Rmdir: _NAME,
    req.Realpath: _PATH,
    req.Stat: _PATH,
    req.Rename: _PAIR,
    req.Readlink: {**_PATH, Status.FAILURE: errno.EINVAL},
    req.Symlink: _NAME,
    ext.PosixRename: _PAIR,
    ext.Hardlink: _PAIR,
    ext.StatvfsRequest: _PATH,
    ext.FstatvfsRequest: _HANDLE,
    ext.Fsync: _SPACE,
    ext.Lsetstat: _CHANGE,
    ext.LimitsRequest: _PATH,
    ext.ExpandPath: _PATH,
    ext.CopyData: _SPACE,
    ext.HomeDirectory: _PATH,
    ext.UsersGroupsById: _PATH,
    ext.AttrsNetfs: _PATH,
    ext.Extended: _PATH,
}

_LATER: Final[Mapping[int, int]] = {
    # Codes of later drafts that some servers send in v3 too.
    # Source: draft-ietf-secsh-filexfer-13 §9.1.
    9: errno.EBADF,  # INVALID_HANDLE
    10: errno.ENOENT,  # NO_SUCH_PATH
    11: errno.EEXIST,  # FILE_ALREADY_EXISTS
    12: errno.EROFS,  # WRITE_PROTECT
    14: errno.ENOSPC,  # NO_SPACE_ON_FILESYSTEM
    15: errno.EDQUOT,  # QUOTA_EXCEEDED
    18: errno.ENOTEMPTY,  # DIR_NOT_EMPTY
    19: errno.ENOTDIR,  # NOT_A_DIRECTORY
    20: errno.EINVAL,  # INVALID_FILENAME
    21: errno.ELOOP,  # LINK_LOOP
    22: errno.EPERM,  # CANNOT_DELETE
    23: errno.EINVAL,  # INVALID_PARAMETER
    24: errno.EISDIR,  # FILE_IS_A_DIRECTORY
}

_TOLD: Final[Mapping[bytes, int]] = {
    os.strerror(number).lower().encode(): number
    for number in (
        errno.EPERM,
        errno.EACCES,
        errno.EBUSY,
        errno.EEXIST,
        errno.EXDEV,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.EINVAL,
        errno.EMFILE,
        errno.ENFILE,
        errno.ETXTBSY,
        errno.EFBIG,
        errno.ENOSPC,
        errno.EROFS,
        errno.EMLINK,
        errno.ENAMETOOLONG,
        errno.ENOTEMPTY,
        errno.ELOOP,
        errno.EDQUOT,
        errno.ESTALE,
        errno.ENXIO,
    )
}
"""What a server may say in the message of a status.  netfs's own and several others put
strerror(3) there; OpenSSH has one fixed text per code ("Permission denied" is both, and EACCES
is then the right guess only if the table says so: it is left out below)."""

_NAMED: Final = re.compile(rb"\((E[A-Z0-9]{2,15})\)$")
"""The true errno at the end of netfs's own server's messages.  Source: docs/protocol.md."""
_BY_NAME: Final = {name: number for number, name in errno.errorcode.items()}

NAME_MAX: Final = 255  # bytes.  Source: linux/limits.h
PATH_MAX: Final = 4096  # bytes with the final NUL.  Source: linux/limits.h


_LONGEST_MESSAGE: Final = 200
"""Bytes of a status message that are looked at; an errno's name is at the end."""


def rule(request: object, code: int, message: bytes) -> Rule:
    """The errno, or what to look at."""
    kind: Any = type(request)
    return _rule_of(kind, code, message[-_LONGEST_MESSAGE:])


@functools.lru_cache(maxsize=256)  # a missing name is a usual answer
def _rule_of(kind: Any, code: int, message: bytes) -> Rule:
    named = _NAMED.search(message)
    if named is not None and named[1].decode() in _BY_NAME:
        return _BY_NAME[named[1].decode()]
    told = _TOLD.get(message.strip().lower().rstrip(b"."))
    if told is not None and not (told == errno.EACCES and code == Status.PERMISSION_DENIED):
        return told
    try:
        status = Status(code)
    except ValueError:
        return _LATER.get(code, errno.EIO)
    return TABLE[kind][status]


def is_too_long(path: bytes) -> bool:
    """Whether the server's kernel refuses the path for its length."""
    return len(path) >= PATH_MAX or any(len(part) > NAME_MAX for part in path.split(b"/"))


def is_full(space: StatVfs | None, size: int = 1) -> bool:
    """Whether *size* more bytes don't fit (for who is not root there)."""
    return space is not None and space.bavail * (space.frsize or space.bsize) < size


def is_read_only(space: StatVfs | None) -> bool:
    return space is not None and bool(space.flag & 1)


_LARGEST_FILE: Final = (1 << 44) - 4096
"""ext4's limit with blocks of 4 KiB, the smallest of the usual filesystems."""
_SMALL_FILE: Final = (1 << 31) - 1
"""What every filesystem takes."""


def of_space(space: StatVfs | None, end: int, size: int, code: int = Status.FAILURE) -> int:
    """A WRITE, truncate or fsync failed without a reason: *size* bytes that end at *end*."""
    if end > _LARGEST_FILE:
        return errno.EFBIG
    if code == Status.BAD_MESSAGE:
        return errno.EFBIG if end > _SMALL_FILE else errno.EINVAL
    if is_read_only(space):
        return errno.EROFS
    if is_full(space, max(size, 1)):
        return errno.ENOSPC
    # There is room, but not for us.  A broken disk would have become read-only.
    return errno.EDQUOT if space is not None and size else errno.EIO


def of_target(
    request: object,
    target: Attrs | None,
    parent: Attrs | None,
    code: int,
    space: StatVfs | None,
    is_empty: bool | None,
) -> int:
    """MKDIR, RMDIR, REMOVE or SYMLINK of *target* in *parent* was refused.

    Args:
        target: what has the name now; None: nothing.
        parent: the directory; None: missing or not to be seen.
        is_empty: whether *target* is an empty directory; None: not known.
    """
    makes = isinstance(request, req.Mkdir | req.Symlink)
    if parent is not None and not is_kind(parent, stat.S_IFDIR):
        return errno.ENOTDIR
    if code == Status.NO_SUCH_FILE:
        if isinstance(request, req.Rmdir) and target is not None:
            return errno.ENOTDIR
        return errno.ENOENT
    if makes and target is not None:
        return errno.EEXIST
    if is_read_only(space):
        return errno.EROFS
    if isinstance(request, req.Rmdir) and target is not None:
        if not is_kind(target, stat.S_IFDIR):
            return errno.ENOTDIR
        if is_empty is False:
            return errno.ENOTEMPTY
    if isinstance(request, req.Remove) and is_kind(target, stat.S_IFDIR):
        return errno.EISDIR
    if code == Status.PERMISSION_DENIED:
        sticky = parent is not None and (parent.mode or 0) & stat.S_ISVTX
        return errno.EPERM if sticky and not makes else errno.EACCES
    if makes and space is not None and (is_full(space) or space.favail == 0):
        return errno.ENOSPC
    return errno.EIO if makes else errno.EBUSY


def of_pair(
    request: object,
    old: Attrs | None,
    new: Attrs | None,
    code: int,
    *,
    spaces: tuple[StatVfs | None, StatVfs | None],
    is_new_empty: bool | None,
    is_below: bool,
) -> int:
    """A rename or link from *old* to *new* was refused.  None: nothing has that name.

    Args:
        is_below: *new* lies below *old*.
        spaces: the filesystems of the two names' directories.
    """
    if old is None:
        return errno.ENOENT if code != Status.PERMISSION_DENIED else errno.EACCES
    is_link = isinstance(request, ext.Hardlink)
    old_is_dir = is_kind(old, stat.S_IFDIR)
    if is_link and old_is_dir:
        return errno.EPERM
    if old_is_dir and is_below:
        return errno.EINVAL
    if new is not None:
        if is_link or isinstance(request, req.Rename):
            return errno.EEXIST
        new_is_dir = is_kind(new, stat.S_IFDIR)
        if old_is_dir and not new_is_dir:
            return errno.ENOTDIR
        if new_is_dir and not old_is_dir:
            return errno.EISDIR
        if new_is_dir and is_new_empty is False:
            return errno.ENOTEMPTY
    if code == Status.NO_SUCH_FILE:
        return errno.ENOENT
    if code == Status.BAD_MESSAGE:
        return errno.EINVAL
    here, there = spaces
    if is_read_only(here) or is_read_only(there):
        return errno.EROFS
    if here is not None and there is not None and here.fsid != there.fsid:
        return errno.EXDEV
    if code == Status.PERMISSION_DENIED:
        return errno.EACCES
    if there is not None and (is_full(there) or there.favail == 0):
        return errno.ENOSPC
    return errno.EBUSY if not is_link else errno.EIO


def of_open(
    pflags: int, named: Attrs | None, reached: Attrs | None, code: int, space: StatVfs | None
) -> int:
    """OPEN was refused.

    Args:
        named: LSTAT of the path; *reached*: STAT of it.  None: nothing there.
    """
    writes = bool(pflags & (OpenFlag.WRITE | OpenFlag.TRUNC | OpenFlag.APPEND))
    creates = bool(pflags & OpenFlag.CREAT)
    if creates and pflags & OpenFlag.EXCL and named is not None:
        return errno.EEXIST
    if is_kind(reached, stat.S_IFDIR) and (writes or creates):
        return errno.EISDIR
    if code == Status.NO_SUCH_FILE:
        return errno.ENOENT
    if writes and is_read_only(space):
        return errno.EROFS
    if code == Status.PERMISSION_DENIED:
        return errno.EACCES
    if is_kind(reached, stat.S_IFSOCK) or is_kind(reached, stat.S_IFIFO):
        return errno.ENXIO
    if creates and named is None and space is not None and (is_full(space) or not space.favail):
        return errno.ENOSPC
    if writes and reached is not None and (reached.mode or 0) & 0o111:
        return errno.ETXTBSY
    return errno.EIO


def of_change(attrs: Attrs, target: Attrs | None, code: int, space: StatVfs | None) -> int:
    """SETSTAT of *attrs* on *target* was refused."""
    if is_read_only(space):
        return errno.EROFS
    if attrs.size is not None:
        if is_kind(target, stat.S_IFDIR):
            return errno.EISDIR
        if code == Status.PERMISSION_DENIED:
            return errno.EACCES
        return of_space(space, attrs.size, max(0, attrs.size - ((target and target.size) or 0)))
    if code == Status.PERMISSION_DENIED:
        # Who can see the file but may not change it isn't its owner.  Source: chmod(2), chown(2).
        return errno.EPERM if target is not None else errno.EACCES
    return errno.EIO


def is_kind(attrs: Attrs | None, kind: int) -> bool:
    """Whether something is there and is of *kind* (stat.S_IF...)."""
    return attrs is not None and attrs.mode is not None and stat.S_IFMT(attrs.mode) == kind
