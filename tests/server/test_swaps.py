"""The border under fire: links and directories swapped all the time while requests resolve."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from netfs.sftp import extensions, requests
from netfs.sftp.attrs import Attrs
from netfs.sftp.codes import OpenFlag
from netfs.sftp.responses import AttrsResponse, Data, Handle, StatusResponse
from tests.unit.server.tree import CREATE, READ, SECRET, Tree, errno_name, make_tree

SWAPPER = """
import ctypes, os, sys, threading, time
root, seconds = sys.argv[1], float(sys.argv[2])
libc = ctypes.CDLL(None)
end = time.monotonic() + seconds
def exchange(one, two):
    libc.renameat2(-100, os.fsencode(one), -100, os.fsencode(two), 2)  # RENAME_EXCHANGE
def swap_link_and_directory():
    while time.monotonic() < end:
        exchange(root + "/d", root + "/d.link")
def swap_link_and_file():
    while time.monotonic() < end:
        exchange(root + "/d.real/f", root + "/f.link")
        exchange(root + "/d.real/f", root + "/f.link")
def move_up_and_down():
    while time.monotonic() < end:
        os.rename(root + "/a/b", root + "/b")
        os.rename(root + "/b", root + "/a/b")
def replace_links():
    turn = 0
    while time.monotonic() < end:
        turn += 1
        target = ("../outside", "d.real", "/", "..", "a/b/c")[turn % 5]
        os.symlink(target, root + "/t.new")
        os.rename(root + "/t.new", root + "/t")
threads = [threading.Thread(target=f) for f in
           (swap_link_and_directory, swap_link_and_file, move_up_and_down, replace_links)]
for t in threads: t.start()
print("ready", flush=True)
for t in threads: t.join()
"""

NAMES = (
    b"d/secret", b"d/victim", b"d/f", b"d.real/f", b"t/secret", b"t/victim", b"t/outside/secret",
    b"a/b/c/../../../../outside/secret", b"a/b/c/../../../outside/victim",
    b"b/c/../../../outside/secret", b"a/b/c/../../../d/victim", b"a/b/c/up/up/up/up/outside/secret",
)  # fmt: skip


def prepare(tree: Tree) -> None:
    root, outside = tree.root, tree.outside
    (outside / "victim").write_bytes(b"victim outside")
    (outside / "f").write_bytes(b"f outside")
    for name in ("d", "d.real"):
        (root / name).mkdir()
        for file in ("secret", "victim", "f"):
            (root / name / file).write_bytes(b"inside")
    (root / "d.link").symlink_to("../outside")
    (root / "f.link").symlink_to(outside / "f")
    (root / "t").symlink_to("../outside")
    (root / "a" / "b" / "c").mkdir(parents=True)
    (root / "a" / "b" / "c" / "up").symlink_to("..")


def attack(tree: Tree, end: float) -> Counter[str]:
    """Every kind of request on every name until *end*; what came of them."""
    outcomes: Counter[str] = Counter()
    inodes = tree.outside_inodes()
    turn = 0
    while time.monotonic() < end:
        turn += 1
        for name in NAMES:
            directory = name.rpartition(b"/")[0]
            for request in (
                requests.Stat(name),
                requests.Lstat(name),
                requests.Open(name, READ, Attrs()),
                requests.Open(name, READ | OpenFlag.WRITE, Attrs()),
                requests.Setstat(name, Attrs(mode=0o644)),
                requests.Setstat(name, Attrs(mtime=turn, atime=turn)),
                requests.Setstat(name, Attrs(size=3)),
                extensions.Lsetstat(name, Attrs(mtime=turn, atime=turn)),
                extensions.Hardlink(name, b"/hard"),
                requests.Realpath(name),
                requests.Opendir(directory),
                requests.Mkdir(directory + b"/made", Attrs()),
                requests.Rmdir(directory + b"/made"),
                requests.Open(directory + b"/created", CREATE, Attrs()),
                requests.Remove(directory + b"/created"),
                requests.Symlink(b"x", directory + b"/linked"),
                requests.Remove(directory + b"/linked"),
                extensions.PosixRename(name, directory + b"/moved"),
                extensions.PosixRename(directory + b"/moved", name),
                requests.Remove(b"/hard"),
            ):
                response = tree.ask(request)
                outcomes[errno_name(response) or "ok"] += 1
                if isinstance(response, AttrsResponse):
                    assert response.attrs.ino not in inodes, request
                elif isinstance(response, Handle):
                    st = tree.ask(requests.Fstat(response.handle))
                    assert isinstance(st, AttrsResponse)
                    assert st.attrs.ino not in inodes, request
                    data = tree.ask(requests.Read(response.handle, 0, 100))
                    assert not isinstance(data, Data) or b"outside" not in bytes(data.data)
                    assert isinstance(tree.ask(requests.Close(response.handle)), StatusResponse)
    return outcomes


@pytest.fixture(params=["openat2", "walk"])
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Tree]:
    made = make_tree(tmp_path, request.param)
    prepare(made)
    yield made
    made.client.handles.close_all()


def fire(tree: Tree, seconds: float) -> None:
    before = tree.outside_state()
    swapper = subprocess.Popen(
        [sys.executable, "-c", SWAPPER, str(tree.root), str(seconds)], stdout=subprocess.PIPE
    )
    with swapper:
        assert swapper.stdout is not None
        assert swapper.stdout.readline() == b"ready\n"
        outcomes = attack(tree, time.monotonic() + seconds)
    assert tree.outside_state() == before
    assert (tree.outside / "secret").read_bytes() == SECRET
    assert outcomes["ok"] > 100, outcomes
    assert all(name == "ok" or hasattr(errno, name) for name in outcomes)


def test_three_seconds_of_swapping_reach_nothing_outside(tree: Tree) -> None:
    fire(tree, 3)


@pytest.mark.slow
@pytest.mark.skipif(
    not os.environ.get("NETFS_TEST_LONG"), reason="the long form of the test above (a minute)"
)
def test_thirty_seconds_of_swapping_reach_nothing_outside(tree: Tree) -> None:
    fire(tree, 30)
