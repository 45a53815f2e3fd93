"""ATTRS, the attributes of a file in SFTP v3, and what ``attrs@netfs`` adds.

Source: draft-ietf-secsh-filexfer-02 §5.  Identity and TTL do not belong here.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from netfs.sftp.errors import LocalProtocolError, RemoteProtocolError
from netfs.wire import Buffer, Reader, Truncated, string


class Attrs(NamedTuple):
    """Attributes; None means that the packet does not carry the field.

    The last six are only there with netfs's own server (docs/protocol.md), except ``nlink``,
    which a listing's longname may tell.
    """

    size: int | None = None  # bytes
    uid: int | None = None
    gid: int | None = None
    mode: int | None = None  # st_mode; "permissions" in the draft
    atime: int | None = None  # seconds since the epoch, u32
    mtime: int | None = None
    nlink: int | None = None
    ino: int | None = None
    blocks: int | None = None  # of 512 bytes
    atime_ns: int | None = None  # nanoseconds since the epoch
    mtime_ns: int | None = None
    ctime_ns: int | None = None


class StatVfs(NamedTuple):
    """Reply of statvfs@openssh.com.  Source: OpenSSH PROTOCOL §4.4 (there u64 each)."""

    bsize: int
    frsize: int
    blocks: int  # of frsize bytes
    bfree: int
    bavail: int
    files: int
    ffree: int
    favail: int
    fsid: int
    flag: int  # 1 read-only, 2 nosuid
    namemax: int


class Limits(NamedTuple):
    """Reply of limits@openssh.com; 0 means "not told".  Source: OpenSSH PROTOCOL §4.8."""

    max_packet: int = 0  # bytes
    max_read: int = 0  # bytes
    max_write: int = 0  # bytes
    max_handles: int = 0


_SIZE: Final = 0x1
_UIDGID: Final = 0x2
_PERMISSIONS: Final = 0x4
_ACMODTIME: Final = 0x8
_EXTENDED: Final = 0x8000_0000
# Plain ints: an IntFlag operation costs more than the decoding of a whole ATTRS.

USUAL: Final = _SIZE | _UIDGID | _PERMISSIONS | _ACMODTIME
"""What OpenSSH sends for each file."""
_USUAL_FIELDS: Final = struct.Struct(">QIIIII")
USUAL_LAYOUT: Final = struct.Struct(">IQIIIII")  # with the flags
_U32: Final = struct.Struct(">I")
_U64: Final = struct.Struct(">Q")
_TWO_U32: Final = struct.Struct(">II")

EXTENDED_NAME: Final = b"attrs@netfs"
_MAX_EXTENDED_PAIRS: Final = 64
"""More of them in one ATTRS is hostile: no known server sends any."""

_FULL_MASK: Final = 0x3F
_PAIR_LAYOUT: Final = struct.Struct(">IQQQqqq")
_FULL_LENGTH: Final = _PAIR_LAYOUT.size
_FULL_HEAD: Final = (
    _U32.pack(1) + _U32.pack(len(EXTENDED_NAME)) + EXTENDED_NAME + _U32.pack(_FULL_LENGTH)
)
_FULL: Final = USUAL | _EXTENDED
_FULL_LAYOUT: Final = struct.Struct(f">IQIIIII{len(_FULL_HEAD)}sIQQQqqq")
"""What netfs's own server sends for each file: flags, fields, the head of the pair, its body."""
FULL_SIZE: Final = _FULL_LAYOUT.size
_FIELD_LAYOUTS: Final = (_U64, _U64, _U64, *(struct.Struct(">q"),) * 3)
"""nlink, ino, blocks (u64), atime_ns, mtime_ns, ctime_ns (s64): bit n of the mask says that
field n is there.  Source: docs/protocol.md."""


