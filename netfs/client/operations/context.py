"""What every handler is given: the collaborators of one mount.

No behaviour belongs here.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from netfs.client.coherence import Coherence
    from netfs.client.config import Config
    from netfs.client.data.files import FileTable
    from netfs.client.directories import DirectoryTable
    from netfs.client.identity import Identity
    from netfs.client.nodes import NodeTable
    from netfs.client.prefetch import TreeReadAhead
    from netfs.client.remote.api import Remote
    from netfs.fuse.handshake import Capabilities


class Notifications(Protocol):
    """What handlers may tell the kernel: queued, coalesced, never blocking, never failing."""

    def invalidate_inode(self, nodeid: int, offset: int = 0, length: int = 0) -> None:
        """Drop attributes and cached pages (*length* 0: to the end)."""
        ...

    def invalidate_attributes(self, nodeid: int) -> None: ...

    def invalidate_entry(self, parent: int, name: bytes) -> None:
        """Drop a name; its directory is told to inotify watchers as changed by the kernel."""
        ...

    def expire_entry(self, parent: int, name: bytes) -> None:
        """Have a name looked up anew at its next use, leaving mounts and open files below alone."""
        ...

    @property
    def can_prune(self) -> bool:
        """The kernel understands PRUNE."""
        ...

    def prune(self, nodeids: Iterable[int]) -> None:
        """Ask the kernel to forget nodes that nobody uses (nothing, where it can't)."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The collaborators of one mount."""

    config: Config
    remote: Remote
    nodes: NodeTable
    files: FileTable
    directories: DirectoryTable
    identity: Identity
    coherence: Coherence
    tree: TreeReadAhead
    notifier: Notifications
    clock: Callable[[], float]  # monotonic, seconds
    spawn: Callable[[Coroutine[Any, Any, None]], None]
    """Runs work nobody waits for in the daemon's task group; failures are logged there."""
    capabilities: Capabilities  # what INIT agreed on
