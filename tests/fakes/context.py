"""A Context around a FakeRemote: a clock that only tests move, a notifier that only notes.

``async with mounted(remote) as mount:`` gives ``mount.kernel`` (tests/fakes/kernel.py) served by
the handlers of names, attributes and directories.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from netfs.client.coherence import Coherence
from netfs.client.config import (
    CacheConfig,
    Config,
    IdentityConfig,
    MountConfig,
    SemanticsConfig,
    SourceConfig,
)
from netfs.client.directories import DirectoryTable
from netfs.client.dispatcher import Handler
from netfs.client.identity import Identity, Login
from netfs.client.nodes import Node, NodeTable
from netfs.client.operations import directories, metadata, namespace
from netfs.client.operations.context import Context
from netfs.client.prefetch import TreeReadAhead
from netfs.client.turns import Background
from netfs.fuse.abi import Opcode
from netfs.sftp.attrs import Attrs
from tests.fakes.kernel import Kernel, serving
from tests.fakes.remote import FakeRemote, error

HANDLERS: Mapping[Opcode, Handler] = {
    Opcode.LOOKUP: namespace.lookup,
    Opcode.FORGET: namespace.forget,
    Opcode.BATCH_FORGET: namespace.forget,
    Opcode.READLINK: namespace.readlink,
    Opcode.SYMLINK: namespace.symlink,
    Opcode.MKNOD: namespace.mknod,
    Opcode.MKDIR: namespace.mkdir,
    Opcode.UNLINK: namespace.unlink,
    Opcode.RMDIR: namespace.rmdir,
    Opcode.RENAME: namespace.rename,
    Opcode.RENAME2: namespace.rename,
    Opcode.LINK: namespace.link,
    Opcode.GETATTR: metadata.getattr_,
    Opcode.SETATTR: metadata.setattr_,
    Opcode.STATX: metadata.statx,
    Opcode.ACCESS: metadata.access,
    Opcode.STATFS: metadata.statfs,
    Opcode.OPENDIR: directories.opendir,
    Opcode.READDIR: directories.readdir,
    Opcode.READDIRPLUS: directories.readdirplus,
    Opcode.RELEASEDIR: directories.releasedir,
}


class Clock:
    """Monotonic seconds, moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class Notes:
    """A notifier that remembers what the kernel would have been told."""

    told: list[tuple[Any, ...]] = field(default_factory=list)
    can_prune: bool = True

    def invalidate_inode(self, nodeid: int, offset: int = 0, length: int = 0) -> None:
        self.told.append(("inode", nodeid, offset, length))

    def invalidate_attributes(self, nodeid: int) -> None:
        self.told.append(("attributes", nodeid))

    def invalidate_entry(self, parent: int, name: bytes) -> None:
        self.told.append(("entry", parent, name))

    def expire_entry(self, parent: int, name: bytes) -> None:
        self.told.append(("expire", parent, name))

    def prune(self, nodeids: Iterable[int]) -> None:
        self.told.append(("prune", *nodeids))


class Content:
    """Stands for a file's open content: unsent bytes, and the questions it was asked."""

    def __init__(self, *, unsent_size: int | None = None) -> None:
        self.unsent_size = unsent_size
        self.versions: list[Attrs] = []

    @property
    def is_complete(self) -> bool:
        return False

    @property
    def has_unsent(self) -> bool:
        return self.unsent_size is not None

    def overlay(self, attrs: Attrs) -> Attrs:
        return attrs if self.unsent_size is None else attrs._replace(size=self.unsent_size)

    def told(self, attrs: Attrs, *, own: bool = False) -> None:
        self.versions.append(attrs)


class Files:
    """Stands for the table of open files."""

    def __init__(self, remote: FakeRemote, nodes: NodeTable) -> None:
        self._remote = remote
        self._nodes = nodes
        self.set: list[tuple[int, Attrs]] = []
        self.kept_open: list[int] = []
        self.prefetched: list[Node] = []
        self.by_handle: dict[int, Attrs] = {}

    async def setattr(self, node: Node, changes: Attrs) -> None:
        self.set.append((node.nodeid, changes))
        if not node.removed:
            await self._remote.setstat(self._nodes.path(node), changes)

    async def getattr(self, node: Node) -> Attrs:
        if node.nodeid not in self.by_handle:
            raise error(2)
        return self.by_handle[node.nodeid]

    async def keep_open(self, node: Node) -> None:
        self.kept_open.append(node.nodeid)

    async def prefetch(self, nodes: Sequence[Node]) -> None:
        self.prefetched += nodes


@dataclass
class Mount:
    """What a test needs at hand."""

    ctx: Context
    kernel: Kernel
    clock: Clock
    notes: Notes
    files: Files
    background: Background

    def node(self, nodeid: int) -> Node:
        return self.ctx.nodes.get(nodeid)

    async def settle(self) -> None:
        """Until the work nobody waits for is done."""
        await self.background.idle()


def make_config(
    *,
    cache: CacheConfig | None = None,
    identity: IdentityConfig | None = None,
    semantics: SemanticsConfig | None = None,
    mount: MountConfig | None = None,
) -> Config:
    return Config(
        source=SourceConfig(text="host:", host="host"),
        mount=mount or MountConfig(mountpoint="/mnt"),
        cache=cache or CacheConfig(),
        identity=identity or IdentityConfig(),
        semantics=semantics or SemanticsConfig(),
    )


def failed(error: BaseException) -> None:
    """What work that nobody waits for ended with: the server may refuse, nothing else may fail."""
    if not isinstance(error, OSError):
        raise error


@asynccontextmanager
async def mounted(
    remote: FakeRemote,
    *,
    config: Config | None = None,
    login: Login | None = None,
    root: bytes = b"/",
    max_entries: int = 10_000,
) -> AsyncIterator[Mount]:
    """A served kernel; see the module."""
    config = config or make_config()
    clock, notes = Clock(), Notes()
    background = Background(failed)
    nodes = NodeTable(root, max_entries=max_entries)
    coherence = Coherence(config.cache, nodes=nodes, remote=remote, notifier=notes, clock=clock)
    files = Files(remote, nodes)
    directories_ = DirectoryTable(
        nodes=nodes,
        remote=remote,
        coherence=coherence,
        clock=clock,
        spawn=background.run,
        follow_symlinks=config.semantics.follow_symlinks,
    )
    tree = TreeReadAhead(
        config.cache,
        nodes=nodes,
        remote=remote,
        coherence=coherence,
        directories=directories_,
        files=files,  # type: ignore[arg-type]  # only what these handlers use of it
        round_trip_s=lambda: 0.02,
        clock=clock,
        spawn=background.run,
    )
    ctx = Context(
        config=config,
        remote=remote,
        nodes=nodes,
        files=files,  # type: ignore[arg-type]  # only what these handlers use of it
        directories=directories_,
        identity=Identity(
            config.identity,
            local_uid=501,
            local_gid=502,
            login=login or Login(1000, 1000),
            shared=config.mount.allow_other,
        ),
        coherence=coherence,
        tree=tree,
        notifier=notes,
        clock=clock,
        spawn=background.run,
        capabilities=None,  # type: ignore[arg-type]  # not asked by these handlers
    )
    async with serving(ctx, HANDLERS) as kernel:
        yield Mount(ctx, kernel, clock, notes, files, background)
        await background.stop()
