"""One exported directory: every file operation, by file descriptors that ``confine`` resolved.

An operation on a name opens the directory that holds it and then works relative to that
descriptor without following the name; an operation on a file opens the file itself.  So no system
call here sees a path of more than one component.  All may block; all raise OSError.  What a client
may do, and what it is told about a failure, belongs to ``handlers`` and ``statuses``.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from netfs.server import confine, kernel
from netfs.wire import Buffer

_COPY_STEP: Final = 8 << 20
"""Bytes of one copy_file_range, which bounds how long a copy goes on after its client has left."""

_LOOK_AGAIN_S: Final = 1.0
"""How often the root's path is looked at, in case it names another directory by now."""

_CANNOT_COPY: Final = (errno.EXDEV, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, errno.EPERM)
_CANNOT_NOREPLACE: Final = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM)


class _Root:
    """The open root directory, closed with the last operation that uses it.

    Operations run in several threads; a number closed under one of them could be reused for a
    file elsewhere, hence the reference count decides.
    """

    __slots__ = ("fd", "key")

    def __init__(self, path: str) -> None:
        self.fd = -1
        self.fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        st = os.fstat(self.fd)
        self.key = (st.st_dev, st.st_ino)

    def __del__(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)


class Export:
    """The tree below *root*.

    The root may go away and come back (removed, unmounted): while it is away every operation
    fails with ENOENT or ESTALE.  With *later* it is opened by the first operation, so that making
    this object blocks nobody.

    Raises:
        OSError: *root* is not a directory that can be opened (not with *later*).
    """

    def __init__(
        self,
        root: str,
        *,
        resolver: confine.Resolver | None = None,
        one_file_system: bool = False,
        later: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = os.path.abspath(root)
        self._resolver = resolver or confine.best_resolver(one_file_system=one_file_system)
        self._clock = clock
        self._lock = threading.Lock()
        self._root = None if later else _Root(self.path)
        self._look_at = clock() + (0 if later else _LOOK_AGAIN_S)

    def __repr__(self) -> str:
        return f"<Export {self.path} by {self._resolver.name}>"

    @property
    def device(self) -> int:
        """st_dev of the root."""
        return self._root.key[0] if self._root is not None else 0

    # --- the root -------------------------------------------------------------------------------

    def _current(self) -> _Root:
        if self._clock() >= self._look_at:
            self._look_again()
        root = self._root
        if root is None:
            raise OSError(errno.ESTALE, "the exported directory is not there", self.path)
        return root

    def _look_again(self) -> None:
        with self._lock:
            self._look_at = self._clock() + _LOOK_AGAIN_S
            try:
                st = os.stat(self.path)
                if self._root is None or (st.st_dev, st.st_ino) != self._root.key:
                    self._root = _Root(self.path)
            except OSError:
                # Gone at this moment.  The old directory, if it is still somewhere, is not what the
                # path names any more, but it was exported: open files of it remain valid.
                return

    def _open(self, path: bytes, flags: int, mode: int = 0) -> int:
        root = self._current()  # held in a local name until the call is over
        try:
            return self._resolver.open(root.fd, path, flags, mode)
        except FileNotFoundError:
            if os.fstat(root.fd).st_nlink:
                raise
        # The exported directory itself is removed; there may be a new one.
        self._look_again()
        gone, root = root, self._current()
        if root is gone:
            raise OSError(errno.ESTALE, "the exported directory is gone", path)
        return self._resolver.open(root.fd, path, flags, mode)

    @contextmanager
    def _at(self, path: bytes, flags: int) -> Iterator[int]:
        fd = self._open(path, flags)
        try:
            yield fd
        finally:
            os.close(fd)

    @contextmanager
    def _parent(self, path: bytes, if_none: int, *, directory: bool = False) -> Iterator[_Name]:
        """The open directory that holds the last name of *path*, and that name.

        Raises:
            OSError: *if_none* if *path* ends in no name of its own (the root, ``.``, ``..``);
                ENOTDIR for a trailing slash where no *directory* can be meant.
        """
        path = confine.check(path)
        bare = path.rstrip(b"/")
        head, slash, name = bare.rpartition(b"/")
        if name in (b"", b".", b".."):
            raise OSError(if_none, os.strerror(if_none), path)
        if bare != path and not directory:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        fd = self._open(head + slash or b".", os.O_PATH | os.O_DIRECTORY)
        try:
            yield fd, name
        finally:
            os.close(fd)

    # --- names ----------------------------------------------------------------------------------

    def lstat(self, path: bytes) -> os.stat_result:
        fd = self._open(path, os.O_PATH | os.O_NOFOLLOW)
        try:
            return os.fstat(fd)
        finally:
            os.close(fd)

    def stat(self, path: bytes) -> os.stat_result:
        fd = self._open(path, os.O_PATH)
        try:
            return os.fstat(fd)
        finally:
            os.close(fd)

    def realpath(self, path: bytes) -> bytes:
        """The absolute path inside the export; the last component need not exist."""
        root = self._current()
        found = confine.canonical(root.fd, path)
        # The walk knows nothing of mounts; whether the place may be looked at, the resolver knows.
        os.close(self._open(os.path.dirname(found), os.O_PATH))
        return found

    def readlink(self, path: bytes) -> bytes:
        with self._at(path, os.O_PATH | os.O_NOFOLLOW) as fd:
            if not stat.S_ISLNK(os.fstat(fd).st_mode):
                raise OSError(errno.EINVAL, "not a symbolic link", path)
            return os.readlink(b"", dir_fd=fd)

    def statvfs(self, path: bytes) -> os.statvfs_result:
        with self._at(path, os.O_PATH) as fd:
            return os.fstatvfs(fd)

    def mkdir(self, path: bytes, mode: int) -> None:
        with self._parent(path, errno.EEXIST, directory=True) as (parent, name):
            os.mkdir(name, mode, dir_fd=parent)

    def rmdir(self, path: bytes) -> None:
        with self._parent(path, errno.EBUSY, directory=True) as (parent, name):
            os.rmdir(name, dir_fd=parent)

    def remove(self, path: bytes) -> None:
        with self._parent(path, errno.EISDIR) as (parent, name):
            os.unlink(name, dir_fd=parent)

    def symlink(self, target: bytes, path: bytes) -> None:
        """Make a symlink with *target* as it is: it is resolved inside the root by whoever asks."""
        if b"\0" in target:
            raise OSError(errno.EINVAL, "a link target contains NUL", path)
        with self._parent(path, errno.EEXIST) as (parent, name):
            os.symlink(target, name, dir_fd=parent)

    def link(self, existing: bytes, path: bytes) -> None:
        """Make a hard link; a symlink at *existing* gets it itself (as linkat without a flag)."""
        with (
            self._parent(existing, errno.EPERM) as (old_parent, old),
            self._parent(path, errno.EEXIST) as (parent, name),
        ):
            os.link(old, name, src_dir_fd=old_parent, dst_dir_fd=parent, follow_symlinks=False)

    def posix_rename(self, old: bytes, new: bytes) -> None:
        """Rename, atomically over what is at *new*."""
        with (
            self._parent(old, errno.EBUSY, directory=True) as (old_parent, old_name),
            self._parent(new, errno.EBUSY, directory=True) as (parent, name),
        ):
            os.rename(old_name, name, src_dir_fd=old_parent, dst_dir_fd=parent)

    def rename(self, old: bytes, new: bytes) -> None:
        """Rename; EEXIST if something is at *new* (draft-ietf-secsh-filexfer-02 §6.5)."""
        with (
            self._parent(old, errno.EBUSY, directory=True) as (old_parent, old_name),
            self._parent(new, errno.EEXIST, directory=True) as (parent, name),
        ):
            try:
                kernel.rename_noreplace(old_parent, old_name, parent, name)
            except OSError as error:
                if error.errno not in _CANNOT_NOREPLACE:
                    raise
                _rename_by_steps(old_parent, old_name, parent, name)

    # --- files ----------------------------------------------------------------------------------

    def open(self, path: bytes, flags: int, mode: int = 0) -> int:
        """Open a regular file.

        Nothing else is opened: a FIFO would block its thread, a device have effects.

        Raises:
            OSError: as open(2); EISDIR on a directory, EINVAL on anything else.
        """
        fd = self._open(path, flags | os.O_NONBLOCK | os.O_NOCTTY, mode)
        kind = os.fstat(fd).st_mode  # of the file that is open, whatever the path names by now
        if stat.S_ISREG(kind):
            return fd
        os.close(fd)
        if stat.S_ISDIR(kind):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        raise OSError(errno.EINVAL, "not a regular file", path)

    def opendir(self, path: bytes) -> int:
        return self._open(path, os.O_RDONLY | os.O_DIRECTORY)

    def truncate(self, path: bytes, size: int, *, follow: bool = True) -> None:
        fd = self.open(path, os.O_WRONLY if follow else os.O_WRONLY | os.O_NOFOLLOW)
        try:
            os.ftruncate(fd, size)
        finally:
            os.close(fd)

    def setattr(
        self,
        path: bytes,
        *,
        follow: bool,
        owner: tuple[int, int] | None = None,
        mode: int | None = None,
        times_ns: tuple[int | None, int | None] | None = None,
    ) -> None:
        """Set what is given, on a symlink itself without *follow*."""
        with self._at(path, os.O_PATH if follow else os.O_PATH | os.O_NOFOLLOW) as fd:
            set_fd(fd, owner=owner, mode=mode, times_ns=times_ns)


_Name = tuple[int, bytes]
"""An open directory and one name in it."""


def set_fd(
    fd: int,
    *,
    owner: tuple[int, int] | None = None,
    mode: int | None = None,
    times_ns: tuple[int | None, int | None] | None = None,
) -> None:
    """Set what is given on what *fd* is open on, O_PATH or not."""
    # In this order: chown takes set-uid bits away, and both set the ctime only.
    if owner is not None:
        kernel.chown_fd(fd, *owner)
    if mode is not None:
        kernel.chmod_fd(fd, mode)
    if times_ns is not None:
        kernel.utimes_fd(fd, *times_ns)


def copy(
    source: int,
    offset: int,
    length: int,
    dest: int,
    dest_offset: int,
    *,
    go_on: Callable[[], bool] = lambda: True,
) -> None:
    """Copy *length* bytes (0: to the end) between open files, inside the kernel where it can.

    Raises:
        OSError: EINVAL for overlapping ranges of one file, ECANCELED when *go_on* says no.
    """
    end = os.fstat(source).st_size
    length = min(length, max(0, end - offset)) if length else max(0, end - offset)
    if os.path.sameopenfile(source, dest) and abs(offset - dest_offset) < length:
        raise OSError(errno.EINVAL, "the ranges of a copy overlap")
    step = _copy_in_kernel
    while length > 0:
        if not go_on():
            raise OSError(errno.ECANCELED, "the copy is given up")
        try:
            done = step(source, offset, min(length, _COPY_STEP), dest, dest_offset)
        except OSError as error:
            if step is _copy_by_hand or error.errno not in _CANNOT_COPY:
                raise
            step = _copy_by_hand
            continue
        if not done:
            if step is _copy_by_hand:
                return  # the source became shorter meanwhile
            step = _copy_by_hand  # some file systems answer 0 for "not I"
        offset += done
        dest_offset += done
        length -= done


def _copy_in_kernel(source: int, offset: int, length: int, dest: int, dest_offset: int) -> int:
    return os.copy_file_range(source, dest, length, offset, dest_offset)


def _copy_by_hand(source: int, offset: int, length: int, dest: int, dest_offset: int) -> int:
    data = memoryview(os.pread(source, min(length, 1 << 20), offset))
    write_all(dest, data, dest_offset)
    return len(data)


def write_all(fd: int, data: Buffer, offset: int) -> None:
    """Write every byte at *offset*.

    Raises:
        OSError: as pwrite(2), also after a part was written.
    """
    done = os.pwrite(fd, data, offset)
    while done < len(data):
        # A short write: the disk is full or a limit reached, and the next call says which.
        done += os.pwrite(fd, memoryview(data)[done:], offset + done)


def _rename_by_steps(old_parent: int, old: bytes, parent: int, new: bytes) -> None:
    """RENAME where the file system has no RENAME_NOREPLACE: link and unlink, like OpenSSH.

    A directory cannot be linked.  It is looked for and then renamed, which can replace only an
    empty directory that appears in between.
    """
    kind = os.stat(old, dir_fd=old_parent, follow_symlinks=False).st_mode
    if not stat.S_ISDIR(kind):
        try:
            os.link(old, new, src_dir_fd=old_parent, dst_dir_fd=parent, follow_symlinks=False)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EPERM, errno.ENOSYS, errno.EMLINK):
                raise
        else:
            os.unlink(old, dir_fd=old_parent)
            return
    try:
        os.stat(new, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        os.rename(old, new, src_dir_fd=old_parent, dst_dir_fd=parent)
        return
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new)
