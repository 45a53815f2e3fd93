"""Measurements that need more than a command's run time; each runs in a process of its own.

``python -m tests.bench.steps NAME ARGUMENTS`` prints one line of JSON: metric -> seconds.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

MIB: Final = 1 << 20
Result = dict[str, float]


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def sequential_read(path: str) -> Result:
    """Read a file from start to end in 1 MiB pieces, twice."""
    result = {}
    for name in ("big read, cold", "big read, again"):
        buffer = bytearray(MIB)
        started = time.perf_counter()
        with open(path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
        result[name] = time.perf_counter() - started
    return result


def sequential_write(path: str, mib: str) -> Result:
    """Write a new file in 1 MiB pieces: to close, and to fsync."""
    data = os.urandom(MIB)
    result = {}
    for name, sync in (("big write + close", False), ("big write + fsync", True)):
        started = time.perf_counter()
        with open(f"{path}-{sync}", "wb", buffering=0) as file:
            for _ in range(int(mib)):
                file.write(data)
            if sync:
                os.fsync(file.fileno())
                result[name] = time.perf_counter() - started
        result.setdefault(name, time.perf_counter() - started)
    return result


def small_writes(path: str, count: str) -> Result:
    """4 KiB sequential writes, then fsync."""
    data = os.urandom(4096)
    started = time.perf_counter()
    with open(path, "wb", buffering=0) as file:
        for _ in range(int(count)):
            file.write(data)
        os.fsync(file.fileno())
    return {"4 KiB sequential writes + fsync": time.perf_counter() - started}


def random_reads(path: str, count: str) -> Result:
    """4 KiB reads at random offsets of a big file."""
    rng = random.Random(3)
    size = os.stat(path).st_size
    offsets = [rng.randrange(size // 4096) * 4096 for _ in range(int(count))]
    with open(path, "rb", buffering=0) as file:
        started = time.perf_counter()
        for offset in offsets:
            os.pread(file.fileno(), 4096, offset)
        return {"random 4 KiB reads": time.perf_counter() - started}


def _twice(name: str, paths: list[str], call: Callable[[str], object]) -> Result:
    """*call* for each of *paths*, one after another: for the first half of them, and the second.

    A virtual processor that was idle does not run at full speed at once: its host gives it up
    whenever it halts, until it has seen for a while that it is soon woken again, and meanwhile the
    guest's scheduler moves whom it wakes from one processor to the other.
    """
    half = len(paths) // 2
    started = time.perf_counter()
    for path in paths[:half]:
        call(path)
    between = time.perf_counter()
    for path in paths[half:]:
        call(path)
    return {f"{name}, at first": between - started, name: time.perf_counter() - between}


def serial_stats(directory: str, total: str, count: str) -> Result:
    """stat(2) of names never seen before, in random order."""
    numbers = random.Random(4).sample(range(int(total)), 2 * int(count))
    paths = [f"{directory}/file-{number:06}" for number in numbers]
    return _twice("serial uncached stat", paths, os.stat)


def small_creates(directory: str, count: str) -> Result:
    """Create, write 1 KiB, close."""
    os.mkdir(directory)
    data = os.urandom(1024)

    def create(path: str) -> None:
        with open(path, "wb", buffering=0) as file:
            file.write(data)

    paths = [f"{directory}/new-{number}" for number in range(2 * int(count))]
    return _twice("small create + write + close", paths, create)


def latency(mount: str, seconds: str) -> Result:
    """How long stat(2) takes while nothing, a bulk download, a bulk upload runs."""
    rng = random.Random(5)
    names = [f"{mount}/many/file-{n:06}" for n in range(1000)]
    rng.shuffle(names)
    result: Result = {}

    def probe(kind: str, until: Callable[[], bool]) -> None:
        times = []
        while not until() and names:
            started = time.perf_counter()
            os.stat(names.pop())
            times.append(time.perf_counter() - started)
            time.sleep(0.05)  # one sample in so long: a probe, not a load of its own
        result[f"stat p50, {kind}"] = statistics.median(times)
        result[f"stat p95, {kind}"] = percentile(times, 0.95)

    def download() -> None:
        with open(f"{mount}/big", "rb", buffering=0) as file:
            while not stop.is_set() and file.read(MIB):
                pass

    def upload() -> None:
        data = os.urandom(MIB)
        with open(f"{mount}/out/up-{os.getpid()}", "wb", buffering=0) as file:
            while not stop.is_set():
                file.write(data)

    stop = threading.Event()
    end = time.monotonic() + float(seconds) / 2
    probe("idle", lambda: time.monotonic() > end)
    for kind, work in (("bulk download", download), ("bulk upload", upload)):
        stop.clear()
        thread = threading.Thread(target=work)
        thread.start()
        time.sleep(0.7)  # the transfer is in full swing
        end = time.monotonic() + float(seconds)
        probe(kind, lambda end=end: time.monotonic() > end)  # type: ignore[misc]
        stop.set()
        thread.join()
    return result


STEPS: Final[dict[str, Callable[..., Result]]] = {
    step.__name__: step
    for step in (
        sequential_read,
        sequential_write,
        small_writes,
        random_reads,
        serial_stats,
        small_creates,
        latency,
    )
}

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    print(json.dumps(STEPS[sys.argv[1]](*sys.argv[2:])))
