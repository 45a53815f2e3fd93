"""Resolution of a client's path that cannot leave the exported directory.

Two ways with the same answers: ``KernelResolver`` lets openat2 do it (RESOLVE_IN_ROOT), and
``WalkResolver`` goes from directory to directory by file descriptors where openat2 is missing
(before Linux 5.6, or behind a seccomp filter).  Both treat the root as the top: ``..`` there stays
there, an absolute symlink starts there, and the magic links of /proc lead nowhere else.  Nothing
is decided by comparing strings, so a rename or a link swapped at any moment changes which file
*inside* is reached, never that it is inside.  What is done with the file belongs to ``export``.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from typing import Final, Protocol

from netfs.server import kernel

MAX_LINKS: Final = 40
"""Symlinks followed in one path: the kernel's own limit (MAXSYMLINKS)."""

MAX_DEPTH: Final = 256
"""Directories held open at once by one walk, which bounds its file descriptors."""

_PATH: Final = os.O_PATH | os.O_CLOEXEC
_ATTEMPTS: Final = 100  # of a resolution that renames disturb; with pauses about 90 ms


def check(path: bytes) -> bytes:
    """Return *path* with the empty one as ``.``.

    Raises:
        OSError: EINVAL if it contains NUL, ENAMETOOLONG if no system call would take it.
    """
    if b"\0" in path:
        raise OSError(errno.EINVAL, "a path contains NUL", path)
    if len(path) >= 4096:  # PATH_MAX counts the terminating NUL
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), path[:64] + b"...")
    return path or b"."


class Resolver(Protocol):
    """Opens a path below a root."""

    name: str

    def open(self, root_fd: int, path: bytes, flags: int, mode: int = 0) -> int:
        """Open *path* with open(2)'s *flags*; O_NOFOLLOW concerns the last component.

        Raises:
            OSError: as open(2); EAGAIN if renames disturbed the resolution for too long.
        """
        ...


class KernelResolver:
    """openat2 with RESOLVE_IN_ROOT and RESOLVE_NO_MAGICLINKS."""

    name = "openat2"

    __slots__ = ("_resolve",)

    def __init__(self, *, one_file_system: bool = False) -> None:
        self._resolve = kernel.RESOLVE_IN_ROOT | kernel.RESOLVE_NO_MAGICLINKS
        if one_file_system:
            self._resolve |= kernel.RESOLVE_NO_XDEV

    def open(self, root_fd: int, path: bytes, flags: int, mode: int = 0) -> int:
        path = check(path)
        if not flags & os.O_CREAT:
            mode = 0  # openat2 refuses what open ignores
        try:
            return kernel.openat2(root_fd, path, flags | os.O_CLOEXEC, mode, self._resolve)
        except BlockingIOError:
            return self._again(root_fd, path, flags, mode)

    def _again(self, root_fd: int, path: bytes, flags: int, mode: int) -> int:
        """EAGAIN: a rename happened while ``..`` was looked up (or a lease is being broken)."""
        for attempt in range(_ATTEMPTS):
            try:
                return kernel.openat2(root_fd, path, flags | os.O_CLOEXEC, mode, self._resolve)
            except BlockingIOError:
                # The kernel tells nobody when the rename is over.  In a thread of the session: only
                # its client waits.
                if attempt >= 10:
                    time.sleep(0.001)
        raise OSError(errno.EAGAIN, "the path changes too often to be followed", path)


class WalkResolver:
    """One component after the other, each opened without following anything."""

    name = "walk"

    __slots__ = ()

    def open(self, root_fd: int, path: bytes, flags: int, mode: int = 0) -> int:
        path = check(path)
        with _Walk(root_fd) as walk:
            for _ in range(_ATTEMPTS):
                last = walk.to_last(path, follow=not _keeps_last_link(flags))
                if last is None:
                    if flags & os.O_CREAT:
                        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
                    return os.open(b".", flags | os.O_CLOEXEC, dir_fd=walk.here)
                if last.endswith(b"/"):
                    if flags & os.O_CREAT:
                        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
                    flags |= os.O_DIRECTORY
                name = last.rstrip(b"/")
                try:
                    return os.open(
                        name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=walk.here
                    )
                except OSError as error:
                    # Only a link that came after to_last() looked makes another round.
                    if error.errno not in (errno.ELOOP, errno.ENOTDIR) or _keeps_last_link(flags):
                        raise
                    if not walk.is_link(name):
                        raise
                walk.reset()
        raise OSError(errno.EAGAIN, "the path changes too often to be followed", path)


