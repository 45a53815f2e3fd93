"""The policy tables of errnos.py and replay.py: total, and right row by row."""

import errno
import os
import stat

import pytest

from netfs.client.remote import errnos
from netfs.client.remote.errnos import Look, rule
from netfs.client.remote.replay import TABLE, Replay, replay_of
from netfs.sftp import extensions as ext
from netfs.sftp import requests as req
from netfs.sftp.attrs import Attrs, StatVfs
from netfs.sftp.codes import OpenFlag, Status

DIR = Attrs(mode=stat.S_IFDIR | 0o755, size=0, mtime=0)
STICKY = Attrs(mode=stat.S_IFDIR | 0o1777)
FILE = Attrs(mode=stat.S_IFREG | 0o644, size=10)
PROGRAM = Attrs(mode=stat.S_IFREG | 0o755, size=10)
FIFO = Attrs(mode=stat.S_IFIFO | 0o644)
ROOM = StatVfs(4096, 4096, 100, 50, 50, 100, 50, 50, 1, 0, 255)
FULL = ROOM._replace(bavail=0)
NO_INODES = ROOM._replace(favail=0)
READ_ONLY = ROOM._replace(flag=1)
OTHER = ROOM._replace(fsid=2)
FAILURE, DENIED, NONE = Status.FAILURE, Status.PERMISSION_DENIED, Status.NO_SUCH_FILE


def test_each_request_and_status_has_an_errno_or_a_look() -> None:
    assert set(errnos.TABLE) == set(req.REQUESTS)
    for row in errnos.TABLE.values():
        assert set(row) == set(Status)
        for value in row.values():
            assert isinstance(value, Look) or value in errno.errorcode


def test_each_request_has_a_replay() -> None:
    assert set(TABLE) == set(req.REQUESTS)


@pytest.mark.parametrize(
    ("pflags", "expected"),
    [
        (OpenFlag.READ, Replay.SAFE),
        (OpenFlag.WRITE | OpenFlag.TRUNC, Replay.SAME_RESULT),
        (OpenFlag.WRITE | OpenFlag.CREAT, Replay.SAME_RESULT),
        (OpenFlag.WRITE | OpenFlag.CREAT | OpenFlag.EXCL, Replay.SETTLE),
        (OpenFlag.READ | OpenFlag.EXCL, Replay.SAFE),
    ],
)
def test_an_open_is_replayed_by_its_flags(pflags: int, expected: Replay) -> None:
    assert replay_of(req.Open(b"/f", pflags, Attrs())) is expected
    assert replay_of(req.Lstat(b"/f")) is Replay.SAFE


@pytest.mark.parametrize(
    ("code", "message", "expected"),
    [
        (FAILURE, b"Failure", Look.TARGET),
        (FAILURE, b"No space left on device", errno.ENOSPC),
        (FAILURE, b"Disk quota exceeded.", errno.EDQUOT),
        (FAILURE, b"anything (ENOTEMPTY)", errno.ENOTEMPTY),
        (FAILURE, b"anything (ENONSENSE)", Look.TARGET),
        (DENIED, b"Permission denied", Look.TARGET),
        (DENIED, b"Operation not permitted", errno.EPERM),
        (DENIED, b"Permission denied (EACCES)", errno.EACCES),
        (11, b"", errno.EEXIST),
        (14, b"", errno.ENOSPC),
        (999, b"", errno.EIO),
    ],
)
def test_what_a_server_tells_in_words_is_believed(
    code: int, message: bytes, expected: errnos.Rule
) -> None:
    assert rule(req.Rmdir(b"/d"), code, message) == expected


def test_too_long_is_what_linux_says() -> None:
    assert not errnos.is_too_long(b"/" + b"n" * 255)
    assert errnos.is_too_long(b"/" + b"n" * 256)
    assert errnos.is_too_long(b"/n" * 2048)


MKDIR, RMDIR, REMOVE = req.Mkdir(b"/d", Attrs()), req.Rmdir(b"/d"), req.Remove(b"/d")
SYMLINK = req.Symlink(b"t", b"/d")


