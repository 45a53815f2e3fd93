"""Applications under a link that is cut again and again: none may see an error or a wrong byte.

``python -m tests.harness.soak --minutes 30`` is the long form (``script/soak``); tests/fault runs a
short one. A seed repeats the sequence of cuts.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.harness.applications import APPLICATIONS, Application, Place
from tests.harness.mounts import Mount, environment, mounted, netfs_command
from tests.harness.namespace import enter_private_mounts
from tests.harness.relay import Relay
from tests.harness.sshd import Sshd, running_sshd
from tests.harness.waiting import wait_until

KINDS: Final = (
    "rst", "close", "blackhole", "blackhole-up", "blackhole-down", "refuse", "nat", "pause",
    "kill", "restart",
)  # fmt: skip

LAST_ROUND_S: Final = 150.0
"""What each application's last round may take, on a whole link and a busy machine."""

SHORTEST_CUT_S: Final = 0.1

SHORTEST_PAUSE_S: Final = 4.0
"""Between long cuts: one that begins before the link is back makes a single one of both, longer
than the time for which requests wait."""


@dataclass(frozen=True)
class Plan:
    """How long, how often and how badly the link is cut."""

    seed: int
    seconds: float
    max_cut_s: float
    pause_s: float = 3.0  # between two cuts, on average
    max_cuts: int = 1_000_000


