"""Link states: the decisions of Pulse as a table, and the keeper's loop on a fake link."""

from __future__ import annotations

import asyncio
import itertools
import math

import pytest

from netfs.client.remote.errors import ConnectError, ConnectErrorKind
from netfs.client.remote.link import (
    HURRIED_S,
    LATE_S,
    SILENT_S,
    STOPPING,
    SUSPECT_S,
    LinkKeeper,
    LinkState,
    LinkStatus,
    Pulse,
    Signs,
    backoff,
)

UP, SUSPECT, DOWN = LinkState.UP, LinkState.SUSPECT, LinkState.DOWN


def idle(heard_at: float, acked_at: float | None = None) -> Signs:
    return Signs(heard_at, acked_at, None)


def waiting(heard_at: float, oldest_at: float, acked_at: float | None = None) -> Signs:
    return Signs(heard_at, acked_at, oldest_at)


def test_an_idle_link_is_probed_after_the_interval() -> None:
    pulse = Pulse(15, 3)
    assert pulse.decide(100, idle(100)).probe is False
    assert pulse.decide(114.9, idle(100)).probe is False
    assert pulse.decide(115, idle(100)) == (UP, True, 115 + SUSPECT_S)


def test_an_interval_of_zero_sends_nothing_when_idle() -> None:
    pulse = Pulse(0, 3)
    assert pulse.decide(1e6, idle(0)).probe is False


def test_a_late_request_is_followed_by_a_probe_at_once() -> None:
    pulse = Pulse(15, 3)
    first = pulse.decide(100, waiting(99, 100))
    assert first == (UP, False, 100 + LATE_S)
    assert pulse.decide(first.wake_at, waiting(99, 100)).probe is True


def test_a_request_is_not_late_while_other_answers_arrive() -> None:
    pulse = Pulse(15, 3)
    assert pulse.decide(110, waiting(109, 100)) == (UP, False, 109 + LATE_S)


def test_an_unanswered_probe_makes_the_link_suspect_and_an_answer_ends_that() -> None:
    pulse = Pulse(15, 3)
    assert pulse.decide(100, waiting(90, 90)).probe is True
    assert pulse.decide(100.5, waiting(90, 90)).state is UP
    assert pulse.decide(100 + SUSPECT_S, waiting(90, 90)).state is SUSPECT
    pulse.answered(102)
    assert pulse.decide(102, waiting(90, 90)) == (UP, False, 102 + LATE_S)


def test_anything_heard_after_the_probe_counts_as_its_answer() -> None:
    pulse = Pulse(15, 3)
    pulse.decide(100, waiting(90, 90))
    assert pulse.decide(105, waiting(101, 90)).state is UP


def test_a_silent_network_loses_the_link_soon_when_requests_wait() -> None:
    pulse = Pulse(15, 3)
    pulse.decide(100, waiting(90, 90, acked_at=90))
    assert pulse.decide(100 + SILENT_S - 0.1, waiting(90, 90, acked_at=90)).state is SUSPECT
    assert pulse.decide(100 + SILENT_S, waiting(90, 90, acked_at=90)).state is DOWN


def test_a_network_that_falls_silent_on_a_short_way_is_suspect_within_a_second() -> None:
    pulse = Pulse(15, 3)
    signs = Signs(heard_at=99, acked_at=99, oldest_at=100, round_trip_s=0.01)
    first = pulse.decide(100, signs)
    second = pulse.decide(first.wake_at, signs)
    assert second.probe
    third = pulse.decide(second.wake_at, signs)
    assert third.state is SUSPECT
    assert second.wake_at < 100.9
    assert pulse.decide(101, signs._replace(heard_at=100.9)).state is UP


def test_a_way_on_which_our_own_data_is_acknowledged_is_not_suspected_soon() -> None:
    pulse = Pulse(15, 3)
    signs = Signs(heard_at=99, acked_at=100.1, oldest_at=100, round_trip_s=0.01)
    probed_at = pulse.decide(100, signs).wake_at
    assert pulse.decide(probed_at, signs).probe
    for tenths in range(1, 10):
        now = probed_at + tenths / 10
        assert pulse.decide(now, signs._replace(acked_at=now - 0.05)).state is UP
    now = probed_at + SUSPECT_S
    assert pulse.decide(now, signs._replace(acked_at=now)).state is SUSPECT


def test_a_long_way_is_given_as_much_time_as_an_unknown_one() -> None:
    pulse = Pulse(15, 3)
    signs = Signs(heard_at=99, acked_at=99, oldest_at=100, round_trip_s=0.8)
    assert pulse.decide(100, signs).wake_at == 100 + LATE_S
    assert pulse.decide(102, signs) == (UP, True, 102 + SUSPECT_S)


def test_a_busy_server_behind_a_live_network_gets_the_whole_time() -> None:
    pulse = Pulse(15, 3)
    pulse.decide(100, waiting(90, 90, acked_at=100))
    assert pulse.decide(144, waiting(90, 90, acked_at=143)).state is SUSPECT
    assert pulse.decide(145, waiting(90, 90, acked_at=144)).state is DOWN