def _keeps_last_link(flags: int) -> bool:
    return bool(flags & os.O_NOFOLLOW) or flags & (os.O_CREAT | os.O_EXCL) == (
        os.O_CREAT | os.O_EXCL
    )


def canonical(root_fd: int, path: bytes) -> bytes:
    """The absolute path inside the root without links, ``.`` and ``..``.

    The last component need not exist (as OpenSSH's REALPATH has it).

    Raises:
        OSError: as a walk there.
    """
    with _Walk(root_fd) as walk:
        last = walk.to_last(check(path), follow=True)
        names = [*walk.names]
        if last is not None:
            names.append(last.rstrip(b"/"))
        return b"/" + b"/".join(names)


class _Walk:
    """A position in the tree: the chain of open directories from the root down to here."""

    __slots__ = ("_fds", "_root_fd", "names")

    def __init__(self, root_fd: int) -> None:
        self._root_fd = root_fd
        self._fds: list[int] = []
        self.names: list[bytes] = []  # one for each of _fds

    def __enter__(self) -> _Walk:
        return self

    def __exit__(self, *exc: object) -> None:
        self.reset()

    @property
    def here(self) -> int:
        return self._fds[-1] if self._fds else self._root_fd

    def reset(self) -> None:
        """Go back to the root."""
        while self._fds:
            os.close(self._fds.pop())
        self.names.clear()

    def is_link(self, name: bytes) -> bool:
        try:
            return stat.S_ISLNK(os.stat(name, dir_fd=self.here, follow_symlinks=False).st_mode)
        except FileNotFoundError:
            return False

    def to_last(self, path: bytes, *, follow: bool) -> bytes | None:
        """Walk to the directory of the last component and return that component.

        It keeps a trailing slash.  None: the path ends on the directory that is now *here*.
        With *follow*, links at the end are followed too.
        """
        todo = _components(path)
        directory = path.endswith((b"/", b"/."))  # which asks for a directory
        if path.startswith(b"/"):
            self.reset()
        links = 0
        while todo:
            name = todo.pop()
            if name == b"..":
                if self._fds:  # at the root it stays at the root
                    os.close(self._fds.pop())
                    self.names.pop()
                continue
            if len(name) > 255:
                raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), name)
            try:
                fd = os.open(name, _PATH | os.O_NOFOLLOW, dir_fd=self.here)
            except FileNotFoundError:
                if todo:
                    raise
                return name + b"/" if directory else name
            try:
                mode = os.fstat(fd).st_mode
                if stat.S_ISDIR(mode):
                    if not todo:
                        return name + b"/" if directory else name
                    if len(self._fds) >= MAX_DEPTH:
                        raise OSError(errno.ENAMETOOLONG, "too many directories in a path", path)
                    self._fds.append(fd)
                    self.names.append(name)
                    fd = -1
                    continue
                if not stat.S_ISLNK(mode):
                    if todo:
                        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
                    return name + b"/" if directory else name
                if not todo and not (follow or directory):
                    return name
                links += 1
                if links > MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                target = os.readlink(b"", dir_fd=fd)
            finally:
                if fd >= 0:
                    os.close(fd)
            if target.startswith(b"/"):
                self.reset()
            if not todo:
                directory = directory or target.endswith((b"/", b"/."))
            todo += _components(target)
        return None


def _components(path: bytes) -> list[bytes]:
    """The components of *path*, the last one first, without the ones that go nowhere."""
    return [name for name in reversed(path.split(b"/")) if name not in (b"", b".")]


def best_resolver(*, one_file_system: bool = False) -> Resolver:
    """The kernel's way if it has one.

    Raises:
        OSError: ENOSYS if *one_file_system* is asked for and cannot be kept (a walk sees a
            change of device, not a bind mount).
    """
    if kernel.has_openat2():
        return KernelResolver(one_file_system=one_file_system)
    if one_file_system:
        raise OSError(
            errno.ENOSYS, "--one-file-system needs openat2 (Linux 5.6, no seccomp filter)"
        )
    return WalkResolver()
