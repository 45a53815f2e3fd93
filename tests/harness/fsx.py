"""A file exerciser: random operations on one file, each compared with a model in memory.

Made in the spirit of fsx: reads, writes, truncations, mapped reads and writes, appends, holes,
copies within the file, reopening, renaming, syncing, and a second open handle. A seed repeats a
run; the log names each operation, so that the first wrong byte has a history.
"""

from __future__ import annotations

import mmap
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Final

PAGE: Final = mmap.PAGESIZE


class Wrong(AssertionError):
    """The file differs from the model; the message has the last operations."""


class Exerciser:
    """Runs operations on *path*; ``check_whole`` compares everything.

    Args:
        size_limit: the largest size the file may get, bytes.
        mapping: also use mmap (not with direct_io, where shared maps are refused).
    """

    def __init__(
        self,
        path: Path,
        seed: int,
        *,
        size_limit: int = 600_000,
        mapping: bool = True,
    ) -> None:
        self.path = path
        self.random = random.Random(seed)
        self.limit = size_limit
        self.model = bytearray()
        self.log: list[str] = []
        self.seed = seed
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
        self.second = -1
        self.operations: list[tuple[int, Callable[[], None]]] = [
            (20, self.read),
            (20, self.write),
            (6, self.write_second),
            (6, self.truncate),
            (4, self.append),
            (3, self.reopen),
            (2, self.fsync),
            (4, self.read_second),
            (2, self.rename),
            (3, self.stat),
            (2, self.copy),
            (2, self.reopen_truncating),
            (2, self.vectored),
        ]
        if mapping:
            self.operations += [(8, self.map_read), (8, self.map_write)]

    def run(self, count: int) -> None:
        """Do *count* operations, then compare the whole file through a fresh handle."""
        weights = [weight for weight, _ in self.operations]
        actions = [action for _, action in self.operations]
        for action in self.random.choices(actions, weights, k=count):
            try:
                action()
            except OSError as error:
                raise Wrong(self.history(f"{action.__name__}: {error}")) from error
        self.check_whole()

    def close(self) -> None:
        """Close both handles."""
        for fd in (self.fd, self.second):
            if fd >= 0:
                os.close(fd)
        self.fd = self.second = -1

    def check_whole(self) -> None:
        self.stat()
        with open(self.path, "rb") as file:
            self.compare(0, file.read(), "whole file")

    # --- helpers ---

    def note(self, text: str) -> None:
        self.log.append(text)

    def history(self, problem: str) -> str:
        lines = "\n  ".join(self.log[-25:])
        return f"seed {self.seed}, operation {len(self.log)}: {problem}\n  {lines}"

    def compare(self, offset: int, found: bytes | bytearray | memoryview, what: str) -> None:
        expected = bytes(self.model[offset : offset + max(len(found), 1)])
        if len(found) == 0:
            expected = bytes(self.model[offset : offset + 1]) if what == "whole file" else b""
        if bytes(found) == expected:
            return
        if len(found) != len(expected):
            problem = f"{what} at {offset}: {len(found)} bytes, {len(expected)} expected"
        else:
            at = next(n for n, (a, b) in enumerate(zip(found, expected, strict=True)) if a != b)
            problem = (
                f"{what} at {offset}: byte {offset + at} is {found[at]:#04x}, "
                f"should be {expected[at]:#04x}"
            )
        raise Wrong(self.history(problem))

    def extent(self, *, growing: bool) -> tuple[int, int]:
        """A random (offset, length); within the file unless *growing*."""
        rng = self.random
        length = rng.choice((1, rng.randint(1, 100), rng.randint(1, 9_000), rng.randint(1, 80_000)))
        if growing:
            offset = rng.randint(0, min(len(self.model) + 20_000, self.limit - 1))
            return offset, min(length, self.limit - offset)
        offset = rng.randint(0, max(len(self.model) - 1, 0))
        return offset, length

    def fresh(self, length: int) -> bytes:
        return self.random.randbytes(length)

    def put(self, offset: int, data: bytes) -> None:
        if offset > len(self.model):
            self.model.extend(bytes(offset - len(self.model)))
        self.model[offset : offset + len(data)] = data

    def other(self) -> int:
        if self.second < 0:
            self.second = os.open(self.path, os.O_RDWR)
        return self.second

    # --- operations ---

    def read(self) -> None:
        self.read_from(self.fd, "read")

    def read_second(self) -> None:
        self.read_from(self.other(), "read by the second handle")

    def read_from(self, fd: int, what: str) -> None:
        offset, length = self.extent(growing=False)
        if self.random.random() < 0.1:
            offset = len(self.model) + self.random.randint(0, 5000)  # beyond the end
        self.note(f"{what} {offset}+{length}")
        found = os.pread(fd, length, offset)
        expected = bytes(self.model[offset : offset + length])
        if found != expected:
            self.compare(offset, found, what)
            raise Wrong(self.history(f"{what}: {len(found)} bytes, {len(expected)} expected"))

    def write(self) -> None:
        self.write_to(self.fd, "write")

    def write_second(self) -> None:
        self.write_to(self.other(), "write by the second handle")

    def write_to(self, fd: int, what: str) -> None:
        offset, length = self.extent(growing=True)
        data = self.fresh(length)
        self.note(f"{what} {offset}+{length}")
        done = os.pwrite(fd, data, offset)
        self.put(offset, data[:done])

    def vectored(self) -> None:
        offset, length = self.extent(growing=True)
        pieces = [self.fresh(max(1, length // 3)) for _ in range(3)]
        self.note(f"pwritev {offset}+{sum(map(len, pieces))}")
        done = os.pwritev(self.fd, pieces, offset)
        self.put(offset, b"".join(pieces)[:done])

    def append(self) -> None:
        length = self.random.randint(1, 5000)
        if len(self.model) + length > self.limit:
            return
        data = self.fresh(length)
        self.note(f"append {length} at {len(self.model)}")
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        try:
            self.put(len(self.model), data[: os.write(fd, data)])
        finally:
            os.close(fd)

    def truncate(self) -> None:
        size = self.random.choice(
            (0, self.random.randint(0, self.limit), self.random.randint(0, len(self.model)))
        )
        by_path = self.random.random() < 0.4
        self.note(f"{'truncate' if by_path else 'ftruncate'} {len(self.model)} -> {size}")
        if by_path:
            os.truncate(self.path, size)
        else:
            os.ftruncate(self.fd, size)
        if size < len(self.model):
            del self.model[size:]
        else:
            self.model.extend(bytes(size - len(self.model)))

    def reopen(self) -> None:
        self.note("close and open again")
        os.close(self.fd)
        if self.second >= 0 and self.random.random() < 0.5:
            os.close(self.second)
            self.second = -1
        self.fd = os.open(self.path, os.O_RDWR)

    def reopen_truncating(self) -> None:
        if self.random.random() < 0.6:
            return
        self.note("open with O_TRUNC")
        os.close(self.fd)
        self.fd = os.open(self.path, os.O_RDWR | os.O_TRUNC)
        self.model.clear()

    def fsync(self) -> None:
        self.note("fsync")
        os.fsync(self.fd)

    def stat(self) -> None:
        sizes = (os.fstat(self.fd).st_size, os.stat(self.path).st_size)
        if sizes != (len(self.model),) * 2:
            raise Wrong(self.history(f"fstat and stat say {sizes}, not {len(self.model)}"))

    def rename(self) -> None:
        self.note("rename")
        new = self.path.with_name(f"{self.path.name.split('@')[0]}@{self.random.randint(0, 3)}")
        os.rename(self.path, new)
        self.path = new

    def copy(self) -> None:
        """copy_file_range within the file, over non-overlapping ranges."""
        size = len(self.model)
        if size < 1000:
            return
        length = self.random.randint(1, size // 2 - 1)
        source = self.random.randint(0, size // 2 - length)
        target = self.random.randint(size // 2, min(size, self.limit - length))
        self.note(f"copy_file_range {source}+{length} -> {target}")
        done = os.copy_file_range(self.fd, self.other(), length, source, target)
        self.put(target, bytes(self.model[source : source + done]))

    def map_read(self) -> None:
        if not self.model:
            return
        offset, length = self.extent(growing=False)
        length = min(length, len(self.model) - offset)
        self.note(f"mapped read {offset}+{length}")
        base = offset // PAGE * PAGE
        with mmap.mmap(self.fd, offset + length - base, access=mmap.ACCESS_READ, offset=base) as m:
            self.compare(offset, m[offset - base : offset - base + length], "mapped read")

    def map_write(self) -> None:
        if not self.model:
            return
        offset, length = self.extent(growing=False)
        length = min(length, len(self.model) - offset)
        data = self.fresh(length)
        self.note(f"mapped write {offset}+{length}")
        base = offset // PAGE * PAGE
        with mmap.mmap(self.fd, offset + length - base, mmap.MAP_SHARED, offset=base) as m:
            m[offset - base : offset - base + length] = data
            if self.random.random() < 0.7:
                m.flush()
        self.put(offset, data)
