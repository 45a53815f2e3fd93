"""What each request does: one row per request type, carried out on the export.

A handler is a function ``(client, request) -> Response`` that may block and raises OSError;
``answer`` is the only catch-all.  Whether a request changes something is said by its row, and
read-only exports are ``_refusal``, nothing else.  Who runs this in which thread belongs to
``session``.
"""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from netfs.server import attributes, export, handles, statuses
from netfs.sftp import extensions, requests
from netfs.sftp.attrs import Attrs, Limits
from netfs.sftp.codes import OpenFlag, Status
from netfs.sftp.connection import SERVER_MAX_PACKET, Asked, Init, Malformed, ServerConnection
from netfs.sftp.connection import Unknown as UnknownType
from netfs.sftp.responses import (
    AttrsResponse,
    Data,
    ExtendedReply,
    Handle,
    Name,
    NameEntry,
    Response,
    StatusResponse,
)
from netfs.wire import Buffer

log = logging.getLogger(__name__)
request_log = logging.getLogger("netfs.server.requests")

MAX_READ: Final = 256 * 1024
MAX_WRITE: Final = 256 * 1024
"""Bytes, told by ``limits@openssh.com``.  A longer READ gets so much, which v3 allows."""

MAX_NAMES: Final = 500
MAX_NAMES_BYTES: Final = 128 * 1024
"""Of one NAME: clients take packets of 256 KiB, and an entry may have 255 bytes of name twice."""

MAX_IDS: Final = 1024
"""Of one users-groups-by-id: each may cost a question to a directory service."""

_OFFSET_MAX: Final = 2**63 - 1

Event = Init | Asked | Malformed | UnknownType


class Client:
    """One session's state: what it may see and what it has open.  One thread at a time."""

    __slots__ = (
        "connection", "export", "gone", "handles", "label", "log_requests", "names", "read_only",
        "user",
    )  # fmt: skip

    def __init__(
        self,
        tree: export.Export,
        *,
        max_handles: int,
        read_only: bool = False,
        user: str = "",
        label: str = "",
        names: attributes.Names | None = None,
        log_requests: bool = False,
    ) -> None:
        self.connection = ServerConnection()
        self.export = tree
        self.handles = handles.HandleTable(max_handles)
        self.read_only = read_only
        self.user = user  # the login name, for ~user
        self.label = label  # of the session in the log
        self.names = names or attributes.Names()
        self.log_requests = log_requests
        self.gone = False  # set from another thread: long work may end


class Row(NamedTuple):
    """One request type."""

    function: Callable[[Client, Any], Response]
    writes: bool | Callable[[Any], bool]  # whether it changes the export


def answer(client: Client, event: Event) -> tuple[Buffer, ...]:
    """Carry out one event; the buffers to write.  Raises nothing."""
    if isinstance(event, Asked):
        request_id, request = event
        started = time.monotonic() if client.log_requests else 0.0
        response = carry_out(client, request)
        if client.log_requests:
            _log_request(client, request_id, request, response, time.monotonic() - started)
        return client.connection.send(request_id, response)
    if isinstance(event, Init):
        return (client.connection.send_version(OFFERED),)
    if isinstance(event, Malformed):
        reason = StatusResponse(Status.BAD_MESSAGE, event.reason.encode())
        return client.connection.send(event.request_id, reason)
    unknown = StatusResponse(Status.OP_UNSUPPORTED, b"SFTP version 3 has no such request")
    return client.connection.send(event.request_id, unknown)


def carry_out(client: Client, request: Any) -> Response:
    """Carry out one request.  Raises nothing."""
    row = ROWS[type(request)]
    try:
        if client.read_only:
            refused = _refusal(row, request)
            if refused is not None:
                return refused
        return row.function(client, request)
    except OSError as error:
        return statuses.status_of(error)
    except Exception:
        log.exception("%s failed in an unforeseen way", type(request).__name__)
        return StatusResponse(Status.FAILURE, b"internal error of the server")


def _refusal(row: Row, request: Any) -> StatusResponse | None:
    """The whole of read-only mode: the refusal of what would write."""
    writes = row.writes(request) if callable(row.writes) else row.writes
    if not writes:
        return None
    return statuses.status_of(OSError(errno.EROFS, "the export is read-only"))


