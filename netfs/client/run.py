"""One walk, for the planner of tree read-ahead: how much of what lies ahead is asked for.

The windows bound what has been asked for ahead of a place and not been used yet (what lies further
ahead does not hold up what is nearer).  They open with each hit, so that they double per round trip
while everything is used, and narrow when something is left behind unused or was asked for so early
that it had become too old.  Content that is held already is not fetched but renewed: the listing
of its directory tells the attributes of all its files anew, shortly before they are opened.

Ages and pauses are measured without the time in which the program or the planner waits for the
server: on a long line one answer takes as long as a pause, or as a good part of what is fresh.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from netfs.client.nodes import Node
from netfs.client.route import Route
from netfs.client.walk import (
    Ahead,
    Item,
    Key,
    Known,
    is_small_file,
    suffix_of,
    upwards_from,
)

FUTILE_S: Final = 5.0
"""A directory whose listing was too old or overtaken when it came is not listed ahead so long."""

STALE_S: Final = 2.0
"""What was asked for ahead and not used so long is not counted as ahead any more."""

MAX_DIRS: Final = 128
"""Listings ahead at most: each is a handle of the 1000 or so that a server gives."""

MAX_FILES: Final = 512
MAX_BYTES: Final = 16 << 20
"""Files and bytes ahead at most: a part of the block cache, and what 100 ms at 1 Gbit/s carry."""

FIRST_DIRS: Final = 32
"""Window of a first walk: it is noticed after two levels only, and listings are small."""

FIRST_FILES: Final = 8
"""Files carry bytes: they begin with few.  Both halve and grow fourfold with experience."""

FIRST_RENEWALS: Final = 8
"""Directories listed anew ahead: what is renewed too early has to be renewed once more."""

SUFFIX_MEMORY: Final = 8
"""Files opened that make up for those that end alike and were fetched in vain, however many: the
next program on the same tree may want what the last one did not."""

NEAR: Final = 3
"""Levels that a walk goes up and down again without being another one."""

GAP_S: Final = 1.0
"""Accesses further apart belong to a person, not to a program that walks, beside what the program
waits for between them."""

ANSWER_TRIPS: Final = 2
"""Round trips until a listing or a small file is there: OPEN, and READDIR or READ."""

_WAIT_TRIPS: Final = 2 * ANSWER_TRIPS
"""Between two accesses of a program at most: for a listing, and for a file."""

_LEAST_DIRS: Final = 4
_FEW_NAMES: Final = 16  # of a directory, as long as none was listed
_MEAN_OF: Final = 8  # directories
_SHARE_AHEAD: Final = 4  # one in so many of the names kept may lie ahead
_MAX_PLACES: Final = 4
_STEPS: Final = 256
"""Candidates looked at per call: bounds the time taken from whoever waits."""

_MAX_LOOKS: Final = 4
"""Names looked up between two files opened, at most, by who reads the files he finds."""


def gap_s(round_trip_s: float) -> float:
    """The longest time between two accesses of one program."""
    return GAP_S + _WAIT_TRIPS * round_trip_s


class Plan(NamedTuple):
    """What is to be asked for."""

    directories: list[Node]
    files: list[Node]


@dataclass(slots=True)
class Counts:
    """Since the start; *ahead* is what was planned."""

    listings_ahead: int = 0
    listings_used: int = 0
    files_ahead: int = 0
    files_used: int = 0
    runs: int = 0


class Run:
    """See the module."""

    def __init__(
        self,
        root: Node,
        now: float,
        known: Known,
        counts: Counts,
        *,
        round_trip_s: Callable[[], float],
        dir_window: int,
        file_window: int,
    ) -> None:
        self.route = Route(root, known)
        self.last_at = now
        self.opened_at = now  # when a file was opened last
        self.reads_links = False
        self.by_lookup = False  # names are looked up without listing (git status)
        self.dir_window = dir_window
        self.file_window = file_window
        self.renew_window = FIRST_RENEWALS
        self.visited: dict[int, float] = {}  # nodeid -> when, directories
        self.ahead_dirs = Ahead()
        self.ahead_files = Ahead()
        self.hits = 0
        self.unused = 0
        self._hit_at = now  # when a listing asked for ahead was used last
        self._hit_key: Key = ()
        self._mean_names = float(_FEW_NAMES)  # of the directories listed lately
        self._known = known
        self._counts = counts
        self._round_trip_s = round_trip_s
        self._places: list[Node] = []  # where accesses are: several, if programs walk together
        self._suffixes: dict[bytes, int] = {}  # opened minus left behind
        self._futile: dict[int, float] = {}  # nodeid -> when a listing of it did not serve
        self._renewed: dict[int, float] = {}  # nodeid -> when it was listed anew for its files
        self._renewing: set[int] = set()  # nodeids of them, as long as that is under way
        self._urgent: list[Node] = []  # to be listed anew, for the file that is opened now
        self.in_a_row = 0  # files opened, wherever they are
        self._looks = 0  # names looked up since

    @property
    def root(self) -> Node:
        return self.route.root

    @property
    def is_scanning(self) -> bool:
        """Files are opened, not only looked at."""
        return self.route.with_files

    # --- what happens ----------------------------------------------------------------------------

    def looked_up(self) -> None:
        self._looks += 1
        if self._looks > _MAX_LOOKS:
            self.in_a_row = 0

    def entered(self, directory: Node, now: float) -> None:
        """The walk is in *directory*."""
        self.last_at = now
        self._move(directory)
        self.visited[directory.nodeid] = now
        item = self.ahead_dirs.pop(directory.nodeid)
        if item is not None:
            self.hits += 1
            self._hit_at, self._hit_key = now, item.key
            self._counts.listings_used += 1
            self.dir_window = min(MAX_DIRS, self.dir_window + 1)
        if self._known.is_listed(directory):
            self.route.expand(directory)

    def answered(self, directory: Node, now: float) -> None:
        """A listing of *directory* is complete, in this walk or elsewhere."""
        if directory.nodeid in self._renewing:
            self._renewing.discard(directory.nodeid)
            if now - directory.listed_at > self._known.fresh_s:
                self._futile[directory.nodeid] = now  # its attributes were too old when they came

    def listed(self, directory: Node, now: float) -> None:
        """A listing of *directory* is complete."""
        self.route.expand(directory)
        names = 1 + len(directory.children or ())
        self._mean_names += (names - self._mean_names) / _MEAN_OF
        if not self._known.is_listed(directory):
            self._futile[directory.nodeid] = now  # it is changed all the time, or takes too long

    def not_listed(self, directory: Node) -> None:
        """A listing of *directory* that was asked for failed, or was given up."""
        self.ahead_dirs.pop(directory.nodeid)
        self._renewing.discard(directory.nodeid)

    def opened(self, node: Node, parent: Node, now: float) -> bool:
        """A small file is opened.  Returns whether it was asked for ahead, or is held already."""
        self.in_a_row = (
            self.in_a_row + 1 if now - self.opened_at < gap_s(self._round_trip_s()) else 1
        )
        self._looks = 0
        self.last_at = self.opened_at = now
        suffix = suffix_of(node)
        self._suffixes[suffix] = min(SUFFIX_MEMORY, self._suffixes.get(suffix, 0) + 1)
        self._move(parent)
        self.visited[parent.nodeid] = now
        item = self.ahead_files.pop(node.nodeid)
        if item is not None:
            self.hits += 1
            self._counts.files_used += 1
            least = FIRST_FILES // 2
            self.file_window = self._adapted(
                self.file_window, node, now - item.at, least, MAX_FILES
            )
        elif parent.nodeid in self._renewed:
            asked_at = self._renewed.pop(parent.nodeid)
            if self.ahead_dirs.pop(parent.nodeid) is not None:
                self.hits += 1
                self._counts.listings_used += 1
            if parent.nodeid in self._renewing:
                self.renew_window = min(MAX_DIRS, self.renew_window + 1)  # too late
            else:
                age_s = now - asked_at
                self.renew_window = self._adapted(self.renew_window, node, age_s, 1, MAX_DIRS)
        return item is not None or self._known.is_cached(node)

    def _adapted(self, window: int, node: Node, age_s: float, least: int, most: int) -> int:
        """The window after something was used *age_s* after it was asked for.

        Only what it lay unused counts: on a long line the answer itself takes a good part of the
        time for which attributes are fresh, and while it is on its way they are those of before.
        """
        limit_s = self._known.fresh_s or STALE_S
        if not self._known.is_cached(node) and age_s < limit_s + self._answer_s:
            return min(most, window + 1)  # still on its way: too late
        if self._known.fresh_s and not self._known.is_fresh(node):
            return max(least, window // 2)  # far too early
        unused_s = age_s - self._answer_s
        limit_s = max(limit_s / 4, limit_s - self._answer_s)
        if unused_s > limit_s / 2:
            return max(least, window * 3 // 4)
        return min(most, window + 1) if unused_s < limit_s / 4 else window

    @property
    def _answer_s(self) -> float:
        return ANSWER_TRIPS * self._round_trip_s()

    def _move(self, directory: Node) -> None:
        """The walk is in *directory* now: what lies behind it unused will not be used."""
        places = self._places
        if places and places[-1] is directory:
            return
        upwards = [each.nodeid for each in upwards_from(directory)]
        nearest: tuple[int, int] | None = None  # (levels up to what both have in common, index)
        for index, place in enumerate(places):
            if place is directory or any(each is directory for each in upwards_from(place)):
                return  # there already, or upwards only: it may come back
            above = {each.nodeid for each in upwards_from(place)}
            levels = next((n for n, nodeid in enumerate(upwards) if nodeid in above), len(upwards))
            if nearest is None or levels < nearest[0]:
                nearest = (levels, index)
        if nearest is not None and (nearest[0] <= NEAR or len(places) >= _MAX_PLACES):
            del places[nearest[1]]
        places.append(directory)
        if directory.nodeid in self.visited:
            self.visited.clear()  # another walk, over the same directories
        self._leave_behind({each.nodeid for place in places for each in upwards_from(place)})

    def _leave_behind(self, path: set[int]) -> None:
        directories = self.ahead_dirs.left(self.visited, path)
        for nodeid in directories:
            self.ahead_dirs.pop(nodeid)
        files = self.ahead_files.left(self.visited, path)
        for nodeid in files:
            item = self.ahead_files.pop(nodeid)
            assert item is not None
            used = self._suffixes.get(item.suffix, 0)
            self._suffixes[item.suffix] = max(-SUFFIX_MEMORY, used - 2)
        if directories and not self.by_lookup:
            self.dir_window = max(_LEAST_DIRS, self.dir_window // 2)
        if files:
            self.file_window = max(FIRST_FILES // 2, self.file_window // 2)
        self.unused += len(directories) + len(files)

    def part_at(self, directory: Node) -> Node | None:
        """The root of the subtree around *directory* in which another program walks, apart from
        the places where this walk is; what is there is not its business any more."""
        here = {each.nodeid for each in upwards_from(directory)}
        others = {
            each.nodeid
            for place in self._places
            if place.nodeid not in here and directory not in upwards_from(place)
            for each in upwards_from(place)
        }
        if not others or directory.nodeid in others:
            return None
        root = directory
        while root.parent is not None and root.parent.nodeid not in others:
            root = root.parent
        self._places = [place for place in self._places if root not in upwards_from(place)]
        return root

    # --- where it goes ---------------------------------------------------------------------------

    def reposition(self, directory: Node) -> None:
        """Begin anew with what lies ahead of *directory*."""
        self.ahead_dirs.clear()
        self.ahead_files.clear()
        for each in upwards_from(directory):
            self.visited.pop(each.nodeid, None)
        self.route.reposition(directory)

    def scan(self, directory: Node) -> None:
        """Files are opened one after the other, now in *directory*."""
        self.route.with_files = True
        self.reposition(directory)

    def opens_old(self, node: Node, parent: Node, now: float) -> None:
        """In a scan, *node* is opened whose content is held, but whose attributes are too old."""
        if parent.nodeid in self.ahead_dirs or parent.nodeid in self._renewing:
            return  # it is being looked at
        if now - self._futile.get(parent.nodeid, -FUTILE_S) < FUTILE_S:
            return  # asking for the file's attributes is sooner answered
        if not self.route.will_meet(node):
            self.reposition(parent)  # another walk, or it went elsewhere
        self._renew(self.route.keys[parent.nodeid], parent, now)
        self._urgent.append(parent)

    def _renew(self, key: Key, directory: Node, now: float) -> None:
        above = directory.parent.nodeid if directory.parent is not None else 0
        self.ahead_dirs.add(directory.nodeid, Item(key, above, now))
        self._renewed[directory.nodeid] = now
        self._renewing.add(directory.nodeid)

    def end_scan(self) -> None:
        """This walk opens nothing."""
        self.route.with_files = False
        self.route.files.clear()

    # --- what to do ------------------------------------------------------------------------------

    def take(self, plan: Plan, now: float) -> None:
        """Add what is to be asked for; it counts as asked for."""
        self._drop_stale(now)
        before = len(plan.directories), len(plan.files)
        plan.directories.extend(self._urgent)
        self._urgent.clear()
        self._take_directories(plan, now)
        if self.is_scanning:
            self._take_files(plan, now)
        self._counts.listings_ahead += len(plan.directories) - before[0]
        self._counts.files_ahead += len(plan.files) - before[1]

    def _drop_stale(self, now: float) -> None:
        """What nobody wanted for long holds up nothing any more: the walk went elsewhere."""
        for ahead, stale in (
            (self.ahead_dirs, self._passed(now)),
            (self.ahead_files, self.ahead_files.older(now - STALE_S - self._answer_s)),
        ):
            for nodeid in stale:
                ahead.pop(nodeid)
            self.unused += len(stale)

    def _passed(self, now: float) -> list[int]:
        """Directories asked for long ago that will not be used: all of them, unless the walk still
        comes to others, one after the other; then those before where it is."""
        ahead = self.ahead_dirs
        stale_s = STALE_S + self._answer_s
        comes = now - self._hit_at < stale_s
        if comes and not ahead.before(self._hit_key):
            return []
        return ahead.older(now - stale_s, before=self._hit_key if comes else None)

    def _take_directories(self, plan: Plan, now: float) -> None:
        ahead = self.ahead_dirs
        route = self.route
        kept = self._known.names_kept / self._mean_names  # directories
        window = min(self.dir_window, max(_LEAST_DIRS, int(kept) // _SHARE_AHEAD))
        for _ in range(_STEPS):
            if not route.dirs or len(ahead) >= min(MAX_DIRS, 3 * window):
                return
            key, _, node = route.dirs[0]
            if ahead.before(key) >= window:
                return
            route.pop_directory()
            nodeid = node.nodeid
            if node.removed or nodeid in route.expanded or nodeid in ahead:
                continue
            if self._known.is_listed(node):
                route.expand(node)
            elif (
                nodeid not in self.visited and now - self._futile.get(nodeid, -FUTILE_S) >= FUTILE_S
            ):
                above = node.parent.nodeid if node.parent is not None else 0
                ahead.add(nodeid, Item(key, above, now))
                plan.directories.append(node)

    def _take_files(self, plan: Plan, now: float) -> None:
        ahead = self.ahead_files
        route = self.route
        for _ in range(_STEPS):
            if not route.files:
                return
            key, _, node, _ = route.files[0]
            if self._known.is_cached(node):
                if not self._keep_young(key, node, plan, now):
                    return
                route.pop_file()
                continue
            # The window is filled up by an eighth at a time: less to do than one by one.
            open_for = self.file_window if len(plan.files) else self.file_window * 7 // 8
            if (
                len(ahead) >= MAX_FILES
                or ahead.before(key) >= max(1, open_for)
                or ahead.size >= MAX_BYTES
            ):
                return
            route.pop_file()
            if node.removed or not is_small_file(node) or node.nodeid in ahead or node.opens:
                continue
            suffix = suffix_of(node)
            if self._suffixes.get(suffix, 0) < 0:
                continue
            assert node.attrs is not None
            assert node.parent is not None
            size = node.attrs.size or 0
            ahead.add(node.nodeid, Item(key, node.parent.nodeid, now, size, suffix))
            plan.files.append(node)

    def _keep_young(self, key: Key, node: Node, plan: Plan, now: float) -> bool:
        """See that the attributes of a file whose content is held are young when it is opened.

        Returns False if it is too early for that.
        """
        parent = node.parent
        fresh_s = self._known.fresh_s
        if parent is None or not fresh_s or now - node.attrs_at <= fresh_s / 2:
            return True
        if (
            parent.nodeid in self.ahead_dirs
            or parent.nodeid in self._renewing
            or now - parent.listed_at <= fresh_s / 2
        ):
            return True
        if self.ahead_dirs.before(key) >= self.renew_window or len(self.ahead_dirs) >= MAX_DIRS:
            return False
        if now - self._futile.get(parent.nodeid, -FUTILE_S) >= FUTILE_S:
            self._renew(key, parent, now)
            plan.directories.append(parent)
        return True

    def links_ahead(self) -> list[Node]:
        """The symlinks known to lie ahead whose targets are not: somebody has read the first."""
        found: list[Node] = []
        places = [self.route.root]
        for _ in range(_STEPS):
            if not places or len(found) >= MAX_DIRS:
                break
            directory = places.pop()
            for child in (directory.children or {}).values():
                if child.is_dir and child.nodeid in self.route.expanded:
                    places.append(child)
                elif child.is_symlink and child.target is None:
                    found.append(child)
        return found[:MAX_DIRS]

    def forget_passed(self, needed: set[int]) -> None:
        """A walk over very many directories: keep what is needed of those that lie ahead."""
        self._futile.clear()
        self._renewed.clear()
        needed = needed | {each.nodeid for at in self._places for each in upwards_from(at)}
        self.route.forget_passed(needed)
        kept = self.route.keys
        self.visited = {nodeid: at for nodeid, at in self.visited.items() if nodeid in kept}

    def absorb(self, other: Run) -> None:
        """Go on with what *other*, a walk below, has found out."""
        self.dir_window = max(self.dir_window, other.dir_window)
        self.file_window = max(self.file_window, other.file_window)
        self.renew_window = other.renew_window
        self.reads_links |= other.reads_links
        self.visited |= other.visited
        self.hits += other.hits
        self.in_a_row = max(self.in_a_row, other.in_a_row)
        self._suffixes |= other._suffixes
        self.route.with_files |= other.route.with_files
        self.route.skips_hidden |= other.route.skips_hidden
        self.route.habit = other.route.habit
