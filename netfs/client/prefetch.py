"""The shell of tree read-ahead: tells the planner (``tree.py``) what happens, does what it plans.

Listings go into the tree of names, small files into the block cache, targets of symlinks into
their nodes.  What is worth asking ahead is not decided here, and nothing here is waited for except
by who wants exactly what is under way.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from netfs.client.directories import DirectoryTable, Listing
from netfs.client.nodes import Node, NodeTable
from netfs.client.tree import Statistics, TreePlanner

if TYPE_CHECKING:
    from netfs.client.coherence import Coherence
    from netfs.client.config import CacheConfig
    from netfs.client.data.files import FileTable
    from netfs.client.remote.api import Remote

log = logging.getLogger(__name__)

MAX_ENTRIES_AHEAD: Final = 4096
"""A larger directory is not listed ahead to its end, nor listed to open some of its files."""


WAIT_ENTRIES: Final = 512
"""Who wants one name of a directory that is being listed waits for so many, some READDIRs; in a
larger directory asking for the name is sooner answered."""


class TreeReadAhead:
    """Listings and small files asked for before the kernel asks."""

    def __init__(
        self,
        config: CacheConfig,
        *,
        nodes: NodeTable,
        remote: Remote,
        coherence: Coherence,
        directories: DirectoryTable,
        files: FileTable,
        clock: Callable[[], float],
        spawn: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self._nodes = nodes
        self._remote = remote
        self._coherence = coherence
        self._directories = directories
        self._files = files
        self._clock = clock
        self._spawn = spawn
        self._cto_window_s = config.cto_window_s
        self._enabled = config.enabled and config.tree_read_ahead
        self._planner = TreePlanner(
            is_listed=self._is_listed,
            is_fresh=self._is_fresh,
            is_cached=_is_cached,
            ino=nodes.ino,
        )
        directories.on_listed = self._listed

    # --- what happens ----------------------------------------------------------------------------

    def looked_up(self, directory: Node, *, asked: bool) -> None:
        """A name of *directory* is looked up; *asked*: the server has to be asked for it."""
        if self._enabled:
            with self._optional():
                if self._planner.looked_up(directory, self._clock(), asked=asked):
                    self._act()

    def opened_directory(self, directory: Node) -> None:
        if self._enabled:
            with self._optional():
                self._planner.entered(directory, self._clock())
                self._act()

    def opened(self, node: Node) -> None:
        """A file is opened."""
        if self._enabled:
            with self._optional():
                self._planner.opened(node, self._clock())
                self._act()

    def read_link(self, node: Node) -> None:
        if self._enabled:
            self._planner.read_link(node, self._clock())

    # --- what is under way -----------------------------------------------------------------------

    def is_listing(self, directory: Node) -> bool:
        """Whether the names of *directory* are on their way."""
        return self._directories.under_way(directory) is not None

    async def wait_listed(self, directory: Node) -> None:
        """Wait for the listing of *directory* that is under way, or for the first part of a long
        one; a failed one tells nothing."""
        listing = self._directories.under_way(directory)
        if listing is None:
            return
        listing.users += 1
        try:
            await listing.wait_entries(WAIT_ENTRIES)
        except OSError as exc:
            log.debug("the listing that was waited for failed: %s", exc)
        finally:
            listing.users -= 1

    async def revalidate(self, node: Node) -> None:
        """Before *node* is opened with old attributes: in a scan, its whole directory is looked at
        at once.  Returns soon if there is no such scan; the attributes tell what came of it."""
        parent = node.parent
        if not self._enabled or parent is None or self._is_fresh(node):
            return
        if not self._planner.is_scanned(parent):
            return
        if parent.children is None or len(parent.children) > MAX_ENTRIES_AHEAD:
            return
        if self.is_listing(parent):
            await self.wait_listed(parent)

    def statistics(self) -> Statistics:
        return self._planner.statistics()

    # --- what is done ----------------------------------------------------------------------------

    @contextmanager
    def _optional(self) -> Iterator[None]:
        """A mistake in what is only a guess must not fail the request that led to it."""
        try:
            yield
        except Exception:
            log.exception("tree read-ahead is off from now on")
            self._enabled = False

    def _act(self) -> None:
        if not self._coherence.is_up:
            return
        plan = self._planner.take(self._clock())
        for directory in plan.directories:
            if directory.removed:
                self._planner.not_listed(directory)
                continue
            listing = self._directories.fetch(directory)
            listing.users += 1
            self._spawn(self._follow(directory, listing))
        if plan.files:
            self._spawn(self._files.prefetch(plan.files))

    async def _follow(self, directory: Node, listing: Listing) -> None:
        """Keep a listing going while it is not larger than what is worth a guess."""
        try:
            await listing.wait_entries(MAX_ENTRIES_AHEAD)
        except OSError as exc:
            # Only a guess: who really lists it gets the server's answer.
            log.debug("listing ahead: %s", exc)
            self._planner.not_listed(directory)
        finally:
            listing.users -= 1

    def _listed(self, directory: Node) -> None:
        """Called when a listing is complete."""
        if not self._enabled:
            return
        with self._optional():
            self._planner.listed(directory, self._clock())
            for link in self._planner.links_of(directory):
                self._spawn(self._read_link(link))
            self._act()

    async def _read_link(self, link: Node) -> None:
        asked = self._nodes.stamp
        try:
            target = await self._remote.readlink(self._nodes.path(link))
        except OSError as exc:
            log.debug("readlink ahead: %s", exc)
            return
        if link.changes <= asked:
            link.target = target

    def _is_listed(self, directory: Node, fresh: bool) -> bool:
        now = self._clock()
        if fresh:
            # Half the window is left for the files to be opened in.
            return now - directory.listed_at <= self._cto_window_s / 2
        return self._coherence.listing_left(directory, now) > 0

    def _is_fresh(self, node: Node) -> bool:
        return self._clock() - node.attrs_at <= self._cto_window_s


def _is_cached(node: Node) -> bool:
    return node.data is not None and node.data.is_complete
