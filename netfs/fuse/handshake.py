"""INIT: what is asked of the kernel, what is refused, and why.

A pure function of the kernel's offer.  Every capability the protocol knows is in exactly one of
the three tables; bits that are newer than the tables are ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from netfs.fuse import abi
from netfs.fuse.abi import InitFlag
from netfs.fuse.errors import UnsupportedVersion
from netfs.fuse.requests import Init

ASKED: Final[Mapping[InitFlag, str]] = {
    InitFlag.ASYNC_READ: "several READs of one file at a time; without it read-ahead is serial",
    InitFlag.ATOMIC_O_TRUNC: "O_TRUNC comes with OPEN: one round trip instead of two",
    InitFlag.BIG_WRITES: "WRITEs of more than 4 KiB",
    InitFlag.DO_READDIRPLUS: "a listing brings the attributes that SFTP sends anyway",
    InitFlag.PARALLEL_DIROPS: "one slow LOOKUP does not hold up the others of its directory",
    InitFlag.ABORT_ERROR: "an aborted connection (ECONNABORTED) differs from an unmount (ENODEV)",
    InitFlag.MAX_PAGES: "requests of 1 MiB instead of 128 KiB",
    InitFlag.CACHE_SYMLINKS: "a link's target is asked once",
    InitFlag.INIT_EXT: "the second word of flags",
    InitFlag.DIRECT_IO_ALLOW_MMAP: "shared mmap under -o direct_io",
}

OFFER_ONLY: Final[Mapping[InitFlag, str]] = {
    InitFlag.HAS_EXPIRE_ONLY: "tells that INVAL_ENTRY knows EXPIRE_ONLY; nothing to agree on",
    InitFlag.HAS_RESEND: "tells that NOTIFY_RESEND is known; nothing to agree on",
}

REFUSED: Final[Mapping[InitFlag, str]] = {
    InitFlag.POSIX_LOCKS: "SFTP has no locks: the kernel's local ones work, ours could only fail",
    InitFlag.FLOCK_LOCKS: "as POSIX_LOCKS",
    InitFlag.READDIRPLUS_AUTO: "nearly all who walk look at each name: a LOOKUP costs twenty times"
    " what an entry does, and find and rm read a directory to its end before the first one",
    InitFlag.FILE_OPS: "has no meaning since 7.9",
    InitFlag.EXPORT_SUPPORT: "NFS would need nodes that outlive FORGET",
    InitFlag.NO_EXPORT_SUPPORT: "handles of cached names do no harm, and some tools use them",
    InitFlag.DONT_MASK: "SFTP servers take the mode as it is: the kernel applies the umask",
    InitFlag.SPLICE_WRITE: "concerns how the daemon writes; it does not splice",
    InitFlag.SPLICE_MOVE: "as SPLICE_WRITE",
    InitFlag.SPLICE_READ: "as SPLICE_WRITE",
    InitFlag.HAS_IOCTL_DIR: "there are no ioctls",
    InitFlag.AUTO_INVAL_DATA: "own writes change mtime and would throw away the own page cache",
    InitFlag.EXPLICIT_INVAL_DATA: "a page must go before a reader sees the new size: a notification"
    " comes after it, and meanwhile the page shows zeros where a file has grown",
    InitFlag.ASYNC_DIO: "O_DIRECT callers would wait unkillably and never be interrupted",
    InitFlag.WRITEBACK_CACHE: "the kernel would own size and mtime: remote changes stay unseen",
    InitFlag.NO_OPEN_SUPPORT: "without OPEN there is no close-to-open consistency",
    InitFlag.NO_OPENDIR_SUPPORT: "a listing belongs to its open directory",
    InitFlag.HANDLE_KILLPRIV: "the kernel's own GETATTR and SETATTR before a write does it right",
    InitFlag.HANDLE_KILLPRIV_V2: "as HANDLE_KILLPRIV; SFTP can't clear the bits atomically either",
    InitFlag.POSIX_ACL: "SFTP has no ACLs, and it forces default_permissions",
    InitFlag.MAP_ALIGNMENT: "DAX of virtiofs only",
    InitFlag.HAS_INODE_DAX: "DAX of virtiofs only",
    InitFlag.SUBMOUNTS: "the server's mounts are not told apart",
    InitFlag.SETXATTR_EXT: "there are no extended attributes",
    InitFlag.INIT_RESERVED: "reserved by the protocol",
    InitFlag.SECURITY_CTX: "extensions in CREATE that SFTP can't carry",
    InitFlag.CREATE_SUPP_GROUP: "as SECURITY_CTX",
    InitFlag.PASSTHROUGH: "there is no local file behind a remote one",
    InitFlag.ALLOW_IDMAP: "identity has a policy of its own, and it forces default_permissions",
    InitFlag.OVER_IO_URING: "no gain at network latency; notifications need the device anyway",
    InitFlag.REQUEST_TIMEOUT: "it aborts the whole mount for one late request",
}

MAX_PAGES: Final = 256
"""1 MiB per request, the kernel's limit unless fs.fuse.max_pages_limit is raised."""

