"""What can be wrong with a mount, in one line for the user.

The exit codes belong to netfs.cli.
"""

from __future__ import annotations

import enum
from typing import Final

DEVICE: Final = "/dev/fuse"


class MountErrorKind(enum.Enum):
    """What is wrong, for the exit code."""

    MISSING = "the mountpoint does not exist"
    NOT_A_DIRECTORY = "the mountpoint is not a directory"
    NOT_PERMITTED = "the user may not mount there"
    IN_USE = "something else is mounted there, or it hangs"
    NO_DEVICE = "/dev/fuse can't be used"
    NO_HELPER = "fusermount3 is missing"
    REFUSED = "the kernel or fusermount3 refuses for another reason"


class MountError(Exception):
    """One line for the user, with the cause and the way out."""

    def __init__(self, kind: MountErrorKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
