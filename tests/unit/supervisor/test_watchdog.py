"""When a mount counts as stuck."""

from __future__ import annotations

import pytest

from netfs.supervisor.deaths import Deaths, backoff
from netfs.supervisor.watchdog import Sample, Verdict, Waiting, judge


def sample(
    beat_age: float, down_for: float | None, waiting_for: float | None, now: float = 1000.0
) -> Sample:
    return Sample(
        now=now,
        last_beat=now - beat_age,
        down_since=None if down_for is None else now - down_for,
        waiting_since=None if waiting_for is None else now - waiting_for,
    )


@pytest.mark.parametrize(
    ("beat_age", "down_for", "waiting_for", "abort_after", "verdict"),
    [
        (0, None, None, 300, Verdict.FINE),
        (0, None, 1e6, 300, Verdict.FINE),  # the link is up: a slow server is nobody's fault
        (0, 1e6, None, 300, Verdict.FINE),  # nobody waits
        (0, 299, 10, 300, Verdict.FINE),
        (0, 300, 10, 300, Verdict.LINK_LOST),
        (0, 300, 1, 300, Verdict.FINE),  # a single sample
        (29, None, 29, 300, Verdict.FINE),
        (30, None, 30, 300, Verdict.STUCK),
        (1e6, None, None, 300, Verdict.FINE),  # stuck, but nobody waits
        (1e6, 1e6, 1e6, 0, Verdict.FINE),  # never
        (5, None, 5, 5, Verdict.STUCK),
        (0, 2, 2, 2, Verdict.LINK_LOST),
        (400, 400, 400, 300, Verdict.STUCK),
    ],
)
def test_the_verdict(
    beat_age: float,
    down_for: float | None,
    waiting_for: float | None,
    abort_after: float,
    verdict: Verdict,
) -> None:
    assert judge(sample(beat_age, down_for, waiting_for), abort_after) is verdict


def test_callers_wait_only_as_long_as_every_look_finds_them() -> None:
    waiting = Waiting()
    waiting.look(1.0, 2, beats=True, reported=0)
    waiting.look(2.0, 1, beats=True, reported=0)
    assert waiting.since == 1.0
    waiting.look(3.0, 0, beats=True, reported=5)
    assert waiting.since is None


def test_without_the_kernel_s_number_the_worker_s_counts_while_it_beats() -> None:
    waiting = Waiting()
    waiting.look(1.0, None, beats=True, reported=0)
    assert waiting.since is None
    waiting.look(2.0, None, beats=False, reported=0)
    assert waiting.since == 2.0


def test_three_deaths_in_a_minute_are_too_many() -> None:
    deaths = Deaths()
    assert [deaths.add(now) for now in (0, 30, 60)] == [False, False, True]
    deaths = Deaths()
    assert [deaths.add(now) for now in (0, 30, 61, 91)] == [False, False, False, False]


def test_the_backoff_grows_to_half_a_minute() -> None:
    assert [backoff(attempt, 0.5) for attempt in (0, 1, 2, 5, 100)] == [1, 2, 4, 30, 30]
    assert backoff(0, 0.0) == 0.75
