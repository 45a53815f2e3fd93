"""The bulk window on a simulated way to the server."""

import pytest

from netfs.client.remote.window import BulkWindow, RoundTrip


def simulate(rate: float, rtt: float, seconds: float) -> tuple[BulkWindow, float, float]:
    """A sender that always has more, on a way of *rate* bytes/s: (window, rate, last queueing)."""
    round_trip = RoundTrip()
    window = BulkWindow(round_trip)
    block = 256 * 1024
    now = free_at = queueing = 0.0
    done = 0
    flying: list[tuple[float, float, int]] = []  # (answered at, sent at, mark)
    round_trip.sample(rtt, 0.0)
    while now < seconds:
        while window.has_room():
            free_at = max(free_at, now) + block / rate
            queueing = free_at - now - block / rate
            flying.append((free_at + rtt, now, window.sent(block)))
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
    assert window.has_room()
    window.sent(100 * 1024 * 1024)
    assert not window.has_room()
    woken = []
    window.subscribe(lambda: woken.append(1))
    window.lost(100 * 1024 * 1024)
    assert window.has_room()
    assert woken


def test_a_shorter_round_trip_counts_at_once_and_is_forgotten_in_time() -> None:
    trip = RoundTrip()
    trip.sample(0.2, 0.0)
    trip.sample(0.1, 1.0)
    trip.sample(0.3, 2.0)
    assert trip.shortest_s == 0.1
    for second in range(3, 30):
        trip.sample(0.25, float(second))
    assert trip.shortest_s == 0.25