def _log_request(
    client: Client, request_id: int, request: Any, response: Response, seconds: float
) -> None:
    fields = []
    for name, value in zip(request._fields, request, strict=True):
        if name == "data":
            fields.append(f"length={sum(map(len, value))}")  # never a file's content
        elif isinstance(value, bytes):
            fields.append(f"{name}={value.hex() if 'handle' in name else repr(value)[1:]}")
        elif isinstance(value, Attrs):
            fields += [f"{key}={one}" for key, one in value._asdict().items() if one is not None]
        else:
            fields.append(f"{name}={value}".replace(" ", ""))
    outcome = "ok"
    if type(response) is StatusResponse and response.code:
        outcome = repr(response.message.decode())
    elif type(response) is Data:
        outcome = str(len(response.data))
    request_log.info(
        "request session=%s id=%d type=%s %s outcome=%s us=%d",
        client.label, request_id, type(request).__name__, " ".join(fields), outcome,
        seconds * 1e6,
    )  # fmt: skip


# --- names ----------------------------------------------------------------------------------------


def _attrs(client: Client, st: os.stat_result) -> AttrsResponse:
    return AttrsResponse(attributes.from_stat(st, client.export.device))


def _lstat(client: Client, request: requests.Lstat) -> Response:
    return _attrs(client, client.export.lstat(request.path))


def _stat(client: Client, request: requests.Stat) -> Response:
    return _attrs(client, client.export.stat(request.path))


def _one_name(path: bytes) -> Name:
    return Name((NameEntry(path, path, Attrs()),))


def _realpath(client: Client, request: requests.Realpath) -> Response:
    return _one_name(client.export.realpath(request.path))


def _readlink(client: Client, request: requests.Readlink) -> Response:
    return _one_name(client.export.readlink(request.path))


def _symlink(client: Client, request: requests.Symlink) -> Response:
    client.export.symlink(request.targetpath, request.linkpath)
    return statuses.OK


def _hardlink(client: Client, request: extensions.Hardlink) -> Response:
    client.export.link(request.oldpath, request.newpath)
    return statuses.OK


def _rename(client: Client, request: requests.Rename) -> Response:
    client.export.rename(request.oldpath, request.newpath)
    return statuses.OK


def _posix_rename(client: Client, request: extensions.PosixRename) -> Response:
    client.export.posix_rename(request.oldpath, request.newpath)
    return statuses.OK


def _mkdir(client: Client, request: requests.Mkdir) -> Response:
    mode = request.attrs.mode
    client.export.mkdir(request.path, 0o777 if mode is None else mode & 0o7777)
    return statuses.OK


def _rmdir(client: Client, request: requests.Rmdir) -> Response:
    client.export.rmdir(request.path)
    return statuses.OK


def _remove(client: Client, request: requests.Remove) -> Response:
    client.export.remove(request.path)
    return statuses.OK


def _set_path(client: Client, path: bytes, attrs: Attrs, *, follow: bool) -> Response:
    if attrs.size is not None:
        client.export.truncate(path, _offset(attrs.size), follow=follow)
    owner, mode, times_ns = _settable(attrs)
    if owner or mode is not None or times_ns or attrs.size is None:
        # Also with nothing to set: a path that is not there is an error all the same.
        client.export.setattr(path, follow=follow, owner=owner, mode=mode, times_ns=times_ns)
    return statuses.OK


def _setstat(client: Client, request: requests.Setstat) -> Response:
    return _set_path(client, request.path, request.attrs, follow=True)


def _lsetstat(client: Client, request: extensions.Lsetstat) -> Response:
    return _set_path(client, request.path, request.attrs, follow=False)


def _settable(
    attrs: Attrs,
) -> tuple[tuple[int, int] | None, int | None, tuple[int | None, int | None] | None]:
    """Owner, permission bits and times (nanoseconds) that *attrs* carries."""
    owner = None
    if attrs.uid is not None and attrs.gid is not None:
        owner = (attrs.uid, attrs.gid)
    mode = None if attrs.mode is None else attrs.mode & 0o7777
    atime = _nanoseconds(attrs.atime_ns, attrs.atime)
    mtime = _nanoseconds(attrs.mtime_ns, attrs.mtime)
    return owner, mode, None if atime is None and mtime is None else (atime, mtime)


def _nanoseconds(exact: int | None, seconds: int | None) -> int | None:
    if exact is not None:
        return exact
    return None if seconds is None else seconds * 1_000_000_000


