"""Applications under a link that is cut again and again: none may see an error or a wrong byte.

``python -m tests.harness.soak --minutes 30`` is the long form (``script/soak``); tests/fault runs a
short one. A seed repeats the sequence of cuts.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.harness.mounts import Mount, mounted
from tests.harness.namespace import enter_private_mounts
from tests.harness.relay import Relay
from tests.harness.sshd import Sshd, running_sshd
from tests.harness.trees import describe, git, make_repository, make_tree

KINDS: Final = (
    "rst", "close", "blackhole", "blackhole-up", "blackhole-down", "refuse", "nat", "pause",
    "kill", "restart",
)  # fmt: skip


@dataclass
class Soak:
    """One mount, several applications, one who cuts."""

    server: Sshd
    relay: Relay
    mount: Mount
    remote: Path
    local: Path
    seed: int
    max_cut_s: float
    pause_s: float = 3.0  # between two cuts, on average
    problems: list[str] = field(default_factory=list)
    rounds: dict[str, int] = field(default_factory=dict)
    cuts: int = 0
    samples: list[str] = field(default_factory=list)
    _ending: threading.Event = field(default_factory=threading.Event)

    def run(self, seconds: float) -> None:
        """Run everything for *seconds*, then let the last rounds finish on a whole link."""
        threads = [
            threading.Thread(target=self._repeat, args=(work,), name=work.__name__)
            for work in (self.fio, self.clone, self.rsync, self.sqlite, self.walk, self.append)
        ]
        for thread in threads:
            thread.start()
        end = time.monotonic() + seconds
        rng = random.Random(self.seed)
        sampled = time.monotonic()
        while time.monotonic() < end and not self.problems:
            self._ending.wait(rng.expovariate(1 / self.pause_s))
            self.cut(rng.choice(KINDS), 0.1 * (self.max_cut_s / 0.1) ** rng.random())
            if time.monotonic() - sampled > 60:
                sampled = time.monotonic()
                self.sample()
        self._ending.set()
        for thread in threads:
            thread.join(100)
            if thread.is_alive():
                self.problems.append(f"{thread.name}: still blocked 100 s after the last cut")
        self.sample()

    def cut(self, kind: str, seconds: float) -> None:
        """Break the link in one way for *seconds*, and mend it."""
        self.cuts += 1
        if kind == "pause":
            self.server.pause()
            time.sleep(seconds)
            self.server.resume()
        elif kind == "kill":
            self.server.kill_sessions()
        elif kind == "restart":
            self.server.stop()
            time.sleep(min(seconds, 5))
            self.server.start()
        elif kind == "nat":  # a middle box forgot the connection: silence, then a reset
            self.relay.cut("blackhole")
            time.sleep(seconds)
            self.relay.heal(reset=True)
        else:
            self.relay.cut(kind)
            time.sleep(seconds)
            self.relay.heal()

    def sample(self) -> None:
        """Note what must not grow: memory, file descriptors, threads, the server's handles."""
        worker = self.mount.worker()
        status = Path(f"/proc/{worker}/status").read_text()
        facts = {
            line.split(":")[0]: line.split()[1]
            for line in status.splitlines()
            if line.startswith(("VmRSS", "Threads"))
        }
        fds = len(os.listdir(f"/proc/{worker}/fd"))
        handles = 0
        for pid in self.server.sessions():
            try:
                handles += len(os.listdir(f"/proc/{pid}/fd"))
            except OSError:
                continue  # that session has just ended
        rounds = " ".join(f"{name} {count}" for name, count in sorted(self.rounds.items()))
        self.samples.append(
            f"cuts {self.cuts}, rss {int(facts['VmRSS']) // 1024} MiB, threads {facts['Threads']}, "
            f"fds {fds}, server fds {handles}, rounds: {rounds}"
        )

    def _repeat(self, work: Callable[[int], None]) -> None:
        number = 0
        while not self._ending.is_set() and not self.problems:
            try:
                work(number)
            except Exception as error:  # whatever it is, it is the finding
                self.problems.append(f"{work.__name__}, round {number}: {error}")
            number += 1
            self.rounds[work.__name__] = number

    def command(self, *command: str | Path) -> str:
        done = subprocess.run(
            [os.fspath(word) for word in command], capture_output=True, text=True, timeout=300
        )
        if done.returncode:
            tail = (done.stdout + done.stderr).strip()[-600:]
            raise RuntimeError(f"{command[0]} ended with {done.returncode}: {tail}")
        return done.stdout

    # --- the applications ---

    def fio(self, number: int) -> None:
        self.command(
            "fio", "--name=soak", "--verify_state_save=0",
            f"--directory={self.mount.path}/fio", "--numjobs=2",
            "--size=4M", "--rw=randwrite", "--bsrange=1k-64k", "--verify=crc32c", "--do_verify=1",
            "--verify_fatal=1", "--ioengine=psync", "--fsync=32", f"--randseed={number + 1}",
            "--fallocate=none",
        )  # fmt: skip

    def clone(self, number: int) -> None:
        place = self.mount.path / f"clone{number % 2}"
        self.command("rm", "-rf", place)
        git(self.mount.path, "clone", "-q", str(self.local / "origin"), place.name, timeout_s=300)
        git(place, "fsck", "--full", timeout_s=300)
        if git(place, "status", "--porcelain", timeout_s=300):
            raise RuntimeError("git status is not clean after a clone")

    def rsync(self, number: int) -> None:
        place = self.mount.path / "rsync"
        if number % 3 == 2:
            self.command("rm", "-rf", place)
        self.command("rsync", "-a", "--delete", f"{self.local}/tree/", f"{place}/")
        changed = self.command("rsync", "-aci", "--dry-run", f"{self.local}/tree/", f"{place}/")
        if changed:
            raise RuntimeError(f"rsync -c found differences: {changed[:400]}")
        if describe(self.remote / "rsync") != describe(self.local / "tree"):
            raise RuntimeError("the server's copy differs from the source")

    def sqlite(self, number: int) -> None:
        path = self.mount.path / "base.db"
        base = sqlite3.connect(path, timeout=120)
        try:
            base.execute("create table if not exists t (n integer, body blob)")
            for _ in range(5):
                with base:
                    rows = [(number, os.urandom(500)) for _ in range(20)]
                    base.executemany("insert into t values (?, ?)", rows)
            if base.execute("pragma integrity_check").fetchone() != ("ok",):
                raise RuntimeError("sqlite: integrity_check failed")
            count = base.execute("select count(*) from t where n = ?", (number,)).fetchone()
            if count != (100,):
                raise RuntimeError(f"sqlite: {count} rows of round {number}, not 100")
        finally:
            base.close()

    def walk(self, number: int) -> None:
        if describe(self.mount.path / "fixed") != self.fixed:
            raise RuntimeError("the tree that nobody changes looks different")

    def append(self, number: int) -> None:
        """Append and fsync; each fsynced byte must be on the server at that moment."""
        path = self.mount.path / "log"
        expected = hashlib.sha256()
        with open(path, "wb", buffering=0) as truncated:
            truncated.write(b"")
        with open(path, "ab", buffering=0) as file:
            for line in range(30):
                data = f"{number}:{line}:".encode() + os.urandom(200)
                file.write(data)
                expected.update(data)
                os.fsync(file.fileno())
                found = hashlib.sha256((self.remote / "log").read_bytes())
                if found.digest() != expected.digest():
                    raise RuntimeError(f"after fsync {line} the server's file differs")

    @property
    def fixed(self) -> dict[str, tuple[object, ...]]:
        return self._fixed

    def prepare(self) -> None:
        """Make what the applications need on both sides."""
        make_repository(self.local / "origin", files=60)
        make_tree(self.local / "tree", files=80, directories=10, seed=5)
        make_tree(self.remote / "fixed", files=150, directories=20, seed=6)
        (self.remote / "fio").mkdir()
        self._fixed = describe(self.remote / "fixed")


