"""What a server answers: one value per response packet, its bytes both ways.

Which response belongs to which request is the table of ``requests.py``.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from netfs.sftp.attrs import (
    FULL_SIZE,
    USUAL,
    USUAL_LAYOUT,
    Attrs,
    decode_attrs,
    decode_attrs_at,
    decode_full_attrs,
    encode_attrs,
)
from netfs.sftp.codes import PacketType, Status
from netfs.sftp.errors import RemoteProtocolError
from netfs.wire import Buffer, Reader, Truncated, string


class StatusResponse(NamedTuple):
    """The outcome, in words too.  Source: draft-ietf-secsh-filexfer-02 §7."""

    code: int  # a Status, or what a server invents
    message: bytes = b""
    language: bytes = b""


class Handle(NamedTuple):
    """An opened file or directory; at most 256 bytes, opaque.  Source: §6.2."""

    handle: bytes


class Data(NamedTuple):
    """Bytes of a file, a view into the received packet.  Source: §7."""

    data: Buffer


class NameEntry(NamedTuple):
    """One name with the line that ``ls -l`` would show for it."""

    filename: bytes
    longname: bytes
    attrs: Attrs  # received: with nlink where only the longname tells it


class Name(NamedTuple):
    """Names of a READDIR, or the one of a REALPATH or READLINK.  Source: §7."""

    entries: tuple[NameEntry, ...]


class AttrsResponse(NamedTuple):
    """Attributes of a STAT, LSTAT or FSTAT.  Source: §7."""

    attrs: Attrs


class ExtendedReply(NamedTuple):
    """Whatever the extension defines; ``extensions.py`` knows the bodies.  Source: §8."""

    data: Buffer


Response = StatusResponse | Handle | Data | Name | AttrsResponse | ExtendedReply

MAX_HANDLE: Final = 256
"""Bytes of a handle at most.  Source: §6.2."""

_HEAD: Final = struct.Struct(">IBI")
_DATA_HEAD: Final = struct.Struct(">IBII")
_U32: Final = struct.Struct(">I")


def encode_response(
    request_id: int, response: Response, *, extended_attrs: bool = False
) -> tuple[Buffer, ...]:
    """The whole packet with its length, in buffers to be written one after the other."""
    if type(response) is Data:  # the payload stays as it is
        size = len(response.data)
        head = _DATA_HEAD.pack(9 + size, PacketType.DATA, request_id, size)
        return (head, response.data)
    packet_type, encode = _ENCODERS[type(response)]
    body = encode(response, extended_attrs)
    return (_HEAD.pack(5 + len(body), packet_type, request_id) + body,)


def _encode_status(response: StatusResponse, extended: bool) -> bytes:
    return _U32.pack(response.code) + string(response.message) + string(response.language)


def _encode_name(response: Name, extended: bool) -> bytes:
    parts = [_U32.pack(len(response.entries))]
    for filename, longname, attrs in response.entries:
        parts.append(
            b"".join(
                (
                    _U32.pack(len(filename)),
                    filename,
                    _U32.pack(len(longname)),
                    longname,
                    encode_attrs(attrs, extended),
                )
            )
        )
    return b"".join(parts)


_ENCODERS: Final[Mapping[type, tuple[PacketType, Callable[[Any, bool], bytes]]]] = {
    StatusResponse: (PacketType.STATUS, _encode_status),
    Handle: (PacketType.HANDLE, lambda response, extended: string(response.handle)),
    Data: (PacketType.DATA, lambda response, extended: string(response.data)),
    Name: (PacketType.NAME, _encode_name),
    AttrsResponse: (PacketType.ATTRS, lambda r, extended: encode_attrs(r.attrs, extended)),
    ExtendedReply: (PacketType.EXTENDED_REPLY, lambda response, extended: bytes(response.data)),
}


def decode_response(packet_type: int, reader: Reader) -> Response:
    """The response whose type and request id were read already.

    Raises:
        Truncated: the packet ends inside.
        RemoteProtocolError: not a response, or one that can't be.
    """
    decode = _DECODERS.get(packet_type)
    if decode is None:
        raise RemoteProtocolError(f"packet type {packet_type} is no response")
    response = decode(reader)
    if len(reader):
        raise RemoteProtocolError(f"{len(reader)} bytes after a {type(response).__name__}")
    return response


_BODY: Final = 5  # bytes of type and id before it
_TEXT: Final = _BODY + 4  # where the bytes of a string begin that is the whole body
_USUAL_ATTRS_SIZE: Final = _BODY + USUAL_LAYOUT.size
_ATTRS: Final = int(PacketType.ATTRS)
_STATUS: Final = int(PacketType.STATUS)
_DATA: Final = int(PacketType.DATA)
_HANDLE: Final = int(PacketType.HANDLE)
_USUAL_STATUSES: Final = {
    _encode_status(response, False): response
    for response in (
        StatusResponse(Status.OK, b"Success"),
        StatusResponse(Status.EOF, b"End of file"),
        StatusResponse(Status.NO_SUCH_FILE, b"No such file"),
        StatusResponse(Status.PERMISSION_DENIED, b"Permission denied"),
        StatusResponse(Status.FAILURE, b"Failure"),
        StatusResponse(Status.OP_UNSUPPORTED, b"Operation unsupported"),
    )
}
"""In OpenSSH's words.  Source: its sftp-server.c, status_messages."""
_LONGEST_STATUS: Final = _BODY + max(map(len, _USUAL_STATUSES))

