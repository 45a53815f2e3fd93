"""Faults of a real network: a cable out, packets dropped, connections reset by a middle box.

Client and server live in network namespaces of their own, joined by a veth pair.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness import mounts, processes
from tests.harness.mounts import Mount
from tests.harness.namespace import NetPair, net_pair
from tests.harness.packages import require
from tests.harness.sshd import Sshd
from tests.harness.waiting import wait_until

pytestmark = [
    pytest.mark.mount,
    pytest.mark.sshd,
    pytest.mark.root,
    pytest.mark.netns,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
]


@pytest.fixture(scope="module")
def pair() -> Iterator[NetPair]:
    with net_pair(f"nf{os.getpid() % 10000}", os.getpid() % 250) as pair:
        yield pair


@pytest.fixture
def mount(pair: NetPair, remote: Path, tmp_path: Path, need_fuse: None) -> Iterator[Mount]:
    """netfs in the client's namespace, on an sshd in the server's; a dead link shows soon."""
    with mounted_across(
        pair, remote, tmp_path, "ServerAliveInterval=1,ServerAliveCountMax=2"
    ) as it:
        yield it


@pytest.fixture
def idle(pair: NetPair, remote: Path, tmp_path: Path, need_fuse: None) -> Iterator[Mount]:
    """The same with netfs's own keepalive."""
    with mounted_across(pair, remote, tmp_path, "ServerAliveInterval=15") as it:
        yield it


@contextlib.contextmanager
def mounted_across(pair: NetPair, remote: Path, tmp_path: Path, words: str) -> Iterator[Mount]:
    server = Sshd(tmp_path / "sshd", 2222, "root", address="0.0.0.0")
    server.prepare()
    key = server.host_key.with_suffix(".pub").read_text()
    server.known_hosts.write_text(f"[{pair.server_address}]:2222 {key}")
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    sshd = subprocess.Popen(
        pair.on_server(require("sshd"), "-D", "-e", "-f", str(server.directory / "sshd_config")),
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    place = tmp_path / "m"
    source = f"root@{pair.server_address}:{remote}"
    options = ["-F", str(server.client_config), "-p", "2222"]
    options += ["-o", words]
    command = mounts.netfs_command(source, str(place), "-f", *options)
    try:
        probe = pair.on_client("bash", "-c", f"exec 3<>/dev/tcp/{pair.server_address}/2222")
        wait_until(
            lambda: subprocess.run(probe, capture_output=True).returncode == 0, 20, "sshd listens"
        )
        mounted = mounts.start(pair.on_client(*command), place)
        try:
            yield mounted
        finally:
            mounted.clean_up()
    finally:
        processes.end_tree(sshd.pid)
        sshd.wait(10)


FAULTS: dict[str, tuple[Callable[[NetPair], None], Callable[[NetPair], None]]] = {
    "the cable out": (lambda p: p.link(up=False), lambda p: p.link(up=True)),
    "packets dropped": (lambda p: p.drop(), lambda p: p.pass_again()),
    "connections reset": (lambda p: p.reject(), lambda p: p.pass_again()),
}


@pytest.mark.parametrize("seconds", [0.5, 5.0])
@pytest.mark.parametrize("fault", FAULTS)
def test_writers_and_readers_live_through(
    fault: str, seconds: float, pair: NetPair, mount: Mount, remote: Path
) -> None:
    break_, mend = FAULTS[fault]
    data = os.urandom(2 << 20)
    (remote / "source").write_bytes(data)
    (mount.path / "before").write_text("before")
    break_(pair)
    timer = threading.Timer(seconds, mend, args=(pair,))
    timer.start()
    try:
        done = subprocess.run(
            ["cp", str(mount.path / "source"), str(mount.path / "target")],
            capture_output=True,
            text=True,
            timeout=60,
        )
    finally:
        timer.join()
    assert done.returncode == 0, done.stderr + mount.text()[-3000:]
    assert (remote / "target").read_bytes() == data
    assert (mount.path / "before").read_text() == "before"


def test_a_change_of_addresses_has_a_dead_link_noticed_at_once(pair: NetPair, idle: Mount) -> None:
    """Nobody asks anything, and keepalives are 15 s apart: only the change can tell so soon."""
    pair.drop()
    try:
        time.sleep(1.5)  # longer than it takes below
        assert "link down" not in idle.text()
        began = time.monotonic()
        subprocess.run(
            ["ip", "-n", pair.client, "address", "add", "10.99.1.1/32", "dev", "lo"], check=True
        )
        wait_until(lambda: "link down" in idle.text(), 14, "the link counts as lost")
        assert time.monotonic() - began < 8
    finally:
        pair.pass_again()
        subprocess.run(
            ["ip", "-n", pair.client, "address", "delete", "10.99.1.1/32", "dev", "lo"], check=True
        )
    wait_until(lambda: idle.text().count("link up") > 1, 30, "the link")
