"""A link cut at exact points of each change: the end is as if it had run exactly once.

Before: the server never sees the request. Half: it sees its beginning. After: it has acted, and its
answer is lost. SFTP runs in the clear here (``directport``), so that the relay can see the points.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.harness.mounts import mounted
from tests.harness.relay import Relay
from tests.harness.sftpd import running_sftpd
from tests.harness.sshd import Sshd

pytestmark = [pytest.mark.mount, pytest.mark.sshd]

OPEN, CLOSE, WRITE, SETSTAT, FSETSTAT = 3, 4, 6, 9, 10
REMOVE, MKDIR, RMDIR, RENAME, SYMLINK, EXTENDED = 13, 14, 15, 18, 20, 200


@dataclass(frozen=True)
class Change:
    """One change: the request to cut at, how to prepare, do and check it."""

    name: str
    request: int
    prepare: Callable[[Path], object]  # on the server's side
    do: Callable[[Path], object]  # on the mount
    check: Callable[[Path], bool]  # on the server's side


def nothing(place: Path) -> None:
    """No preparation."""


def create_exclusively(place: Path) -> None:
    os.close(os.open(place / "new", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o640))


def write_and_sync(place: Path) -> None:
    with (place / "f").open("r+b", buffering=0) as file:
        file.seek(3)
        file.write(b"DEF" * 20_000)
        os.fsync(file.fileno())


def append_and_close(place: Path) -> None:
    with (place / "f").open("ab") as file:
        file.write(b"appended")


def put(name: str, content: bytes = b"abc") -> Callable[[Path], object]:
    return lambda place: (place / name).write_bytes(content)


def two_files(place: Path) -> None:
    (place / "a").write_text("A")
    (place / "b").write_text("B")


def absent(place: Path, name: str) -> bool:
    return not os.path.lexists(place / name)


CHANGES = (
    Change("mkdir", MKDIR, nothing, lambda p: os.mkdir(p / "d"), lambda p: (p / "d").is_dir()),
    Change(
        "rmdir", RMDIR, lambda p: os.mkdir(p / "d"), lambda p: os.rmdir(p / "d"),
        lambda p: absent(p, "d"),
    ),
    Change("unlink", REMOVE, put("f"), lambda p: os.unlink(p / "f"), lambda p: absent(p, "f")),
    Change(
        "create exclusively", OPEN, nothing, create_exclusively,
        lambda p: (p / "new").stat().st_mode & 0o777 == 0o640,
    ),
    Change(
        "rename", EXTENDED, put("a"), lambda p: os.rename(p / "a", p / "b"),
        lambda p: absent(p, "a") and (p / "b").read_bytes() == b"abc",
    ),
    Change(
        "rename over a file", EXTENDED, two_files, lambda p: os.rename(p / "a", p / "b"),
        lambda p: absent(p, "a") and (p / "b").read_text() == "A",
    ),
    Change(
        "link", EXTENDED, put("a"), lambda p: os.link(p / "a", p / "b"),
        lambda p: (p / "b").stat().st_ino == (p / "a").stat().st_ino,
    ),
    Change(
        "symlink", SYMLINK, nothing, lambda p: os.symlink("target", p / "l"),
        lambda p: os.readlink(p / "l") == "target",
    ),
    Change(
        "chmod", SETSTAT, put("f"), lambda p: os.chmod(p / "f", 0o604),
        lambda p: (p / "f").stat().st_mode & 0o777 == 0o604,
    ),
    Change(
        "truncate", SETSTAT, put("f"), lambda p: os.truncate(p / "f", 1),
        lambda p: (p / "f").read_bytes() == b"a",
    ),
    Change(
        "write", WRITE, put("f"), write_and_sync,
        lambda p: (p / "f").read_bytes() == b"abc" + b"DEF" * 20_000,
    ),
    Change(
        "fsync", EXTENDED, put("f"), write_and_sync,
        lambda p: (p / "f").read_bytes() == b"abc" + b"DEF" * 20_000,
    ),
    Change(
        "append", WRITE, put("f"), append_and_close,
        lambda p: (p / "f").read_bytes() == b"abcappended",
    ),
    Change(
        "close", CLOSE, put("f"), append_and_close,
        lambda p: (p / "f").read_bytes() == b"abcappended",
    ),
)  # fmt: skip


@pytest.mark.parametrize("point", ["before", "half", "after"])
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.name.replace(" ", "-"))
def test_a_change_whose_link_is_cut_happens_exactly_once(
    change: Change, point: str, sshd: Sshd, remote: Path, tmp_path: Path, need_fuse: None
) -> None:
    change.prepare(remote)
    with running_sftpd() as port, Relay(port) as relay:
        place = tmp_path / "m"
        options = (f"directport={relay.port}",)
        source = f"127.0.0.1:{remote}"
        with mounted(sshd, remote, place, options=options, source=source) as mount:
            relay.arm(change.request, point)
            change.do(place)
            if change.request == CLOSE:  # sent after close(2) has returned, or with the mount's end
                mount.unmount()
                assert change.check(remote)
                return
            assert relay.fired(), "no such request was sent"
            assert change.check(remote)
            assert sorted(os.listdir(place)) == sorted(os.listdir(remote))
            for name in os.listdir(remote):
                here, there = os.lstat(place / name), os.lstat(remote / name)
                assert (here.st_mode, here.st_size) == (there.st_mode, there.st_size)
            assert mount.unmount() == 0