@pytest.mark.parametrize(
    ("request_", "target", "parent", "code", "space", "is_empty", "expected"),
    [
        (MKDIR, FILE, DIR, FAILURE, ROOM, None, errno.EEXIST),
        (MKDIR, None, FILE, NONE, ROOM, None, errno.ENOTDIR),
        (MKDIR, None, None, NONE, ROOM, None, errno.ENOENT),
        (MKDIR, None, DIR, FAILURE, READ_ONLY, None, errno.EROFS),
        (MKDIR, None, DIR, FAILURE, FULL, None, errno.ENOSPC),
        (MKDIR, None, DIR, FAILURE, NO_INODES, None, errno.ENOSPC),
        (MKDIR, None, DIR, FAILURE, ROOM, None, errno.EIO),
        (MKDIR, None, DIR, FAILURE, None, None, errno.EIO),
        (MKDIR, None, STICKY, DENIED, ROOM, None, errno.EACCES),
        (SYMLINK, FILE, DIR, FAILURE, ROOM, None, errno.EEXIST),
        (RMDIR, DIR, DIR, FAILURE, ROOM, False, errno.ENOTEMPTY),
        (RMDIR, DIR, DIR, FAILURE, ROOM, True, errno.EBUSY),
        (RMDIR, FILE, DIR, FAILURE, ROOM, None, errno.ENOTDIR),
        (RMDIR, FILE, DIR, NONE, ROOM, None, errno.ENOTDIR),
        (RMDIR, None, DIR, NONE, ROOM, None, errno.ENOENT),
        (RMDIR, DIR, STICKY, DENIED, ROOM, None, errno.EPERM),
        (REMOVE, DIR, DIR, FAILURE, ROOM, None, errno.EISDIR),
        (REMOVE, FILE, DIR, FAILURE, READ_ONLY, None, errno.EROFS),
        (REMOVE, FILE, DIR, FAILURE, ROOM, None, errno.EBUSY),
        (REMOVE, FILE, STICKY, DENIED, ROOM, None, errno.EPERM),
        (REMOVE, FILE, DIR, DENIED, ROOM, None, errno.EACCES),
    ],
)
def test_the_errno_of_making_and_removing(
    request_: object,
    target: Attrs | None,
    parent: Attrs | None,
    code: int,
    space: StatVfs | None,
    is_empty: bool | None,
    expected: int,
) -> None:
    assert errnos.of_target(request_, target, parent, code, space, is_empty) == expected


RENAME, RENAME_OVER = req.Rename(b"/a", b"/b"), ext.PosixRename(b"/a", b"/b")
LINK = ext.Hardlink(b"/a", b"/b")


@pytest.mark.parametrize(
    ("request_", "old", "new", "code", "there", "is_empty", "is_below", "expected"),
    [
        (RENAME, FILE, FILE, FAILURE, ROOM, None, False, errno.EEXIST),
        (RENAME, None, None, NONE, ROOM, None, False, errno.ENOENT),
        (RENAME, None, None, DENIED, ROOM, None, False, errno.EACCES),
        (RENAME_OVER, DIR, DIR, FAILURE, ROOM, False, False, errno.ENOTEMPTY),
        (RENAME_OVER, DIR, FILE, NONE, ROOM, None, False, errno.ENOTDIR),
        (RENAME_OVER, FILE, DIR, FAILURE, ROOM, True, False, errno.EISDIR),
        (RENAME_OVER, DIR, None, Status.BAD_MESSAGE, ROOM, None, True, errno.EINVAL),
        (RENAME_OVER, FILE, None, Status.BAD_MESSAGE, ROOM, None, False, errno.EINVAL),
        (RENAME_OVER, FILE, None, NONE, ROOM, None, False, errno.ENOENT),
        (RENAME_OVER, FILE, None, FAILURE, OTHER, None, False, errno.EXDEV),
        (RENAME_OVER, FILE, None, FAILURE, READ_ONLY, None, False, errno.EROFS),
        (RENAME_OVER, FILE, None, FAILURE, FULL, None, False, errno.ENOSPC),
        (RENAME_OVER, FILE, None, FAILURE, ROOM, None, False, errno.EBUSY),
        (RENAME_OVER, FILE, None, DENIED, ROOM, None, False, errno.EACCES),
        (LINK, DIR, None, DENIED, ROOM, None, False, errno.EPERM),
        (LINK, FILE, DIR, FAILURE, ROOM, None, False, errno.EEXIST),
        (LINK, FILE, None, FAILURE, OTHER, None, False, errno.EXDEV),
        (LINK, FILE, None, FAILURE, ROOM, None, False, errno.EIO),
    ],
)
def test_the_errno_of_two_names(
    request_: object,
    old: Attrs | None,
    new: Attrs | None,
    code: int,
    there: StatVfs,
    is_empty: bool | None,
    is_below: bool,
    expected: int,
) -> None:
    assert expected == errnos.of_pair(
        request_,
        old,
        new,
        code,
        spaces=(ROOM, there),
        is_new_empty=is_empty,
        is_below=is_below,
    )