def encode_attrs(attrs: Attrs, extended: bool = False) -> bytes:
    """ATTRS on the wire.  Source: draft §5.

    Args:
        attrs: uid goes with gid, atime with mtime: one alone can't be said.
        extended: add the ``attrs@netfs`` pair if one of its fields is set (the peer knows it).

    Raises:
        LocalProtocolError: a value out of its range, or a lonely half of a pair.
    """
    size, uid, gid, mode, atime, mtime, *more = attrs
    flags = 0
    parts = [b""]
    try:
        if size is not None:
            flags |= _SIZE
            parts.append(_U64.pack(size))
        if uid is not None or gid is not None:
            flags |= _UIDGID
            parts.append(_TWO_U32.pack(uid, gid))
        if mode is not None:
            flags |= _PERMISSIONS
            parts.append(_U32.pack(mode))
        if atime is not None or mtime is not None:
            flags |= _ACMODTIME
            parts.append(_TWO_U32.pack(atime, mtime))
        if extended and more.count(None) < len(more):
            flags |= _EXTENDED
            parts.append(_encode_pair(more))
    except struct.error as exc:
        raise LocalProtocolError(f"attributes can't be sent: {attrs}: {exc}") from exc
    parts[0] = _U32.pack(flags)
    return b"".join(parts)


def _encode_pair(fields: list[int | None]) -> bytes:
    """The count of pairs (one) and the ``attrs@netfs`` pair."""
    if None not in fields:
        return _FULL_HEAD + _PAIR_LAYOUT.pack(_FULL_MASK, *fields)
    mask = 0
    body = b""
    for bit, (value, layout) in enumerate(zip(fields, _FIELD_LAYOUTS, strict=True)):
        if value is not None:
            mask |= 1 << bit
            body += layout.pack(value)
    return _U32.pack(1) + string(EXTENDED_NAME) + string(_U32.pack(mask) + body)


def decode_attrs(reader: Reader) -> Attrs:
    """One ATTRS off *reader*; unknown extended pairs are skipped.

    Raises:
        Truncated: the packet ends inside.
        RemoteProtocolError: undefined flags (what follows can't be found) or a malformed pair.
    """
    flags = reader.u32()
    if flags == USUAL:
        return Attrs(*reader.unpack(_USUAL_FIELDS))
    if flags & ~(USUAL | _EXTENDED):
        raise RemoteProtocolError(f"attributes with undefined flags 0x{flags:08x}")
    size = uid = gid = mode = atime = mtime = None
    if flags & _SIZE:
        size = reader.u64()
    if flags & _UIDGID:
        uid, gid = reader.unpack(_TWO_U32)
    if flags & _PERMISSIONS:
        mode = reader.u32()
    if flags & _ACMODTIME:
        atime, mtime = reader.unpack(_TWO_U32)
    attrs = Attrs(size, uid, gid, mode, atime, mtime)
    if flags & _EXTENDED:
        count = reader.u32()
        if count > _MAX_EXTENDED_PAIRS:
            raise RemoteProtocolError(f"{count} extended attributes")
        for _ in range(count):
            name = reader.string()
            data = reader.view()
            if name == EXTENDED_NAME:
                attrs = _decode_pair(attrs, data)
    return attrs


_new = tuple.__new__  # a NamedTuple, without the call of its own constructor


def decode_full_attrs(packet: Buffer, pos: int) -> Attrs | None:
    """As ``decode_attrs`` at *pos*, if FULL_SIZE bytes of netfs's own server are there."""
    flags, size, uid, gid, mode, atime, mtime, head, mask, *more = _FULL_LAYOUT.unpack_from(
        packet, pos
    )
    if flags != _FULL or head != _FULL_HEAD or mask != _FULL_MASK:
        return None
    return _new(Attrs, (size, uid, gid, mode, atime, mtime, *more))


def decode_attrs_at(body: bytes, pos: int) -> tuple[Attrs, int]:
    """As ``decode_attrs``, at *pos*; returns where they end, too."""
    end = pos + FULL_SIZE
    if end <= len(body):
        full = decode_full_attrs(body, pos)
        if full is not None:
            return full, end
    reader = Reader(memoryview(body)[pos:])
    attrs = decode_attrs(reader)
    return attrs, len(body) - len(reader)


def _decode_pair(attrs: Attrs, data: memoryview) -> Attrs:
    try:
        reader = Reader(data)
        mask = reader.u32()
        some: list[int | None] = [
            reader.unpack(layout)[0] if mask >> bit & 1 else None
            for bit, layout in enumerate(_FIELD_LAYOUTS)
        ]
        # Bits and bytes after the known ones belong to a later version: not for us.
        return Attrs(*attrs[:6], *some)
    except Truncated as exc:
        raise RemoteProtocolError(f"malformed {EXTENDED_NAME.decode()} attribute") from exc
