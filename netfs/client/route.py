"""What lies ahead of a walk, in the order in which it will be met.

Each directory has a key, the positions on the way to it from the root of the walk; files have the
key of their directory and their own position.  Two heaps hold the directories to be listed and, of
each directory, the next file to be fetched.  Listings arrive in any order; the keys put what they
bring into its place.  How much of it is asked for is ``run.py``'s business.
"""

from __future__ import annotations

import heapq
from itertools import count
from operator import itemgetter
from typing import Final

from netfs.client.nodes import Node
from netfs.client.walk import Files, Habit, Key, Known, ordered

MAX_PENDING: Final = 20_000
"""Directories known to lie ahead; more than any window needs."""

_BEHIND: Final = 1 << 40
"""Added to positions that a walk has passed when it is first noticed: looked at last."""


class Route:
    """From the root of a walk to its end."""

    def __init__(self, root: Node, known: Known) -> None:
        self.root = root
        self.habit = Habit()
        self.with_files = False
        self.skips_hidden = False  # began by lookups, and has listed no hidden directory since
        self.dirs: list[tuple[Key, int, Node]] = []  # heap: to be listed
        self.files: list[tuple[Key, int, Node, Files]] = []  # heap: to be fetched, and what next
        self.keys: dict[int, Key] = {root.nodeid: ()}  # by nodeid
        self.expanded: set[int] = set()  # directories whose content is in the heaps, or was
        self._known = known
        self._sequence = count()

    def holds(self, directory: Node) -> bool:
        return directory.nodeid in self.keys

    def reposition(self, directory: Node) -> None:
        """Begin anew with what lies ahead of *directory*, up to the root of the walk."""
        self.dirs.clear()
        self.files.clear()
        self.expanded.clear()
        path = [directory]
        while path[-1] is not self.root:
            above = path[-1].parent
            if above is None:
                break  # moved elsewhere meanwhile
            path.append(above)
        self.root = path[-1]
        self.keys[self.root.nodeid] = ()
        for above, below in zip(reversed(path[1:]), reversed(path[:-1]), strict=True):
            self.keys.setdefault(below.nodeid, (*self.keys[above.nodeid], 0))
            self.look_at(above, below)
        self.look_at(directory)

    def look_at(self, directory: Node, below: Node | None = None) -> None:
        """Have *directory* looked at; a walk is at its child *below* already."""
        if directory.nodeid in self.expanded:
            return
        if self._known.is_listed(directory):
            self.expand(directory, below)
        else:
            self._push(self.keys[directory.nodeid], directory)

    def expand(self, directory: Node, below: Node | None = None) -> None:
        """Put what a listed directory holds into the places where a walk meets it."""
        key = self.keys.get(directory.nodeid)
        if key is None or directory.nodeid in self.expanded or len(self.dirs) >= MAX_PENDING:
            return  # without a key: its place is known when its parent is listed
        self.expanded.add(directory.nodeid)
        behind = _BEHIND if below is not None else 0
        files: list[tuple[Key, Node]] = []
        for position, child in enumerate(ordered(self.habit, directory, self._known.ino)):
            if child is below:
                behind = 0
            child_key = (*key, position + behind)
            if not child.is_dir:
                files.append((child_key, child))
            elif not (self.skips_hidden and child.name.startswith(b".")):
                self.keys[child.nodeid] = child_key
                self._push(child_key, child)
        if self.with_files:
            self._push_file(iter(sorted(files, key=itemgetter(0))))

    def pop_directory(self) -> Node:
        """Take the next directory off."""
        return heapq.heappop(self.dirs)[2]

    def pop_file(self) -> Node:
        """Take the next file off."""
        _, _, node, others = heapq.heappop(self.files)
        self._push_file(others)
        return node

    def will_meet(self, node: Node) -> bool:
        """Whether files of the same directory still lie ahead of *node*'s place or at it."""
        return any(each.parent is node.parent for _, _, each, _ in self.files)

    def forget_passed(self, needed: set[int]) -> None:
        """A walk over very many directories: keep what lies ahead and what is *needed*."""
        needed = needed | {node.nodeid for _, _, node in self.dirs} | {self.root.nodeid}
        self.keys = {nodeid: key for nodeid, key in self.keys.items() if nodeid in needed}
        self.expanded &= needed

    def _push(self, key: Key, directory: Node) -> None:
        heapq.heappush(self.dirs, (key, next(self._sequence), directory))

    def _push_file(self, files: Files) -> None:
        """Have the next of a directory's files looked at when its place comes."""
        following = next(files, None)
        if following is not None:
            key, node = following
            heapq.heappush(self.files, (key, next(self._sequence), node, files))
