"""netfs with a handler that deadlocks: HOW FLAG, then netfs's own arguments.

HOW is ``touch`` (the handler of STATFS looks into its own mount) or ``fault`` (it reads a mapped
page of a file on its own mount); it happens while FLAG exists, which the handler removes first.
These are the two deadlocks of the kernel's documentation (filesystems/fuse.rst).
"""

from __future__ import annotations

import mmap
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from netfs.cli.main import main
from netfs.client import operations
from netfs.fuse.abi import Opcode


def touch(point: str) -> None:
    """Ask the kernel for a name that only this thread could look up."""
    os.stat(os.path.join(point, "a name that nobody has cached"))


class Fault:
    """A mapping that was made by a thread while the loop still turned."""

    def __init__(self) -> None:
        self._mapped: mmap.mmap | None = None

    def prepare(self, point: str) -> None:
        with open(os.path.join(point, "big"), "rb") as file:
            self._mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
            self._mapped.madvise(mmap.MADV_RANDOM)

    def __call__(self, point: str) -> None:
        if self._mapped is None:
            threading.Thread(target=self.prepare, args=(point,)).start()
        else:
            print(self._mapped[len(self._mapped) // 2])


def install(how: Callable[[str], None], flag: Path, point: str) -> None:
    plain = operations.HANDLERS[Opcode.STATFS]

    def statfs(ctx: Any, request: Any) -> Any:
        if flag.exists():
            flag.unlink()
            how(point)
        return plain(ctx, request)

    operations.HANDLERS[Opcode.STATFS] = statfs  # type: ignore[index]


if __name__ == "__main__":
    install(touch if sys.argv[1] == "touch" else Fault(), Path(sys.argv[2]), sys.argv[4])
    sys.exit(main(sys.argv[3:]))
