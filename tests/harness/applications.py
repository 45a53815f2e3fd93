"""Applications that work on a mount until told to end; each error or wrong byte is a find.

``python -m tests.harness.applications NAME MOUNT REMOTE LOCAL`` is one of them, in a process of its
own: a process with open files on a mount whose link is down must not fork, since its child's
closing of them waits for the link. It prints a line for each round, ends when standard input does,
and ends at the first error with its text and exit status 1.
"""

from __future__ import annotations

import hashlib
import os
import select
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.harness.trees import describe, digest, git, make_repository, make_tree

PROJECT: Final = Path(__file__).resolve().parents[2]
ROUND_S: Final = 300.0
"""What one command may take, however often the link is cut meanwhile."""


class Wrong(Exception):
    """The application saw something that it must not see."""


@dataclass(frozen=True)
class Place:
    """Where an application works: the mount, the same directory on the server, its own files."""

    mount: Path
    remote: Path
    local: Path

    def prepare(self) -> None:
        """Make what the applications need on both sides."""
        make_repository(self.local / "origin", files=60)
        make_tree(self.local / "tree", files=80, directories=10, seed=5)
        make_tree(self.local / "fixed", files=150, directories=20, seed=6)
        shutil.copytree(self.local / "fixed", self.remote / "fixed", symlinks=True)
        (self.remote / "fio").mkdir()


def command(*words: str | Path) -> str:
    """Run a program to its end; its output.

    Raises:
        Wrong: it failed; with the end of what it printed.
    """
    done = subprocess.run(
        [os.fspath(word) for word in words], capture_output=True, text=True, timeout=ROUND_S
    )
    if done.returncode:
        tail = (done.stdout + done.stderr).strip()[-1500:]
        raise Wrong(f"{words[0]} ended with {done.returncode}: {tail}")
    return done.stdout


def same(
    what: str, left: dict[str, tuple[object, ...]], right: dict[str, tuple[object, ...]]
) -> None:
    """Raise :class:`Wrong` with the names that differ."""
    names = sorted(name for name in left.keys() | right.keys() if left.get(name) != right.get(name))
    if names:
        shown = [f"{name}: {left.get(name)} / {right.get(name)}" for name in names[:5]]
        raise Wrong(f"{what}: {len(names)} names differ: " + "; ".join(shown))


def fio(place: Place, number: int) -> None:
    """Random writes with verification; afterwards the server has the same files."""
    command(
        "fio", "--name=soak", "--verify_state_save=0",
        f"--directory={place.mount}/fio", "--numjobs=2",
        "--size=4M", "--rw=randwrite", "--bsrange=1k-64k", "--verify=crc32c", "--do_verify=1",
        "--verify_fatal=1", "--ioengine=psync", "--fsync=32", f"--randseed={number + 1}",
        "--fallocate=none",
    )  # fmt: skip
    for path in sorted((place.remote / "fio").iterdir()):
        if digest(path) != digest(place.mount / "fio" / path.name):
            raise Wrong(f"{path.name} differs on the server")


def clone(place: Place, number: int) -> None:
    """Clone a repository, check it, and compare with what the server has."""
    name = f"clone{number % 2}"
    command("rm", "-rf", place.mount / name)
    git(place.mount, "clone", "-q", str(place.local / "origin"), name, timeout_s=ROUND_S)
    git(place.mount / name, "fsck", "--full", timeout_s=ROUND_S)
    if git(place.mount / name, "status", "--porcelain", timeout_s=ROUND_S):
        raise Wrong("git status is not clean after a clone")
    same("clone", describe(place.mount / name), describe(place.remote / name))


def rsync(place: Place, number: int) -> None:
    """Copy a tree with its times, and compare with what the server has."""
    target = place.mount / "rsync"
    if number % 3 == 2:
        command("rm", "-rf", target)
    command("rsync", "-a", "--delete", f"{place.local}/tree/", f"{target}/")
    changed = command("rsync", "-aci", "--dry-run", f"{place.local}/tree/", f"{target}/")
    if changed:
        raise Wrong(f"rsync -c found differences: {changed[:400]}")
    same("rsync", describe(place.local / "tree"), describe(place.remote / "rsync"))


