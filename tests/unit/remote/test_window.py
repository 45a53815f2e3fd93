"""The bulk window on a simulated way to the server."""

import pytest

from netfs.client.remote.window import BulkWindow, Mark, RoundTrip


def simulate(rate: float, rtt: float, seconds: float) -> tuple[BulkWindow, float, float]:
    """A sender that always has more, on a way of *rate* bytes/s: (window, rate, last queueing)."""
    round_trip = RoundTrip()
    window = BulkWindow(round_trip)
    block = 256 * 1024
    now = free_at = queueing = 0.0
    done = 0
    flying: list[tuple[float, float, Mark]] = []  # (answered at, sent at, mark)
    round_trip.sample(rtt, 0.0)
    while now < seconds:
        while window.has_room(block):
            free_at = max(free_at, now) + block / rate
            queueing = free_at - now - block / rate
            flying.append((free_at + rtt, now, window.sent(block, now)))
        now, sent_at, mark = flying.pop(0)
        window.answered(block, mark, sent_at, now)
        done += block
    return window, done / seconds, queueing


@pytest.mark.parametrize(
    ("rate", "rtt"), [(12.5e6, 0.02), (125e6, 0.02), (12.5e6, 0.1), (500e6, 0.0002), (1e6, 0.05)]
)
def test_the_way_is_kept_full_without_a_long_queue(rate: float, rtt: float) -> None:
    window, reached, queueing = simulate(rate, rtt, 10)
    assert reached > 0.85 * rate
    block = 256 * 1024 / rate
    assert queueing < 0.5 * rtt + 3 * block + 0.01
    assert window.rate == pytest.approx(rate, rel=0.2)


def test_one_request_may_always_be_under_way() -> None:
    window = BulkWindow(RoundTrip())
    assert window.has_room(1)
    window.sent(100 * 1024 * 1024, 0.0)
    assert not window.has_room(1)
    woken = []
    window.subscribe(lambda: woken.append(1))
    window.lost(100 * 1024 * 1024)
    assert window.has_room(1)
    assert woken


def test_a_longer_way_is_noticed_by_holding_the_bulk_back_for_a_moment() -> None:
    trip = RoundTrip()
    trip.sample(0.02, 0.0)
    trip.sample(0.3, 5.0)
    assert trip.shortest_s == 0.02
    assert not trip.is_probing
    trip.sample(0.3, 11.0)
    assert trip.is_probing
    trip.sample(0.25, 11.1)
    trip.sample(0.3, 11.5)
    assert not trip.is_probing
    assert trip.shortest_s == 0.25


def test_long_bulk_does_not_measure_its_own_queue() -> None:
    window, reached, queueing = simulate(12.5e6, 0.02, 60)
    assert reached > 0.85 * 12.5e6
    assert queueing < 0.04
    assert window.limit < 800_000


def test_answers_in_a_burst_after_a_pause_are_no_faster_way() -> None:
    window = BulkWindow(RoundTrip())
    size = 1000
    marks = [window.sent(size, 0.01 * n) for n in range(10)]
    for n, mark in enumerate(marks):  # all read at once, because the loop had stood still
        window.answered(size, mark, 0.01 * n, 1.0)
    mark = window.sent(size, 1.0)
    window.answered(size, mark, 1.0, 1.02)
    assert window.rate < 100_000
