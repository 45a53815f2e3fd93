"""The numbers of SFTP v3: packet types, statuses, open flags, attribute flags.

Source: draft-ietf-secsh-filexfer-02.  No behaviour belongs here.
"""

from __future__ import annotations

import enum
from typing import Final

VERSION: Final = 3
"""The only version spoken: what OpenSSH offers.  Source: §4."""


class PacketType(enum.IntEnum):
    """First byte of each packet.  Source: §3."""

    INIT = 1
    VERSION = 2
    OPEN = 3
    CLOSE = 4
    READ = 5
    WRITE = 6
    LSTAT = 7
    FSTAT = 8
    SETSTAT = 9
    FSETSTAT = 10
    OPENDIR = 11
    READDIR = 12
    REMOVE = 13
    MKDIR = 14
    RMDIR = 15
    REALPATH = 16
    STAT = 17
    RENAME = 18
    READLINK = 19
    SYMLINK = 20
    STATUS = 101
    HANDLE = 102
    DATA = 103
    NAME = 104
    ATTRS = 105
    EXTENDED = 200
    EXTENDED_REPLY = 201


class Status(enum.IntEnum):
    """The code of a STATUS response.  Source: §7."""

    OK = 0
    EOF = 1
    NO_SUCH_FILE = 2
    PERMISSION_DENIED = 3
    FAILURE = 4
    BAD_MESSAGE = 5
    NO_CONNECTION = 6
    CONNECTION_LOST = 7
    OP_UNSUPPORTED = 8


class OpenFlag(enum.IntFlag):
    """``pflags`` of OPEN.  Source: §6.3."""

    READ = 0x01
    WRITE = 0x02
    APPEND = 0x04
    CREAT = 0x08
    TRUNC = 0x10
    EXCL = 0x20


class AttrFlag(enum.IntFlag):
    """Which fields ATTRS carries.  Source: §5."""

    SIZE = 0x0000_0001
    UIDGID = 0x0000_0002
    PERMISSIONS = 0x0000_0004
    ACMODTIME = 0x0000_0008
    EXTENDED = 0x8000_0000
