"""When names of one directory that are asked for one by one are better listed at once.

Rent or buy: each name asked for costs a round trip, a listing costs time per entry, at both ends.
A directory is listed when what the names have cost already would have paid for listing all that
it seems to hold, and no further than that pays: at 100 ms this is the third name of ten thousand,
on loopback the hundreds' or never.  So whatever is asked next, no more than the double of the least
was spent.  Pure: times are arguments, in seconds.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from netfs.client.nodes import Node

GAP_S: Final = 1.0
"""Names asked for further apart than this and an answer belong to a person, not to a program."""

LIST_AFTER: Final = 2
"""Names asked for before a directory is listed, however small it seems: a path that is resolved
asks for one name of each."""

ENTRY_S: Final = 15e-6
"""What one entry of a listing costs client and server, measured on loopback."""

_ENTRY_BYTES: Final = 20
"""st_size of a directory for each of its entries: tmpfs has 20, ext4, xfs and btrfs 16 to 30 for
usual names.  Where it says something else, the listing shows it."""

_FEW: Final = 16
"""Entries at least: what OPENDIR, READDIR and CLOSE cost beside them."""

_MAX_ROWS: Final = 64

_LOOK_AGAIN: Final = 16
"""Names after which what a listing costs, and the way to the server, are looked at anew."""


class _Row:
    """One directory."""

    __slots__ = ("asked", "at", "enough", "least")

    def __init__(self) -> None:
        self.asked = 0  # names, without a longer pause
        self.at = float("-inf")  # when the last of them was
        self.least = 0  # entries it is known to have: a listing was given up there
        self.enough = 0  # names; with fewer no listing pays


class Lookups:
    """What was asked for one by one, and what that would have bought.

    Args:
        kept: names that are remembered: a longer listing buys nothing.
    """

    def __init__(self, kept: int) -> None:
        self._kept = kept
        self._rows: OrderedDict[int, _Row] = OrderedDict()  # by nodeid
        self._last: tuple[Node, _Row] | None = None  # asked for a name of it

    def is_too_early(self, directory: Node, now: float) -> bool:
        """As ``asked``, in short: whether it would surely return 0.  False: ask it, this did not
        count."""
        if self._last is None:
            return False
        last, row = self._last
        if last is not directory or row.asked + 1 >= row.enough or now - row.at >= GAP_S:
            return False
        row.asked += 1
        row.at = now
        return True

    def asked(self, directory: Node, now: float, round_trip_s: float) -> int:
        """The server is asked for a name of *directory*.

        Returns how many entries a listing may have now; 0: no listing pays yet.
        """
        row = self._row(directory)
        self._last = directory, row
        row.asked = row.asked + 1 if now - row.at < GAP_S + round_trip_s else 1
        row.at = now
        row.enough = 0
        if row.asked < LIST_AFTER:
            return 0
        # The one just asked for is not lost yet: the listing may answer it.
        affordable = int((row.asked - 1) * round_trip_s / ENTRY_S)
        expected = max(_FEW, _seeming_entries(directory), 2 * row.least)
        if affordable < expected or expected > self._kept:
            missing = (expected - affordable) * ENTRY_S
            few = missing < _LOOK_AGAIN * round_trip_s and expected <= self._kept
            row.enough = row.asked + (int(missing / round_trip_s) if few else _LOOK_AGAIN)
            return 0
        row.asked = 0  # spent, also if it does not help
        return min(affordable, self._kept)

    def gave_up(self, directory: Node, entries: int) -> None:
        """A listing begun for names asked one by one was longer than what it may cost."""
        row = self._row(directory)
        row.least = max(row.least, entries)

    def _row(self, directory: Node) -> _Row:
        row = self._rows.pop(directory.nodeid, None) or _Row()
        self._rows[directory.nodeid] = row
        if len(self._rows) > _MAX_ROWS:
            self._rows.popitem(last=False)
        return row


def _seeming_entries(directory: Node) -> int:
    attrs = directory.attrs
    return (attrs.size or 0) // _ENTRY_BYTES if attrs is not None else 0
