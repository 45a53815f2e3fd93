"""What is known of the remote names: one tree that is name, attribute, negative and listing cache
at once, and the kernel's node table.

Nothing here waits, asks the server or decides how old is too old (``coherence.py``).

Lifecycle.  A node lives while it has a name in the tree, or the kernel holds it (``nlookup``), or
an open file pins it (``opens``).  A node without any of the last two is only a cache entry and may
be evicted at any time, children before their directory.  nodeids are never used twice, so every
generation is 0.

One's own mutations and answers under way: who asks the server takes ``table.stamp`` before.
``begin_change``/``end_change`` around a mutation set ``node.changes`` to a newer stamp, and an
answer that was asked for before is not stored, because nobody knows which came first.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Set
from typing import TYPE_CHECKING, Final, NamedTuple

from netfs.client.ages import Ages
from netfs.client.node import NEVER, ROOT_ID, Node
from netfs.sftp.attrs import Attrs

if TYPE_CHECKING:
    from netfs.client.data.content import FileData

__all__ = ["NEVER", "ROOT_ID", "Node", "NodeStatistics", "NodeTable"]

_MAX_NEGATIVE: Final = 4096
"""Missing names remembered per directory; a compiler's include search needs some hundreds."""


_INO_PRIME: Final = 0x61B6AA6C95F34815
_INO_FACTOR: Final = 0x2239F7EDCDE0C29
"""A made-up inode number is the path as a number, modulo a prime (Rabin's fingerprint): names of
up to 7 bytes in a directory never share one, others with a chance of 2**-62.  Both were drawn
once: modulo a prime like 2**61 - 1 bytes that swap places would make the same number.  The factor
scatters them: who reads by inode number is told from who reads by name.  blake2b costs twice as
much in a loop, and took 8 us of a LOOKUP that found the caches cold."""


class NodeStatistics(NamedTuple):
    """What the table holds, in nodes."""

    nodes: int
    held: int  # by the kernel
    evicted: int  # since the start


class _ById(dict[int, Node]):
    """By nodeid.  Raises: OSError(ESTALE) for an unknown one."""

    def __missing__(self, nodeid: int) -> Node:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))


