"""Tells the kernel what it must no longer believe, from a thread of its own.

Writing INVAL_ENTRY blocks for as long as any request for that directory is unanswered, INVAL_INODE
for as long as a READ of those pages is; answering them needs the event loop, so the loop never
writes one.  Requests never wait for a notification either.  Worse, a blocked INVAL_ENTRY waits for
the directory's lock as a writer, so every new lookup there waits behind it, unkillably: names of a
directory that has unanswered requests are held back.  When to notify is decided by
client/coherence.py and client/data.
"""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Final

from netfs.fuse import notify
from netfs.fuse.handshake import Capabilities

log = logging.getLogger(__name__)

MAX_QUEUED: Final = 65536
"""Names told about and not yet written.  More only pile up while one write blocks or the kernel is
flooded (a server pushing changes of a whole tree)."""

BUSY_RECHECK_S: Final = 0.05
"""How often directories with unanswered requests are looked at again."""

BUSY_LIMIT_S: Final = 2.0
"""How long a name is held back; then all names are made to be looked up again, which never blocks
(or, before 7.44, the name is written whatever happens)."""

PRUNE_BATCH: Final = 4096
"""Nodes per PRUNE, so that other notifications come between."""

_NORMAL: Final = frozenset(
    {
        errno.ENOENT,  # the kernel does not know the node or name
        errno.ENOTDIR,  # the node is no directory any more
        errno.ENOTEMPTY,
        errno.EBUSY,
    }
)

_ENDED: Final = frozenset({errno.ENODEV, errno.ECONNABORTED, errno.ENOTCONN, errno.EBADF})


@dataclass(frozen=True, slots=True, kw_only=True)
class NotifierStatistics:
    """A snapshot."""

    queued: int
    written: int
    unknown: int  # of them, the kernel did not know the node or name
    dropped: int  # names dropped because the queue was full


