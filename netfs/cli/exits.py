"""Exit codes: one for each cause that a user meets.  Help, docs and man pages list this table."""

from __future__ import annotations

import enum
from typing import Final


class Exit(enum.IntEnum):
    """What ``netfs`` ends with."""

    OK = 0
    FAILED = 1
    USAGE = 2
    HOST_UNKNOWN = 10
    REFUSED = 11
    UNREACHABLE = 12
    TIMED_OUT = 13
    HOST_KEY_UNKNOWN = 14
    HOST_KEY_CHANGED = 15
    HOST_KEY_REVOKED = 16
    AUTH_FAILED = 17
    KEY_UNREADABLE = 18
    NO_SFTP = 19
    PROTOCOL = 20
    PROXY_FAILED = 21
    LOST = 22
    NO_ALGORITHM = 23
    BAD_CONFIG = 24
    NO_REMOTE_DIRECTORY = 30
    REMOTE_NOT_DIRECTORY = 31
    REMOTE_DENIED = 32
    NO_MOUNTPOINT = 40
    MOUNTPOINT_NOT_DIRECTORY = 41
    NOT_PERMITTED = 42
    NO_FUSE = 43
    NO_FUSERMOUNT = 44
    MOUNT_FAILED = 45
    SELF_DEADLOCK = 46
    NOT_MOUNTED = 50
    BUSY = 51
    UNHEALTHY = 52
    GAVE_UP = 53
    LINK_LOST = 54
    REMOUNT = 75
    INTERRUPTED = 130


MEANING: Final = {
    Exit.OK: "done; for a mount: it answers",
    Exit.FAILED: "another failure; the message says which",
    Exit.USAGE: "unknown option, malformed source or value",
    Exit.HOST_UNKNOWN: "the host's name is unknown",
    Exit.REFUSED: "the connection was refused: nobody listens there",
    Exit.UNREACHABLE: "there is no way to the host",
    Exit.TIMED_OUT: "the server did not answer in time",
    Exit.HOST_KEY_UNKNOWN: "the host key is unknown and was not accepted",
    Exit.HOST_KEY_CHANGED: "the host key has changed",
    Exit.HOST_KEY_REVOKED: "the host key is revoked",
    Exit.AUTH_FAILED: "authentication failed",
    Exit.KEY_UNREADABLE: "a key file can't be used",
    Exit.NO_SFTP: "the server offers no SFTP",
    Exit.PROTOCOL: "what answers does not speak the protocol",
    Exit.PROXY_FAILED: "ProxyJump, ProxyCommand or ssh_command failed",
    Exit.LOST: "the connection was closed while it was made",
    Exit.NO_ALGORITHM: "no cipher, key exchange or key type in common",
    Exit.BAD_CONFIG: "ssh_config or an ssh keyword can't be understood",
    Exit.NO_REMOTE_DIRECTORY: "there is no such remote directory",
    Exit.REMOTE_NOT_DIRECTORY: "the remote path is not a directory",
    Exit.REMOTE_DENIED: "the remote directory may not be used",
    Exit.NO_MOUNTPOINT: "there is no such mountpoint",
    Exit.MOUNTPOINT_NOT_DIRECTORY: "the mountpoint is not a directory",
    Exit.NOT_PERMITTED: "mounting there is not permitted",
    Exit.NO_FUSE: "/dev/fuse is missing or may not be opened",
    Exit.NO_FUSERMOUNT: "fusermount3 is missing",
    Exit.MOUNT_FAILED: "the kernel refused the mount",
    Exit.SELF_DEADLOCK: "a log, key, socket or the working directory is below the mountpoint",
    Exit.NOT_MOUNTED: "no netfs is mounted there",
    Exit.BUSY: "the mount is in use",
    Exit.UNHEALTHY: "status --check: the mount does not answer or its link is down",
    Exit.GAVE_UP: "the worker died too often; the supervisor gave up",
    Exit.LINK_LOST: "the link was lost (noreconnect)",
    Exit.REMOUNT: "between worker and supervisor: mount again",
    Exit.INTERRUPTED: "ended by Ctrl-C or a signal before it was mounted",
}

MOUNT_USAGE: Final = 1
MOUNT_SYSTEM: Final = 2
MOUNT_BUG: Final = 4
MOUNT_INTERRUPTED: Final = 8
MOUNT_FAILURE: Final = 32
"""Source: mount(8), EXIT STATUS."""


def for_mount(code: int) -> int:
    """*code* of netfs as mount(8) knows exit codes."""
    match code:
        case Exit.OK:
            return 0
        case Exit.USAGE:
            return MOUNT_USAGE
        case Exit.NO_FUSE | Exit.NO_FUSERMOUNT:
            return MOUNT_SYSTEM
        case Exit.INTERRUPTED:
            return MOUNT_INTERRUPTED
        case _:
            return MOUNT_FAILURE
