"""Names asked for one by one: when a directory is listed instead, and how far."""

from __future__ import annotations

import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netfs.client.lookups import ENTRY_S, Lookups
from netfs.client.nodes import NodeTable
from netfs.sftp.attrs import Attrs

NEVER = 10**9
KEPT = 10**6


def directory(entries: int):
    nodes = NodeTable(b"/", max_entries=100)
    attrs = Attrs(size=20 * entries, mode=stat.S_IFDIR | 0o755)
    return nodes.learn(nodes.root, b"d", attrs, 0.0, nodes.stamp)


@pytest.mark.parametrize(
    ("rtt_s", "entries", "begins_with"),
    [
        # a name of each directory of a path is asked for: never after the first
        (0.1, 0, 2),
        (0.02, 0, 2),
        (0.02, 200, 2),
        (0.02, 1333, 2),
        (0.02, 1400, 3),
        (0.02, 10_000, 9),
        (0.02, 100_000, 76),
        (0.1, 10_000, 3),
        (0.1, 100_000, 16),
        (0.001, 200, 4),
        (0.001, 10_000, 151),
        # on the same machine asking costs little more than an entry does
        (0.00015, 0, 3),
        (0.00015, 10_000, 1001),
        (0.0, 0, NEVER),  # nothing is known of the way
    ],
)
def test_a_directory_is_listed_when_the_names_have_paid_for_it(rtt_s, entries, begins_with):
    node = directory(entries)
    lookups = Lookups(KEPT)
    for number in range(1, min(begins_with, 2000)):
        assert lookups.asked(node, number * 0.01, rtt_s) == 0
    if begins_with < NEVER:
        limit = lookups.asked(node, begins_with * 0.01, rtt_s)
        assert limit >= entries
        assert limit * ENTRY_S <= begins_with * rtt_s, "no more than was paid"


@given(
    st.sampled_from((0.0, 0.00012, 0.0005, 0.001, 0.02, 0.1)),
    st.integers(0, 20_000),
    st.lists(st.sampled_from((0.0, 0.0, 0.0, 0.01, 0.9, 1.0, 3.0)), max_size=300),
)
def test_the_short_question_never_changes_what_is_listed_when(rtt_s, entries, pauses):
    node = directory(entries)
    short, long = Lookups(KEPT), Lookups(KEPT)
    now = 0.0
    for pause in pauses:
        now += pause
        limit = 0 if short.is_too_early(node, now) else short.asked(node, now, rtt_s)
        assert limit == long.asked(node, now, rtt_s)


def test_the_short_question_is_for_the_directory_asked_last_alone():
    node, other = directory(10_000), directory(10_000)
    lookups = Lookups(KEPT)
    assert not lookups.is_too_early(node, 0.0)
    for _ in range(2):
        lookups.asked(node, 0.0, 0.0005)
    assert lookups.is_too_early(node, 0.0)
    assert not lookups.is_too_early(other, 0.0)
    assert not lookups.is_too_early(node, 1.0), "after a pause they count anew"


def test_a_way_that_became_long_is_noticed_soon():
    node = directory(10_000)
    lookups = Lookups(KEPT)
    asked = 0
    while not lookups.is_too_early(node, 0.0):
        lookups.asked(node, 0.0, 0.0001)
    while lookups.is_too_early(node, 0.0):
        asked += 1
    assert asked <= 16
    assert lookups.asked(node, 0.0, 0.1) >= 10_000


def test_what_has_more_entries_than_it_seems_costs_the_double_at_most():
    node = directory(0)
    lookups = Lookups(KEPT)
    asked = spent = 0
    while spent < 20_000:
        asked += 1
        limit = lookups.asked(node, asked * 0.01, 0.001)
        if limit:
            spent += limit
            lookups.gave_up(node, limit)
            assert limit * ENTRY_S <= asked * 0.001
            assert spent <= 2 * asked * 0.001 / ENTRY_S


def test_a_listing_that_did_not_help_has_to_be_paid_anew():
    node = directory(10_000)
    lookups = Lookups(KEPT)
    spent = 0
    for number in range(1, 1001):  # each is asked for though all were listed
        spent += lookups.asked(node, number * 0.01, 0.02)
        assert spent * ENTRY_S <= number * 0.02
    assert spent


def test_what_has_more_entries_than_are_kept_is_not_listed_for_its_names():
    larger, seeming = directory(10_001), directory(0)
    lookups = Lookups(10_000)
    limits = [lookups.asked(larger, number * 0.01, 0.02) for number in range(100)]
    assert not any(limits)
    spent = 0
    for number in range(1000):
        limit = lookups.asked(seeming, number * 0.01, 0.02)
        if limit:
            lookups.gave_up(seeming, limit)
            spent += limit
    assert spent <= 2 * 10_000


def test_a_pause_begins_anew():
    node = directory(0)
    lookups = Lookups(KEPT)
    for number in range(10):
        assert lookups.asked(node, number * 2.0, 0.1) == 0


def test_directories_are_counted_apart_and_in_bounds():
    nodes = NodeTable(b"/", max_entries=1000)
    lookups = Lookups(KEPT)
    many = [
        nodes.learn(nodes.root, b"d%d" % n, Attrs(size=0, mode=stat.S_IFDIR), 0.0, nodes.stamp)
        for n in range(200)
    ]
    for node in many:
        assert lookups.asked(node, 1.0, 0.1) == 0
    assert lookups.asked(many[-1], 1.0, 0.1) > 0
    assert lookups.asked(many[0], 1.0, 0.1) == 0, "it was forgotten"
