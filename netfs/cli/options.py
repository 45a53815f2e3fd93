"""The option table: a row for each ``-o`` word; parsing, help, docs and man pages come from it.

A row says what is accepted and which Config field it sets; it decides nothing else.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from netfs.cli import kinds
from netfs.cli.kinds import Kind


class Section(enum.Enum):
    """Where a row is shown."""

    CONNECTION = "Connection"
    LINK = "When the link is lost"
    CACHE = "Caches and speed"
    SEMANTICS = "How files look"
    OWNERSHIP = "Whose the files are"
    MOUNT = "The mount"
    PROCESS = "The processes"
    SSH = "ssh_config keywords (any case, as -o KEYWORD=VALUE; see ssh_config(5))"
    ACCEPTED = "Accepted for compatibility, without effect"
    FSTAB = "Words of fstab(5) and mount(8), accepted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option.

    ``kind`` None makes it a flag, which sets ``sets``; otherwise the value goes to each of
    ``fields`` (a kind that reads a mapping names its fields itself).  Fields are dotted paths
    into Config.
    """

    names: tuple[str, ...]  # the first is the one that is shown
    help: str
    section: Section
    kind: Kind | None = None
    fields: tuple[str, ...] = ()
    sets: Mapping[str, object] = field(default_factory=dict)
    default: str = ""
    note: str | None = None  # said once when the option is used; why it does nothing
    optional: bool = False  # the value may be left out (fstab's user=bob)

    @property
    def name(self) -> str:
        return self.names[0]

    @property
    def usage(self) -> str:
        """As help shows it, e.g. ``link_timeout=SECONDS``."""
        return f"{self.name}={self.kind.metavar}" if self.kind is not None else self.name


def _value(
    section: Section, names: str, kind: Kind, fields: str, help: str, default: str = ""
) -> Option:
    return Option(
        names=tuple(names.split()),
        help=help,
        section=section,
        kind=kind,
        fields=tuple(fields.split()),
        default=default,
    )


def _flag(section: Section, names: str, help: str, **sets: object) -> Option:
    return Option(
        names=tuple(names.split()),
        help=help,
        section=section,
        sets={name.replace("__", "."): value for name, value in sets.items()},
    )


def _accepted(
    names: str, help: str, kind: Kind | None = None, note: str | None = None
) -> Iterator[Option]:
    """One row for each name: these words have nothing else in common."""
    for name in names.split():
        yield Option(names=(name,), help=help, section=Section.ACCEPTED, kind=kind, note=note)


_C, _L, _K = Section.CONNECTION, Section.LINK, Section.CACHE
_S, _O, _M, _P = Section.SEMANTICS, Section.OWNERSHIP, Section.MOUNT, Section.PROCESS

