"""The shell of tree read-ahead: tells the planner (``tree.py``) what happens, does what it plans.

Listings go into the tree of names, small files into the block cache, targets of symlinks into
their nodes.  What is worth asking ahead is not decided here, and nothing here is waited for except
by who wants exactly what is under way.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

from netfs.client.directories import DirectoryTable, Listing
from netfs.client.nodes import Node, NodeTable
from netfs.client.tree import MAX_ENTRIES_AHEAD, Statistics, TreePlanner
from netfs.client.walk import Known

if TYPE_CHECKING:
    from netfs.client.coherence import Coherence
    from netfs.client.config import CacheConfig
    from netfs.client.data.files import FileTable
    from netfs.client.remote.api import Remote

log = logging.getLogger(__name__)

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
        round_trip_s: Callable[[], float],
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
        self._is_logged = log.isEnabledFor(logging.DEBUG)
        known = Known(
            is_listed=self._is_listed,
            is_fresh=self._is_fresh,
            is_cached=_is_cached,
            ino=nodes.ino,
            fresh_s=config.cto_window_s,
            names_kept=nodes.max_entries,
        )
        self._planner = TreePlanner(known, round_trip_s=round_trip_s)
        directories.on_listed = self._listed

    # --- what happens ----------------------------------------------------------------------------

    def looked_up(self, directory: Node, now: float, *, asked: bool) -> None:
        """A name of *directory* is looked up; *asked*: the server has to be asked for it."""
        if self._enabled:
            if self._is_logged:
                self._log("looks up in", directory)
            try:
                if self._planner.looked_up(directory, now, asked=asked):
                    self._act()
            except Exception:
                self._give_up()

    def opened_directory(self, directory: Node) -> None:
        if self._enabled:
            if self._is_logged:
                self._log("lists", directory)
            try:
                self._planner.entered(directory, self._clock())
                self._act()
            except Exception:
                self._give_up()

    def opened(self, node: Node) -> None:
        """A file is opened."""
        if self._enabled:
            if self._is_logged:
                self._log("opens", node)
            try:
                self._planner.opened(node, self._clock())
                self._act()
            except Exception:
                self._give_up()

    def read_link(self, node: Node) -> None:
        if self._enabled:
            if self._is_logged:
                self._log("reads link", node)
            try:
                for link in self._planner.read_link(node, self._clock()):
                    self._spawn(self._read_link(link))
            except Exception:
                self._give_up()

    def _log(self, what: str, node: Node) -> None:
        """Accesses as the planner is told of them: ``tests/harness/traces.py`` makes traces of
        these lines."""
        path = None if node.removed else self._nodes.local_path(node)
        log.debug("%s %r", what, path)

    # --- what is under way -----------------------------------------------------------------------

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
        if not self._enabled or parent is None or self._is_fresh(node) or not _is_cached(node):
            return  # opening what must be fetched tells the attributes, too
        if not self._planner.is_scanned(parent):
            return
        if parent.children is None or len(parent.children) > MAX_ENTRIES_AHEAD:
            return
        await self.wait_listed(parent)

    def statistics(self) -> Statistics:
        return self._planner.statistics()

    # --- what is done ----------------------------------------------------------------------------

    def _give_up(self) -> None:
        """A mistake in what is only a guess must not fail the request that led to it."""
        log.exception("tree read-ahead is off from now on")
        self._enabled = False

    def _act(self) -> None:
        if not self._remote.is_up:
            return
        plan, wanted = self._planner.take(self._clock())
        for directory in plan.directories:
            self._list(directory, MAX_ENTRIES_AHEAD)
        for directory, limit in wanted:
            self._list(directory, limit)
        if plan.files:
            self._spawn(self._files.prefetch(plan.files))

    def _list(self, directory: Node, limit: int) -> None:
        if self._nodes.find(directory.nodeid) is not directory:  # removed, or evicted since
            self._planner.not_listed(directory, 0)
            return
        listing = self._directories.fetch(directory)
        listing.users += 1
        self._spawn(self._follow(directory, listing, limit))

    async def _follow(self, directory: Node, listing: Listing, limit: int) -> None:
        """Keep a listing going up to *limit* entries: then it ends, and its handle is closed, if
        nobody else wants it."""
        try:
            await listing.wait_entries(limit)
        except OSError as exc:
            # Only a guess: who really lists it gets the server's answer.
            log.debug("listing ahead: %s", exc)
        finally:
            listing.users -= 1
        if not listing.done:
            self._planner.not_listed(directory, len(listing.entries))

    def _listed(self, directory: Node) -> None:
        """Called when a listing is complete."""
        if not self._enabled:
            return
        try:
            self._planner.listed(directory, self._clock())
            for link in self._planner.links_of(directory):
                self._spawn(self._read_link(link))
            self._act()
        except Exception:
            self._give_up()

    async def _read_link(self, link: Node) -> None:
        asked = self._nodes.stamp
        try:
            target = await self._remote.readlink(self._nodes.path(link))
        except OSError as exc:
            log.debug("readlink ahead: %s", exc)
            return
        if link.changes <= asked:
            link.target = target

    def _is_listed(self, directory: Node) -> bool:
        return self._coherence.listing_left(directory, self._clock()) > 0

    def _is_fresh(self, node: Node) -> bool:
        return self._clock() - node.attrs_at <= self._cto_window_s


def _is_cached(node: Node) -> bool:
    return node.data is not None and node.data.is_complete
