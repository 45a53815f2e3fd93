"""A filesystem in memory, as small as shows the kernel's side: for real mounts without a server.

Names that begin with ``hang`` exist, and every operation on what they name never ends by itself.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import stat
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from netfs.client.dispatcher import Handler
from netfs.fuse import dirents, replies, requests
from netfs.fuse.abi import Opcode
from netfs.fuse.replies import EMPTY, Attr, Reply

VALID_S: Final = 0.0


@dataclass
class ToyNode:
    nodeid: int
    mode: int
    hangs: bool = False
    data: bytearray = field(default_factory=bytearray)
    children: dict[bytes, ToyNode] = field(default_factory=dict)

    def attr(self) -> Attr:
        size = len(self.data)
        return Attr(
            self.nodeid, size, -(-size // 512), 1, 2, 3, 0, 0, 0, self.mode, 1,
            os.getuid(), os.getgid(), 0, 4096,
        )  # fmt: skip


class ToyFs:
    """The context of the handlers below."""

    def __init__(self, *, valid_s: float = VALID_S, open_flags: int = 0) -> None:
        self.ids = itertools.count(2)
        self.root = ToyNode(1, stat.S_IFDIR | 0o755)
        self.nodes: dict[int, ToyNode] = {1: self.root}
        self.valid_s = valid_s
        self.open_flags = open_flags
        self.hanging: list[str] = []
        self.nlookup: dict[int, int] = {}

    def add(self, name: bytes, mode: int, parent: ToyNode | None = None) -> ToyNode:
        parent = parent or self.root
        node = ToyNode(next(self.ids), mode, hangs=name.startswith(b"hang") or parent.hangs)
        parent.children[name] = node
        self.nodes[node.nodeid] = node
        return node

    def count(self, node: ToyNode) -> None:
        self.nlookup[node.nodeid] = self.nlookup.get(node.nodeid, 0) + 1

    def entry(self, node: ToyNode) -> bytes:
        self.count(node)
        return replies.entry(
            node.nodeid, 0, replies.validity(self.valid_s, self.valid_s), node.attr()
        )

    async def hang(self, what: str, request: requests.Request) -> Reply:
        self.hanging.append(what)
        await asyncio.get_running_loop().create_future()
        raise AssertionError


Result = Reply | Coroutine[Any, Any, Reply]


def lookup(fs: ToyFs, request: requests.Lookup) -> Result:
    node = fs.nodes[request.nodeid].children.get(request.name)
    if node is None:
        raise FileNotFoundError(errno.ENOENT, "")
    if request.name.startswith(b"hanglookup"):
        return fs.hang("lookup", request)
    return Reply((fs.entry(node),))


def forget(fs: ToyFs, request: requests.Forget) -> None:
    for nodeid, nlookup in request.entries:
        fs.nlookup[nodeid] -= nlookup


def getattr_(fs: ToyFs, request: requests.GetAttr) -> Result:
    return Reply((replies.attr(fs.valid_s, fs.nodes[request.nodeid].attr()),))


def setattr_(fs: ToyFs, request: requests.SetAttr) -> Result:
    node = fs.nodes[request.nodeid]
    if node.hangs:
        return fs.hang("setattr", request)
    if request.mode is not None:
        node.mode = request.mode
    if request.size is not None:
        node.data = node.data[: request.size].ljust(request.size, b"\0")
    return Reply((replies.attr(fs.valid_s, node.attr()),))


def mkdir(fs: ToyFs, request: requests.MkDir) -> Result:
    node = fs.add(request.name, stat.S_IFDIR | request.mode, fs.nodes[request.nodeid])
    return Reply((fs.entry(node),))


def unlink(fs: ToyFs, request: requests.Unlink) -> Result:
    if request.name.startswith(b"hang"):
        return fs.hang("unlink", request)
    fs.nodes[request.nodeid].children.pop(request.name)
    return EMPTY


def rename(fs: ToyFs, request: requests.Rename) -> Result:
    if request.name.startswith(b"hang"):
        return fs.hang("rename", request)
    node = fs.nodes[request.nodeid].children.pop(request.name)
    fs.nodes[request.new_parent].children[request.new_name] = node
    return EMPTY


def create(fs: ToyFs, request: requests.Create) -> Result:
    node = fs.add(request.name, request.mode, fs.nodes[request.nodeid])
    return Reply((replies.create(fs.entry(node), 0, fs.open_flags),))


def open_(fs: ToyFs, request: requests.Open) -> Result:
    node = fs.nodes[request.nodeid]
    if request.flags & os.O_TRUNC:
        node.data.clear()
    if node.hangs and request.flags & os.O_NONBLOCK:
        return fs.hang("open", request)  # O_NONBLOCK tells this toy to hang here, not later
    return Reply((replies.open_(0, fs.open_flags),))


def read(fs: ToyFs, request: requests.Read) -> Result:
    node = fs.nodes[request.nodeid]
    if node.hangs:
        return fs.hang("read", request)
    return Reply((bytes(node.data[request.offset : request.offset + request.size]),))


def write(fs: ToyFs, request: requests.Write) -> Result:
    node = fs.nodes[request.nodeid]
    if node.hangs:
        return fs.hang("write", request)
    end = request.offset + len(request.data)
    if len(node.data) < end:
        node.data.extend(bytes(end - len(node.data)))
    node.data[request.offset : end] = request.data
    return Reply((replies.write(len(request.data)),))


def flush(fs: ToyFs, request: requests.Flush) -> Result:
    return fs.hang("flush", request) if fs.nodes[request.nodeid].hangs else EMPTY


def fsync(fs: ToyFs, request: requests.FSync) -> Result:
    return fs.hang("fsync", request) if fs.nodes[request.nodeid].hangs else EMPTY


def empty(fs: ToyFs, request: Any) -> Result:
    return EMPTY


def opendir(fs: ToyFs, request: requests.OpenDir) -> Result:
    return Reply((replies.open_(0),))


def readdir(fs: ToyFs, request: requests.ReadDir) -> Result:
    node = fs.nodes[request.nodeid]
    if node.hangs:
        return fs.hang("readdir", request)
    writer = dirents.DirentWriter(request.size)
    for offset, (name, child) in enumerate(node.children.items(), 1):
        if offset > request.offset and not writer.add(child.nodeid, offset, child.mode, name):
            break
    return Reply((writer.body(),))


def readdirplus(fs: ToyFs, request: requests.ReadDirPlus) -> Result:
    node = fs.nodes[request.nodeid]
    if node.hangs:
        return fs.hang("readdir", request)
    writer = dirents.DirentPlusWriter(request.size)
    for offset, (name, child) in enumerate(node.children.items(), 1):
        if offset <= request.offset:
            continue
        valid = replies.validity(fs.valid_s, fs.valid_s)
        if not writer.add(
            child.nodeid, offset, child.mode, name, child.nodeid, valid, child.attr()
        ):
            break
        fs.count(child)
    return Reply((writer.body(),))


def statfs(fs: ToyFs, request: requests.StatFs) -> Result:
    return Reply((replies.statfs(100, 50, 50, 10, 5, 4096, 255, 4096),))


HANDLERS: Final[Mapping[Opcode, Handler]] = {
    Opcode.LOOKUP: lookup,
    Opcode.FORGET: forget,
    Opcode.BATCH_FORGET: forget,
    Opcode.GETATTR: getattr_,
    Opcode.SETATTR: setattr_,
    Opcode.MKDIR: mkdir,
    Opcode.UNLINK: unlink,
    Opcode.RENAME: rename,
    Opcode.CREATE: create,
    Opcode.OPEN: open_,
    Opcode.READ: read,
    Opcode.WRITE: write,
    Opcode.FLUSH: flush,
    Opcode.FSYNC: fsync,
    Opcode.RELEASE: empty,
    Opcode.OPENDIR: opendir,
    Opcode.READDIR: readdir,
    Opcode.READDIRPLUS: readdirplus,
    Opcode.RELEASEDIR: empty,
    Opcode.STATFS: statfs,
    Opcode.ACCESS: empty,
}
