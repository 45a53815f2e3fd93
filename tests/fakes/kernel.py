"""A kernel in the test's own process: FUSE over a socket pair, without root and without a mount.

It checks replies as the kernel does, and its methods are named after the operations: each sends
one request, waits for the answer and raises OSError for an errno.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from netfs.client import interrupts
from netfs.client.device import Device
from netfs.client.dispatcher import Dispatcher, End, Handler
from netfs.client.operations.refused import REFUSED, Refusal
from netfs.fuse import abi
from netfs.fuse.abi import InitFlag, Opcode
from netfs.fuse.replies import Attr, Reply

OFFERED = 0x73FFFFFB | 0x5FD << 32
"""What Linux 6.18 offers in INIT."""


class Entry(NamedTuple):
    nodeid: int
    generation: int
    entry_valid_s: float
    attr_valid_s: float
    attr: Attr


class Dirent(NamedTuple):
    ino: int
    offset: int
    type: int
    name: bytes
    entry: Entry | None = None


class Answer(NamedTuple):
    error: int  # 0 or an errno
    body: bytes


class Notification(NamedTuple):
    code: int
    body: bytes


class _KernelDevice(Device):
    """Knows, as the real device does, when nobody waits for a reply any more."""

    __slots__ = ("_kernel",)

    def __init__(self, fd: int, kernel: Kernel) -> None:
        super().__init__(fd)
        self._kernel = kernel

    def reply(self, unique: int, reply: Reply) -> bool:
        if unique in self._kernel.waiting:
            return super().reply(unique, reply)
        if reply.undo is not None:
            reply.undo()
        return False

    def reply_error(self, unique: int, error: int) -> bool:
        return unique in self._kernel.waiting and super().reply_error(unique, error)


class Kernel:
    """The kernel's end.  ``uid``, ``gid`` and ``pid`` are what requests carry."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (self._socket, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 << 20)
        self._socket.setblocking(False)
        self.device: Device = _KernelDevice(theirs.detach(), self)
        self.uid = os.getuid()
        self.gid = os.getgid()
        self.pid = os.getpid()
        self.waiting: dict[int, asyncio.Future[Answer]] = {}
        self.answered_twice: list[int] = []
        self.notifications: list[Notification] = []
        self._unique = 0
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._receive)

    # Messages

    def send(
        self, opcode: int, nodeid: int = abi.ROOT_ID, body: bytes = b"", unique: int | None = None
    ) -> int:
        """Send a request and return its ``unique``; ``answer`` waits for it."""
        if unique is None:
            self._unique += 2
            unique = self._unique
        size = abi.IN_HEADER.size + len(body)
        header = abi.IN_HEADER.pack(
            size, opcode, unique, nodeid, self.uid, self.gid, self.pid, 0, 0
        )
        no_reply = (Opcode.FORGET, Opcode.BATCH_FORGET, Opcode.INTERRUPT)
        if opcode not in no_reply:
            self.waiting[unique] = asyncio.get_running_loop().create_future()
        self._socket.send(header + body)
        return unique

    async def answer(self, unique: int) -> Answer:
        return await asyncio.wait_for(self.waiting[unique], 10)

    def give_up(self, unique: int) -> None:
        """The caller is gone: a reply finds nobody (ENOENT)."""
        del self.waiting[unique]

    def interrupt(self, unique: int) -> int:
        return self.send(
            Opcode.INTERRUPT, 0, abi.INTERRUPT_IN.pack(unique), unique | abi.INTERRUPT_BIT
        )

    def forget(self, nodeid: int, nlookup: int = 1) -> None:
        self.send(Opcode.FORGET, nodeid, abi.FORGET_IN.pack(nlookup))

    def batch_forget(self, entries: list[tuple[int, int]]) -> None:
        body = abi.BATCH_FORGET_IN.pack(len(entries), 0)
        body += b"".join(abi.FORGET_ONE.pack(*entry) for entry in entries)
        self.send(Opcode.BATCH_FORGET, 0, body)

    def unmount(self) -> None:
        """No more requests; the device ends."""
        if self._socket.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()

    async def call(self, opcode: int, nodeid: int = abi.ROOT_ID, body: bytes = b"") -> bytes:
        """One request and its answer's body.  Raises OSError."""
        answer = await self.answer(self.send(opcode, nodeid, body))
        if answer.error:
            raise OSError(answer.error, os.strerror(answer.error))
        return answer.body

    def _receive(self) -> None:
        while True:
            try:
                message = self._socket.recv(2 << 20)
            except BlockingIOError:
                return
            if not message:
                return
            length, error, unique = abi.OUT_HEADER.unpack_from(message)
            assert length == len(message), "the kernel wants the length of the message"
            body = message[abi.OUT_HEADER.size :]
            if not unique:
                self.notifications.append(Notification(error, body))
                continue
            assert -512 < error <= 0, f"the kernel refuses error {error}"
            assert not (error and body), "an error has no body"
            future = self.waiting.get(unique)
            if future is None or future.done():
                self.answered_twice.append(unique)
            else:
                future.set_result(Answer(-error, body))

    # Operations

    async def init(
        self, minor: int = abi.MINOR_MAX, flags: int = OFFERED, max_readahead: int = 131072
    ) -> bytes:
        low, high = flags & 0xFFFFFFFF, flags >> 32
        if flags & InitFlag.INIT_EXT:
            body = abi.INIT_IN_EXT.pack(7, minor, max_readahead, low, high, *(0,) * 11)
        else:
            body = abi.INIT_IN.pack(7, minor, max_readahead, low)
        return await self.call(Opcode.INIT, 0, body)

    async def lookup(self, parent: int, name: bytes) -> Entry:
        return parse_entry(await self.call(Opcode.LOOKUP, parent, name + b"\0"))

    async def getattr_(self, nodeid: int, fh: int | None = None) -> Attr:
        body = abi.GETATTR_IN.pack(0 if fh is None else abi.GETATTR_FH, 0, fh or 0)
        return parse_attr(await self.call(Opcode.GETATTR, nodeid, body))

    async def setattr_(
        self,
        nodeid: int,
        *,
        fh: int | None = None,
        mode: int | None = None,
        owner: int | None = None,
        group: int | None = None,
        size: int | None = None,
        atime_ns: int | None = None,
        mtime_ns: int | None = None,
        ctime_ns: int | None = None,
        atime_now: bool = False,
        mtime_now: bool = False,
    ) -> Attr:
        body = pack_setattr(
            fh, mode, owner, group, size, atime_ns, mtime_ns, ctime_ns, atime_now, mtime_now
        )
        return parse_attr(await self.call(Opcode.SETATTR, nodeid, body))

    async def readlink(self, nodeid: int) -> bytes:
        return await self.call(Opcode.READLINK, nodeid)

    async def symlink(self, parent: int, name: bytes, target: bytes) -> Entry:
        body = name + b"\0" + target + b"\0"
        return parse_entry(await self.call(Opcode.SYMLINK, parent, body))

    async def mknod(self, parent: int, name: bytes, mode: int, rdev: int = 0) -> Entry:
        body = abi.MKNOD_IN.pack(mode, rdev, 0o022, 0) + name + b"\0"
        return parse_entry(await self.call(Opcode.MKNOD, parent, body))

    async def mkdir(self, parent: int, name: bytes, mode: int = 0o755) -> Entry:
        body = abi.MKDIR_IN.pack(mode, 0o022) + name + b"\0"
        return parse_entry(await self.call(Opcode.MKDIR, parent, body))

    async def unlink(self, parent: int, name: bytes) -> None:
        await self.call(Opcode.UNLINK, parent, name + b"\0")

    async def rmdir(self, parent: int, name: bytes) -> None:
        await self.call(Opcode.RMDIR, parent, name + b"\0")

    async def rename(
        self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int = 0
    ) -> None:
        names = name + b"\0" + new_name + b"\0"
        if flags:
            body = abi.RENAME2_IN.pack(new_parent, flags, 0) + names
            await self.call(Opcode.RENAME2, parent, body)
        else:
            await self.call(Opcode.RENAME, parent, abi.RENAME_IN.pack(new_parent) + names)

    async def link(self, old_nodeid: int, new_parent: int, name: bytes) -> Entry:
        body = abi.LINK_IN.pack(old_nodeid) + name + b"\0"
        return parse_entry(await self.call(Opcode.LINK, new_parent, body))

    async def open(self, nodeid: int, flags: int = os.O_RDONLY) -> tuple[int, int]:
        """(fh, open_flags)"""
        body = await self.call(Opcode.OPEN, nodeid, abi.OPEN_IN.pack(flags, 0))
        fh, open_flags, _ = abi.OPEN_OUT.unpack(body)
        return fh, open_flags

    async def create(
        self, parent: int, name: bytes, flags: int = os.O_RDWR, mode: int = 0o644
    ) -> tuple[Entry, int, int]:
        """(entry, fh, open_flags)"""
        request = abi.CREATE_IN.pack(flags | os.O_CREAT, mode | 0o100000, 0o022, 0) + name + b"\0"
        body = await self.call(Opcode.CREATE, parent, request)
        fh, open_flags, _ = abi.OPEN_OUT.unpack(body[abi.ENTRY_OUT.size :])
        return parse_entry(body[: abi.ENTRY_OUT.size]), fh, open_flags

    async def read(
        self, nodeid: int, fh: int, offset: int, size: int, flags: int = os.O_RDONLY
    ) -> bytes:
        request = abi.READ_IN.pack(fh, offset, size, 0, 0, flags, 0)
        body = await self.call(Opcode.READ, nodeid, request)
        assert len(body) <= size
        return body

    async def write(
        self, nodeid: int, fh: int, offset: int, data: bytes, flags: int = os.O_RDWR
    ) -> int:
        request = abi.WRITE_IN.pack(fh, offset, len(data), 0, 0, flags, 0) + data
        size, _ = abi.WRITE_OUT.unpack(await self.call(Opcode.WRITE, nodeid, request))
        return int(size)

    async def flush(self, nodeid: int, fh: int) -> None:
        await self.call(Opcode.FLUSH, nodeid, abi.FLUSH_IN.pack(fh, 0, 0, 0))

    async def fsync(self, nodeid: int, fh: int, *, datasync: bool = False) -> None:
        await self.call(Opcode.FSYNC, nodeid, abi.FSYNC_IN.pack(fh, int(datasync), 0))

    async def release(self, nodeid: int, fh: int, flags: int = os.O_RDONLY) -> None:
        await self.call(Opcode.RELEASE, nodeid, abi.RELEASE_IN.pack(fh, flags, 0, 0))

    async def opendir(self, nodeid: int) -> int:
        body = await self.call(Opcode.OPENDIR, nodeid, abi.OPEN_IN.pack(os.O_RDONLY, 0))
        return int(abi.OPEN_OUT.unpack(body)[0])

    async def readdir(
        self, nodeid: int, fh: int, offset: int = 0, size: int = 32768
    ) -> list[Dirent]:
        request = abi.READ_IN.pack(fh, offset, size, 0, 0, 0, 0)
        body = await self.call(Opcode.READDIR, nodeid, request)
        assert len(body) <= size
        return parse_dirents(body)

    async def readdirplus(
        self, nodeid: int, fh: int, offset: int = 0, size: int = 32768
    ) -> list[Dirent]:
        request = abi.READ_IN.pack(fh, offset, size, 0, 0, 0, 0)
        body = await self.call(Opcode.READDIRPLUS, nodeid, request)
        assert len(body) <= size
        return parse_dirents(body, plus=True)

    async def releasedir(self, nodeid: int, fh: int) -> None:
        await self.call(Opcode.RELEASEDIR, nodeid, abi.RELEASE_IN.pack(fh, 0, 0, 0))

    async def access(self, nodeid: int, mask: int) -> None:
        await self.call(Opcode.ACCESS, nodeid, abi.ACCESS_IN.pack(mask, 0))

    async def statfs(self, nodeid: int = abi.ROOT_ID) -> tuple[int, ...]:
        """(blocks, bfree, bavail, files, ffree, bsize, namelen, frsize)"""
        body = await self.call(Opcode.STATFS, nodeid)
        fields: tuple[int, ...] = abi.STATFS_OUT.unpack(body)
        return fields[:8]

    async def fallocate(self, nodeid: int, fh: int, offset: int, length: int, mode: int) -> None:
        body = abi.FALLOCATE_IN.pack(fh, offset, length, mode, 0)
        await self.call(Opcode.FALLOCATE, nodeid, body)

    async def lseek(self, nodeid: int, fh: int, offset: int, whence: int) -> int:
        body = await self.call(Opcode.LSEEK, nodeid, abi.LSEEK_IN.pack(fh, offset, whence, 0))
        return int(abi.LSEEK_OUT.unpack(body)[0])

    async def copy_file_range(
        self,
        nodeid_in: int,
        fh_in: int,
        offset_in: int,
        nodeid_out: int,
        fh_out: int,
        offset_out: int,
        length: int,
    ) -> int:
        request = abi.COPY_FILE_RANGE_IN.pack(
            fh_in, offset_in, nodeid_out, fh_out, offset_out, length, 0
        )
        body = await self.call(Opcode.COPY_FILE_RANGE, nodeid_in, request)
        return int(abi.WRITE_OUT.unpack(body)[0])


