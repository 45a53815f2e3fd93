"""Which names go when too many are known: by age, whether the kernel holds them or not.

The clock algorithm: a hand goes over the nodes, the oldest first; what was used since it came by
last gets another turn, of the others those that nobody holds are evicted, and the kernel is asked
for those it holds.  (Evicting first what it does not hold would take what was listed ahead of a
walk and keep what the walk has passed.)  Directories go last: a walk comes to them late.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from netfs.client.node import Node

_LEAST_STEP: Final = 64
_MOST_STEP: Final = 4096
"""Nodes made between two sweeps, a 32nd of those allowed.  Many at a time: while the kernel drops
some it distrusts the attributes that listings under way bring (fuse_conn.evict_ctr)."""

_VISITS: Final = 32 * 1024
"""Nodes looked at per sweep: some milliseconds at most, also when nearly all are in use."""


class Ages:
    """The nodes of one table, by age.

    Args:
        known: the table's nodes by nodeid.
        limit: how many there may be.
        evict: takes a node out of the table.
    """

    def __init__(
        self, known: dict[int, Node], *, limit: int, evict: Callable[[Node], None]
    ) -> None:
        self._known = known
        self._limit = limit
        self._evict = evict
        self._step = min(_MOST_STEP, max(_LEAST_STEP, limit // 32))
        self._ring: deque[Node] = deque()  # dead nodes drop out when met
        self._directories: deque[Node] = deque()  # those that were met there
        self._asked_back: dict[int, Node] = {}  # since the last sweep; in no ring meanwhile
        self.made = self._ring.append
        """There is a new node."""
        self.on_surplus: Callable[[list[Node]], None] | None = None
        """Told the nodes that the kernel is to give back, because there are too many."""

    def sweep(self, *, keep: Node) -> int:
        """Free what is too much, but not *keep*.  Returns after how many new nodes to come back."""
        self._ring.extend(self._asked_back.values())  # the kernel still needs these
        self._asked_back = {}
        excess = len(self._known) - self._limit
        if excess > 0:
            crowd = len(self._directories) - self._limit // 2
            excess -= self._free(self._directories, min(crowd, excess), keep)
            excess -= self._free(self._ring, excess, keep)
            self._free(self._directories, excess, keep)
            if self._asked_back and self.on_surplus is not None:
                self.on_surplus(list(self._asked_back.values()))
        for ring in (self._ring, self._directories):
            if len(ring) > 2 * len(self._known) + self._step:
                # Names that come and go far below the limit: the hand meets no dead ones.
                living = [node for node in ring if self._is_known(node)]
                ring.clear()
                ring.extend(living)
        return self._step

    def given_back(self, node: Node) -> None:
        """The kernel holds *node* no more; if it was asked to, that was in order to evict it."""
        if node.nodeid in self._asked_back and _is_spare(node):
            del self._asked_back[node.nodeid]
            self._evict(node)

    def _free(self, ring: deque[Node], wanted: int, keep: Node) -> int:
        """Free as many as *wanted*, if there are; returns how many."""
        freed = 0
        for _ in range(min(2 * len(ring), _VISITS)):
            if freed >= wanted or not ring:
                break
            node = ring.popleft()
            if not self._is_known(node):
                continue
            if ring is self._ring and node.is_dir:
                self._directories.append(node)
            elif node.used:
                node.used = False
                ring.append(node)
            elif node is keep or not _is_spare(node):
                ring.append(node)
            else:
                if node.nlookup:
                    self._asked_back[node.nodeid] = node
                else:
                    self._evict(node)
                freed += 1
        return freed

    def _is_known(self, node: Node) -> bool:
        return self._known.get(node.nodeid) is node


def _is_spare(node: Node) -> bool:
    """Whether nobody here needs it; the kernel may."""
    return not (node.opens or node.data is not None or node.children or node.removed)