R, W, C, X = OpenFlag.READ, OpenFlag.WRITE, OpenFlag.CREAT, OpenFlag.EXCL


@pytest.mark.parametrize(
    ("pflags", "named", "reached", "code", "space", "expected"),
    [
        (W | C | X, FILE, FILE, FAILURE, ROOM, errno.EEXIST),
        (W, DIR, DIR, FAILURE, ROOM, errno.EISDIR),
        (R, None, None, NONE, ROOM, errno.ENOENT),
        (W, FILE, FILE, FAILURE, READ_ONLY, errno.EROFS),
        (W, FILE, FILE, DENIED, ROOM, errno.EACCES),
        (W, FIFO, FIFO, FAILURE, ROOM, errno.ENXIO),
        (W | C, None, None, FAILURE, FULL, errno.ENOSPC),
        (W, PROGRAM, PROGRAM, FAILURE, ROOM, errno.ETXTBSY),
        (R, FILE, FILE, FAILURE, ROOM, errno.EIO),
    ],
)
def test_the_errno_of_an_open(
    pflags: int,
    named: Attrs | None,
    reached: Attrs | None,
    code: int,
    space: StatVfs,
    expected: int,
) -> None:
    assert errnos.of_open(pflags, named, reached, code, space) == expected


@pytest.mark.parametrize(
    ("space", "end", "size", "code", "expected"),
    [
        (FULL, 100, 10, FAILURE, errno.ENOSPC),
        (ROOM, 100, 51 * 4096, FAILURE, errno.ENOSPC),
        (READ_ONLY, 100, 10, FAILURE, errno.EROFS),
        (ROOM, 1 << 44, 10, FAILURE, errno.EFBIG),
        (ROOM, (1 << 44) - 4095, 10, FAILURE, errno.EFBIG),  # ext4's last byte, and one more
        (ROOM, (1 << 44) - 4096, 10, FAILURE, errno.EDQUOT),
        (ROOM, 100, 10, FAILURE, errno.EDQUOT),
        (ROOM, 100, 0, FAILURE, errno.EIO),
        (None, 100, 10, FAILURE, errno.EIO),
        (ROOM, (1 << 32) + 1, 2, Status.BAD_MESSAGE, errno.EFBIG),
        (ROOM, 100, 10, Status.BAD_MESSAGE, errno.EINVAL),
    ],
)
def test_the_errno_of_a_failed_write(
    space: StatVfs | None, end: int, size: int, code: int, expected: int
) -> None:
    assert errnos.of_space(space, end, size, code) == expected


@pytest.mark.parametrize(
    ("attrs", "target", "code", "space", "expected"),
    [
        (Attrs(mode=0o600), FILE, DENIED, ROOM, errno.EPERM),
        (Attrs(mode=0o600), None, DENIED, ROOM, errno.EACCES),
        (Attrs(mode=0o600), FILE, FAILURE, READ_ONLY, errno.EROFS),
        (Attrs(mode=0o600), FILE, FAILURE, ROOM, errno.EIO),
        (Attrs(size=1), FILE, DENIED, ROOM, errno.EACCES),
        (Attrs(size=1), DIR, FAILURE, ROOM, errno.EISDIR),
        (Attrs(size=1 << 50), FILE, FAILURE, ROOM, errno.EFBIG),
    ],
)
def test_the_errno_of_a_change_of_attributes(
    attrs: Attrs, target: Attrs | None, code: int, space: StatVfs, expected: int
) -> None:
    assert errnos.of_change(attrs, target, code, space) == expected


def test_messages_are_those_of_this_system() -> None:
    assert rule(req.Read(b"h", 0, 1), FAILURE, os.strerror(errno.ESTALE).encode()) == errno.ESTALE
