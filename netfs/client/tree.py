"""The planner of tree read-ahead: what somebody who walks a tree will ask for next.

Pure: it is told what happens (names looked up, directories entered and listed, files opened) and
says what to ask ahead; ``prefetch.py`` does it.  Times are arguments, in seconds.

How it works.  A *run* is one walk.  It begins when a directory is entered right after its parent
or after two of its siblings (find, ls -R, du, git status), or when three small files of one
directory are opened in a row (grep -r, cp -r, tar); an ``ls`` is neither.  What lies ahead is
ordered as a depth-first walk would meet it: each directory has a key, the positions on the way to
it, and two heaps hold the directories to list and those whose files are to be fetched.  Listings
arrive in any order; the keys put what they bring into its place.

How much.  The windows bound what has been asked for ahead of a place and not been used yet (what
lies further ahead does not hold up what is nearer).  Each hit opens them by one, so that they
double per round trip while everything is used.  What a walk leaves behind unused halves them, and
so does what has become too old to be used before it is reached; files that end like those left
behind are not fetched.  A run that ends with much unused makes the
next one begin smaller.
"""

from __future__ import annotations

import heapq
import os
import stat
from collections import OrderedDict
from collections.abc import Callable, Iterable
from itertools import count
from operator import itemgetter
from typing import Final, NamedTuple

from netfs.client.nodes import Node
from netfs.client.walk import Files, Item, Key, Order, Run, upwards_from

GAP_S: Final = 1.0
"""Accesses further apart belong to a person, not to a program that walks."""

IDLE_S: Final = 5.0
"""A run without any access for so long has ended."""

FUTILE_S: Final = 5.0
"""A directory whose listing was too old or overtaken when it came is not listed ahead so long."""

STALE_S: Final = 2.0
"""What was asked for ahead and not used so long is not counted as ahead any more."""

SMALL_FILE: Final = 256 * 1024
"""bytes: fits into one READ; larger files have read-ahead of their own."""

MAX_DIRS: Final = 128
"""Listings ahead at most: each is a handle of the 1000 or so that a server gives."""

MAX_FILES: Final = 512
MAX_BYTES: Final = 16 << 20
"""Files and bytes ahead at most: a part of the block cache, and what 100 ms at 1 Gbit/s carry."""

FIRST_DIRS: Final = 8
FIRST_FILES: Final = 8
"""Windows of a first run; they halve and grow fourfold with experience."""

SCAN_AFTER: Final = 3
"""Small files opened in a row before the next ones are fetched."""

_ORDER_FROM: Final = 6
"""Files opened in a row that tell the order for certain enough (1 : 720 by chance)."""

LIST_AFTER: Final = 2
"""Names of one directory asked for one by one before it is listed instead."""

_PROVEN: Final = 4
"""Hits that show that a run is a walk, so that it may be followed out of its subtree ..."""

_NEAR: Final = 3
"""... by so many levels."""

_SUFFIX_MEMORY: Final = 8
"""Files opened that make up for those that end alike and were fetched in vain, however many: the
next program on the same tree may want what the last one did not."""

_MAX_RUNS: Final = 4
_MAX_ROWS: Final = 16
"""Walks at a time, and directories in which files are opened one after the other."""

_MAX_PENDING: Final = 20_000
"""Directories known to lie ahead; more than any window needs."""

_BEHIND: Final = 1 << 40
"""Added to positions that a walk has passed when it is first noticed: looked at last."""

_STEPS: Final = 256
"""Candidates looked at per call: bounds the time taken from whoever waits."""


class Plan(NamedTuple):
    """What to ask for now."""

    directories: list[Node]
    files: list[Node]


class Statistics(NamedTuple):
    """Since the start; *ahead* counts what was planned."""

    listings_ahead: int
    listings_used: int
    files_ahead: int
    files_used: int
    runs: int


