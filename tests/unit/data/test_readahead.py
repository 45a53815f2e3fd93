"""The read-ahead planner, on traces of reads."""

from __future__ import annotations

import itertools

import pytest

from netfs.client.data.readahead import ReadAhead

KIB = 1024
MIB = 1024 * KIB
BIG = 1 << 40


def replay(reads, *, file_size: int = BIG, limit: int = 8 * MIB):
    """(bytes planned and read later, bytes planned in all, plans) of a trace."""
    ahead = ReadAhead()
    planned: list[tuple[int, int]] = []
    plans = []
    for offset, size in reads:
        plan = ahead.plan(offset, size, file_size, lambda: limit)
        for start, end in plan:
            assert 0 <= start < end <= file_size
        plans.append(plan)
        planned += plan
    wanted = set()
    for offset, size in reads:
        wanted.update(range(offset // KIB, (offset + size) // KIB))
    total = sum(end - start for start, end in planned)
    used = sum(KIB * (page in wanted) for s, e in planned for page in range(s // KIB, e // KIB))
    return used, total, plans


def sequential(size: int, count: int, start: int = 0):
    return [(start + index * size, size) for index in range(count)]


def test_a_first_read_at_the_start_brings_a_quarter_megabyte():
    _, _, plans = replay([(0, 16 * KIB)])
    assert plans == [[(16 * KIB, 256 * KIB)]]


def test_nothing_is_planned_behind_the_end():
    _, _, plans = replay([(0, 16 * KIB)], file_size=20 * KIB)
    assert plans == [[(16 * KIB, 20 * KIB)]]


def test_a_sequential_reader_has_the_whole_window_ahead():
    used, total, plans = replay(sequential(128 * KIB, 800), limit=8 * MIB)
    assert used > total * 0.9
    ahead = [plan[-1][1] for plan in plans if plan][-1]
    assert ahead - 799 * 128 * KIB > 4 * MIB


def test_what_found_no_room_is_planned_again():
    ahead = ReadAhead()
    first, second = sequential(MIB, 2)
    ((start, end),) = ahead.plan(*first, BIG, lambda: 8 * MIB)
    ahead.reached(start + 1000)
    assert ahead.plan(*second, BIG, lambda: 8 * MIB)[0][0] == max(start + 1000, 2 * MIB) < end


def test_the_window_grows_with_what_was_read():
    for count in (1, 2, 4, 8, 16):
        _, total, _ = replay(sequential(128 * KIB, count), limit=64 * MIB)
        assert total <= 256 * KIB + 3 * count * 128 * KIB


def test_each_byte_is_planned_once():
    _, _, plans = replay(sequential(128 * KIB, 300))
    ranges = sorted(r for plan in plans for r in plan)
    assert all(one[1] <= other[0] for one, other in itertools.pairwise(ranges))


def test_random_reads_plan_nothing():
    offsets = [977 * index * index % 100_003 * 4 * KIB + 4 * KIB for index in range(300)]
    _, total, _ = replay([(offset, 4 * KIB) for offset in offsets])
    assert total == 0


def test_a_reader_that_starts_in_the_middle_is_recognised():
    used, _, plans = replay(sequential(64 * KIB, 50, start=10 * MIB))
    assert plans[0] == []
    assert used > 1 * MIB


@pytest.mark.parametrize("swap", [2, 4, 8])
def test_reads_a_little_out_of_order_stay_sequential(swap):
    reads = sequential(128 * KIB, 400)
    for index in range(40, len(reads) - swap, swap):
        reads[index : index + swap] = reversed(reads[index : index + swap])
    used, total, _plans = replay(reads)
    assert used > 40 * MIB
    assert used > 0.8 * total


def test_backward_reads_are_recognised():
    reads = [(100 * MIB - index * 64 * KIB, 64 * KIB) for index in range(1, 200)]
    used, total, _ = replay(reads, limit=2 * MIB)
    assert used > 11 * MIB
    assert total - used <= 2 * MIB


@pytest.mark.parametrize("stride", [1 * MIB, 3 * MIB + 4 * KIB, -1 * MIB])
def test_strides_are_recognised(stride):
    start = 500 * MIB
    reads = [(start + index * stride, 4 * KIB) for index in range(100)]
    used, total, plans = replay(reads)
    assert used >= 90 * 4 * KIB
    assert used >= 0.45 * total, "what lies beyond the last read at most"
    assert all(end - begin == 4 * KIB for plan in plans for begin, end in plan)


def test_a_jump_ends_the_pattern():
    reads = [*sequential(128 * KIB, 20), (900 * MIB, 4 * KIB), (300 * MIB, 4 * KIB)]
    _, _, plans = replay(reads)
    assert plans[-1] == plans[-2] == []


def test_the_limit_is_kept():
    _, _, plans = replay(sequential(128 * KIB, 400), limit=1 * MIB)
    for (offset, size), plan in zip(sequential(128 * KIB, 400), plans, strict=True):
        assert all(end <= offset + size + 1 * MIB for _, end in plan)
