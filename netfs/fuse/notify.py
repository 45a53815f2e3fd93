"""Notifications to the kernel: whole messages, ready to be written.

Writing some of them blocks while requests are unanswered: see client/notifier.py.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from netfs.fuse import abi


def _message(code: int, body: bytes) -> bytes:
    return abi.OUT_HEADER.pack(abi.OUT_HEADER.size + len(body), code, 0) + body


def invalidate_inode(nodeid: int, offset: int = 0, length: int = 0) -> bytes:
    """Drop attributes and the cached pages of a range.

    Args:
        offset: first byte; negative: attributes only.
        length: bytes; 0: to the end of the file.
    """
    return _message(abi.NOTIFY_INVAL_INODE, abi.NOTIFY_INVAL_INODE_OUT.pack(nodeid, offset, length))


def invalidate_entry(parent: int, name: bytes, *, expire_only: bool = False) -> bytes:
    """Drop a name of a directory, or (7.38) only ask for it at its next use."""
    flags = abi.EXPIRE_ONLY if expire_only else 0
    body = abi.NOTIFY_INVAL_ENTRY_OUT.pack(parent, len(name), flags) + name + b"\0"
    return _message(abi.NOTIFY_INVAL_ENTRY, body)


def increment_epoch() -> bytes:
    """Have every name looked up anew at its next use (7.44)."""
    return _message(abi.NOTIFY_INC_EPOCH, b"")


def prune(nodeids: Sequence[int]) -> bytes:
    """Ask for FORGETs of nodes that no caller uses (7.45)."""
    body = abi.NOTIFY_PRUNE_OUT.pack(len(nodeids), 0, 0)
    return _message(abi.NOTIFY_PRUNE, body + struct.pack(f"={len(nodeids)}Q", *nodeids))
