"""Looks at the server to tell which errno a refused request means.

What to look at and what follows from it is the policy of ``errnos.py``; here are the questions,
asked together in one round trip where they can be.
"""

from __future__ import annotations

import asyncio
import errno
import os
import stat

from netfs.client.remote import errnos
from netfs.client.remote.errnos import Look
from netfs.client.remote.pending import Disconnected, StatusError
from netfs.client.remote.requester import Requester
from netfs.sftp import extensions as ext
from netfs.sftp import requests as req
from netfs.sftp.attrs import Attrs, StatVfs
from netfs.sftp.codes import Status
from netfs.sftp.errors import RemoteProtocolError
from netfs.sftp.responses import AttrsResponse, ExtendedReply, Handle, Name

_MAX_LINKS = 40  # Source: linux/namei.h: MAXSYMLINKS
_MAX_EMPTY = 10  # answers without a name; a server needs one for '.' and '..'


async def error_of(
    requester: Requester, refused: StatusError, extensions: frozenset[bytes]
) -> OSError:
    """The OSError that *refused* means, with the path it was about.

    Raises:
        Disconnected: before it was known.  ``sent`` is False: the request had no effect.
    """
    rule = _rule(refused)
    if isinstance(rule, Look):
        try:
            rule = await _Looker(requester, extensions, refused).look(rule)
        except Disconnected as exc:
            raise Disconnected(str(exc), sent=False) from exc
    return _error(rule, refused)


def error_of_look(refused: StatusError) -> OSError:
    """As ``error_of``, where only a path's attributes were asked for: nothing else need be."""
    rule = _rule(refused)
    assert isinstance(rule, int)
    return _error(rule, refused)


def _rule(refused: StatusError) -> errnos.Rule:
    if refused.code == Status.BAD_MESSAGE and any(map(errnos.is_too_long, _paths(refused.request))):
        return errno.ENAMETOOLONG
    return errnos.rule(refused.request, refused.code, refused.message)


def _error(number: int, refused: StatusError) -> OSError:
    paths = _paths(refused.request)
    error = OSError(number, os.strerror(number))
    error.__cause__ = refused
    if paths:
        error.filename = paths[0]
    if len(paths) > 1:
        error.filename2 = paths[1]
    return error


def _paths(request: object) -> list[bytes]:
    names = ("path", "oldpath", "targetpath", "newpath", "linkpath")
    return [getattr(request, name) for name in names if hasattr(request, name)]


def parent_of(path: bytes) -> bytes:
    """The directory that holds *path*; the root holds itself."""
    return path.rstrip(b"/").rpartition(b"/")[0] or b"/"


