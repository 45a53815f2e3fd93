"""What a client is told when a system call fails: errno → status and message, for every errno.

The messages are distinct and end in the errno's name, ``No space left on device (ENOSPC)``, because
SFTP v3 has one FAILURE for nearly all of them and a client can tell them apart only so.  A path
never appears in a message: the client knows it, and the server's own is none of its business.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from typing import Final

from netfs.sftp.codes import Status
from netfs.sftp.responses import StatusResponse

_STATUSES: Final[Mapping[int, Status]] = {
    errno.ENOENT: Status.NO_SUCH_FILE,
    # A component that is no directory, a loop of links: there is nothing under that name.
    errno.ENOTDIR: Status.NO_SUCH_FILE,
    errno.ELOOP: Status.NO_SUCH_FILE,
    errno.EACCES: Status.PERMISSION_DENIED,
    errno.EPERM: Status.PERMISSION_DENIED,
    # Clients take PERMISSION_DENIED for "do not try again", which is right here.
    errno.EROFS: Status.PERMISSION_DENIED,
    errno.ENOSYS: Status.OP_UNSUPPORTED,
    errno.EOPNOTSUPP: Status.OP_UNSUPPORTED,
}
"""All others are FAILURE.  Clients take BAD_MESSAGE for a broken conversation, so that EINVAL and
ENAMETOOLONG, for which OpenSSH sends it, are FAILURE here."""

_NAMES: Final = {**errno.errorcode, errno.EOPNOTSUPP: "EOPNOTSUPP"}
"""Linux has two names for that one; this is the one that its manual pages use."""

OK: Final = StatusResponse(Status.OK, b"Success")
EOF: Final = StatusResponse(Status.EOF, b"End of file")


def status_of(error: OSError) -> StatusResponse:
    """The STATUS for *error*; an OSError without a known errno counts as EIO.

    The message is the error's own text: strerror, or what one of our modules says more exactly.
    """
    number = error.errno
    if number is None or number not in _NAMES:
        number = errno.EIO
        text = os.strerror(number)
    else:
        text = error.strerror or os.strerror(number)
    return StatusResponse(
        _STATUSES.get(number, Status.FAILURE), f"{text} ({_NAMES[number]})".encode()
    )
