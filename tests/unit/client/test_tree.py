"""The planner of tree read-ahead, on the accesses of programs that walk (see walks.py).

Bounds are in round trips: one access after the other would need two for each directory and file.
"""

from __future__ import annotations

import random

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


@pytest.mark.parametrize("names", [10, 50, 200])
def test_what_is_listed_ahead_is_still_known_when_the_walk_comes(names):
    wide: Tree = {
        f"d{number}": {f"f{each}": 1 for each in range(names)} for number in range(20_000 // names)
    }
    world = World(wide, max_entries=8000)
    for child in world.opendir(world.nodes.root):
        assert len(world.opendir(child)) == names
        world.think(names * 0.001)  # a walk that takes its time, some seconds behind
        assert len(world.nodes) < 10_000
    assert world.count("list") <= 1.02 * (len(wide) + 1)
    assert world.now - 1000 < 20 + 2, "and hardly anything is waited for"


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


def test_a_directory_listed_twice_in_a_row_is_no_second_walk():
    """rm looks whether a directory is empty first.  Each time the window was filled anew."""
    tree: Tree = {f"d{number:03}": {f"e{inner}": {} for inner in range(8)} for number in range(100)}
    world = listed_everywhere(tree)
    world.forget_listings()
    world.opendir(world.nodes.root)
    top = child(world, "d007")
    for directory in (top, *world.opendir(top)):
        world.opendir(directory)
        world.opendir(directory)
        world.think(0.01)
    assert world.count("list") <= 1 + 9 + MAX_DIRS


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


# --- one test for each rule ----------------------------------------------------------------------


def project(directories: int = 20, files: int = 10) -> Tree:
    return {
        f"d{number:02}": {f"f{file}.c": 3000 for file in range(files)}
        for number in range(directories)
    }


def listed_everywhere(tree: Tree) -> World:
    world = World(tree)
    find(world, world.nodes.root)
    world.asked.clear()
    return world


def test_one_file_of_each_directory_is_a_scan_too():
    world = World({f"d{number:02}": {"Makefile.c": 3000} for number in range(40)})
    started = world.now
    grep(world, world.nodes.root)
    assert trips(world, started) < 30
    assert world.unused_files == 0


def test_the_window_of_files_does_not_run_further_ahead_than_they_stay_fresh():
    world = World(project(40, 20))
    started = world.now
    grep(world, world.nodes.root, thinks_s=0.01)
    assert world.count("lstat") == 0, "none was fetched so early that it had to be looked at"
    assert trips(world, started) < 800 * 0.01 / RTT_S + 40


@pytest.mark.parametrize("walk", [grep, copy])
def test_directories_are_renewed_shortly_before_their_files_are_opened(walk):
    world = World(project(40, 20))
    walk(world, world.nodes.root)
    world.think(3)
    world.asked.clear()
    for each in world.nodes.root.children.values():
        for node in list(each.children.values()):
            world.open(node)
            world.think(0.01)  # a slow program: 8 s
    assert world.count("list") <= 40 * 2.5, "not over and over"
    assert world.count("lstat") <= 20


def test_a_directory_is_renewed_before_the_walk_returns_to_it():
    tree: Tree = {f"a{number}.c": 3000 for number in range(10)}
    tree["m"] = {f"f{number}.c": 3000 for number in range(150)}
    tree |= {f"z{number}.c": 3000 for number in range(10)}
    world = World(tree)
    grep(world, world.nodes.root, thinks_s=0.01)
    world.think(3)
    world.asked.clear()
    waited = world.now
    grep(world, world.nodes.root, thinks_s=0.01)
    assert world.count("lstat") <= 4
    assert world.now - waited < 170 * 0.0102 + 12 * RTT_S


def test_the_order_of_a_program_that_reads_what_is_held_is_recognised_on_a_long_line():
    rng = random.Random(2)
    files, places = [f"f{number}.c" for number in range(8)], [f"d{n:02}" for n in range(40)]
    rng.shuffle(places)
    tree: Tree = {place: dict.fromkeys(rng.sample(files, 8), 3000) for place in places}
    world = World(tree, rtt_s=0.2)
    grep(world, world.nodes.root)  # as listed
    world.think(3)
    started = world.now
    for _, directory in sorted(world.nodes.root.children.items()):
        for _, node in sorted(directory.children.items()):
            world.open(node)
    assert (world.now - started) / world.rtt_s < 20, "not two for each directory"


@pytest.mark.parametrize(
    "names",
    [
        [b"f%d.c" % number for number in range(60)],  # 2 before 10
        [b"f%d.c" % number for number in reversed(range(60))],
        sorted(b"f%d.c" % number for number in range(60)),
    ],
)
def test_the_order_of_a_program_is_recognised(names):
    world = World({"d": {f"f{number}.c": 3000 for number in range(60)}})
    world.opendir(world.nodes.root)
    world.opendir(child(world, "d"))
    started = world.now
    for name in names:
        world.open(child(world, "d", name.decode()))
    assert trips(world, started) < 24
    assert world.unused_files == 0


def test_files_before_directories_are_recognised():
    """As rsync and os.walk go."""

    def walk(directory: Node) -> None:
        children = world.opendir(directory)
        for node in children:
            if not node.is_dir:
                world.open(node)
        for node in children:
            if node.is_dir:
                walk(node)

    world = World(source_tree(DIRECTORIES, FILES))
    started = world.now
    walk(world.nodes.root)
    assert trips(world, started) < 60
    assert world.unused_files == 0


def test_names_below_a_directory_listed_for_names_are_a_walk():
    world = World(project())
    for name in (b"d00", b"d01", b"missing"):
        world.lookup(world.nodes.root, name)
    world.lookup(child(world, "d00"), b"f0.c")
    world.think(0.1)
    world.asked.clear()
    for number in range(1, 20):
        world.lookup(child(world, f"d{number:02}"), b"f3.c")
    assert world.count("lstat") == 0


@pytest.mark.parametrize("hidden", [".git", ".config"])
def test_a_look_into_a_hidden_directory_is_no_walk(hidden):
    world = World({hidden: {f"d{number}": {"x": 100} for number in range(40)}})
    place = world.lookup(world.nodes.root, hidden.encode())
    for name in (b"d0", b"d1", b"d2", b"missing"):
        world.lookup(place, name)
    for number in range(4):
        world.lookup(child(world, hidden, f"d{number}"), b"x")
        world.open(child(world, hidden, f"d{number}", "x"))
    assert world.count("list") == 1
    assert world.count("fetch") == 4


def test_one_listing_below_names_looked_up_is_no_walk():
    """git lists objects/pack after it looked for names in objects."""
    world = World({"objects": project(50)})
    objects = world.lookup(world.nodes.root, b"objects")
    for name in (b"d00", b"d01", b"info"):
        world.lookup(objects, name)
    world.opendir(child(world, "objects", "d07"))
    assert world.count("list") == 2


def test_what_was_left_behind_is_not_fetched_again():
    world = World(project(30, 10))
    world.opendir(world.nodes.root)
    for number in range(30):
        for node in world.opendir(child(world, f"d{number:02}"))[:4]:
            world.open(node)
    assert world.unused_files < 30 * 6 / 3


def test_targets_of_links_ahead_are_wanted_after_the_first():
    tree = project()
    for directory in tree.values():
        directory["link"] = "f0.c"
    world = listed_everywhere(tree)
    links = world.planner.read_link(child(world, "d00", "link"), world.now)
    assert {link.parent.name for link in links} == {b"d%02d" % number for number in range(1, 20)}
    assert world.planner.read_link(child(world, "d01", "link"), world.now) == []


def test_nothing_is_asked_for_what_was_removed_meanwhile():
    world = World(project())
    world.opendir(world.nodes.root)
    world.nodes.remove(world.nodes.root, b"d07")
    find(world, world.nodes.root)
    assert world.count("list") == 20


def test_waiting_for_listings_is_no_pause_of_the_program():
    deep: Tree = {f"f{number}.c": 3000 for number in range(60)}
    for level in range(8):  # 8 listings, one after the other: 2.4 s
        deep = {f"level{level}": deep}
    world = World({"a": {f"f{number}.c": 3000 for number in range(6)}, "b": deep}, rtt_s=0.15)
    started = world.now
    grep(world, world.nodes.root)
    assert world.planner.statistics().runs == 1
    assert (world.now - started) / 0.15 < 48, "the files below are fetched from the first one on"


def test_listings_that_take_longer_than_attributes_are_fresh_do_not_renew_them():
    world = World({"d": {f"f{number}.c": 3000 for number in range(40)}}, rtt_s=0.6)
    grep(world, world.nodes.root)
    world.think(3)
    world.asked.clear()
    started = world.now
    grep(world, world.nodes.root)
    assert world.count("list") <= 8, "tried again now and then"
    assert (world.now - started) / 0.6 < 50, "one for each file is the best there is"


def test_a_directory_whose_renewal_failed_is_renewed_again(monkeypatch):
    world = World({"d": {f"f{number}.c": 3000 for number in range(40)}})
    grep(world, world.nodes.root)
    world.think(3)
    world.asked.clear()
    directory = child(world, "d")
    files = list((directory.children or {}).values())
    with monkeypatch.context() as patch:
        patch.setattr(world, "_list", lambda each: world.planner.not_listed(each, 0))
        for node in files[:10]:
            world.open(node)
    assert world.count("lstat") == 10
    for node in files[10:]:
        world.open(node)
    assert world.count("list") == 1
    assert world.count("lstat") == 10
