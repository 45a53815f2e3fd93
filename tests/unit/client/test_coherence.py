"""How long what is known may be believed, and what each change makes of it."""

from __future__ import annotations

import stat

import pytest

from netfs.client.coherence import Coherence
from netfs.client.config import CacheConfig
from netfs.client.nodes import NodeTable
from netfs.sftp.attrs import Attrs
from tests.fakes.context import Clock, Notes
from tests.fakes.remote import FakeRemote

FILE = Attrs(size=1, uid=1, gid=1, mode=stat.S_IFREG | 0o644, atime=5, mtime=5)
DIRECTORY = Attrs(size=4096, mode=stat.S_IFDIR | 0o755, mtime=5)


class Table:
    """A coherence with all it needs."""

    def __init__(self, **cache) -> None:
        self.clock, self.notes, self.remote = Clock(), Notes(), FakeRemote()
        config = CacheConfig(**cache)
        self.nodes = NodeTable(b"/", max_entries=config.max_entries)
        self.coherence = Coherence(
            config,
            nodes=self.nodes,
            remote=self.remote,
            notifier=self.notes,
            clock=self.clock,
            wall_clock=lambda: 1_000_000.5,
        )

    def learn(self, name: bytes, attrs: Attrs = FILE, parent=None):
        parent = parent or self.nodes.root
        return self.coherence.learned(parent, name, attrs, self.clock(), self.nodes.stamp)


@pytest.mark.parametrize(
    ("cache", "attr_s", "missing_s", "listing_s"),
    [
        ({}, 20, 20, 20),
        ({"cache_timeout_s": 5}, 5, 5, 5),
        ({"stat_timeout_s": 7}, 7, 20, 20),
        ({"negative_timeout_s": 0}, 20, 0, 20),
        ({"dir_timeout_s": 3}, 20, 20, 3),
        ({"enabled": False, "stat_timeout_s": 7}, 0, 0, 0),
    ],
)
def test_each_kind_of_knowledge_has_its_time(cache, attr_s, missing_s, listing_s):
    table = Table(**cache)
    now = table.clock()
    node = table.learn(b"x")
    assert table.coherence.attr_left(node, now) == attr_s
    believed = table.coherence.missing(table.nodes.root, b"no", now, table.nodes.stamp)
    assert believed == missing_s
    assert table.coherence.missing_left(table.nodes.root, b"no", now) == missing_s
    table.coherence.listed(table.nodes.root, {b"x"}, now, table.nodes.stamp)
    assert table.coherence.listing_left(table.nodes.root, now) == listing_s


def test_a_listing_confirms_names_but_not_attributes():
    table = Table(stat_timeout_s=2)
    node = table.learn(b"x")
    table.clock.advance(1)
    table.coherence.listed(table.nodes.root, {b"x"}, table.clock(), table.nodes.stamp)
    assert table.coherence.name_left(node, table.clock()) == 20
    assert table.coherence.attr_left(node, table.clock()) == 1


@pytest.mark.parametrize("nlink", [None, 1, 2])
@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("later_s", [0.0, 1.25, 1000.0])
@pytest.mark.parametrize("options", [{}, {"attr_timeout_s": 3.5}, {"entry_timeout_s": 0.5}])
def test_the_kernel_may_keep_an_entry_as_long_as_its_name_and_its_attributes(
    options, later_s, listed, nlink
):
    table = Table(stat_timeout_s=10, dir_timeout_s=20, **options)
    node = table.learn(b"x", FILE._replace(nlink=nlink))
    if listed:
        table.coherence.listed(table.nodes.root, {b"x"}, table.clock(), table.nodes.stamp)
    table.clock.advance(later_s)
    now = table.clock()
    entry_s, attr_s, entry_ns, attr_ns = table.coherence.kernel_valid(node, now)
    named_s = options.get("entry_timeout_s", max(0.0, table.coherence.name_left(node, now)))
    assert entry_s + entry_ns / 1e9 == pytest.approx(named_s)
    assert attr_s + attr_ns / 1e9 == pytest.approx(table.coherence.kernel_attr_s(node, now))


def test_while_the_link_is_down_old_attributes_can_be_shown():
    table = Table()
    node = table.learn(b"x")
    table.clock.advance(1000)
    assert not table.coherence.has_attrs(node, table.clock())
    table.remote.is_up = False
    assert table.coherence.has_attrs(node, table.clock())
    assert table.coherence.kernel_attr_s(node, table.clock()) == 0


