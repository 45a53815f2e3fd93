"""A process that makes single system calls as any user and says how each ended.

One line of JSON in, one out: ``"ok"``, the errno's name, or a value. Started by conftest; a process
of its own because it changes its identity.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import stat
import sys
from collections.abc import Callable
from typing import Any, Final

AT_FDCWD: Final = -100
LIBC: Final = ctypes.CDLL(None, use_errno=True)


def open_(path: str, flags: int, mode: int = 0o644) -> None:
    os.close(os.open(path, flags, mode))


def create(path: str, mode: int = 0o644) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))


def write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def write_at(path: str, offset: int) -> None:
    """One byte; a write that is refused says so at the latest when it is synced."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        os.pwrite(fd, b"x", offset)
        os.fsync(fd)
    finally:
        os.close(fd)


def read(path: str) -> str:
    with open(path, "rb") as file:
        return file.read(100_000).decode()


def utime(path: str, atime_ns: int, mtime_ns: int) -> None:
    os.utime(path, ns=(atime_ns, mtime_ns))


def utime_now(path: str) -> None:
    os.utime(path)


def lutime(path: str, atime_ns: int, mtime_ns: int) -> None:
    os.utime(path, ns=(atime_ns, mtime_ns), follow_symlinks=False)


class Timespec(ctypes.Structure):
    _fields_ = (("sec", ctypes.c_long), ("nsec", ctypes.c_long))


def utimensat(path: str, atime: list[int], mtime: list[int]) -> None:
    """(seconds, nanoseconds) each; the latter may be UTIME_NOW or UTIME_OMIT."""
    times = (Timespec * 2)(Timespec(*atime), Timespec(*mtime))
    _checked(LIBC.utimensat(AT_FDCWD, os.fsencode(path), times, 0))


def renameat2(old: str, new: str, flags: int) -> None:
    _checked(LIBC.renameat2(AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags))


def _checked(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), "")


def facts(path: str) -> dict[str, int | str]:
    """lstat as a dictionary."""
    found = os.lstat(path)
    return {
        "type": chr(ord(stat.filemode(found.st_mode)[0])),
        "mode": stat.S_IMODE(found.st_mode),
        "uid": found.st_uid,
        "gid": found.st_gid,
        "size": found.st_size,
        "nlink": found.st_nlink,
        "atime": int(found.st_atime),
        "mtime": int(found.st_mtime),
        "ino": found.st_ino,
    }


def stat_(path: str) -> None:
    os.stat(path)


def umask(mask: int) -> None:
    os.umask(mask)


def access(path: str, mode: int) -> bool:
    return os.access(path, mode, effective_ids=True)


CALLS: Final[dict[str, Callable[..., Any]]] = {
    "access": access,
    "chmod": os.chmod,
    "chown": os.chown,
    "create": create,
    "facts": facts,
    "lchown": os.lchown,
    "link": lambda old, new: os.link(old, new, follow_symlinks=False),
    "listdir": os.listdir,
    "lutime": lutime,
    "mkdir": os.mkdir,
    "mknod": os.mknod,
    "open": open_,
    "read": read,
    "readlink": os.readlink,
    "rename": os.rename,
    "renameat2": renameat2,
    "rmdir": os.rmdir,
    "stat": stat_,
    "symlink": os.symlink,
    "truncate": os.truncate,
    "umask": umask,
    "unlink": os.unlink,
    "utime": utime,
    "utime_now": utime_now,
    "utimensat": utimensat,
    "write": write,
    "write_at": write_at,
}


def serve() -> None:
    """Answer until standard input ends."""
    os.umask(0)
    for line in sys.stdin:
        uid, gid, groups, call, arguments = json.loads(line)
        os.setgroups(groups)
        os.setresgid(gid, gid, 0)
        os.setresuid(uid, uid, 0)
        try:
            value = CALLS[call](*arguments)
            answer = "ok" if value is None else value
        except OSError as error:
            answer = errno.errorcode[error.errno or 0]
        finally:
            os.setresuid(0, 0, 0)
            os.setresgid(0, 0, 0)
        with contextlib.suppress(BrokenPipeError):  # the test is over
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve()
