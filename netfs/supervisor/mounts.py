"""The mount table and unmounting, without ever touching what is mounted."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

MOUNTINFO: Final = "/proc/self/mountinfo"

_MNT_FORCE: Final = 1
_MNT_DETACH: Final = 2
_UMOUNT_NOFOLLOW: Final = 8
"""Source: umount2(2)."""

_HELPER_TIMEOUT_S: Final = 10.0


class Mount(NamedTuple):
    """One line of mountinfo.  Source: proc(5)."""

    id: int
    major: int
    minor: int  # of the st_dev of what is mounted; names its directory in fusectl
    point: str
    type: str
    source: str
    options: tuple[str, ...]
    super_options: tuple[str, ...]

    @property
    def is_fuse(self) -> bool:
        return self.type == "fuse" or self.type.startswith("fuse.")


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def parse(lines: Iterable[str]) -> Iterator[Mount]:
    """Read mountinfo; lines of another shape are left out."""
    for line in lines:
        before, separator, after = line.rstrip("\n").partition(" - ")
        left, right = before.split(" "), after.split(" ")
        if not separator or len(left) < 6 or len(right) < 2:
            continue
        major, _, minor = left[2].partition(":")
        yield Mount(
            int(left[0]),
            int(major),
            int(minor),
            _unescape(left[4]),
            right[0],
            _unescape(right[1]),
            tuple(left[5].split(",")),
            tuple(right[2].split(",")) if len(right) > 2 else (),
        )


def table() -> list[Mount]:
    """All mounts of this mount namespace, in the order they were made."""
    with open(MOUNTINFO, encoding="utf-8", errors="surrogateescape") as file:
        return list(parse(file))


def find(point: str) -> Mount | None:
    """What is mounted at *point* (the topmost), or None."""
    found = [mount for mount in table() if mount.point == point]
    return found[-1] if found else None


def is_below(path: str, point: str) -> bool:
    """Whether *path* is *point* or inside it, by their texts."""
    return os.path.commonpath([os.path.abspath(path), point]) == point


def umount(point: str, *, lazy: bool = False, force: bool = False) -> None:
    """Unmount as root by umount2(2), else by fusermount3.

    Raises:
        OSError: EBUSY while in use, EINVAL when nothing is mounted there, EPERM ...
    """
    flags = _UMOUNT_NOFOLLOW | (_MNT_DETACH if lazy else 0) | (_MNT_FORCE if force else 0)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.umount2(os.fsencode(point), flags) == 0:
        return
    error = ctypes.get_errno()
    if error != errno.EPERM:
        raise OSError(error, os.strerror(error), point)
    _fusermount(point, lazy=lazy)


def _fusermount(point: str, *, lazy: bool) -> None:
    program = shutil.which("fusermount3", path=os.environ.get("PATH", os.defpath))
    if program is None:
        raise OSError(errno.EPERM, "not permitted, and fusermount3 is missing", point)
    try:
        done = subprocess.run(
            [program, "-u", *(["-z"] if lazy else []), "--", point],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=_HELPER_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise OSError(errno.ETIMEDOUT, "fusermount3 does not end", point) from None
    if done.returncode != 0:
        text = done.stderr.decode(errors="replace").strip()
        code = errno.EBUSY if "busy" in text.lower() else errno.EPERM
        raise OSError(code, text or os.strerror(code), point)


def detach(point: str, minor: int) -> bool:
    """Take the FUSE mount of device *minor* away from *point*, lazily; whether it is gone.

    What else is mounted there stays: it is somebody else's.
    """
    for _ in range(8):  # mounts may be stacked, but not endlessly
        mount = find(point)
        if mount is None or not mount.is_fuse or mount.minor != minor:
            return True
        try:
            umount(point, lazy=True)
        except OSError as error:
            if error.errno != errno.EINVAL:  # gone between looking and unmounting
                return False
    return False
