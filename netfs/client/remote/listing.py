"""Reads a whole directory with several READDIRs in flight, and refuses names that can't be."""

from __future__ import annotations

import errno
import logging
import os
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Final

from netfs.client.remote.api import DirEntry
from netfs.client.remote.pending import Pending, StatusError
from netfs.client.remote.requester import Requester
from netfs.sftp.codes import Status
from netfs.sftp.requests import Opendir, Readdir
from netfs.sftp.responses import Name, NameEntry, StatusResponse

_log = logging.getLogger(__name__)

_FIRST: Final = 2
"""READDIRs sent when the handle arrives, or with the OPENDIR if it is foretold: most directories
fit into one, the second says EOF."""
_MOST: Final = 32
"""READDIRs in flight; OpenSSH answers each with 100 names at most, so 3,200 names per round
trip."""
_FEW: Final = 50
"""Names in an answer up to which it is taken for the last one: servers send as many as they have,
OpenSSH 100, others as fit into 32 KiB.  What is in flight already will tell."""
_MAX_NAMES: Final = 8_000_000
_MAX_EMPTY: Final = 100
"""Names and empty answers after which a listing counts as endless.  The largest directories in
use have some million names; a server needs no empty answers at all."""
_NAME_MAX: Final = 255  # bytes.  Source: linux/limits.h
_EVERYWHERE: Final = frozenset((b".", b".."))
"""Every server sends them; they are left out in silence."""

_new = tuple.__new__  # a NamedTuple, without the call of its own constructor


async def scan(
    requester: Requester, path: bytes, report_illegal: Callable[[bytes], None]
) -> AsyncGenerator[list[DirEntry], None]:
    """The entries of *path* in batches.

    Raises:
        StatusError, Disconnected
        OSError: EOVERFLOW for a listing without an end.
    """
    handle, ahead = await requester.open(Opendir(path), [Readdir(b"")] * _FIRST)
    is_open = True
    flying: deque[Pending] = deque(ahead)
    if not ahead:
        flying.extend(requester.ask(Readdir(handle)) for _ in range(_FIRST))
    try:
        at_end = False
        names = empty = 0
        window = _FIRST
        while flying:
            future = flying.popleft()
            try:
                response = await future
            finally:
                requester.drop(future)
            if isinstance(response, StatusResponse):
                if response.code != Status.EOF and not at_end:
                    if not ahead:
                        raise StatusError(Readdir(handle), response)
                    # Asked before there was the handle, of a server that is not as foretold: what
                    # it read for the next question, perhaps, only another handle gives again.
                    while flying:
                        requester.drop(flying.popleft())
                    requester.dismiss(handle)
                    is_open = False
                    handle, ahead = await requester.open(Opendir(path), ())
                    is_open = True
                    flying.extend(requester.ask(Readdir(handle)) for _ in range(_FIRST))
                    continue
                at_end = True  # what is in flight was answered before, or is EOF too
                continue
            assert isinstance(response, Name)
            ahead = []
            entries = response.entries
            names += len(entries)
            empty += not entries
            if names > _MAX_NAMES or empty > _MAX_EMPTY:
                _log.warning("the server's listing of %r has no end", path)
                raise OSError(errno.EOVERFLOW, os.strerror(errno.EOVERFLOW), path)
            window = min(_MOST, window + 1)
            if not at_end and not (flying and (flying[0].done() or len(entries) <= _FEW)):
                # (What comes next, or is here already, may be the end: nothing is asked in vain.)
                while len(flying) < window:
                    flying.append(requester.ask(Readdir(handle)))
            batch = [
                _new(DirEntry, (filename, attrs))
                for filename, _, attrs in _legal(entries, report_illegal)
                if filename not in _EVERYWHERE
            ]
            if batch:
                yield batch
    finally:
        for future in flying:
            requester.drop(future)
        if is_open:
            requester.dismiss(handle)


def not_yet(given: set[bytes], batch: list[DirEntry]) -> list[DirEntry]:
    """The entries of *batch* whose names were not *given* yet; now they are."""
    names = [name for name, _ in batch]
    known = len(given)
    if given.isdisjoint(names):
        given.update(names)
        if len(given) == known + len(names):
            return batch
        given.difference_update(names)  # the server says one name twice
    fresh = []
    for entry in batch:
        if entry.name not in given:
            given.add(entry.name)
            fresh.append(entry)
    return fresh


def _legal(
    entries: Sequence[NameEntry], report_illegal: Callable[[bytes], None]
) -> Sequence[NameEntry]:
    """The *entries* whose names can be; all at once is looked at first: nearly always all are."""
    names = [filename for filename, _, _ in entries]
    lengths = set(map(len, names))
    if not entries or (0 not in lengths and max(lengths) <= _NAME_MAX and _can_be(b"".join(names))):
        return entries
    legal = []
    for entry in entries:
        name = entry.filename
        if 0 < len(name) <= _NAME_MAX and _can_be(name):
            legal.append(entry)
        else:
            report_illegal(name)
    return legal


def _can_be(text: bytes) -> bool:
    return b"/" not in text and b"\0" not in text
