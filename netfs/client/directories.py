"""Open directories, and the fetching of listings into the tree.

A ``Listing`` is one fetch of one directory, shared by everybody who wants it at that time; an
``OpenDirectory`` is a snapshot with offsets that stay what they are while the directory changes.
What a listing means for names and attributes is ``coherence``'s business.
"""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Final

from netfs.client.nodes import Node, NodeTable
from netfs.sftp.attrs import Attrs

if TYPE_CHECKING:
    from netfs.client.coherence import Coherence
    from netfs.client.remote.api import Remote

MAX_ENTRIES: Final = 20_000_000
"""Names of one directory; a server that sends more is not telling the truth (about 2 GB here)."""


Entry = tuple[bytes, Node | None, int]
"""One name of a snapshot: the name, its node (None: listed, but not to be believed more than its
name and type), st_mode.  A plain tuple: there is one per file."""


class Listing:
    """One fetch of one directory: entries as they arrive, then ``done`` or ``failed``."""

    __slots__ = ("_arrived", "done", "entries", "failed", "started_at", "users")

    def __init__(self, started_at: float) -> None:
        self.entries: list[Entry] = []
        self.done = False
        self.failed: OSError | None = None
        self.started_at = started_at
        self.users = 0  # who waits for it; a fetch that nobody wants any more stops
        self._arrived = asyncio.Event()

    def wake(self) -> None:
        self._arrived.set()
        self._arrived = asyncio.Event()

    async def wait_entries(self, count: int) -> None:
        """Wait until there are more than *count* entries, or no more to come.

        Raises: OSError of the fetch, when the entries before it are used up.
        """
        while len(self.entries) <= count and not self.done:
            if self.failed is not None:
                raise self.failed
            await self._arrived.wait()

    async def wait_done(self) -> None:
        """Raises: OSError of the fetch."""
        while not self.done:
            if self.failed is not None:
                raise self.failed
            await self._arrived.wait()


class OpenDirectory:
    """What one fh of OPENDIR refers to.

    Offsets: 0 the beginning, 1 after '.', 2 after '..', n + 2 after the n-th entry.
    """

    __slots__ = ("entries", "listing", "node", "read")

    def __init__(self, node: Node) -> None:
        self.node = node
        self.entries: list[Entry] = []
        self.listing: Listing | None = None  # while it is being fetched, or failed
        self.read = False  # something was read: offset 0 again means rewinddir(3)


