"""What disks do: fill up, go away, lose permissions; each with a clear error and a way back."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from netfs.server import handlers
from netfs.server.export import Export
from netfs.sftp import extensions, requests
from netfs.sftp.attrs import Attrs
from netfs.sftp.responses import AttrsResponse, Handle, StatusResponse
from tests.unit.server.tree import CREATE, READ, Tree, errno_name


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Tree]:
    """An export on a disk of 1 MiB."""
    root = tmp_path / "root"
    root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", root], check=True)
    tree = Tree(tmp_path, handlers.Client(Export(str(root)), max_handles=8))
    yield tree
    tree.client.handles.close_all()
    subprocess.run(["umount", "-l", root], check=True)


@pytest.mark.root
def test_a_full_disk_says_so_and_works_again_when_there_is_room(small: Tree) -> None:
    handle = small.open(b"/big", CREATE)
    answers = [small.ask(requests.Write(handle, n << 18, (bytes(1 << 18),))) for n in range(6)]
    assert {errno_name(answer) for answer in answers} == {"", "ENOSPC"}
    failed = next(answer for answer in answers if errno_name(answer))
    assert isinstance(failed, StatusResponse)
    assert failed.message == b"No space left on device (ENOSPC)"
    source = small.open(b"/big")
    more = small.open(b"/more", CREATE)
    assert errno_name(small.ask(extensions.CopyData(source, 0, 0, more, 0))) == "ENOSPC"
    assert errno_name(small.ask(requests.Fsetstat(handle, Attrs(size=0)))) == ""
    assert errno_name(small.ask(requests.Write(handle, 0, (b"again",)))) == ""
    assert (small.root / "big").read_bytes() == b"again"


@pytest.mark.root
def test_a_partial_write_is_an_error_not_a_silence(small: Tree) -> None:
    handle = small.open(b"/big", CREATE)
    (small.root / "filler").write_bytes(bytes((1 << 20) - 65536))
    assert errno_name(small.ask(requests.Write(handle, 0, (bytes(1 << 18),)))) == "ENOSPC"


@pytest.mark.root
def test_a_disk_that_turns_read_only_says_so(small: Tree) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small.root], check=True)
    assert errno_name(small.ask(requests.Open(b"/new", CREATE, Attrs()))) == "EROFS"
    subprocess.run(["mount", "-o", "remount,rw", small.root], check=True)
    assert isinstance(small.ask(requests.Open(b"/new", CREATE, Attrs())), Handle)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(params=["removed", "renamed"])
def vanished(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Tree, Clock]:
    """An export whose root has just gone away."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "file").write_bytes(b"old")
    clock = Clock()
    tree = Tree(tmp_path, handlers.Client(Export(str(root), clock=clock), max_handles=8))
    assert isinstance(tree.ask(requests.Stat(b"/file")), AttrsResponse)
    if request.param == "removed":
        shutil.rmtree(root)
    else:
        root.rename(tmp_path / "elsewhere")
    return tree, clock


def test_a_root_that_comes_back_is_served_again(vanished: tuple[Tree, Clock]) -> None:
    tree, clock = vanished
    clock.now += 60
    if not (tree.base / "elsewhere").exists():
        for request in (requests.Stat(b"/file"), requests.Open(b"/new", CREATE, Attrs())):
            response = tree.ask(request)
            assert errno_name(response) == "ESTALE"
            assert b"the exported directory is gone" in response.message  # type: ignore[union-attr]
    tree.root.mkdir()
    (tree.root / "new").write_bytes(b"new")
    clock.now += 60
    assert tree.read(b"/new") == b"new"
    assert errno_name(tree.ask(requests.Stat(b"/file"))) == "ENOENT"
    assert tree.client.export.device == tree.root.stat().st_dev


def test_open_files_survive_the_root(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "file").write_bytes(b"old")
    tree = Tree(tmp_path, handlers.Client(Export(str(root)), max_handles=8))
    handle = tree.open(b"/file", READ)
    shutil.rmtree(root)
    assert bytes(tree.ask(requests.Read(handle, 0, 10)).data) == b"old"  # type: ignore[union-attr]
    tree.client.handles.close_all()


def test_a_root_opened_later_is_an_error_until_it_is_there(tmp_path: Path) -> None:
    clock = Clock()
    export = Export(str(tmp_path / "root"), later=True, clock=clock)
    tree = Tree(tmp_path, handlers.Client(export, max_handles=8))
    response = tree.ask(requests.Stat(b"/"))
    assert isinstance(response, StatusResponse)
    assert response.message == b"the exported directory is not there (ESTALE)"
    tree.root.mkdir()
    clock.now += 60
    assert isinstance(tree.ask(requests.Stat(b"/")), AttrsResponse)


def test_replacing_the_root_leaks_no_descriptor(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    clock = Clock()
    tree = Tree(tmp_path, handlers.Client(Export(str(root), clock=clock), max_handles=8))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        root.rmdir()
        root.mkdir()
        clock.now += 60
        assert isinstance(tree.ask(requests.Stat(b"/")), AttrsResponse)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.root
def test_a_lost_permission_is_an_error_until_it_is_back(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "sub" / "file").write_bytes(b"x")
    root.chmod(0o777)
    (root / "sub").chmod(0o777)
    tree = Tree(tmp_path, handlers.Client(Export(str(root)), max_handles=8))
    os.setegid(65534)
    os.seteuid(65534)
    try:
        assert tree.read(b"/sub/file") == b"x"
        os.seteuid(0)
        (root / "sub").chmod(0o700)
        os.seteuid(65534)
        for request in (
            requests.Stat(b"/sub/file"), requests.Opendir(b"/sub"), requests.Remove(b"/sub/file"),
            requests.Open(b"/sub/new", CREATE, Attrs()),
        ):  # fmt: skip
            assert errno_name(tree.ask(request)) == "EACCES"
        os.seteuid(0)
        (root / "sub").chmod(0o777)
        os.seteuid(65534)
        assert tree.read(b"/sub/file") == b"x"
    finally:
        os.seteuid(0)
        os.setegid(0)
