"""Errors of the way to a name, the same for every call that takes one."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.posix.conftest import Actor

# call, arguments after the path; the path itself is the first argument
ON_EXISTING: Final = {
    "stat": (),
    "facts": (),
    "open": (os.O_RDONLY,),
    "chmod": (0o600,),
    "chown": (-1, -1),
    "lchown": (-1, -1),
    "truncate": (0,),
    "unlink": (),
    "rmdir": (),
    "utime_now": (),
    "readlink": (),
    "listdir": (),
    "rename": ("unused-target",),
    "link": ("unused-target",),
}
MAKING: Final = {
    "mkdir": (0o755,),
    "create": (0o644,),
    "mknod": (0o100644, 0),
}
ALL: Final = {**ON_EXISTING, **MAKING}


def rest(arguments: tuple[object, ...], place: Path) -> tuple[object, ...]:
    return tuple(place / "target" if a == "unused-target" else a for a in arguments)


@pytest.mark.parametrize("call", ALL)
def test_enotdir_below_a_file(root: Actor, place: Path, call: str) -> None:
    root("create", place / "file")
    assert root(call, place / "file" / "x", *rest(ALL[call], place)) == "ENOTDIR"


@pytest.mark.parametrize("call", ALL)
def test_enoent_below_a_missing_directory(root: Actor, place: Path, call: str) -> None:
    assert root(call, place / "missing" / "x", *rest(ALL[call], place)) == "ENOENT"


@pytest.mark.parametrize("call", ON_EXISTING)
def test_enoent_for_a_missing_name(root: Actor, place: Path, call: str) -> None:
    assert root(call, place / "missing", *rest(ALL[call], place)) == "ENOENT"


@pytest.mark.parametrize("call", ALL)
def test_enametoolong_for_256_bytes(root: Actor, place: Path, call: str) -> None:
    assert root(call, place / ("n" * 256), *rest(ALL[call], place)) == "ENAMETOOLONG"


@pytest.mark.parametrize("call", MAKING)
def test_255_bytes_are_a_good_name(root: Actor, place: Path, call: str) -> None:
    assert root(call, place / ("n" * 255), *ALL[call]) == "ok"
    assert root("listdir", place) == ["n" * 255]


@pytest.mark.parametrize("call", ALL)
def test_enametoolong_for_a_path_of_4096_bytes(root: Actor, place: Path, call: str) -> None:
    path = os.path.join(place, *["d" * 200] * 21)[:4096].ljust(4096, "x")
    assert root(call, path, *rest(ALL[call], place)) == "ENAMETOOLONG"


@pytest.mark.parametrize("call", ALL)
def test_eacces_without_search_permission(
    root: Actor, alice: Actor, place: Path, call: str
) -> None:
    root("mkdir", place / "closed", 0o755)
    root("create", place / "closed" / "x", 0o777)
    root("chmod", place / "closed", 0o600)
    assert alice(call, place / "closed" / "x", *rest(ALL[call], place)) == "EACCES"


@pytest.mark.parametrize("call", ALL)
def test_eloop_through_links_to_each_other(root: Actor, place: Path, call: str) -> None:
    root("symlink", "b", place / "a")
    root("symlink", "a", place / "b")
    assert root(call, place / "a" / "x", *rest(ALL[call], place)) == "ELOOP"


@pytest.mark.parametrize("call", ["mkdir", "create", "mknod", "symlink", "link"])
@pytest.mark.parametrize("kind", ["file", "directory", "dangling link"])
def test_eexist_for_a_taken_name(root: Actor, place: Path, call: str, kind: str) -> None:
    {
        "file": lambda: root("create", place / "x"),
        "directory": lambda: root("mkdir", place / "x", 0o755),
        "dangling link": lambda: root("symlink", "nowhere", place / "x"),
    }[kind]()
    root("create", place / "source")
    if call in ("symlink", "link"):
        old = "anything" if call == "symlink" else place / "source"
        assert root(call, old, place / "x") == "EEXIST"
    else:
        assert root(call, place / "x", *MAKING[call]) == "EEXIST"


@pytest.mark.parametrize("call", [*MAKING, "symlink", "link", "rename", "unlink", "rmdir"])
def test_eacces_without_write_permission_on_the_directory(
    root: Actor, alice: Actor, place: Path, call: str
) -> None:
    root("create", place / "file", 0o666)
    root("mkdir", place / "directory", 0o777)
    root("chown", place / "file", 10001, 10001)
    arguments: tuple[object, ...] = {
        "symlink": ("anything", place / "new"),
        "link": (place / "file", place / "new"),
        "rename": (place / "file", place / "new"),
        "unlink": (place / "file",),
        "rmdir": (place / "directory",),
    }.get(call, (place / "new", *ALL.get(call, ())))
    assert alice(call, *arguments) == "EACCES"


def test_names_are_bytes_and_survive(root: Actor, place: Path) -> None:
    names = [b"\xff\xfe", "ünïcödé".encode(), b"new\nline", b" blank ", b"-", b"a'b\"c", b"\x01"]
    for name in names:
        assert root("create", place / os.fsdecode(name)) == "ok"
    assert sorted(map(os.fsencode, root("listdir", place))) == sorted(names)
    for name in names:
        assert root("unlink", place / os.fsdecode(name)) == "ok"


def test_a_path_of_more_than_4095_bytes_step_by_step(
    root: Actor, place: Path, on_mount: bool
) -> None:
    """A local filesystem goes as deep as one steps; SFTP has absolute paths only."""
    here = os.open(place, os.O_RDONLY)
    try:
        with contextlib.ExitStack() as stack:
            stack.callback(os.close, here)
            refusal: int | None = None
            for _ in range(21):
                try:
                    os.mkdir("d" * 200, dir_fd=here)
                except OSError as error:
                    refusal = error.errno
                    break
                here = os.open("d" * 200, os.O_RDONLY, dir_fd=here)
                stack.callback(os.close, here)
    finally:
        subprocess.run(["rm", "-rf", place / ("d" * 200)], check=True)
    assert refusal == (errno.ENAMETOOLONG if on_mount else None)


def test_extended_attributes_are_none(place: Path, on_mount: bool) -> None:
    path = place / "f"
    path.touch()
    if not on_mount:
        return
    for call in (
        lambda: os.setxattr(path, "user.x", b"1"),
        lambda: os.getxattr(path, "user.x"),
        lambda: os.listxattr(path),
        lambda: os.removexattr(path, "user.x"),
    ):
        with pytest.raises(OSError, match="not supported") as caught:
            call()
        assert caught.value.errno == errno.EOPNOTSUPP
