"""What a server is told to do: frozen values with their units, made by ``netfs.cli.serve``."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsConfig:
    """What one client, and all of them, may take."""

    max_handles: int = 1024  # of one session
    max_sessions: int = 256  # of the whole server; each may block a thread
    max_sessions_per_user: int = 32  # of one key, certificate authority or password user
    max_logins: int = 32  # connections that have not logged in yet
    max_failures: int = 6  # refused keys and passwords of one connection
    login_s: float = 30.0  # from connecting to being logged in
    keepalive_s: float = 30.0  # a question to a silent client; the third unanswered ends it
    stall_s: float = 300.0  # a client that takes no answers for so long is disconnected
    grace_s: float = 10.0  # SIGTERM: what is in flight may take so long


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """Everything about ``netfs serve``."""

    root: str
    read_only: bool = False
    one_file_system: bool = False
    stdio: bool = False
    listen: tuple[tuple[str, int], ...] = ()  # addresses and ports; empty: systemd's sockets
    host_keys: tuple[str, ...] = ()  # files; the first is made if it is not there
    authorized_keys: tuple[str, ...] = ()
    user_ca: tuple[str, ...] = ()  # files of public keys that sign user certificates
    passwords: str | None = None  # file of hashed passwords
    user: str | None = None  # whom to become after binding
    umask: int | None = None
    log_requests: bool = False
    limits: LimitsConfig = field(default_factory=LimitsConfig)
