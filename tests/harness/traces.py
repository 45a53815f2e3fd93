"""Traces of what programs ask of a mount, for the planner of tree read-ahead.

``python -m tests.harness.traces DIRECTORY [PROGRAM ...]`` runs programs on the benchmark's trees
over a link of 20 ms and writes what each asked as ``PROGRAM.gz``, made from the mount's debug log,
and the names and sizes served as ``tree.json.gz``.  One access per line: milliseconds since the
answer before, a letter (``Access``), and the path below the mount.
"""

from __future__ import annotations

import ast
import contextlib
import gzip
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.bench import data as bench_data
from tests.bench.workloads import BY_NAME, Run
from tests.harness.mounts import drop_caches, mounted
from tests.harness.namespace import enter_private_mounts
from tests.harness.relay import Relay
from tests.harness.sshd import Sshd, running_sshd

RTT_MS: Final = 20


class Access(Enum):
    """What was asked, as ``client/prefetch.py`` logs it."""

    LOOK_UP = "L"  # a name
    LIST = "D"  # a directory's names
    OPEN = "O"  # a file
    READ_LINK = "R"  # a symlink's target


_WORDS: Final = {
    "looks up in": Access.LOOK_UP,
    "lists": Access.LIST,
    "opens": Access.OPEN,
    "reads link": Access.READ_LINK,
}


class Step(NamedTuple):
    """One access of a program."""

    gap_s: float  # since the answer before
    access: Access
    path: str  # below the mount's root


# --- from a log to a trace ----------------------------------------------------------------------

_LINE: Final = re.compile(
    r"\S+ (?P<hours>\d\d):(?P<minutes>\d\d):(?P<seconds>\d\d),(?P<ms>\d{3}) .*? "
    r"netfs\.(?:fuse: (?P<fuse>.*)|client\.prefetch: (?P<what>looks up in|lists|opens|reads link) "
    r"(?P<path>b['\"].*))$"
)
_LOOKUP: Final = re.compile(r"-> \d+ LOOKUP .*? name=(?P<name>['\"].*)$")


def steps_of(log: Iterable[str]) -> Iterator[Step]:
    """The accesses that a mount's debug log shows."""
    answered_at: float | None = None
    name = ""
    for line in log:
        found = _LINE.match(line)
        if found is None:
            continue
        seconds = int(found["hours"]) * 3600 + int(found["minutes"]) * 60 + int(found["seconds"])
        now = seconds + int(found["ms"]) / 1000
        if found["fuse"] is not None:
            lookup = _LOOKUP.match(found["fuse"])
            if lookup is not None:
                name = ast.literal_eval(lookup["name"])
            elif found["fuse"].startswith("<-"):
                answered_at = now
            continue
        path = ast.literal_eval(found["path"]).decode()
        access = _WORDS[found["what"]]
        if access is Access.LOOK_UP:
            path = f"{path}/{name}" if path else name
        yield Step(round(now - answered_at, 3) if answered_at is not None else 0.0, access, path)
        answered_at = now


def write(path: Path, steps: Iterable[Step]) -> None:
    lines = [f"{step.gap_s * 1000:.0f} {step.access.value} {step.path}\n" for step in steps]
    path.write_bytes(gzip.compress("".join(lines).encode(), mtime=0))


def read(path: Path) -> list[Step]:
    steps = []
    for line in gzip.decompress(path.read_bytes()).decode().splitlines():
        gap, letter, place = line.split(" ", 2)
        steps.append(Step(int(gap) / 1000, Access(letter), place))
    return steps


def sizes_below(directory: Path) -> dict[str, Any]:
    """Names as they are listed: a directory's are a dictionary, a file has its size; a symlink has
    its target."""
    found: dict[str, Any] = {}
    with contextlib.closing(_scandir(directory)) as entries:
        for entry in entries:
            if entry.is_symlink():
                found[entry.name] = str(entry.readlink())
            elif entry.is_dir():
                found[entry.name] = sizes_below(entry)
            else:
                found[entry.name] = entry.stat().st_size
    return found


def _scandir(directory: Path) -> Generator[Path, None, None]:
    yield from directory.iterdir()  # in the order of readdir(3)


# --- recording ------------------------------------------------------------------------------------

_INDEX: Final = """
import os, sys
for place, _, names in os.walk(sys.argv[1]):
    for name in names:
        path = os.path.join(place, name)
        if os.lstat(path).st_size and name.endswith(".py"):
            with open(path, "rb") as file:
                file.read()
"""


def _command(name: str, *words: str) -> Callable[[Run], None]:
    def run(run: Run) -> None:
        places = {"TREE": run.path / "tree", "COPY": run.local() / "tree"}
        run.command(name, *[places.get(word, word) for word in words])

    return run


def _one_after_the_other(*names: str) -> Callable[[Run], None]:
    def run(run: Run) -> None:
        for name in names:
            PROGRAMS[name](run)

    return run


PROGRAMS: Final[dict[str, Callable[[Run], None]]] = {
    **{name: BY_NAME[name].action for name in ("find", "grep", "git-status", "cp", "rm", "du")},
    **{name: BY_NAME[name].action for name in ("import", "make")},
    "ls": _command("ls", "ls", "TREE"),
    "ls-l": _command("ls -l", "ls", "-l", "TREE"),
    "ls-R": _command("ls -R", "ls", "-lR", "TREE"),
    "tar": _command("tar", "sh", "-c", 'tar -C "$0" -c . | cat', "TREE"),
    "rsync": _command("rsync", "rsync", "-a", "TREE", "COPY"),
    "index": _command("index", sys.executable, "-c", _INDEX, "TREE"),
    "grep-cp": _one_after_the_other("grep", "cp"),
    "cp-grep": _one_after_the_other("cp", "grep"),
    "find-grep": _one_after_the_other("find", "grep"),
}
"""The programs recorded; the last ones follow one another on one mount."""


def record(name: str, server: Sshd, data: bench_data.Data) -> Iterator[Step]:
    """Run one program on a fresh mount."""
    drop_caches()
    bench_data.warm(data)
    place = data.local / "mnt"
    with (
        Relay(server.port, delay_ms=RTT_MS / 2) as relay,
        mounted(server, data.server, place, options=("debug",), port=relay.port) as mount,
    ):
        time.sleep(1.5)  # what else looks at a new mount has done so
        began = mount.log.stat().st_size
        PROGRAMS[name](Run(mount, data, name))
        with mount.log.open(errors="replace") as log:
            log.seek(began)
            yield from steps_of(log)


def main() -> None:
    target, names = Path(sys.argv[1]), sys.argv[2:] or list(PROGRAMS)
    target.mkdir(parents=True, exist_ok=True)
    enter_private_mounts()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as base:
        sizes = bench_data.Sizes(big_mib=1, many=1)
        data = bench_data.prepare(Path(base) / "server", Path(base) / "local", sizes)
        served = json.dumps(sizes_below(data.server), separators=(",", ":"))
        (target / "tree.json.gz").write_bytes(gzip.compress(served.encode(), mtime=0))
        with running_sshd(Path(base) / "sshd") as server:
            for name in names:
                steps = list(record(name, server, data))
                write(target / f"{name}.gz", steps)
                subprocess.run(["rm", "-rf", *(data.server / "out").iterdir()], check=True)
                print(f"{name}: {len(steps)} accesses", file=sys.stderr)


if __name__ == "__main__":
    main()
