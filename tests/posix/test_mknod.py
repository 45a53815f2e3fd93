"""mknod(2)."""

from __future__ import annotations

import socket
import stat
from pathlib import Path

import pytest

from tests.posix.conftest import Actor


def test_a_regular_file_is_made(root: Actor, place: Path) -> None:
    assert root("mknod", place / "f", stat.S_IFREG | 0o640, 0) == "ok"
    found = root("facts", place / "f")
    assert (found["type"], found["mode"], found["size"]) == ("-", 0o640, 0)


@pytest.mark.parametrize("kind", [stat.S_IFIFO, stat.S_IFSOCK], ids=["fifo", "socket"])
def test_a_fifo_or_socket_is_eperm_on_sftp(
    root: Actor, place: Path, on_mount: bool, kind: int
) -> None:
    expected = "EPERM" if on_mount else "ok"
    assert root("mknod", place / "x", kind | 0o644, 0) == expected


def test_binding_a_socket_is_eperm_on_sftp(place: Path, on_mount: bool) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        if on_mount:
            with pytest.raises(PermissionError):
                sock.bind(str(place / "s"))
        else:
            sock.bind(str(place / "s"))


def test_a_device_is_refused_to_users(alice: Actor, shared: Path) -> None:
    assert alice("mknod", shared / "x", stat.S_IFCHR | 0o644, 0x103) == "EPERM"
