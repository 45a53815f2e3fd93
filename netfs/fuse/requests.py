"""Requests of the kernel as typed values, and their decoding.

One class per meaning: FORGET and BATCH_FORGET are one, RENAME and RENAME2 are one; validity masks
become None.  The values are not frozen because freezing doubles what making one costs, and one is
made per request; nobody changes them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from netfs.fuse import abi
from netfs.fuse.abi import Opcode
from netfs.fuse.errors import MalformedRequest, NameTooLong
from netfs.wire import Buffer

Header = tuple[int, int, int, int, int, int, int, int, int]
"""struct fuse_in_header: length of the message, opcode, unique, nodeid, uid, gid, pid, length of
the extensions behind the body (in units of 8 bytes; 0 unless asked for), padding."""

HEADER_SIZE: Final = abi.IN_HEADER.size


@dataclass(slots=True)
class Request:
    """What every request has, as the header brings it."""

    unique: int
    nodeid: int
    uid: int  # fsuid, as seen in the mount's user namespace
    gid: int
    pid: int  # thread id of the caller; 0: the kernel itself, or unseen from here


@dataclass(slots=True)
class Lookup(Request):
    name: bytes


@dataclass(slots=True)
class Forget(Request):
    """FORGET and BATCH_FORGET; there is no reply."""

    entries: tuple[tuple[int, int], ...]  # (nodeid, nlookup)


@dataclass(slots=True)
class GetAttr(Request):
    fh: int | None


@dataclass(slots=True)
class SetAttr(Request):
    """What is None stays as it is; all of it may be None (then only the attributes are wanted).

    With ``atime_now`` and ``mtime_now`` the server's clock is meant and the ``_ns`` is None.
    """

    fh: int | None
    mode: int | None  # with the file type
    owner: int | None  # the new uid
    group: int | None
    size: int | None
    atime_ns: int | None  # since the epoch
    mtime_ns: int | None
    ctime_ns: int | None
    atime_now: bool
    mtime_now: bool
    kill_suidgid: bool


@dataclass(slots=True)
class ReadLink(Request):
    pass


@dataclass(slots=True)
class Symlink(Request):
    name: bytes
    target: bytes


@dataclass(slots=True)
class MkNod(Request):
    name: bytes
    mode: int  # with the file type
    rdev: int
    umask: int


@dataclass(slots=True)
class MkDir(Request):
    name: bytes
    mode: int
    umask: int


@dataclass(slots=True)
class Unlink(Request):
    name: bytes


@dataclass(slots=True)
class RmDir(Request):
    name: bytes


@dataclass(slots=True)
class Rename(Request):
    """RENAME and RENAME2."""

    name: bytes
    new_parent: int
    new_name: bytes
    flags: int  # abi.RENAME_*


@dataclass(slots=True)
class Link(Request):
    """``nodeid`` is the directory of the new name."""

    old_nodeid: int
    name: bytes


@dataclass(slots=True)
class Open(Request):
    flags: int  # of open(2), without O_CREAT, O_EXCL, O_NOCTTY; O_APPEND means nothing here
    kill_suidgid: bool


@dataclass(slots=True)
class OpenDir(Request):
    flags: int


@dataclass(slots=True)
class Create(Request):
    name: bytes
    flags: int  # of open(2), all of them
    mode: int  # with S_IFREG; the umask is taken off already unless DONT_MASK was agreed on
    umask: int
    kill_suidgid: bool


@dataclass(slots=True)
class Read(Request):
    fh: int
    offset: int
    size: int  # bytes; a shorter answer means the end of the file
    flags: int  # of the open file


@dataclass(slots=True)
class Write(Request):
    fh: int
    offset: int
    data: Buffer  # belongs to whoever takes the request; nobody writes into it again
    flags: int  # of the open file
    from_cache: bool  # from the page cache: fh is a guess, uid and pid are 0
    kill_suidgid: bool


@dataclass(slots=True)
class StatFs(Request):
    pass


@dataclass(slots=True)
class Release(Request):
    fh: int
    flags: int  # of the open file
    flush: bool


@dataclass(slots=True)
class ReleaseDir(Request):
    fh: int


@dataclass(slots=True)
class Flush(Request):
    fh: int
    lock_owner: int


@dataclass(slots=True)
class FSync(Request):
    fh: int
    datasync: bool


@dataclass(slots=True)
class ReadDir(Request):
    fh: int
    offset: int  # 0, or the cookie given with an entry
    size: int  # bytes


@dataclass(slots=True)
class ReadDirPlus(ReadDir):
    pass


@dataclass(slots=True)
class Access(Request):
    mask: int  # R_OK, W_OK, X_OK


@dataclass(slots=True)
class FAllocate(Request):
    fh: int
    offset: int
    length: int
    mode: int  # FALLOC_FL_*


@dataclass(slots=True)
class LSeek(Request):
    fh: int
    offset: int
    whence: int  # SEEK_DATA or SEEK_HOLE


@dataclass(slots=True)
class CopyFileRange(Request):
    fh_in: int
    offset_in: int
    nodeid_out: int
    fh_out: int
    offset_out: int
    length: int  # bytes


@dataclass(slots=True)
class StatX(Request):
    fh: int | None
    sx_flags: int
    sx_mask: int


@dataclass(slots=True)
class Interrupt(Request):
    target: int  # ``unique`` of the request meant


@dataclass(slots=True)
class Destroy(Request):
    pass


@dataclass(slots=True)
class Init(Request):
    major: int
    minor: int
    max_readahead: int  # bytes
    flags: int  # both words joined: abi.InitFlag


@dataclass(slots=True)
class NotifyReply(Request):
    """The answer to a RETRIEVE, which is never sent."""


@dataclass(slots=True)
class Unserved(Request):
    """A request that is refused whatever it says, so its body is not looked at."""

    opcode: int


def decode(buf: Buffer, minor: int = abi.MINOR_MAX) -> Request:
    """Decode one message as read from the device.

    The memory of a WRITE's data is *buf*'s own.

    Args:
        buf: the message.
        minor: what INIT agreed on; before INIT it means nothing.

    Raises:
        MalformedRequest: it is truncated, or its names are.
        NameTooLong
    """
    if len(buf) < HEADER_SIZE:
        raise MalformedRequest(f"{len(buf)} bytes are no request")
    return decode_body(decode_header(buf), memoryview(buf), minor)


decode_header: Final[Callable[[Buffer], Header]] = abi.IN_HEADER.unpack_from
"""The first HEADER_SIZE bytes of a message, which must be there."""


def decode_body(header: Header, message: memoryview, minor: int = abi.MINOR_MAX) -> Request:
    """What follows the *header* of *message*; extensions at its end are cut off.

    Raises:
        MalformedRequest, NameTooLong: see ``decode``.
    """
    _, opcode, unique, nodeid, uid, gid, pid, extlen, _ = header
    body = message[HEADER_SIZE:]
    if extlen and minor >= 38:
        if extlen * 8 > len(body):
            raise MalformedRequest(f"opcode {opcode}: extensions of {extlen * 8} bytes")
        body = body[: len(body) - extlen * 8]
    named = _NAMES_ALONE.get(opcode)
    if named is not None:
        return named(unique, nodeid, uid, gid, pid, _name(body, 0))
    decoder = _DECODERS.get(opcode)
    if decoder is None:
        return Unserved(unique, nodeid, uid, gid, pid, opcode)
    try:
        return decoder((unique, nodeid, uid, gid, pid), body)
    except struct.error as error:
        raise MalformedRequest(f"opcode {opcode} with {len(body)} bytes") from error


_Head = tuple[int, int, int, int, int]  # the fields of ``Request``


def _names(body: memoryview, start: int, count: int) -> list[bytes]:
    """*count* NUL-terminated names that fill *body* from *start* on."""
    names = bytes(body[start:]).split(b"\0")
    # The last NUL leaves one empty piece behind it.
    if len(names) != count + 1 or names[count] or not all(names[:count]):
        raise MalformedRequest(f"not {count} names: {bytes(body[start:])[:64]!r}")
    return names


def _checked(name: bytes) -> bytes:
    if len(name) > abi.NAME_MAX:
        raise NameTooLong(f"a name of {len(name)} bytes")
    return name


def _name(body: memoryview, start: int) -> bytes:
    name = bytes(body[start:])
    if len(name) < 2 or name.find(b"\0") != len(name) - 1:
        raise MalformedRequest(f"not a name: {name[:64]!r}")
    return _checked(name[:-1])


def _forget(h: _Head, body: memoryview) -> Request:
    (nlookup,) = abi.FORGET_IN.unpack_from(body)
    return Forget(*h, ((h[1], nlookup),))


def _batch_forget(h: _Head, body: memoryview) -> Request:
    count, _ = abi.BATCH_FORGET_IN.unpack_from(body)
    start = abi.BATCH_FORGET_IN.size
    end = start + count * abi.FORGET_ONE.size
    if end > len(body):
        raise MalformedRequest(f"{count} forgets in {len(body)} bytes")
    entries = tuple(abi.FORGET_ONE.iter_unpack(body[start:end]))
    return Forget(*h, entries)


def _getattr(h: _Head, body: memoryview) -> Request:
    flags, _, fh = abi.GETATTR_IN.unpack_from(body)
    return GetAttr(*h, fh if flags & abi.GETATTR_FH else None)


def _setattr(h: _Head, body: memoryview) -> Request:
    (
        valid, _, fh, size, _, atime, mtime, ctime,
        atimensec, mtimensec, ctimensec, mode, _, uid, gid, _,
    ) = abi.SETATTR_IN.unpack_from(body)  # fmt: skip
    atime_now = bool(valid & abi.FATTR_ATIME_NOW)
    mtime_now = bool(valid & abi.FATTR_MTIME_NOW)
    return SetAttr(
        *h,
        fh if valid & abi.FATTR_FH else None,
        mode if valid & abi.FATTR_MODE else None,
        uid if valid & abi.FATTR_UID else None,
        gid if valid & abi.FATTR_GID else None,
        size if valid & abi.FATTR_SIZE else None,
        # The kernel sends a clock value beside the NOW flags too: it is the wrong clock.
        atime * 10**9 + atimensec if valid & abi.FATTR_ATIME and not atime_now else None,
        mtime * 10**9 + mtimensec if valid & abi.FATTR_MTIME and not mtime_now else None,
        ctime * 10**9 + ctimensec if valid & abi.FATTR_CTIME else None,
        atime_now,
        mtime_now,
        bool(valid & abi.FATTR_KILL_SUIDGID),
    )


def _readlink(h: _Head, body: memoryview) -> Request:
    return ReadLink(*h)


def _symlink(h: _Head, body: memoryview) -> Request:
    name, target, _ = _names(body, 0, 2)
    return Symlink(*h, _checked(name), target)


def _mknod(h: _Head, body: memoryview) -> Request:
    mode, rdev, umask, _ = abi.MKNOD_IN.unpack_from(body)
    name = _name(body, abi.MKNOD_IN.size)
    return MkNod(*h, name, mode, rdev, umask)


def _mkdir(h: _Head, body: memoryview) -> Request:
    mode, umask = abi.MKDIR_IN.unpack_from(body)
    name = _name(body, abi.MKDIR_IN.size)
    return MkDir(*h, name, mode, umask)


def _two_names(body: memoryview, start: int) -> tuple[bytes, bytes]:
    name, new_name, _ = _names(body, start, 2)
    return _checked(name), _checked(new_name)


def _rename(h: _Head, body: memoryview) -> Request:
    (new_parent,) = abi.RENAME_IN.unpack_from(body)
    name, new_name = _two_names(body, abi.RENAME_IN.size)
    return Rename(*h, name, new_parent, new_name, 0)


def _rename2(h: _Head, body: memoryview) -> Request:
    new_parent, flags, _ = abi.RENAME2_IN.unpack_from(body)
    name, new_name = _two_names(body, abi.RENAME2_IN.size)
    return Rename(*h, name, new_parent, new_name, flags)


def _link(h: _Head, body: memoryview) -> Request:
    (old_nodeid,) = abi.LINK_IN.unpack_from(body)
    name = _name(body, abi.LINK_IN.size)
    return Link(*h, old_nodeid, name)


def _open(h: _Head, body: memoryview) -> Request:
    flags, open_flags = abi.OPEN_IN.unpack_from(body)
    kill = bool(open_flags & abi.OPEN_KILL_SUIDGID)
    return Open(*h, flags, kill)


def _opendir(h: _Head, body: memoryview) -> Request:
    flags, _ = abi.OPEN_IN.unpack_from(body)
    return OpenDir(*h, flags)


def _create(h: _Head, body: memoryview) -> Request:
    flags, mode, umask, open_flags = abi.CREATE_IN.unpack_from(body)
    name = _name(body, abi.CREATE_IN.size)
    kill = bool(open_flags & abi.OPEN_KILL_SUIDGID)
    return Create(*h, name, flags, mode, umask, kill)


def _read(h: _Head, body: memoryview) -> Request:
    fh, offset, size, _, _, flags, _ = abi.READ_IN.unpack_from(body)
    return Read(*h, fh, offset, size, flags)


def _write(h: _Head, body: memoryview) -> Request:
    fh, offset, size, write_flags, _, flags, _ = abi.WRITE_IN.unpack_from(body)
    data = body[abi.WRITE_IN.size :]
    if len(data) != size:
        raise MalformedRequest(f"WRITE of {size} bytes brings {len(data)}")
    return Write(
        *h,
        fh,
        offset,
        data,
        flags,
        bool(write_flags & abi.WRITE_CACHE),
        bool(write_flags & abi.WRITE_KILL_SUIDGID),
    )


def _statfs(h: _Head, body: memoryview) -> Request:
    return StatFs(*h)


def _release(h: _Head, body: memoryview) -> Request:
    fh, flags, release_flags, _ = abi.RELEASE_IN.unpack_from(body)
    flush = bool(release_flags & abi.RELEASE_FLUSH)
    return Release(*h, fh, flags, flush)


def _releasedir(h: _Head, body: memoryview) -> Request:
    fh, _, _, _ = abi.RELEASE_IN.unpack_from(body)
    return ReleaseDir(*h, fh)


def _flush(h: _Head, body: memoryview) -> Request:
    fh, _, _, lock_owner = abi.FLUSH_IN.unpack_from(body)
    return Flush(*h, fh, lock_owner)


def _fsync(h: _Head, body: memoryview) -> Request:
    fh, flags, _ = abi.FSYNC_IN.unpack_from(body)
    return FSync(*h, fh, bool(flags & abi.FSYNC_FDATASYNC))


def _readdir(h: _Head, body: memoryview) -> Request:
    fh, offset, size, _, _, _, _ = abi.READ_IN.unpack_from(body)
    return ReadDir(*h, fh, offset, size)


def _readdirplus(h: _Head, body: memoryview) -> Request:
    fh, offset, size, _, _, _, _ = abi.READ_IN.unpack_from(body)
    return ReadDirPlus(*h, fh, offset, size)


def _access(h: _Head, body: memoryview) -> Request:
    mask, _ = abi.ACCESS_IN.unpack_from(body)
    return Access(*h, mask)


def _fallocate(h: _Head, body: memoryview) -> Request:
    fh, offset, length, mode, _ = abi.FALLOCATE_IN.unpack_from(body)
    return FAllocate(*h, fh, offset, length, mode)


def _lseek(h: _Head, body: memoryview) -> Request:
    fh, offset, whence, _ = abi.LSEEK_IN.unpack_from(body)
    return LSeek(*h, fh, offset, whence)


def _copy_file_range(h: _Head, body: memoryview) -> Request:
    fh_in, offset_in, nodeid_out, fh_out, offset_out, length, _ = (
        abi.COPY_FILE_RANGE_IN.unpack_from(body)
    )
    return CopyFileRange(
        *h,
        fh_in, offset_in, nodeid_out, fh_out, offset_out, length,
    )  # fmt: skip


def _statx(h: _Head, body: memoryview) -> Request:
    flags, _, fh, sx_flags, sx_mask = abi.STATX_IN.unpack_from(body)
    return StatX(
        *h,
        fh if flags & abi.GETATTR_FH else None,
        sx_flags,
        sx_mask,
    )


def _interrupt(h: _Head, body: memoryview) -> Request:
    (target,) = abi.INTERRUPT_IN.unpack_from(body)
    return Interrupt(*h, target)


def _destroy(h: _Head, body: memoryview) -> Request:
    return Destroy(*h)


def _init(h: _Head, body: memoryview) -> Request:
    flags2 = 0
    if len(body) >= abi.INIT_IN_EXT.size:
        major, minor, max_readahead, flags, flags2, *_ = abi.INIT_IN_EXT.unpack_from(body)
    else:
        major, minor, max_readahead, flags = abi.INIT_IN.unpack_from(body)
    if not flags & abi.InitFlag.INIT_EXT:
        flags2 = 0
    return Init(*h, major, minor, max_readahead, flags | flags2 << 32)


def _notify_reply(h: _Head, body: memoryview) -> Request:
    return NotifyReply(*h)


_NAMES_ALONE: Final[Mapping[int, Callable[[int, int, int, int, int, bytes], Request]]] = {
    Opcode.LOOKUP: Lookup,
    Opcode.UNLINK: Unlink,
    Opcode.RMDIR: RmDir,
}
"""Whose body is a name."""

_DECODERS: Final[Mapping[int, Callable[[_Head, memoryview], Request]]] = {
    Opcode.FORGET: _forget,
    Opcode.GETATTR: _getattr,
    Opcode.SETATTR: _setattr,
    Opcode.READLINK: _readlink,
    Opcode.SYMLINK: _symlink,
    Opcode.MKNOD: _mknod,
    Opcode.MKDIR: _mkdir,
    Opcode.RENAME: _rename,
    Opcode.LINK: _link,
    Opcode.OPEN: _open,
    Opcode.READ: _read,
    Opcode.WRITE: _write,
    Opcode.STATFS: _statfs,
    Opcode.RELEASE: _release,
    Opcode.FSYNC: _fsync,
    Opcode.FLUSH: _flush,
    Opcode.INIT: _init,
    Opcode.OPENDIR: _opendir,
    Opcode.READDIR: _readdir,
    Opcode.RELEASEDIR: _releasedir,
    Opcode.ACCESS: _access,
    Opcode.CREATE: _create,
    Opcode.INTERRUPT: _interrupt,
    Opcode.DESTROY: _destroy,
    Opcode.NOTIFY_REPLY: _notify_reply,
    Opcode.BATCH_FORGET: _batch_forget,
    Opcode.FALLOCATE: _fallocate,
    Opcode.READDIRPLUS: _readdirplus,
    Opcode.RENAME2: _rename2,
    Opcode.LSEEK: _lseek,
    Opcode.COPY_FILE_RANGE: _copy_file_range,
    Opcode.STATX: _statx,
}

SERVED: Final = frozenset({*_NAMES_ALONE, *_DECODERS})
"""Opcodes; what is not among them decodes to ``Unserved``."""
