"""``netfs serve`` beside OpenSSH's internal-sftp, under the same netfs client on loopback.

``python -m tests.bench.server`` prints sequential read and write, pipelined LSTAT, the latency of
one STAT, and the memory of 200 idle sessions; it fails if one of its marks is missed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from statistics import median
from typing import Final

from netfs.client.config import Config, MountConfig, SourceConfig, SshConfig
from netfs.client.remote.prompt import NoPrompter
from netfs.client.remote.requester import Requester
from netfs.client.remote.transport import connect
from netfs.client.remote.window import new_links
from netfs.sftp.attrs import Attrs
from netfs.sftp.codes import OpenFlag
from netfs.sftp.requests import Close, Lstat, Open, Read, Request, Write
from netfs.sftp.responses import Data, Handle, Response, StatusResponse
from tests.harness.sshd import running_sshd
from tests.server.served import Served, serving

MIB: Final = 1 << 20
SIZE: Final = 256 * MIB
BLOCK: Final = 255 * 1024  # what both servers grant
LSTATS: Final = 30_000
ROUNDS: Final = 4
IDLE: Final = 200
IDLE_LIMIT: Final = 300 * MIB
MARKS: Final = {"read": 0.7, "write": 0.7, "lstat": 0.5}


@contextlib.asynccontextmanager
async def conversation(config_file: Path, host: str, port: int) -> AsyncIterator[Requester]:
    """One SFTP channel of netfs's client."""
    config = Config(
        source=SourceConfig(text=host, host=host, port=port),
        mount=MountConfig(mountpoint="/nowhere"),
        ssh=SshConfig(config_file=str(config_file)),
    )
    link = await connect(config, NoPrompter())
    requester = Requester(new_links(), time.monotonic)
    await requester.greet(await link.open_channel(requester))
    try:
        yield requester
    finally:
        requester.close()
        await link.close()


async def _pipelined(requester: Requester, requests: list[Request], depth: int) -> list[Response]:
    """All *requests*, *depth* of them in flight."""
    answers: list[Response] = []
    pending: list[asyncio.Future[Response]] = []
    for request in requests:
        if len(pending) >= depth:
            answers.append(await pending.pop(0))
        pending.append(requester.ask(request))
    return [*answers, *[await future for future in pending]]


async def _open(requester: Requester, path: Path, pflags: int) -> bytes:
    response = await requester.call(Open(os.fsencode(path), pflags, Attrs()))
    assert isinstance(response, Handle)
    return response.handle


async def _read(requester: Requester, path: Path) -> float:
    handle = await _open(requester, path, OpenFlag.READ)
    started = time.perf_counter()
    reads: list[Request] = [Read(handle, at, BLOCK) for at in range(0, SIZE, BLOCK)]
    total = 0
    pending: list[asyncio.Future[Response]] = []
    for request in reads:
        if len(pending) >= 32:
            answer = await pending.pop(0)
            assert isinstance(answer, Data)
            total += len(answer.data)
        pending.append(requester.ask(request))
    for future in pending:
        answer = await future
        assert isinstance(answer, Data)
        total += len(answer.data)
    taken = time.perf_counter() - started
    assert total == SIZE
    await requester.call(Close(handle))
    return SIZE / MIB / taken


async def _write(requester: Requester, path: Path) -> float:
    handle = await _open(requester, path, OpenFlag.WRITE | OpenFlag.CREAT | OpenFlag.TRUNC)
    data = os.urandom(BLOCK)
    started = time.perf_counter()
    answers = await _pipelined(
        requester,
        [Write(handle, at, (data[: min(BLOCK, SIZE - at)],)) for at in range(0, SIZE, BLOCK)],
        32,
    )
    taken = time.perf_counter() - started
    assert all(isinstance(answer, StatusResponse) and not answer.code for answer in answers)
    await requester.call(Close(handle))
    assert path.stat().st_size == SIZE if path.exists() else True
    return SIZE / MIB / taken


async def _lstat(requester: Requester, directory: Path) -> float:
    names = [os.fsencode(directory / f"f{number % 1000}") for number in range(LSTATS)]
    started = time.perf_counter()
    await _pipelined(requester, [Lstat(name) for name in names], 1000)
    return LSTATS / (time.perf_counter() - started)


async def _latency(requester: Requester, directory: Path) -> float:
    """Microseconds of one LSTAT with nothing else under way."""
    times: list[float] = []
    for _ in range(500):
        started = time.perf_counter()
        await requester.call(Lstat(os.fsencode(directory / "f1")))
        times.append(time.perf_counter() - started)
    return median(times) * 1e6


async def measure(config_file: Path, host: str, port: int, base: Path) -> dict[str, float]:
    """MiB/s, LSTATs per second, microseconds."""
    async with conversation(config_file, host, port) as requester:
        return {
            "write": await _write(requester, base / "big"),
            "read": await _read(requester, base / "big"),
            "lstat": await _lstat(requester, base / "many"),
            "latency": await _latency(requester, base / "many"),
        }


def best(rounds: list[dict[str, float]]) -> dict[str, float]:
    """The best of each: what else the machine does can only make it worse."""
    return {
        name: (min if name == "latency" else max)(one[name] for one in rounds) for name in rounds[0]
    }


async def idle_memory(served: Served) -> int:
    """Bytes of the server with IDLE sessions, each on a connection of its own."""
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(IDLE):
            requester = await stack.enter_async_context(
                conversation(served.client_config, served.host, served.port)
            )
            await requester.call(Lstat(b"/many/f1"))
        return served.rss()


def main() -> int:
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/dev/shm")))
        root = directory / "root"
        (root / "many").mkdir(parents=True)
        for number in range(1000):
            (root / "many" / f"f{number}").touch()
        sshd = stack.enter_context(running_sshd(directory / "sshd", subsystem="internal-sftp"))
        served = stack.enter_context(
            serving(directory / "serve", root, f"--max-sessions-per-key={IDLE + 8}")
        )
        theirs_all, ours_all = [], []
        for _ in range(ROUNDS):  # in turns, so that a busy machine is so for both
            theirs_all.append(
                asyncio.run(measure(sshd.client_config, "127.0.0.1", sshd.port, root))
            )
            ours_all.append(
                asyncio.run(measure(served.client_config, served.host, served.port, Path("/")))
            )
        theirs, ours = best(theirs_all), best(ours_all)
        idle = 0
        if "--no-idle" not in sys.argv:
            idle = asyncio.run(idle_memory(served))
    failed = False
    for name, unit in (
        ("read", "MiB/s"), ("write", "MiB/s"), ("lstat", "/s"), ("latency", "µs"),
    ):  # fmt: skip
        ratio = ours[name] / theirs[name]
        mark = MARKS.get(name)
        failed |= mark is not None and ratio < mark
        text = f"{ratio:.2f}x" + (f" (at least {mark}x)" if mark else "")
        print(
            f"{name:8} netfs {ours[name]:9.0f} {unit:6} internal-sftp {theirs[name]:9.0f}  {text}"
        )
    if idle:
        failed |= idle > IDLE_LIMIT
        print(f"idle     {IDLE} sessions {idle / MIB:.0f} MiB (at most {IDLE_LIMIT // MIB})")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
