"""What the file system says of a file, in SFTP's words: ATTRS and the lines of a listing."""

from __future__ import annotations

import grp
import os
import pwd
import stat
import time
from collections.abc import Iterator
from typing import Final, NamedTuple

from netfs.sftp.attrs import Attrs, StatVfs

_U32_MAX: Final = 0xFFFF_FFFF
_U64_MAX: Final = 0xFFFF_FFFF_FFFF_FFFF

_MONTHS: Final = b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
_HALF_A_YEAR_S: Final = 182 * 86400

_RDONLY: Final = 1  # OpenSSH PROTOCOL §4.4: SSH2_FXE_STATVFS_ST_RDONLY
_NOSUID: Final = 2


class Entry(NamedTuple):
    """One name of a directory and what lstat(2) says of it."""

    name: bytes
    st: os.stat_result


def from_stat(st: os.stat_result, device: int) -> Attrs:
    """Every field of ATTRS, the ones of attrs@netfs too.

    Args:
        device: st_dev of the export's root.  Files of other devices (mounts below it) get an
            inode number of their own: a client has no device number to tell them apart.
    """
    mode, ino, dev, nlink, uid, gid, size = st[:7]
    atime_ns = st.st_atime_ns
    mtime_ns = st.st_mtime_ns
    atime = atime_ns // 1_000_000_000
    mtime = mtime_ns // 1_000_000_000
    if dev != device:
        ino ^= _spread(dev)
    if not (0 <= atime <= _U32_MAX and 0 <= mtime <= _U32_MAX):
        # Before 1970 or after 2106: the nearest that 32 bits can say.
        atime = min(max(atime, 0), _U32_MAX)
        mtime = min(max(mtime, 0), _U32_MAX)
    return Attrs(
        size, uid, gid, mode, atime, mtime,
        nlink, ino, st.st_blocks, atime_ns, mtime_ns, st.st_ctime_ns,
    )  # fmt: skip


def _spread(dev: int) -> int:
    """A device number over 64 bits (multiplication by 2**64 divided by the golden ratio)."""
    return (dev + 1) * 0x9E37_79B9_7F4A_7C15 & _U64_MAX


def from_statvfs(st: os.statvfs_result) -> StatVfs:
    """statvfs@openssh.com's numbers."""
    flag = (_RDONLY if st.f_flag & os.ST_RDONLY else 0) | (
        _NOSUID if st.f_flag & os.ST_NOSUID else 0
    )
    return StatVfs(
        st.f_bsize, st.f_frsize, st.f_blocks, st.f_bfree, st.f_bavail,
        st.f_files, st.f_ffree, st.f_favail, st.f_fsid & _U64_MAX, flag, st.f_namemax,
    )  # fmt: skip


def scan(fd: int) -> Iterator[Entry]:
    """The names of the directory that *fd* is open on, ``.`` and ``..`` first.

    Names that vanish before they are looked at are left out.  Raises OSError as readdir(3).
    """
    # "..", which may lie outside, is described as the directory itself; clients want the name.
    here = os.fstat(fd)
    yield Entry(b".", here)
    yield Entry(b"..", here)
    with os.scandir(fd) as found:
        for entry in found:
            try:
                st = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            yield Entry(os.fsencode(entry.name), st)


class Names:
    """Names of users and groups, remembered (a look-up may ask a server elsewhere)."""

    __slots__ = ("_groups", "_users")

    def __init__(self) -> None:
        self._users: dict[int, bytes] = {}
        self._groups: dict[int, bytes] = {}

    def user(self, uid: int) -> bytes:
        """The user's name, b"" if there is none."""
        name = self._users.get(uid)
        if name is None:
            try:
                name = os.fsencode(pwd.getpwuid(uid).pw_name)
            except (KeyError, OverflowError):
                name = b""
            _bounded(self._users)[uid] = name
        return name

    def group(self, gid: int) -> bytes:
        """The group's name, b"" if there is none."""
        name = self._groups.get(gid)
        if name is None:
            try:
                name = os.fsencode(grp.getgrgid(gid).gr_name)
            except (KeyError, OverflowError):
                name = b""
            _bounded(self._groups)[gid] = name
        return name


def _bounded(names: dict[int, bytes]) -> dict[int, bytes]:
    if len(names) >= 4096:  # a client may ask for any number of ids
        names.clear()
    return names


def longname(entry: Entry, names: Names, now: float) -> bytes:
    """The line that ``ls -l`` shows, in OpenSSH's form, which clients parse.

    Args:
        now: seconds since the epoch; older files than half a year show the year.
    """
    st = entry.st
    mode, _, _, nlink, uid, gid, size, _, mtime, _ = st
    try:
        when = time.localtime(mtime)
    except (OverflowError, ValueError, OSError):
        when = time.localtime(0)  # a time that the C library cannot print
    month = _MONTHS[when.tm_mon - 1]
    if now - _HALF_A_YEAR_S <= mtime <= now + 3600:
        date = b"%s %2d %02d:%02d" % (month, when.tm_mday, when.tm_hour, when.tm_min)
    else:
        date = b"%s %2d %5d" % (month, when.tm_mday, when.tm_year)
    return b"%s %4d %-8s %-8s %8d %s %s" % (
        stat.filemode(mode).encode(),
        nlink,
        names.user(uid) or b"%d" % uid,
        names.group(gid) or b"%d" % gid,
        size,
        date,
        entry.name,
    )