@asynccontextmanager
async def serving(
    context: Any,
    handlers: Mapping[Opcode, Handler],
    *,
    refused: Mapping[Opcode, Refusal] = REFUSED,
    signals: interrupts.Signals | None = None,
    **dispatcher: Any,
) -> AsyncIterator[Kernel]:
    """A kernel whose device is served by a dispatcher with *handlers*.

    *signals* is what every caller has pending; by default a fatal signal.
    """
    kernel = Kernel()
    fatal = interrupts.Signals(pending=1 << 8, blocked=0, ignored=0, caught=0, dead=False)
    dispatcher.setdefault("read_signals", lambda pid: signals or fatal)
    dispatcher.setdefault("clock", time.monotonic)
    served = Dispatcher(
        kernel.device, context, handlers, refused, minor=abi.MINOR_MAX, **dispatcher
    )
    task = asyncio.ensure_future(served.run())
    await asyncio.sleep(0)
    try:
        yield kernel
    finally:
        kernel.unmount()
        assert await asyncio.wait_for(task, 5) is End.UNMOUNTED
        await served.close(1.0)
        kernel.device.close()


def parse_entry(body: bytes) -> Entry:
    assert len(body) == abi.ENTRY_OUT.size
    nodeid, generation, entry_s, attr_s, entry_ns, attr_ns, *attr = abi.ENTRY_OUT.unpack(body)
    return Entry(nodeid, generation, entry_s + entry_ns / 1e9, attr_s + attr_ns / 1e9, Attr(*attr))


