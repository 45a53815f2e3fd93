"""What can go wrong while reaching a server: a closed set of kinds, each with its exit code.

The kind decides the process's exit code and whether trying again by itself makes sense; the
message is one line that names the cause and the way out.
"""

from __future__ import annotations

import enum


class ConnectErrorKind(enum.Enum):
    """Why there is no link.  The value is (exit code, whether retrying alone makes sense)."""

    HOST_UNKNOWN = (10, True)  # the name does not resolve (or the resolver is down)
    REFUSED = (11, True)  # nobody listens
    UNREACHABLE = (12, True)  # no route, network down
    TIMED_OUT = (13, True)
    HOST_KEY_UNKNOWN = (14, False)
    HOST_KEY_CHANGED = (15, False)
    HOST_KEY_REVOKED = (16, False)
    AUTH_FAILED = (17, False)
    KEY_UNREADABLE = (18, False)  # a key file the user named can't be used
    NO_SFTP = (19, True)  # the server can't or doesn't speak SFTP
    PROTOCOL = (20, True)  # what answers is not an SSH server, or breaks the protocol
    PROXY_FAILED = (21, True)  # ProxyJump, ProxyCommand or ssh_command
    LOST = (22, True)  # closed while connecting, or later
    NO_ALGORITHM = (23, False)  # no cipher, key exchange or key type in common
    BAD_CONFIG = (24, False)  # ssh_config or an -o word can't be understood

    @property
    def exit_code(self) -> int:
        return self.value[0]

    @property
    def may_retry(self) -> bool:
        """False where trying again without a person would only hammer the server."""
        return self.value[1]


class ConnectError(Exception):
    """There is no link, for the reason *kind*; str() is the one line for the user."""

    def __init__(self, kind: ConnectErrorKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind
