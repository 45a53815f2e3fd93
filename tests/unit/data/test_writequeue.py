"""The order of a file's changes."""

from __future__ import annotations

from netfs.client.data.cache import BlockCache
from netfs.client.data.extents import OWN, ExtentMap
from netfs.client.data.writequeue import Flight, Setting, WriteQueue
from netfs.client.turns import Awaited
from netfs.sftp.attrs import Attrs

CHUNK = 16


class Bench:
    """A queue, and what became dirty."""

    def __init__(self, *, keep: bool = True) -> None:
        self.dirty = 0
        self.keep = keep
        self.cache = BlockCache(1 << 20)
        self.map = ExtentMap(self.cache)
        self.queue = WriteQueue(self.map, chunk=lambda: CHUNK, account=self.account)

    def account(self, delta: int) -> None:
        self.dirty += delta

    def take(self, *, force: bool = False) -> list[Flight | Setting]:
        found = []
        while (change := self.queue.next(force=force)) is not None:
            found.append(change)
        return found


def sent(flights) -> list[tuple[int, bytes]]:
    return [(flight.start, b"".join(flight.parts)) for flight in flights]


def test_small_writes_wait_to_be_joined():
    bench = Bench()
    for index in range(3):
        bench.queue.write(index * 4, b"%04d" % index)
    assert bench.take() == []
    bench.queue.write(12, b"0003tail")
    assert sent(bench.take()) == [(0, b"0000000100020003")]
    assert sent(bench.take(force=True)) == [(16, b"tail")]


def test_large_writes_are_cut_and_joined_across_their_borders():
    bench = Bench()
    bench.queue.write(0, bytes(range(20)))
    bench.queue.write(20, bytes(range(20, 40)))
    flights = sent(bench.take())
    assert flights == [(0, bytes(range(16))), (16, bytes(range(16, 32)))]
    assert sent(bench.take(force=True)) == [(32, bytes(range(32, 40)))]


def test_what_is_overwritten_unsent_is_never_sent():
    bench = Bench()
    bench.queue.write(0, b"aaaaaaaa")
    bench.queue.write(2, b"bbbb")
    assert sent(bench.take(force=True)) == [(0, b"aabbbbaa")]
    assert bench.dirty == 8


def test_a_write_over_bytes_under_way_waits_for_them():
    bench = Bench()
    bench.queue.write(0, b"a" * CHUNK)
    (first,) = bench.take()
    bench.queue.write(4, b"bbbb")
    assert bench.take(force=True) == []
    bench.queue.done(first, keep=bench.keep)
    assert sent(bench.take(force=True)) == [(4, b"bbbb")]


def test_a_wait_is_inherited_by_what_overwrites_the_waiting():
    bench = Bench()
    bench.queue.write(0, b"a" * CHUNK)
    (first,) = bench.take()
    bench.queue.write(4, b"bbbb")
    bench.queue.write(4, b"cccc")
    assert bench.take(force=True) == []
    bench.queue.done(first, keep=bench.keep)
    assert sent(bench.take(force=True)) == [(4, b"cccc")]


def test_other_places_do_not_wait():
    bench = Bench()
    bench.queue.write(0, b"a" * CHUNK)
    bench.take()
    bench.queue.write(100, b"b" * CHUNK)
    assert sent(bench.take()) == [(100, b"b" * CHUNK)]


def test_a_new_size_waits_and_holds_back():
    bench = Bench()
    bench.queue.write(0, b"a" * 10)
    bench.queue.set_attrs(Attrs(size=5))
    bench.queue.write(5, b"bb")
    flights = bench.take(force=True)
    assert sent(flights) == [(0, b"a" * 5)], "what the new size cuts off is not sent"
    bench.queue.done(flights[0], keep=bench.keep)
    (setting,) = bench.take(force=True)
    assert isinstance(setting, Setting)
    assert bench.take(force=True) == []
    bench.queue.done(setting, keep=bench.keep)
    assert sent(bench.take(force=True)) == [(5, b"bb")]


def test_other_settings_follow_the_writes_at_once():
    bench = Bench()
    bench.queue.write(0, b"aaaa")
    bench.queue.set_attrs(Attrs(mode=0o600))
    bench.queue.write(4, b"bbbb")
    write, setting, *rest = bench.take()
    assert sent([write]) == [(0, b"aaaa")]
    assert isinstance(setting, Setting)
    assert rest == [], "the last, small rest waits"


async def test_a_mark_is_reached_when_all_before_it_is_done():
    bench = Bench()
    reached: Awaited[None] = Awaited()
    bench.queue.write(0, b"aaaa")
    bench.queue.mark(reached)
    bench.queue.write(10, b"bbbb")
    (first,) = bench.take()
    assert not reached.done()
    (second,) = bench.take(force=True)
    bench.queue.done(second, keep=bench.keep)
    assert not reached.done()
    bench.queue.done(first, keep=bench.keep)
    assert reached.done()


async def test_a_mark_on_what_is_done_is_reached_at_once():
    bench = Bench()
    reached: Awaited[None] = Awaited()
    bench.queue.mark(reached)
    assert bench.take() == []
    assert reached.done()


def test_acknowledged_bytes_stay_for_reads_within_the_budget():
    bench = Bench()
    bench.queue.write(0, b"a" * CHUNK)
    (flight,) = bench.take()
    assert bench.cache.currsize == 0
    bench.queue.done(flight, keep=bench.keep)
    assert [extent.state for extent in bench.map] == [OWN]
    assert bench.cache.currsize > 0
    assert bench.dirty == 0


def test_nothing_stays_when_nothing_is_to_be_kept():
    bench = Bench(keep=False)
    bench.queue.write(0, b"a" * CHUNK)
    (flight,) = bench.take()
    bench.queue.done(flight, keep=bench.keep)
    assert list(bench.map) == []


def test_refused_bytes_are_forgotten():
    bench = Bench()
    bench.queue.write(0, b"a" * CHUNK)
    (flight,) = bench.take()
    bench.queue.write(4, b"bb")
    bench.queue.failed(flight)
    assert sent(bench.take(force=True)) == [(4, b"bb")]
    assert bench.dirty == 2


def test_everything_owed_can_be_taken_back():
    bench = Bench()
    bench.queue.write(0, b"a" * CHUNK)
    bench.take()
    bench.queue.write(100, b"bb")
    lost = [(offset, b"".join(parts)) for offset, parts in bench.queue.drop_all()]
    assert lost == [(0, b"a" * CHUNK), (100, b"bb")]


def test_random_writes_are_sent_in_the_order_of_their_places():
    bench = Bench()
    for offset in (50, 10, 30, 70, 90):
        bench.queue.write(offset, b"xxxx")
    assert [start for start, _ in sent(bench.take(force=True))] == [10, 30, 50, 70, 90]


def test_a_payload_in_a_much_larger_buffer_is_copied():
    bench = Bench()
    buffer = memoryview(bytearray(1 << 20))
    bench.queue.write(0, buffer[: 1 << 17])
    (extent,) = bench.map
    assert memoryview(extent.data.obj).nbytes == 1 << 17
