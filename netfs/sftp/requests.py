"""What a client asks: one value per request packet, its bytes both ways.

The table at the end says which packet a value is and which response answers it.  The bodies of
EXTENDED are in ``extensions.py``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from netfs.sftp.attrs import Attrs, decode_attrs, encode_attrs
from netfs.sftp.codes import PacketType
from netfs.sftp.errors import LocalProtocolError, RemoteProtocolError
from netfs.sftp.extensions import (
    EXTENSIONS,
    Extended,
    ExtendedRequest,
    decode_extended,
    encode_extended,
)
from netfs.sftp.responses import (
    AttrsResponse,
    Data,
    ExtendedReply,
    Handle,
    Name,
    Response,
    StatusResponse,
)
from netfs.wire import Buffer, Reader, string

# Source of each: draft-ietf-secsh-filexfer-02 §6.


class Open(NamedTuple):
    """§6.3."""

    path: bytes
    pflags: int  # OpenFlag
    attrs: Attrs


class Close(NamedTuple):
    """§6.3."""

    handle: bytes


class Read(NamedTuple):
    """§6.4; the answer may be shorter, at the end of the file it is STATUS EOF."""

    handle: bytes
    offset: int
    length: int


class Write(NamedTuple):
    """§6.4; *data* is written as one, the buffers stay as they are."""

    handle: bytes
    offset: int
    data: tuple[Buffer, ...]


class Lstat(NamedTuple):
    """§6.8."""

    path: bytes


class Fstat(NamedTuple):
    """§6.8."""

    handle: bytes


class Setstat(NamedTuple):
    """§6.9; follows a symlink."""

    path: bytes
    attrs: Attrs


class Fsetstat(NamedTuple):
    """§6.9."""

    handle: bytes
    attrs: Attrs


class Opendir(NamedTuple):
    """§6.7."""

    path: bytes


class Readdir(NamedTuple):
    """§6.7; STATUS EOF at the end."""

    handle: bytes


class Remove(NamedTuple):
    """§6.5."""

    path: bytes


class Mkdir(NamedTuple):
    """§6.6."""

    path: bytes
    attrs: Attrs


class Rmdir(NamedTuple):
    """§6.6."""

    path: bytes


class Realpath(NamedTuple):
    """§6.11."""

    path: bytes


class Stat(NamedTuple):
    """§6.8; follows a symlink."""

    path: bytes


class Rename(NamedTuple):
    """§6.5; fails if *newpath* exists."""

    oldpath: bytes
    newpath: bytes


class Readlink(NamedTuple):
    """§6.10."""

    path: bytes


class Symlink(NamedTuple):
    """§6.10, on the wire as OpenSSH has it: the target first, then the new link.

    The draft says linkpath first.  OpenSSH got it the other way round, and most servers and clients
    followed, but not all.  Source: OpenSSH PROTOCOL §4.1.
    """

    targetpath: bytes
    linkpath: bytes
    as_drafted: bool = False
    """On the wire linkpath comes first.  Only who sends it can know; what comes in has it unset."""


SYMLINK_AS_OPENSSH: Final = "netfs symlink-as-OpenSSH"
"""After SSH-2.0-, of either end.  Many look for that name to know in which order the other one has
the paths of SYMLINK."""

Request = (
    Open
    | Close
    | Read
    | Write
    | Lstat
    | Fstat
    | Setstat
    | Fsetstat
    | Opendir
    | Readdir
    | Remove
    | Mkdir
    | Rmdir
    | Realpath
    | Stat
    | Rename
    | Readlink
    | Symlink
    | ExtendedRequest
)


class Row(NamedTuple):
    """One request type."""

    packet_type: PacketType
    response: type[Response]  # what answers it, beside STATUS
    encode: Callable[[Any, bool], bytes] | None
    """What follows the id; the flag: extended attributes.  None: one string, all there is."""
    decode: Callable[[Reader], Request]


_U32: Final = struct.Struct(">I")
_OFFSET_LENGTH: Final = struct.Struct(">QI")
_HEAD: Final = struct.Struct(">IBI")
_HEAD_LENGTH: Final = struct.Struct(">IBII")
_EMPTY: Final = Attrs()


def _path_or_handle(
    cls: Callable[[bytes], Request],
) -> tuple[None, Callable[[Reader], Request]]:
    """Encoder and decoder of a request that is one string."""
    return None, lambda reader: cls(reader.string())


def _two_strings(
    cls: Callable[[bytes, bytes], Request],
) -> tuple[Callable[[Any, bool], bytes], Callable[[Reader], Request]]:
    return (
        lambda r, extended: string(r[0]) + string(r[1]),
        lambda reader: cls(reader.string(), reader.string()),
    )


def _encode_symlink(request: Symlink, extended: bool) -> bytes:
    target, link, as_drafted = request
    return string(link) + string(target) if as_drafted else string(target) + string(link)


def _string_attrs(
    cls: Callable[[bytes, Attrs], Request],
) -> tuple[Callable[[Any, bool], bytes], Callable[[Reader], Request]]:
    return (
        lambda r, extended: string(r[0]) + encode_attrs(r[1], extended),
        lambda reader: cls(reader.string(), decode_attrs(reader)),
    )


def _encode_open(request: Open, extended: bool) -> bytes:
    path, pflags, attrs = request
    more = b"\0\0\0\0" if attrs == _EMPTY else encode_attrs(attrs, extended)
    return _U32.pack(len(path)) + path + _U32.pack(pflags) + more


def _decode_open(reader: Reader) -> Open:
    return Open(reader.string(), reader.u32(), decode_attrs(reader))


def _encode_read(request: Read, extended: bool) -> bytes:
    handle, offset, length = request
    return _U32.pack(len(handle)) + handle + _OFFSET_LENGTH.pack(offset, length)


def _encode_write_head(request: Write, extended: bool) -> bytes:
    handle, offset, data = request
    size = sum(map(len, data))
    return _U32.pack(len(handle)) + handle + _OFFSET_LENGTH.pack(offset, size)


def _decode_write(reader: Reader) -> Write:
    return Write(reader.string(), reader.u64(), (reader.view(),))


REQUESTS: Final[Mapping[type, Row]] = {
    Open: Row(PacketType.OPEN, Handle, _encode_open, _decode_open),
    Close: Row(PacketType.CLOSE, StatusResponse, *_path_or_handle(Close)),
    Read: Row(
        PacketType.READ,
        Data,
        _encode_read,
        lambda reader: Read(reader.string(), *reader.unpack(_OFFSET_LENGTH)),
    ),
    Write: Row(PacketType.WRITE, StatusResponse, _encode_write_head, _decode_write),
    Lstat: Row(PacketType.LSTAT, AttrsResponse, *_path_or_handle(Lstat)),
    Fstat: Row(PacketType.FSTAT, AttrsResponse, *_path_or_handle(Fstat)),
    Setstat: Row(PacketType.SETSTAT, StatusResponse, *_string_attrs(Setstat)),
    Fsetstat: Row(PacketType.FSETSTAT, StatusResponse, *_string_attrs(Fsetstat)),
    Opendir: Row(PacketType.OPENDIR, Handle, *_path_or_handle(Opendir)),
    Readdir: Row(PacketType.READDIR, Name, *_path_or_handle(Readdir)),
    Remove: Row(PacketType.REMOVE, StatusResponse, *_path_or_handle(Remove)),
    Mkdir: Row(PacketType.MKDIR, StatusResponse, *_string_attrs(Mkdir)),
    Rmdir: Row(PacketType.RMDIR, StatusResponse, *_path_or_handle(Rmdir)),
    Realpath: Row(PacketType.REALPATH, Name, *_path_or_handle(Realpath)),
    Stat: Row(PacketType.STAT, AttrsResponse, *_path_or_handle(Stat)),
    Rename: Row(PacketType.RENAME, StatusResponse, *_two_strings(Rename)),
    Readlink: Row(PacketType.READLINK, Name, *_path_or_handle(Readlink)),
    Symlink: Row(
        PacketType.SYMLINK,
        StatusResponse,
        _encode_symlink,
        lambda reader: Symlink(reader.string(), reader.string()),
    ),
    **{
        cls: Row(PacketType.EXTENDED, row.response, encode_extended, decode_extended)
        for cls, row in EXTENSIONS.items()
    },
    Extended: Row(PacketType.EXTENDED, ExtendedReply, encode_extended, decode_extended),
}

_DECODERS: Final = {int(row.packet_type): row.decode for row in REQUESTS.values()}


def encode_request(
    request_id: int, request: Request, *, extended_attrs: bool = False
) -> tuple[Buffer, ...]:
    """The whole packet with its length, in buffers to be written one after the other.

    Raises:
        LocalProtocolError: a value that the protocol can't say.
    """
    packet_type, _, encode, _ = REQUESTS[type(request)]
    if encode is None:
        fields: tuple[Any, ...] = request
        text = fields[0]
        size = len(text)
        return (_HEAD_LENGTH.pack(9 + size, packet_type, request_id, size) + text,)
    try:
        body = encode(request, extended_attrs)
    except struct.error as exc:
        raise LocalProtocolError(f"{type(request).__name__} can't be sent: {exc}") from exc
    if type(request) is Write:
        size = len(body) + sum(map(len, request.data))
        return (_HEAD.pack(5 + size, packet_type, request_id) + body, *request.data)
    return (_HEAD.pack(5 + len(body), packet_type, request_id) + body,)


def decode_request(packet_type: int, reader: Reader) -> Request | None:
    """The request whose type and id were read already; None for a type that v3 doesn't have.

    Raises:
        Truncated: the packet ends inside.
        RemoteProtocolError: it can't be understood.
    """
    decode = _DECODERS.get(packet_type)
    if decode is None:
        return None
    request = decode(reader)
    if len(reader):
        raise RemoteProtocolError(f"{len(reader)} bytes after a {type(request).__name__}")
    return request
