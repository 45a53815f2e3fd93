"""Daily work on servers that are not OpenSSH's: what they do otherwise is met, or refused clearly.

What each of them can't do is in the table below, and in docs/semantics.md.
"""

from __future__ import annotations

import errno
import os
import pwd
import random
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from tests.harness.fsx import Exerciser
from tests.harness.mounts import mounted
from tests.harness.others import SSH_SERVERS, SUBSYSTEMS, running_other
from tests.harness.trees import git, make_tree

pytestmark = [pytest.mark.mount, pytest.mark.sshd, pytest.mark.timeout(120)]


class Kind(NamedTuple):
    """What a server can't do."""

    hardlinks: bool = True
    relative_links: bool = True  # else it makes them absolute, and netfs refuses
    shows_relative: bool = True  # else READLINK tells where they lead


KINDS: Final = {
    "proftpd": Kind(shows_relative=False),
    "dropbear": Kind(),
    "tinysshd": Kind(),
    "asyncssh": Kind(),
    "gesftpserver": Kind(),
    "mysecureshell": Kind(hardlinks=False, relative_links=False),
}
assert KINDS.keys() == SSH_SERVERS.keys() | SUBSYSTEMS.keys()


class Place(NamedTuple):
    kind: Kind
    path: Path  # here
    remote: Path  # there


class Served(NamedTuple):
    kind: Kind
    mount: Path
    remote: Path


@pytest.fixture(scope="module", params=KINDS)
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """One mount of each server, for all tests: they have a directory each."""
    if not os.path.exists("/dev/fuse"):
        pytest.skip("this machine has no /dev/fuse")
    if os.geteuid():
        pytest.skip("only root can lay private directories under such a server")
    top = tmp_path_factory.mktemp(request.param)
    (top / "remote").mkdir()
    with (
        running_other(request.param, top / "server") as server,
        mounted(server, top / "remote", top / "m") as mount,
    ):
        yield Served(KINDS[request.param], mount.path, top / "remote")


@pytest.fixture
def place(served: Served, request: pytest.FixtureRequest) -> Place:
    name = request.function.__name__
    (served.mount / name).mkdir()
    return Place(served.kind, served.mount / name, served.remote / name)


def refused(number: int, function: object, *arguments: object) -> None:
    with pytest.raises(OSError) as caught:
        function(*arguments)  # type: ignore[operator]
    assert caught.value.errno == number


def test_bytes_arrive_and_come_back(place: Place) -> None:
    for size in (0, 1, 70_000, 3_000_001):
        data = random.Random(size).randbytes(size)
        (place.path / "f").write_bytes(data)
        assert (place.remote / "f").read_bytes() == data
        assert (place.path / "f").read_bytes() == data
    with (place.path / "f").open("r+b") as file:
        file.seek(100)
        file.write(b"in the middle")
        file.seek(90)
        assert file.read(40) == data[90:100] + b"in the middle" + data[113:130]
        file.truncate(105)
    with (place.path / "f").open("ab") as file:
        file.write(b"appended")
    assert (place.remote / "f").read_bytes() == data[:100] + b"in thappended"


def test_no_wrong_byte(place: Place) -> None:
    exerciser = Exerciser(place.path / "f", 11)
    exerciser.run(300)
    exerciser.close()
    assert (place.remote / exerciser.path.name).read_bytes() == bytes(exerciser.model)


def test_a_file_that_grows_is_read_to_its_end_by_who_has_it_open(place: Place) -> None:
    """ProFTPD's handles see the size of when they were opened."""
    path = place.path / "f"
    path.write_bytes(b"begun ")
    with path.open("rb", buffering=0) as reader:
        assert reader.read() == b"begun "
        os.truncate(path, 300_000)
        assert reader.read() == bytes(300_000 - 6)
        with path.open("ab") as writer:
            writer.write(b"appended")
        assert reader.read() == b"appended"