def sqlite(place: Place, number: int) -> None:
    """Transactions; afterwards the server's file has each of their rows."""
    base = sqlite3.connect(place.mount / "base.db", timeout=120)
    try:
        base.execute("create table if not exists t (n integer, body blob)")
        for _ in range(5):
            with base:
                rows = [(number, os.urandom(500)) for _ in range(20)]
                base.executemany("insert into t values (?, ?)", rows)
        check(base, number)
        with base:
            base.execute("delete from t where n < ?", (number - 20,))
    finally:
        base.close()
    stored = sqlite3.connect(f"file:{place.remote}/base.db?immutable=1", uri=True)
    try:
        check(stored, number)
    finally:
        stored.close()


def check(base: sqlite3.Connection, number: int) -> None:
    """That the database is whole and has the rows of round *number*."""
    found = base.execute("pragma integrity_check").fetchone()
    if found != ("ok",):
        raise Wrong(f"sqlite: {found}")
    count = base.execute("select count(*) from t where n = ?", (number,)).fetchone()
    if count != (100,):
        raise Wrong(f"sqlite: {count} rows of round {number}, not 100")


def walk(place: Place, number: int) -> None:
    """Read a tree that nobody changes."""
    same("walk", describe(place.local / "fixed"), describe(place.mount / "fixed"))


def append(place: Place, number: int) -> None:
    """Append and fsync; each fsynced byte must be on the server at that moment."""
    path = place.mount / "log"
    expected = hashlib.sha256()
    path.write_bytes(b"")
    with open(path, "ab", buffering=0) as file:
        for line in range(30):
            data = f"{number}:{line}:".encode() + os.urandom(200)
            if file.write(data) != len(data):
                raise Wrong(f"append {line} was short")
            expected.update(data)
            os.fsync(file.fileno())
            stored = (place.remote / "log").read_bytes()
            if hashlib.sha256(stored).digest() != expected.digest():
                raise Wrong(
                    f"after fsync {line} the server has {len(stored)} bytes, another content"
                )


APPLICATIONS: Final[dict[str, Callable[[Place, int], None]]] = {
    work.__name__: work for work in (fio, clone, rsync, sqlite, walk, append)
}


class Application:
    """One of them, run in a process of its own."""

    def __init__(self, name: str, place: Place) -> None:
        self.name = name
        self._log = place.local / f"{name}.rounds"
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.harness.applications", name]
                + [os.fspath(path) for path in (place.mount, place.remote, place.local)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=PROJECT,
                start_new_session=True,
            )

    @property
    def rounds(self) -> int:
        """Rounds that went well."""
        return sum(line.startswith("round ") for line in self._log.read_text().splitlines())

    @property
    def problem(self) -> str | None:
        """What it ended with, unless it runs or ended well."""
        if not self._process.poll():
            return None
        return f"{self.name}: {self._log.read_text()[-3000:]}"

    def end(self) -> None:
        """Tell it to end after this round."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def wait(self, timeout_s: float) -> bool:
        """Whether it has ended in that time."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> None:
        """End it however it stands."""
        self._process.kill()
        self._process.wait(30)


def main() -> int:
    work = APPLICATIONS[sys.argv[1]]
    place = Place(*map(Path, sys.argv[2:5]))
    number = 0
    while not select.select([0], [], [], 0)[0]:
        began = time.monotonic()
        try:
            work(place, number)
        except Exception as error:  # whatever it is, it is the find
            print(f"round {number} failed after {time.monotonic() - began:.1f} s: {error!r}"[:2500])
            return 1
        print(f"round {number}: {time.monotonic() - began:.1f} s", flush=True)
        number += 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