@dataclass
class Soak:
    """One mount, several applications, one who cuts."""

    server: Sshd
    relay: Relay
    mount: Mount
    place: Place
    runtime: Path  # the mount's runtime_dir
    say: Callable[[str], None] = lambda line: None
    problems: list[str] = field(default_factory=list)
    rounds: dict[str, int] = field(default_factory=dict)
    cuts: int = 0
    samples: list[dict[str, int]] = field(default_factory=list)

    def run(self, plan: Plan) -> None:
        """Run everything as planned, then let the last rounds finish on a whole link."""
        running = [Application(name, self.place) for name in APPLICATIONS]
        try:
            self._cut_all(plan, running)
            for application in running:
                application.end()
            for application in running:
                if not application.wait(LAST_ROUND_S):
                    self.problems.append(f"{application.name}: blocked after the last cut")
            self._look(running)
        finally:
            for application in running:
                application.kill()
        self.say("quiet: " + shown(self.sample()))

    def _cut_all(self, plan: Plan, running: list[Application]) -> None:
        rng = random.Random(plan.seed)
        began = sampled = time.monotonic()
        seconds = 0.0
        while time.monotonic() < began + plan.seconds and self.cuts < plan.max_cuts:
            pause_s = rng.expovariate(1 / plan.pause_s)
            if seconds > SHORTEST_PAUSE_S:
                pause_s = max(pause_s, SHORTEST_PAUSE_S)
            pause_end = time.monotonic() + pause_s
            while time.monotonic() < pause_end and not self._look(running):
                time.sleep(min(0.2, max(0.0, pause_end - time.monotonic())))
            if self.problems:
                return
            kind = rng.choice(KINDS)
            seconds = SHORTEST_CUT_S * (plan.max_cut_s / SHORTEST_CUT_S) ** rng.random()
            self.say(f"{time.strftime('%T')} cut {self.cuts + 1}: {kind} {seconds:.1f} s")
            self.cut(kind, seconds)
            if time.monotonic() - sampled > 60:
                sampled = time.monotonic()
                self.say(shown(self.sample()))
                self.say(", ".join(f"{name} {count}" for name, count in self.rounds.items()))

    def _look(self, running: list[Application]) -> bool:
        """Collect what the applications found; whether there is a problem."""
        for application in running:
            self.rounds[application.name] = application.rounds
            if application.problem and application.problem not in self.problems:
                self.problems.append(application.problem)
        return bool(self.problems)

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
            time.sleep(seconds)
            self.server.start()
        elif kind == "nat":  # a middle box forgot the connection: silence, then a reset
            self.relay.cut("blackhole")
            time.sleep(seconds)
            self.relay.heal(reset=True)
        else:
            self.relay.cut(kind)
            time.sleep(seconds)
            self.relay.heal()

    def sample(self) -> dict[str, int]:
        """Note what must not grow."""
        worker = self.mount.worker()
        found = {"cuts": self.cuts}
        for line in Path(f"/proc/{worker}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                found["rss MiB"] = int(line.split()[1]) // 1024
            elif line.startswith("Threads"):
                found["threads"] = int(line.split()[1])
        found["fds"] = len(os.listdir(f"/proc/{worker}/fd"))
        found.update(self._told())
        servers = self.server.sessions()
        found["server processes"] = len(servers)
        found["server fds"] = 0
        for pid in servers:
            with contextlib.suppress(OSError):  # that session has just ended
                found["server fds"] += len(os.listdir(f"/proc/{pid}/fd"))
        self.samples.append(found)
        return found

    def _told(self) -> dict[str, int]:
        """The mount's own figures."""
        body = self.status()
        session = body["session"]
        return {
            "tasks": body["tasks"],
            "open files": session["open_files"],
            "channels": len(session["channels"]),
            "names": body["names"]["known"],
            "content MiB": body["files"]["cached"] >> 20,
            "in flight": body["beat"]["waiting"],
            "repeated": session["repeated"],
            "settled": session["settled"],
        }

    def status(self) -> dict[str, Any]:
        """What ``netfs status`` knows."""
        words = netfs_command("status", f"--runtime-dir={self.runtime}", "--json")
        done = subprocess.run(
            [*words, os.fspath(self.mount.path)],
            capture_output=True,
            text=True,
            timeout=60,
            env=environment(),
            cwd="/",
            check=True,
        )
        body: dict[str, Any] = json.loads(done.stdout)
        return body

    def wait_quiet(self) -> None:
        """Wait until the mount holds no handle of the server any more.

        Raises:
            TimeoutError: it does not let go of them.
        """
        wait_until(lambda: self._told()["open files"] == 0, 20, "all handles are closed", 0.2)


def shown(sample: dict[str, int]) -> str:
    return ", ".join(f"{name} {value}" for name, value in sample.items())


@contextlib.contextmanager
def stage(base: Path, options: list[str]) -> Iterator[Soak]:
    """A server, a relay and a mount below *base*, ready for a soak."""
    remote, local, runtime = base / "remote", base / "local", base / "run"
    for path in (remote, local):
        path.mkdir()
    place = Place(base / "m", remote, local)
    place.prepare()
    words = [f"runtime_dir={runtime}", *options]
    with (
        running_sshd(base / "sshd") as server,
        Relay(server.port) as relay,
        mounted(server, remote, place.mount, port=relay.port, options=words) as mount,
    ):
        yield Soak(server, relay, mount, place, runtime)


def main() -> int:
    parser = argparse.ArgumentParser(prog="script/soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--cuts", type=int, default=1_000_000, help="at most")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--max-cut", type=float, default=20, help="seconds")
    parser.add_argument("--pause", type=float, default=5, help="seconds between cuts, on average")
    parser.add_argument("-o", action="append", default=[], dest="options", help="for netfs")
    arguments = parser.parse_args()
    if os.geteuid() == 0:
        enter_private_mounts()
    base = Path(tempfile.mkdtemp(prefix="netfs-soak-"))
    with stage(base, arguments.options) as soak:
        soak.say = lambda line: print(line, flush=True)
        soak.say(f"in {base}")
        soak.run(
            Plan(
                arguments.seed, arguments.minutes * 60, arguments.max_cut, arguments.pause,
                arguments.cuts,
            )
        )  # fmt: skip
        print("\n".join(shown(sample) for sample in soak.samples))
        print(soak.rounds)
        if soak.problems:
            print("\n".join(soak.problems))
            print(f"kept for a look: {base}; the log's end:\n{soak.mount.text()[-3000:]}")
            return 1
        soak.wait_quiet()
        print(f"no problem in {soak.cuts} cuts; no handle left")
        status: int = soak.mount.unmount(60)
    shutil.rmtree(base)
    return status


if __name__ == "__main__":
    sys.exit(main())
