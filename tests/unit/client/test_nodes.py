"""The tree of known names."""

from __future__ import annotations

import errno
import gc
import stat

import pytest

from netfs.client.nodes import NEVER, Node, NodeTable
from netfs.sftp.attrs import Attrs

FILE = Attrs(size=1, uid=1, gid=1, mode=stat.S_IFREG | 0o644, atime=5, mtime=5)
DIRECTORY = Attrs(size=4096, uid=1, gid=1, mode=stat.S_IFDIR | 0o755, atime=5, mtime=5)


@pytest.fixture
def nodes() -> NodeTable:
    return NodeTable(b"/srv/data", max_entries=1000)


def learn(nodes, path, attrs=FILE):
    """Learn a path below the root and return its node."""
    node = nodes.root
    *directories, name = path.split(b"/")
    for each in directories:
        node = nodes.learn(node, each, DIRECTORY, 0.0, nodes.stamp)
    return nodes.learn(node, name, attrs, 0.0, nodes.stamp)


def test_paths_are_composed_below_the_root(nodes):
    node = learn(nodes, b"a/b/c")
    assert nodes.path(node) == b"/srv/data/a/b/c"
    assert nodes.local_path(node) == b"a/b/c"
    assert nodes.path(nodes.root) == b"/srv/data"
    assert nodes.path_of(nodes.root, b"x") == b"/srv/data/x"


@pytest.mark.parametrize("root", [b"/", b""])
def test_the_servers_root_gives_no_double_slash(root):
    nodes = NodeTable(root, max_entries=10)
    assert nodes.path(nodes.root) == b"/"
    assert nodes.path(learn(nodes, b"a/b")) == b"/a/b"
    assert nodes.path_of(nodes.root, b"x") == b"/x"


def test_an_unknown_nodeid_is_stale(nodes):
    with pytest.raises(OSError) as caught:
        nodes.get(99)
    assert caught.value.errno == errno.ESTALE


def test_nodeids_are_never_used_again(nodes):
    first = learn(nodes, b"x")
    nodes.remove(nodes.root, b"x")
    assert nodes.find(first.nodeid) is None
    assert learn(nodes, b"x").nodeid > first.nodeid


def test_nlookup_counts_exactly(nodes):
    node = learn(nodes, b"x")
    for _ in range(3):
        nodes.hold(node)
    nodes.forget(node.nodeid, 2)
    assert node.nlookup == 1
    assert nodes.statistics().held == 2
    nodes.forget(node.nodeid, 1)
    assert (node.nlookup, nodes.statistics().held) == (0, 1)
    assert nodes.get(node.nodeid) is node, "a cache entry remains"


def test_the_root_is_never_forgotten(nodes):
    nodes.forget(1, 1000)
    assert nodes.get(1) is nodes.root


def test_a_removed_node_lives_while_the_kernel_holds_it(nodes):
    node = learn(nodes, b"x")
    nodes.hold(node)
    assert nodes.remove(nodes.root, b"x") is node
    assert node.removed
    assert nodes.get(node.nodeid) is node
    with pytest.raises(FileNotFoundError):
        nodes.path(node)
    nodes.forget(node.nodeid, 1)
    assert nodes.find(node.nodeid) is None


def test_a_removed_node_lives_while_it_is_open(nodes):
    node = learn(nodes, b"x")
    nodes.pin(node)
    nodes.remove(nodes.root, b"x")
    assert nodes.get(node.nodeid) is node
    nodes.unpin(node)
    assert nodes.find(node.nodeid) is None


def test_what_is_below_a_removed_directory_is_gone_too(nodes):
    node = learn(nodes, b"d/e/x")
    nodes.hold(node)
    nodes.remove(nodes.root, b"d")
    assert node.removed
    nodes.forget(node.nodeid, 1)
    assert len(nodes) == 1


def test_a_deep_tree_needs_no_deep_stack(nodes):
    node = nodes.root
    for _ in range(5000):
        node = nodes.learn(node, b"d", DIRECTORY, 0.0, nodes.stamp)
    assert nodes.ino(node)
    assert nodes.path(node).count(b"/d") == 5001
    nodes.remove(nodes.root, b"d")
    assert len(nodes) == 1


