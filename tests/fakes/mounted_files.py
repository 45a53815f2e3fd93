"""The handlers of open files over a FakeRemote, called directly: what a test of data needs.

``Rig`` stands for the kernel: its methods are system calls on names in the root directory.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from typing import Any

from netfs.client.coherence import Coherence
from netfs.client.config import CacheConfig, Config, LinkConfig, SemanticsConfig
from netfs.client.data.files import FileTable
from netfs.client.directories import DirectoryTable
from netfs.client.identity import Identity, Login
from netfs.client.inflight import Question
from netfs.client.nodes import Node, NodeTable
from netfs.client.operations import files as operations
from netfs.client.operations import metadata, namespace
from netfs.client.operations.context import Context
from netfs.client.prefetch import TreeReadAhead
from netfs.client.turns import Background
from netfs.fuse import abi, requests
from netfs.fuse.replies import Reply
from netfs.wire import Buffer
from tests.fakes.context import Clock, Notes, failed, make_config
from tests.fakes.remote import DEADLINE_S, FakeRemote

ROOT = abi.ROOT_ID
WHO = (1000, 1000, 77)  # uid, gid, pid of every request


class Open:
    """What a test keeps of an open file."""

    def __init__(self, nodeid: int, fh: int, open_flags: int, flags: int) -> None:
        self.nodeid = nodeid
        self.fh = fh
        self.open_flags = open_flags
        self.flags = flags

    @property
    def keeps_cache(self) -> bool:
        return bool(self.open_flags & abi.FOPEN_KEEP_CACHE)


async def reply_to(question: Question) -> Reply:
    """As the dispatcher begins and ends it."""
    ended: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

    def end(_: Question, reply: Reply | None, error: BaseException | None) -> None:
        question.answered = True
        if error is not None:
            ended.set_exception(error)
        else:
            assert reply is not None
            ended.set_result(reply)

    question.on_end = end
    question.step()
    return await ended


class Rig:
    """See the module.  ``asked`` says whether the last call had to wait."""

    def __init__(
        self,
        remote: FakeRemote,
        *,
        cache: CacheConfig | None = None,
        semantics: SemanticsConfig | None = None,
        rescue_dir: str = "/dev/null/nowhere",
    ) -> None:
        self.remote = remote
        self.config: Config = make_config(cache=cache, semantics=semantics)
        self.clock, self.notes = Clock(), Notes()
        self.asked = False
        self._uniques = itertools.count(2, 2)
        self.nodes = NodeTable(b"/", max_entries=10_000)
        coherence = Coherence(
            self.config.cache,
            nodes=self.nodes,
            remote=remote,
            notifier=self.notes,
            clock=self.clock,
        )
        self.files = FileTable(
            cache=self.config.cache,
            semantics=self.config.semantics,
            link=LinkConfig(rescue_dir=rescue_dir),
            remote=remote,
            nodes=self.nodes,
            coherence=coherence,
            notifier=self.notes,
            clock=self.clock,
        )
        self.files.pool.wall_clock = lambda: float(remote.now)  # type: ignore[method-assign]
        self._background = Background(failed)
        directories = DirectoryTable(
            nodes=self.nodes,
            remote=remote,
            coherence=coherence,
            clock=self.clock,
            spawn=self._background.run,
            follow_symlinks=False,
        )
        self.ctx = Context(
            config=self.config,
            remote=remote,
            nodes=self.nodes,
            files=self.files,
            directories=directories,
            identity=Identity(
                self.config.identity,
                local_uid=1000,
                local_gid=1000,
                login=Login(1000, 1000),
                shared=False,
            ),
            coherence=coherence,
            tree=TreeReadAhead(
                self.config.cache,
                nodes=self.nodes,
                remote=remote,
                coherence=coherence,
                directories=directories,
                files=self.files,
                round_trip_s=lambda: 0.02,
                clock=self.clock,
                spawn=self._background.run,
            ),
            notifier=self.notes,
            clock=self.clock,
            spawn=self._background.run,
            capabilities=_Newest(),  # type: ignore[arg-type]  # only what these handlers ask
        )

    async def __aenter__(self) -> Rig:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.files.close("the test ends")

    # --- the kernel ----------------------------------------------------------------------------

    def _head(self, nodeid: int) -> tuple[int, int, int, int, int]:
        return (next(self._uniques), nodeid, *WHO)

    async def call(self, handler: Any, request: requests.Request) -> Reply:
        answer = handler(self.ctx, request)
        self.asked = not isinstance(answer, Reply)
        if isinstance(answer, Question):
            answer = reply_to(answer)
        if self.asked:
            async with asyncio.timeout(DEADLINE_S):
                answer = await answer
        assert isinstance(answer, Reply)
        return answer

    def node(self, name: bytes) -> Node:
        node = self.nodes.child(self.nodes.root, name)
        assert node is not None
        return node

    async def lookup(self, name: bytes) -> int:
        await self.call(namespace.lookup, requests.Lookup(*self._head(ROOT), name))
        return self.node(name).nodeid

    async def open(self, name: bytes, flags: int = os.O_RDONLY) -> Open:
        nodeid = await self.lookup(name)
        reply = await self.call(operations.open_, requests.Open(*self._head(nodeid), flags, False))
        fh, open_flags, _ = abi.OPEN_OUT.unpack(reply.body[0])
        return Open(nodeid, fh, open_flags, flags)

    async def create(
        self, name: bytes, flags: int = os.O_RDWR | os.O_CREAT, mode: int = 0o644
    ) -> Open:
        reply = await self.call(
            operations.create,
            requests.Create(*self._head(ROOT), name, flags, mode | 0o100000, 0o022, False),
        )
        fh, open_flags, _ = abi.OPEN_OUT.unpack(reply.body[0][-abi.OPEN_OUT.size :])
        return Open(self.node(name).nodeid, fh, open_flags, flags)

    async def read(self, file: Open, offset: int, size: int) -> bytes:
        request = requests.Read(*self._head(file.nodeid), file.fh, offset, size, file.flags)
        reply = await self.call(operations.read, request)
        return b"".join(reply.body)

    async def write(
        self, file: Open, offset: int, data: Buffer, *, from_cache: bool = False
    ) -> int:
        request = requests.Write(
            *self._head(file.nodeid), file.fh, offset, data, file.flags, from_cache, False
        )
        reply = await self.call(operations.write, request)
        return int(abi.WRITE_OUT.unpack(reply.body[0])[0])

    async def flush(self, file: Open) -> None:
        await self.call(operations.flush, requests.Flush(*self._head(file.nodeid), file.fh, 0))

    async def fsync(self, file: Open) -> None:
        await self.call(operations.fsync, requests.FSync(*self._head(file.nodeid), file.fh, False))

    async def release(self, file: Open) -> None:
        await self.call(
            operations.release,
            requests.Release(*self._head(file.nodeid), file.fh, file.flags, False),
        )

    async def close(self, file: Open) -> None:
        """close(2): FLUSH, whose errors it reports, and RELEASE."""
        try:
            await self.flush(file)
        finally:
            await self.release(file)

    async def fallocate(self, file: Open, offset: int, length: int, mode: int = 0) -> None:
        await self.call(
            operations.fallocate,
            requests.FAllocate(*self._head(file.nodeid), file.fh, offset, length, mode),
        )

    async def copy(
        self, source: Open, offset: int, dest: Open, dest_offset: int, length: int
    ) -> int:
        request = requests.CopyFileRange(
            *self._head(source.nodeid),
            source.fh,
            offset,
            dest.nodeid,
            dest.fh,
            dest_offset,
            length,
        )
        reply = await self.call(operations.copy_file_range, request)
        return int(abi.WRITE_OUT.unpack(reply.body[0])[0])

    async def truncate(self, nodeid: int, size: int) -> None:
        await self.setattr(nodeid, size=size)

    async def setattr(
        self,
        nodeid: int,
        *,
        size: int | None = None,
        mode: int | None = None,
        owner: int | None = None,
        times_s: tuple[int, int] | None = None,
    ) -> None:
        atime, mtime = (None, None) if times_s is None else (t * 10**9 for t in times_s)
        request = requests.SetAttr(
            *self._head(nodeid), None, mode, owner, None, size, atime, mtime, None, False, False,
            False,
        )  # fmt: skip
        await self.call(metadata.setattr_, request)

    async def unlink(self, name: bytes) -> None:
        await self.call(namespace.unlink, requests.Unlink(*self._head(ROOT), name))

    async def rename(self, old: bytes, new: bytes) -> None:
        request = requests.Rename(*self._head(ROOT), old, ROOT, new, 0)
        await self.call(namespace.rename, request)

    async def stat(self, name: bytes) -> Any:
        """(size, mtime, mode) as stat(2) shows them."""
        nodeid = await self.lookup(name)
        reply = await self.call(metadata.getattr_, requests.GetAttr(*self._head(nodeid), None))
        fields = abi.ATTR_OUT.unpack(reply.body[0])
        # struct fuse_attr_out: 3 of its own, then ino size blocks atime mtime ctime 3×nsec mode
        return fields[4], fields[7], fields[12]

    async def until_idle(self) -> None:
        """Until nothing is under way."""
        async with asyncio.timeout(DEADLINE_S):
            while not (self.files.pool.is_idle and self._background.is_idle):
                await asyncio.sleep(0)


class _Newest:
    """The capabilities of a kernel that has everything."""

    minor = abi.MINOR_MAX

    def has(self, flag: int) -> bool:
        return True