_OWN: Final = (
    _value(
        _C,
        "ssh_command",
        kinds.COMMAND,
        "ssh.ssh_command",
        "reach the server by this command instead of the built-in SSH (ControlMaster, GSSAPI ...)",
    ),
    _value(
        _C,
        "sftp_server",
        kinds.TEXT,
        "ssh.sftp_server",
        "SFTP subsystem, or with a '/' the command to run on the server",
        "sftp",
    ),
    _value(
        _C, "directport", kinds.PORT, "ssh.directport", "SFTP over plain TCP to this port, no SSH"
    ),
    _value(_C, "vsock", kinds.VSOCK, "ssh.vsock", "SFTP over a virtual socket, no SSH"),
    _flag(
        _C,
        "passive slave",
        "SFTP over standard input and output",
        ssh__passive=True,
        daemon__foreground=True,
    ),
    _flag(
        _C,
        "password_stdin",
        "read the password from standard input (pam_mount)",
        ssh__password_stdin=True,
    ),
    _value(
        _C,
        "run_as",
        kinds.USER,
        "ssh.run_as",
        "use this user's keys, known_hosts, ssh_config and agent (root only)",
    ),
    _value(_C, "max_conns", kinds.integer(1, 64), "ssh.max_conns", "SSH connections at most", "1"),
    _value(
        _L,
        "link_timeout",
        kinds.SECONDS,
        "link.link_timeout_s",
        "how long a request waits for a lost link before it fails with ETIMEDOUT",
        "30",
    ),
    _flag(
        _L, "hard", "wait for a lost link for ever; waiting stays interruptible", link__hard=True
    ),
    _flag(_L, "soft", "the opposite of hard (the default)", link__hard=False),
    _value(
        _L,
        "abort_after",
        kinds.SECONDS,
        "link.abort_after_s",
        "the watchdog aborts a mount that is stuck for this long; 0 is never",
        "300",
    ),
    _flag(
        _L,
        "noremount",
        "do not mount again after an abort or after the worker died",
        link__remount=False,
    ),
    _flag(_L, "noreconnect", "unmount and end when the link is lost", link__reconnect=False),
    _flag(_L, "reconnect", "reconnect when the link is lost (the default)", link__reconnect=True),
    _value(
        _L,
        "rescue_dir",
        kinds.DIRECTORY,
        "link.rescue_dir",
        "where data goes that can't be delivered any more",
        "~/.local/state/netfs/rescue",
    ),
    _value(
        _K,
        "cache_timeout dcache_timeout",
        kinds.SECONDS,
        "cache.cache_timeout_s",
        "how old attributes and names may be",
        "20",
    ),
    _value(
        _K,
        "dcache_stat_timeout cache_stat_timeout",
        kinds.SECONDS,
        "cache.stat_timeout_s",
        "the same for attributes only",
        "cache_timeout",
    ),
    _value(
        _K,
        "dcache_dir_timeout cache_dir_timeout",
        kinds.SECONDS,
        "cache.dir_timeout_s",
        "the same for listings only",
        "cache_timeout",
    ),
    _value(
        _K,
        "dcache_link_timeout cache_link_timeout",
        kinds.SECONDS,
        "cache.link_timeout_s",
        "the same for symlinks' targets only",
        "cache_timeout",
    ),
    _value(
        _K,
        "negative_timeout",
        kinds.SECONDS,
        "cache.negative_timeout_s",
        "how long a missing name is remembered",
        "cache_timeout",
    ),
    _value(
        _K,
        "cto_window",
        kinds.SECONDS,
        "cache.cto_window_s",
        "attributes younger than this need no asking at open; 0 asks at each open",
        "1",
    ),
    _value(
        _K,
        "dir_cache cache",
        kinds.YES_NO,
        "cache.enabled",
        "whether attributes and names are remembered at all",
        "yes",
    ),
    _value(
        _K,
        "dcache_max_size cache_max_size",
        kinds.COUNT,
        "cache.max_entries",
        "names remembered at most",
        "200000",
    ),
    _value(_K, "cache_size", kinds.SIZE, "cache.cache_size", "memory for files' content", "128M"),
    _value(
        _K,
        "dirty_limit",
        kinds.SIZE,
        "cache.dirty_limit",
        "written data that the server has not acknowledged, at most",
        "64M",
    ),
    _flag(
        _K,
        "no_readahead noreadahead",
        "read nothing before it is asked for",
        cache__read_ahead=False,
        cache__tree_read_ahead=False,
    ),
    _flag(
        _K,
        "no_tree_readahead",
        "no listing ahead and no fetching of small files ahead",
        cache__tree_read_ahead=False,
    ),
    _flag(
        _K,
        "kernel_cache",
        "the kernel keeps the content of unchanged files (the default)",
        cache__kernel_cache=True,
    ),
    _flag(
        _K,
        "no_kernel_cache nokernel_cache",
        "the kernel drops a file's content at each open",
        cache__kernel_cache=False,
    ),
    _value(
        _K,
        "max_read",
        kinds.integer(4096),
        "mount.max_read cache.max_read",
        "bytes in one read request at most",
        "as the server says",
    ),
    _value(
        _K,
        "max_write",
        kinds.integer(4096),
        "cache.max_write",
        "bytes in one write request at most",
        "as the server says",
    ),
    _value(
        _K,
        "attr_timeout",
        kinds.SECONDS,
        "cache.attr_timeout_s",
        "how long the kernel itself may trust attributes",
        "the rest of cache_timeout",
    ),
    _value(
        _K,
        "entry_timeout",
        kinds.SECONDS,
        "cache.entry_timeout_s",
        "how long the kernel itself may trust names",
        "the rest of cache_timeout",
    ),
    _flag(_S, "follow_symlinks", "show what symlinks point to", semantics__follow_symlinks=True),
    _flag(
        _S,
        "transform_symlinks rellinks",
        "make absolute symlinks inside the served directory relative",
        semantics__transform_symlinks=True,
    ),
    _flag(
        _S,
        "contain_symlinks",
        "refuse to read symlinks that are absolute or contain '..'",
        semantics__contain_symlinks=True,
    ),
    _flag(
        _S,
        "no_contain_symlinks",
        "show all symlinks as they are (the default)",
        semantics__contain_symlinks=False,
    ),
    _flag(_S, "disable_hardlink", "make no hard links", semantics__disable_hardlink=True),
    _flag(_S, "direct_io", "no kernel cache for content", semantics__direct_io=True),
    _flag(
        _S,
        "sync sshfs_sync",
        "each write waits for the server's acknowledgement",
        semantics__sync=True,
    ),
    _flag(
        _S, "async", "writes are acknowledged when buffered (the default)", semantics__sync=False
    ),
    _value(
        _S,
        "workaround",
        kinds.WORKAROUNDS,
        "",
        "rename: replace by moving aside, never by posix-rename; renamexdev: EXDEV for a failed "
        "rename; joined by ':'",
        "none",
    ),
    _flag(
        _S,
        "no_check_root",
        "do not check that the remote directory exists",
        semantics__check_root=False,
    ),
    _flag(
        _S,
        "delay_connect",
        "mount at once, connect in the background",
        semantics__delay_connect=True,
        semantics__check_root=False,
    ),
    _value(
        _S,
        "subdir",
        kinds.TEXT,
        "subdir",
        "serve this directory below the source's (with modules=subdir)",
    ),
    _value(
        _S,
        "modules",
        kinds.choice("subdir"),
        "modules",
        "libfuse's module subdir; iconv does not exist here: names are bytes",
    ),
    _value(
        _O,
        "idmap",
        kinds.choice("none", "user", "file"),
        "identity.idmap",
        "none: remote ids as they are; user: the connecting user's files are the mounting user's; "
        "file: as uidfile and gidfile say",
        "user",
    ),
    _value(_O, "uidfile", kinds.FILE, "uidfile", "lines of local user name:remote uid, or passwd"),
    _value(_O, "gidfile", kinds.FILE, "gidfile", "lines of local group name:remote gid, or group"),
    _value(
        _O,
        "nomap",
        kinds.choice("ignore", "error"),
        "identity.nomap",
        "with idmap=file, an id without a line: leave it, or fail with EPERM",
        "error",
    ),
    _value(_O, "uid", kinds.USER_ID, "identity.uid", "the owner shown for every file"),
    _value(_O, "gid", kinds.GROUP_ID, "identity.gid", "the group shown for every file"),
    _value(_O, "umask", kinds.OCTAL, "identity.umask", "bits taken off every mode"),
    _value(_O, "fmask", kinds.OCTAL, "identity.fmask", "the same for files only"),
    _value(_O, "dmask", kinds.OCTAL, "identity.dmask", "the same for directories only"),
    _flag(_M, "ro", "mount read-only", mount__read_only=True),
    _flag(_M, "rw", "mount read-write (the default)", mount__read_only=False),
    _flag(_M, "allow_other", "other users may use the mount", mount__allow_other=True),
    _flag(_M, "allow_root", "root may use the mount", mount__allow_root=True),
    _flag(
        _M,
        "default_permissions",
        "the kernel checks permissions by the modes shown",
        mount__default_permissions=True,
    ),
    _value(_M, "fsname", kinds.TEXT, "mount.fsname", "the source shown in mount tables", "SOURCE"),
    _value(_M, "subtype", kinds.TEXT, "mount.subtype", "the type shown, after 'fuse.'", "netfs"),
    _flag(
        _P,
        "debug sshfs_debug",
        "log each request to standard error; stay in the foreground",
        daemon__debug=True,
        daemon__foreground=True,
    ),
    _value(_P, "log_file", kinds.FILE, "daemon.log_file", "log to this file instead of syslog"),
    _value(
        _P,
        "log_level",
        kinds.choice("debug", "info", "warning", "error"),
        "daemon.log_level",
        "the least that is logged",
        "info",
    ),
    _value(
        _P,
        "metrics",
        kinds.ADDRESS,
        "daemon.metrics",
        "serve Prometheus metrics there (needs the extra netfs[metrics])",
    ),
    _value(
        _P,
        "runtime_dir",
        kinds.DIRECTORY,
        "daemon.runtime_dir",
        "where control sockets are",
        "$XDG_RUNTIME_DIR/netfs or /run/netfs",
    ),
)

