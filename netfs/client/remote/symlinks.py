"""In which order a server takes the two paths of SYMLINK, and whether it leaves targets alone.

The draft has the new link first, OpenSSH and most others the target (OpenSSH PROTOCOL §4.1); a few
servers say which in an extension, others (MySecureShell) are as drafted and say nothing.  A request
in the wrong order makes a link that is called like the target, somewhere below the server's working
directory.  So until one link was seen to be as wanted, each is looked at after it was made; what
came out wrong is taken back and made the other way round.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import posixpath
import stat
from typing import Final

from netfs.client.remote.files import SftpFiles
from netfs.client.remote.pending import Disconnected
from netfs.sftp import extensions as ext
from netfs.sftp import requests as req

_log = logging.getLogger(__name__)

_AS_DRAFTED: Final = b"linkpath-targetpath"


class Symlinks:
    """What is known of one server, across reconnects."""

    def __init__(self) -> None:
        self.is_proven = False
        """A link with a relative target was made, and was as wanted."""
        self._as_drafted: bool | None = None  # None: no link was seen yet
        self._finding_out = asyncio.Lock()
        self._cut_off: set[tuple[bytes, bytes]] = set()
        """Target and path of links that the connection was lost with, while finding out."""

    async def make(self, files: SftpFiles, request: req.Symlink) -> None:
        """Have the link made.  Not to be cancelled as long as nothing ``is_proven``.

        Raises:
            OSError: as symlink(2); EPERM also if the server would make another target of it.
            Disconnected
        """
        if not self.is_proven:
            async with self._finding_out:
                if not self.is_proven:
                    try:
                        await self._find_out(files, request)
                    except Disconnected as exc:
                        # Whatever was under way, an earlier step may have made the link.
                        self._cut_off.add((request.targetpath, request.linkpath))
                        raise Disconnected(str(exc), sent=True) from exc
                    return
        await files.done(request._replace(as_drafted=bool(self._as_drafted)))

    async def _find_out(self, files: SftpFiles, request: req.Symlink) -> None:
        known = self._as_drafted
        if known is None:
            known = _told(files)
        first = request._replace(as_drafted=bool(known))
        other = request._replace(as_drafted=not known)
        path, target = request.linkpath, request.targetpath
        try:
            await files.done(first)
        except OSError as refused:
            if known is not None or refused.errno == errno.EEXIST:
                raise
            made = await _try_other(files, other)
            if made is None:
                raise
            used = other
            if (target, path) in self._cut_off:
                await _take_back(files, first)
        else:
            used = first
            made = await _target_at(files, path, target)
            if made is None:
                await _take_back(files, first)
                await files.done(other)
                used = other
                made = await _target_at(files, path, target)
                if made is None:
                    await _take_back(files, other)
                    raise OSError(errno.EIO, "the server makes no symlink, and says it did", path)
        if self._as_drafted is None and used.as_drafted:
            _log.info("the server takes the paths of SYMLINK in the order of the draft")
        self._as_drafted = used.as_drafted
        is_relative = not target.startswith(b"/")
        if is_relative and made.startswith(b"/") and made != _meant(path, target):
            await files.remove(path)
            _log.warning("the server would make %r of the relative symlink %r", made, target)
            raise OSError(errno.EPERM, os.strerror(errno.EPERM), path)
        self.is_proven = is_relative
        self._cut_off.discard((target, path))


def _told(files: SftpFiles) -> bool | None:
    """Whether the order is the draft's, as far as extensions tell."""
    order = files.told.get(ext.SYMLINK_ORDER)
    if order is not None:
        return order == _AS_DRAFTED
    if ext.POSIX_RENAME in files.extensions:
        return False  # OpenSSH's own, or one that follows it
    return None


async def _try_other(files: SftpFiles, other: req.Symlink) -> bytes | None:
    """The first order was refused, perhaps because of that.  Returns the target of the link if the
    *other* made it; None, and nothing is left of it, if not."""
    try:
        await files.done(other)
    except OSError:
        return None  # the first refusal is the answer
    made = await _target_at(files, other.linkpath, other.targetpath)
    if made is None:
        await _take_back(files, other)
    return made


def _meant(path: bytes, target: bytes) -> bytes:
    """Where a relative symlink at *path* leads; some servers show only that (ProFTPD)."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), target))


async def _target_at(files: SftpFiles, path: bytes, expected: bytes) -> bytes | None:
    """Of the link at *path*, *expected* if the server does not tell; None if there is none."""
    try:
        return await files.readlink(path)
    except OSError as exc:
        if exc.errno == errno.ENOENT:
            return None
    try:
        mode = (await files.lstat(path)).mode
    except OSError:
        return None  # nothing is to be seen there
    return expected if mode is None or stat.S_ISLNK(mode) else None


async def _take_back(files: SftpFiles, wrong: req.Symlink) -> None:
    """Remove what a SYMLINK in the wrong order has just made: a link called like the target, to
    where the link should have been."""
    stray = wrong.targetpath
    try:
        if await files.readlink(stray) == wrong.linkpath:
            await files.remove(stray)
    except OSError as exc:
        _log.debug("no stray symlink at %r: %s", stray, exc)
