"""Attacks on the border of the export: each path by each request, by both ways of resolving."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from netfs.server import confine, handlers
from netfs.server.export import Export
from netfs.sftp import extensions, requests
from netfs.sftp.attrs import Attrs
from netfs.sftp.codes import OpenFlag
from netfs.sftp.responses import AttrsResponse, Data, Handle, Name, Response
from tests.unit.server.tree import CREATE, INSIDE, READ, SECRET, Tree, errno_name, make_tree

# {out} is the absolute path of the directory outside, {fd} a descriptor open on a secret there.
PATHS = {
    "dotdot": "../outside/secret",
    "slash-dotdot": "/../outside/secret",
    "dotdot-after-dir": "sub/../../outside/secret",
    "dotdot-after-file": "file/../../outside/secret",
    "dotdot-after-missing": "nothing/../../outside/secret",
    "dotdot-many": "../" * 300 + "{out}/secret",
    "dotdot-deep": "sub/deep/../../../../../../{out}/secret",
    "dot-and-dotdot": "./.././../outside/./secret",
    "double-slashes": "//..//..//outside//secret",
    "dotdot-dir": "../outside/dir/secret",
    "absolute": "{out}/secret",
    "absolute-link": "abs",
    "relative-link": "rel",
    "absolute-dir-link": "absdir/secret",
    "relative-dir-link": "reldir/secret",
    "relative-dir-link-deeper": "reldir/dir/secret",
    "dir-link-slash": "absdir/",
    "dir-link-dot": "reldir/.",
    "dir-link-dotdot": "absdir/../outside/secret",
    "link-up": "up/outside/secret",
    "link-up-often": "upup/{out}/secret",
    "link-to-top": "top/../outside/secret",
    "link-to-top-then-up": "top/up/outside/secret",
    "link-chain": "chain1/secret",
    "link-chain-deeper": "chain1/dir/secret",
    "link-loop": "loop1/../../outside/secret",
    "dangling-link": "dangling",
    "dangling-link-slash": "dangling/",
    "link-to-proc-root": "procroot/{out}/secret",
    "link-to-proc-cwd": "proccwd/outside/secret",
    "proc-root": "/proc/self/root/{out}/secret",
    "proc-root-of-init": "/proc/1/root/{out}/secret",
    "proc-cwd": "/proc/self/cwd/outside/secret",
    "proc-fd": "/proc/self/fd/{fd}",
    "proc-thread-fd": "/proc/thread-self/fd/{fd}",
    "proc-task-root": "/proc/self/task/{pid}/root/{out}/secret",
    "mounted-proc-root": "proc/self/root/{out}/secret",
    "mounted-proc-cwd": "proc/self/cwd/outside/secret",
    "mounted-proc-fd": "proc/self/fd/{fd}",
    "mounted-proc-fd-dir": "proc/self/fd/{dirfd}/secret",
    "mounted-proc-pid-root": "proc/{pid}/root/{out}/secret",
    "mounted-proc-exe": "proc/self/exe",
    "nul-cuts": "file\0/../../outside/secret",
    "nul-hides": "../outside/secret\0",
    "nul-alone": "\0",
    "long-name": "a" * 300 + "/../../outside/secret",
    "long-path": "sub/" + "../sub/" * 700 + "../../outside/secret",
    "too-long": "../" * 2000 + "outside/secret",
    "many-links": "self/" * 39 + "up/outside/secret",
    "too-many-links": "self/" * 60 + "up/outside/secret",
    "empty-then-up": "/" * 200 + "../outside/secret",
    "backslash": "..\\outside\\secret",
    "latin1": "\udcff/../../outside/secret",
    "tilde": "~/../outside/secret",
}

NANO = Attrs(atime=1, mtime=1, atime_ns=10**9, mtime_ns=10**9)


def attempts(path: bytes) -> list[Any]:
    """Every request that names *path*, the destroying ones last."""
    W, A, T, X = OpenFlag.WRITE, OpenFlag.APPEND, OpenFlag.TRUNC, OpenFlag.EXCL
    return [
        requests.Lstat(path),
        requests.Stat(path),
        requests.Readlink(path),
        requests.Realpath(path),
        extensions.ExpandPath(path),
        extensions.ExpandPath(b"~/" + path),
        extensions.StatvfsRequest(path),
        requests.Opendir(path),
        requests.Open(path, READ, Attrs()),
        requests.Open(path, CREATE, Attrs(mode=0o666)),
        requests.Open(path, CREATE | X, Attrs(mode=0o666)),
        requests.Open(path, W | A, Attrs()),
        requests.Setstat(path, Attrs(mode=0o777)),
        requests.Setstat(path, Attrs(uid=1, gid=1)),
        requests.Setstat(path, NANO),
        extensions.Lsetstat(path, Attrs(mode=0o777)),
        extensions.Lsetstat(path, Attrs(uid=1, gid=1)),
        extensions.Lsetstat(path, NANO),
        extensions.Lsetstat(path, Attrs(size=1)),
        requests.Mkdir(path, Attrs(mode=0o777)),
        requests.Mkdir(path + b"-new", Attrs()),
        requests.Mkdir(path + b"/new", Attrs()),
        requests.Symlink(b"/file", path + b"-link"),
        requests.Symlink(b"../outside/secret", b"planted"),
        requests.Stat(b"planted"),
        requests.Open(b"planted", READ, Attrs()),
        extensions.Hardlink(path, b"hard"),
        requests.Open(b"hard", READ | W, Attrs()),
        extensions.Hardlink(b"/file", path + b"-hard"),
        requests.Rename(b"/sub/file", path + b"-moved"),
        extensions.PosixRename(b"/file", path),
        requests.Rename(path, b"stolen"),
        requests.Stat(b"stolen"),
        extensions.PosixRename(path, b"stolen"),
        requests.Setstat(path, Attrs(size=1)),
        requests.Open(path, W | T, Attrs()),
        requests.Open(path, CREATE | T, Attrs()),
        requests.Remove(path),
        requests.Rmdir(path),
        requests.Rmdir(path + b"/../empty"),
    ]


@pytest.fixture(params=["openat2", "walk"])
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Tree]:
    made = make_tree(tmp_path, request.param)
    yield made
    assert made.client.handles.close_all() == []


def check_answer(tree: Tree, response: Response, inodes: set[int]) -> None:
    """*response* tells nothing of what is outside."""
    if isinstance(response, AttrsResponse):
        assert response.attrs.ino not in inodes
    if isinstance(response, Name):
        for entry in response.entries:
            assert b"secret outside" not in entry.longname
    if isinstance(response, Handle):
        handle = response.handle
        st = tree.ask(requests.Fstat(handle))
        assert isinstance(st, AttrsResponse)
        assert st.attrs.ino not in inodes
        data = tree.ask(requests.Read(handle, 0, 1000))
        if isinstance(data, Data):
            assert SECRET not in bytes(data.data)
        listing = tree.ask(requests.Readdir(handle))
        if isinstance(listing, Name):
            names = {entry.filename for entry in listing.entries}
            assert not names & {b"secret", b"empty"}
        # What an open handle could destroy.
        tree.ask(requests.Write(handle, 0, (b"overwritten",)))
        tree.ask(requests.Fsetstat(handle, Attrs(mode=0o777)))
        tree.ask(requests.Close(handle))


@pytest.mark.root
@pytest.mark.parametrize("name", PATHS)
def test_no_request_reads_or_changes_anything_outside(tree: Tree, name: str) -> None:
    mounted = name.startswith("mounted-proc")
    secret_fd = os.open(tree.outside / "secret", os.O_RDWR)
    dir_fd = os.open(tree.outside, os.O_RDONLY)
    if mounted:
        (tree.root / "proc").mkdir()
        subprocess.run(["mount", "-t", "proc", "none", tree.root / "proc"], check=True)
    before = tree.outside_state()
    inodes = tree.outside_inodes()
    text = PATHS[name].format(
        out=str(tree.outside).lstrip("/"), fd=secret_fd, dirfd=dir_fd, pid=os.getpid()
    )
    old_cwd = os.getcwd()
    os.chdir(tree.base)
    try:
        for request in attempts(os.fsencode(text)):
            response = tree.ask(request)
            check_answer(tree, response, inodes)
            assert tree.outside_state() == before, request
    finally:
        os.chdir(old_cwd)
        os.close(secret_fd)
        os.close(dir_fd)
        if mounted:
            subprocess.run(["umount", "-l", tree.root / "proc"], check=True)


def test_the_attacks_are_as_many_as_promised() -> None:
    assert len(PATHS) >= 40


def test_links_are_shown_as_they_are(tree: Tree) -> None:
    response = tree.ask(requests.Readlink(b"/abs"))
    assert isinstance(response, Name)
    assert response.entries[0].filename == os.fsencode(tree.outside / "secret")


def test_an_absolute_link_leads_to_its_place_inside(tree: Tree) -> None:
    assert tree.read(b"/within") == INSIDE


def test_a_dangling_absolute_link_creates_inside(tree: Tree) -> None:
    (tree.root / str(tree.outside).lstrip("/")).mkdir(parents=True)
    handle = tree.open(b"dangling", CREATE)
    tree.ask(requests.Close(handle))
    assert (tree.root / str(tree.outside).lstrip("/") / "made-by-dangling").exists()
    assert not (tree.outside / "made-by-dangling").exists()


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (b".", b"/"),
        (b"", b"/"),
        (b"/../../..", b"/"),
        (b"up/up", b"/"),
        (b"sub/../sub/deep/", b"/sub/deep"),
        (b"within", b"/sub/file"),
        (b"nothing", b"/nothing"),
        (b"sub/./nothing", b"/sub/nothing"),
        (b"top/sub", b"/sub"),
    ],
)
def test_realpath_is_absolute_inside_the_root(tree: Tree, path: bytes, expected: bytes) -> None:
    response = tree.ask(requests.Realpath(path))
    assert isinstance(response, Name), response
    assert response.entries[0].filename == expected


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (b"nothing/below", "ENOENT"),
        (b"file/below", "ENOTDIR"),
        (b"file/", "ENOTDIR"),
        (b"loop1", "ELOOP"),
        (b"a" * 300, "ENAMETOOLONG"),
        (b"a/" * 2100, "ENAMETOOLONG"),
        (b"self/" * 41 + b"file", "ELOOP"),
        (b"a\0b", "EINVAL"),
    ],
)
def test_both_ways_fail_alike(tree: Tree, path: bytes, name: str) -> None:
    assert errno_name(tree.ask(requests.Stat(path))) == name


@pytest.mark.parametrize(
    ("path", "name"), [(b"/sub/", "EISDIR"), (b"/new/", "EISDIR"), (b"/..", "EISDIR")]
)
def test_creating_a_file_needs_a_name(tree: Tree, path: bytes, name: str) -> None:
    assert errno_name(tree.ask(requests.Open(path, CREATE, Attrs()))) == name


@pytest.mark.root
def test_a_fifo_or_device_is_not_opened(tree: Tree) -> None:
    os.mkfifo(tree.root / "fifo")
    os.mknod(tree.root / "null", 0o600 | 0o020000, os.makedev(1, 3))
    for path in (b"fifo", b"null"):
        for pflags in (READ, OpenFlag.WRITE, READ | OpenFlag.WRITE):
            response = tree.ask(requests.Open(path, pflags, Attrs()))
            assert errno_name(response) in ("EINVAL", "ENXIO")


@pytest.mark.root
def test_a_mount_below_is_not_entered_with_one_file_system(tmp_path: Path) -> None:
    tree = make_tree(tmp_path)
    (tree.root / "mnt").mkdir()
    subprocess.run(["mount", "--bind", tree.outside, tree.root / "mnt"], check=True)
    try:
        assert tree.read(b"mnt/secret") == SECRET  # whoever mounts it there means it
        export = Export(str(tree.root), one_file_system=True)
        tree.client = handlers.Client(export, max_handles=8)
        before = tree.outside_state()
        for request in attempts(b"mnt/secret"):
            if b"mnt/" in bytes(request[0]):
                assert errno_name(tree.ask(request)) == "EXDEV", request
        assert tree.outside_state() == before
    finally:
        subprocess.run(["umount", "-l", tree.root / "mnt"], check=True)


def test_one_file_system_needs_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confine.kernel, "has_openat2", lambda: False)
    assert confine.best_resolver().name == "walk"
    with pytest.raises(OSError, match="one-file-system"):
        confine.best_resolver(one_file_system=True)


def test_a_walk_closes_what_it_opened(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, "walk")
    before = len(os.listdir("/proc/self/fd"))
    for name in PATHS:
        tree.ask(requests.Stat(os.fsencode(PATHS[name])))
        tree.ask(requests.Realpath(os.fsencode(PATHS[name])))
    assert len(os.listdir("/proc/self/fd")) == before
