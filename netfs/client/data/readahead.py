"""What to fetch before it is asked for: the pattern of one open file's reads, and its window.

Pure: reads go in, ranges come out.  The window only grows as far as reads have proven the pattern,
so what is fetched in vain stays in proportion to what was used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

_FIRST: Final = 256 * 1024
"""Fetched beyond a first read at the start of a file (bytes): one request, most files whole."""

_TOLERANCE: Final = 1024 * 1024
"""The kernel sends up to this much (bytes, one READ) out of order, or skips what it has."""

_STREAM: Final = 4 * 1024 * 1024
"""Read in order (bytes) until a reader counts as one who reads a file from end to end."""

_STRIDES: Final = 3
"""Equal distances that make a pattern."""

Ranges = list[tuple[int, int]]


class ReadAhead:
    """The reads of one open file."""

    __slots__ = ("_ahead", "_delta", "_deltas", "_last", "_position", "_proven", "_step")

    def __init__(self) -> None:
        self._position = 0  # where a sequential reader goes on
        self._step = 1  # 1 forward, -1 backward
        self._proven = 0  # bytes read in the present pattern
        self._ahead = 0  # planned up to here (down to here, backward)
        self._last = -1  # offset of the last read
        self._delta = 0  # distance between the last two
        self._deltas = 0  # how often it came in a row

    def plan(self, offset: int, size: int, file_size: int, limit: Callable[[], int]) -> Ranges:
        """Take note of a read.

        Args:
            offset: in bytes, as ``size``.
            file_size: nothing is planned behind it.
            limit: gives the most bytes worth having ahead.

        Returns: the ranges [start, end) to fetch, next needed first; the read itself is not in
            them.
        """
        end = offset + size
        last, self._last = self._last, offset
        if last < 0 and offset == 0:
            self._restart(end, 1)
            self._proven = size
            return self._forward(file_size, min(limit(), max(_FIRST - size, 3 * size)))
        if self._step > 0 and self._proven and self._is_next(offset):
            if end > self._position:
                self._proven += end - max(offset, self._position)
                self._position = end
            self._delta = self._deltas = 0
            return self._forward(file_size, min(limit(), max(_FIRST, 2 * self._proven)))
        if last >= 0 and offset == self._position and self._proven == 0 and self._step > 0:
            self._proven = size  # the second of two adjacent reads anywhere
            self._position = self._ahead = end
            return []
        if last >= 0 and end == last and offset < last:
            return self._backward(offset, size, limit)
        return self._strided(offset, size, last, file_size, limit)

    @property
    def is_streaming(self) -> bool:
        """Whether what was read will hardly be read again: forward, for long already."""
        return self._step > 0 and self._proven >= _STREAM

    def reached(self, at: int) -> None:
        """What was planned last is only being fetched up to *at*: the next plan goes on there."""
        if self._step > 0 and self._proven:
            self._ahead = at

    def _is_next(self, offset: int) -> bool:
        if offset == self._position:
            return True
        near = max(_TOLERANCE, self._ahead - self._position)
        return self._proven >= _FIRST and abs(offset - self._position) <= near

    def _forward(self, file_size: int, window: int) -> Ranges:
        position = self._position
        ahead = max(self._ahead, position)
        goal = min(position + window, file_size)
        if goal <= ahead or (ahead - position > window // 2 and goal < file_size):
            return []
        self._ahead = goal
        return [(ahead, goal)]

    def _backward(self, offset: int, size: int, limit: Callable[[], int]) -> Ranges:
        if self._step > 0:
            self._restart(offset, -1)
        self._proven += size
        self._position = offset
        ahead = min(self._ahead, offset)
        if self._proven < 2 * size:
            return []
        window = min(limit(), 2 * self._proven)
        goal = max(0, offset - window)
        if goal >= ahead or (offset - ahead > window // 2 and goal > 0):
            return []
        self._ahead = goal
        return [(goal, ahead)]

    def _strided(
        self, offset: int, size: int, last: int, file_size: int, limit: Callable[[], int]
    ) -> Ranges:
        delta = offset - last if last >= 0 else 0
        same = delta != 0 and delta == self._delta
        self._deltas = self._deltas + 1 if same else 1
        self._delta = delta
        if not same or self._proven or self._step < 0:
            self._restart(offset + size, 1)
            self._ahead = offset
        if self._deltas < _STRIDES:
            return []
        # As many ahead as were seen, up to the limit; those planned before are left out.
        count = min(self._deltas - 1, max(1, limit() // size))
        found: Ranges = []
        for index in range(1, count + 1):
            start = offset + index * delta
            if start < 0 or start >= file_size:
                break
            beyond = start > self._ahead if delta > 0 else start < self._ahead
            if beyond:
                found.append((start, min(start + size, file_size)))
                self._ahead = start
        return found

    def _restart(self, position: int, step: int) -> None:
        self._position = self._ahead = position
        self._step = step
        self._proven = 0

    def __repr__(self) -> str:
        return f"<ReadAhead at {self._position} step {self._step} proven {self._proven}>"
