"""What docs/semantics.md promises, where tests/posix has no place for it: seen from both sides."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import shutil
import socket
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.conftest import Mounter
from tests.harness.mounts import Mount, mounted
from tests.harness.packages import require
from tests.harness.sftpd import SFTP_SERVER, running_sftpd
from tests.harness.sshd import Sshd

pytestmark = [pytest.mark.mount, pytest.mark.sshd]

NOBODY = 65534
COUNT = 100_000 if os.environ.get("NETFS_TEST_LONG") else 20_000


def refused(call: Callable[..., object], *arguments: object) -> int | None:
    with pytest.raises(OSError) as caught:
        call(*arguments)
    return caught.value.errno


# Kinds of files.


def test_fifos_sockets_and_devices_are_listed(mount_at: Mounter, remote: Path) -> None:
    os.mkfifo(remote / "fifo")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(remote / "socket"))
    kinds = {"fifo": stat.S_ISFIFO, "socket": stat.S_ISSOCK}
    if os.geteuid() == 0:
        os.mknod(remote / "device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
        kinds["device"] = stat.S_ISCHR
    place = mount_at(remote).path
    for name, is_kind in kinds.items():
        assert is_kind(os.lstat(place / name).st_mode), name
    with os.scandir(place) as entries:
        assert {entry.name for entry in entries if not entry.is_file()} == set(kinds)
    for name in kinds:
        os.unlink(place / name)
    assert os.listdir(remote) == []


# Renames.


def test_a_replacement_is_one_step_for_everybody(mount_at: Mounter, remote: Path) -> None:
    (remote / "file").write_bytes(b"first" * 100)
    place = mount_at(remote).path
    wrong: list[object] = []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            try:
                content = (remote / "file").read_bytes()
            except OSError as error:
                wrong.append(error)
                return
            if len(content) != 500 or len({content[i : i + 5] for i in range(0, 500, 5)}) != 1:
                wrong.append(content)

    watcher = threading.Thread(target=watch)
    with (place / "file").open("rb") as reader:
        assert reader.read(5) == b"first"
        watcher.start()
        try:
            for number in range(60):
                (place / "new").write_bytes(b"%05d" % number * 100)
                os.replace(place / "new", place / "file")
        finally:
            done.set()
            watcher.join()
        assert reader.read() == b"first" * 99
    assert not wrong
    assert (remote / "file").read_bytes() == (place / "file").read_bytes() == b"00059" * 100


# Hard links that were there before.


def test_links_that_were_there_never_serve_stale_data(mount_at: Mounter, remote: Path) -> None:
    (remote / "a").write_bytes(b"first")
    os.link(remote / "a", remote / "b")
    os.utime(remote / "a", (1e9, 1e9))  # old: a version that is trusted
    place = mount_at(remote).path
    a, b = place / "a", place / "b"
    assert sorted(os.listdir(place)) == ["a", "b"]
    assert [os.stat(name).st_nlink for name in (a, b)] == [2, 2]
    with b.open("rb") as reader:
        assert reader.read() == b"first"
        assert a.read_bytes() == b"first"
        with a.open("r+b") as writer:
            writer.write(b"FIRST and more")
        assert b.read_bytes() == b"FIRST and more"
        assert os.stat(b).st_size == 14
        os.truncate(a, 3)
        assert os.fstat(reader.fileno()).st_size == 3
        assert os.pread(reader.fileno(), 100, 0) == b"FIR"
    os.chmod(a, 0o604)
    assert stat.S_IMODE(os.stat(b).st_mode) == 0o604
    os.utime(b, (5, 6))
    assert os.stat(a).st_mtime == 6
    os.unlink(a)
    assert b.read_bytes() == b"FIR"


# Sizes.


def test_the_size_of_the_filesystem_is_the_servers(mount_at: Mounter, remote: Path) -> None:
    here, there = os.statvfs(mount_at(remote).path), os.statvfs(remote)
    for name in ("f_bsize", "f_frsize", "f_blocks", "f_files", "f_namemax"):
        assert getattr(here, name) == getattr(there, name), name
    unit = 1 << 30  # others write meanwhile
    assert abs(here.f_bavail - there.f_bavail) * there.f_frsize < unit
    assert abs(here.f_bfree - there.f_bfree) * there.f_frsize < unit


def test_du_tells_about_what_is_used(mount_at: Mounter, remote: Path) -> None:
    place = mount_at(remote).path
    for number in range(20):
        (place / f"f{number}").write_bytes(b"x" * (50_000 + number))
    used = [
        int(subprocess.run(["du", "-sk", path], capture_output=True, text=True).stdout.split()[0])
        for path in (place, remote)
    ]
    assert used[0] == pytest.approx(used[1], rel=0.1)


# Mapped files.


def test_a_private_map_changes_nothing_and_a_shared_one_is_seen(
    mount_at: Mounter, remote: Path
) -> None:
    place = mount_at(remote).path
    content = b"0123456789" * 1000
    (place / "file").write_bytes(content)
    with (place / "file").open("r+b") as file:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as private:
            private[:3] = b"own"
            assert os.pread(file.fileno(), 4, 0) == b"0123"
        with mmap.mmap(file.fileno(), 0) as shared:
            shared[:3] = b"all"
            assert os.pread(file.fileno(), 4, 0) == b"all3"
            os.pwrite(file.fileno(), b"too", 5000)
            assert shared[5000:5003] == b"too"
            shared.flush()
            assert (remote / "file").read_bytes()[:4] == b"all3"
    changed = b"all" + content[3:5000] + b"too" + content[5003:]
    assert (remote / "file").read_bytes() == changed


# Large directories.


class Dirent(ctypes.Structure):
    _fields_ = (
        ("ino", ctypes.c_ulong),
        ("offset", ctypes.c_long),
        ("size", ctypes.c_ushort),
        ("kind", ctypes.c_ubyte),
        ("name", ctypes.c_char * 256),
    )


class Directory:
    """opendir(3) and its kin."""

    def __init__(self, path: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.opendir.restype = ctypes.c_void_p
        libc.readdir.restype = ctypes.POINTER(Dirent)
        libc.telldir.restype = ctypes.c_long
        self._libc = libc
        self._handle = ctypes.c_void_p(libc.opendir(os.fsencode(path)))

    def read(self) -> str | None:
        """The next name."""
        entry = self._libc.readdir(self._handle)
        return os.fsdecode(entry.contents.name) if entry else None

    def rest(self) -> Iterator[str]:
        return iter(self.read, None)

    def tell(self) -> int:
        return int(self._libc.telldir(self._handle))

    def seek(self, position: int) -> None:
        self._libc.seekdir(self._handle, ctypes.c_long(position))

    def rewind(self) -> None:
        self._libc.rewinddir(self._handle)

    def close(self) -> None:
        self._libc.closedir(self._handle)


def test_a_large_directory_is_listed_while_it_changes(mount_at: Mounter, remote: Path) -> None:
    there = remote / "many"
    there.mkdir()
    names = {f"f{number:06}" for number in range(COUNT)}
    for name in names:
        os.mknod(there / name)
    place = mount_at(remote).path / "many"
    directory = Directory(place)
    try:
        marks: list[tuple[int, str]] = []
        seen: list[str] = []
        while len(seen) < COUNT // 5:
            position, name = directory.tell(), directory.read()
            assert name is not None
            if len(seen) % 1000 == 0:
                marks.append((position, name))
            seen.append(name)
        gone = set(seen[100:150])  # read already, and not marked
        later = set(sorted(names - set(seen))[:50])  # not yet
        for name in gone | later:
            os.unlink(place / name)
        os.rename(place / seen[200], place / "renamed")
        (place / "new").touch()
        seen += directory.rest()
        assert len(seen) == len(set(seen)), "nothing twice"
        assert names - later <= set(seen) <= names | {".", "..", "new", "renamed"}
        for position, name in reversed(marks):
            directory.seek(position)
            assert directory.read() == name
        directory.rewind()
        expected = {".", "..", *os.listdir(there)}
        again = list(directory.rest())
        assert len(again) == len(expected)
        assert set(again) == expected
    finally:
        directory.close()
        subprocess.run(["rm", "-rf", there], check=True)


# Servers that can less, and logins that may less.


@contextlib.contextmanager
def served(
    command: Sequence[str], sshd: Sshd, remote: Path, place: Path, *options: str
) -> Iterator[Mount]:
    """*remote* as an SFTP server started by *command* serves it."""
    with running_sftpd(command) as port:
        words = (f"directport={port}", *options)
        with mounted(sshd, remote, place, options=words, source=f"127.0.0.1:{remote}") as mount:
            yield mount


def test_rename_replaces_on_servers_without_posix_rename(
    need_fuse: None, sshd: Sshd, remote: Path, tmp_path: Path
) -> None:
    with served([*SFTP_SERVER, "-P", "posix-rename"], sshd, remote, tmp_path / "m") as mount:
        place = mount.path
        (place / "old").write_bytes(b"old")
        (place / "new").write_bytes(b"new")
        with (place / "old").open("rb") as reader:
            os.rename(place / "new", place / "old")
            assert reader.read() == b"old"
        assert (place / "old").read_bytes() == (remote / "old").read_bytes() == b"new"
        for name in ("directory", "empty", "full"):
            (place / name).mkdir()
        (place / "full" / "file").touch()
        assert refused(os.rename, place / "directory", place / "full") == errno.ENOTEMPTY
        assert refused(os.rename, place / "directory", place / "old") == errno.ENOTDIR
        assert refused(os.rename, place / "old", place / "empty") == errno.EISDIR
        os.rename(place / "directory", place / "empty")
        assert sorted(os.listdir(remote)) == sorted(os.listdir(place)) == ["empty", "full", "old"]


LOGIN = ("--reuid=65534", "--regid=65534", "--clear-groups")


@pytest.fixture
def theirs(sandbox: Path) -> Iterator[Path]:
    """A directory on the server that is a user's and has some of root's files in it."""
    path = sandbox / "theirs"
    path.mkdir()
    os.chown(path, NOBODY, NOBODY)
    (path / "secret").write_text("secret")
    (path / "secret").chmod(0o600)
    (path / "readable").write_text("text")
    (path / "readable").chmod(0o644)
    (path / "closed").mkdir(mode=0o700)
    yield path
    shutil.rmtree(path)


@pytest.mark.root
def test_a_login_may_what_it_may_and_access_tells(
    need_fuse: None, sshd: Sshd, theirs: Path, tmp_path: Path
) -> None:
    server = ["env", "-C", str(theirs), require("setpriv"), *LOGIN, *SFTP_SERVER]
    with served(server, sshd, theirs, tmp_path / "m") as mount:
        place = mount.path
        (place / "file").write_text("x")
        (place / "directory").mkdir()

        def allowed(mode: int) -> set[str]:
            return {name for name in os.listdir(place) if os.access(place / name, mode)}

        assert allowed(os.R_OK) == {"file", "readable", "directory"}
        assert allowed(os.W_OK) == {"file", "directory"}
        assert allowed(os.X_OK) == {"directory"}
        assert refused((place / "secret").read_bytes) == errno.EACCES
        assert refused((place / "readable").write_bytes, b"x") == errno.EACCES
        assert refused(os.listdir, place / "closed") == errno.EACCES
        assert refused((place / "closed" / "new").mkdir) == errno.EACCES
        assert refused(os.chmod, place / "readable", 0o666) == errno.EPERM
        assert refused(os.utime, place / "readable", (1, 1)) == errno.EPERM
        assert refused(os.chown, place / "file", 5, 5) == errno.EPERM
        assert (theirs / "readable").read_text() == "text"


@pytest.mark.root
@pytest.mark.parametrize("directory", [".", "/"], ids=["its own directory", "root's directory"])
def test_what_is_made_belongs_to_the_login_where_it_may_not_be_given_away(
    need_fuse: None, sshd: Sshd, theirs: Path, tmp_path: Path, directory: str
) -> None:
    where = str(theirs / directory)  # a login shut up by ChrootDirectory begins in root's
    server = ["env", "-C", where, require("setpriv"), *LOGIN, *SFTP_SERVER]
    with served(server, sshd, theirs, tmp_path / "m", "allow_other", "idmap=none") as mount:
        make = "echo x > file; mkdir directory; ln -s file link; [ -r readable ] && [ ! -r secret ]"
        other = [require("setpriv"), "--reuid=10001", "--regid=10001", "--clear-groups"]
        done = subprocess.run([*other, "sh", "-ec", make], cwd=mount.path, capture_output=True)
        assert (done.returncode, done.stderr) == (0, b"")
        for name in ("file", "directory", "link"):
            for side in (mount.path, theirs):
                found = os.lstat(side / name)
                assert (found.st_uid, found.st_gid) == (NOBODY, NOBODY), name
