"""The planner of tree read-ahead: what somebody who walks a tree will ask for next.

Pure: it is told what happens (names looked up, directories entered and listed, files opened) and
says what to ask ahead; ``prefetch.py`` does it.  Times are arguments, in seconds.

Here is which walks there are.  A *run* (``run.py``) is one walk.  It begins when a directory is
entered right after its parent or after two of its siblings (find, ls -R, du), when names are asked
for one by one in a directory and then below it (git status), or when three small files are opened
in a row (grep -r, cp -r, tar); an ``ls`` is neither.  What lies ahead of a run is ordered as a
depth-first walk would meet it (``route.py``), in the order of entries that the walk shows.  A run
that ends with much unused makes the next one begin smaller.

Names of one directory that are asked for one by one are another matter: ``lookups.py``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final, NamedTuple

from netfs.client.lookups import Lookups
from netfs.client.nodes import Node
from netfs.client.route import MAX_PENDING
from netfs.client.run import FIRST_DIRS, FIRST_FILES, MAX_DIRS, NEAR, Counts, Plan, Run, gap_s
from netfs.client.walk import (
    Habit,
    Known,
    Order,
    is_hidden,
    is_small_file,
    notice_habit,
    upwards_from,
)

IDLE_S: Final = 5.0
"""A run without any access for so long has ended."""

SCAN_AFTER: Final = 3
"""Small files opened in a row before the next ones are fetched."""

MAX_ENTRIES_AHEAD: Final = 4096
"""A larger directory is not listed ahead to its end, nor listed to open some of its files."""

_ROW: Final = 6
"""Files opened in a row that are kept: they tell the order for certain enough (1 : 720)."""

_MISSED: Final = 3
"""Files opened in a scan that were not fetched ahead, before its order is looked at again."""

_PROVEN: Final = 4
"""Hits that show that a run is a walk, so that it may be followed out of its subtree."""

_MAX_RUNS: Final = 4
_MAX_ROWS: Final = 16
"""Walks at a time, and directories in which files are opened one after the other."""

_MAX_RECENT: Final = 64


class Statistics(NamedTuple):
    """Since the start; *ahead* counts what was planned."""

    listings_ahead: int
    listings_used: int
    files_ahead: int
    files_used: int
    runs: int


class Recent(NamedTuple):
    """A directory that was entered."""

    node: Node
    at: float
    was_listed: bool  # by whoever entered it, not only looked into


class Row(NamedTuple):
    """Small files opened one after the other in one directory."""

    opened: list[Node]  # the last of them
    at: float
    missed: int  # of the last, how many were not asked for ahead
    since: float


class TreePlanner:
    """The planner of one mount.

    Args:
        known: what the caches hold.
        round_trip_s: how long an answer takes, as measured; 0 as long as nothing was.
    """

    def __init__(self, known: Known, *, round_trip_s: Callable[[], float]) -> None:
        self._known = known
        self._round_trip_s = round_trip_s
        self._runs: list[Run] = []
        self._recent: OrderedDict[int, Recent] = OrderedDict()  # by nodeid, latest last
        self._lookups = Lookups(known.names_kept)
        self._wanted: list[tuple[Node, int]] = []
        self._entered: Node | None = None
        self._entered_at = float("-inf")
        self._rows: OrderedDict[int, Row] = OrderedDict()  # by nodeid of the directory
        self._first_dirs = FIRST_DIRS
        self._first_files = FIRST_FILES
        self._counts = Counts()

    @property
    def _gap_s(self) -> float:
        return gap_s(self._round_trip_s())

    # --- what happens ----------------------------------------------------------------------------

    def looked_up(self, directory: Node, now: float, *, asked: bool) -> bool:
        """A name of *directory* is looked up; *asked*: the server has to be asked for it.

        Returns whether there may be something to do.
        """
        if asked and not self._runs and self._lookups.is_too_early(directory, now):
            return False  # one more of many names, and no sign of a walk
        run = self._run_of(directory)
        if run is not None:
            run.looked_up()
        if asked and not self._known.is_listed(directory):
            limit = self._lookups.asked(directory, now, self._round_trip_s())
            if run is None:
                run = self._adopt(directory, now, NEAR if limit else 1)
            follows = not limit and self._follows_lookups(run, directory, now)
            if (limit or follows) and (run is None or directory.nodeid not in run.ahead_dirs):
                self._wanted.append((directory, limit or MAX_ENTRIES_AHEAD))
                self.entered(directory, now, by_lookup=True)
                return True
        if run is None or directory is self._entered:
            return False
        self.entered(directory, now, by_lookup=True)
        return True

    def _follows_lookups(self, run: Run | None, directory: Node, now: float) -> bool:
        """Whether the first name asked for in *directory* shows a walk by lookups: one that is
        proven came here, or the directory above was listed for its names just now.

        One into .git or .config is none: who looks for some names there leaves the most alone.
        """
        if run is not None:
            return run.by_lookup and run.hits >= _PROVEN
        above = self._recent.get(directory.parent.nodeid) if directory.parent is not None else None
        return (
            above is not None
            and not above.was_listed
            and now - above.at < self._gap_s
            and self._known.is_listed(above.node)
            and not is_hidden(directory)
        )

    def entered(self, directory: Node, now: float, *, by_lookup: bool = False) -> None:
        """Somebody lists *directory*, or looks up names in it one after the other."""
        if by_lookup and directory is self._entered:
            self._entered_at = now
            return
        run = self._run_of(directory) or self._adopt(directory, now, NEAR)
        if run is None:
            run = self._begin(directory, now, by_lookup)
        elif not by_lookup and directory.nodeid in run.visited and directory is not self._entered:
            run.visited.clear()  # another walk, over the same directories
            run.reposition(directory)
        self._remember(directory, now, by_lookup)
        if run is None:
            return
        run.by_lookup &= by_lookup
        if not by_lookup and directory.name.startswith(b"."):
            run.route.skips_hidden = False
        if run.is_scanning and now - run.opened_at > self._gap_s:
            run.end_scan()
        run.entered(directory, now)
        self._keep_bounded(run)

    def _remember(self, directory: Node, now: float, by_lookup: bool) -> None:
        self._entered, self._entered_at = directory, now
        before = self._recent.pop(directory.nodeid, None)
        was_listed = not by_lookup or (before is not None and before.was_listed)
        self._recent[directory.nodeid] = Recent(directory, now, was_listed)
        if len(self._recent) > _MAX_RECENT:
            self._recent.popitem(last=False)

    def listed(self, directory: Node, now: float) -> None:
        """A listing of *directory* is complete, whoever asked for it."""
        for each in self._runs:
            each.answered(directory, now)
        run = self._run_of(directory)
        if run is not None:
            run.listed(directory, now)
            self._keep_bounded(run)
        if directory is self._entered:
            # Who waited for it goes on from here: that was no pause.
            if run is not None:
                run.opened_at = min(now, run.opened_at + now - self._entered_at)
            self._entered_at = now

    def not_listed(self, directory: Node, entries: int) -> None:
        """A listing that was planned failed, or was given up after so many *entries*."""
        self._lookups.gave_up(directory, entries)
        for run in self._runs:
            run.not_listed(directory)

    def opened(self, node: Node, now: float) -> None:
        """Somebody opens a file."""
        parent = node.parent
        if parent is None or not is_small_file(node):
            return
        run = self._run_of(parent) or self._adopt(parent, now, NEAR)
        was_ahead = run is not None and run.opened(node, parent, now)
        row = self._in_a_row(node, parent, now, was_ahead)
        if run is not None and run.is_scanning:
            self._go_on(run, node, parent, row, now)
        elif len(row.opened) >= SCAN_AFTER or (run is not None and run.in_a_row >= SCAN_AFTER):
            self._scan(run, parent, row, now)

    def _in_a_row(self, node: Node, parent: Node, now: float, was_ahead: bool) -> Row:
        """The last files opened one after the other in this directory."""
        row = self._rows.pop(parent.nodeid, None)
        if row is None or now - row.at > self._gap_s or node in row.opened:
            row = Row([], now, 0, now)
        opened = [*row.opened, node][-_ROW:]
        missed = 0 if was_ahead else row.missed + 1
        row = self._rows[parent.nodeid] = Row(opened, now, missed, row.since)
        if len(self._rows) > _MAX_ROWS:
            self._rows.popitem(last=False)
        return row

    def _go_on(self, run: Run, node: Node, parent: Node, row: Row, now: float) -> None:
        """A file is opened in a scan."""
        if run.route.skips_hidden and is_hidden(parent, run.root):
            return
        if row.missed >= _MISSED and len(row.opened) >= SCAN_AFTER:
            self._rows[parent.nodeid] = row._replace(missed=0)
            if not self._notice_habit(run, parent, row) and self._part(run, parent, now):
                return
        elif len(row.opened) == SCAN_AFTER:
            self._notice_habit(run, parent, row)  # what is held is not missed in any order
        known = self._known
        if known.fresh_s and known.is_cached(node) and not known.is_fresh(node):
            run.opens_old(node, parent, now)
        elif parent.nodeid not in run.route.expanded and run.route.holds(parent):
            run.route.look_at(parent)

    def _part(self, run: Run, parent: Node, now: float) -> bool:
        """What is asked for ahead does not come to *parent*, because another program walks
        elsewhere: two runs then."""
        root = run.part_at(parent)
        if root is None or root is run.root:
            return False
        apart = self._start(root, now)
        apart.by_lookup = run.by_lookup
        apart.route.habit = run.route.habit
        apart.route.skips_hidden = run.route.skips_hidden
        apart.scan(parent)
        return True

    def _scan(self, run: Run | None, parent: Node, row: Row, now: float) -> None:
        """Files are opened one after the other, the last in *parent*."""
        recent = self._recent.get(parent.nodeid)
        by_lookup = recent is None or not recent.was_listed
        if by_lookup and is_hidden(parent):
            return  # some files of .git or .config: nobody reads all of it unlisted
        if run is None:
            run = self._start(parent, now)
            run.by_lookup = run.route.skips_hidden = by_lookup
        if len(row.opened) >= SCAN_AFTER:
            self._notice_habit(run, parent, row)
        run.scan(parent)

    def _notice_habit(self, run: Run, directory: Node, row: Row) -> bool:
        """How the files just opened were taken.  Returns whether it was not as thought."""
        visited = {nodeid for nodeid, at in run.visited.items() if at >= row.since}
        habit = notice_habit(
            run.route.habit, directory, row.opened, visited=visited, ino=self._known.ino
        )
        if habit is None or habit == run.route.habit:
            return False
        run.route.habit = habit
        run.reposition(directory)
        return True

    def read_link(self, node: Node, now: float) -> list[Node]:
        """Somebody reads a symlink's target.  Returns others whose targets will be read: in a walk
        all are wanted as soon as the first was."""
        run = self._run_of(node.parent) if node.parent is not None else None
        if run is None:
            return []
        run.last_at = now
        if run.reads_links:
            return []
        run.reads_links = True
        return [link for link in run.links_ahead() if link is not node]

    # --- what to do ------------------------------------------------------------------------------

    def take(self, now: float) -> tuple[Plan, list[tuple[Node, int]]]:
        """What is to be asked for; it counts as asked for.

        The second part are directories to be listed because of names asked for one by one, each
        with how many entries that is worth.
        """
        wanted, self._wanted = self._wanted, []
        plan = Plan([], [])
        for run in list(self._runs):
            if now - run.last_at > IDLE_S:
                self._end(run)
            else:
                run.take(plan, now)
        return plan, wanted

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
        return run is not None and run.is_scanning

    def statistics(self) -> Statistics:
        counts = self._counts
        return Statistics(
            counts.listings_ahead,
            counts.listings_used,
            counts.files_ahead,
            counts.files_used,
            counts.runs,
        )

    # --- runs ------------------------------------------------------------------------------------

    def _run_of(self, directory: Node) -> Run | None:
        for run in reversed(self._runs):  # one that parted from another comes first
            if run.route.holds(directory):
                return run
        return None

    def _begin(self, directory: Node, now: float, by_lookup: bool) -> Run | None:
        """A run, if entering *directory* now shows one."""
        parent = directory.parent
        if (
            parent is None
            or now - self._entered_at > self._gap_s
            or (by_lookup and is_hidden(directory))
        ):
            return None
        above = self._recent.get(parent.nodeid)
        if (
            above is None
            or (now - above.at > self._gap_s and parent is not self._entered)
            or not (by_lookup or above.was_listed)
        ):
            siblings = [each for each in self._recent.values() if each.node.parent is parent]
            if sum(1 for each in siblings if by_lookup or each.was_listed) < 2:
                return None
        run = self._start(parent, now)
        run.by_lookup = run.route.skips_hidden = by_lookup
        if by_lookup:
            run.route.habit = Habit(Order.NAME)
        run.route.look_at(parent)
        return run

    def _adopt(self, directory: Node, now: float, near: int) -> Run | None:
        """The run of a walk that came to *directory* from the subtree where it was noticed first:
        its root moves up, at most *near* levels, to what both have in common."""
        if not self._runs:
            return None
        found: tuple[int, Node, Run] | None = None
        above = {each.nodeid for each in upwards_from(directory)}
        for run in self._runs:
            if now - run.last_at > self._gap_s or run.hits < _PROVEN:
                continue
            for levels, at in zip(range(near + 1), upwards_from(run.root), strict=False):
                if at.nodeid in above:
                    if run.route.skips_hidden and is_hidden(directory, at):
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
        run.reposition(directory)
        return run

    def _start(self, root: Node, now: float) -> Run:
        """A new run from *root*; those below it go on as part of it."""
        run = Run(
            root,
            now,
            self._known,
            self._counts,
            round_trip_s=self._round_trip_s,
            dir_window=self._first_dirs,
            file_window=self._first_files,
        )
        for other in list(self._runs):
            if other.root is not root and any(each is root for each in upwards_from(other.root)):
                self._runs.remove(other)
                run.absorb(other)
        if len(self._runs) >= _MAX_RUNS:
            self._end(min(self._runs, key=lambda each: each.last_at))
        self._runs.append(run)
        self._counts.runs += 1
        return run

    def _end(self, run: Run) -> None:
        """Draw the lesson for the next one."""
        self._runs.remove(run)
        unused = run.unused + len(run.ahead_dirs) + len(run.ahead_files)
        if unused * 4 > run.hits:
            self._first_dirs = max(FIRST_DIRS // 8, self._first_dirs // 2)
            self._first_files = max(FIRST_FILES // 2, self._first_files // 2)
        elif run.hits:
            self._first_dirs = min(2 * FIRST_DIRS, self._first_dirs * 2)
            self._first_files = min(4 * FIRST_FILES, self._first_files * 2)

    def _keep_bounded(self, run: Run) -> None:
        if len(run.route.keys) >= 2 * MAX_PENDING:
            run.forget_passed(set(self._recent))