class NodeTable:
    """All nodes of one mount.

    *max_entries* bounds the nodes; which of them go is decided by ``ages``.
    """

    def __init__(self, root_path: bytes, *, max_entries: int) -> None:
        self._root_path = root_path.rstrip(b"/")
        self.max_entries = max_entries
        self.root = Node(ROOT_ID, None, b"")
        self.root.nlookup = 1  # the kernel's for ever, never forgotten
        self._by_id = _ById({ROOT_ID: self.root})
        self.get: Callable[[int], Node] = self._by_id.__getitem__
        """The node the kernel means.  Raises: OSError(ESTALE) for an unknown one: the kernel then
        walks the path again."""
        self._by_ino: dict[int, Node] = {}  # hard-linked files whose inode number is known
        self._moved_inos: dict[int, int] = {}  # made-up st_ino of renamed nodes -> nodeid
        self._next_id = ROOT_ID + 1
        self.stamp = 0  # grows with every own change of any node
        self._held = 1
        self._evicted = 0
        self.ages = Ages(self._by_id, limit=max_entries, evict=self._evict)
        self._sweep_from = self._next_id  # the nodeid with which to look whether there are too many
        self.on_useless: Callable[[FileData], None] | None = None
        """Told the ``data`` of a nameless node that nobody holds: to be dropped if it can be."""

    # --- finding ---------------------------------------------------------------------------

    def find(self, nodeid: int) -> Node | None:
        return self._by_id.get(nodeid)

    def child(self, parent: Node, name: bytes) -> Node | None:
        children = parent.children
        return children.get(name) if children is not None else None

    def path(self, node: Node) -> bytes:
        """The remote path.  Raises: OSError(ENOENT) for a removed node."""
        if node.nodeid == ROOT_ID:
            return self._root_path or b"/"
        return self.path_of(node.parent, node.name)

    def path_of(self, parent: Node | None, name: bytes) -> bytes:
        """The remote path of a name in a directory, whether it exists or not.

        Raises: OSError(ENOENT) for a directory that is removed itself.
        """
        parts = [name]
        at = parent
        while at is not self.root:
            if at is None:
                raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
            parts.append(at.name)
            at = at.parent
        parts.append(self._root_path)
        parts.reverse()
        return b"/".join(parts)

    def local_path(self, node: Node) -> bytes:
        """Relative to the mount's root, for messages; b"" for the root itself."""
        parts = []
        at: Node | None = node
        while at is not None and at.nodeid != ROOT_ID:
            parts.append(at.name)
            at = at.parent
        return b"/".join(reversed(parts))

    def ino(self, node: Node) -> int:
        """st_ino: the server's, else made from the path it was first seen under.

        Stable across mounts while nothing is renamed, kept when it is renamed.
        """
        attrs = node.attrs
        return (attrs is not None and attrs.ino) or node.ino or self.make_ino(node)

    def make_ino(self, node: Node) -> int:
        """Give *node* an ``ino``, which it must not have."""
        above = node.parent
        if above is not None and above.ino is None:
            chain: list[Node] = []  # not recursion: a tree may be deeper than the stack
            at: Node | None = above
            while at is not None and at.ino is None:
                chain.append(at)
                at = at.parent
            while chain:
                self.make_ino(chain.pop())
        # A renamed file keeps its number while a new file takes its old name: the two must
        # differ, or `cp` and `diff` believe that they are one file.
        number = int.from_bytes(node.name, "big") + (0 if above is None else above.ino or 0)
        ino = number * _INO_FACTOR % _INO_PRIME + 2
        moved = self._moved_inos
        if moved:
            while moved.get(ino, node.nodeid) != node.nodeid:
                ino += 1
        node.ino = ino
        return ino

    # --- own changes under way ---------------------------------------------------------------

    def begin_change(self, node: Node) -> None:
        """A mutation of *node* is about to be sent; for names, of their directory."""
        self.stamp += 1
        node.changes = self.stamp

    def end_change(self, node: Node) -> None:
        """Its outcome is known, or never will be."""
        self.stamp += 1
        node.changes = self.stamp

    def begin_names(self, directory: Node) -> None:
        """Names of *directory* are about to be changed: as ``begin_change``, and it stays."""
        self.stamp += 1
        directory.changes = self.stamp
        directory.opens += 1

    def end_names(self, directory: Node) -> None:
        """As ``end_change``, and it need not stay any more."""
        self.stamp += 1
        directory.changes = self.stamp
        directory.opens -= 1
        if directory.parent is None:
            self._drop_if_unused(directory)

    # --- learning --------------------------------------------------------------------------

    def add(self, parent: Node, name: bytes) -> Node:
        """The node of a name that is known to exist, made if need be."""
        children = parent.children
        if children is None:
            children = parent.children = {}
        node = children.get(name)
        if node is None:
            nodeid = self._next_id
            self._next_id = nodeid + 1
            node = self._by_id[nodeid] = children[name] = Node(nodeid, parent, name)
            self.ages.made(node)
            if nodeid >= self._sweep_from:
                self._sweep_from = nodeid + self.ages.sweep(keep=node)
        if parent.negative is not None:
            parent.negative.pop(name, None)
        return node

    def learn(self, parent: Node, name: bytes, attrs: Attrs, at: float, asked: int) -> Node:
        """What the server says of a name, asked for at *at* (seconds) and *asked* (stamp).

        A file of another type or inode number is another node, and so is a symlink of another
        time (the kernel may keep the old one's target for ever); two names of one inode that the
        server numbers are one node.
        """
        children = parent.children
        node = children.get(name) if children is not None else None
        if node is not None:
            if node.changes > asked:
                return node
            if _is_other_file(node.attrs, attrs):
                self.remove(parent, name)
                node = None
        nlink = attrs.nlink
        if nlink is not None and nlink > 1 and attrs.ino and not _is_dir(attrs):
            twin = self._by_ino.get(attrs.ino)
            if twin is not None and twin is not node and not _is_other_file(twin.attrs, attrs):
                self.link(twin, parent, name)
                node = twin
        if node is None:
            node = self.add(parent, name)
        elif parent.negative is not None:
            parent.negative.pop(name, None)
        if node.changes <= asked:
            self.set_attrs(node, attrs, at)
        return node

    def learn_all(
        self, parent: Node, told: Iterable[tuple[bytes, Attrs]], at: float, asked: int
    ) -> list[Node]:
        """``learn`` for each name of a part of a listing."""
        children = parent.children
        if children is None:
            children = parent.children = {}
        found = []
        for name, attrs in told:
            node = children.get(name)
            if node is None:
                nlink = attrs.nlink
                if nlink is None or nlink <= 1 or not attrs.ino:
                    node = self.add(parent, name)
                    node.attrs = attrs
                    node.mode = attrs.mode or 0
                    node.attrs_at = node.told_at = at
                else:
                    node = self.learn(parent, name, attrs, at, asked)
            elif node.attrs == attrs and node.changes <= asked:
                node.attrs_at = node.told_at = at  # as it was
            else:
                node = self.learn(parent, name, attrs, at, asked)
            found.append(node)
        return found

    def set_attrs(self, node: Node, attrs: Attrs, at: float) -> None:
        """Store attributes that the server gave, asked for at *at* (monotonic seconds)."""
        known = node.attrs
        nlink = attrs.nlink
        if nlink is None and known is not None and known.nlink is not None:
            # Only listings tell link counts; a plain LSTAT does not take the knowledge back.
            nlink = known.nlink
            attrs = Attrs(*attrs[:6], nlink, *attrs[7:])
        node.attrs = attrs
        node.mode = attrs.mode or 0
        node.attrs_at = node.told_at = at
        if nlink is not None and nlink > 1 and attrs.ino and not node.is_dir:
            self._by_ino[attrs.ino] = node

    def change_attrs(self, node: Node, attrs: Attrs) -> None:
        """Store attributes that one's own change made; their age stays what it was."""
        node.attrs = attrs
        node.mode = attrs.mode or 0

    def drop_attrs(self, node: Node) -> None:
        """Believe the attributes no more (they stay visible for when the link is down)."""
        node.attrs_at = node.told_at = NEVER

    def drop_times(self, node: Node) -> None:
        """Believe its times no more: names of a directory were changed.

        All attributes have to be asked for to show them; what else was told stays known since
        ``told_at``.
        """
        node.attrs_at = NEVER

    def tell_all_but_times(self, directory: Node, attrs: Attrs, at: float) -> None:
        """Store what the server gave of a directory whose names were changed since it was asked:
        what that does not concern."""
        known = directory.attrs
        if known is None:
            return
        told = known._replace(
            uid=attrs.uid,
            gid=attrs.gid,
            mode=attrs.mode,
            atime=attrs.atime,
            atime_ns=attrs.atime_ns,
        )
        self.change_attrs(directory, told)
        directory.told_at = at

    def set_missing(self, parent: Node, name: bytes, at: float) -> None:
        """The server said that *name* does not exist."""
        self.remove(parent, name)
        negative = parent.negative
        if negative is None:
            negative = parent.negative = {}
        elif len(negative) >= _MAX_NEGATIVE:
            del negative[next(iter(negative))]
        negative.pop(name, None)
        negative[name] = at

    def set_listing(self, parent: Node, names: Set[bytes], at: float) -> None:
        """*names* were all there were at *at*, and all of them are children already."""
        children = parent.children
        if children is None:
            children = parent.children = {}
        if children.keys() != names:
            for name in children.keys() - names:
                self.remove(parent, name)
        if len(children) == len(names):  # else some have been evicted meanwhile
            parent.negative = None  # the listing answers for every name
            parent.listed_at = at

    def drop_listing(self, parent: Node) -> None:
        """Names may have come or gone: ask again, also for missing ones."""
        parent.listed_at = NEVER
        parent.negative = None

    # --- one's own changes of names ----------------------------------------------------------

    def link(self, node: Node, parent: Node, name: bytes) -> None:
        """*name* is one more name of *node*."""
        if self.child(parent, name) is node:
            return
        self.remove(parent, name)
        if node.parent is None:
            node.parent, node.name = parent, name
        else:
            if node.links is None:
                node.links = []
            node.links.append((parent, name))
        if parent.children is None:
            parent.children = {}
        parent.children[name] = node
        if parent.negative is not None:
            parent.negative.pop(name, None)

    def remove(self, parent: Node, name: bytes) -> Node | None:
        """*name* is gone; the node goes on under another name, or nameless while in use."""
        children = parent.children
        node = children.pop(name, None) if children is not None else None
        if node is None:
            return None
        if node.links is None and not node.children:
            self._forget_ino(node)
            node.parent = None
            self._drop_if_unused(node)
            return node
        gone = [(node, parent, name)]  # not recursion: a tree may be deeper than the stack
        while gone:
            each, directory, each_name = gone.pop()
            if self._drop_name(each, directory, each_name):
                children, each.children = each.children, None
                gone += [(child, each, name) for name, child in (children or {}).items()]
                self._drop_if_unused(each)
        return node

    def _drop_name(self, node: Node, parent: Node, name: bytes) -> bool:
        """Take one name off a node; whether it was the last."""
        links = node.links
        if links is None:
            self._forget_ino(node)
            node.parent = None
            return True
        if node.parent is parent and node.name == name:
            node.parent, node.name = links.pop(0)
        else:
            links.remove((parent, name))
        node.links = links or None
        return False

    def rename(self, parent: Node, name: bytes, new_parent: Node, new_name: bytes) -> Node | None:
        """Move a name, over an existing one; the node that was there before, if any."""
        old = parent.children
        node = old.get(name) if old is not None else None
        if old is None or node is None:
            return self.remove(new_parent, new_name)
        new = new_parent.children
        if new is None:
            new = new_parent.children = {}
        if node is new.get(new_name):
            return None  # rename(2) between two names of one file does nothing
        self._keep_ino(node)
        replaced = self.remove(new_parent, new_name)
        del old[name]
        if node.parent is parent and node.name == name:
            node.parent, node.name = new_parent, new_name
        else:
            assert node.links is not None
            node.links[node.links.index((parent, name))] = (new_parent, new_name)
        new[new_name] = node
        if new_parent.negative is not None:
            new_parent.negative.pop(new_name, None)
        return replaced

    def _keep_ino(self, node: Node) -> None:
        if node.attrs is None or not node.attrs.ino:
            self._moved_inos[self.ino(node)] = node.nodeid

    def _forget_ino(self, node: Node) -> None:
        moved = self._moved_inos
        if moved and node.ino is not None and moved.get(node.ino) == node.nodeid:
            del moved[node.ino]
        ino = node.attrs.ino if node.attrs is not None else None
        if ino is not None and self._by_ino.get(ino) is node:
            del self._by_ino[ino]

    # --- what keeps a node ---------------------------------------------------------------------

    def hold(self, node: Node) -> None:
        """A reply gives the node to the kernel once more."""
        if node.nlookup == 0:
            self._held += 1
        node.nlookup += 1
        node.used = True

    def hold_all(self, nodes: Iterable[Node]) -> None:
        """A listing gives them to the kernel once more: that is no use of them."""
        for node in nodes:
            if node.nlookup == 0:
                self._held += 1
            node.nlookup += 1

    def forget(self, nodeid: int, count: int) -> None:
        """The kernel gives *count* of its references back (also: a reply it never took)."""
        node = self._by_id.get(nodeid)
        if node is None or nodeid == ROOT_ID:
            return
        before = node.nlookup
        node.nlookup = before - count if count < before else 0
        if before and node.nlookup == 0:
            self._held -= 1
            if node.parent is None:
                self._drop_if_unused(node)
            else:
                self.ages.given_back(node)

    def pin(self, node: Node) -> None:
        """An open file or work under way needs the node."""
        node.opens += 1

    def unpin(self, node: Node) -> None:
        node.opens -= 1
        if node.parent is None:
            self._drop_if_unused(node)

    def _drop_if_unused(self, node: Node) -> None:
        """Free a nameless node that nobody holds any more."""
        if node.nlookup or node.opens or not node.removed:
            return
        if node.data is None:
            self._by_id.pop(node.nodeid, None)
        elif self.on_useless is not None:
            self.on_useless(node.data)  # comes back here if it sets node.data to None

    def _evict(self, node: Node) -> None:
        for parent, name in node.names:
            if parent.children is not None:
                parent.children.pop(name, None)
            parent.listed_at = NEVER  # it no longer knows all its names
        self._forget_ino(node)  # its parent stays: that is how a snapshot knows it was not removed
        del self._by_id[node.nodeid]
        self._evicted += 1

    def walk(self, node: Node) -> Iterator[Node]:
        """The node and all that is known below it."""
        stack = [node]
        while stack:
            node = stack.pop()
            yield node
            if node.children:
                stack.extend(node.children.values())

    def held(self) -> Iterable[Node]:
        """The nodes the kernel knows, the root included."""
        return [node for node in self._by_id.values() if node.nlookup]

    def statistics(self) -> NodeStatistics:
        return NodeStatistics(len(self._by_id), self._held, self._evicted)

    def __len__(self) -> int:
        return len(self._by_id)

    def __repr__(self) -> str:
        return f"<NodeTable {self.statistics()}>"


def _is_dir(attrs: Attrs) -> bool:
    return (attrs.mode or 0) & 0o170000 == 0o040000


def _is_other_file(known: Attrs | None, told: Attrs) -> bool:
    """Whether the name certainly stands for another file than before."""
    if known is None:
        return False
    if known.ino and told.ino and known.ino != told.ino:
        return True
    if known.mode is None or told.mode is None:
        return False
    if known.mode & 0o170000 != told.mode & 0o170000:
        return True
    return stat.S_ISLNK(told.mode) and (known.mtime, known.size) != (told.mtime, told.size)
