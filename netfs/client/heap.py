"""How malloc(3) treats the buffers that bytes pass through, a quarter of a megabyte each.

By default glibc gives the top of the heap back to the system as soon as half a megabyte of it is
free, and takes it again for the next buffer: a page fault for each 4 KiB that is read, a fifth of
the processor's time of a big read.
"""

from __future__ import annotations

import ctypes
from typing import Final

# Source: malloc.h of glibc
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3

_KEPT: Final = 16 * 1024 * 1024
"""Free bytes at the top of the heap that stay: what is under way on a fast link."""

_MAPPED: Final = 2 * 1024 * 1024
"""From this size (bytes) on a buffer is a mapping of its own; none that is used all the time is."""


def keep_buffers() -> bool:
    """Have freed buffers used again; False where malloc can't be told (another libc)."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _MAPPED)) and bool(mallopt(_M_TRIM_THRESHOLD, _KEPT))