_GENERIC_FLAGS: Final = (
    ("nosuid", "set-user-ID bits have no effect (the default)"),
    ("suid", "set-user-ID bits take effect (root only)"),
    ("nodev", "device files have no effect (the default)"),
    ("dev", "device files take effect (root only)"),
    ("noexec", "nothing can be executed"),
    ("exec", "programs can be executed (the default)"),
    ("noatime", "access times are not updated"),
    ("atime", "access times are updated"),
    ("nodiratime", "access times of directories are not updated"),
    ("diratime", "access times of directories are updated"),
    ("relatime", "access times are updated when older than the modification"),
    ("norelatime", "the opposite of relatime"),
    ("strictatime", "access times are always updated"),
    ("nostrictatime", "the opposite of strictatime"),
    ("lazytime", "times are written late"),
    ("nolazytime", "the opposite of lazytime"),
    ("dirsync", "directory changes are synchronous (they always are)"),
    ("nosymfollow", "symlinks are not followed"),
)

_KEYWORDS: Final = """
AddressFamily BatchMode BindAddress BindInterface CertificateFile
ChallengeResponseAuthentication CheckHostIP Cipher Ciphers Compression CompressionLevel
ConnectionAttempts ConnectTimeout ControlMaster ControlPath ControlPersist FingerprintHash
GlobalKnownHostsFile GSSAPIAuthentication GSSAPIDelegateCredentials HostbasedAuthentication
HostbasedKeyTypes HostKeyAlgorithms HostKeyAlias HostName IdentitiesOnly IdentityFile
IdentityAgent IPQoS KbdInteractiveAuthentication KbdInteractiveDevices KexAlgorithms
LocalCommand LogLevel MACs NoHostAuthenticationForLocalhost NumberOfPasswordPrompts
PasswordAuthentication PermitLocalCommand PKCS11Provider Port PreferredAuthentications
ProxyCommand ProxyJump ProxyUseFdpass PubkeyAcceptedKeyTypes PubkeyAuthentication RekeyLimit
RevokedHostKeys RhostsRSAAuthentication RSAAuthentication ServerAliveCountMax
ServerAliveInterval SmartcardDevice StrictHostKeyChecking TCPKeepAlive UpdateHostKeys
UsePrivilegedPort UserKnownHostsFile VerifyHostKeyDNS VisualHostKey
AddKeysToAgent CanonicalDomains CanonicalizeFallbackLocal CanonicalizeHostname
CanonicalizeMaxDots CanonicalizePermittedCNAMEs CASignatureAlgorithms EnableSSHKeysign
ForwardAgent GSSAPIClientIdentity GSSAPIKeyExchange GSSAPIKexAlgorithms
GSSAPIRenewalForcesRekey GSSAPIServerIdentity GSSAPITrustDns HashKnownHosts
HostbasedAcceptedAlgorithms KnownHostsCommand PubkeyAcceptedAlgorithms RequiredRSASize
SecurityKeyProvider SendEnv SetEnv SyslogFacility Tag XAuthLocation
"""
SSH_KEYWORDS: Final = tuple(_KEYWORDS.split())
"""sshfs's 61 and the newer ones that make sense for a connection without a shell."""