def test_a_slow_line_full_of_our_own_data_is_not_lost_while_tcp_is_acknowledged() -> None:
    pulse = Pulse(15, 3)
    pulse.decide(100, waiting(90, 90, acked_at=100))
    for now in range(101, 144):
        assert pulse.decide(now, waiting(90, 90, acked_at=now - 1)).state is not DOWN


def test_without_knowledge_of_tcp_the_whole_time_is_waited() -> None:
    pulse = Pulse(15, 3)
    pulse.decide(100, waiting(90, 90))
    assert pulse.decide(144.9, waiting(90, 90)).state is SUSPECT
    assert pulse.decide(145, waiting(90, 90)).state is DOWN


def test_an_idle_link_has_an_interval_of_silence_before_it_is_lost() -> None:
    pulse = Pulse(15, 3)
    pulse.decide(115, idle(100, acked_at=100))
    assert pulse.decide(129.9, idle(100, acked_at=100)).state is SUSPECT
    assert pulse.decide(130, idle(100, acked_at=100)).state is DOWN


def test_after_a_change_of_network_a_probe_goes_out_and_little_silence_is_enough() -> None:
    pulse = Pulse(15, 3)
    pulse.hurry()
    assert pulse.decide(101, idle(100, acked_at=100)).probe is True
    assert pulse.decide(101 + HURRIED_S, idle(100, acked_at=100)).state is DOWN


@pytest.mark.parametrize("acked", [None, 0.0, 99.0])
@pytest.mark.parametrize("oldest", [None, 0.0, 99.0])
@pytest.mark.parametrize("interval", [0.0, 1.0, 15.0])
def test_every_decision_looks_again_in_time(
    acked: float | None, oldest: float | None, interval: float
) -> None:
    pulse = Pulse(interval, 3)
    now = 100.0
    for _ in range(50):
        decision = pulse.decide(now, Signs(99.0, acked, oldest))
        if decision.state is DOWN or math.isinf(decision.wake_at):
            break
        assert now < decision.wake_at or decision.state is DOWN
        assert decision.wake_at - now <= max(LATE_S, interval)
        now = decision.wake_at


def test_backoff_begins_at_once_grows_and_stays_below_fifteen_seconds() -> None:
    longest = list(itertools.islice(backoff(lambda: 0.0), 10))
    shortest = list(itertools.islice(backoff(lambda: 1.0), 10))
    assert longest == [0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0, 15.0]
    assert shortest == [delay / 2 for delay in longest]


def test_every_kind_that_may_not_be_retried_is_settled() -> None:
    config = {ConnectErrorKind.BAD_CONFIG, ConnectErrorKind.NO_ALGORITHM}  # repaired by a file
    for kind in ConnectErrorKind:
        assert kind.may_retry is not (kind in STOPPING or kind in config), kind


class FakeLive:
    """A link whose life the test decides."""

    def __init__(self) -> None:
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self.heard_at = 0.0
        self.probes = 0
        self.answers = True
        self.aborted = False

    def signs(self) -> Signs:
        return Signs(self.heard_at, None, None)

    async def probe(self) -> None:
        self.probes += 1
        if not self.answers:
            await asyncio.Event().wait()

    async def wait_lost(self) -> Exception | None:
        return await asyncio.shield(self.lost)

    def abort(self) -> None:
        self.aborted = True


class Bench:
    """A keeper with a dialler that does what the test queued."""

    def __init__(self, interval_s: float = 15.0) -> None:
        self.states: list[LinkState] = []
        self.outcomes: asyncio.Queue[FakeLive | Exception] = asyncio.Queue()
        self.dials = 0
        self.keeper: LinkKeeper[FakeLive] = LinkKeeper(
            self._dial,
            lambda: Pulse(interval_s, 1),
            asyncio.get_running_loop().time,
            self._on_state,
            jitter=lambda: 1.0,
        )

    async def _dial(self) -> FakeLive:
        self.dials += 1
        outcome = await self.outcomes.get()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def _on_state(self, status: LinkStatus) -> None:
        if not self.states or self.states[-1] is not status.state:
            self.states.append(status.state)

    async def until(self, state: LinkState) -> None:
        async with asyncio.timeout(20):
            while self.keeper.status.state is not state:
                await asyncio.sleep(0.001)


async def test_a_lost_link_is_aborted_and_replaced() -> None:
    bench = Bench()
    first, second = FakeLive(), FakeLive()
    running = asyncio.ensure_future(bench.keeper.run(first))
    assert await bench.keeper.wait_live() is first
    first.lost.set_result(OSError("reset"))
    await bench.until(LinkState.CONNECTING)
    assert first.aborted
    assert bench.keeper.live is None
    bench.outcomes.put_nowait(second)
    assert await bench.keeper.wait_live() is second
    assert bench.states == [UP, DOWN, LinkState.CONNECTING, UP]
    assert bench.keeper.status.reconnects == 1
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert second.aborted


