"""Looks whether a request ran whose answer was lost.

Each function answers True if the server's state is what the request would have left.  What can't
be told apart is a change that somebody else made in the meantime under the same name: v3 has no
way to know.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import AsyncIterator
from typing import Any, Protocol

from netfs.sftp import extensions as ext
from netfs.sftp import requests as req
from netfs.sftp.attrs import Attrs


class Looking(Protocol):
    """What settling needs of ``SftpFiles``."""

    async def lstat(self, path: bytes) -> Attrs: ...

    async def readlink(self, path: bytes) -> bytes: ...

    def scandir(self, path: bytes) -> AsyncIterator[list[Any]]: ...


async def has_run(files: Looking, request: req.Request) -> bool:
    """Whether *request*, one of the table's SETTLE rows, was carried out.

    Raises:
        OSError: the server doesn't let us look.
        Disconnected
    """
    match request:
        case req.Mkdir(path=path):
            # Ours is empty: nobody but us knew of it.
            attrs = await _look(files, path)
            return _is(attrs, stat.S_IFDIR) and await _is_empty(files, path)
        case req.Rmdir(path=path) | req.Remove(path=path):
            return await _look(files, path) is None
        case req.Rename(oldpath=old, newpath=new) | ext.PosixRename(oldpath=old, newpath=new):
            return await _look(files, old) is None and await _look(files, new) is not None
        case ext.Hardlink(oldpath=old, newpath=new):
            made = await _look(files, new)
            return made is not None and _could_be_same(await _look(files, old), made)
        case req.Symlink(targetpath=target, linkpath=path):
            attrs = await _look(files, path)
            return _is(attrs, stat.S_IFLNK) and await files.readlink(path) == target
        case req.Open(path=path):
            # Ours is empty: nothing could be written without its handle.
            attrs = await _look(files, path)
            return attrs is not None and _is(attrs, stat.S_IFREG) and attrs.size == 0
    raise AssertionError(f"{type(request).__name__} is not settled by looking")


def _could_be_same(one: Attrs | None, other: Attrs) -> bool:
    """Whether two names may be links to one file: all that the server tells is equal."""
    if one is None:
        return False
    if one.ino is not None and other.ino is not None:
        return one.ino == other.ino
    return one._replace(nlink=None) == other._replace(nlink=None)


def _is(attrs: Attrs | None, kind: int) -> bool:
    return attrs is not None and attrs.mode is not None and stat.S_IFMT(attrs.mode) == kind


async def _is_empty(files: Looking, path: bytes) -> bool:
    async for _ in files.scandir(path):
        return False
    return True


async def _look(files: Looking, path: bytes) -> Attrs | None:
    try:
        return await files.lstat(path)
    except OSError as exc:
        if exc.errno not in (errno.ENOENT, errno.ENOTDIR):
            raise
        return None
