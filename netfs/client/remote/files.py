"""``SftpFiles``: the files of a server through one SFTP conversation.

Each method is one or few SFTP requests; a refusal becomes an OSError with a local errno.  It
raises ``Disconnected`` too, with what is known of the outcome: what to do about it is the
Session's.  No cache, no identity.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import stat as stat_module
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from typing import Any, Final, TypeVar

from netfs.client.config import SemanticsConfig
from netfs.client.remote import listing, renaming
from netfs.client.remote.api import DirEntry
from netfs.client.remote.channel import Channel
from netfs.client.remote.errnos import PATH_MAX
from netfs.client.remote.narrow import error_of
from netfs.client.remote.pending import Pending, StatusError
from netfs.client.remote.requester import Requester
from netfs.sftp import extensions as ext
from netfs.sftp import requests as req
from netfs.sftp.attrs import Attrs, Limits, StatVfs
from netfs.sftp.codes import Status
from netfs.sftp.connection import Version
from netfs.sftp.errors import LocalProtocolError, RemoteProtocolError
from netfs.sftp.responses import (
    AttrsResponse,
    Data,
    ExtendedReply,
    Handle,
    Name,
    Response,
    StatusResponse,
)
from netfs.wire import Buffer

_log = logging.getLogger(__name__)

_DEFAULT_BLOCK: Final = 32 * 1024
"""What every server must take.  Source: draft-ietf-secsh-filexfer-02 §3 (34,000 byte packets)."""
_LARGEST_BLOCK: Final = 256 * 1024
"""Beyond it one block is too coarse for read-ahead, and no server known offers more."""
_WRITE_HEAD: Final = 1024
"""Bytes kept free in a packet for what surrounds the data: OpenSSH's own reserve."""
_DEFAULT_PACKET: Final = 34_000
_EOF: Final = int(Status.EOF)
_IDS_AT_ONCE: Final = 1024  # of users-groups-by-id: 4 KiB of ids, at most 64 KiB of names back

_T = TypeVar("_T")


def _usable(told: Limits) -> Limits:
    """Limits to work with: the server's, bounded, the draft's where it is silent."""
    packet = told.max_packet or _DEFAULT_PACKET
    room = max(1024, packet - _WRITE_HEAD)
    return Limits(
        packet,
        min(told.max_read or min(room, _DEFAULT_BLOCK), _LARGEST_BLOCK),
        min(told.max_write or min(room, _DEFAULT_BLOCK), _LARGEST_BLOCK),
        told.max_handles,
    )


DEFAULT_LIMITS: Final = _usable(Limits())


class SftpHandle:
    """An open file of one conversation; useless after it."""

    __slots__ = ("handle", "path", "pflags")

    def __init__(self, handle: bytes, path: bytes, pflags: int) -> None:
        self.handle = handle
        self.path = path
        self.pflags = pflags

    def __repr__(self) -> str:
        return f"<SftpHandle {self.handle.hex()} {self.path!r}>"


async def start(requester: Requester, channel: Channel, semantics: SemanticsConfig) -> SftpFiles:
    """Greet the server on *channel* and agree on limits and attributes: two round trips.

    Raises:
        Disconnected
    """
    version = await requester.greet(channel)
    files = SftpFiles(requester, version, semantics)
    questions = []
    if ext.LIMITS in files.extensions:
        questions.append(files.ask_limits())
    if version.extensions.get(ext.ATTRS_NETFS) == b"1":
        questions.append(files.ask_extended_attrs())
    await asyncio.gather(*questions)
    _log.debug("sftp: %s, extensions %s", files.limits, sorted(files.extensions))
    return files