class Notifier:
    """Queue and thread.  All methods may be called from any thread and none but ``stop`` blocks.

    What is queued is coalesced: ranges of one inode grow together, and a name is queued once.
    """

    def __init__(
        self,
        write: Callable[[bytes], None],
        capabilities: Capabilities,
        *,
        busy: Callable[[], Collection[int]] = frozenset,
        clock: Callable[[], float] = time.monotonic,
        max_queued: int = MAX_QUEUED,
    ) -> None:
        """
        Args:
            write: writes one message to the device (``Device.notify``) and may block.
            busy: which nodeids have unanswered requests; called from the thread.
        """
        self._write = write
        self._can_expire = capabilities.can_expire
        self._can_increment_epoch = capabilities.can_increment_epoch
        self.can_prune = capabilities.can_prune
        self._busy = busy
        self._clock = clock
        self._max_queued = max_queued
        # Held to change the queue only, never while writing.
        self._changed = threading.Condition()
        self._inodes: dict[int, tuple[int, int]] = {}  # nodeid -> (offset, end); end 0: EOF
        self._attributes: dict[int, None] = {}
        # -> expire only, since when it is queued
        self._entries: dict[tuple[int, bytes], tuple[bool, float]] = {}
        self._prune: set[int] = set()
        self._epoch = False
        self._stopping = False
        self._written = 0
        self._unknown = 0
        self._dropped = 0
        self._thread = threading.Thread(target=self._run, name="netfs-notifier", daemon=True)

    def __repr__(self) -> str:
        return f"<Notifier queued={self._queued()} stopping={self._stopping}>"

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """Write what is queued and end.  Blocks up to *timeout_s*.

        Returns:
            False if a write still blocks; the thread then ends with it, at the latest when the
            device does, and keeps no process alive.
        """
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.ident is None:
            return True
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def statistics(self) -> NotifierStatistics:
        with self._changed:
            return NotifierStatistics(
                queued=self._queued(),
                written=self._written,
                unknown=self._unknown,
                dropped=self._dropped,
            )

    def invalidate_inode(self, nodeid: int, offset: int = 0, length: int = 0) -> None:
        """Drop attributes and cached pages (*length* 0: to the end)."""
        end = offset + length if length > 0 else 0
        with self._changed:
            self._attributes.pop(nodeid, None)  # it includes them
            known = self._inodes.get(nodeid)
            if known is not None:
                offset = min(offset, known[0])
                end = max(end, known[1]) if end and known[1] else 0
            self._inodes[nodeid] = (offset, end)
            self._changed.notify()

    def invalidate_attributes(self, nodeid: int) -> None:
        """Have the attributes asked anew at their next use; cached pages stay."""
        with self._changed:
            if nodeid not in self._inodes:
                self._attributes[nodeid] = None
                self._changed.notify()

    def invalidate_entry(self, parent: int, name: bytes) -> None:
        """Drop a name, at once; what is mounted below it is detached."""
        self._add_entry(parent, name, expire_only=False)

    def expire_entry(self, parent: int, name: bytes) -> None:
        """Have a name looked up anew at its next use (dropped, where the kernel can't)."""
        self._add_entry(parent, name, expire_only=self._can_expire)

    def prune(self, nodeids: Iterable[int]) -> None:
        """Ask the kernel to forget nodes that nobody uses (nothing, where it can't)."""
        if not self.can_prune:
            return
        with self._changed:
            if len(self._prune) < self._max_queued:
                self._prune.update(nodeids)
            self._changed.notify()

    def _add_entry(self, parent: int, name: bytes, *, expire_only: bool) -> None:
        with self._changed:
            if self._epoch and expire_only:
                return
            key = (parent, name)
            if key not in self._entries and len(self._entries) >= self._max_queued:
                self._overflow()
                if self._epoch and expire_only:
                    return
            was_expire_only, since = self._entries.get(key, (True, self._clock()))
            self._entries[key] = (expire_only and was_expire_only, since)
            self._changed.notify()

    def _overflow(self) -> None:
        """Make room: one new epoch has every name looked up again; else the oldest names go.

        A dropped name stays in the kernel until its time-out, as if nothing had been pushed.
        """
        if self._can_increment_epoch:
            self._epoch = True
            self._entries.clear()
            return
        if not self._dropped:
            log.warning("more than %d names to invalidate: dropping some", self._max_queued)
        del self._entries[next(iter(self._entries))]
        self._dropped += 1

    def _queued(self) -> int:
        names = len(self._entries) + self._epoch
        return len(self._inodes) + len(self._attributes) + names + len(self._prune)

    def _next(self) -> bytes | None:
        """The next message, waiting for one; None to end.  Data goes before names."""
        with self._changed:
            while True:
                if self._inodes:
                    nodeid, (offset, end) = self._inodes.popitem()
                    return notify.invalidate_inode(nodeid, offset, end - offset if end else 0)
                if self._attributes:
                    return notify.invalidate_inode(self._attributes.popitem()[0], -1)
                if self._epoch:
                    self._epoch = False
                    return notify.increment_epoch()
                message = self._next_entry()
                if message is not None:
                    return message
                if self._stopping:
                    return None
                if self._prune:
                    some = [self._prune.pop() for _ in range(min(len(self._prune), PRUNE_BATCH))]
                    return notify.prune(some)
                self._changed.wait(BUSY_RECHECK_S if self._entries else None)

    def _next_entry(self) -> bytes | None:
        """A name whose directory is at rest, or that has waited too long; None if there is none."""
        if not self._entries:
            return None
        unanswered = self._busy()
        busy: set[int] = set()
        late = self._clock() - BUSY_LIMIT_S
        for key, (expire_only, since) in self._entries.items():
            parent = key[0]
            is_late = since <= late
            if parent in busy or (parent in unanswered and not is_late):
                busy.add(parent)
                continue
            if is_late and parent in unanswered and self._can_increment_epoch:
                self._entries.clear()
                return notify.increment_epoch()
            del self._entries[key]
            return notify.invalidate_entry(*key, expire_only=expire_only)
        return None

    def _run(self) -> None:
        while (message := self._next()) is not None:
            try:
                self._write(message)
            except OSError as error:
                if error.errno in _ENDED:
                    return
                if error.errno in _NORMAL:
                    self._unknown += 1
                else:
                    log.warning("the kernel refuses a notification: %s", error)
            self._written += 1