def test_renaming_a_directory_moves_what_is_below(nodes):
    node = learn(nodes, b"d/e/x")
    other = learn(nodes, b"other/keep")
    nodes.rename(nodes.root, b"d", other.parent, b"moved")
    assert nodes.path(node) == b"/srv/data/other/moved/e/x"
    assert nodes.child(nodes.root, b"d") is None


def test_renaming_over_a_file_replaces_it(nodes):
    old, new = learn(nodes, b"old"), learn(nodes, b"new")
    nodes.hold(new)
    assert nodes.rename(nodes.root, b"old", nodes.root, b"new") is new
    assert new.removed
    assert nodes.child(nodes.root, b"new") is old
    assert nodes.path(old) == b"/srv/data/new"


def test_renaming_an_unknown_name_forgets_the_target(nodes):
    learn(nodes, b"new")
    nodes.rename(nodes.root, b"unseen", nodes.root, b"new")
    assert nodes.child(nodes.root, b"new") is None


def test_a_linked_node_is_found_under_all_its_names(nodes):
    node = learn(nodes, b"a/x")
    other = learn(nodes, b"b/keep").parent
    nodes.link(node, other, b"y")
    assert nodes.child(other, b"y") is node
    nodes.remove(node.parent, b"x")
    assert not node.removed
    assert nodes.path(node) == b"/srv/data/b/y"
    assert node.names == [(other, b"y")]
    nodes.remove(other, b"y")
    assert node.removed


def test_the_second_name_can_be_renamed_and_removed(nodes):
    node = learn(nodes, b"x")
    nodes.link(node, nodes.root, b"y")
    nodes.rename(nodes.root, b"y", nodes.root, b"z")
    assert nodes.child(nodes.root, b"z") is node
    nodes.remove(nodes.root, b"z")
    assert node.names == [(nodes.root, b"x")]


def test_renaming_one_name_of_a_file_over_another_does_nothing(nodes):
    node = learn(nodes, b"x")
    nodes.link(node, nodes.root, b"y")
    assert nodes.rename(nodes.root, b"x", nodes.root, b"y") is None
    assert nodes.child(nodes.root, b"x") is node
    assert nodes.child(nodes.root, b"y") is node


def test_a_file_of_another_type_is_another_node(nodes):
    node = learn(nodes, b"x")
    assert learn(nodes, b"x", DIRECTORY) is not node
    assert node.removed


def test_a_symlink_of_another_time_is_another_node(nodes):
    link = FILE._replace(mode=stat.S_IFLNK | 0o777)
    node = learn(nodes, b"x", link)
    assert learn(nodes, b"x", link) is node
    assert learn(nodes, b"x", link._replace(mtime=6)) is not node


def test_another_inode_number_is_another_node(nodes):
    node = learn(nodes, b"x", FILE._replace(ino=7))
    assert learn(nodes, b"x", FILE._replace(ino=8)) is not node


def test_names_of_one_numbered_inode_are_one_node(nodes):
    linked = FILE._replace(ino=7, nlink=2)
    assert learn(nodes, b"x", linked) is learn(nodes, b"d/y", linked)


def test_names_that_only_look_alike_are_different_nodes(nodes):
    linked = FILE._replace(nlink=2)
    assert learn(nodes, b"x", linked) is not learn(nodes, b"y", linked)


def test_an_answer_asked_before_an_own_change_is_not_stored(nodes):
    node = learn(nodes, b"x")
    asked = nodes.stamp
    nodes.begin_change(node)
    nodes.change_attrs(node, FILE._replace(size=99))
    nodes.end_change(node)
    assert nodes.learn(nodes.root, b"x", FILE, 1.0, asked) is node
    assert node.attrs.size == 99


def test_an_answer_asked_during_an_own_change_is_not_stored(nodes):
    node = learn(nodes, b"x")
    nodes.begin_change(node)
    asked = nodes.stamp
    nodes.end_change(node)
    nodes.learn(nodes.root, b"x", FILE._replace(size=98), 1.0, asked)
    assert node.attrs.size == 1


def test_inode_numbers_are_the_same_in_the_next_mount(nodes):
    again = NodeTable(b"/srv/data", max_entries=10)
    assert nodes.ino(learn(nodes, b"a/x")) == again.ino(learn(again, b"a/x"))
    assert nodes.ino(learn(nodes, b"a/x")) != nodes.ino(learn(nodes, b"b/x"))