_ACCEPTED: Final = (
    *_accepted("noauto_cache auto_cache", "changed files are always noticed at open"),
    *_accepted("ac_attr_timeout remember", "attributes are revalidated at open", kinds.SECONDS),
    *_accepted("noforget", "what the kernel holds is never forgotten"),
    *_accepted("auto_unmount", "the supervisor always unmounts after the worker"),
    *_accepted("nonempty", "mounting over a directory with content is allowed"),
    *_accepted("sync_readdir", "listings are fetched as the caller reads them"),
    *_accepted(
        "dcache_clean_interval dcache_min_clean_interval cache_clean_interval "
        "cache_min_clean_interval",
        "the caches need no cleaning",
        kinds.COUNT,
    ),
    *_accepted("no_rofd_flush parallel_direct_write parallel_direct_writes", "a matter of libfuse"),
    *_accepted("clone_fd noclone_fd big_writes large_read", "a matter of libfuse"),
    *_accepted("intr use_ino readdir_ino hard_remove nopath", "a matter of libfuse"),
    *_accepted("async_read sync_read atomic_o_trunc no_remote_lock", "a matter of libfuse"),
    *_accepted("splice_read splice_write splice_move", "a matter of libfuse"),
    *_accepted("no_splice_read no_splice_write no_splice_move", "a matter of libfuse"),
    *_accepted(
        "max_idle_threads max_threads max_background congestion_threshold max_readahead "
        "intr_signal",
        "a matter of libfuse",
        kinds.COUNT,
    ),
    *_accepted(
        "ssh_protocol",
        "SSH version 2 is the only one",
        kinds.integer(1, 2),
        note="ssh_protocol: only SSH version 2 exists",
    ),
    *_accepted(
        "unreliable_append",
        "appends are reliable",
        note="unreliable_append: has no effect, appends are settled by the file's size",
    ),
    *_accepted(
        "writeback_cache",
        "writes are buffered by netfs itself",
        kinds.YES_NO,
        note="writeback_cache: has no effect, netfs buffers writes itself",
    ),
    *_accepted("volname iosize", "a word of macOS", kinds.TEXT),
    *_accepted("noappledouble noapplexattr defer_permissions", "a word of macOS"),
    *_accepted("drop_privileges", "a word of mount.fuse"),
)

