"""A served tree, programs that walk it, and a clock: what the planner of tree read-ahead is worth.

Nothing waits: a call that has to go to the server moves the clock by its round trips, and what the
planner asked for ahead arrives meanwhile.
"""

from __future__ import annotations

import heapq
import stat
from collections.abc import Callable, Iterator
from itertools import count

from netfs.client.nodes import NEVER, Node, NodeTable
from netfs.client.tree import TreePlanner
from netfs.client.walk import Known
from netfs.sftp.attrs import Attrs

RTT_S = 0.02
LOCAL_S = 0.0002  # what a program and the kernel need per call
TRIPS = 2  # of a listing, and of a small file: OPEN and then READDIR or READ

Tree = dict[str, "Tree | int | str"]
"""Names: a directory, a file's size in bytes, or a symlink's target."""

ENTRY_BYTES = 140
"""On the wire, per name of a listing."""


def source_tree(directories: int = 80, files: int = 800, depth: int = 3) -> Tree:
    """A tree like that of a project: some directories on each level, ten files in each."""
    root: Tree = {}
    places = [root]
    for number in range(directories - 1):
        parent = places[number // depth]
        child: Tree = {}
        parent[f"dir{number}"] = child
        places.append(child)
    for number in range(files):
        places[number * 7 % len(places)][f"file{number}.c"] = 3000 + number
    return root


class World:
    """The server, the tree of nodes, the planner and the clock."""

    def __init__(self, tree: Tree, *, rtt_s: float = RTT_S, max_entries: int = 1_000_000) -> None:
        self.now = 1000.0
        self.rtt_s = rtt_s
        self.fetched_bytes = 0  # of files and listings
        self.nodes = NodeTable(b"/", max_entries=max_entries)
        self.dir_timeout_s, self.cto_window_s = 20.0, 1.0
        known = Known(
            is_listed=self._is_listed,
            is_fresh=self._is_fresh,
            is_cached=self.is_cached,
            ino=self.nodes.ino,
            fresh_s=self.cto_window_s,
            names_kept=self.nodes.max_entries,
        )
        self.planner = TreePlanner(known, round_trip_s=lambda: rtt_s)
        self.asked: list[tuple[str, bytes]] = []  # what went to the server, by whomever
        self.used_files = 0
        self._tree = {self.nodes.root.nodeid: tree}
        self._cached: set[int] = set()
        self._ahead_unused: set[int] = set()
        self._wasted_bytes = 0  # listings that were overtaken by another before they were used
        self._unused: dict[int, int] = {}  # nodeid -> bytes fetched ahead and not used yet
        self._listings: dict[int, float] = {}  # nodeid -> when it arrives
        self._fetches: dict[int, float] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = count()

    # --- what programs do -----------------------------------------------------------------------

    def opendir(self, directory: Node) -> list[Node]:
        """List a directory as readdir(3) would, and return its nodes."""
        self._pass(LOCAL_S)
        self._unused.pop(directory.nodeid, None)
        self.planner.entered(directory, self.now)
        self._act()
        if not self._is_listed(directory):
            if directory.nodeid not in self._listings:
                self._list(directory)
            self._wait_until(self._listings[directory.nodeid])
            self._unused.pop(directory.nodeid, None)
        return list((directory.children or {}).values())

    def open(self, file: Node) -> None:
        """Open and read a small file."""
        self._pass(LOCAL_S)
        self.planner.opened(file, self.now)
        self._act()
        parent = file.parent
        assert parent is not None
        if self.is_cached(file) and not self._is_fresh(file):
            if self.planner.is_scanned(parent) and parent.nodeid in self._listings:
                self._wait_until(self._listings[parent.nodeid])
            else:
                self.asked.append(("lstat", file.name))
                self._pass(self.rtt_s)
                file.attrs_at = self.now
        if file.nodeid in self._fetches:
            self._wait_until(self._fetches[file.nodeid])
        elif not self.is_cached(file):
            self.asked.append(("fetch", file.name))
            self.fetched_bytes += _size(file)
            self._pass(TRIPS * self.rtt_s)
            self._cached.add(file.nodeid)
            file.attrs_at = self.now - self.rtt_s
        self._ahead_unused.discard(file.nodeid)
        self._unused.pop(file.nodeid, None)
        self._unused.pop(parent.nodeid, None)

    def lookup(self, directory: Node, name: bytes) -> Node | None:
        """stat(2) of a name."""
        self._pass(LOCAL_S)
        known = self.nodes.child(directory, name)
        at = directory.listed_at if known is None else known.attrs_at
        fresh = self.now - at < self.dir_timeout_s
        self._unused.pop(directory.nodeid, None)
        self.planner.looked_up(directory, self.now, asked=not fresh)
        self._act()
        if not fresh:
            if directory.nodeid in self._listings:
                self._wait_until(self._listings[directory.nodeid])
                self._unused.pop(directory.nodeid, None)
            else:
                self.asked.append(("lstat", name))
                asked_at = self.now
                self._pass(self.rtt_s)
                if name.decode() in self._tree[directory.nodeid]:
                    self._learn(directory, name, asked_at)
        return self.nodes.child(directory, name)

    def think(self, seconds: float) -> None:
        self._pass(seconds)

    # --- what came of it -------------------------------------------------------------------------

    @property
    def unused_files(self) -> int:
        """Files fetched ahead that nobody opened."""
        return len(self._ahead_unused)

    @property
    def unused_bytes(self) -> int:
        """Bytes of files and listings fetched ahead that nobody used."""
        return self._wasted_bytes + sum(self._unused.values())

    def known_to_the_kernel(self, directory: Node, name: bytes) -> Node:
        """A name that the program reaches without asking the daemon, perhaps one it made."""
        self._tree[directory.nodeid].setdefault(name.decode(), 0)
        self._learn(directory, name, NEVER)
        node = self.nodes.child(directory, name)
        assert node is not None
        return node

    def count(self, kind: str) -> int:
        return sum(1 for what, _ in self.asked if what == kind)

    def is_cached(self, node: Node) -> bool:
        return node.nodeid in self._cached

    # --- inside -----------------------------------------------------------------------------------

    def _is_listed(self, directory: Node) -> bool:
        return self.now - directory.listed_at < self.dir_timeout_s

    def _is_fresh(self, node: Node) -> bool:
        return self.now - node.attrs_at <= self.cto_window_s

    def _act(self) -> None:
        plan, wanted = self.planner.take(self.now)
        for directory in (*plan.directories, *(each for each, _ in wanted)):
            if directory.nodeid not in self._listings:
                self._list(directory)
        for file in plan.files:
            if file.nodeid in self._fetches:
                continue
            self.asked.append(("fetch", file.name))
            self._fetches[file.nodeid] = self.now + TRIPS * self.rtt_s
            self._ahead_unused.add(file.nodeid)
            self.fetched_bytes += _size(file)
            self._wasted_bytes += self._unused.pop(file.nodeid, 0)
            self._unused[file.nodeid] = _size(file)
            self._at(self._fetches[file.nodeid], lambda file=file: self._fetched(file))

    def _list(self, directory: Node) -> None:
        self.asked.append(("list", directory.name))
        asked_at = self.now
        size = ENTRY_BYTES * (2 + len(self._tree[directory.nodeid]))
        self.fetched_bytes += size
        self._wasted_bytes += self._unused.pop(directory.nodeid, 0)
        self._unused[directory.nodeid] = size
        self._listings[directory.nodeid] = self.now + TRIPS * self.rtt_s
        self._at(self.now + TRIPS * self.rtt_s, lambda: self._arrived(directory, asked_at))

    def _arrived(self, directory: Node, asked_at: float) -> None:
        del self._listings[directory.nodeid]
        tree = self._tree[directory.nodeid]
        for name in tree:
            self._learn(directory, name.encode(), asked_at)
        self.nodes.set_listing(directory, {name.encode() for name in tree}, asked_at)
        self.planner.listed(directory, self.now)
        self._act()

    def _learn(self, directory: Node, name: bytes, at: float) -> None:
        content = self._tree[directory.nodeid][name.decode()]
        match content:
            case dict():
                size, mode = 20 * len(content), stat.S_IFDIR | 0o755
            case int():
                size, mode = content, stat.S_IFREG | 0o644
            case str():
                size, mode = len(content), stat.S_IFLNK | 0o777
        attrs = Attrs(size=size, mode=mode, mtime=1)
        node = self.nodes.learn(directory, name, attrs, at, self.nodes.stamp)
        if isinstance(content, dict):
            self._tree[node.nodeid] = content

    def _fetched(self, file: Node) -> None:
        del self._fetches[file.nodeid]
        file.attrs_at = self.now - self.rtt_s  # they are asked for with the OPEN
        self._cached.add(file.nodeid)

    def _at(self, when: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._sequence), event))

    def _pass(self, seconds: float) -> None:
        self._wait_until(self.now + seconds)

    def _wait_until(self, when: float) -> None:
        while self._events and self._events[0][0] <= when:
            at, _, event = heapq.heappop(self._events)
            self.now = max(self.now, at)
            event()
        self.now = max(self.now, when)

    def forget_listings(self) -> None:
        """All caches of names are too old."""
        for node in self.nodes.walk(self.nodes.root):
            node.listed_at = NEVER