class DirectoryTable:
    """All open directories of one mount and all listings under way."""

    def __init__(
        self,
        *,
        nodes: NodeTable,
        remote: Remote,
        coherence: Coherence,
        clock: Callable[[], float],
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        follow_symlinks: bool = False,
    ) -> None:
        self._nodes = nodes
        self._remote = remote
        self._coherence = coherence
        self._clock = clock
        self._spawn = spawn
        self._follow_symlinks = follow_symlinks
        self._open: dict[int, OpenDirectory] = {}
        self._next_fh = 1
        self._listings: dict[int, Listing] = {}  # by nodeid, those under way
        self.is_listing: Callable[[int], bool] = self._listings.__contains__
        """Whether the names of a directory (nodeid) are on their way."""
        self.fetched = 0  # listings, since the start
        self.on_listed: Callable[[Node], None] = lambda node: None  # told of each complete one

    # --- open directories ------------------------------------------------------------------------

    def open(self, node: Node) -> int:
        fh = self._next_fh
        self._next_fh += 1
        self._open[fh] = OpenDirectory(node)
        self._nodes.pin(node)
        return fh

    def get(self, fh: int) -> OpenDirectory | None:
        return self._open.get(fh)

    def close(self, fh: int) -> None:
        directory = self._open.pop(fh, None)
        if directory is None:
            return
        self._leave(directory)
        self._nodes.unpin(directory.node)

    def take_snapshot(self, directory: OpenDirectory) -> None:
        """The entries as they are now: at once when they are known, else they begin to arrive."""
        node = directory.node
        self._leave(directory)
        directory.read = False
        known = self._coherence.listing_left(node, self._clock()) > 0
        if known or (node.listed_at > 0 and not self._remote.is_up):
            children = node.children or {}
            directory.entries = [(name, child, child.mode) for name, child in children.items()]
            return
        listing = self.fetch(node)
        listing.users += 1
        directory.listing = listing
        directory.entries = listing.entries

    def _leave(self, directory: OpenDirectory) -> None:
        if directory.listing is not None:
            directory.listing.users -= 1
            directory.listing = None

    # --- fetching ------------------------------------------------------------------------------

    def under_way(self, node: Node) -> Listing | None:
        return self._listings.get(node.nodeid)

    def fetch(self, node: Node) -> Listing:
        """Begin to list *node*, or join who does; the caller counts itself in ``users``."""
        listing = self._listings.get(node.nodeid)
        if listing is None:
            listing = self._listings[node.nodeid] = Listing(self._clock())
            self._nodes.pin(node)
            self._spawn(self._run(node, listing, self._nodes.stamp))
        return listing

    async def _run(self, node: Node, listing: Listing, asked: int) -> None:
        try:
            await self._fill(node, listing, asked)
        except OSError as exc:
            listing.failed = exc  # told to everybody who waits for it
        except asyncio.CancelledError:
            listing.failed = OSError(errno.EINTR, os.strerror(errno.EINTR))
            raise
        finally:
            if not listing.done and listing.failed is None:
                listing.failed = OSError(errno.EIO, os.strerror(errno.EIO))  # a bug, logged above
            self._part(node, listing)
            self._nodes.unpin(node)
            listing.wake()

    def _part(self, node: Node, listing: Listing) -> None:
        """Nobody joins *listing* any more."""
        if self._listings.get(node.nodeid) is listing:
            del self._listings[node.nodeid]

    async def _fill(self, node: Node, listing: Listing, asked: int) -> None:
        at = listing.started_at
        entries = listing.entries
        names: set[bytes] = set()
        batches = self._remote.scandir(self._nodes.path(node))
        async for batch in batches:
            entries += self._learn(node, batch, names, at, asked)
            listing.wake()
            if len(entries) > MAX_ENTRIES or not listing.users:
                self._part(node, listing)  # who comes now begins anew
                await batches.aclose()  # type: ignore[attr-defined]  # an async generator
                raise OSError(errno.EINTR, "nobody waits for this listing any more")
        self.fetched += 1
        self._coherence.listed(node, names, at, asked)
        listing.done = True
        self.on_listed(node)

    def _learn(
        self,
        node: Node,
        batch: Sequence[tuple[bytes, Attrs]],
        names: set[bytes],
        at: float,
        asked: int,
    ) -> list[Entry]:
        """What a part of a listing tells; *names* are those it has told already, and grow."""
        told = {name for name, _ in batch}
        if len(told) != len(batch) or not names.isdisjoint(told):  # the server repeats itself
            fresh: dict[bytes, Attrs] = {}
            for name, attrs in batch:
                if name not in names:
                    fresh.setdefault(name, attrs)
            batch = list(fresh.items())
        names |= told
        if node.changes > asked:
            # Names were changed here meanwhile; these may be gone already.
            return [(name, None, attrs.mode or 0) for name, attrs in batch]
        if self._follow_symlinks:
            return [self._learn_followed(node, name, attrs, at, asked) for name, attrs in batch]
        found = self._coherence.learned_all(node, batch, at, asked)
        return [
            (name, child, attrs.mode or 0)
            for (name, attrs), child in zip(batch, found, strict=True)
        ]

    def _learn_followed(
        self, node: Node, name: bytes, attrs: Attrs, at: float, asked: int
    ) -> Entry:
        mode = attrs.mode or 0
        if stat.S_ISLNK(mode):
            return name, self._nodes.add(node, name), 0  # of the type of what it leads to
        return name, self._coherence.learned(node, name, attrs, at, asked), mode
