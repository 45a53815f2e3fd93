"""Opcodes that are refused on purpose: with which errno, and why.

ENOSYS is not an error here: for most opcodes it tells the kernel never to ask again on this
connection and what to do instead, which saves a round trip each time.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Final, NamedTuple

from netfs.fuse.abi import Opcode


class Refusal(NamedTuple):
    """How an opcode is refused."""

    errno: int
    reason: str


REFUSED: Final[Mapping[Opcode, Refusal]] = {
    Opcode.SETXATTR: Refusal(errno.ENOSYS, "SFTP v3 has no extended attributes: EOPNOTSUPP"),
    Opcode.GETXATTR: Refusal(
        errno.ENOSYS, "as SETXATTR; else each write would ask for security.capability"
    ),
    Opcode.LISTXATTR: Refusal(errno.ENOSYS, "as SETXATTR"),
    Opcode.REMOVEXATTR: Refusal(errno.ENOSYS, "as SETXATTR"),
    Opcode.FSYNCDIR: Refusal(
        errno.ENOSYS, "changes of names are sent at once, so the kernel may always succeed"
    ),
    Opcode.GETLK: Refusal(errno.ENOSYS, "not asked for in INIT: locks are the kernel's, local"),
    Opcode.SETLK: Refusal(errno.ENOSYS, "as GETLK"),
    Opcode.SETLKW: Refusal(errno.ENOSYS, "as GETLK"),
    Opcode.BMAP: Refusal(errno.ENOSYS, "only block devices have blocks to map"),
    Opcode.IOCTL: Refusal(errno.ENOSYS, "SFTP has no ioctls: the caller gets ENOTTY"),
    Opcode.POLL: Refusal(errno.ENOSYS, "regular files are always ready, and then never asked"),
    Opcode.SETUPMAPPING: Refusal(errno.ENOSYS, "DAX of virtiofs only"),
    Opcode.REMOVEMAPPING: Refusal(errno.ENOSYS, "DAX of virtiofs only"),
    Opcode.SYNCFS: Refusal(errno.ENOSYS, "virtiofs only: sync(2) never asks others"),
    Opcode.TMPFILE: Refusal(
        errno.ENOSYS, "SFTP has no files without a name: EOPNOTSUPP, and callers use mkstemp"
    ),
    Opcode.COPY_FILE_RANGE_64: Refusal(errno.ENOSYS, "the kernel falls back to COPY_FILE_RANGE"),
}