def main() -> int:
    parser = argparse.ArgumentParser(prog="script/soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--max-cut", type=float, default=20, help="seconds")
    parser.add_argument("--pause", type=float, default=6, help="seconds between cuts, on average")
    parser.add_argument("-o", action="append", default=[], dest="options", help="for netfs")
    arguments = parser.parse_args()
    if os.geteuid() == 0:
        enter_private_mounts()
    base = Path(tempfile.mkdtemp(prefix="netfs-soak-"))
    (base / "remote").mkdir()
    (base / "local").mkdir()
    with (
        running_sshd(base / "sshd") as server,
        Relay(server.port) as relay,
        mounted(
            server, base / "remote", base / "mnt", port=relay.port, options=arguments.options
        ) as mount,
    ):
        soak = Soak(
            server, relay, mount, base / "remote", base / "local", arguments.seed,
            arguments.max_cut, arguments.pause,
        )  # fmt: skip
        soak.prepare()
        soak.run(arguments.minutes * 60)
        print("\n".join(soak.samples))
        print("\n".join(soak.problems) or f"no problem in {soak.cuts} cuts")
        if soak.problems:
            print(f"kept for a look: {base}; the log's end:\n{mount.text()[-3000:]}")
            return 1
        status = mount.unmount(60)
    subprocess.run(["rm", "-rf", "--one-file-system", str(base)], check=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