def test_no_two_names_of_a_pattern_share_an_inode_number():
    nodes = NodeTable(b"/srv/data", max_entries=100_000)
    names = [pattern % i for pattern in (b"%d", b"f%06d.c", b"%032x") for i in range(5000)]
    # What differs by bytes that swap places, or make up for each other, eight or 61 bytes apart.
    names += [b"%c" % (48 + i) + b"x" * 60 + b"%c" % (122 - i) for i in range(8)]
    names += [b"%c" % (48 + 8 * i) + b"x" * 7 + b"%c" % (57 - i) for i in range(8)]
    names += [b"d/" + name for name in names]
    assert len({nodes.ino(learn(nodes, name)) for name in names}) == len(names)


def test_an_inode_number_is_kept_over_renames_and_not_given_twice(nodes):
    node = learn(nodes, b"a/x")
    below = learn(nodes, b"a/d/y")
    numbers = nodes.ino(node), nodes.ino(below)
    nodes.rename(node.parent, b"x", nodes.root, b"z")
    nodes.rename(nodes.root, b"a", nodes.root, b"b")
    assert (nodes.ino(node), nodes.ino(below)) == numbers
    newcomer = learn(nodes, b"b/x")
    assert nodes.ino(newcomer) != numbers[0]
    assert nodes.ino(learn(nodes, b"a", DIRECTORY)) != nodes.ino(newcomer.parent)


def test_the_servers_inode_number_is_shown(nodes):
    assert nodes.ino(learn(nodes, b"x", FILE._replace(ino=12345))) == 12345


def test_missing_names_are_remembered_until_they_are_made(nodes):
    nodes.set_missing(nodes.root, b"x", 3.0)
    assert nodes.root.negative == {b"x": 3.0}
    learn(nodes, b"x")
    assert not nodes.root.negative


def test_missing_names_are_bounded(nodes):
    for number in range(10_000):
        nodes.set_missing(nodes.root, b"%d" % number, 1.0)
    assert len(nodes.root.negative) <= 4096
    assert b"9999" in nodes.root.negative


def test_a_listing_removes_what_it_lacks(nodes):
    gone, kept = learn(nodes, b"gone"), learn(nodes, b"kept")
    nodes.set_listing(nodes.root, {b"kept"}, 5.0)
    assert gone.removed
    assert nodes.root.children == {b"kept": kept}
    assert nodes.root.listed_at == 5.0


def test_names_nobody_holds_are_evicted_when_there_are_too_many():
    nodes = NodeTable(b"/", max_entries=100)
    held = learn(nodes, b"held")
    nodes.hold(held)
    for number in range(5000):
        learn(nodes, b"d%d/x" % (number % 50))
        learn(nodes, b"f%d" % number)
    assert len(nodes) <= 100 + 2 * 64
    assert nodes.get(held.nodeid) is held
    assert nodes.statistics().evicted > 3000


def test_what_was_used_lately_outlives_what_was_not():
    nodes = NodeTable(b"/", max_entries=100)
    favourite = learn(nodes, b"favourite")
    for number in range(5000):
        favourite.used = True
        learn(nodes, b"f%d" % number)
    assert nodes.child(nodes.root, b"favourite") is favourite


def test_a_directory_that_lost_a_name_is_not_listed_in_full_any_more():
    nodes = NodeTable(b"/", max_entries=10)
    first = learn(nodes, b"d/x")
    nodes.set_listing(first.parent, {b"x"}, 1.0)
    for number in range(3000):
        learn(nodes, b"f%d" % number)
    assert nodes.child(nodes.root, b"d") is None or first.parent.listed_at == NEVER


def test_names_that_come_and_go_leave_nothing_behind(nodes):
    def alive() -> int:
        return sum(type(each) is Node for each in gc.get_objects())

    gc.collect()
    before = alive()
    for number in range(5000):
        learn(nodes, b"%d" % number)
        nodes.remove(nodes.root, b"%d" % number)
    assert len(nodes) == 1
    assert alive() - before < 1100


def test_as_many_evicted_names_as_removed_ones_are_no_complete_listing(nodes: NodeTable) -> None:
    learn(nodes, b"removed elsewhere")
    nodes.set_listing(nodes.root, {b"evicted meanwhile"}, 5.0)
    assert nodes.root.listed_at == NEVER
    assert not nodes.root.children
