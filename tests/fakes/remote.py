"""A served tree in memory that speaks ``Remote``, records its calls, and answers when told to.

``gate = remote.hold("lstat")`` stops the next matching call at the server's door:
``await gate.arrived()`` returns when it stands there, ``gate.release()`` lets it in (or
``gate.release(errno.EIO)`` sends it away).  With ``after=True`` it has run and the reply waits.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import stat
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from netfs.client.remote import api
from netfs.client.remote.api import DirEntry
from netfs.client.remote.looking import Looking
from netfs.client.remote.pending import Disconnected
from netfs.sftp.attrs import Attrs, Limits, StatVfs
from netfs.sftp.codes import Status
from netfs.sftp.requests import Lstat
from netfs.sftp.responses import AttrsResponse, StatusResponse
from netfs.wire import Buffer

DEADLINE_S = 5.0

OPENSSH = frozenset(
    {
        b"posix-rename@openssh.com",
        b"statvfs@openssh.com",
        b"fstatvfs@openssh.com",
        b"hardlink@openssh.com",
        b"fsync@openssh.com",
        b"lsetstat@openssh.com",
        b"limits@openssh.com",
        b"expand-path@openssh.com",
        b"copy-data",
        b"users-groups-by-id@openssh.com",
    }
)


def error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@dataclass(eq=False)
class Inode:
    """One file of the fake server."""

    ino: int
    mode: int
    uid: int = 1000
    gid: int = 1000
    atime: int = 1_000_000_000
    mtime: int = 1_000_000_000
    nlink: int = 1
    data: bytearray = field(default_factory=bytearray)
    target: bytes = b""
    entries: dict[bytes, Inode] = field(default_factory=dict)

    @property
    def is_dir(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_link(self) -> bool:
        return stat.S_ISLNK(self.mode)


class Call(NamedTuple):
    """One call as it arrived."""

    method: str
    path: bytes


class Handle:
    """An open file of the fake server."""

    def __init__(self, path: bytes, pflags: int, inode: Inode) -> None:
        self.path = path
        self.pflags = pflags
        self.inode = inode
        self.closed = False


class Gate:
    """Where one call waits; see the module."""

    def __init__(self, method: str, path: bytes | None, after: bool) -> None:
        self.method = method
        self.path = path
        self.after = after
        self._arrived = asyncio.Event()
        self._released: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def arrived(self) -> None:
        async with asyncio.timeout(DEADLINE_S):
            await self._arrived.wait()

    def release(self, number: int = 0) -> None:
        if not self._released.done():
            self._released.set_result(number)

    async def stand(self) -> None:
        self._arrived.set()
        number = await self._released
        if number:
            raise error(number)


class FakeRemote:
    """Implements ``netfs.client.remote.api.Remote``; see the module."""

    def __init__(self, *, extensions: frozenset[bytes] = OPENSSH, tells_ino: bool = False) -> None:
        self.limits = Limits(262144 + 1024, 262144, 262144, 1024)
        self.extensions = extensions
        self.tells_ino = tells_ino  # as netfs's own server: ino, nlink, blocks, ns times
        self.is_up = True
        self.now = 1_700_000_000  # the server's clock, seconds since the epoch
        self.batch = 100  # entries per READDIR
        self.login = (1000, 1000)  # uid, gid of what is created
        self.umask = 0  # the server's own
        self.unasked = 0  # permissions that it gives to every directory
        self.looks_behind_links = False  # LSTAT, as ProFTPD's
        self.calls: list[Call] = []
        self.open_handles: set[Handle] = set()
        self.reads: list[tuple[bytes, int, int]] = []
        self.writes: list[tuple[bytes, int, int]] = []
        self.statvfs_reply = StatVfs(4096, 4096, 1000, 500, 400, 100, 50, 50, 7, 0, 255)
        self._inos = itertools.count(2)
        self._gates: list[Gate] = []
        self._failures: list[tuple[str, int]] = []
        self._watchers: list[Callable[[object], None]] = []
        self.root = Inode(1, stat.S_IFDIR | 0o755, nlink=2)

    def on_change(self, listener: Callable[[object], None]) -> None:
        """As Session.on_change."""
        self._watchers.append(listener)

    # --- the test's side ------------------------------------------------------------------------

    def set_up(self, up: bool) -> None:
        """Change ``is_up`` and tell who asked to be told."""
        self.is_up = up
        for watcher in self._watchers:
            watcher(None)

    def hold(self, method: str, path: bytes | None = None, *, after: bool = False) -> Gate:
        """Stop the next call of *method* (for *path*)."""
        gate = Gate(method, path, after)
        self._gates.append(gate)
        return gate

    def fail_next(self, method: str, number: int) -> None:
        """The next call of *method* fails with this errno."""
        self._failures.append((method, number))

    def count(self, *methods: str) -> int:
        """How many calls arrived (of these methods)."""
        return sum(1 for call in self.calls if not methods or call.method in methods)

    def mkdirs(self, path: bytes) -> Inode:
        node = self.root
        for name in path.strip(b"/").split(b"/"):
            if not name:
                continue
            if name not in node.entries:
                node.entries[name] = self._new(stat.S_IFDIR | 0o755, nlink=2)
            node = node.entries[name]
        return node

    def put(self, path: bytes, data: bytes = b"", mode: int = 0o644) -> Inode:
        """Make or change a file behind the client's back."""
        parent = self.mkdirs(os.path.dirname(path))
        name = os.path.basename(path)
        inode = parent.entries.get(name)
        if inode is None:
            inode = parent.entries[name] = self._new(stat.S_IFREG | mode)
        inode.data[:] = data
        inode.mtime = self.now
        parent.mtime = self.now
        return inode

    def put_special(self, path: bytes, mode: int) -> Inode:
        parent = self.mkdirs(os.path.dirname(path))
        inode = parent.entries[os.path.basename(path)] = self._new(mode)
        return inode

    def put_symlink(self, path: bytes, target: bytes) -> Inode:
        parent = self.mkdirs(os.path.dirname(path))
        inode = parent.entries[os.path.basename(path)] = self._new(stat.S_IFLNK | 0o777)
        inode.target = target
        return inode

    def put_link(self, existing: bytes, path: bytes) -> Inode:
        inode = self.at(existing)
        self.mkdirs(os.path.dirname(path)).entries[os.path.basename(path)] = inode
        inode.nlink += 1
        return inode

    def delete(self, path: bytes) -> None:
        parent, name = self._parent(path)
        inode = parent.entries.pop(name)
        inode.nlink -= 1
        parent.mtime = self.now

    def at(self, path: bytes, *, follow: bool = False) -> Inode:
        """The file at *path*.  Raises OSError as a server would answer."""
        node = self.root
        names = [name for name in path.split(b"/") if name not in (b"", b".")]
        for hops in range(len(names) + 40):
            if not names:
                return node
            if not node.is_dir:
                raise error(errno.ENOTDIR)
            name = names.pop(0)
            found = node.entries.get(name)
            if found is None:
                raise error(errno.ENOENT)
            if found.is_link and (names or follow):
                if hops > 40:
                    break
                target = [part for part in found.target.split(b"/") if part]
                names = target + names
                if found.target.startswith(b"/"):
                    node = self.root
                continue
            node = found
        if names:
            raise error(errno.ELOOP)
        return node

    # --- the server's side ------------------------------------------------------------------------

    async def lstat(self, path: bytes) -> Attrs:
        async with _Arrival(self, "lstat", path):
            inode = self.at(path)
            if self.looks_behind_links and inode.target:
                inode = self.at(os.path.join(os.path.dirname(path), inode.target))
            return self._attrs(inode)

    def look(self, path: bytes, looking: Looking[Any]) -> bool:
        if not self.is_up:
            return False  # as a session without a conversation
        asyncio.get_running_loop().create_task(self._look(path, looking))
        return True

    async def _look(self, path: bytes, looking: Looking[Any]) -> None:
        looking.request = Lstat(path)
        outcome: Callable[[], None]
        try:
            attrs = await self.lstat(path)
        except OSError as exc:
            message = f"({errno.errorcode[exc.errno or errno.EIO]})".encode()
            outcome = partial(looking.told, StatusResponse(Status.FAILURE, message))
        except Disconnected as exc:
            outcome = partial(looking.failed, exc)
        else:
            outcome = partial(looking.told, AttrsResponse(attrs))
        if not looking.done():
            looking.end()
            outcome()

    async def look_again(self, looking: Looking[Any], lost: Disconnected) -> Attrs:
        assert isinstance(looking.request, Lstat)
        return await self.lstat(looking.request.path)

    async def stat(self, path: bytes) -> Attrs:
        async with _Arrival(self, "stat", path):
            return self._attrs(self.at(path, follow=True))

    async def readlink(self, path: bytes) -> bytes:
        async with _Arrival(self, "readlink", path):
            inode = self.at(path)
            if not inode.is_link:
                raise error(errno.EINVAL)
            return inode.target

    async def realpath(self, path: bytes) -> bytes:
        async with _Arrival(self, "realpath", path):
            return os.path.normpath(b"/" + path)

    async def scandir(self, path: bytes) -> AsyncIterator[list[DirEntry]]:
        async with _Arrival(self, "scandir", path):
            inode = self.at(path)
            if not inode.is_dir:
                raise error(errno.ENOTDIR)
            names = list(inode.entries)
        for start in range(0, len(names), self.batch):
            batch = []
            async with _Arrival(self, "readdir", path):
                for name in names[start : start + self.batch]:
                    found = inode.entries.get(name)
                    if found is not None:
                        batch.append(DirEntry(name, self._attrs(found, listing=True)))
            yield batch

    async def mkdir(self, path: bytes, mode: int) -> None:
        async with _Arrival(self, "mkdir", path):
            parent, name = self._parent(path)
            if name in parent.entries:
                raise error(errno.EEXIST)
            bits = mode & 0o7777 & ~self.umask | self.unasked
            parent.entries[name] = self._new(stat.S_IFDIR | bits, nlink=2)
            parent.mtime = self.now

    async def rmdir(self, path: bytes) -> None:
        async with _Arrival(self, "rmdir", path):
            parent, name = self._parent(path)
            inode = self.at(path)
            if not inode.is_dir:
                raise error(errno.ENOTDIR)
            if inode.entries:
                raise error(errno.ENOTEMPTY)
            del parent.entries[name]
            parent.mtime = self.now

    async def remove(self, path: bytes) -> None:
        async with _Arrival(self, "remove", path):
            if self.at(path).is_dir:
                raise error(errno.EISDIR)
            self.delete(path)

    def also_named(self, path: bytes, other: bytes) -> None:
        self.calls.append(Call("also_named", path))

    async def rename(self, old: bytes, new: bytes, *, replace: bool = True) -> None:
        async with _Arrival(self, "rename", old):
            parent, name = self._parent(old)
            new_parent, new_name = self._parent(new)
            inode = self.at(old)
            target = new_parent.entries.get(new_name)
            if target is not None:
                if not replace:
                    raise error(errno.EEXIST)
                if target is inode:
                    return
                if target.is_dir and not inode.is_dir:
                    raise error(errno.EISDIR)
                if inode.is_dir and not target.is_dir:
                    raise error(errno.ENOTDIR)
                if target.entries:
                    raise error(errno.ENOTEMPTY)
                target.nlink -= 1
            del parent.entries[name]
            new_parent.entries[new_name] = inode
            parent.mtime = new_parent.mtime = self.now
            for handle in self.open_handles:
                if handle.path == old or handle.path.startswith(old + b"/"):
                    handle.path = new + handle.path[len(old) :]

    async def symlink(self, target: bytes, path: bytes) -> None:
        async with _Arrival(self, "symlink", path):
            parent, name = self._parent(path)
            if name in parent.entries:
                raise error(errno.EEXIST)
            parent.entries[name] = self._new(stat.S_IFLNK | 0o777)
            parent.entries[name].target = target
            parent.mtime = self.now

    async def link(self, existing: bytes, path: bytes) -> None:
        async with _Arrival(self, "link", path):
            if b"hardlink@openssh.com" not in self.extensions:
                raise error(errno.EOPNOTSUPP)
            parent, name = self._parent(path)
            if name in parent.entries:
                raise error(errno.EEXIST)
            inode = self.at(existing)
            inode.nlink += 1
            parent.entries[name] = inode
            parent.mtime = self.now

    async def setstat(self, path: bytes, attrs: Attrs, *, follow: bool = True) -> None:
        async with _Arrival(self, "setstat", path):
            if not follow and b"lsetstat@openssh.com" not in self.extensions:
                raise error(errno.EOPNOTSUPP)
            self._set(self.at(path, follow=follow), attrs)

    async def statvfs(self, path: bytes) -> StatVfs:
        async with _Arrival(self, "statvfs", path):
            if b"statvfs@openssh.com" not in self.extensions:
                raise error(errno.EOPNOTSUPP)
            self.at(path, follow=True)
            return self.statvfs_reply

    async def open(self, path: bytes, pflags: int, mode: int | None = None) -> Handle:
        async with _Arrival(self, "open", path):
            return self._open(path, pflags, mode)

    async def open_stat(
        self, path: bytes, pflags: int, mode: int | None = None
    ) -> tuple[Handle, Attrs]:
        async with _Arrival(self, "open_stat", path):
            handle = self._open(path, pflags, mode)
            return handle, self._attrs(self.at(path))

    async def fstat(self, handle: api.RemoteHandle) -> Attrs:
        async with _Arrival(self, "fstat", handle.path):
            return self._attrs(self._inode(handle))

    async def fsetstat(self, handle: api.RemoteHandle, attrs: Attrs) -> None:
        async with _Arrival(self, "fsetstat", handle.path):
            self._set(self._inode(handle), attrs)

    async def read(
        self, handle: api.RemoteHandle, offset: int, size: int, *, end: int | None = None
    ) -> Buffer:
        assert size <= self.limits.max_read
        async with _Arrival(self, "read", handle.path):
            self.reads.append((handle.path, offset, size))
            return bytes(self._inode(handle).data[offset : offset + size])

    async def write(self, handle: api.RemoteHandle, offset: int, data: Sequence[Buffer]) -> None:
        joined = b"".join(data)
        assert len(joined) <= self.limits.max_write
        async with _Arrival(self, "write", handle.path):
            self.writes.append((handle.path, offset, len(joined)))
            inode = self._inode(handle)
            if handle.pflags & api.APPEND:
                offset = len(inode.data)
            if offset > len(inode.data):
                inode.data.extend(bytes(offset - len(inode.data)))
            inode.data[offset : offset + len(joined)] = joined
            inode.mtime = self.now

    async def fsync(self, handle: api.RemoteHandle) -> None:
        async with _Arrival(self, "fsync", handle.path):
            self._inode(handle)

    def let_go(self, handle: api.RemoteHandle) -> bool:
        return False  # tests count, hold and refuse the call of ``close``

    async def close(self, handle: api.RemoteHandle) -> None:
        async with _Arrival(self, "close", handle.path):
            self._inode(handle)
            assert isinstance(handle, Handle)
            handle.closed = True
            self.open_handles.discard(handle)

    async def copy_data(
        self,
        source: api.RemoteHandle,
        offset: int,
        length: int,
        dest: api.RemoteHandle,
        dest_offset: int,
    ) -> None:
        async with _Arrival(self, "copy_data", source.path):
            if b"copy-data" not in self.extensions:
                raise error(errno.EOPNOTSUPP)
            data = self._inode(source).data
            piece = bytes(data[offset : offset + length] if length else data[offset:])
            target = self._inode(dest)
            if dest_offset > len(target.data):
                target.data.extend(bytes(dest_offset - len(target.data)))
            target.data[dest_offset : dest_offset + len(piece)] = piece
            target.mtime = self.now

    async def users(
        self, uids: Sequence[int], gids: Sequence[int]
    ) -> tuple[list[bytes], list[bytes]]:
        async with _Arrival(self, "users", b""):
            return [b"user%d" % uid for uid in uids], [b"group%d" % gid for gid in gids]

    # --- inside ---------------------------------------------------------------------------------

    def _new(self, mode: int, nlink: int = 1) -> Inode:
        uid, gid = self.login
        return Inode(next(self._inos), mode, uid, gid, self.now, self.now, nlink)

    def _parent(self, path: bytes) -> tuple[Inode, bytes]:
        parent = self.at(os.path.dirname(path))
        if not parent.is_dir:
            raise error(errno.ENOTDIR)
        name = os.path.basename(path)
        if len(name) > 255:
            raise error(errno.ENAMETOOLONG)
        return parent, name

    def _attrs(self, inode: Inode, *, listing: bool = False) -> Attrs:
        if inode.is_link:
            size = len(inode.target)
        elif inode.is_dir:
            size = 4096
        else:
            size = len(inode.data)
        attrs = Attrs(size, inode.uid, inode.gid, inode.mode, inode.atime, inode.mtime)
        if self.tells_ino:
            return attrs._replace(
                nlink=inode.nlink,
                ino=inode.ino,
                blocks=(size + 511) // 512,
                atime_ns=inode.atime * 10**9,
                mtime_ns=inode.mtime * 10**9,
                ctime_ns=inode.mtime * 10**9,
            )
        return attrs._replace(nlink=inode.nlink) if listing else attrs

    def _set(self, inode: Inode, attrs: Attrs) -> None:
        if attrs.size is not None:
            if attrs.size < len(inode.data):
                del inode.data[attrs.size :]
            else:
                inode.data.extend(bytes(attrs.size - len(inode.data)))
            inode.mtime = self.now
        if attrs.mode is not None:
            inode.mode = stat.S_IFMT(inode.mode) | (attrs.mode & 0o7777)
        if attrs.uid is not None and attrs.gid is not None:
            inode.uid, inode.gid = attrs.uid, attrs.gid
        if attrs.mtime is not None and attrs.atime is not None:
            inode.atime, inode.mtime = attrs.atime, attrs.mtime

    def _open(self, path: bytes, pflags: int, mode: int | None) -> Handle:
        parent, name = self._parent(path)
        try:
            inode = self.at(path, follow=True)
        except OSError as exc:
            if exc.errno != errno.ENOENT or not pflags & api.CREAT:
                raise
            inode = parent.entries[name] = self._new(
                stat.S_IFREG | ((mode if mode is not None else 0o666) & 0o7777)
            )
            parent.mtime = self.now
        else:
            if pflags & api.CREAT and pflags & api.EXCL:
                raise error(errno.EEXIST)
        if inode.is_dir:
            raise error(errno.EISDIR)
        if pflags & api.TRUNC:
            del inode.data[:]
            inode.mtime = self.now
        handle = Handle(path, pflags, inode)
        self.open_handles.add(handle)
        return handle

    def _inode(self, handle: api.RemoteHandle) -> Inode:
        assert isinstance(handle, Handle)
        if handle.closed:
            raise error(errno.EBADF)
        return handle.inode

    def _take_gates(self, method: str, path: bytes, *, after: bool) -> Iterator[Gate]:
        for gate in list(self._gates):
            if gate.method == method and gate.path in (None, path) and gate.after == after:
                self._gates.remove(gate)
                yield gate
                return

    def _take_failure(self, method: str) -> None:
        for failure in self._failures:
            if failure[0] == method:
                self._failures.remove(failure)
                raise error(failure[1])


class _Arrival:
    """One call at the server: recorded, then past the gates and planned failures."""

    def __init__(self, remote: FakeRemote, method: str, path: bytes) -> None:
        self._remote = remote
        self._method = method
        self._path = path

    async def __aenter__(self) -> None:
        self._remote.calls.append(Call(self._method, self._path))
        await asyncio.sleep(0)  # as a network: never answered in the same turn
        for gate in self._remote._take_gates(self._method, self._path, after=False):
            await gate.stand()
        self._remote._take_failure(self._method)

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            for gate in self._remote._take_gates(self._method, self._path, after=True):
                await gate.stand()


def conforms(remote: FakeRemote) -> api.Remote:
    """For the type checker: the fake is a Remote."""
    return remote
