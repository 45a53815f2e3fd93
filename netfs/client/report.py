"""What a mount tells about itself: beats for the watchdog, answers for ``netfs status`` and ``ps``.

Only reads; every number comes from the part that owns it.
"""

from __future__ import annotations

import asyncio
import os
import resource
import time
from typing import TYPE_CHECKING, Any, Final

from netfs import __version__

if TYPE_CHECKING:
    from netfs.client.data.files import FileStatistics
    from netfs.client.dispatcher import Dispatcher
    from netfs.client.nodes import NodeTable
    from netfs.client.parts import Parts
    from netfs.client.remote.link import LinkStatus
    from netfs.client.remote.session import Session, SessionStatistics

Body = dict[str, Any]

_MOST_ROWS: Final = 200
"""Requests that ``netfs ps`` shows; one message between the processes holds them."""

_PAGE: Final = resource.getpagesize()


class Report:
    """The reporter of one worker; the parts appear while it starts."""

    def __init__(self) -> None:
        self.session: Session | None = None
        self.parts: Parts | None = None
        self._down_since: float | None = None

    # --- each second ----------------------------------------------------------------------

    def beat(self) -> Body:
        """The watchdog's view, and the first lines of the status."""
        now = time.monotonic()
        body: Body = {"waiting": 0, "link": "connecting", "down_s": None}
        if self.session is not None:
            body.update(self._link(self.session.status, now))
            round_trip_s = self.session.links.round_trip.shortest_s
            body["rtt_ms"] = round(round_trip_s * 1e3, 2) or None
        if self.parts is not None:
            rows = self.parts.dispatcher.in_flight()
            body["waiting"] = len(rows)
            if rows:
                body["oldest_s"] = round(now - rows[0].since, 3)
            body["dirty"] = self.parts.context.files.statistics().dirty
        return body

    # --- on request -----------------------------------------------------------------------

    def status(self) -> Body:
        """Everything ``netfs status --json`` shows beside the supervisor's own."""
        body: Body = {"beat": self.beat(), "version": __version__}
        session, parts = self.session, self.parts
        if session is None or parts is None:
            return body
        files = parts.context.files.statistics()
        body["link"] = {
            **self._link(session.status, time.monotonic()),
            "extensions": sorted(name.decode(errors="replace") for name in session.extensions),
            "limits": session.limits._asdict(),
        }
        body["session"] = _session(session.statistics())
        body["files"] = _files(files)
        body["names"] = _names(parts.context.nodes)
        body["requests"] = _requests(parts.dispatcher)
        body["notifier"] = {
            name: getattr(parts.notifier.statistics(), name)
            for name in ("queued", "written", "unknown", "dropped")
        }
        body["memory"] = memory()
        body["tasks"] = len(asyncio.all_tasks())
        body["fuse"] = {
            "minor": parts.context.capabilities.minor,
            "max_write": parts.context.capabilities.max_write,
        }
        body["details"] = _details(body)
        return body

    def ps(self) -> Body:
        """The requests that wait, oldest first."""
        if self.parts is None:
            return {"requests": []}
        now = time.monotonic()
        nodes = self.parts.context.nodes
        rows = [
            {
                "unique": row.unique,
                "pid": row.pid,
                "command": command(row.pid),
                "operation": row.opcode,
                "path": path_of(nodes, row.nodeid),
                "age_s": round(now - row.since, 3),
                "interrupted": row.interrupted,
            }
            for row in self.parts.dispatcher.in_flight()[:_MOST_ROWS]
        ]
        return {"requests": rows}

    def _link(self, status: LinkStatus, now: float) -> Body:
        if status.state.is_usable:
            self._down_since = None
        elif self._down_since is None:
            self._down_since = now
        return {
            "link": status.state.value,
            "since_s": round(now - status.since, 3),
            # over all states in which nothing gets through, unlike since_s
            "down_s": None if self._down_since is None else round(now - self._down_since, 3),
            "reason": status.reason,
            "reconnects": status.reconnects,
            "attempts": status.attempts,
        }


def _session(found: SessionStatistics) -> Body:
    body = found._asdict()
    body["channels"] = [channel._asdict() for channel in found.channels]
    return body


def _files(files: FileStatistics) -> Body:
    body = files._asdict()
    body["losses"] = [
        {
            "path": os.fsdecode(loss.path),
            "size": loss.size,
            "reason": loss.reason,
            "saved_as": loss.saved_as,
        }
        for loss in files.losses[-20:]
    ]
    return body


def _names(nodes: NodeTable) -> Body:
    return {"known": len(nodes), "limit": nodes.max_entries}


def _requests(dispatcher: Dispatcher) -> Body:
    found = dispatcher.counters.statistics()
    return {
        "by_operation": found.requests,
        "errors": found.errors,
        "total": sum(found.requests.values()),
        "waited": found.waited,
        "interrupts": found.interrupts,
        "interrupted": found.interrupted,
        "latency": list(found.latency),
    }


def _details(body: Body) -> dict[str, str]:
    """The lines ``netfs status`` prints for people."""
    files, names = body["files"], body["names"]
    reads = files["hits"] + files["misses"]
    details = {
        "content cached": f"{_mib(files['cached'])} of {_mib(files['cache_size'])}",
        "names cached": f"{names['known']} of {names['limit']}",
        "open files": str(files["open_files"]),
        "requests so far": str(body["requests"]["total"]),
        "memory": _mib(body["memory"]),
    }
    if reads:
        details["reads from cache"] = f"{100 * files['hits'] / reads:.0f} %"
    if body["link"]["reconnects"]:
        details["reconnects"] = str(body["link"]["reconnects"])
    for number, loss in enumerate(files["losses"], 1):
        details[f"not delivered {number}"] = (
            f"{loss['path']}: {loss['size']} bytes ({loss['reason']}); "
            f"saved in {loss['saved_as'] or 'nowhere'}"
        )
    return details


def _mib(size: float) -> str:
    return f"{size / (1 << 20):.1f} MiB"


def memory() -> int:
    """Resident bytes of this process, 0 where /proc does not tell."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE
    except (OSError, ValueError, IndexError):
        return 0


def command(pid: int) -> str | None:
    """The name of the process behind a request.

    ``comm`` comes from the kernel alone; cmdline would be read from the process's memory, which
    may be a page of this very mount.
    """
    try:
        with open(f"/proc/{pid}/comm", "rb") as file:
            return file.read().decode(errors="replace").strip()
    except OSError:
        return None  # it is gone, or in another pid namespace


def path_of(nodes: NodeTable, nodeid: int) -> str:
    """The path below the mountpoint of what a request is about."""
    node = nodes.find(nodeid)
    if node is None:
        return "?"
    try:
        return "/" + os.fsdecode(nodes.local_path(node))
    except OSError:
        return "(removed)"