def test_names(place: Place) -> None:
    top = place.path
    (top / "d").mkdir(mode=0o700)
    assert stat.S_IMODE((place.remote / "d").stat().st_mode) == 0o700
    refused(errno.EEXIST, (top / "d").mkdir)
    for number in range(150):
        (top / "d" / f"name {number}").touch()
    assert len(os.listdir(top / "d")) == 150
    refused(errno.ENOTEMPTY, (top / "d").rmdir)
    (top / "a").write_bytes(b"a")
    (top / "b").write_bytes(b"b")
    with (top / "b").open("rb") as replaced:
        os.rename(top / "a", top / "b")
        assert replaced.read() == b"b"
    assert (top / "b").read_bytes() == b"a"
    refused(errno.ENOENT, os.rename, top / "a", top / "c")
    os.rename(top / "d", top / "e")
    os.rename(top / "b", top / "e" / "b")
    assert sorted(os.listdir(place.remote)) == ["e"]
    for name in ("ünï", "new\nline", "back\\slash", "n" * 255):
        (top / name).write_bytes(b"x")
        assert os.listdir(place.remote).count(name) == 1
        (top / name).unlink()
    refused(errno.ENAMETOOLONG, (top / ("n" * 256)).touch)
    refused(errno.EISDIR, (top / "e").unlink)
    subprocess.run(["rm", "-r", top / "e"], check=True, timeout=60)
    assert not os.listdir(place.remote)


def test_symlinks_are_where_they_should_be_and_nowhere_else(place: Place) -> None:
    home = Path(pwd.getpwuid(os.geteuid()).pw_dir)
    before = set(os.listdir(home))
    top = place.path
    (top / "target").write_bytes(b"content")
    (top / "sub").mkdir()
    wanted = {"absolute": str(place.remote / "target"), "dangling": "/no/such/place"}
    relative = {"relative": "target", "sub/up": "../target", "no": "sub/no"}
    for name, target in wanted.items():
        os.symlink(target, top / name)
    for name, target in relative.items():
        if place.kind.relative_links:
            os.symlink(target, top / name)
            wanted[name] = target
        else:
            refused(errno.EPERM, os.symlink, target, top / name)
    refused(errno.EEXIST, os.symlink, "x", top / "absolute")
    assert {name: os.readlink(place.remote / name) for name in wanted} == wanted
    if place.kind.shows_relative:
        assert {name: os.readlink(top / name) for name in wanted} == wanted
    links = [path for path in place.remote.rglob("*") if path.is_symlink()]
    assert len(links) == len(wanted)
    assert set(os.listdir(home)) == before
    if place.kind.relative_links:
        assert (top / "relative").read_bytes() == b"content"


def test_hard_links(place: Place) -> None:
    (place.path / "one").write_bytes(b"1")
    if not place.kind.hardlinks:
        refused(errno.EPERM, os.link, place.path / "one", place.path / "two")
        return
    os.link(place.path / "one", place.path / "two")
    (place.path / "two").write_bytes(b"changed")
    assert (place.path / "one").read_bytes() == b"changed"
    assert (place.path / "one").stat().st_nlink == 2


def test_attributes(place: Place) -> None:
    file = place.path / "f"
    descriptor = os.open(file, os.O_CREAT | os.O_WRONLY, 0o600)
    os.close(descriptor)
    assert stat.S_IMODE((place.remote / "f").stat().st_mode) == 0o600
    file.chmod(0o751)
    os.utime(file, (1_000_000_000, 1_100_000_000))
    os.truncate(file, 5000)
    os.utime(file, (1_000_000_000, 1_100_000_000))
    there, here = (place.remote / "f").stat(), file.stat()
    assert stat.S_IMODE(there.st_mode) == stat.S_IMODE(here.st_mode) == 0o751
    assert there.st_mtime == here.st_mtime == 1_100_000_000
    assert there.st_size == here.st_size == 5000
    os.chown(file, 12, 34)
    there = (place.remote / "f").stat()
    assert (there.st_uid, there.st_gid) == (12, 34)
    assert os.statvfs(place.path).f_bsize > 0


def test_an_unlinked_file_lives_on(place: Place) -> None:
    with (place.path / "f").open("w+b", buffering=0) as file:
        file.write(b"hello")
        (place.path / "f").unlink()
        assert not os.listdir(place.path)
        file.seek(0)
        assert file.read() == b"hello"


def test_git(place: Place) -> None:
    original, clone = place.path / "original", place.path / "clone"
    make_tree(original, files=8, directories=3, seed=2, links=place.kind.relative_links)
    git(original, "init", "-q")
    git(original, "add", "-A")
    git(original, "commit", "-qm", "all of it")
    git(place.path, "clone", "-q", str(original), str(clone))
    git(clone, "fsck", "--strict")
    assert not git(clone, "status", "--porcelain")