def _statvfs(client: Client, request: extensions.StatvfsRequest) -> Response:
    st = attributes.from_statvfs(client.export.statvfs(request.path))
    return ExtendedReply(extensions.encode_statvfs(st))


# --- files and directories ------------------------------------------------------------------------


def _offset(value: int) -> int:
    """Raises OSError EINVAL for what no file has (off_t is signed)."""
    if value > _OFFSET_MAX:
        raise OSError(errno.EINVAL, "an offset above 2**63-1")
    return value


def _open_flags(pflags: int) -> int:
    """open(2)'s flags.  Neither READ nor WRITE means reading, as OpenSSH has it."""
    if pflags & OpenFlag.WRITE:
        flags = os.O_RDWR if pflags & OpenFlag.READ else os.O_WRONLY
    else:
        flags = os.O_RDONLY
    if pflags & OpenFlag.APPEND:
        flags |= os.O_APPEND
    if pflags & OpenFlag.CREAT:
        flags |= os.O_CREAT
    if pflags & OpenFlag.TRUNC:
        flags |= os.O_TRUNC
    if pflags & OpenFlag.EXCL:
        flags |= os.O_EXCL
    return flags


def _open_writes(request: requests.Open) -> bool:
    return bool(
        request.pflags & (OpenFlag.WRITE | OpenFlag.APPEND | OpenFlag.CREAT | OpenFlag.TRUNC)
    )


def _open(client: Client, request: requests.Open) -> Response:
    client.handles.check_room()
    mode = request.attrs.mode
    fd = client.export.open(
        request.path, _open_flags(request.pflags), 0o666 if mode is None else mode & 0o7777
    )
    return Handle(client.handles.add(handles.OpenFile(fd)))


def _opendir(client: Client, request: requests.Opendir) -> Response:
    client.handles.check_room()
    return Handle(client.handles.add(handles.OpenDirectory(client.export.opendir(request.path))))


def _close(client: Client, request: requests.Close) -> Response:
    client.handles.close(request.handle)
    return statuses.OK


def _read(client: Client, request: requests.Read) -> Response:
    length = min(request.length, MAX_READ)
    data = os.pread(client.handles.file(request.handle).fd, length, _offset(request.offset))
    if data or not length:
        return Data(data)
    return statuses.EOF


def _write(client: Client, request: requests.Write) -> Response:
    fd = client.handles.file(request.handle).fd
    offset = request.offset
    for data in request.data:
        _offset(offset + len(data))
        export.write_all(fd, data, offset)
        offset += len(data)
    return statuses.OK


def _readdir(client: Client, request: requests.Readdir) -> Response:
    entries = client.handles.directory(request.handle).entries()
    device = client.export.device
    now = time.time()
    found: list[NameEntry] = []
    size = 0
    for entry in entries:
        line = attributes.longname(entry, client.names, now)
        found.append(NameEntry(entry.name, line, attributes.from_stat(entry.st, device)))
        size += len(entry.name) + len(line) + 120  # ATTRS with attrs@netfs
        if len(found) >= MAX_NAMES or size >= MAX_NAMES_BYTES:
            break
    return Name(tuple(found)) if found else statuses.EOF


def _fstat(client: Client, request: requests.Fstat) -> Response:
    return _attrs(client, os.fstat(client.handles.opened(request.handle).fd))


def _fsetstat(client: Client, request: requests.Fsetstat) -> Response:
    opened = client.handles.opened(request.handle)
    if request.attrs.size is not None:
        os.ftruncate(client.handles.file(request.handle).fd, _offset(request.attrs.size))
    owner, mode, times_ns = _settable(request.attrs)
    export.set_fd(opened.fd, owner=owner, mode=mode, times_ns=times_ns)
    return statuses.OK


def _fstatvfs(client: Client, request: extensions.FstatvfsRequest) -> Response:
    st = attributes.from_statvfs(os.fstatvfs(client.handles.opened(request.handle).fd))
    return ExtendedReply(extensions.encode_statvfs(st))


def _fsync(client: Client, request: extensions.Fsync) -> Response:
    os.fsync(client.handles.opened(request.handle).fd)
    return statuses.OK


