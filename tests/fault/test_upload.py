"""A big upload over a long way goes over several channels; a cut in the middle loses nothing."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.mounts import Mount, mounted
from tests.harness.relay import Relay
from tests.harness.sshd import Sshd
from tests.harness.waiting import wait_until

pytestmark = [pytest.mark.mount, pytest.mark.sshd]

MIB = 1 << 20


@pytest.fixture
def far(
    own_sshd: Sshd, remote: Path, tmp_path: Path, need_fuse: None
) -> Iterator[tuple[Mount, Relay]]:
    """A mount 150 ms away."""
    with (
        Relay(own_sshd.port, delay_ms=75) as relay,
        mounted(own_sshd, remote, tmp_path / "m", port=relay.port) as mount,
    ):
        yield mount, relay
        relay.heal(reset=True)


def holders(path: Path) -> int:
    """How many processes of the server have the file open (the mount's own have not)."""
    count = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "comm").read_text().strip() == "sftp-server":
                count += any(os.readlink(fd) == str(path) for fd in (process / "fd").iterdir())
        except OSError:
            continue  # it has ended meanwhile
    return count


def test_a_cut_in_the_middle_of_a_spread_upload(far: tuple[Mount, Relay], remote: Path) -> None:
    mount, relay = far
    data = random.Random(4).randbytes(8 * MIB)
    parts = 8
    failures: list[OSError] = []

    def upload() -> None:
        try:
            with open(mount.path / "big", "wb", buffering=0) as file:
                for _ in range(parts):
                    file.write(data)
                os.fsync(file.fileno())
        except OSError as exc:
            failures.append(exc)

    thread = threading.Thread(target=upload)
    thread.start()
    try:
        wait_until(lambda: holders(remote / "big") > 1, 30, "further channels")
        relay.cut("rst")
        relay.heal()
    finally:
        thread.join(90)
    assert not thread.is_alive()
    assert not failures
    assert (remote / "big").read_bytes() == data * parts
    wait_until(lambda: holders(remote / "big") == 0, 30, "no handle left")
