"""What a mount is told to do: frozen values with their units, made by netfs.cli from options.

No parsing and no behaviour belong here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

KIB = 1024
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceConfig:
    """Where the files are: ``[user@]host:[dir]`` or ``sftp://[user@]host[:port]/path``."""

    text: str  # as the user wrote it; shown as the mount's source
    host: str
    user: str | None = None  # None: as ssh_config or the local user says
    port: int | None = None
    path: bytes = b""  # empty: the login directory


@dataclass(frozen=True, slots=True, kw_only=True)
class SshConfig:
    """How the server is reached and the user proven."""

    config_file: str | None = None  # -F; "none" reads no file
    keywords: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """ssh_config keywords given as -o, lower case, in order (IdentityFile may come often)."""
    ssh_command: tuple[str, ...] | None = None  # argv; the system ssh over a pipe
    sftp_server: str | None = None  # subsystem name, or a command if it contains '/'
    directport: int | None = None  # SFTP over plain TCP to this port
    vsock: tuple[int, int] | None = None  # (cid, port)
    passive: bool = False  # SFTP on stdin and stdout
    password_stdin: bool = False
    run_as: str | None = None  # whose keys, known_hosts and agent are used
    max_conns: int = 1  # SSH connections at most (channels are opened as needed)
    connect_timeout_s: float = 10.0
    server_alive_interval_s: float = 15.0
    server_alive_count_max: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkConfig:
    """What happens when the link is lost (design §6)."""

    link_timeout_s: float = 30.0  # how long a request waits for the link before ETIMEDOUT
    hard: bool = False  # wait for ever instead
    abort_after_s: float = 300.0  # the watchdog aborts the mount after this; 0 never
    remount: bool = True  # after an abort or a worker's death, mount again
    reconnect: bool = True  # False: end and unmount when the link is lost
    rescue_dir: str | None = None  # None: the user's state directory


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityConfig:
    """Whose the files are."""

    idmap: Literal["none", "user", "file"] = "user"
    uid: int | None = None  # shown for every file
    gid: int | None = None
    umask: int | None = None  # bits taken off every mode
    fmask: int | None = None
    dmask: int | None = None
    uid_map: Mapping[int, int] = field(default_factory=dict)  # remote -> local, idmap=file
    gid_map: Mapping[int, int] = field(default_factory=dict)
    nomap: Literal["ignore", "error"] = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class MountConfig:
    """What the kernel is told when mounting."""

    mountpoint: str  # absolute, no symlinks; or "/dev/fd/N"
    fsname: str | None = None  # None: the source's text
    subtype: str = "netfs"
    read_only: bool = False
    allow_other: bool = False
    allow_root: bool = False
    default_permissions: bool = False
    flags: tuple[str, ...] = ()  # nosuid, nodev, noexec, noatime, suid, dev ... in order
    max_read: int | None = None  # bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SemanticsConfig:
    """How remote files look here."""

    follow_symlinks: bool = False
    transform_symlinks: bool = False
    contain_symlinks: bool = False
    disable_hardlink: bool = False
    direct_io: bool = False
    sync: bool = False  # each write waits for its acknowledgement
    rename_workaround: bool = False  # workaround=rename: never use posix-rename
    rename_xdev: bool = False  # workaround=renamexdev
    create_mode: bool = True  # False: workaround=createmode, files are created with mode 0
    charset: tuple[str, str] | None = None  # modules=iconv: the server's, and what is shown
    check_root: bool = True
    delay_connect: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheConfig:
    """What may be remembered, for how long (seconds) and how much of it (bytes, entries)."""

    enabled: bool = True  # dir_cache=no
    cache_timeout_s: float = 20.0  # attributes, names
    stat_timeout_s: float | None = None  # None: cache_timeout_s
    dir_timeout_s: float | None = None
    link_timeout_s: float | None = None
    negative_timeout_s: float | None = None
    cto_window_s: float = 1.0  # attributes younger than this count as revalidated at open
    max_entries: int = 120_000  # names known, by the kernel or only here
    cache_size: int = 128 * MIB  # data blocks
    dirty_limit: int = 64 * MIB  # written but not acknowledged, all files together
    read_ahead: bool = True
    tree_read_ahead: bool = True
    kernel_cache: bool = True
    max_read: int | None = None  # bytes per SFTP request; None: as the server's limits say
    max_write: int | None = None
    attr_timeout_s: float | None = None  # kernel time-outs; None: the rest of the daemon's TTL
    entry_timeout_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonConfig:
    """How the processes behave."""

    foreground: bool = False
    debug: bool = False  # each FUSE and SFTP request is logged
    log_file: str | None = None
    log_level: str = "info"
    metrics: tuple[str, int] | None = None  # address and port for Prometheus
    runtime_dir: str | None = None  # None: $XDG_RUNTIME_DIR/netfs or /run/netfs


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything about one mount."""

    source: SourceConfig
    mount: MountConfig
    ssh: SshConfig = field(default_factory=SshConfig)
    link: LinkConfig = field(default_factory=LinkConfig)
    identity: IdentityConfig = field(default_factory=IdentityConfig)
    semantics: SemanticsConfig = field(default_factory=SemanticsConfig)
    cache: CacheConfig = field(default_factory=CacheConfig)
    daemon: DaemonConfig = field(default_factory=DaemonConfig)