def _size(file: Node) -> int:
    return (file.attrs.size if file.attrs is not None else 0) or 0


def find(world: World, directory: Node) -> None:
    """As fts does it: depth first, directories in their order."""
    for child in world.opendir(directory):
        if child.is_dir:
            find(world, child)


def grep(
    world: World,
    directory: Node,
    *,
    wants: Callable[[Node], bool] | None = None,
    thinks_s: float = 0.0,
) -> None:
    """Depth first; each file is opened where it is met."""
    for child in world.opendir(directory):
        if child.is_dir:
            grep(world, child, wants=wants, thinks_s=thinks_s)
        elif wants is None or wants(child):
            world.open(child)
            world.think(thinks_s)


def copy(world: World, directory: Node) -> None:
    """As cp does it: entries in the order of inode numbers, which is none here."""
    children = world.opendir(directory)
    for child in sorted(children, key=lambda node: world.nodes.ino(node)):
        if child.is_dir:
            copy(world, child)
        else:
            world.open(child)


def git_status(world: World, tree: Tree, directory: Node, *, reads: bool = False) -> None:
    """First each file of the index by name, in sorted order, then the directories; *reads*: the
    index does not know the files' present times, so that each is read and its attributes asked."""
    for path in sorted(_files(tree)):
        above, node = directory, directory
        for name in path.split("/"):
            above, found = node, world.lookup(node, name.encode())
            assert found is not None
            node = found
        if reads:
            world.lookup(above, b".gitattributes")
            world.open(node)
    find(world, directory)


def _files(tree: Tree, prefix: str = "") -> Iterator[str]:
    for name, content in tree.items():
        if isinstance(content, dict):
            yield from _files(content, f"{prefix}{name}/")
        else:
            yield prefix + name