class TreePlanner:
    """The planner of one mount.

    Args:
        is_listed: whether a directory needs no listing now; True as second argument asks for
            one as fresh as opening files wants it.
        is_fresh: whether a file's attributes are young enough to open it without asking.
        is_cached: whether a file's content is held already.
        ino: st_ino; cp reads directories in its order.
    """

    def __init__(
        self,
        *,
        is_listed: Callable[[Node, bool], bool],
        is_fresh: Callable[[Node], bool],
        is_cached: Callable[[Node], bool],
        ino: Callable[[Node], int],
    ) -> None:
        self._ino = ino
        self._is_listed = is_listed
        self._is_fresh = is_fresh
        self._is_cached = is_cached
        self._runs: list[Run] = []
        self._recent: OrderedDict[int, tuple[Node, float]] = OrderedDict()  # directories entered
        self._listed_by: set[int] = set()  # those of them that were listed, not only looked into
        self._missed: OrderedDict[int, tuple[int, float]] = OrderedDict()  # names asked one by one
        self._wanted: list[Node] = []
        self._entered: Node | None = None
        self._entered_at = float("-inf")
        self._opened: OrderedDict[int, tuple[list[Node], float]] = OrderedDict()
        """Small files opened in a row, by directory."""
        self._first_dirs = FIRST_DIRS
        self._first_files = FIRST_FILES
        self._sequence = count()
        self._listings = [0, 0]
        self._fetches = [0, 0]
        self._run_count = 0

    # --- what happens ----------------------------------------------------------------------------

    def looked_up(self, directory: Node, now: float, *, asked: bool) -> bool:
        """A name of *directory* is looked up; *asked*: the server has to be asked for it.

        Returns whether there may be something to do.
        """
        run = self._run_of(directory)
        if asked and not self._is_listed(directory, False):
            misses, at = self._missed.get(directory.nodeid, (0, now))
            misses = misses + 1 if now - at < GAP_S else 1
            self._missed[directory.nodeid] = (misses, now)
            if len(self._missed) > 64:
                self._missed.popitem(last=False)
            if run is None:
                run = self._adopt(directory, now, 1 if misses < LIST_AFTER else _NEAR)
            if misses == LIST_AFTER and (run is None or directory.nodeid not in run.ahead_dirs):
                self._wanted.append(directory)
                self.entered(directory, now, by_lookup=True)
                return True
        if run is None or directory is self._entered:
            return False
        self.entered(directory, now, by_lookup=True)
        return True

    def entered(self, directory: Node, now: float, *, by_lookup: bool = False) -> None:
        """Somebody lists *directory*, or looks up names in it one after the other."""
        if by_lookup and directory is self._entered:
            self._entered_at = now
            return
        run = self._run_of(directory) or self._adopt(directory, now, _NEAR)
        if run is None:
            run = self._begin(directory, now, by_lookup)
        elif not by_lookup and directory.nodeid in run.visited:
            run.visited.clear()  # another walk, over the same directories
            self._reposition(run, directory)
        self._entered, self._entered_at = directory, now
        self._recent[directory.nodeid] = (directory, now)
        self._recent.move_to_end(directory.nodeid)
        if not by_lookup:
            self._listed_by.add(directory.nodeid)
        if len(self._recent) > 64:
            self._listed_by.discard(self._recent.popitem(last=False)[0])
        if run is None:
            return
        run.last_at = now
        run.by_lookup &= by_lookup
        if not by_lookup and directory.name.startswith(b"."):
            run.skips_hidden = False
        if run.scanning and now - run.opened_at > GAP_S:
            run.scanning = False  # this walk opens nothing
            run.files.clear()
        self._move(run, directory)
        run.visited.add(directory.nodeid)
        if run.ahead_dirs.pop(directory.nodeid) is not None:
            run.hits += 1
            self._listings[1] += 1
            if run.scanning and not self._is_listed(directory, True):
                run.dir_window = max(FIRST_DIRS // 2, run.dir_window // 2)  # listed too early
            else:
                run.dir_window = min(MAX_DIRS, run.dir_window + 1)
        if self._is_listed(directory, run.scanning):
            self._expand(run, directory)

    def listed(self, directory: Node, now: float) -> None:
        """A listing of *directory* is complete, whoever asked for it."""
        run = self._run_of(directory)
        if run is not None:
            self._expand(run, directory)
            if not self._is_listed(directory, run.scanning):
                run.futile[directory.nodeid] = now  # it is changed all the time, or takes too long
            if directory in run.places and run.ahead_dirs.pop(directory.nodeid) is not None:
                self._listings[1] += 1  # a scan waits for it
        if directory is self._entered:
            self._entered_at = now  # who waited for it goes on from here

    def not_listed(self, directory: Node) -> None:
        """A listing that was planned failed."""
        for run in self._runs:
            run.ahead_dirs.pop(directory.nodeid)

    def opened(self, node: Node, now: float) -> None:
        """Somebody opens a file."""
        parent = node.parent
        if parent is None or not _is_small(node):
            return
        run = self._run_of(parent) or self._adopt(parent, now, _NEAR)
        if run is not None:
            run.last_at = run.opened_at = now
            self._count_open(run, node, parent)
        opened = self._count_in_a_row(node, parent, now)
        if run is not None and len(opened) == _ORDER_FROM:
            self._notice_order(run, parent, opened)
        if run is not None and run.scanning:
            if run.skips_hidden and _is_hidden(parent, run.root):
                return
            if parent.nodeid in run.ahead_dirs:
                return  # it is being looked at
            if not self._is_fresh(node):
                self._reposition(run, parent)
            elif parent.nodeid not in run.expanded:
                self._resume_at(run, parent)
        elif len(opened) >= SCAN_AFTER:
            by_lookup = parent.nodeid not in self._listed_by
            if by_lookup and parent.name.startswith(b"."):
                return  # some files of .git or .config: nobody reads all of it unlisted
            if run is None:
                run = self._start(parent, now)
                run.by_lookup = run.skips_hidden = by_lookup
            self._notice_order(run, parent, opened)
            # What is known from older listings is looked at again: opening wants fresh ones.
            run.scanning = True
            self._reposition(run, parent)

    def _count_in_a_row(self, node: Node, parent: Node, now: float) -> list[Node]:
        """The first files opened one after the other in this directory, *node* the last of them
        until there are enough to tell the order."""
        opened, at = self._opened.pop(parent.nodeid, ([], now))
        if now - at > GAP_S:
            opened = []
        if len(opened) <= _ORDER_FROM:
            opened.append(node)
        self._opened[parent.nodeid] = (opened, now)
        if len(self._opened) > _MAX_ROWS:
            self._opened.popitem(last=False)
        return opened

    def _count_open(self, run: Run, node: Node, parent: Node) -> None:
        suffix = _suffix(node)
        run.suffixes[suffix] = min(_SUFFIX_MEMORY, run.suffixes.get(suffix, 0) + 1)
        self._move(run, parent)
        run.visited.add(parent.nodeid)
        if run.ahead_files.pop(node.nodeid) is not None:
            run.hits += 1
            self._fetches[1] += 1
            if self._is_fresh(node):
                run.file_window = min(MAX_FILES, run.file_window + 1)
            else:
                run.file_window = max(FIRST_FILES // 2, run.file_window // 2)  # fetched too early

    def _move(self, run: Run, directory: Node) -> None:
        """The walk is in *directory* now: what lies behind it unused will not be used."""
        places = run.places
        upwards = [each.nodeid for each in upwards_from(directory)]
        nearest: tuple[int, int] | None = None  # (levels up to what both have in common, index)
        for index, place in enumerate(places):
            if place is directory or any(each is directory for each in upwards_from(place)):
                return  # there already, or upwards only: it may come back
            above = {each.nodeid for each in upwards_from(place)}
            levels = next((n for n, nodeid in enumerate(upwards) if nodeid in above), len(upwards))
            if nearest is None or levels < nearest[0]:
                nearest = (levels, index)
        if nearest is not None and (nearest[0] <= _NEAR or len(places) >= _MAX_RUNS):
            del places[nearest[1]]
        places.append(directory)
        if directory.nodeid in run.visited:
            run.visited.clear()  # another walk, over the same directories
        path = {each.nodeid for place in places for each in upwards_from(place)}
        directories = run.ahead_dirs.left(run.visited, path)
        for nodeid in directories:
            run.ahead_dirs.pop(nodeid)
        files = run.ahead_files.left(run.visited, path)
        for nodeid in files:
            item = run.ahead_files.pop(nodeid)
            assert item is not None
            used = run.suffixes.get(item.suffix, 0)
            run.suffixes[item.suffix] = max(-_SUFFIX_MEMORY, used - 2)
        if directories and not run.by_lookup:
            run.dir_window = max(FIRST_DIRS // 2, run.dir_window // 2)
        if files:
            run.file_window = max(FIRST_FILES // 2, run.file_window // 2)
        run.unused += len(directories) + len(files)

    def read_link(self, node: Node, now: float) -> None:
        """Somebody reads a symlink's target: in a walk the others' are wanted, too."""
        run = self._run_of(node.parent) if node.parent is not None else None
        if run is not None:
            run.reads_links = True
            run.last_at = now

    # --- what to do ------------------------------------------------------------------------------

    def take(self, now: float) -> Plan:
        """What to ask for now; it counts as asked for."""
        plan = Plan(self._wanted, [])
        self._wanted = []
        for run in list(self._runs):
            if now - run.last_at > IDLE_S:
                self._end(run)
                continue
            self._drop_stale(run, now)
            self._take_directories(run, plan, now)
            if run.scanning:
                self._take_files(run, plan, now)
        self._listings[0] += len(plan.directories)
        self._fetches[0] += len(plan.files)
        return plan

    def _drop_stale(self, run: Run, now: float) -> None:
        """What nobody wanted for long holds up nothing any more: the walk went elsewhere."""
        for ahead in (run.ahead_dirs, run.ahead_files):
            stale = ahead.older(now - STALE_S)
            for nodeid in stale:
                ahead.pop(nodeid)
            run.unused += len(stale)

    def _take_directories(self, run: Run, plan: Plan, now: float) -> None:
        for _ in range(_STEPS):
            if not run.dirs or len(run.ahead_dirs) >= min(MAX_DIRS, 3 * run.dir_window):
                return
            key, _, node = run.dirs[0]
            if run.ahead_dirs.before(key) >= run.dir_window:
                return
            heapq.heappop(run.dirs)
            nodeid = node.nodeid
            if node.removed or nodeid in run.expanded or nodeid in run.ahead_dirs:
                continue
            if self._is_listed(node, run.scanning):
                self._expand(run, node)
            elif nodeid not in run.visited and now - run.futile.get(nodeid, -FUTILE_S) >= FUTILE_S:
                above = node.parent.nodeid if node.parent is not None else 0
                run.ahead_dirs.add(nodeid, Item(key, above, now))
                plan.directories.append(node)
                if run.scanning and self._is_listed(node, False):
                    self._push_below(run, node)  # most likely they are still there

    def _take_files(self, run: Run, plan: Plan, now: float) -> None:
        ahead = run.ahead_files
        for _ in range(_STEPS):
            if not run.files or len(ahead) >= MAX_FILES:
                return
            key, _, node, others = run.files[0]
            if ahead.before(key) >= run.file_window or ahead.size >= MAX_BYTES:
                return
            heapq.heappop(run.files)
            self._push_file(run, others)
            if node.removed or not _is_small(node) or node.nodeid in ahead:
                continue
            suffix = _suffix(node)
            if node.opens or run.suffixes.get(suffix, 0) < 0 or self._is_cached(node):
                continue
            assert node.attrs is not None
            assert node.parent is not None
            size = node.attrs.size or 0
            ahead.add(node.nodeid, Item(key, node.parent.nodeid, now, size, suffix))
            plan.files.append(node)

    def links_of(self, directory: Node) -> list[Node]:
        """The symlinks of a directory just listed whose targets will be read."""
        run = self._run_of(directory)
        if run is None or not run.reads_links or directory.children is None:
            return []
        links = (child for child in directory.children.values() if child.is_symlink)
        return [link for link in links if link.target is None][:MAX_DIRS]

    def is_scanned(self, directory: Node) -> bool:
        """Whether its files are being opened one after the other."""
        run = self._run_of(directory)
        return run is not None and run.scanning

    def statistics(self) -> Statistics:
        listings, fetches = self._listings, self._fetches
        return Statistics(listings[0], listings[1], fetches[0], fetches[1], self._run_count)

    # --- runs ------------------------------------------------------------------------------------

    def _run_of(self, directory: Node) -> Run | None:
        for run in self._runs:
            if directory.nodeid in run.keys:
                return run
        return None

    def _begin(self, directory: Node, now: float, by_lookup: bool) -> Run | None:
        """A run, if entering *directory* now shows one."""
        parent = directory.parent
        if parent is None or now - self._entered_at > GAP_S:
            return None
        above = self._recent.get(parent.nodeid)
        if above is None or now - above[1] > GAP_S:
            siblings = sum(1 for node, _ in self._recent.values() if node.parent is parent)
            if parent is not self._entered and siblings < 2:
                return None
        run = self._start(parent, now)
        run.by_lookup = run.skips_hidden = by_lookup
        if by_lookup:
            run.order = Order.NAME
        self._push(run, parent)
        self._resume_at(run, parent)
        return run

    def _adopt(self, directory: Node, now: float, near: int) -> Run | None:
        """The run of a walk that came to *directory* from the subtree where it was noticed first:
        its root moves up, at most *near* levels, to what both have in common."""
        found: tuple[int, Node, Run] | None = None
        above = {each.nodeid for each in upwards_from(directory)}
        for run in self._runs:
            if now - run.last_at > GAP_S or run.hits < _PROVEN:
                continue
            for levels, at in zip(range(near + 1), upwards_from(run.root), strict=False):
                if at.nodeid in above:
                    if run.skips_hidden and _is_hidden(directory, at):
                        break  # a look into .git
                    if found is None or levels < found[0]:
                        found = (levels, at, run)
                    break
        if found is None:
            return None
        levels, root, run = found
        if levels:
            by_lookup = run.by_lookup
            run = self._start(root, now)
            run.by_lookup = by_lookup
        self._reposition(run, directory)
        return run

    def _start(self, root: Node, now: float) -> Run:
        """A new run from *root*; those below it go on as part of it."""
        run = Run(root, now, self._first_dirs, self._first_files)
        for other in list(self._runs):
            if other.root is not root and any(each is root for each in upwards_from(other.root)):
                self._runs.remove(other)
                run.dir_window = max(run.dir_window, other.dir_window)
                run.file_window = max(run.file_window, other.file_window)
                run.scanning |= other.scanning
                run.reads_links |= other.reads_links
                run.skips_hidden |= other.skips_hidden
                run.order = other.order
                run.visited |= other.visited
                run.hits += other.hits
        if len(self._runs) >= _MAX_RUNS:
            self._end(min(self._runs, key=lambda each: each.last_at))
        self._runs.append(run)
        self._run_count += 1
        return run

    def _end(self, run: Run) -> None:
        """Draw the lesson for the next one."""
        self._runs.remove(run)
        unused = run.unused + len(run.ahead_dirs) + len(run.ahead_files)
        if unused * 4 > run.hits:
            self._first_dirs = max(FIRST_DIRS // 2, self._first_dirs // 2)
            self._first_files = max(FIRST_FILES // 2, self._first_files // 2)
        elif run.hits:
            self._first_dirs = min(4 * FIRST_DIRS, self._first_dirs * 2)
            self._first_files = min(4 * FIRST_FILES, self._first_files * 2)

    def _reposition(self, run: Run, directory: Node) -> None:
        """Begin anew with what lies ahead of *directory*, up to the root of the run."""
        run.dirs.clear()
        run.files.clear()
        run.expanded.clear()
        run.ahead_dirs.clear()
        path = [directory]
        while path[-1] is not run.root:
            above = path[-1].parent
            if above is None:
                break  # moved elsewhere meanwhile
            path.append(above)
        run.root = path[-1]
        run.keys[run.root.nodeid] = ()
        for above, below in zip(reversed(path[1:]), reversed(path[:-1]), strict=True):
            run.keys.setdefault(below.nodeid, (*run.keys[above.nodeid], 0))
            self._resume_at(run, above, below)
        self._resume_at(run, directory)

    def _resume_at(self, run: Run, directory: Node, below: Node | None = None) -> None:
        """Have *directory* looked at; a walk is at its child *below* already."""
        if directory.nodeid in run.expanded:
            return
        # Of what is above only the names matter; its files have it listed anew when they are met.
        if self._is_listed(directory, run.scanning and below is None):
            self._expand(run, directory, below)
        else:
            self._push(run, directory)

    def _push(self, run: Run, directory: Node) -> None:
        key = run.keys[directory.nodeid]
        run.visited.discard(directory.nodeid)
        heapq.heappush(run.dirs, (key, next(self._sequence), directory))

    def _expand(self, run: Run, directory: Node, below: Node | None = None) -> None:
        """Put what a listed directory holds into the places where a walk meets it."""
        if directory.nodeid in run.expanded or len(run.dirs) >= _MAX_PENDING:
            return
        if len(run.keys) >= 2 * _MAX_PENDING:
            self._forget_passed(run)
        key = run.keys.get(directory.nodeid)
        if key is None:
            return  # its place is known when its parent is listed
        run.expanded.add(directory.nodeid)
        behind = _BEHIND if below is not None else 0
        files: list[tuple[Key, Node]] = []
        for position, child in enumerate(self._ordered(run.order, directory)):
            if child is below:
                behind = 0
            child_key = (*key, position + behind)
            if not child.is_dir:
                files.append((child_key, child))
            elif not (run.skips_hidden and child.name.startswith(b".")):
                run.keys[child.nodeid] = child_key
                heapq.heappush(run.dirs, (child_key, next(self._sequence), child))
        if run.scanning:
            self._push_file(run, iter(sorted(files, key=itemgetter(0))))

    def _push_below(self, run: Run, directory: Node) -> None:
        """Have the directories below one that is listed anew looked at without waiting for it."""
        key = run.keys[directory.nodeid]
        for position, child in enumerate(self._ordered(run.order, directory)):
            if child.is_dir and not (run.skips_hidden and child.name.startswith(b".")):
                run.keys[child.nodeid] = (*key, position)
                heapq.heappush(run.dirs, (run.keys[child.nodeid], next(self._sequence), child))

    def _ordered(self, order: Order, directory: Node) -> Iterable[Node]:
        children = (directory.children or {}).values()
        if order is Order.INODE:
            return sorted(children, key=self._ino)
        if order is Order.NAME:
            return sorted(children, key=_name)
        return children

    def _notice_order(self, run: Run, directory: Node, opened: list[Node]) -> None:
        """Which order the files just opened were taken in."""
        wanted = {node.nodeid for node in opened}
        for order in (run.order, *Order):
            found = [node for node in self._ordered(order, directory) if node.nodeid in wanted]
            if found == opened:
                if order is not run.order:
                    run.order = order
                    self._reposition(run, directory)
                return

    def _push_file(self, run: Run, files: Files) -> None:
        """Have the next of a directory's files looked at when its place comes."""
        following = next(files, None)
        if following is not None:
            key, node = following
            heapq.heappush(run.files, (key, next(self._sequence), node, files))

    def _forget_passed(self, run: Run) -> None:
        """A walk over very many directories: keep what is needed of those that lie ahead."""
        needed = {node.nodeid for _, _, node in run.dirs} | self._recent.keys()
        needed |= {each.nodeid for place in run.places for each in upwards_from(place)}
        needed |= {run.root.nodeid}
        run.futile.clear()
        run.keys = {nodeid: key for nodeid, key in run.keys.items() if nodeid in needed}
        run.visited &= needed
        run.expanded &= needed


def _is_hidden(directory: Node, root: Node) -> bool:
    """Whether a name that begins with a dot leads from *root* to *directory*."""
    for each in upwards_from(directory):
        if each is root:
            return False
        if each.name.startswith(b"."):
            return True
    return False


def _name(node: Node) -> bytes:
    return node.name


def _suffix(node: Node) -> bytes:
    return os.path.splitext(node.name)[1]


def _is_small(node: Node) -> bool:
    attrs = node.attrs
    return (
        attrs is not None
        and attrs.size is not None
        and 0 < attrs.size <= SMALL_FILE
        and stat.S_ISREG(attrs.mode or 0)
    )