MAX_WRITE: Final = MAX_PAGES * abi.PAGE_SIZE  # bytes

MAX_BACKGROUND: Final = 128
"""Read-ahead and RELEASE in flight (the kernel's default of 12 starves read-ahead of 4 MiB)."""

CONGESTION_THRESHOLD: Final = MAX_BACKGROUND * 3 // 4
"""Where the kernel begins to skip read-ahead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What INIT agreed on."""

    minor: int
    flags: int  # agreed: abi.InitFlag
    offered: int  # by the kernel: abi.InitFlag
    max_write: int  # bytes
    max_readahead: int  # bytes
    max_pages: int
    time_gran_ns: int

    def has(self, flag: InitFlag) -> bool:
        """Whether *flag* was agreed on."""
        return bool(self.flags & flag)

    @property
    def can_expire(self) -> bool:
        """INVAL_ENTRY understands EXPIRE_ONLY."""
        return bool(self.offered & InitFlag.HAS_EXPIRE_ONLY)

    @property
    def can_increment_epoch(self) -> bool:
        """INC_EPOCH is known."""
        return self.minor >= 44

    @property
    def can_prune(self) -> bool:
        """PRUNE is known."""
        return self.minor >= 45


def negotiate(
    init: Init, *, cache_symlinks: bool = True, time_gran_ns: int = 1
) -> tuple[Capabilities, bytes]:
    """Answer an INIT.

    Args:
        init: the kernel's offer.
        cache_symlinks: whether targets may stay in the kernel until they are invalidated.
        time_gran_ns: resolution of the server's times; a power of ten up to 10**9.

    Returns:
        What is agreed on, and the body of the reply.

    Raises:
        UnsupportedVersion: the kernel is too old.
    """
    if init.major != abi.MAJOR or init.minor < abi.MINOR_MIN:
        raise UnsupportedVersion(
            f"the kernel speaks FUSE {init.major}.{init.minor}; "
            f"netfs needs {abi.MAJOR}.{abi.MINOR_MIN} (Linux 5.4) or later"
        )
    asked = 0
    for flag in ASKED:
        asked |= flag
    if not cache_symlinks:
        asked &= ~InitFlag.CACHE_SYMLINKS
    flags = int(init.flags & asked)
    max_pages = MAX_PAGES if flags & InitFlag.MAX_PAGES else 32
    capabilities = Capabilities(
        minor=min(init.minor, abi.MINOR_MAX),
        flags=flags,
        offered=init.flags,
        max_write=max_pages * abi.PAGE_SIZE,
        max_readahead=init.max_readahead,
        max_pages=max_pages,
        time_gran_ns=time_gran_ns,
    )
    body = abi.INIT_OUT.pack(
        abi.MAJOR,
        capabilities.minor,
        capabilities.max_readahead,
        flags & 0xFFFFFFFF,
        MAX_BACKGROUND,
        CONGESTION_THRESHOLD,
        capabilities.max_write,
        time_gran_ns,
        capabilities.max_pages if flags & InitFlag.MAX_PAGES else 0,
        0,
        flags >> 32,
        0,
        0,
        *(0,) * 11,
    )
    return capabilities, body