class SftpFiles:
    """One conversation.  Paths are absolute bytes.

    Every method may raise OSError (the server said no) and Disconnected.
    """

    def __init__(self, requester: Requester, version: Version, semantics: SemanticsConfig) -> None:
        self.requester = requester
        self.data: SftpFiles = self
        """Where files that are written are opened: another channel of the same link, as soon as
        there is one.  A server answers one channel's requests one by one: an fsync of much data
        must not stand in front of somebody's stat."""
        self.told = version.extensions
        """With what they say of themselves."""
        self.extensions = frozenset(version.extensions)
        self.limits = DEFAULT_LIMITS
        self.has_extended_attrs = False
        self.can_replace = ext.POSIX_RENAME in self.extensions and not semantics.rename_workaround
        self._rename_xdev = semantics.rename_xdev
        self._create_mode = semantics.create_mode
        self._reported_illegal = False

    def __repr__(self) -> str:
        return f"<SftpFiles {self.requester!r}>"

    async def ask_limits(self) -> None:
        """Use the server's limits instead of the draft's."""
        try:
            reply = await self._extended(ext.LimitsRequest())
        except OSError as exc:
            _log.info("the server offers limits@openssh.com but refuses it: %s", exc)
            return
        self.limits = _usable(_decoded(ext.decode_limits, reply))

    async def ask_extended_attrs(self) -> None:
        """Have inode numbers, link counts and nanoseconds from now on."""
        try:
            await self.done(ext.AttrsNetfs(1))
        except OSError as exc:
            _log.info("the server offers attrs@netfs but refuses it: %s", exc)
            return
        self.requester.set_extended_attrs()
        self.has_extended_attrs = True

    # Names and attributes.

    # Those that are one request return its coroutine: one layer less for each step of a wait.

    def lstat(self, path: bytes) -> Coroutine[Any, Any, Attrs]:
        return self.attrs(req.Lstat(path))

    async def readlink(self, path: bytes) -> bytes:
        target = await self._name(req.Readlink(path))
        if len(target) >= PATH_MAX:  # the kernel would cut it off
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), path)
        return target

    async def realpath(self, path: bytes) -> bytes:
        return await self._name(req.Realpath(path))

    async def scandir(self, path: bytes) -> AsyncGenerator[list[DirEntry], None]:
        """The whole directory in batches."""
        try:
            scan = listing.scan(self.requester, path, self._report_illegal)
            async with contextlib.aclosing(scan) as batches:
                async for batch in batches:
                    yield batch
        except StatusError as exc:
            raise await self.error_of(exc) from exc

    async def mkdir(self, path: bytes, mode: int) -> None:
        await self.done(req.Mkdir(path, Attrs(mode=mode)))

    async def rmdir(self, path: bytes) -> None:
        await self.done(req.Rmdir(path))

    async def remove(self, path: bytes) -> None:
        await self.done(req.Remove(path))

    async def rename(self, old: bytes, new: bytes, *, replace: bool = True) -> None:
        if not replace:
            await self.rename_new(old, new)
        elif self.can_replace:
            await self.rename_over(old, new)
        else:
            await renaming.replace_by_steps(self, old, new, renaming.aside_name(new))

    async def rename_new(self, old: bytes, new: bytes) -> None:
        """Rename to a name that nothing has, else EEXIST.

        OpenSSH makes a file's new name by link(2), which never replaces; for a directory it
        looks first.  Other servers rename(2) over an existing file, so we look too.
        """
        taken = self.requester.ask(req.Lstat(new))
        try:
            if isinstance(await taken, AttrsResponse):
                raise OSError(errno.EEXIST, os.strerror(errno.EEXIST), old, None, new)
        finally:
            self.requester.drop(taken)
        await self._rename(req.Rename(old, new))

    async def rename_over(self, old: bytes, new: bytes) -> None:
        """Rename atomically, whatever had the name before (needs ``can_replace``)."""
        await self._rename(ext.PosixRename(old, new))

    async def _rename(self, request: req.Request) -> None:
        try:
            await self.done(request)
        except OSError as exc:
            if self._rename_xdev and exc.errno in (errno.EIO, errno.EBUSY):
                exc.errno, exc.strerror = errno.EXDEV, os.strerror(errno.EXDEV)
            raise

    async def link(self, existing: bytes, path: bytes) -> None:
        self._need(ext.HARDLINK)
        await self.done(ext.Hardlink(existing, path))

    async def setstat(self, path: bytes, attrs: Attrs, *, follow: bool = True) -> None:
        if follow:
            await self.done(req.Setstat(path, attrs))
        elif ext.LSETSTAT in self.extensions:
            await self.done(ext.Lsetstat(path, attrs))
        else:
            mode = (await self.lstat(path)).mode
            if mode is not None and stat_module.S_ISLNK(mode):
                self._need(ext.LSETSTAT)
            await self.done(req.Setstat(path, attrs))

    async def statvfs(self, path: bytes) -> StatVfs:
        self._need(ext.STATVFS)
        return _decoded(ext.decode_statvfs, await self._extended(ext.StatvfsRequest(path)))

    async def users(
        self, uids: Sequence[int], gids: Sequence[int]
    ) -> tuple[list[bytes], list[bytes]]:
        """Names by id, b"" for unknown ones."""
        self._need(ext.USERS_GROUPS_BY_ID)
        users: list[bytes] = []
        groups: list[bytes] = []
        for start_at in range(0, max(len(uids), len(gids)), _IDS_AT_ONCE):
            some_uids = tuple(uids[start_at : start_at + _IDS_AT_ONCE])
            some_gids = tuple(gids[start_at : start_at + _IDS_AT_ONCE])
            reply = await self._extended(ext.UsersGroupsById(some_uids, some_gids))
            names = _decoded(ext.decode_users_groups, reply, len(some_uids), len(some_gids))
            users += names.users
            groups += names.groups
        return users, groups

    # Open files.

    async def open(self, path: bytes, pflags: int, mode: int | None = None) -> SftpHandle:
        return await self._opened(self.requester.ask(self._opening(path, pflags, mode)))

    async def open_stat(
        self, path: bytes, pflags: int, mode: int | None = None
    ) -> tuple[SftpHandle, Attrs]:
        """OPEN and LSTAT of the same path in one packet."""
        opening = self.requester.ask(self._opening(path, pflags, mode))
        looking = self.requester.ask(req.Lstat(path))
        try:
            handle = await self._opened(opening)
            try:
                response = await looking
                if type(response) is not AttrsResponse:
                    raise await self._refusal(looking.request, response)
            except BaseException:
                self.requester.dismiss(handle.handle)
                raise
            return handle, response.attrs
        except BaseException:
            self.requester.drop(looking)
            raise

    def _opening(self, path: bytes, pflags: int, mode: int | None) -> req.Open:
        if mode is not None and not self._create_mode:
            mode = 0
        return req.Open(path, pflags, Attrs(mode=mode))

    async def _opened(self, opening: Pending) -> SftpHandle:
        request = opening.request
        assert isinstance(request, req.Open)
        try:
            response = await opening
        except asyncio.CancelledError:
            self.requester.drop(opening)
            raise
        except LocalProtocolError as exc:
            raise _unsayable(exc, request) from exc
        if type(response) is not Handle:
            raise await self._refusal(request, response)
        return SftpHandle(response.handle, request.path, request.pflags)

    def fstat(self, handle: SftpHandle) -> Coroutine[Any, Any, Attrs]:
        return self.attrs(req.Fstat(handle.handle))

    def fsetstat(self, handle: SftpHandle, attrs: Attrs) -> Coroutine[Any, Any, None]:
        return self.done(req.Fsetstat(handle.handle, attrs))

    def read(
        self, handle: SftpHandle, offset: int, size: int, end: int | None = None
    ) -> Coroutine[Any, Any, Buffer]:
        """See ``api.Remote.read``; more than ``limits.max_read`` is split and pipelined."""
        if size <= self.limits.max_read:
            return self._read_block(handle, offset, size, end)
        return self._read_blocks(handle, offset, size, end)

    async def _read_blocks(
        self, handle: SftpHandle, offset: int, size: int, end: int | None
    ) -> Buffer:
        block = self.limits.max_read
        starts = range(offset, offset + size, block)
        parts = await _together(
            [self._read_block(handle, at, min(block, offset + size - at), end) for at in starts]
        )
        whole = bytearray()
        for part in parts:
            whole += part
            if len(part) < block:
                break  # the end; what a growing file has behind it would leave a hole
        return whole

    async def _read_block(
        self, handle: SftpHandle, offset: int, size: int, end: int | None
    ) -> Buffer:
        parts: list[Buffer] = []
        got = 0
        while got < size:
            request = req.Read(handle.handle, offset + got, size - got)
            try:
                response = await self.requester.ask(request)
            except LocalProtocolError as exc:
                raise _unsayable(exc, request) from exc
            if type(response) is not Data:
                if type(response) is StatusResponse and response.code == _EOF:
                    break
                raise await self._refusal(request, response)
            data = response.data
            count = len(data)
            if not count:
                break
            parts.append(data)
            got += count
            if end is not None and offset + got >= end:
                break
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def write(
        self, handle: SftpHandle, offset: int, data: Sequence[Buffer]
    ) -> Coroutine[Any, Any, None]:
        """Write the joined buffers; returns when all of it is acknowledged."""
        if sum(map(len, data)) <= self.limits.max_write:
            return self.done(req.Write(handle.handle, offset, tuple(data)))
        return self._write_blocks(handle, offset, data)

    async def _write_blocks(self, handle: SftpHandle, offset: int, data: Sequence[Buffer]) -> None:
        block = self.limits.max_write
        whole = memoryview(b"".join(data))
        await _together(
            [
                self.done(req.Write(handle.handle, offset + at, (whole[at : at + block],)))
                for at in range(0, len(whole), block)
            ]
        )

    async def fsync(self, handle: SftpHandle) -> None:
        """Returns without doing anything where the server can't."""
        if ext.FSYNC in self.extensions:
            await self.done(ext.Fsync(handle.handle))

    async def close(self, handle: SftpHandle) -> None:
        """Cancelling doesn't keep the CLOSE from leaving."""
        request = req.Close(handle.handle)
        future = self.requester.ask(request)
        try:
            response = await future
        except asyncio.CancelledError:
            if not future.is_sent:
                self.requester.dismiss(handle.handle)
            raise
        if type(response) is not StatusResponse or response.code:
            raise await self._refusal(request, response)

    async def copy_data(
        self, source: SftpHandle, offset: int, length: int, dest: SftpHandle, dest_offset: int
    ) -> None:
        self._need(ext.COPY_DATA)
        await self.done(ext.CopyData(source.handle, offset, length, dest.handle, dest_offset))

    # What all of them do.

    async def error_of(self, refused: StatusError) -> OSError:
        """The local error that *refused* means."""
        return await error_of(self.requester, refused, self.extensions)

    def _need(self, extension: bytes) -> None:
        if extension not in self.extensions:
            raise OSError(errno.EOPNOTSUPP, f"the server doesn't offer {extension.decode()}")

    # An answer is of the request's type or a status that is not OK: ClientConnection sees to it.

    async def done(self, request: req.Request) -> None:
        """Have *request* carried out, one that a status answers."""
        try:
            response = await self.requester.ask(request)
        except LocalProtocolError as exc:
            raise _unsayable(exc, request) from exc
        if type(response) is not StatusResponse or response.code:
            raise await self._refusal(request, response)

    async def _refusal(self, request: req.Request, response: Response) -> OSError:
        assert isinstance(response, StatusResponse)
        return await self.error_of(StatusError(request, response))

    async def attrs(self, request: req.Request) -> Attrs:
        """What *request* asks for, one that attributes answer."""
        response = await self.requester.ask(request)
        if type(response) is not AttrsResponse:
            raise await self._refusal(request, response)
        return response.attrs

    async def _name(self, request: req.Request) -> bytes:
        response = await self.requester.ask(request)
        if type(response) is not Name:
            raise await self._refusal(request, response)
        name = response.entries[0].filename
        if b"\0" in name:  # the kernel would follow what is in front of it
            raise OSError(errno.EPROTO, f"the server sent the path {name[:300]!r}")
        return name

    async def _extended(self, request: req.Request) -> Buffer:
        try:
            response = await self.requester.ask(request)
        except LocalProtocolError as exc:
            raise _unsayable(exc, request) from exc
        if type(response) is not ExtendedReply:
            raise await self._refusal(request, response)
        return response.data

    def _report_illegal(self, name: bytes) -> None:
        if not self._reported_illegal:
            self._reported_illegal = True
            _log.warning(
                "the server lists the illegal name %r; such names are left out", name[:300]
            )


def _unsayable(exc: LocalProtocolError, request: req.Request) -> OSError:
    """A value that SFTP v3 has no room for (a time after 2106, say)."""
    return OSError(errno.EINVAL, f"{type(request).__name__}: {exc}")


def _decoded(decode: Callable[..., _T], *values: Any) -> _T:
    """The body of an extended reply, EPROTO for one that can't be."""
    try:
        return decode(*values)
    except RemoteProtocolError as exc:
        raise OSError(errno.EPROTO, f"the server sent {exc}") from exc


async def _together(coroutines: Sequence[Coroutine[Any, Any, _T]]) -> list[_T]:
    """All results; the first failure cancels the rest and waits for its end."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