_FSTAB: Final = (
    *(
        Option(names=(name,), help=help, section=Section.FSTAB)
        for name, help in (
            ("defaults", "no other word"),
            ("auto", "mounted by mount -a"),
            ("noauto", "not mounted by mount -a"),
            ("users", "any user may mount and unmount"),
            ("nouser", "only root may mount"),
            ("owner", "the device's owner may mount"),
            ("group", "the device's group may mount"),
            ("nofail", "no error at boot when it can't be mounted"),
            ("_netdev", "mounted after the network is there"),
            ("sloppy", "unknown words are not an error"),
            ("loud", "messages are shown"),
            ("silent", "messages are not shown"),
            ("nomand", "no mandatory locking"),
            ("noiversion", "no inode version"),
            ("remount", "change ro, rw and the like of what is mounted"),
        )
    ),
    Option(
        names=("user",),
        help="a user may mount",
        section=Section.FSTAB,
        kind=kinds.TEXT,
        optional=True,
    ),
    Option(names=("comment",), help="a comment", section=Section.FSTAB, kind=kinds.TEXT),
)

PREFIXES: Final = ("x-", "X-")
"""Words that begin so belong to other programs (x-systemd.automount, x-gvfs-hide ...)."""

OPTIONS: Final[tuple[Option, ...]] = (
    *_OWN,
    *(
        Option(names=(name,), help=help, section=_M, sets={"mount.flags": (name,)})
        for name, help in _GENERIC_FLAGS
    ),
    *(
        Option(
            names=(keyword,),
            help="",
            section=Section.SSH,
            kind=kinds.TEXT,
            fields=(f"ssh.keywords.{keyword.lower()}",),
        )
        for keyword in SSH_KEYWORDS
    ),
    *_ACCEPTED,
    *_FSTAB,
)

BY_NAME: Final[Mapping[str, Option]] = {
    # ssh_config's keywords are found in any case, netfs's own words only as they are written
    (name.lower() if option.section is Section.SSH else name): option
    for option in reversed(OPTIONS)
    for name in option.names
}


def find(name: str) -> Option | None:
    """The row of *name*, or None."""
    return BY_NAME.get(name) or (
        found
        if (found := BY_NAME.get(name.lower())) is not None and found.section is Section.SSH
        else None
    )


def sections() -> Iterator[tuple[Section, list[Option]]]:
    """The rows as they are shown."""
    for section in Section:
        yield section, [option for option in OPTIONS if option.section is section]
