"""The option table: a row for each ``-o`` word; parsing, help, docs and man pages come from it.

A row says what is accepted and which Config field it sets; it decides nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from netfs.cli import compat, kinds
from netfs.cli.compat import PREFIXES
from netfs.cli.option import Option, Section, flag, value

__all__ = ["BY_NAME", "OPTIONS", "PREFIXES", "Option", "Section", "find", "sections"]

_C, _L, _K = Section.CONNECTION, Section.LINK, Section.CACHE
_S, _O, _M, _P = Section.SEMANTICS, Section.OWNERSHIP, Section.MOUNT, Section.PROCESS

_OWN: Final = (
    value(
        _C,
        "ssh_command",
        kinds.COMMAND,
        "ssh.ssh_command",
        "reach the server by this command instead of the built-in SSH (ControlMaster, GSSAPI ...)",
    ),
    value(
        _C,
        "sftp_server",
        kinds.TEXT,
        "ssh.sftp_server",
        "SFTP subsystem, or with a '/' the command to run on the server",
        "sftp",
    ),
    value(
        _C, "directport", kinds.PORT, "ssh.directport", "SFTP over plain TCP to this port, no SSH"
    ),
    value(_C, "vsock", kinds.VSOCK, "ssh.vsock", "SFTP over a virtual socket, no SSH"),
    flag(
        _C,
        "passive slave",
        "SFTP over standard input and output",
        ssh__passive=True,
        daemon__foreground=True,
    ),
    flag(
        _C,
        "password_stdin",
        "read the password from standard input (pam_mount)",
        ssh__password_stdin=True,
    ),
    value(
        _C,
        "run_as",
        kinds.USER,
        "ssh.run_as",
        "use this user's keys, known_hosts, ssh_config and agent (root only)",
    ),
    value(
        _C,
        "max_conns",
        kinds.integer(1, 64),
        "ssh.max_conns",
        "connections at most, with ssh_command, directport or vsock; the built-in SSH needs one, "
        "with as many channels as are of use",
        "1",
    ),
    value(
        _L,
        "link_timeout",
        kinds.SECONDS,
        "link.link_timeout_s",
        "how long a request waits for a lost link before it fails with ETIMEDOUT",
        "30",
    ),
    flag(_L, "hard", "wait for a lost link for ever; waiting stays interruptible", link__hard=True),
    flag(_L, "soft", "the opposite of hard (the default)", link__hard=False),
    value(
        _L,
        "abort_after",
        kinds.SECONDS,
        "link.abort_after_s",
        "the watchdog aborts a mount that is stuck for this long; 0 is never",
        "300",
    ),
    flag(
        _L,
        "noremount",
        "do not mount again after an abort or after the worker died",
        link__remount=False,
    ),
    flag(_L, "noreconnect", "unmount and end when the link is lost", link__reconnect=False),
    flag(_L, "reconnect", "reconnect when the link is lost (the default)", link__reconnect=True),
    value(
        _L,
        "rescue_dir",
        kinds.DIRECTORY,
        "link.rescue_dir",
        "where data goes that can't be delivered any more",
        "~/.local/state/netfs/rescue",
    ),
    value(
        _K,
        "cache_timeout dcache_timeout",
        kinds.SECONDS,
        "cache.cache_timeout_s",
        "how old attributes and names may be",
        "20",
    ),
    value(
        _K,
        "dcache_stat_timeout cache_stat_timeout",
        kinds.SECONDS,
        "cache.stat_timeout_s",
        "the same for attributes only",
        "cache_timeout",
    ),
    value(
        _K,
        "dcache_dir_timeout cache_dir_timeout",
        kinds.SECONDS,
        "cache.dir_timeout_s",
        "the same for listings only",
        "cache_timeout",
    ),
    value(
        _K,
        "dcache_link_timeout cache_link_timeout",
        kinds.SECONDS,
        "cache.link_timeout_s",
        "the same for symlinks' targets only",
        "cache_timeout",
    ),
    value(
        _K,
        "negative_timeout",
        kinds.SECONDS,
        "cache.negative_timeout_s",
        "how long a missing name is remembered",
        "cache_timeout",
    ),
    value(
        _K,
        "cto_window",
        kinds.SECONDS,
        "cache.cto_window_s",
        "attributes younger than this need no asking at open; 0 asks at each open",
        "1",
    ),
    value(
        _K,
        "dir_cache cache",
        kinds.YES_NO,
        "cache.enabled",
        "whether attributes and names are remembered at all",
        "yes",
    ),
    value(
        _K,
        "dcache_max_size cache_max_size",
        kinds.COUNT,
        "cache.max_entries",
        "names remembered at most",
        "120000",
    ),
    value(_K, "cache_size", kinds.SIZE, "cache.cache_size", "memory for files' content", "128M"),
    value(
        _K,
        "dirty_limit",
        kinds.SIZE,
        "cache.dirty_limit",
        "written data that the server has not acknowledged, at most",
        "64M",
    ),
    flag(
        _K,
        "no_readahead noreadahead",
        "read nothing before it is asked for",
        cache__read_ahead=False,
        cache__tree_read_ahead=False,
    ),
    flag(
        _K,
        "no_tree_readahead",
        "no listing ahead and no fetching of small files ahead",
        cache__tree_read_ahead=False,
    ),
    flag(
        _K,
        "kernel_cache",
        "the kernel keeps the content of unchanged files (the default)",
        cache__kernel_cache=True,
    ),
    flag(
        _K,
        "no_kernel_cache nokernel_cache",
        "the kernel drops a file's content at each open",
        cache__kernel_cache=False,
    ),
    value(
        _K,
        "max_read",
        kinds.integer(4096),
        "mount.max_read cache.max_read",
        "bytes in one read request at most",
        "as the server says",
    ),
    value(
        _K,
        "max_write",
        kinds.integer(4096),
        "cache.max_write",
        "bytes in one write request at most",
        "as the server says",
    ),
    value(
        _K,
        "attr_timeout",
        kinds.SECONDS,
        "cache.attr_timeout_s",
        "how long the kernel itself may trust attributes",
        "the rest of cache_timeout",
    ),
    value(
        _K,
        "entry_timeout",
        kinds.SECONDS,
        "cache.entry_timeout_s",
        "how long the kernel itself may trust names",
        "the rest of cache_timeout",
    ),
    flag(_S, "follow_symlinks", "show what symlinks point to", semantics__follow_symlinks=True),
    flag(
        _S,
        "transform_symlinks rellinks",
        "make absolute symlinks inside the served directory relative",
        semantics__transform_symlinks=True,
    ),
    flag(
        _S,
        "norellinks",
        "show absolute symlinks as they are (the default)",
        semantics__transform_symlinks=False,
    ),
    flag(
        _S,
        "contain_symlinks",
        "refuse to read symlinks that are absolute or contain '..'",
        semantics__contain_symlinks=True,
    ),
    flag(
        _S,
        "no_contain_symlinks",
        "show all symlinks as they are (the default)",
        semantics__contain_symlinks=False,
    ),
    flag(_S, "disable_hardlink", "make no hard links", semantics__disable_hardlink=True),
    flag(_S, "direct_io", "no kernel cache for content", semantics__direct_io=True),
    flag(
        _S,
        "sync sshfs_sync",
        "each write waits for the server's acknowledgement",
        semantics__sync=True,
    ),
    flag(_S, "async", "writes are acknowledged when buffered (the default)", semantics__sync=False),
    Option(
        names=("workaround",),
        help="rename: replace by moving aside, never by posix-rename; renamexdev: EXDEV for a "
        "failed rename; createmode: create with mode 0 and set it afterwards; joined by ':'",
        section=_S,
        kind=kinds.WORKAROUNDS,
        default="none",
        obsolete=kinds.OBSOLETE_WORKAROUNDS,
    ),
    flag(
        _S,
        "no_check_root",
        "do not check that the remote directory exists",
        semantics__check_root=False,
    ),
    flag(
        _S,
        "delay_connect",
        "mount at once, connect in the background",
        semantics__delay_connect=True,
        semantics__check_root=False,
    ),
    value(
        _S,
        "subdir",
        kinds.TEXT,
        "subdir",
        "serve this directory below the source's (with modules=subdir)",
    ),
    value(
        _S,
        "modules",
        kinds.MODULES,
        "modules",
        "libfuse's modules: subdir, and iconv, which converts names (otherwise they are bytes)",
    ),
    value(
        _S,
        "from_code",
        kinds.CHARSET,
        "from_code",
        "the character set of names on the server (with modules=iconv)",
        "utf-8",
    ),
    value(
        _S,
        "to_code",
        kinds.CHARSET,
        "to_code",
        "the character set in which names are shown (with modules=iconv)",
        "utf-8",
    ),
    value(
        _O,
        "idmap",
        kinds.choice("none", "user", "file"),
        "identity.idmap",
        "none: remote ids as they are; user: the connecting user's files are the mounting user's; "
        "file: as uidfile and gidfile say",
        "user",
    ),
    value(_O, "uidfile", kinds.FILE, "uidfile", "lines of local user name:remote uid, or passwd"),
    value(_O, "gidfile", kinds.FILE, "gidfile", "lines of local group name:remote gid, or group"),
    value(
        _O,
        "nomap",
        kinds.choice("ignore", "error"),
        "identity.nomap",
        "with idmap=file, an id without a line: leave it, or fail with EPERM",
        "error",
    ),
    value(_O, "uid", kinds.USER_ID, "identity.uid", "the owner shown for every file"),
    value(_O, "gid", kinds.GROUP_ID, "identity.gid", "the group shown for every file"),
    value(_O, "umask", kinds.OCTAL, "identity.umask", "bits taken off every mode"),
    value(_O, "fmask", kinds.OCTAL, "identity.fmask", "the same for files only"),
    value(_O, "dmask", kinds.OCTAL, "identity.dmask", "the same for directories only"),
    flag(_M, "ro", "mount read-only", mount__read_only=True),
    flag(_M, "rw", "mount read-write (the default)", mount__read_only=False),
    flag(_M, "allow_other", "other users may use the mount", mount__allow_other=True),
    flag(_M, "allow_root", "root may use the mount", mount__allow_root=True),
    flag(
        _M,
        "default_permissions",
        "the kernel checks permissions by the modes shown",
        mount__default_permissions=True,
    ),
    value(_M, "fsname", kinds.TEXT, "mount.fsname", "the source shown in mount tables", "SOURCE"),
    value(_M, "subtype", kinds.TEXT, "mount.subtype", "the type shown, after 'fuse.'", "netfs"),
    flag(
        _P,
        "debug sshfs_debug",
        "log each request to standard error; stay in the foreground",
        daemon__debug=True,
        daemon__foreground=True,
    ),
    flag(_P, "verbose sshfs_verbose", "the same as log_level=debug", daemon__log_level="debug"),
    value(_P, "log_file", kinds.FILE, "daemon.log_file", "log to this file instead of syslog"),
    value(
        _P,
        "log_level",
        kinds.choice("debug", "info", "warning", "error"),
        "daemon.log_level",
        "the least that is logged",
        "info",
    ),
    value(
        _P,
        "metrics",
        kinds.ADDRESS,
        "daemon.metrics",
        "serve Prometheus metrics there (needs the extra netfs[metrics])",
    ),
    value(
        _P,
        "runtime_dir",
        kinds.DIRECTORY,
        "daemon.runtime_dir",
        "where control sockets are",
        "$XDG_RUNTIME_DIR/netfs or /run/netfs",
    ),
)

OPTIONS: Final[tuple[Option, ...]] = (
    *_OWN,
    *compat.FLAGS,
    *compat.SSH,
    *compat.ACCEPTED,
    *compat.FSTAB,
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
