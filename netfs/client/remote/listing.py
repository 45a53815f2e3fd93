"""Reads a whole directory with several READDIRs in flight, and refuses names that can't be."""

from __future__ import annotations

import errno
import logging
import os
from collections import deque
from collections.abc import AsyncGenerator, Callable
from typing import Final

from netfs.client.remote.api import DirEntry
from netfs.client.remote.requester import Pending, Requester, StatusError
from netfs.sftp.attrs import Attrs
from netfs.sftp.codes import Status
from netfs.sftp.requests import Opendir, Readdir
from netfs.sftp.responses import Handle, Name, NameEntry, StatusResponse, longname_nlink

_log = logging.getLogger(__name__)

_FIRST: Final = 2
"""READDIRs sent with the handle's arrival: most directories fit into one, the second says EOF."""
_MOST: Final = 32
"""READDIRs in flight; OpenSSH answers each with 100 names at most, so 3,200 names per round
trip."""
_MAX_NAMES: Final = 8_000_000
_MAX_EMPTY: Final = 100
"""Names and empty answers after which a listing counts as endless.  The largest directories in
use have some million names; a server needs no empty answers at all."""
_NAME_MAX: Final = 255  # bytes.  Source: linux/limits.h


async def scan(
    requester: Requester, path: bytes, report_illegal: Callable[[bytes], None]
) -> AsyncGenerator[list[DirEntry], None]:
    """The entries of *path* in batches.

    Raises:
        StatusError, Disconnected
        OSError: EOVERFLOW for a listing without an end.
    """
    opened = await requester.call(Opendir(path))
    assert isinstance(opened, Handle)
    handle = opened.handle
    flying: deque[Pending] = deque(requester.ask(Readdir(handle)) for _ in range(_FIRST))
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
                    raise StatusError(Readdir(handle), response)
                at_end = True  # what is in flight was answered before, or is EOF too
                continue
            assert isinstance(response, Name)
            names += len(response.entries)
            empty += not response.entries
            if names > _MAX_NAMES or empty > _MAX_EMPTY:
                _log.warning("the server's listing of %r has no end", path)
                raise OSError(errno.EOVERFLOW, os.strerror(errno.EOVERFLOW), path)
            window = min(_MOST, window + 1)
            if not at_end and not (flying and flying[0].done()):
                # (An answer that is here already may be the end: then nothing more is asked.)
                while len(flying) < window:
                    flying.append(requester.ask(Readdir(handle)))
            batch = [_entry(e) for e in response.entries if _is_legal(e.filename, report_illegal)]
            if batch:
                yield batch
    finally:
        for future in flying:
            requester.drop(future)
        requester.dismiss(handle)


def _entry(entry: NameEntry) -> DirEntry:
    filename, longname, attrs = entry
    if attrs.nlink is None:
        nlink = longname_nlink(longname)
        if nlink is not None:
            attrs = Attrs(*attrs[:6], nlink, *attrs[7:])  # as _replace, at a third of its time
    return DirEntry(filename, attrs)


def _is_legal(name: bytes, report_illegal: Callable[[bytes], None]) -> bool:
    """Whether a name may appear; '.' and '..' are left out in silence: every server sends them."""
    if name in (b".", b".."):
        return False
    if not name or len(name) > _NAME_MAX or b"/" in name or b"\0" in name:
        report_illegal(name)
        return False
    return True