async def test_a_network_failure_is_tried_again() -> None:
    bench = Bench()
    bench.outcomes.put_nowait(ConnectError(ConnectErrorKind.REFUSED, "refused"))
    bench.outcomes.put_nowait(FakeLive())
    running = asyncio.ensure_future(bench.keeper.run(None))
    async with asyncio.timeout(5):
        await bench.keeper.wait_live()
    assert bench.dials == 2
    running.cancel()


@pytest.mark.parametrize("kind", list(STOPPING))
async def test_what_a_person_must_settle_is_not_tried_again_alone(kind: ConnectErrorKind) -> None:
    bench = Bench()
    bench.outcomes.put_nowait(ConnectError(kind, "no"))
    running = asyncio.ensure_future(bench.keeper.run(None))
    await bench.until(STOPPING[kind])
    bench.keeper.nudge()
    for _ in range(20):
        await asyncio.sleep(0)
    assert bench.dials == 1
    bench.keeper.retry()
    bench.outcomes.put_nowait(FakeLive())
    async with asyncio.timeout(5):
        await bench.keeper.wait_live()
    running.cancel()


async def test_without_reconnect_the_loss_is_returned() -> None:
    bench = Bench()
    live = FakeLive()
    running = asyncio.ensure_future(bench.keeper.run(live, reconnect=False))
    await bench.keeper.wait_live()
    live.lost.set_result(OSError("reset"))
    assert isinstance(await running, OSError)


async def test_a_silent_link_is_probed_suspected_and_given_up() -> None:
    bench = Bench(interval_s=0.02)
    live = FakeLive()
    live.heard_at = asyncio.get_running_loop().time()
    live.answers = False
    running = asyncio.ensure_future(bench.keeper.run(live))
    await bench.until(LinkState.CONNECTING)
    assert live.probes == 1
    assert live.aborted
    running.cancel()


async def test_an_answered_probe_keeps_the_link() -> None:
    bench = Bench(interval_s=0.01)
    live = FakeLive()
    running = asyncio.ensure_future(bench.keeper.run(live))
    async with asyncio.timeout(5):
        while live.probes < 3:
            await asyncio.sleep(0.001)
    assert bench.states == [UP]
    running.cancel()


async def test_a_nudge_probes_at_once() -> None:
    bench = Bench()
    live = FakeLive()
    live.heard_at = asyncio.get_running_loop().time()
    running = asyncio.ensure_future(bench.keeper.run(live))
    await bench.keeper.wait_live()
    await asyncio.sleep(0)
    bench.keeper.nudge()
    async with asyncio.timeout(5):
        while not live.probes:
            await asyncio.sleep(0.001)
    running.cancel()


@pytest.mark.parametrize(
    ("kind", "soon"), [(ConnectErrorKind.LOST, 3.0), (ConnectErrorKind.NO_SFTP, 15.0)]
)
async def test_an_attempt_without_login_is_repeated_soon_in_the_first_minute(
    kind: ConnectErrorKind, soon: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    pauses: list[tuple[float, float]] = []  # when, how long

    async def pause(seconds: float) -> None:
        nonlocal now
        pauses.append((now - 1000, seconds))
        now += seconds
        await asyncio.sleep(0)

    async def dial() -> FakeLive:
        raise ConnectError(kind, "no")

    keeper: LinkKeeper[FakeLive] = LinkKeeper(
        dial, lambda: Pulse(15, 3), lambda: now, lambda status: None, jitter=lambda: 0.0
    )
    monkeypatch.setattr(keeper, "_pause", pause)
    running = asyncio.ensure_future(keeper.run(None))
    async with asyncio.timeout(5):
        while now < 1200:
            await asyncio.sleep(0)
    running.cancel()
    assert max(seconds for when, seconds in pauses if when < 57) == soon
    assert pauses[-1][1] == 15


@pytest.mark.parametrize("where", ["dialling", "probing", "looking", "a probe given up"])
async def test_a_bug_costs_a_link_and_never_the_mount(
    where: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(interval_s=0.01)
    first, second = FakeLive(), FakeLive()

    async def fail() -> None:
        raise asyncio.CancelledError if where == "a probe given up" else RuntimeError("a bug")

    def look() -> Signs:
        raise RuntimeError("a bug")

    if where == "looking":
        monkeypatch.setattr(first, "signs", look)
    elif where == "dialling":
        first.lost.set_result(None)
        bench.outcomes.put_nowait(RuntimeError("a bug"))
    else:
        monkeypatch.setattr(first, "probe", fail)
    bench.outcomes.put_nowait(second)
    running = asyncio.ensure_future(bench.keeper.run(first))
    async with asyncio.timeout(20):
        while bench.keeper.live is not second:
            await asyncio.sleep(0.001)
    assert first.aborted
    if where not in ("probing", "a probe given up"):  # a failed probe is a lost link, no more
        assert "a bug" in caplog.text
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
