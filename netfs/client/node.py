"""One remote file, as far as it is known.

Where it is in the tree, and when it comes and goes, is ``nodes.py``'s business.
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, Final

from netfs.sftp.attrs import Attrs

if TYPE_CHECKING:
    from netfs.client.data.content import FileData

ROOT_ID: Final = 1
NEVER: Final = float("-inf")
"""A time before every clock's zero: "not known", older than any TTL allows."""


class Node:
    """One remote file, under one or several names.  Written by NodeTable only, except ``data``,
    ``opens`` (through pin/unpin) and ``used``."""

    __slots__ = (
        "attrs",
        "attrs_at",
        "changes",
        "children",
        "data",
        "ino",
        "links",
        "listed_at",
        "mode",
        "name",
        "negative",
        "nlookup",
        "nodeid",
        "opens",
        "parent",
        "target",
        "told_at",
        "used",
    )

    def __init__(self, nodeid: int, parent: Node | None, name: bytes) -> None:
        self.nodeid = nodeid
        self.nlookup = 0  # what the kernel holds; exact
        self.opens = 0  # open files and directories, work under way
        self.parent = parent  # None: the root, or a removed node
        self.name = name
        self.links: list[tuple[Node, bytes]] | None = None  # further names, after link(2)
        self.attrs: Attrs | None = None  # as the server said, or as one's own changes made them
        self.mode = 0  # st_mode of attrs; 0 while unknown
        self.attrs_at = NEVER  # monotonic seconds
        self.told_at = NEVER  # of a directory: the same for all but mtime, ctime and size
        self.children: dict[bytes, Node] | None = None  # directories only, None: none known
        self.negative: dict[bytes, float] | None = None  # names found missing, and when
        self.listed_at = NEVER  # when a complete listing was asked for: children is all there is
        self.target: bytes | None = None  # a symlink's
        self.data: FileData | None = None  # the content of the current version
        self.changes = 0  # the stamp of the last own change
        self.ino: int | None = None  # st_ino, where the server does not tell it
        self.used = False  # since the last sweep came by; being listed is no use

    @property
    def removed(self) -> bool:
        """No name is left; open files go on."""
        return self.parent is None and self.nodeid != ROOT_ID

    @property
    def is_dir(self) -> bool:
        return self.mode & 0o170000 == 0o040000 or self.nodeid == ROOT_ID

    @property
    def is_symlink(self) -> bool:
        return stat.S_ISLNK(self.mode)

    @property
    def names(self) -> list[tuple[Node, bytes]]:
        """Each (directory, name) of it that is known."""
        if self.parent is None:
            return []
        return [(self.parent, self.name), *(self.links or ())]

    def __repr__(self) -> str:
        held = f"nlookup={self.nlookup} opens={self.opens}"
        return f"<Node {self.nodeid} {self.name!r} {held}{' removed' if self.removed else ''}>"
