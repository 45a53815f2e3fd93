"""EXTENDED requests: OpenSSH's and netfs's own, their names, versions and bodies.

Source: OpenSSH PROTOCOL §4 and draft-ietf-secsh-filexfer-extensions-00 (copy-data,
home-directory); ``attrs@netfs``: docs/protocol.md.  What a server offers is its own decision.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from netfs.sftp.attrs import Attrs, Limits, StatVfs, decode_attrs, encode_attrs
from netfs.sftp.errors import RemoteProtocolError
from netfs.sftp.responses import ExtendedReply, Name, Response, StatusResponse
from netfs.wire import Buffer, Reader, Truncated, string

POSIX_RENAME: Final = b"posix-rename@openssh.com"
STATVFS: Final = b"statvfs@openssh.com"
FSTATVFS: Final = b"fstatvfs@openssh.com"
HARDLINK: Final = b"hardlink@openssh.com"
FSYNC: Final = b"fsync@openssh.com"
LSETSTAT: Final = b"lsetstat@openssh.com"
LIMITS: Final = b"limits@openssh.com"
EXPAND_PATH: Final = b"expand-path@openssh.com"
COPY_DATA: Final = b"copy-data"
HOME_DIRECTORY: Final = b"home-directory"
USERS_GROUPS_BY_ID: Final = b"users-groups-by-id@openssh.com"
ATTRS_NETFS: Final = b"attrs@netfs"
SYMLINK_ORDER: Final = b"symlink-order@rjk.greenend.org.uk"
"""No request: its data says in which order SYMLINK has its paths.  Source: gesftpserver(8)."""


class PosixRename(NamedTuple):
    """rename(2): replaces *newpath* atomically.  Source: OpenSSH PROTOCOL §4.3."""

    oldpath: bytes
    newpath: bytes


class Hardlink(NamedTuple):
    """link(2).  Source: OpenSSH PROTOCOL §4.5."""

    oldpath: bytes
    newpath: bytes


class StatvfsRequest(NamedTuple):
    """statvfs(2); answered with a StatVfs.  Source: OpenSSH PROTOCOL §4.4."""

    path: bytes


class FstatvfsRequest(NamedTuple):
    """fstatvfs(2).  Source: OpenSSH PROTOCOL §4.4."""

    handle: bytes


class Fsync(NamedTuple):
    """fsync(2).  Source: OpenSSH PROTOCOL §4.6."""

    handle: bytes


class Lsetstat(NamedTuple):
    """SETSTAT that doesn't follow a symlink.  Source: OpenSSH PROTOCOL §4.7."""

    path: bytes
    attrs: Attrs


class LimitsRequest(NamedTuple):
    """Answered with Limits.  Source: OpenSSH PROTOCOL §4.8."""


class ExpandPath(NamedTuple):
    """REALPATH that knows ``~user``.  Source: OpenSSH PROTOCOL §4.9."""

    path: bytes


class CopyData(NamedTuple):
    """Copies inside the server; *length* 0 means to the end.  Source: extensions draft §7."""

    source: bytes  # a handle
    offset: int
    length: int
    dest: bytes  # a handle
    dest_offset: int


class HomeDirectory(NamedTuple):
    """Answered with a Name; empty: one's own.  Source: extensions draft §5."""

    username: bytes


class UsersGroupsById(NamedTuple):
    """Answered with UsersGroups.  Source: OpenSSH PROTOCOL §4.11."""

    uids: tuple[int, ...]
    gids: tuple[int, ...]


class AttrsNetfs(NamedTuple):
    """Asks that ATTRS carry the ``attrs@netfs`` pair from now on, both ways.

    Source: docs/protocol.md.
    """

    version: int


class Extended(NamedTuple):
    """A request that this table does not know."""

    name: bytes
    data: bytes


ExtendedRequest = (
    PosixRename
    | Hardlink
    | StatvfsRequest
    | FstatvfsRequest
    | Fsync
    | Lsetstat
    | LimitsRequest
    | ExpandPath
    | CopyData
    | HomeDirectory
    | UsersGroupsById
    | AttrsNetfs
    | Extended
)


class UsersGroups(NamedTuple):
    """Names in the order asked for, b"" for unknown ids."""

    users: tuple[bytes, ...]
    groups: tuple[bytes, ...]


class Row(NamedTuple):
    """One extension: what VERSION says of it, and its request both ways."""

    name: bytes
    version: bytes  # as OpenSSH advertises it
    response: type[Response]
    encode: Callable[[Any, bool], bytes]
    decode: Callable[[Reader], ExtendedRequest]


_OFFSET_LENGTH: Final = struct.Struct(">QQ")
_U64: Final = struct.Struct(">Q")
_U32: Final = struct.Struct(">I")
_STATVFS: Final = struct.Struct(">11Q")
_LIMITS: Final = struct.Struct(">4Q")


def _ids(values: tuple[int, ...]) -> bytes:
    return string(struct.pack(f">{len(values)}I", *values))


def _read_ids(reader: Reader) -> tuple[int, ...]:
    data = reader.view()
    if len(data) % 4:
        raise RemoteProtocolError(f"{len(data)} bytes are no list of ids")
    return struct.unpack(f">{len(data) // 4}I", data)


def _encode_copy_data(request: CopyData, extended: bool) -> bytes:
    return (
        string(request.source)
        + _OFFSET_LENGTH.pack(request.offset, request.length)
        + string(request.dest)
        + _U64.pack(request.dest_offset)
    )