def parse_attr(body: bytes) -> Attr:
    assert len(body) == abi.ATTR_OUT.size
    return Attr(*abi.ATTR_OUT.unpack(body)[3:])


def parse_dirents(body: bytes, *, plus: bool = False) -> list[Dirent]:
    entries = []
    while body:
        entry = None
        if plus:
            entry = parse_entry(body[: abi.ENTRY_OUT.size])
            body = body[abi.ENTRY_OUT.size :]
        ino, offset, length, kind = abi.DIRENT.unpack_from(body)
        start = abi.DIRENT.size
        entries.append(Dirent(ino, offset, kind, body[start : start + length], entry))
        # The padding counts from the start of the record: 128 and 24 are multiples of 8.
        body = body[start + length + -length % 8 :]
    return entries


def pack_setattr(
    fh: int | None = None,
    mode: int | None = None,
    owner: int | None = None,
    group: int | None = None,
    size: int | None = None,
    atime_ns: int | None = None,
    mtime_ns: int | None = None,
    ctime_ns: int | None = None,
    atime_now: bool = False,
    mtime_now: bool = False,
) -> bytes:
    valid = 0
    for bit, value in (
        (abi.FATTR_FH, fh),
        (abi.FATTR_MODE, mode),
        (abi.FATTR_UID, owner),
        (abi.FATTR_GID, group),
        (abi.FATTR_SIZE, size),
        (abi.FATTR_ATIME, atime_ns),
        (abi.FATTR_MTIME, mtime_ns),
        (abi.FATTR_CTIME, ctime_ns),
    ):
        if value is not None:
            valid |= bit
    if atime_now:
        valid |= abi.FATTR_ATIME | abi.FATTR_ATIME_NOW
    if mtime_now:
        valid |= abi.FATTR_MTIME | abi.FATTR_MTIME_NOW
    (atime, atime_rest), (mtime, mtime_rest), (ctime, ctime_rest) = (
        divmod(ns or 0, 10**9) for ns in (atime_ns, mtime_ns, ctime_ns)
    )
    return abi.SETATTR_IN.pack(
        valid, 0, fh or 0, size or 0, 0, atime, mtime, ctime, atime_rest, mtime_rest, ctime_rest,
        mode or 0, 0, owner or 0, group or 0, 0,
    )  # fmt: skip
