"""When a mount is stuck: the watchdog's policy.  Pure; looking and acting belong elsewhere."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

STUCK_AFTER_S: Final = 30.0
"""A loop that has not turned for so long hangs: no step of the worker takes a second."""

SETTLE_S: Final = 3.0
"""Callers must have waited for some samples: a single one may be a request just being answered."""


class Verdict(enum.Enum):
    """What to do about the mount."""

    FINE = "nothing"
    LINK_LOST = "abort: callers wait for a link that does not come back"
    STUCK = "abort, and end the worker: it does not turn its loop"


@dataclass(frozen=True, slots=True)
class Sample:
    """What was seen at one moment (monotonic seconds)."""

    now: float
    last_beat: float  # when the worker last said that its loop turns
    down_since: float | None  # since when the link is down, as the worker said
    waiting_since: float | None  # since when every look found callers waiting


def judge(sample: Sample, abort_after_s: float) -> Verdict:
    """Decide; *abort_after_s* 0 means never."""
    if abort_after_s == 0 or sample.waiting_since is None:
        return Verdict.FINE
    if sample.now - sample.waiting_since < min(SETTLE_S, abort_after_s):
        return Verdict.FINE
    if sample.now - sample.last_beat >= min(STUCK_AFTER_S, abort_after_s):
        return Verdict.STUCK
    if sample.down_since is not None and sample.now - sample.down_since >= abort_after_s:
        return Verdict.LINK_LOST
    return Verdict.FINE


@dataclass(slots=True)
class Waiting:
    """Since when callers wait, over many looks."""

    since: float | None = None

    def look(self, now: float, count: int | None, *, beats: bool, reported: int) -> None:
        """Take one look in.

        *count* is the kernel's number, None where it can't be read.  Then the worker's own number
        counts while it *beats*; a silent worker is taken to keep callers waiting.
        """
        if count is None:
            count = reported if beats else 1
        if count == 0:
            self.since = None
        elif self.since is None:
            self.since = now
