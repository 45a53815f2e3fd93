"""How asyncssh finds the optional shared libraries that it uses where they are (nettle, liboqs).

It asks ctypes.util.find_library for each of their names when it is imported, and that runs
ldconfig, gcc and ld: 50 ms of each start with a compiler at hand, more from a cold disk.  The
dynamic loader's cache knows the same.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

LOADER_CACHE: Final = Path("/etc/ld.so.cache")


@contextmanager
def found_in_loader_cache() -> Iterator[None]:
    """For the import of asyncssh, directly or not."""
    replaced = ctypes.util.find_library
    ctypes.util.find_library = find_library
    try:
        yield
    finally:
        ctypes.util.find_library = replaced


def find_library(name: str) -> str | None:
    """As ``ctypes.util.find_library``: the soname of a library that can be loaded."""
    if os.environ.get("LD_LIBRARY_PATH"):
        return _search(name)  # the cache does not know what is there
    try:
        cache = LOADER_CACHE.read_bytes()
    except OSError:
        return _search(name)  # another libc than glibc
    # A name, or the end of a path: glibc keeps what both have in common once.
    versions = re.findall(rb"[\0/]lib%s\.so((?:\.\d+)*)\0" % re.escape(name.encode()), cache)
    if not versions:
        return None
    newest = max(versions, key=lambda version: [int(part) for part in version.split(b".")[1:]])
    soname = f"lib{name}.so{newest.decode()}"
    try:
        ctypes.CDLL(soname)
    except OSError:
        return None  # of another architecture only
    return soname


_search = ctypes.util.find_library
