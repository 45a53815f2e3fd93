"""systemd's two conversations with a service: readiness (sd_notify) and passed sockets.

Only the standard library, no import of netfs.  Source: sd_notify(3), sd_listen_fds(3).
"""

from __future__ import annotations

import os
import socket
from typing import Final

_FIRST_FD: Final = 3  # SD_LISTEN_FDS_START


def notify(state: str) -> bool:
    """Tell systemd *state* (``READY=1``, ``STOPPING=1``, ``WATCHDOG=1``, lines may be joined).

    Returns whether there was somebody to tell; a message that cannot be delivered is no error,
    for the service works all the same.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.connect(address)
            sock.sendall(state.encode())
    except OSError:
        return False
    return True


def listen_fds() -> list[int]:
    """The sockets that systemd opened for this process, close-on-exec; [] if there are none.

    The variables are removed, so that no child takes the sockets for its own.
    """
    pid = os.environ.pop("LISTEN_PID", "")
    count = os.environ.pop("LISTEN_FDS", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdigit():
        return []
    fds = list(range(_FIRST_FD, _FIRST_FD + int(count)))
    for fd in fds:
        os.set_inheritable(fd, False)
    return fds
