"""What SFTP v3 on a stock OpenSSH server forces to differ from a local filesystem, and why.

The tests assert the documented outcome on the mount, so that this list is neither too long nor too
short.
"""

from __future__ import annotations

from typing import Final

FORCED: Final[dict[str, str]] = {
    "mknod: fifo, socket, device": "SFTP has no request that makes one: EPERM",
    "rename: RENAME_EXCHANGE, RENAME_WHITEOUT": "no such request, and no safe emulation: EINVAL",
    "stat: nlink": "only listings tell it: 1 for what was not listed and not linked here",
    "stat: st_ino of hard links": "no inode numbers in SFTP v3",
    "stat: ctime": "SFTP v3 has none: the mtime is shown, which chmod and chown do not move on",
    "paths: more than 4,095 bytes": "SFTP has absolute paths only: ENAMETOOLONG",
    "utimensat: nanoseconds": "times are 32-bit seconds: the fraction is cut off",
    "utimensat: before 1970, after 2106": "times are unsigned 32-bit seconds",
    "open: O_TMPFILE": "no nameless files: EOPNOTSUPP",
    "access time": "reads served from memory do not reach the server",
    "xattr": "no such request: EOPNOTSUPP",
}
"""Case -> reason."""
