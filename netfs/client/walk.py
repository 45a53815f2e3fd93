"""The state of one walk through a tree, for the planner of tree read-ahead.

What it means and what is done about it is in ``tree.py``.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple

from netfs.client.nodes import Node

Key = tuple[int, ...]
Files = Iterator[tuple[Key, Node]]


class Item(NamedTuple):
    """Something asked for ahead."""

    key: Key
    directory: int  # nodeid of what it is in
    at: float  # when, seconds
    size: int = 0  # bytes
    suffix: bytes = b""


class Ahead:
    """What was asked for ahead and is not used yet, in the order of the walk."""

    def __init__(self) -> None:
        self._items: dict[int, Item] = {}  # by nodeid
        self._keys: list[Key] = []  # sorted
        self.size = 0  # bytes

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, nodeid: int) -> bool:
        return nodeid in self._items

    def add(self, nodeid: int, item: Item) -> None:
        self._items[nodeid] = item
        insort(self._keys, item.key)
        self.size += item.size

    def pop(self, nodeid: int) -> Item | None:
        item = self._items.pop(nodeid, None)
        if item is not None:
            del self._keys[bisect_left(self._keys, item.key)]
            self.size -= item.size
        return item

    def before(self, key: Key) -> int:
        """How many of them come before *key*."""
        return bisect_left(self._keys, key)

    def older(self, than: float) -> list[int]:
        """Those asked for before *than* (seconds)."""
        found = []
        for nodeid, item in self._items.items():  # in the order in which they were asked for
            if item.at >= than:
                break
            found.append(nodeid)
        return found

    def left(self, visited: set[int], path: set[int]) -> list[int]:
        """Those in directories that were visited and are not on the *path* any more."""
        return [
            nodeid
            for nodeid, item in self._items.items()
            if item.directory not in path and item.directory in visited
        ]

    def clear(self) -> None:
        self._items.clear()
        self._keys.clear()
        self.size = 0


class Order(Enum):
    """In which a program takes the entries of a directory."""

    LISTED = "as listed"  # find, grep, tar
    INODE = "by inode number"  # cp
    NAME = "by name"  # git, rsync, ls, a shell's globs


class Run:
    """One walk, see the module."""

    def __init__(self, root: Node, now: float, dir_window: int, file_window: int) -> None:
        self.root = root
        self.last_at = now
        self.scanning = False  # files are opened, not only looked at
        self.opened_at = now  # when one was opened last
        self.futile: dict[int, float] = {}  # nodeid -> when a listing of it did not serve
        self.reads_links = False
        self.by_lookup = False  # names are looked up without listing (git status)
        self.skips_hidden = False  # began so, and has listed no hidden directory (.git) since
        self.dir_window = dir_window
        self.file_window = file_window
        self.dirs: list[tuple[Key, int, Node]] = []  # heap: to be listed
        self.files: list[tuple[Key, int, Node, Files]] = []  # heap: to be fetched, and what next
        self.keys: dict[int, Key] = {root.nodeid: ()}
        self.visited: set[int] = set()
        self.expanded: set[int] = set()
        self.ahead_dirs = Ahead()
        self.ahead_files = Ahead()
        self.suffixes: dict[bytes, int] = {}  # opened minus left behind
        self.places: list[Node] = []  # where accesses are: several, if programs walk together
        self.order = Order.LISTED
        self.hits = 0
        self.unused = 0


def upwards_from(node: Node) -> Iterator[Node]:
    """The node, its directory and so on up to the root."""
    at: Node | None = node
    while at is not None:
        yield at
        at = at.parent
