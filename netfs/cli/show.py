"""What the tools print for people: aligned, coloured on a terminal.  Pure but for isatty."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Final

Body = dict[str, Any]

_COLOURS: Final = {"red": "31", "green": "32", "yellow": "33", "bold": "1"}


def colour(text: str, name: str) -> str:
    """*text* coloured where that is seen (https://no-color.org is respected)."""
    if "NO_COLOR" in os.environ or not sys.stdout.isatty():
        return text
    return f"\x1b[{_COLOURS[name]}m{text}\x1b[0m"


def plain(text: str) -> str:
    """*text* without control characters: names come from a server and go to a terminal."""
    return "".join(c if c.isprintable() else "�" for c in text.encode(errors="replace").decode())


def size(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def age(seconds: float) -> str:
    """A time span for people."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172800 else f"{seconds / 86400:.1f} days"


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """*rows* aligned in columns."""
    if not rows:
        return []
    widths = [max(len(plain(cell)) for cell in column) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            plain(cell).ljust(width) for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in rows
    ]


def is_healthy(body: Body) -> bool:
    """Whether the mount answers and its link is up."""
    supervisor = body.get("supervisor") or {}
    beat = supervisor.get("beat") or {}
    return bool(
        body.get("answered") and supervisor.get("state") == "mounted" and beat.get("link") == "up"
    )


def complaint(body: Body) -> str:
    """One line: what is not healthy."""
    if body.get("error"):
        return str(body["error"])
    supervisor = body["supervisor"]
    if supervisor["state"] != "mounted":
        return str(supervisor["reason"] or supervisor["state"])
    if not body.get("answered"):
        return "the worker does not answer"
    beat = supervisor["beat"]
    return f"the link is {beat.get('link', 'unknown')}: {beat.get('reason') or 'no reason known'}"


def status(body: Body) -> list[str]:
    """The page of one mount."""
    lines = [colour(f"{plain(body.get('source', '?'))} on {plain(body['mountpoint'])}", "bold")]
    if "supervisor" not in body:
        return [*lines, colour(f"  {body.get('error', 'no answer')}", "red")]
    supervisor = body["supervisor"]
    beat = supervisor["beat"]
    rows: list[tuple[str, str]] = []
    state = supervisor["state"]
    mark = "green" if state == "mounted" else "red"
    rows.append(("state", colour(state, mark) + _since(supervisor)))
    if supervisor["reason"]:
        rows.append(("reason", plain(supervisor["reason"])))
    if beat:
        rows.append(("link", _link(beat)))
        rows.append(
            (
                "requests",
                f"{beat.get('waiting', 0)} waiting"
                + (f", the oldest for {age(beat['oldest_s'])}" if beat.get("oldest_s") else ""),
            )
        )
        rows.append(("unsent data", size(beat.get("dirty", 0))))
    if not body.get("answered"):
        rows.append(("worker", colour("does not answer", "red")))
    rows += [(name, plain(str(value))) for name, value in (body.get("details") or {}).items()]
    if supervisor["remounts"]:
        rows.append(("mounted again", f"{supervisor['remounts']} times"))
    rows.append(("processes", f"{supervisor['pid']} (supervisor), {supervisor['worker_pid']}"))
    rows.append(("version", f"netfs {supervisor['version']}"))
    width = max(len(name) for name, _ in rows)
    lines += [f"  {name:<{width}}  {text}" for name, text in rows]
    if supervisor["lines"] and not is_healthy(body):
        lines.append("  last lines of the log:")
        lines += [f"    {plain(line)}" for line in supervisor["lines"][-8:]]
    return lines


def _since(supervisor: Body) -> str:
    waiting = supervisor.get("waiting")
    return "" if waiting is None else f" (the kernel counts {waiting} requests under way)"


def _link(beat: Body) -> str:
    link = str(beat.get("link", "unknown"))
    text = colour(link, "green" if link == "up" else "red")
    if beat.get("since_s") is not None:
        text += f" for {age(beat['since_s'])}"
    if beat.get("rtt_ms") is not None:
        text += f", round trip {beat['rtt_ms']:.1f} ms"
    if beat.get("reason"):
        text += f": {plain(str(beat['reason']))}"
    return text


def requests(rows: Iterable[Body]) -> list[str]:
    """``netfs ps``."""
    cells = [("PID", "COMMAND", "OPERATION", "AGE", "PATH")]
    cells += [
        (
            str(row["pid"] or "-"),
            str(row.get("command") or "-"),
            str(row["operation"]).lower() + (" (interrupted)" if row.get("interrupted") else ""),
            age(row["age_s"]),
            str(row["path"]),
        )
        for row in rows
    ]
    return table(cells)
