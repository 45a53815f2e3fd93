"""Replies to the kernel.  (The owner of netfs/fuse completes this module.)"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from netfs.wire import Buffer


class Reply(NamedTuple):
    """A successful answer: what follows the out header, in one writev."""

    body: tuple[Buffer, ...] = ()
    undo: Callable[[], None] | None = None
    """Run when the kernel no longer knows the request (its caller is gone): takes back an nlookup,
    closes an fh."""


EMPTY = Reply()
