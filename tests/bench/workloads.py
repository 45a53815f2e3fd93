"""What is measured: a table of workloads, each given a fresh mount of the same tree."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.bench.data import Data
from tests.harness.mounts import PROJECT, Mount
from tests.harness.trees import make_tree


@dataclass
class Run:
    """One workload on one mount; ``results`` collects metric -> seconds (or bytes)."""

    mount: Mount
    data: Data
    label: str  # unique: names of what is written
    timeout_s: float = 900.0
    results: dict[str, float] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        return self.mount.path

    @property
    def new(self) -> Path:
        """A name below the mount that does not exist yet."""
        return self.path / "out" / self.label

    def command(self, metric: str, *command: str | Path, **more: str | Path) -> None:
        """Run a command, its output thrown away; its time is *metric*."""
        started = time.perf_counter()
        done = subprocess.run(
            [os.fspath(word) for word in command],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=self.timeout_s,
            env=ENVIRONMENT,
            cwd=more.get("cwd"),
            check=False,
        )
        self.results[metric] = time.perf_counter() - started
        if done.returncode and not (command[0] == "grep" and done.returncode == 1):
            tail = done.stderr.decode(errors="replace").strip()[-300:]
            raise RuntimeError(f"{' '.join(map(str, command))}: {done.returncode}: {tail}")

    def step(self, name: str, *arguments: object) -> None:
        """Run one of steps.py in a process of its own."""
        command = [sys.executable, "-m", "tests.bench.steps", name, *map(str, arguments)]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=self.timeout_s, cwd=PROJECT
        )
        if done.returncode:
            raise RuntimeError(f"{name}: {done.stderr.strip()[-400:]}")
        self.results |= json.loads(done.stdout)

    def local(self) -> Path:
        """An empty local directory for what is copied out."""
        place = self.data.local / "copied"
        shutil.rmtree(place, ignore_errors=True)  # there may be none yet
        place.mkdir()
        return place

    def resident(self) -> int:
        """Resident memory of the client and its helpers, bytes."""
        total = 0
        for pid in self.mount.pids():
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
        return total


ENVIRONMENT: Final = {
    **os.environ,
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_SYSTEM": "/dev/null",
    "GIT_CONFIG_COUNT": "1",
    "GIT_CONFIG_KEY_0": "safe.directory",
    "GIT_CONFIG_VALUE_0": "*",
    "GIT_OPTIONAL_LOCKS": "0",  # `git status` must not write: the tree stays the same
}
PAUSE_S: Final = 1.5  # between a run and its repetition: what is cached must be asked about again


def find(run: Run) -> None:
    run.command("find -ls, cold", "find", run.path / "tree", "-ls")


def grep(run: Run) -> None:
    run.command("grep -r, cold", "grep", "-r", "no such word", run.path / "tree")
    time.sleep(PAUSE_S)
    run.command("grep -r, again", "grep", "-r", "no such word", run.path / "tree")


def git_status(run: Run) -> None:
    run.command("git status, cold", "git", "-C", run.path / "repo", "status")
    time.sleep(PAUSE_S)
    run.command("git status, again", "git", "-C", run.path / "repo", "status")


def git_clone(run: Run) -> None:
    run.command("git clone into", "git", "clone", "-q", run.data.local / "origin", run.new)


def cp_out(run: Run) -> None:
    run.command("cp -a out, cold", "cp", "-a", run.path / "tree", run.local() / "tree")


def tar_in(run: Run) -> None:
    run.new.mkdir()
    run.command("tar x in", "tar", "-C", run.new, "-xf", run.data.archive)


def rm(run: Run) -> None:
    make_tree(
        run.data.server / "out" / run.label,
        files=run.data.sizes.files,
        directories=run.data.sizes.directories,
        links=False,
    )
    run.command("rm -r, cold", "rm", "-r", run.new)


def ls(run: Run) -> None:
    run.command("ls -l, large directory", "ls", "-l", run.path / "many")


def du(run: Run) -> None:
    run.command("du, cold", "du", "-s", run.path / "tree")


def python_import(run: Run) -> None:
    code = f"import sys; sys.path.insert(0, {str(run.path / 'lib')!r}); import package"
    run.command("python import, cold", sys.executable, "-I", "-B", "-c", code)


def make(run: Run) -> None:
    shutil.copytree(run.data.server / "project", run.data.server / "out" / run.label)
    run.command("make -j2", "make", "-s", "-j2", cwd=run.new)


def big_read(run: Run) -> None:
    run.step("sequential_read", run.path / "big")


def big_write(run: Run) -> None:
    run.step("sequential_write", run.new, run.data.sizes.big_mib)


def small_writes(run: Run) -> None:
    run.step("small_writes", run.new, run.data.sizes.small_writes)


def random_reads(run: Run) -> None:
    run.step("random_reads", run.path / "big", run.data.sizes.random_reads)


def stats(run: Run) -> None:
    run.step("serial_stats", run.path / "many", run.data.sizes.many, run.data.sizes.stats)


def creates(run: Run) -> None:
    run.step("small_creates", run.new, run.data.sizes.creates)


def latency(run: Run) -> None:
    run.step("latency", run.path, run.data.sizes.bulk_s)


def memory(run: Run) -> None:
    """Resident bytes: idle, after walking many entries, and after walking them again."""
    place = run.data.server / "entries"
    if not place.exists():
        for number in range(run.data.sizes.entries // 500):
            (place / f"d{number}").mkdir(parents=True)
            for entry in range(500):
                (place / f"d{number}" / f"f{entry}").touch()
    run.results["memory, idle (MB)"] = run.resident() / 1e6
    for metric in ("memory, after a walk (MB)", "memory, after a second walk (MB)"):
        subprocess.run(
            ["find", run.path / "entries", "-size", "+1"], timeout=run.timeout_s, check=True
        )
        run.results[metric] = run.resident() / 1e6


@dataclass(frozen=True)
class Workload:
    """A row: its name on the command line, what it does, and on what link."""

    name: str
    action: Callable[[Run], None]
    rate_mbit: float = 0  # a capped link
    by_default: bool = True


WORKLOADS: Final = (
    *itertools.starmap(
        Workload,
        (
            ("find", find),
            ("grep", grep),
            ("git-status", git_status),
            ("git-clone", git_clone),
            ("cp", cp_out),
            ("tar", tar_in),
            ("rm", rm),
            ("ls", ls),
            ("du", du),
            ("import", python_import),
            ("make", make),
            ("read", big_read),
            ("write", big_write),
            ("writes-4k", small_writes),
            ("reads-4k", random_reads),
            ("stat", stats),
            ("create", creates),
        ),
    ),
    Workload("latency", latency, rate_mbit=100),
    Workload("memory", memory, by_default=False),
)

BY_NAME: Final = {workload.name: workload for workload in WORKLOADS}
