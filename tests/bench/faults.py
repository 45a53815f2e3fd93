"""How long faults are felt: ``python -m tests.bench.faults`` prints a table; as root.

The worker killed under load, questions while the link is black-holed, and what ends at
``link_timeout``.  Nothing here touches the mount from this process once the link is cut.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.harness.mounts import Mount, is_mounted, mounted
from tests.harness.namespace import enter_private_mounts
from tests.harness.relay import Relay
from tests.harness.sshd import Sshd, running_sshd
from tests.harness.waiting import wait_until

LINK_TIMEOUT_S: Final = 5

LOAD: Final = """
import os, sys
count = 0
while True:
    try:
        with open(f"{sys.argv[1]}/load{os.getpid()}-{count % 50}", "wb") as file:
            file.write(bytes(50_000))
        os.listdir(sys.argv[1])
    except OSError:
        pass
    count += 1
"""


def took(*words: str | Path) -> float:
    """Seconds that a command takes, whatever it says; 60 at most."""
    began = time.monotonic()
    subprocess.run([os.fspath(word) for word in words], capture_output=True, timeout=60)
    return time.monotonic() - began


@contextmanager
def load(path: Path, processes: int) -> Iterator[None]:
    """Writers and listers on the mount, which live through its being replaced."""
    running = [
        subprocess.Popen([sys.executable, "-c", LOAD, str(path)], cwd="/") for _ in range(processes)
    ]
    try:
        yield
    finally:
        for process in running:
            process.kill()
        for process in running:
            process.wait(20)


def killed(mount: Mount) -> float:
    """Seconds from the worker's SIGKILL until a listing of the new mount."""
    victim = mount.worker()
    os.kill(victim, signal.SIGKILL)
    began = time.monotonic()

    def back() -> bool:
        try:
            there = is_mounted(mount.path) and mount.worker() != victim
        except ProcessLookupError:
            return False
        listing = ["ls", os.fspath(mount.path)]
        return there and subprocess.run(listing, capture_output=True, timeout=20).returncode == 0

    wait_until(back, 30, "the mount is back", every_s=0.005)
    return time.monotonic() - began


def deaths(server: Sshd, base: Path, rounds: int) -> dict[str, list[float]]:
    """A mount of its own for each death: three in a minute are given up."""
    lived = []
    for number in range(rounds):
        with mounted(server, base / "remote", base / f"k{number}") as mount, load(mount.path, 3):
            time.sleep(0.5)  # callers are in the middle of things by then; what follows is timed
            lived.append(killed(mount))
    return {"worker killed under load: the mount lists again": lived}


def black_hole(server: Sshd, base: Path, rounds: int) -> dict[str, list[float]]:
    """Questions with answers at hand, at once and once the link is known to be down."""
    found: dict[str, list[float]] = {}
    for number in range(rounds):
        (base / "remote" / f"new{number}").mkdir()
        options = [f"link_timeout={LINK_TIMEOUT_S}", "cache_timeout=1"]
        with (
            Relay(server.port) as relay,
            mounted(
                server, base / "remote", base / f"b{number}", port=relay.port, options=options
            ) as mount,
        ):
            known = mount.path / "known"
            asked: dict[str, Callable[[], float]] = {
                "`df`": lambda p=mount.path: took("df", p),  # type: ignore[misc]
                "`stat` of the mountpoint": lambda p=mount.path: took("stat", p),  # type: ignore[misc]
                "`ls -l` of a cached directory": lambda p=known: took("ls", "-l", p),  # type: ignore[misc]
            }
            took("ls", "-l", known)
            relay.cut("blackhole")
            time.sleep(1.2)  # what is cached is older than cache_timeout now
            for when in ("just cut", "known to be down"):
                for name, ask in asked.items():
                    found.setdefault(f"{name}, {when}", []).append(ask())
                if when == "just cut":
                    new = mount.path / f"new{number}"
                    found.setdefault(
                        f"`ls` of an uncached directory, link_timeout={LINK_TIMEOUT_S}", []
                    ).append(took("ls", new))
            relay.heal()
            began = time.monotonic()
            wait_until(lambda p=new: took("ls", p) < 1, 60, "the mount works again")  # type: ignore[misc]
            found.setdefault("healed: the same `ls` works", []).append(time.monotonic() - began)
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    enter_private_mounts()
    with tempfile.TemporaryDirectory(prefix="netfs-f-") as directory:
        base = Path(directory)
        known = base / "remote" / "known"
        known.mkdir(parents=True)
        for number in range(20):
            (known / f"file{number}").write_bytes(b"x")
        with running_sshd(base / "sshd") as server:
            figures = {**deaths(server, base, rounds), **black_hole(server, base, rounds)}
    print("| seconds | p50 | most |\n|---|--:|--:|")
    for name, values in figures.items():
        print(f"| {name} | {statistics.median(values):.2f} | {max(values):.2f} |")


if __name__ == "__main__":
    main()
