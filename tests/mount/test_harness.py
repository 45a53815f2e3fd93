"""The harness itself: without it no other result here could be believed."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.harness.mounts import connection_of, is_mounted, mounted
from tests.harness.relay import Relay
from tests.harness.sftpd import running_sftpd
from tests.harness.sshd import Sshd

pytestmark = [pytest.mark.sshd]


def test_the_server_lets_its_user_in_also_through_a_relay(sshd: Sshd) -> None:
    with Relay(sshd.port) as relay:
        for port in (None, relay.port):
            done = subprocess.run(
                sshd.ssh("echo", "hello", port=port), capture_output=True, text=True, timeout=30
            )
            assert done.stdout == "hello\n", done.stderr


def test_a_relay_adds_the_delay_it_is_told(sshd: Sshd) -> None:
    with Relay(sshd.port, delay_ms=25) as relay:
        with socket.create_connection(("127.0.0.1", relay.port), timeout=10) as probe:
            started = time.monotonic()
            assert probe.recv(100).startswith(b"SSH-2.0")
        assert 0.025 <= time.monotonic() - started < 0.5


def test_a_black_hole_holds_bytes_back_until_it_is_healed(sshd: Sshd) -> None:
    with Relay(sshd.port) as relay:
        relay.cut("blackhole")
        with socket.create_connection(("127.0.0.1", relay.port), timeout=0.3) as probe:
            with pytest.raises(TimeoutError):
                probe.recv(100)
            relay.heal()
            probe.settimeout(10)
            assert probe.recv(100).startswith(b"SSH-2.0")


def test_a_refusing_relay_resets_and_refuses_until_healed(sshd: Sshd) -> None:
    with Relay(sshd.port) as relay:
        with socket.create_connection(("127.0.0.1", relay.port), timeout=10) as probe:
            probe.recv(100)
            relay.cut("refuse")
            with pytest.raises(ConnectionResetError):
                probe.recv(100)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", relay.port), timeout=10)
        relay.heal()
        socket.create_connection(("127.0.0.1", relay.port), timeout=10).close()


@pytest.mark.mount
def test_sshfs_mounts_and_leaves_nothing_behind(
    sshd: Sshd, remote: Path, tmp_path: Path, need_fuse: None
) -> None:
    (remote / "a").write_text("x")
    place = tmp_path / "m"
    with mounted(sshd, remote, place, peer="sshfs") as mount:
        assert os.listdir(place) == ["a"]
        assert mount.worker() == mount.pid
        assert connection_of(place) is not None
    assert not is_mounted(place)
    assert mount.process.poll() is not None


@pytest.mark.mount
@pytest.mark.parametrize("point", ["before", "after"])
def test_a_cut_can_be_placed_before_or_after_the_server_acts(
    point: str, remote: Path, tmp_path: Path, sshd: Sshd, need_fuse: None
) -> None:
    mkdir = 14  # SSH_FXP_MKDIR
    with running_sftpd() as port, Relay(port) as relay:
        place = tmp_path / "m"
        options = (f"directport={relay.port}",)
        source = f"127.0.0.1:{remote}"
        with mounted(sshd, remote, place, peer="sshfs", options=options, source=source):
            relay.arm(mkdir, point)
            with pytest.raises(OSError, match=r"\[Errno"):
                os.mkdir(place / "d")
            assert relay.fired()
        assert (remote / "d").exists() == (point == "after")
