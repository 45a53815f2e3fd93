"""``script/bench``: mounts each peer in turn over the same relay and runs the same workloads.

Clients use the same cipher and stock options; the server is a stock OpenSSH sftp-server. Before a
workload its mount is made afresh, the machine's caches are dropped and the server's are warmed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.bench import data as bench_data
from tests.bench import report
from tests.bench.workloads import BY_NAME, WORKLOADS, Run, Workload
from tests.harness.mounts import command_for, drop_caches, start
from tests.harness.namespace import enter_private_mounts
from tests.harness.packages import find
from tests.harness.relay import Relay
from tests.harness.sshd import Sshd, running_sshd
from tests.harness.waiting import wait_until

PEERS: Final = ("netfs", "sshfs", "rclone")
REFERENCE: Final = "ssh tar"  # what a pipe of tar over ssh takes for `cp -a out`


def main() -> int:
    arguments = parse()
    if os.geteuid() == 0:
        enter_private_mounts()
    base = Path(tempfile.mkdtemp(prefix="netfs-bench-", dir=arguments.data))
    try:
        return bench(arguments, base)
    finally:
        shutil.rmtree(base, ignore_errors=True)  # best effort: results matter more


def parse() -> argparse.Namespace:
    names = ", ".join(workload.name for workload in WORKLOADS)
    parser = argparse.ArgumentParser(
        prog="script/bench", description=__doc__, epilog=f"workloads: {names}"
    )
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help="default: all but memory")
    parser.add_argument("--rtt", default="0", help="round trips in ms, such as 0,20,100")
    parser.add_argument("--peers", default="sshfs", help="sshfs, rclone, or none")
    parser.add_argument("--repeat", type=int, default=3, help="runs per figure (median)")
    parser.add_argument("--quick", action="store_true", help="small trees and files")
    parser.add_argument("--big", type=int, metavar="MIB", help="size of the big file")
    parser.add_argument("--entries", type=int, help="names in the memory workload")
    parser.add_argument("-o", action="append", default=[], dest="options", help="for netfs only")
    parser.add_argument("--data", default=default_data(), help="where the trees are made")
    parser.add_argument("--json", type=Path, help="write everything measured here")
    parser.add_argument("--svg", type=Path, help="write the chart here")
    parser.add_argument("--profile", action="store_true", help="keep mount logs in /tmp")
    arguments = parser.parse_args()
    unknown = set(arguments.workloads) - set(BY_NAME)
    if unknown:
        parser.error(f"no such workload: {', '.join(sorted(unknown))}; there are {names}")
    return arguments


SETTLE_S = 1.0
"""Between mounting, which is measured by itself, and the workload: watchdogs and second channels
are being started then."""


def default_data() -> str:
    """Memory where there is some: the server's disk is not what is compared."""
    shm = Path("/dev/shm")
    with contextlib.suppress(OSError):  # no such directory: the usual place
        if os.access(shm, os.W_OK) and shutil.disk_usage(shm).free > 4 << 30:
            return str(shm)
    return tempfile.gettempdir()


def bench(arguments: argparse.Namespace, base: Path) -> int:
    sizes = bench_data.QUICK if arguments.quick else bench_data.Sizes()
    changes = {"big_mib": arguments.big, "entries": arguments.entries}
    for name, value in changes.items():
        if value:
            sizes = bench_data.Sizes(**{**vars_of(sizes), name: value})
    chosen = [BY_NAME[name] for name in arguments.workloads] or [
        workload for workload in WORKLOADS if workload.by_default
    ]
    peers = ["netfs", *(p for p in arguments.peers.split(",") if p not in ("", "none", "netfs"))]
    for peer in list(peers):
        if peer != "netfs" and find(peer) is None:
            print(f"{peer} is not installed: left out", file=sys.stderr)
            peers.remove(peer)
    print(f"making the trees in {base}", file=sys.stderr)
    data = bench_data.prepare(base / "server", base / "local", sizes)
    samples: report.Samples = {}
    problems = 0
    with running_sshd(base / "sshd") as server:
        for rtt in (float(word) for word in arguments.rtt.split(",")):
            for number in range(arguments.repeat):
                for workload in chosen:
                    for peer in peers:
                        label = f"{workload.name}-{peer}-{rtt:g}-{number}"
                        started = time.monotonic()
                        try:
                            with link(server, rtt, workload.rate_mbit) as port:
                                results = measure(
                                    workload, peer, server, data, port, label, arguments
                                )
                        except (RuntimeError, OSError, subprocess.TimeoutExpired) as error:
                            problems += 1
                            print(f"{label}: {type(error).__name__}: {error}", file=sys.stderr)
                            continue
                        took = time.monotonic() - started
                        shown = ", ".join(f"{k} {report.shown(v, k)}" for k, v in results.items())
                        print(f"{label} ({took:.0f} s): {shown}", file=sys.stderr)
                        for metric, value in results.items():
                            samples.setdefault((rtt, peer, metric), []).append(value)
                    if workload.name == "cp":
                        with link(server, rtt, 0) as port:
                            seconds = tar_reference(server, data, port)
                        samples.setdefault((rtt, REFERENCE, "cp -a out, cold"), []).append(seconds)
    shown_peers = [*peers, *({REFERENCE} & {peer for _, peer, _ in samples})]
    print(report.table(samples, shown_peers))
    about = {
        "machine": f"{platform.system()} {platform.release()}, {os.cpu_count()} CPUs",
        "python": platform.python_version(),
        "sizes": vars_of(sizes),
        "netfs options": arguments.options,
    }
    if arguments.json:
        report.write_json(arguments.json, samples, about)
    if arguments.svg:
        arguments.svg.parent.mkdir(parents=True, exist_ok=True)
        arguments.svg.write_text(report.chart(samples))
    return 1 if problems else 0


