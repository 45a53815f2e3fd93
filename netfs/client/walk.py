"""What the planner of tree read-ahead says about a walk: orders, places, what is asked for ahead.

What it means and what is done about it is in ``tree.py``.
"""

from __future__ import annotations

import os
import re
import stat
from bisect import bisect_left, insort
from collections.abc import Callable, Container, Iterator
from enum import Enum
from operator import itemgetter
from typing import Any, Final, NamedTuple

from netfs.client.nodes import Node

Key = tuple[int, ...]
Files = Iterator[tuple[Key, Node]]

SMALL_FILE: Final = 256 * 1024
"""bytes: fits into one READ; larger files have read-ahead of their own."""

_DIGITS: Final = re.compile(rb"(\d+)")


class Known(NamedTuple):
    """What the caches hold, as the planner asks about it."""

    is_listed: Callable[[Node], bool]
    """Whether a directory's names are known well enough."""
    is_fresh: Callable[[Node], bool]
    """Whether a file's attributes are young enough to open it without asking."""
    is_cached: Callable[[Node], bool]
    """Whether a file's content is held already."""
    ino: Callable[[Node], int]
    """st_ino; cp reads directories in its order."""
    fresh_s: float
    """How long attributes are fresh; 0: never."""
    names_kept: int
    """How many names are remembered: listing more would push out what was just listed."""


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

    def older(self, than: float, *, before: Key | None = None) -> list[int]:
        """Those asked for before *than* (seconds); only what comes *before* a key."""
        found = []
        for nodeid, item in self._items.items():  # in the order in which they were asked for
            if item.at >= than:
                break
            if before is None or item.key < before:
                found.append(nodeid)
        return found

    def left(self, visited: Container[int], path: set[int]) -> list[int]:
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
    NUMBER = "by name, numbers by value"  # ls -v, what counts its files
    BACKWARDS = "as listed, from the end"


class Habit(NamedTuple):
    """How a program goes through a directory."""

    order: Order = Order.LISTED
    files_first: bool = False  # and then what is below (rsync, os.walk)


def ordered(habit: Habit, directory: Node, ino: Callable[[Node], int]) -> list[Node]:
    """The children of *directory* as they are taken."""
    children = list((directory.children or {}).values())
    match habit.order:
        case Order.LISTED:
            pass
        case Order.INODE:
            children.sort(key=ino)
        case Order.NAME:
            children.sort(key=_name)
        case Order.NUMBER:
            children.sort(key=_numbers)
        case Order.BACKWARDS:
            children.reverse()
    if habit.files_first:
        children.sort(key=_is_dir)
    return children


def notice_habit(
    likely: Habit,
    directory: Node,
    taken: list[Node],
    *,
    visited: Container[int],
    ino: Callable[[Node], int],
) -> Habit | None:
    """How *taken*, files, were taken from *directory* after *visited* directories: of what fits,
    that which leaves out the least between them; *likely* if it is among those."""
    found: list[tuple[int, Habit]] = []
    wanted = {node.nodeid for node in taken}
    for habit in (likely, *(Habit(order, first) for order in Order for first in (False, True))):
        children = ordered(habit, directory, ino)
        if [node for node in children if node.nodeid in wanted] != taken:
            continue
        between = children[children.index(taken[0]) : children.index(taken[-1])]
        left_out = sum(1 for node in between if not (node.is_dir and node.nodeid in visited))
        found.append((left_out, habit))
    return min(found, key=itemgetter(0))[1] if found else None


def upwards_from(node: Node) -> Iterator[Node]:
    """The node, its directory and so on up to the root."""
    at: Node | None = node
    while at is not None:
        yield at
        at = at.parent


def is_hidden(directory: Node, root: Node | None = None) -> bool:
    """Whether a name that begins with a dot leads from *root* (the mount's) to *directory*."""
    for each in upwards_from(directory):
        if each is root:
            return False
        if each.name.startswith(b"."):
            return True
    return False


def is_small_file(node: Node) -> bool:
    attrs = node.attrs
    return (
        attrs is not None
        and attrs.size is not None
        and 0 < attrs.size <= SMALL_FILE
        and stat.S_ISREG(attrs.mode or 0)
    )


def suffix_of(node: Node) -> bytes:
    return os.path.splitext(node.name)[1]


def _is_dir(node: Node) -> bool:
    return node.is_dir


def _name(node: Node) -> bytes:
    return node.name


def _numbers(node: Node) -> list[Any]:
    parts: list[Any] = _DIGITS.split(node.name)  # texts and numbers in turn: they compare
    parts[1::2] = map(int, parts[1::2])
    return parts
