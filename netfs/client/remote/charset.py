"""Names in another character set than the server's: libfuse's module iconv.

Everywhere else names are bytes that nobody looks into.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

from netfs.client.config import Config
from netfs.client.remote.api import DirEntry
from netfs.client.remote.channel import Link
from netfs.client.remote.handles import SessionHandle
from netfs.client.remote.looking import Looking
from netfs.client.remote.session import Session
from netfs.sftp.attrs import Attrs, StatVfs

_log = logging.getLogger(__name__)


class Charset:
    """Converts names both ways.

    Args:
        there: the server's character set.
        here: what is shown.
    """

    def __init__(self, there: str, here: str) -> None:
        self._there = there
        self._here = here

    def to_here(self, name: bytes) -> bytes:
        """Raises: OSError(EILSEQ)"""
        return _convert(name, self._there, self._here)

    def to_there(self, name: bytes) -> bytes:
        """Raises: OSError(EILSEQ)"""
        return _convert(name, self._here, self._there)

    def shown(self, name: bytes) -> bytes | None:
        """The name of a listing; None if it would not lead back to the file, or elsewhere."""
        try:
            converted = self.to_here(name)
            leads_back = self.to_there(converted) == name
        except OSError:
            return None
        is_name = converted not in (b"", b".", b"..") and not {*b"/\0"} & {*converted}
        return converted if leads_back and is_name else None


def _convert(text: bytes, source: str, target: str) -> bytes:
    try:
        return text.decode(source).encode(target)
    except UnicodeError:
        raise OSError(errno.EILSEQ, os.strerror(errno.EILSEQ)) from None


class CharsetSession(Session):
    """A session whose callers name files below ``base`` in their own character set."""

    def __init__(
        self, config: Config, connect: Callable[[], Awaitable[Link]], charset: Charset
    ) -> None:
        super().__init__(config, connect)
        self._charset = charset
        self._has_told = False
        self.base: bytes | None = None
        """The served directory, as the server writes it; until it is known nothing is converted."""

    def _path(self, path: bytes) -> bytes:
        below = self._below(path)
        return (
            path
            if below is None
            else path[: len(path) - len(below)] + self._charset.to_there(below)
        )

    def _below(self, path: bytes) -> bytes | None:
        """What of *path* is below the served directory."""
        if self.base is None:
            return None
        start = self.base.rstrip(b"/") + b"/"
        return path[len(start) :] if path.startswith(start) else None

    async def lstat(self, path: bytes) -> Attrs:
        return await super().lstat(self._path(path))

    def look(self, path: bytes, looking: Looking[Any]) -> bool:
        return super().look(self._path(path), looking)

    async def stat(self, path: bytes) -> Attrs:
        return await super().stat(self._path(path))

    async def readlink(self, path: bytes) -> bytes:
        target = await super().readlink(self._path(path))
        below = self._below(target)
        if below is None:
            return self._charset.to_here(target)
        return target[: len(target) - len(below)] + self._charset.to_here(below)

    async def scandir(self, path: bytes) -> AsyncGenerator[list[DirEntry], None]:
        async with contextlib.aclosing(super().scandir(self._path(path))) as batches:
            async for batch in batches:
                yield [entry for entry in map(self._entry, batch) if entry is not None]

    def _entry(self, entry: DirEntry) -> DirEntry | None:
        name = self._charset.shown(entry.name)
        if name is not None:
            return DirEntry(name, entry.attrs)
        if not self._has_told:
            self._has_told = True
            _log.warning("names that can't be written in to_code are not listed: %r", entry.name)
        return None

    async def mkdir(self, path: bytes, mode: int) -> None:
        await super().mkdir(self._path(path), mode)

    async def rmdir(self, path: bytes) -> None:
        await super().rmdir(self._path(path))

    async def remove(self, path: bytes) -> None:
        await super().remove(self._path(path))

    def also_named(self, path: bytes, other: bytes) -> None:
        super().also_named(self._path(path), self._path(other))

    async def rename(self, old: bytes, new: bytes, *, replace: bool = True) -> None:
        await super().rename(self._path(old), self._path(new), replace=replace)

    async def symlink(self, target: bytes, path: bytes) -> None:
        below = self._below(target)
        there = self._charset.to_there(target) if below is None else self._path(target)
        await super().symlink(there, self._path(path))

    async def link(self, existing: bytes, path: bytes) -> None:
        await super().link(self._path(existing), self._path(path))

    async def setstat(self, path: bytes, attrs: Attrs, *, follow: bool = True) -> None:
        await super().setstat(self._path(path), attrs, follow=follow)

    async def statvfs(self, path: bytes) -> StatVfs:
        return await super().statvfs(self._path(path))

    async def open_stat(
        self, path: bytes, pflags: int, mode: int | None = None
    ) -> tuple[SessionHandle, Attrs]:
        return await super().open_stat(self._path(path), pflags, mode)


def new_session(config: Config, connect: Callable[[], Awaitable[Link]]) -> Session:
    """A session with names as *config* wants them."""
    if config.semantics.charset is None:
        return Session(config, connect)
    return CharsetSession(config, connect, Charset(*config.semantics.charset))
