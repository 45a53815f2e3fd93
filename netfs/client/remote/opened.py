"""What is known of the files that handles are open on, so that they can be opened again.

Pure bookkeeping: names (renames and removals made here are followed) and the version.  After a
reconnect a file is taken for the same one only if what the server says of it fits what it said
before and what was written here since.
"""

from __future__ import annotations

import stat
from collections.abc import Sequence
from typing import NamedTuple

from netfs.sftp.attrs import Attrs


class OpenedFile:
    """One file that handles are open on.

    The size is a range while writes are under way: after a lost link nobody knows which of them
    arrived.
    """

    __slots__ = (
        "_in_flight",
        "_ino",
        "_is_cut",
        "_is_exact",
        "_kind",
        "_mtime",
        "is_removed",
        "others",
        "path",
        "size_high",
        "size_low",
        "users",
    )

    def __init__(self, path: bytes, attrs: Attrs) -> None:
        self.path = path
        self.others: list[bytes] = []  # further names that lead to it
        self.is_removed = False  # no name leads to it any more
        self.users = 0  # handles
        self._in_flight = 0  # changes that are sent and not acknowledged
        self._is_cut = False  # by one of them, which may have undone the others
        self._kind = stat.S_IFMT(attrs.mode) if attrs.mode is not None else None
        self._ino: int | None = None
        self.size_low = 0  # the size that it has at least, unless somebody else cuts it
        self.size_high = 0  # the size that it can have at most, as far as known
        self._mtime = 0
        self._is_exact = False  # size and mtime are as the server said last
        self.learn(attrs)

    def __repr__(self) -> str:
        low, high = self.size_low, self.size_high
        size = low if low == high else f"{low}..{high}"
        return f"<OpenedFile {self.path!r} size={size} mtime={self._mtime}>"

    @property
    def names(self) -> tuple[bytes, ...]:
        """All names known to lead to it; none when it was removed."""
        return () if self.is_removed else (self.path, *self.others)

    def learn(self, attrs: Attrs) -> None:
        """The server said this of the open file."""
        if attrs.size is None or attrs.mtime is None:
            return
        self._ino = attrs.ino if attrs.ino is not None else self._ino
        if self._in_flight:
            self.size_low = min(self.size_low, attrs.size)
            self.size_high = max(self.size_high, attrs.size)
            return
        self.size_low = self.size_high = attrs.size
        self._mtime = attrs.mtime
        self._is_exact = True

    def learn_kind(self, attrs: Attrs) -> None:
        """It was opened through a symlink: *attrs* are the file's own."""
        if attrs.mode is not None:
            self._kind = stat.S_IFMT(attrs.mode)
        self._ino = attrs.ino
        self.learn(attrs)

    def fits(self, attrs: Attrs) -> bool:
        """Whether a file with *attrs* can be this one."""
        if attrs.mode is not None and stat.S_IFMT(attrs.mode) != self._kind:
            return False
        if self._ino is not None and attrs.ino is not None:
            return attrs.ino == self._ino
        if attrs.size is None or attrs.mtime is None:
            return False
        if self._is_exact:
            return attrs.size == self.size_low and attrs.mtime == self._mtime
        return self.size_low <= attrs.size <= self.size_high and attrs.mtime >= self._mtime

    # Our own changes: begun when first sent, ended when acknowledged or refused.

    def write_begun(self, end: int) -> None:
        self._in_flight += 1
        self._is_exact = False
        self.size_high = max(self.size_high, end)

    def write_ended(self, end: int, *, done: bool) -> None:
        self._in_flight -= 1
        if done and not self._is_cut:
            self.size_low = max(self.size_low, end)
        self._is_cut &= self._in_flight > 0

    def change_begun(self, attrs: Attrs) -> None:
        """A SETSTAT that touches what the version is made of."""
        self._in_flight += 1
        self._is_exact = False
        if attrs.size is not None:
            self._is_cut = True
            self.size_low = min(self.size_low, attrs.size)
            self.size_high = max(self.size_high, attrs.size)
        mtime = _mtime_of(attrs)
        if mtime is not None:
            self._mtime = min(self._mtime, mtime)

    def cut(self) -> None:
        """An OPEN has emptied it; what was written since then may have arrived."""
        self.size_low = 0
        self._is_exact = False
        self._is_cut = self._in_flight > 0

    def change_ended(self, attrs: Attrs, *, done: bool) -> None:
        self._in_flight -= 1
        self._is_cut &= self._in_flight > 0
        if not done or self._in_flight:
            return
        if attrs.size is not None:
            self.size_low = self.size_high = attrs.size
        mtime = _mtime_of(attrs)
        if mtime is not None:
            self._mtime = mtime
            self._is_exact = self.size_low == self.size_high


