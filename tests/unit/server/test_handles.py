"""Handles: limits, reuse, closing."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from netfs.server.handles import HandleTable, OpenDirectory, OpenFile
from netfs.sftp import requests
from netfs.sftp.attrs import Attrs
from netfs.sftp.responses import Data
from tests.unit.server.tree import INSIDE, READ, Tree, errno_name, make_tree


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return make_tree(tmp_path)


def test_a_closed_handle_never_means_another_file(tree: Tree) -> None:
    old = tree.open(b"/file")
    tree.ask(requests.Close(old))
    new = tree.open(b"/sub/file")
    assert new != old
    for request in (
        requests.Read(old, 0, 10), requests.Fstat(old), requests.Write(old, 0, (b"x",)),
        requests.Close(old), requests.Fsetstat(old, Attrs(size=0)),
    ):  # fmt: skip
        assert errno_name(tree.ask(request)) == "EBADF"
    data = tree.ask(requests.Read(new, 0, 100))
    assert isinstance(data, Data)
    assert data.data == INSIDE
    tree.ask(requests.Close(new))


@pytest.mark.parametrize("forged", [b"", b"\0" * 8, b"3", b"../../etc/passwd", b"\xff" * 256])
def test_a_forged_handle_opens_nothing(tree: Tree, forged: bytes) -> None:
    assert errno_name(tree.ask(requests.Read(forged, 0, 10))) == "EBADF"


def test_a_descriptor_of_the_process_is_no_handle(tree: Tree) -> None:
    with open(tree.outside / "secret", "rb") as file:
        for layout in (">Q", ">I", "<Q"):
            handle = struct.pack(layout, file.fileno() + 1000)
            assert errno_name(tree.ask(requests.Fstat(handle))) == "EBADF"


def test_a_handle_of_another_session_is_unknown(tmp_path: Path) -> None:
    one, other = make_tree(tmp_path / "1"), make_tree(tmp_path / "2")
    for _ in range(3):
        handle = one.open(b"/file")
    assert errno_name(other.ask(requests.Read(handle, 0, 10))) == "EBADF"
    one.client.handles.close_all()


def test_kinds_are_not_mixed(tree: Tree) -> None:
    file = tree.open(b"/file")
    directory = tree.client.handles.add(OpenDirectory(tree.client.export.opendir(b"/sub")))
    assert errno_name(tree.ask(requests.Readdir(file))) == "EBADF"
    assert errno_name(tree.ask(requests.Read(directory, 0, 10))) == "EBADF"
    assert errno_name(tree.ask(requests.Fsetstat(directory, Attrs(size=0)))) == "EBADF"
    tree.client.handles.close_all()


def test_the_limit_is_told_before_anything_is_created(tree: Tree) -> None:
    tree.client.handles.limit = 2
    handles = [tree.open(b"/file"), tree.open(b"/file")]
    response = tree.ask(requests.Open(b"/new", READ | 0x2 | 0x8, Attrs()))
    assert errno_name(response) == "EMFILE"
    assert not (tree.root / "new").exists()
    assert errno_name(tree.ask(requests.Opendir(b"/"))) == "EMFILE"
    tree.ask(requests.Close(handles[0]))
    handles[0] = tree.open(b"/file")
    tree.client.handles.close_all()


def test_close_all_leaves_no_descriptor(tree: Tree) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        tree.open(b"/file")
        handle = tree.client.handles.add(OpenDirectory(tree.client.export.opendir(b"/")))
        next(tree.client.handles.directory(handle).entries())
    assert tree.client.handles.close_all() == []
    assert len(os.listdir("/proc/self/fd")) == before
    assert len(tree.client.handles) == 0


def test_what_close_says_is_told_and_the_handle_is_gone() -> None:
    table = HandleTable(4)
    handle = table.add(OpenFile(os.open("/dev/null", os.O_RDONLY)))
    os.close(table.file(handle).fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        table.close(handle)
    assert len(table) == 0