class _Looker:
    """The questions about one refused request."""

    def __init__(
        self, requester: Requester, extensions: frozenset[bytes], refused: StatusError
    ) -> None:
        self._requester = requester
        self._extensions = extensions
        self._request = refused.request
        self._code = refused.code

    async def look(self, what: Look) -> int:
        request = self._request
        match what:
            case Look.TARGET:
                assert isinstance(request, req.Remove | req.Mkdir | req.Rmdir | req.Symlink)
                path = request.linkpath if isinstance(request, req.Symlink) else request.path
                return await self._look_target(path)
            case Look.PAIR:
                assert isinstance(request, req.Rename | ext.PosixRename | ext.Hardlink)
                return await self._look_pair(request.oldpath, request.newpath)
            case Look.OPENED:
                assert isinstance(request, req.Open)
                return await self._look_opened(request)
            case Look.CHANGE:
                assert isinstance(request, req.Setstat | ext.Lsetstat)
                target, space = await asyncio.gather(
                    self._attrs(req.Lstat(request.path)), self._space(request.path)
                )
                return errnos.of_change(request.attrs, target, self._code, space)
            case Look.DIRECTORY:
                assert isinstance(request, req.Opendir)
                target = await self._attrs(req.Stat(request.path))
                if target is None:
                    return errno.ENOENT if self._code == Status.NO_SUCH_FILE else errno.EIO
                return errno.EIO if errnos.is_kind(target, stat.S_IFDIR) else errno.ENOTDIR
            case Look.SOURCE:
                assert isinstance(request, req.Read)
                target = await self._attrs(req.Fstat(request.handle))
                return errno.EISDIR if errnos.is_kind(target, stat.S_IFDIR) else errno.EIO
            case Look.SPACE:
                return await self._look_space()

    async def _look_target(self, path: bytes) -> int:
        parent = parent_of(path)
        target, directory, space = await asyncio.gather(
            self._attrs(req.Lstat(path)), self._attrs(req.Stat(parent)), self._space(parent)
        )
        is_empty = None
        if isinstance(self._request, req.Rmdir) and errnos.is_kind(target, stat.S_IFDIR):
            is_empty = await self._is_empty(path)
        if target is None and directory is None and self._code == Status.NO_SUCH_FILE:
            return await self._missing(parent)
        return errnos.of_target(self._request, target, directory, self._code, space, is_empty)

    async def _look_pair(self, old: bytes, new: bytes) -> int:
        old_parent, new_parent = parent_of(old), parent_of(new)
        source, target, here, there, directory = await asyncio.gather(
            self._attrs(req.Lstat(old)),
            self._attrs(req.Lstat(new)),
            self._space(old_parent),
            self._space(new_parent),
            self._attrs(req.Stat(new_parent)),
        )
        if source is not None and directory is not None:
            if not errnos.is_kind(directory, stat.S_IFDIR):
                return errno.ENOTDIR
        elif source is None and self._code == Status.NO_SUCH_FILE:
            return await self._missing(old_parent)
        is_empty = None
        if errnos.is_kind(target, stat.S_IFDIR):
            is_empty = await self._is_empty(new)
        return errnos.of_pair(
            self._request,
            source,
            target,
            self._code,
            spaces=(here, there),
            is_new_empty=is_empty,
            is_below=new.startswith(old.rstrip(b"/") + b"/"),
        )

    async def _look_opened(self, request: req.Open) -> int:
        path = request.path
        parent = parent_of(path)
        named, reached, space = await asyncio.gather(
            self._attrs(req.Lstat(path)), self._attrs(req.Stat(path)), self._space(parent)
        )
        if errnos.is_kind(named, stat.S_IFLNK) and reached is None:
            if self._code == Status.NO_SUCH_FILE:
                return await self._end_of_links(path)
        elif named is None and self._code == Status.NO_SUCH_FILE:
            return await self._missing(parent)
        return errnos.of_open(request.pflags, named, reached, self._code, space)

    async def _look_space(self) -> int:
        request = self._request
        handle = request.dest if isinstance(request, ext.CopyData) else request.handle  # type: ignore[union-attr]
        space = await self._space_of_handle(handle)
        end = size = 0
        match request:
            case req.Write(offset=offset, data=data):
                size = sum([len(part) for part in data])
                end = offset + size
            case req.Fsetstat(attrs=attrs):
                end = attrs.size or 0
                if attrs.size is None and not errnos.is_read_only(space):
                    return errno.EIO
            case ext.CopyData(length=length, dest_offset=offset):
                size = length
                end = offset + size
        return errnos.of_space(space, end, size, self._code)

    async def _missing(self, parent: bytes) -> int:
        """ENOTDIR if the nearest existing ancestor is no directory, else ENOENT."""
        while True:
            attrs = await self._attrs(req.Stat(parent))
            if attrs is not None:
                is_dir = errnos.is_kind(attrs, stat.S_IFDIR)
                return errno.ENOENT if is_dir else errno.ENOTDIR
            if parent == b"/":
                return errno.ENOENT
            parent = parent_of(parent)

    async def _end_of_links(self, path: bytes) -> int:
        """ELOOP if the links never end, else ENOENT: the last one dangles."""
        for _ in range(_MAX_LINKS):
            try:
                response = await self._requester.call(req.Readlink(path))
            except StatusError:  # no link: the end, and we know that nothing is there
                return errno.ENOENT
            assert isinstance(response, Name)
            path = os.path.join(parent_of(path), response.entries[0].filename)
        return errno.ELOOP

    async def _attrs(self, request: req.Request) -> Attrs | None:
        """None if the server says no, whatever the reason."""
        try:
            response = await self._requester.call(request)
        except StatusError:
            return None  # that there is nothing to be seen is the answer
        assert isinstance(response, AttrsResponse)
        return response.attrs

    async def _space(self, path: bytes) -> StatVfs | None:
        if ext.STATVFS not in self._extensions:
            return None
        return await self._ask_space(ext.StatvfsRequest(path))

    async def _space_of_handle(self, handle: bytes) -> StatVfs | None:
        if ext.FSTATVFS not in self._extensions:
            return None
        return await self._ask_space(ext.FstatvfsRequest(handle))

    async def _ask_space(self, request: req.Request) -> StatVfs | None:
        try:
            response = await self._requester.call(request)
        except StatusError:
            return None  # not known then
        assert isinstance(response, ExtendedReply)
        try:
            return ext.decode_statvfs(response.data)
        except RemoteProtocolError:
            return None  # nonsense tells nothing

    async def _is_empty(self, path: bytes) -> bool | None:
        try:
            opened = await self._requester.call(req.Opendir(path))
        except StatusError:
            return None  # not known then
        assert isinstance(opened, Handle)
        try:
            for _ in range(_MAX_EMPTY):
                response = await self._requester.call(req.Readdir(opened.handle))
                assert isinstance(response, Name)
                if any(entry.filename not in (b".", b"..") for entry in response.entries):
                    return False
            return None  # a listing of nothing without an end
        except StatusError as exc:
            return True if exc.code == Status.EOF else None
        finally:
            self._requester.dismiss(opened.handle)
