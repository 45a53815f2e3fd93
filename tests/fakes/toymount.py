"""The toy filesystem mounted by a process of its own: ``python -m tests.fakes.toymount DIR``.

It prints ``ready``, and the operation's name and caller whenever one hangs.  Each line of its
standard input names an entry of the root to be invalidated; ``--careless`` does so at once.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from netfs.client import mount
from netfs.client.config import MountConfig
from netfs.client.device import Device
from netfs.client.dispatcher import Dispatcher, End, shake_hands
from netfs.client.inflight import InFlightTable
from netfs.client.notifier import Notifier
from netfs.client.operations.refused import REFUSED
from netfs.fuse import abi, requests
from netfs.fuse.replies import Reply
from tests.fakes import toyfs


class TellingToyFs(toyfs.ToyFs):
    async def hang(self, what: str, request: requests.Request) -> Reply:
        print(f"{what} {request.pid}", flush=True)
        return await super().hang(what, request)


async def serve(config: MountConfig, *, direct_io: bool, valid_s: float, careless: bool) -> None:
    fs = TellingToyFs(valid_s=valid_s, open_flags=abi.FOPEN_DIRECT_IO if direct_io else 0)
    for name in (b"file", b"hangfile", b"hanglookup"):
        fs.add(name, 0o100644).data += b"hello\n"
    fs.add(b"hangdir", 0o040755)
    mounted = mount.mount(config, "toy:/")
    device = Device(mounted.fd)
    capabilities = await shake_hands(device)
    in_flight = InFlightTable()
    busy = frozenset if careless else in_flight.busy
    notifier = Notifier(device.notify, capabilities, busy=busy)
    notifier.start()
    asyncio.get_running_loop().add_reader(0, lambda: invalidate(notifier))
    dispatcher = Dispatcher(
        device,
        fs,
        toyfs.HANDLERS,
        REFUSED,
        minor=capabilities.minor,
        clock=time.monotonic,
        allowed_uids=mount.allowed_uids(config),
        in_flight=in_flight,
    )
    print("ready", flush=True)
    end = await dispatcher.run()
    await dispatcher.close(1)
    await asyncio.to_thread(notifier.stop, 1)
    device.close()
    print(end.value, flush=True)
    if end is End.ABORTED:
        mount.unmount(mounted, lazy=True)


def invalidate(notifier: Notifier) -> None:
    text = os.read(0, 4096)
    if not text:
        asyncio.get_running_loop().remove_reader(0)
    for name in text.split():
        notifier.invalidate_entry(abi.ROOT_ID, name)


@dataclass
class ToyMount:
    path: Path
    process: subprocess.Popen[str]

    def invalidate(self, name: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(name + "\n")
        self.process.stdin.flush()

    def wait_for(self, line: str) -> None:
        """Return when the daemon has said *line*; the test's own time-out bounds it."""
        assert self.process.stdout is not None
        while (got := self.process.stdout.readline().strip()) != line:
            assert got, f"the daemon ended before it said {line}"


@contextlib.contextmanager
def mounted(path: Path, *arguments: str, prefix: tuple[str, ...] = ()) -> Iterator[ToyMount]:
    process = subprocess.Popen(
        [*prefix, sys.executable, "-m", "tests.fakes.toymount", str(path), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    toy = ToyMount(path, process)
    try:
        toy.wait_for("ready")
        yield toy
    finally:
        subprocess.run(["umount", "-l", str(path)], check=False, capture_output=True)
        process.kill()
        process.communicate()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("mountpoint")
    parser.add_argument("--direct-io", action="store_true")
    parser.add_argument("--valid", type=float, default=0.0)
    parser.add_argument("--careless", action="store_true")
    parser.add_argument("--read-only", action="store_true")
    parser.add_argument("--flag", action="append", default=[])
    parser.add_argument("--fsname")
    arguments = parser.parse_args()
    config = MountConfig(
        mountpoint=os.path.realpath(arguments.mountpoint),
        read_only=arguments.read_only,
        flags=tuple(arguments.flag),
        fsname=arguments.fsname,
    )
    try:
        asyncio.run(
            serve(
                config,
                direct_io=arguments.direct_io,
                valid_s=arguments.valid,
                careless=arguments.careless,
            )
        )
    except mount.MountError as error:
        print(f"{error.kind.name}: {error.message}", flush=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