def _copy_data(client: Client, request: extensions.CopyData) -> Response:
    source = client.handles.file(request.source).fd
    dest = client.handles.file(request.dest).fd
    _offset(request.offset)
    _offset(request.dest_offset)
    export.copy(
        source, request.offset, request.length, dest, request.dest_offset,
        go_on=lambda: not client.gone,
    )  # fmt: skip
    return statuses.OK


# --- about the server -----------------------------------------------------------------------------


def _limits(client: Client, request: extensions.LimitsRequest) -> Response:
    limits = Limits(SERVER_MAX_PACKET, MAX_READ, MAX_WRITE, client.handles.limit)
    return ExtendedReply(extensions.encode_limits(limits))


def _home(client: Client, name: bytes) -> bytes:
    """Everybody's home is the root of the export."""
    if name in (b"", client.user.encode()):
        return b"/"
    raise OSError(errno.ENOENT, "no such user here")


def _home_directory(client: Client, request: extensions.HomeDirectory) -> Response:
    return _one_name(_home(client, request.username))


def _expand_path(client: Client, request: extensions.ExpandPath) -> Response:
    path = request.path
    if path.startswith(b"~"):
        user, _, rest = path[1:].partition(b"/")
        path = _home(client, user) + rest
    return _one_name(client.export.realpath(path))


def _users_groups(client: Client, request: extensions.UsersGroupsById) -> Response:
    if len(request.uids) + len(request.gids) > MAX_IDS:
        raise OSError(errno.EINVAL, f"more than {MAX_IDS} ids in one question")
    found = extensions.UsersGroups(
        tuple([client.names.user(uid) for uid in request.uids]),
        tuple([client.names.group(gid) for gid in request.gids]),
    )
    return ExtendedReply(extensions.encode_users_groups(found))


def _attrs_netfs(client: Client, request: extensions.AttrsNetfs) -> Response:
    if request.version != 1:
        raise OSError(errno.EOPNOTSUPP, "attrs@netfs is spoken in version 1")
    client.connection.extended_attrs = True
    return statuses.OK


def _unknown(client: Client, request: extensions.Extended) -> Response:
    raise OSError(errno.EOPNOTSUPP, "no such extension")


ROWS: Final[Mapping[type, Row]] = {
    requests.Open: Row(_open, _open_writes),
    requests.Close: Row(_close, writes=False),
    requests.Read: Row(_read, writes=False),
    requests.Write: Row(_write, writes=True),
    requests.Lstat: Row(_lstat, writes=False),
    requests.Fstat: Row(_fstat, writes=False),
    requests.Setstat: Row(_setstat, writes=True),
    requests.Fsetstat: Row(_fsetstat, writes=True),
    requests.Opendir: Row(_opendir, writes=False),
    requests.Readdir: Row(_readdir, writes=False),
    requests.Remove: Row(_remove, writes=True),
    requests.Mkdir: Row(_mkdir, writes=True),
    requests.Rmdir: Row(_rmdir, writes=True),
    requests.Realpath: Row(_realpath, writes=False),
    requests.Stat: Row(_stat, writes=False),
    requests.Rename: Row(_rename, writes=True),
    requests.Readlink: Row(_readlink, writes=False),
    requests.Symlink: Row(_symlink, writes=True),
    extensions.PosixRename: Row(_posix_rename, writes=True),
    extensions.Hardlink: Row(_hardlink, writes=True),
    extensions.StatvfsRequest: Row(_statvfs, writes=False),
    extensions.FstatvfsRequest: Row(_fstatvfs, writes=False),
    extensions.Fsync: Row(_fsync, writes=False),  # it only hastens what was written before
    extensions.Lsetstat: Row(_lsetstat, writes=True),
    extensions.LimitsRequest: Row(_limits, writes=False),
    extensions.ExpandPath: Row(_expand_path, writes=False),
    extensions.CopyData: Row(_copy_data, writes=True),
    extensions.HomeDirectory: Row(_home_directory, writes=False),
    extensions.UsersGroupsById: Row(_users_groups, writes=False),
    extensions.AttrsNetfs: Row(_attrs_netfs, writes=False),
    extensions.Extended: Row(_unknown, writes=False),
}

OFFERED: Final[Mapping[bytes, bytes]] = {
    row.name: row.version for row in extensions.EXTENSIONS.values()
}
"""What VERSION says: all that the codec knows has a row above (see the test of the tables)."""
