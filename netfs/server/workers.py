"""Threads for disk work that may block, as many as there are sessions that are blocked.

A session has at most one job here at a time, so ``limit`` sessions can all be stuck on a dead disk
before one waits for another.  The threads are daemons: one that never comes back (a hung NFS
server) does not keep the process from ending.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)


class Workers:
    """At most *limit* threads, started when needed and kept."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._busy = 0  # jobs queued or running

    def __repr__(self) -> str:
        return f"<Workers threads={self._threads} busy={self._busy}>"

    def submit(self, job: Callable[[], None]) -> None:
        """Have *job* run in a thread.  It must not raise (what it raises is logged)."""
        with self._lock:
            self._busy += 1
            start = self._busy > self._threads and self._threads < self._limit
            if start:
                self._threads += 1
        self._jobs.put(job)
        if start:
            threading.Thread(target=self._run, name="netfs-disk", daemon=True).start()

    def _run(self) -> None:
        while True:
            job = self._jobs.get()
            try:
                job()
            except BaseException:
                log.exception("a job of the disk threads failed")
            with self._lock:
                self._busy -= 1