@pytest.mark.parametrize("change", ["created", "removed", "renamed", "linked", "unknown"])
def test_while_the_link_is_down_no_directory_shows_the_time_it_had_before_an_own_change(change):
    table = Table()
    coherence, root = table.coherence, table.nodes.root
    directory = table.learn(b"d", DIRECTORY._replace(atime=5))
    old = table.learn(b"old", parent=directory)
    table.remote.is_up = False
    match change:
        case "created":
            coherence.created(directory, b"new", FILE, table.clock())
        case "removed":
            coherence.removed(directory, b"old", table.clock())
        case "renamed":
            coherence.renamed(directory, b"old", root, b"new")
        case "linked":
            coherence.linked(old, directory, b"new")
        case "unknown":
            coherence.unknown(directory, b"old")
    assert coherence.has_attrs(directory, table.clock())
    assert directory.attrs is not None
    assert directory.attrs.mtime == 1_000_000
    assert directory.attrs.atime == 5


def test_a_directorys_nanoseconds_follow_its_seconds_after_an_own_change():
    table = Table()
    directory = table.learn(b"d", DIRECTORY._replace(mtime_ns=5, atime_ns=5, ctime_ns=5))
    table.coherence.created(directory, b"new", FILE, table.clock())
    assert directory.attrs is not None
    assert (directory.attrs.mtime_ns, directory.attrs.ctime_ns) == (10**15, 10**15)
    assert directory.attrs.atime_ns == 5


def test_a_listing_overtaken_by_an_own_change_removes_nothing():
    table = Table()
    root = table.nodes.root
    asked = table.nodes.stamp
    table.nodes.begin_change(root)
    table.coherence.created(root, b"new", FILE, table.clock())
    table.nodes.end_change(root)
    assert not table.coherence.listed(root, set(), table.clock(), asked)
    assert table.nodes.child(root, b"new") is not None


def test_an_answer_overtaken_by_an_own_change_names_nothing_missing():
    table = Table()
    root = table.nodes.root
    asked = table.nodes.stamp
    table.nodes.begin_change(root)
    table.nodes.end_change(root)
    assert table.coherence.missing(root, b"x", table.clock(), asked) == 0
    assert not root.negative


def test_removing_one_name_counts_links_down():
    table = Table()
    node = table.learn(b"x", FILE._replace(nlink=2))
    table.coherence.removed(table.nodes.root, b"x", table.clock())
    assert node.attrs is not None
    assert node.attrs.nlink == 1


def test_linking_counts_links_up_also_from_an_unknown_number():
    table = Table()
    node = table.learn(b"x")
    table.coherence.linked(node, table.nodes.root, b"y")
    assert node.attrs is not None
    assert node.attrs.nlink == 2


def test_moving_a_directory_moves_its_count():
    table = Table()
    old = table.learn(b"old", DIRECTORY._replace(nlink=3))
    new = table.learn(b"new", DIRECTORY._replace(nlink=2))
    table.learn(b"sub", DIRECTORY, old)
    table.coherence.renamed(old, b"sub", new, b"sub")
    assert (old.attrs.nlink, new.attrs.nlink) == (2, 3)


def test_renaming_one_name_of_a_file_over_another_removes_neither():
    table = Table()
    root = table.nodes.root
    node = table.learn(b"x")
    table.coherence.linked(node, root, b"y")
    table.coherence.renamed(root, b"x", root, b"y")
    assert table.nodes.child(root, b"x") is table.nodes.child(root, b"y") is node


def test_what_was_moved_unseen_has_to_be_asked_for():
    table = Table()
    root = table.nodes.root
    table.coherence.listed(root, set(), table.clock(), table.nodes.stamp)
    table.coherence.renamed(root, b"unseen", root, b"new")
    assert table.coherence.missing_left(root, b"new", table.clock()) < 0
    assert table.coherence.missing_left(root, b"unseen", table.clock()) == 20


@pytest.mark.parametrize(
    ("written", "distrusts"),
    [(FILE._replace(nlink=1), False), (FILE._replace(nlink=2), True), (FILE, True)],
)
def test_only_a_file_that_may_have_other_names_makes_those_doubtful(written, distrusts):
    table = Table()
    linked = table.learn(b"linked", FILE._replace(nlink=2))
    node = table.learn(b"x", written)
    table.coherence.wrote(node)
    assert (table.coherence.attr_left(linked, table.clock()) < 0) is distrusts


def test_numbered_links_are_one_node_and_need_no_doubt():
    table = Table()
    linked = table.learn(b"x", FILE._replace(nlink=2, ino=9))
    table.coherence.wrote(linked)
    assert table.coherence.attr_left(linked, table.clock()) == 20
    assert table.coherence.kernel_attr_s(linked, table.clock()) == 20


@pytest.mark.parametrize("can_prune", [True, False])
def test_directories_are_not_dropped_by_name(can_prune):
    table = Table(max_entries=2)
    table.notes.can_prune = can_prune
    for name, attrs in [(b"d", DIRECTORY), *((b"f%d" % number, FILE) for number in range(100))]:
        table.nodes.hold_all([table.learn(name, attrs)])
    told = table.notes.told
    assert told
    if can_prune:
        assert all(each[0] == "prune" for each in told)
    else:
        assert all(each[0] == "entry" and each[2] != b"d" for each in told)
