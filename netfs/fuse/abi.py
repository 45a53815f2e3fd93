"""The kernel's numbers and layouts: opcodes, flags and one Struct per message body.

Source: linux/fuse.h (protocol 7.31 to 7.45, little-endian machines and big ones alike: native byte
order).  No behaviour belongs here.
"""

from __future__ import annotations

import enum
import struct
from typing import Final

MAJOR: Final = 7
MINOR_MIN: Final = 31  # Linux 5.4; 5.10, the oldest supported kernel, speaks 32
MINOR_MAX: Final = 45  # Linux 6.18

ROOT_ID: Final = 1
PAGE_SIZE: Final = 4096
NAME_MAX: Final = 255  # the kernel passes longer names (1024, or 4095 since 6.14)
RESENT: Final = 1 << 63  # bit of ``unique``: sent again after NOTIFY_RESEND
INTERRUPT_BIT: Final = 1  # bit of ``unique``: the INTERRUPT message of that request


class Opcode(enum.IntEnum):
    """enum fuse_opcode."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    SETXATTR = 21
    GETXATTR = 22
    LISTXATTR = 23
    REMOVEXATTR = 24
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    GETLK = 31
    SETLK = 32
    SETLKW = 33
    ACCESS = 34
    CREATE = 35
    INTERRUPT = 36
    BMAP = 37
    DESTROY = 38
    IOCTL = 39
    POLL = 40
    NOTIFY_REPLY = 41
    BATCH_FORGET = 42
    FALLOCATE = 43
    READDIRPLUS = 44
    RENAME2 = 45
    LSEEK = 46
    COPY_FILE_RANGE = 47
    SETUPMAPPING = 48
    REMOVEMAPPING = 49
    SYNCFS = 50
    TMPFILE = 51
    STATX = 52
    COPY_FILE_RANGE_64 = 53


class InitFlag(enum.IntFlag):
    """FUSE_* capabilities of INIT; bits above 31 travel in ``flags2``."""

    ASYNC_READ = 1 << 0
    POSIX_LOCKS = 1 << 1
    FILE_OPS = 1 << 2
    ATOMIC_O_TRUNC = 1 << 3
    EXPORT_SUPPORT = 1 << 4
    BIG_WRITES = 1 << 5
    DONT_MASK = 1 << 6
    SPLICE_WRITE = 1 << 7
    SPLICE_MOVE = 1 << 8
    SPLICE_READ = 1 << 9
    FLOCK_LOCKS = 1 << 10
    HAS_IOCTL_DIR = 1 << 11
    AUTO_INVAL_DATA = 1 << 12
    DO_READDIRPLUS = 1 << 13
    READDIRPLUS_AUTO = 1 << 14
    ASYNC_DIO = 1 << 15
    WRITEBACK_CACHE = 1 << 16
    NO_OPEN_SUPPORT = 1 << 17
    PARALLEL_DIROPS = 1 << 18
    HANDLE_KILLPRIV = 1 << 19
    POSIX_ACL = 1 << 20
    ABORT_ERROR = 1 << 21
    MAX_PAGES = 1 << 22
    CACHE_SYMLINKS = 1 << 23
    NO_OPENDIR_SUPPORT = 1 << 24
    EXPLICIT_INVAL_DATA = 1 << 25
    MAP_ALIGNMENT = 1 << 26
    SUBMOUNTS = 1 << 27
    HANDLE_KILLPRIV_V2 = 1 << 28
    SETXATTR_EXT = 1 << 29
    INIT_EXT = 1 << 30
    INIT_RESERVED = 1 << 31
    SECURITY_CTX = 1 << 32
    HAS_INODE_DAX = 1 << 33
    CREATE_SUPP_GROUP = 1 << 34
    HAS_EXPIRE_ONLY = 1 << 35
    DIRECT_IO_ALLOW_MMAP = 1 << 36
    PASSTHROUGH = 1 << 37
    NO_EXPORT_SUPPORT = 1 << 38
    HAS_RESEND = 1 << 39
    ALLOW_IDMAP = 1 << 40
    OVER_IO_URING = 1 << 41
    REQUEST_TIMEOUT = 1 << 42


# Reply bits of OPEN, CREATE and OPENDIR.
FOPEN_DIRECT_IO: Final = 1 << 0
FOPEN_KEEP_CACHE: Final = 1 << 1
FOPEN_NONSEEKABLE: Final = 1 << 2
FOPEN_CACHE_DIR: Final = 1 << 3
FOPEN_STREAM: Final = 1 << 4
FOPEN_NOFLUSH: Final = 1 << 5  # 7.35
FOPEN_PARALLEL_DIRECT_WRITES: Final = 1 << 6  # 7.38
FOPEN_PASSTHROUGH: Final = 1 << 7  # 7.40

# Request bits.
GETATTR_FH: Final = 1 << 0
OPEN_KILL_SUIDGID: Final = 1 << 0
WRITE_CACHE: Final = 1 << 0
WRITE_LOCKOWNER: Final = 1 << 1
WRITE_KILL_SUIDGID: Final = 1 << 2
RELEASE_FLUSH: Final = 1 << 0
RELEASE_FLOCK_UNLOCK: Final = 1 << 1
FSYNC_FDATASYNC: Final = 1 << 0

# ``valid`` of SETATTR.
FATTR_MODE: Final = 1 << 0
FATTR_UID: Final = 1 << 1
FATTR_GID: Final = 1 << 2
FATTR_SIZE: Final = 1 << 3
FATTR_ATIME: Final = 1 << 4
FATTR_MTIME: Final = 1 << 5
FATTR_FH: Final = 1 << 6
FATTR_ATIME_NOW: Final = 1 << 7
FATTR_MTIME_NOW: Final = 1 << 8
FATTR_LOCKOWNER: Final = 1 << 9
FATTR_CTIME: Final = 1 << 10
FATTR_KILL_SUIDGID: Final = 1 << 11

# Flags of RENAME2, from linux/fs.h.
RENAME_NOREPLACE: Final = 1 << 0
RENAME_EXCHANGE: Final = 1 << 1
RENAME_WHITEOUT: Final = 1 << 2

# ``error`` of a notification.  Source: enum fuse_notify_code.
NOTIFY_INVAL_INODE: Final = 2
NOTIFY_INVAL_ENTRY: Final = 3
NOTIFY_INC_EPOCH: Final = 8  # 7.44
NOTIFY_PRUNE: Final = 9  # 7.45
EXPIRE_ONLY: Final = 1 << 0  # flag of NOTIFY_INVAL_ENTRY, 7.38

# Bodies of requests ("_in") and replies ("_out"), after the headers.  "=" keeps the kernel's own
# byte order without padding: every struct of linux/fuse.h is padded by hand.
IN_HEADER: Final = struct.Struct("=IIQQIIIHH")
OUT_HEADER: Final = struct.Struct("=IiQ")

ATTR_FORMAT: Final = "3Q3q10I"  # struct fuse_attr; times are s64 in all but the declaration
ENTRY_OUT: Final = struct.Struct("=4Q2I" + ATTR_FORMAT)
ATTR_OUT: Final = struct.Struct("=QII" + ATTR_FORMAT)
OPEN_OUT: Final = struct.Struct("=QIi")
WRITE_OUT: Final = struct.Struct("=II")
STATFS_OUT: Final = struct.Struct("=5Q4I6I")
LSEEK_OUT: Final = struct.Struct("=Q")
INIT_OUT: Final = struct.Struct("=IIIIHHIIHHIIH11H")
STATX_OUT: Final = struct.Struct("=QII2Q" + "IIQIIIHHQQQQqIiqIiqIiqIiIIII14Q")

FORGET_IN: Final = struct.Struct("=Q")
BATCH_FORGET_IN: Final = struct.Struct("=II")
FORGET_ONE: Final = struct.Struct("=QQ")
GETATTR_IN: Final = struct.Struct("=IIQ")
SETATTR_IN: Final = struct.Struct("=IIQQQqqqIIIIIIII")
MKNOD_IN: Final = struct.Struct("=IIII")
MKDIR_IN: Final = struct.Struct("=II")
RENAME_IN: Final = struct.Struct("=Q")
RENAME2_IN: Final = struct.Struct("=QII")
LINK_IN: Final = struct.Struct("=Q")
OPEN_IN: Final = struct.Struct("=II")
CREATE_IN: Final = struct.Struct("=IIII")
READ_IN: Final = struct.Struct("=QQIIQII")
WRITE_IN: Final = struct.Struct("=QQIIQII")
RELEASE_IN: Final = struct.Struct("=QIIQ")
FSYNC_IN: Final = struct.Struct("=QII")
FLUSH_IN: Final = struct.Struct("=QIIQ")
INIT_IN: Final = struct.Struct("=IIII")  # up to 7.35; longer since, see INIT_IN_EXT
INIT_IN_EXT: Final = struct.Struct("=IIIII11I")
ACCESS_IN: Final = struct.Struct("=II")
INTERRUPT_IN: Final = struct.Struct("=Q")
FALLOCATE_IN: Final = struct.Struct("=QQQII")
LSEEK_IN: Final = struct.Struct("=QQII")
COPY_FILE_RANGE_IN: Final = struct.Struct("=7Q")
STATX_IN: Final = struct.Struct("=IIQII")

DIRENT: Final = struct.Struct("=QQII")
DIRENTPLUS: Final = struct.Struct("=4Q2I" + ATTR_FORMAT + "QQII")  # an ENTRY_OUT and a DIRENT
NOTIFY_INVAL_INODE_OUT: Final = struct.Struct("=Qqq")
NOTIFY_INVAL_ENTRY_OUT: Final = struct.Struct("=QII")
NOTIFY_PRUNE_OUT: Final = struct.Struct("=IIQ")