def _mtime_of(attrs: Attrs) -> int | None:
    """Seconds; the nanoseconds win where both are set, as at the server."""
    return attrs.mtime if attrs.mtime_ns is None else attrs.mtime_ns // 1_000_000_000


def touches_version(attrs: Attrs) -> bool:
    """Whether setting *attrs* changes what a version is known by."""
    return attrs.size is not None or attrs.mtime is not None or attrs.mtime_ns is not None


class OpenedFiles:
    """All of them, by the names that they have."""

    __slots__ = ("_files", "by_name")

    def __init__(self) -> None:
        self._files: set[OpenedFile] = set()  # those too that no name leads to
        self.by_name: dict[bytes, list[OpenedFile]] = {}

    def __len__(self) -> int:
        return len(self._files)

    def attach(
        self, path: bytes, attrs: Attrs, *, truncated: bool, same: OpenedFile | None = None
    ) -> OpenedFile:
        """The file that a new handle is open on; *attrs* are the server's at the opening.

        Whether a file that was cut by it is one of those open before is *same*'s to tell: it no
        longer looks as it did.
        """
        file = same if truncated else next((f for f in self.at(path) if f.fits(attrs)), None)
        if file is None:
            file = OpenedFile(path, attrs)
            self._files.add(file)
            self._gain(file, path)
        elif truncated:
            file.cut()  # *attrs* may be older than what others wrote since
        else:
            file.learn(attrs)
        file.users += 1
        return file

    def detach(self, file: OpenedFile) -> None:
        """A handle of *file* is closed."""
        file.users -= 1
        if not file.users:
            self._files.discard(file)
            for name in file.names:
                self._lose(file, name)

    def at(self, path: bytes) -> Sequence[OpenedFile]:
        """The open files that have this name."""
        return tuple(self.by_name.get(path, ()))

    def also(self, path: bytes, other: bytes) -> None:
        """What has the name *path* is a file that has the name *other*, too."""
        for file in self.at(path):
            if other not in file.names:
                file.others.append(other)
                self._gain(file, other)

    def removed(self, path: bytes) -> None:
        """The name *path* was removed."""
        for file in self.at(path):
            self._drop(file, path)

    def renamed(self, old: bytes, new: bytes) -> None:
        """*old*, a file or a directory, has the name *new* now; what had it is gone."""
        if old == new or not self._files:
            return
        self.apply(self.affected(old, new))

    def affected(self, old: bytes, new: bytes) -> list[Renaming]:
        """What a rename of *old* to *new* does: first the names that go, then those that move."""
        below = old + b"/"
        gone = [Renaming(file, new, None) for file in self.at(new)]
        return gone + [
            Renaming(file, name, new + name[len(old) :])
            for file in self._files
            for name in file.names
            if name == old or name.startswith(below)
        ]

    def apply(self, renamings: list[Renaming]) -> None:
        """Rename names; those that have changed since *renamings* were listed are left alone."""
        for file, name, to in renamings:
            if name not in file.names:
                continue
            if to is None:
                self._drop(file, name)
                continue
            if file.path == name:
                file.path = to
            else:
                file.others[file.others.index(name)] = to
            self._lose(file, name)
            self._gain(file, to)

    def _drop(self, file: OpenedFile, name: bytes) -> None:
        """*name* leads to *file* no more."""
        self._lose(file, name)
        if file.path != name:
            file.others.remove(name)
        elif file.others:
            file.path = file.others.pop(0)
        else:
            file.is_removed = True

    def _gain(self, file: OpenedFile, name: bytes) -> None:
        self.by_name.setdefault(name, []).append(file)

    def _lose(self, file: OpenedFile, name: bytes) -> None:
        files = self.by_name[name]
        files.remove(file)
        if not files:
            del self.by_name[name]


class Renaming(NamedTuple):
    """What a rename does to one name of one open file."""

    file: OpenedFile
    name: bytes
    to: bytes | None  # None: the name goes