def _decode_copy_data(reader: Reader) -> CopyData:
    source = reader.string()
    offset, length = reader.unpack(_OFFSET_LENGTH)
    return CopyData(source, offset, length, reader.string(), reader.u64())


EXTENSIONS: Final[Mapping[type, Row]] = {
    PosixRename: Row(
        POSIX_RENAME,
        b"1",
        StatusResponse,
        lambda r, extended: string(r.oldpath) + string(r.newpath),
        lambda reader: PosixRename(reader.string(), reader.string()),
    ),
    Hardlink: Row(
        HARDLINK,
        b"1",
        StatusResponse,
        lambda r, extended: string(r.oldpath) + string(r.newpath),
        lambda reader: Hardlink(reader.string(), reader.string()),
    ),
    StatvfsRequest: Row(
        STATVFS,
        b"2",
        ExtendedReply,
        lambda r, extended: string(r.path),
        lambda reader: StatvfsRequest(reader.string()),
    ),
    FstatvfsRequest: Row(
        FSTATVFS,
        b"2",
        ExtendedReply,
        lambda r, extended: string(r.handle),
        lambda reader: FstatvfsRequest(reader.string()),
    ),
    Fsync: Row(
        FSYNC,
        b"1",
        StatusResponse,
        lambda r, extended: string(r.handle),
        lambda reader: Fsync(reader.string()),
    ),
    Lsetstat: Row(
        LSETSTAT,
        b"1",
        StatusResponse,
        lambda r, extended: string(r.path) + encode_attrs(r.attrs, extended),
        lambda reader: Lsetstat(reader.string(), decode_attrs(reader)),
    ),
    LimitsRequest: Row(
        LIMITS, b"1", ExtendedReply, lambda r, extended: b"", lambda reader: LimitsRequest()
    ),
    ExpandPath: Row(
        EXPAND_PATH,
        b"1",
        Name,
        lambda r, extended: string(r.path),
        lambda reader: ExpandPath(reader.string()),
    ),
    CopyData: Row(COPY_DATA, b"1", StatusResponse, _encode_copy_data, _decode_copy_data),
    HomeDirectory: Row(
        HOME_DIRECTORY,
        b"1",
        Name,
        lambda r, extended: string(r.username),
        lambda reader: HomeDirectory(reader.string()),
    ),
    UsersGroupsById: Row(
        USERS_GROUPS_BY_ID,
        b"1",
        ExtendedReply,
        lambda r, extended: _ids(r.uids) + _ids(r.gids),
        lambda reader: UsersGroupsById(_read_ids(reader), _read_ids(reader)),
    ),
    AttrsNetfs: Row(
        ATTRS_NETFS,
        b"1",
        StatusResponse,
        lambda r, extended: _U32.pack(r.version),
        lambda reader: AttrsNetfs(reader.u32()),
    ),
}

_BY_NAME: Final = {row.name: row for row in EXTENSIONS.values()}


def decode_extended(reader: Reader) -> ExtendedRequest:
    """The request after an EXTENDED's id; Extended for a name that is not in the table."""
    name = reader.string()
    row = _BY_NAME.get(name)
    if row is None:
        return Extended(name, bytes(reader.rest()))
    return row.decode(reader)


def encode_extended(request: Any, extended_attrs: bool) -> bytes:
    """Name and body of an EXTENDED request."""
    if type(request) is Extended:
        return string(request.name) + request.data
    row = EXTENSIONS[type(request)]
    return string(row.name) + row.encode(request, extended_attrs)


def encode_statvfs(value: StatVfs) -> bytes:
    """Body of the reply to statvfs and fstatvfs."""
    return _STATVFS.pack(*value)


def decode_statvfs(data: Buffer) -> StatVfs:
    """Raises RemoteProtocolError if it is something else."""
    return StatVfs(*_whole(_STATVFS, data, "statvfs"))


def encode_limits(value: Limits) -> bytes:
    """Body of the reply to limits."""
    return _LIMITS.pack(*value)


def decode_limits(data: Buffer) -> Limits:
    """Raises RemoteProtocolError if it is something else."""
    return Limits(*_whole(_LIMITS, data, "limits"))


def _whole(layout: struct.Struct, data: Buffer, what: str) -> tuple[int, ...]:
    if len(data) != layout.size:
        raise RemoteProtocolError(f"a {what} reply of {len(data)} bytes, not {layout.size}")
    return layout.unpack(data)


def encode_users_groups(value: UsersGroups) -> bytes:
    """Body of the reply to users-groups-by-id: two strings full of strings."""
    return b"".join(string(b"".join(map(string, names))) for names in value)


def decode_users_groups(data: Buffer, users: int, groups: int) -> UsersGroups:
    """Raises RemoteProtocolError unless it holds so many *users* and *groups*."""
    reader = Reader(data)
    try:
        lists = [Reader(reader.view()), Reader(reader.view())]
        names = [
            tuple([names.string() for _ in range(count)])
            for names, count in zip(lists, (users, groups), strict=True)
        ]
    except Truncated as exc:
        raise RemoteProtocolError("fewer names than ids") from exc
    if len(reader) or any(map(len, lists)):
        raise RemoteProtocolError("more names than ids")
    return UsersGroups(*names)
