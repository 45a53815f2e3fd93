"""Addresses that are more than a host and a port, on asyncio's loop and on the worker's."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from netfs.client.config import Config, MountConfig, SourceConfig, SshConfig
from netfs.client.remote.errors import ConnectError, ConnectErrorKind
from netfs.client.remote.tcp import TcpLink
from tests.harness.packages import require
from tests.harness.sftpd import SFTP_SERVER
from tests.unit.transport.support import VERSION_3, Recorder, version_of

LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]
Loop = Callable[[], asyncio.AbstractEventLoop]

LINK_LOCAL = """
import asyncio, socket, uvloop
from netfs.client.remote.sockets import open_tcp
listener = socket.create_server(("::", 0), family=socket.AF_INET6)
for loop in (asyncio.new_event_loop, uvloop.new_event_loop):
    with asyncio.Runner(loop_factory=loop) as runner:
        sock = runner.run(open_tcp("fe80::99%lo", listener.getsockname()[1]))
    print(sock.getpeername()[0])
"""


@pytest.mark.root
@pytest.mark.netns
def test_a_link_local_address_keeps_its_interface() -> None:
    script = 'ip link set lo up && ip address add fe80::99/64 dev lo && exec "$@"'
    done = subprocess.run(
        [
            *(require("unshare"), "--net", "sh", "-c", script, "sh"),
            *(sys.executable, "-c", LINK_LOCAL),
        ],
        env={**os.environ, "PYTHONPATH": os.fspath(Path(__file__).parents[3])},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.stdout.split() == ["fe80::99", "fe80::99"], done.stderr


def link_to(vsock: Any, timeout_s: float = 5.0) -> TcpLink:
    return TcpLink(
        Config(
            source=SourceConfig(text="x", host="h"),
            mount=MountConfig(mountpoint="/nowhere"),
            ssh=SshConfig(vsock=vsock, connect_timeout_s=timeout_s),
        )
    )


@pytest.mark.parametrize("loop", LOOPS)
def test_a_virtual_socket_where_nobody_listens_is_named(loop: Loop) -> None:
    try:
        socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM).close()
    except OSError:
        pytest.skip("this kernel has no virtual sockets")

    async def fail() -> ConnectError:
        with pytest.raises(ConnectError) as caught:
            await link_to((1, 1), 0.3).open_channel(Recorder())
        return caught.value

    with asyncio.Runner(loop_factory=loop) as runner:
        error = runner.run(fail())
    assert error.kind in (ConnectErrorKind.TIMED_OUT, ConnectErrorKind.UNREACHABLE)
    assert str(error).startswith("vsock 1:1: ")


@pytest.mark.parametrize("loop", LOOPS)
def test_a_virtual_socket_carries_sftp(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Most machines can't connect to themselves so: a local socket takes its place."""
    path = os.fspath(tmp_path / "listener")

    class Stand(socket.socket):
        def connect_ex(self, address: Any) -> int:
            assert address == (2, 22)
            return super().connect_ex(path)

    async def speak() -> bytes:
        link = link_to((2, 22))
        version = asyncio.create_task(version_of(link))
        peer, _ = await asyncio.get_running_loop().sock_accept(listener)
        with peer:
            server = subprocess.Popen([*SFTP_SERVER], stdin=peer.fileno(), stdout=peer.fileno())
        found = await version
        await link.close()
        assert server.wait(5) == 0
        return found

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        listener.setblocking(False)
        monkeypatch.setattr(socket, "AF_VSOCK", socket.AF_UNIX)
        monkeypatch.setattr(socket, "socket", Stand)
        with asyncio.Runner(loop_factory=loop) as runner:
            assert runner.run(speak()) == VERSION_3