def vars_of(sizes: bench_data.Sizes) -> dict[str, int]:
    return dict(sizes.__dict__)


@contextlib.contextmanager
def link(server: Sshd, rtt_ms: float, rate_mbit: float) -> Iterator[int]:
    """The port to connect to: the server's own, or that of a relay with delay and cap."""
    if not rtt_ms and not rate_mbit:
        yield server.port
        return
    with Relay(server.port, delay_ms=rtt_ms / 2, rate_mbit=rate_mbit) as relay:
        yield relay.port


def measure(
    workload: Workload,
    peer: str,
    server: Sshd,
    data: bench_data.Data,
    port: int,
    label: str,
    arguments: argparse.Namespace,
) -> dict[str, float]:
    """Mount *peer* afresh and run one workload on it; metric -> seconds."""
    drop_caches()
    bench_data.warm(data)
    place = data.local / "mnt"
    began = time.perf_counter()
    mount = start(client_command(peer, server, data, place, port, arguments.options), place)
    try:
        ready = time.perf_counter() - began
        run = Run(mount, data, label)
        time.sleep(SETTLE_S)
        workload.action(run)
        if mount.unmount(120):
            raise RuntimeError(f"{peer} ended with {mount.process.returncode}")
        return {"mount ready": ready, **run.results}
    finally:
        mount.clean_up()
        if arguments.profile:
            shutil.copy(mount.log, f"/tmp/netfs-bench-{label}.log")
        mount.log.unlink(missing_ok=True)
        for leftover in (data.server / "out").iterdir():
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()


def client_command(
    peer: str, server: Sshd, data: bench_data.Data, place: Path, port: int, options: list[str]
) -> list[str]:
    """The argv that mounts the server's side in the foreground."""
    if peer == "rclone":
        return [
            "rclone", "mount", f":sftp:{data.server}", str(place), "--sftp-host=127.0.0.1",
            f"--sftp-port={port}", f"--sftp-user={server.user}",
            f"--sftp-key-file={server.user_key}", "--vfs-cache-mode=writes",
            f"--sftp-known-hosts-file={server.known_hosts}", "--links", "--config=/dev/null",
        ]  # fmt: skip
    own = options if peer == "netfs" else []
    return command_for(peer, server, data.server, place, own, port)  # type: ignore[arg-type]


def tar_reference(server: Sshd, data: bench_data.Data, port: int) -> float:
    """Seconds that ``ssh host tar c | tar x`` takes for the same tree, login excluded."""
    place = data.local / "copied"
    shutil.rmtree(place, ignore_errors=True)  # there may be none yet
    place.mkdir()
    control = data.local / "control"
    with subprocess.Popen(master_argv(server, port, control)):
        wait_until(control.exists, 20, "the control socket of ssh")
        remote = f"tar -C {data.server} -c tree"
        command = [find("ssh") or "ssh", "-S", str(control), f"{server.user}@127.0.0.1", remote]
        began = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE) as source:
            subprocess.run(["tar", "-C", str(place), "-x"], stdin=source.stdout, check=True)
        took = time.perf_counter() - began
        subprocess.run([*command[:3], "-O", "exit", command[3]], capture_output=True, timeout=20)
    return took


def master_argv(server: Sshd, port: int, control: Path) -> list[str]:
    """An ssh that only keeps a connection for others."""
    argv = server.ssh(port=port)
    return [*argv[:-1], "-M", "-N", "-S", str(control), argv[-1]]


if __name__ == "__main__":
    sys.exit(main())