_new = tuple.__new__  # a NamedTuple, without the call of its own constructor


def decode_usual(packet_type: int, packet: memoryview) -> Response | None:
    """What ``decode_response`` makes of *packet*, faster, for what usually comes.

    None: it is something else.
    """
    size = len(packet)
    if packet_type == _ATTRS:
        if size == _USUAL_ATTRS_SIZE:
            flags, length, uid, gid, mode, atime, mtime = USUAL_LAYOUT.unpack_from(packet, _BODY)
            if flags != USUAL:
                return None
            fields = length, uid, gid, mode, atime, mtime, None, None, None, None, None, None
            return _new(AttrsResponse, (_new(Attrs, fields),))
        attrs = decode_full_attrs(packet, _BODY) if size == _BODY + FULL_SIZE else None
        return None if attrs is None else _new(AttrsResponse, (attrs,))
    if packet_type == _STATUS:
        return _USUAL_STATUSES.get(bytes(packet[_BODY:])) if size <= _LONGEST_STATUS else None
    if size < _TEXT or _U32.unpack_from(packet, _BODY)[0] != size - _TEXT:
        return None
    if packet_type == _DATA:
        return _new(Data, (_kept(packet[_TEXT:]),))
    if packet_type == _HANDLE and size <= _TEXT + MAX_HANDLE:
        return _new(Handle, (bytes(packet[_TEXT:]),))
    return None


def _decode_status(reader: Reader) -> StatusResponse:
    code = reader.u32()
    if not len(reader):  # servers of before draft 02 end here
        return StatusResponse(code)
    message = reader.string()
    return StatusResponse(code, message, reader.string() if len(reader) else b"")


def _decode_handle(reader: Reader) -> Handle:
    handle = reader.string()
    if len(handle) > MAX_HANDLE:
        raise RemoteProtocolError(f"a handle of {len(handle)} bytes")
    return Handle(handle)


def _decode_data(reader: Reader) -> Data:
    return Data(_kept(reader.view()))


def _kept(data: memoryview) -> Buffer:
    """A small view would keep the whole received piece alive for as long as it is cached."""
    whole: Any = data.obj
    return bytes(data) if 2 * len(data) < len(whole) else data


def longname_nlink(longname: bytes) -> int | None:
    """The link count that ``ls -l`` shows: the second field, if it is a number.

    The draft leaves the line's form open (§7); OpenSSH writes ``-rw-r--r--    2 user group ...``
    and "?" for a count that it doesn't know.
    """
    fields = longname.split(None, 2)
    if len(fields) < 3 or len(fields[0]) < 10 or len(fields[1]) > 10 or not fields[1].isdigit():
        return None
    return int(fields[1]) or None


_LONGNAME_START: Final = 16
"""Bytes of OpenSSH's longname with all of the count and the beginning of the user's name."""

_nlink_of_start = functools.lru_cache(maxsize=1024)(longname_nlink)
"""A directory's entries differ little in their modes and counts."""


_SMALLEST_ENTRY: Final = 12  # two empty strings and the flags of empty attributes


def _decode_name(reader: Reader) -> Name:
    """In one loop without a call per value: listings are most of what a walk waits for."""
    count = reader.u32()
    if count * _SMALLEST_ENTRY > len(reader):
        raise RemoteProtocolError(f"{count} names announced in {len(reader)} bytes")
    body = bytes(reader.rest())
    end = len(body)
    pos = 0
    entries: list[NameEntry] = []
    nlink_at = _nlink_of_start
    length_at, usual_at, usual_size = _U32.unpack_from, USUAL_LAYOUT.unpack_from, USUAL_LAYOUT.size
    try:
        for _ in range(count):
            start = pos + 4
            pos = start + length_at(body, pos)[0]
            filename = body[start:pos]
            start = pos + 4
            pos = start + length_at(body, pos)[0]
            longname = body[start:pos]
            nlink = nlink_at(longname[:_LONGNAME_START]) or longname_nlink(longname)
            attrs = None
            if pos + usual_size <= end:
                flags, size, uid, gid, mode, atime, mtime = usual_at(body, pos)
                if flags == USUAL:
                    fields = size, uid, gid, mode, atime, mtime, nlink, None, None, None, None, None
                    attrs = _new(Attrs, fields)
                    pos += usual_size
            if attrs is None:
                attrs, pos = decode_attrs_at(body, pos)
                if nlink is not None and attrs.nlink is None:
                    attrs = attrs._replace(nlink=nlink)
            entries.append(_new(NameEntry, (filename, longname, attrs)))
    except struct.error as exc:  # also for a name that ends behind the packet: its attributes do
        raise Truncated("names") from exc
    if pos != end:
        raise RemoteProtocolError(f"{end - pos} bytes after a Name")
    return Name(tuple(entries))


_DECODERS: Final[Mapping[int, Callable[[Reader], Response]]] = {
    PacketType.STATUS: _decode_status,
    PacketType.HANDLE: _decode_handle,
    PacketType.DATA: _decode_data,
    PacketType.NAME: _decode_name,
    PacketType.ATTRS: lambda reader: AttrsResponse(decode_attrs(reader)),
    PacketType.EXTENDED_REPLY: lambda reader: ExtendedReply(reader.rest()),
}
