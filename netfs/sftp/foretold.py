"""Which handle OpenSSH's sftp-server will give: what is wanted of it can leave with the OPEN.

Its handles are indexes, 4 bytes, of a table whose free places are a stack: what was closed last is
given next, else the table grows.  It serves one request after the other, so who knows the requests
before an OPEN knows its handle, unless one of those that are not answered yet is refused; then a
handle foretold is one that nobody has.  Source: sftp-server.c, handle_new and handle_unused.

Nothing is believed of a server before it has given some handles as foretold, nor after it has given
another one, or answered out of turn.  Pure: told of what leaves and what comes, in that order.
"""

from __future__ import annotations

import struct
from collections import deque
from typing import Final

PROOFS: Final = 3
"""Handles that were as foretold before one is relied on."""

_INDEX: Final = struct.Struct(">I")
_LARGEST: Final = 1 << 16
"""An index above this is no place in a table: OpenSSH has as many as the process may have files."""


class _Table:
    """The server's table, as far as it matters who comes next."""

    __slots__ = ("free", "size")

    def __init__(self, size: int, free: list[int]) -> None:
        self.size = size
        self.free = free  # a stack

    def take(self) -> int:
        if self.free:
            return self.free.pop()
        self.size += 1
        return self.size - 1


class Foretold:
    """What one conversation's server will give."""

    __slots__ = ("_asked", "_is_off", "_now", "_proofs", "_then")

    def __init__(self) -> None:
        self._now = _Table(0, [])  # after all that is answered
        self._then = _Table(0, [])  # after all that has left, if nothing of it is refused
        self._asked: deque[tuple[int, int | None]] = deque()
        """What is not answered: request id, and the index that is closed; None: an opening."""
        self._proofs = 0
        self._is_off = False

    def opening(self, request_id: int) -> bytes | None:
        """An OPEN or OPENDIR leaves.  Returns the handle it will get, if that can be relied on."""
        if self._is_off:
            return None
        index = self._then.take()
        self._asked.append((request_id, None))
        return _INDEX.pack(index) if self._proofs >= PROOFS else None

    def closing(self, request_id: int, handle: bytes) -> None:
        """A CLOSE leaves."""
        if self._is_off:
            return
        index = _index(handle)
        if index is None:
            self._give_up()
        else:
            self._then.free.append(index)
            self._asked.append((request_id, index))

    def answered(self, request_id: int, handle: bytes | None) -> None:
        """The answer to an OPEN, OPENDIR or CLOSE has come; *handle*: what it gave, if it did."""
        if self._is_off:
            return
        if not self._asked or self._asked[0][0] != request_id:
            self._give_up()  # not one after the other: the next may run before the last
            return
        _, closed = self._asked.popleft()
        if closed is not None:
            self._now.free.append(closed)
        elif handle is None:
            self._begin_anew()
        elif self._now.take() == _index(handle):
            self._proofs += 1
        else:
            self._give_up()

    def _begin_anew(self) -> None:
        """An opening was refused: foretell again what comes after it."""
        then = self._then = _Table(self._now.size, list(self._now.free))
        for _, closed in self._asked:
            if closed is None:
                then.take()
            else:
                then.free.append(closed)

    def _give_up(self) -> None:
        self._is_off = True
        self._asked.clear()


def _index(handle: bytes) -> int | None:
    if len(handle) != _INDEX.size:
        return None
    index: int = _INDEX.unpack(handle)[0]
    return index if index <= _LARGEST else None
