"""How long a caller on a dead link lives after a signal: ``python -m tests.bench.interrupts``.

Prints a table of operation and signal for netfs and sshfs, p50 and p95 in seconds; as root.
"""

from __future__ import annotations

import argparse
import signal
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from tests.harness import mounts
from tests.harness.mounts import Peer
from tests.harness.namespace import enter_private_mounts
from tests.harness.relay import Relay
from tests.harness.sshd import Sshd, running_sshd
from tests.mount.test_interrupts_on_a_dead_link import NAMES, OPERATIONS, Stuck, end, go

CAP_S: Final = 5.0
"""A caller that lives longer counts as stuck."""

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)


def prepare(remote: Path) -> None:
    remote.mkdir()
    for number in range(len(OPERATIONS)):
        (remote / f"directory{number}").mkdir()
        (remote / f"open{number}").write_bytes(bytes(8 << 20))
    for name in NAMES:
        (remote / name).write_bytes(b"x")


def measure(peer: Peer, sshd: Sshd, place: Path, number: int) -> dict[str, float]:
    """One mount, one cut, each operation once: seconds lived by operation; CAP_S is stuck."""
    place.mkdir()
    prepare(place / "remote")
    lived: dict[str, float] = {}
    with Relay(sshd.port) as relay:
        options = ("link_timeout=120", "abort_after=0") if peer == "netfs" else ()
        command = mounts.command_for(
            peer, sshd, place / "remote", place / "m", options, port=sshd.trust(relay.port)
        )
        mount = mounts.start(command, place / "m", timeout_s=60)
        stuck = Stuck(mount, relay)
        callers = {name: stuck.start(name, index) for index, name in enumerate(OPERATIONS)}
        relay.cut("blackhole")
        try:
            for name, caller in callers.items():
                try:
                    go(caller)
                    lived[name] = end(caller, number, CAP_S)
                except (AssertionError, TimeoutError):
                    continue  # answered from a cache, or behind another one: nothing to measure
                except subprocess.TimeoutExpired:
                    lived[name] = CAP_S
        finally:
            relay.heal(reset=True)
            mount.clean_up()
            for caller in callers.values():
                caller.kill()
                caller.communicate(timeout=30)
    return lived


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", default="netfs,sshfs")
    parser.add_argument("--signals", default=",".join(number.name for number in SIGNALS))
    arguments = parser.parse_args()
    signals = [number for number in SIGNALS if number.name in arguments.signals.split(",")]
    enter_private_mounts()
    peers: list[Peer] = [peer for peer in ("netfs", "sshfs") if peer in arguments.peers.split(",")]
    figures: dict[tuple[str, Peer, int], list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="netfs-i-") as directory:
        base = Path(directory)
        base.chmod(0o755)
        with running_sshd(base / "sshd") as sshd:
            for turn in range(arguments.rounds):
                for peer in peers:
                    for number in signals:
                        place = base / f"{peer}-{turn}-{number}"
                        for name, seconds in measure(peer, sshd, place, number).items():
                            figures.setdefault((name, peer, number), []).append(seconds)
    columns = [(peer, number) for peer in peers for number in signals]
    print("| operation |" + "".join(f" {peer} {number.name} |" for peer, number in columns))
    print("|---|" + "--:|" * len(columns))
    for name in OPERATIONS:
        cells = (shown(figures.get((name, peer, number), [])) for peer, number in columns)
        print(f"| {name} |" + "".join(f" {cell} |" for cell in cells))


def shown(values: list[float]) -> str:
    if not values:
        return "–"
    values = sorted(values)
    p95 = values[min(len(values) - 1, round(0.95 * (len(values) - 1)))]
    texts = [
        f"> {CAP_S:.0f}" if value >= CAP_S else f"{value:.2f}"
        for value in (statistics.median(values), p95)
    ]
    return texts[0] if texts[0] == texts[1] else " / ".join(texts)


if __name__ == "__main__":
    main()
