"""The planner of tree read-ahead, on the accesses of programs that walk (see walks.py).

Bounds are in round trips: one access after the other would need two for each directory and file.
"""

from __future__ import annotations

import pytest

from netfs.client.nodes import Node
from netfs.client.run import FIRST_DIRS, MAX_BYTES, MAX_DIRS, MAX_FILES
from netfs.client.walk import SMALL_FILE
from tests.unit.client.walks import (
    RTT_S,
    Tree,
    World,
    copy,
    find,
    git_status,
    grep,
    source_tree,
)

FILES = 800
DIRECTORIES = 80


@pytest.fixture
def world() -> World:
    return World(source_tree(DIRECTORIES, FILES))


def trips(world: World, since: float) -> float:
    return (world.now - since) / RTT_S


def child(world: World, *names: str) -> Node:
    """The node of a path whose directories are listed."""
    node = world.nodes.root
    for name in names:
        found = world.nodes.child(node, name.encode())
        assert found is not None
        node = found
    return node


def test_find_lists_the_tree_in_parallel(world):
    started = world.now
    find(world, world.nodes.root)
    assert trips(world, started) < 20
    assert world.count("list") == DIRECTORIES, "nothing is listed twice"
    assert world.count("fetch") == 0, "no file is fetched for who opens none"


def test_grep_has_the_next_files_fetched_across_directories(world):
    started = world.now
    grep(world, world.nodes.root)
    assert trips(world, started) < 50
    assert world.count("fetch") == FILES
    assert world.unused_files == 0


@pytest.mark.parametrize("pause_s", [0.0, 2.0, 10.0])
@pytest.mark.parametrize("walk", [grep, copy])
def test_a_second_walk_is_revalidated_by_listings(world, walk, pause_s):
    walk(world, world.nodes.root)
    world.think(pause_s)
    world.asked.clear()
    started = world.now
    walk(world, world.nodes.root)
    assert world.count("fetch") == 0
    assert world.count("lstat") <= FILES // 20
    assert trips(world, started) < 40


def test_cp_takes_entries_by_inode_number(world):
    started = world.now
    copy(world, world.nodes.root)
    assert trips(world, started) < 60
    assert world.unused_files == 0


def test_git_status_is_noticed_by_its_lookups():
    tree = source_tree(DIRECTORIES, FILES)
    world = World(tree)
    started = world.now
    git_status(world, tree, world.nodes.root)
    assert trips(world, started) < 90
    assert world.count("lstat") < 20
    assert world.count("list") <= DIRECTORIES


def test_git_status_that_reads_every_file():
    tree = source_tree(DIRECTORIES, FILES)
    world = World(tree)
    started = world.now
    git_status(world, tree, world.nodes.root, reads=True)
    assert trips(world, started) < 120
    assert world.unused_files <= FILES // 20


def test_only_files_like_those_opened_are_fetched():
    tree = source_tree(DIRECTORIES, FILES)
    for directory in [tree, *[each for each in tree.values() if isinstance(each, dict)]]:
        for number in range(10):
            directory[f"picture{number}.png"] = 20_000
    world = World(tree)
    grep(world, world.nodes.root, wants=lambda node: node.name.endswith(b".c"))
    wasted = world.unused_files / world.count("fetch")
    assert wasted <= 0.2


def test_an_ls_asks_for_nothing_else(world):
    world.opendir(world.nodes.root)
    world.think(5)
    world.opendir(child(world, "dir0"))
    world.think(5)
    world.opendir(child(world, "dir1"))
    assert world.count("list") == 3


def test_a_path_that_is_resolved_asks_for_nothing_else(world):
    node = world.nodes.root
    for name in (b"dir0", b"dir3", b"dir12"):
        found = world.lookup(node, name)
        assert found is not None
        node = found
    assert world.count("list") == 0


def test_a_file_that_is_read_fetches_no_other(world):
    listed = world.opendir(world.nodes.root)
    files = [node for node in listed if not node.is_dir]
    world.open(files[0])
    world.open(files[1])
    world.think(3)
    world.open(files[2])
    assert world.count("fetch") == 3


def test_a_walk_that_ends_early_has_asked_for_little(world):
    world.opendir(world.nodes.root)
    world.opendir(child(world, "dir0"))
    world.think(1)
    assert world.count("list") <= 2 + 3 * FIRST_DIRS


def test_names_asked_one_by_one_are_listed_instead(world):
    for name in (b"file0.c", b"file80.c", b"file160.c", b"file240.c"):
        world.lookup(world.nodes.root, name)
    assert world.count("lstat") == 1
    assert world.count("list") == 1


def test_windows_are_bounded():
    tree: Tree = {f"d{number:04}": {"x.c": SMALL_FILE} for number in range(3000)}
    world = World(tree)
    most = 0
    planner = world.planner
    for directory in world.opendir(world.nodes.root):
        for node in world.opendir(directory):
            world.open(node)
        for run in planner._runs:
            most = max(most, len(run.ahead_dirs))
            assert len(run.ahead_files) <= MAX_FILES
            assert run.ahead_files.size <= MAX_BYTES
    assert 16 < most <= MAX_DIRS
    assert world.unused_files == 0


def test_a_walk_that_leaves_half_of_it_unused_is_followed_less():
    tree: Tree = {
        f"d{number:04}": {f"e{inner}": {} for inner in range(20)} for number in range(100)
    }
    world = World(tree)
    for directory in world.opendir(world.nodes.root):
        world.opendir(world.opendir(directory)[0])
    planned, used, *_rest = world.planner.statistics()
    assert used > 0
    assert planned < 100 + 100 * 8, "not twenty below each"


def test_what_a_very_long_walk_leaves_behind_is_forgotten(monkeypatch):
    monkeypatch.setattr("netfs.client.tree.MAX_PENDING", 200)
    tree: Tree = {f"d{number}": {f"e{inner}": {} for inner in range(10)} for number in range(60)}
    world = World(tree)
    find(world, world.nodes.root)
    (run,) = world.planner._runs
    assert len(run.route.keys) < 500
    assert world.count("list") == 661


def test_two_walks_at_once_do_not_stop_each_other():
    world = World({"a": source_tree(20, 200), "b": source_tree(20, 200)})
    started = world.now
    world.opendir(world.nodes.root)
    walks = [_walk(world, child(world, name)) for name in ("a", "b")]
    while walks:
        for walk in list(walks):
            if next(walk, None) is None:
                walks.remove(walk)
    assert trips(world, started) < 150
    assert world.unused_files <= 20


def _walk(world, directory):
    """grep, one access at a time."""
    for node in world.opendir(directory):
        yield True
        if node.is_dir:
            yield from _walk(world, node)
        else:
            world.open(node)
