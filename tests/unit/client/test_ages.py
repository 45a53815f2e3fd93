"""Which names go when there are too many."""

from __future__ import annotations

import stat

import pytest

from netfs.client.nodes import Node, NodeTable
from netfs.sftp.attrs import Attrs

FILE = Attrs(size=1, mode=stat.S_IFREG | 0o644, mtime=5)
DIRECTORY = Attrs(size=4096, mode=stat.S_IFDIR | 0o755, mtime=5)
LIMIT = 1000
STEP = 64  # what a table of this size may have too much


class Kernel:
    """Holds what listings bring; drops what it is asked for, except what it has *in_use*."""

    def __init__(self, *, limit: int = LIMIT) -> None:
        self.nodes = NodeTable(b"/", max_entries=limit)
        self.nodes.ages.on_surplus = self._drop
        self.in_use: set[Node] = set()
        self.asked: list[Node] = []
        self._unanswered: list[Node] = []

    def _drop(self, surplus: list[Node]) -> None:
        self.asked += surplus
        self._unanswered += surplus

    def answer(self) -> None:
        """It gives back what it was asked for."""
        for node in self._unanswered:
            if node not in self.in_use:
                self.nodes.forget(node.nodeid, node.nlookup)
        self._unanswered = []

    def list(self, directory: bytes, names: int, *, ahead: bool = False) -> list[Node]:
        """A directory is listed, for the kernel or *ahead* of it."""
        nodes = self.nodes
        parent = nodes.learn(nodes.root, directory, DIRECTORY, 0.0, nodes.stamp)
        told = [(b"f%d" % number, FILE) for number in range(names)]
        found = nodes.learn_all(parent, told, 0.0, nodes.stamp)
        if not ahead:
            nodes.hold_all([parent, *found])
            self.answer()
        return found

    def is_known(self, node: Node) -> bool:
        return self.nodes.find(node.nodeid) is node


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


def test_walks_over_many_times_what_is_kept_do_not_grow(kernel):
    for _walk in range(3):
        for number in range(100):
            kernel.list(b"d%d" % number, 100)
            assert len(kernel.nodes) <= LIMIT + 100 + 2 * STEP
    assert kernel.nodes.statistics().held > LIMIT / 2, "no more than needed is given up"


def test_what_a_walk_has_passed_goes_before_what_was_listed_ahead(kernel):
    passed = [node for number in range(8) for node in kernel.list(b"p%d" % number, 100)]
    ahead = kernel.list(b"ahead", 200, ahead=True)
    for number in range(3):
        kernel.list(b"n%d" % number, 100)
    assert all(kernel.is_known(node) for node in ahead)
    assert kernel.asked
    assert set(kernel.asked) <= set(passed)


def test_what_the_kernel_gives_back_is_evicted_at_once(kernel):
    for number in range(50):
        kernel.list(b"d%d" % number, 30)
    assert len(kernel.asked) > 300
    assert not any(kernel.is_known(node) for node in kernel.asked)


def test_what_the_kernel_goes_on_using_stays_and_is_asked_for_again_later(kernel):
    [used] = kernel.list(b"used", 1)
    kernel.in_use = {used}
    for number in range(50):
        kernel.list(b"d%d" % number, 100)
    assert kernel.nodes.get(used.nodeid) is used
    assert 2 <= kernel.asked.count(used) <= 6
    kernel.in_use = set()
    for number in range(30):
        kernel.list(b"e%d" % number, 100)
    assert not kernel.is_known(used)


def test_what_is_open_is_neither_asked_for_nor_evicted_when_it_is_given_back(kernel):
    [opened, asked] = kernel.list(b"d", 2)
    kernel.nodes.pin(opened)
    kernel.in_use = {asked}
    for number in range(20):
        kernel.list(b"e%d" % number, 60)
    assert asked in kernel.asked
    assert opened not in kernel.asked
    kernel.nodes.pin(asked)
    kernel.nodes.forget(asked.nodeid, asked.nlookup)
    assert kernel.is_known(asked)


def test_what_was_used_lately_has_another_turn(kernel):
    first = kernel.list(b"d", 20)
    for number in range(10):
        kernel.list(b"e%d" % number, 100)
        first[7].used = True
    kernel.list(b"x", 100)
    assert [node for node in first if kernel.is_known(node)] == [first[7]]


def test_directories_go_last_but_are_no_more_than_half(kernel):
    nodes = kernel.nodes
    for number in range(400):
        kernel.list(b"empty%d" % number, 0)
    early = nodes.child(nodes.root, b"empty0")
    for number in range(50):
        kernel.list(b"d%d" % number, 100)
    assert nodes.child(nodes.root, b"empty0") is early, "a walk may still come to it"
    for number in range(1000):
        kernel.list(b"later%d" % number, 0)
        kernel.list(b"d%d" % (number % 50), 10)
    assert nodes.child(nodes.root, b"empty0") is None
    assert len(nodes) <= LIMIT + 100 + 2 * STEP
