"""The ways without asyncssh: the system's ssh, stdin and stdout, plain TCP."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
import uvloop

from netfs.client.config import Config, MountConfig, SourceConfig, SshConfig
from netfs.client.remote.channel import ProbedLink, check_greeting, readable
from netfs.client.remote.errors import ConnectError, ConnectErrorKind
from netfs.client.remote.pipe import PassiveLink, PipeLink, ssh_argv
from netfs.client.remote.sockets import open_tcp
from netfs.client.remote.tcp import TcpLink
from netfs.client.remote.transport import keepalive
from tests.harness.sftpd import running_sftpd
from tests.harness.sshd import Sshd
from tests.unit.transport.support import INIT, VERSION_3, Recorder, linked, version_of

SFTP_SERVER = "/usr/lib/openssh/sftp-server"


def config_with(
    *, user: str | None = None, host: str = "127.0.0.1", port: int | None = None, **ssh: object
) -> Config:
    return Config(
        source=SourceConfig(text="x", host=host, user=user, port=port),
        mount=MountConfig(mountpoint="/nowhere"),
        ssh=SshConfig(**ssh),  # type: ignore[arg-type]  # a test's keywords
    )


# --- greetings -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"\0\0\0",
        b"\0\0\0\x05",
        b"\0\0\0\x05\x02\0\0\0\x03",
        b"\0\x01\0\0\x02more",
    ],
)
def test_what_can_begin_sftp_passes(data: bytes) -> None:
    assert check_greeting(data) is None


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b"Wel", "Wel"),
        (b"Welcome\nto \x1b[1mthis", "Welcome"),
        (b"\0\0\0\x04\x02", "????"),
        (b"\0\0\0\x05\x65abc", "????eabc"),
        (b"\0\x7f\0\0\x02", "????"),
    ],
)
def test_what_can_not_is_shown(data: bytes, shown: str) -> None:
    printed = check_greeting(data)
    assert printed is not None
    assert printed.replace("\x7f", "?").startswith(shown[:4])


def test_readable_is_one_line_that_drives_no_terminal() -> None:
    assert readable(b"\x1b[2Jhi\xff\nnext") == "?[2Jhi\N{REPLACEMENT CHARACTER}"
    assert readable(b"x" * 100, 10) == "x" * 9 + "…"


# --- the system's ssh ----------------------------------------------------------------------------


def test_the_command_line_of_ssh() -> None:
    config = config_with(
        user="alice",
        host="box",
        port=2222,
        ssh_command=("ssh", "-v"),
        config_file="/cfg",
        keywords={"controlpath": ("/x",), "connecttimeout": ("3",), "identityfile": ("a", "b")},
    )
    assert ssh_argv(config) == [
        *("ssh", "-v", "-x", "-a", "-oClearAllForwardings=yes", "-F", "/cfg"),
        *("-ocontrolpath=/x", "-oconnecttimeout=3", "-oidentityfile=a", "-oidentityfile=b"),
        *("-oserveraliveinterval=15", "-oserveralivecountmax=3", "-p", "2222"),
        *("-s", "--", "alice@box", "sftp"),
    ]
    server = config_with(ssh_command=("ssh",), sftp_server="/usr/lib/sftp-server -e")
    assert ssh_argv(server)[-3:] == ["--", "127.0.0.1", "/usr/lib/sftp-server -e"]


@pytest.mark.parametrize("source", [{"host": "-oProxyCommand=x"}, {"user": "-oProxyCommand=x"}])
def test_a_host_or_user_that_looks_like_an_option_is_refused(source: dict[str, str]) -> None:
    with pytest.raises(ConnectError, match="dash"):
        ssh_argv(config_with(ssh_command=("ssh",), **source))  # type: ignore[arg-type]  # strings


@pytest.mark.sshd
async def test_the_systems_ssh_carries_sftp_and_is_reaped(sshd: Sshd) -> None:
    config = config_with(
        user=sshd.user,
        port=sshd.port,
        ssh_command=("ssh",),
        config_file=str(sshd.client_config),
        max_conns=2,
    )
    async with linked(config) as link:
        assert isinstance(link, PipeLink)
        assert link.max_channels == 2
        assert not isinstance(link, ProbedLink)
        assert link.acked_at() is None
        assert await version_of(link) == VERSION_3
        recorder = Recorder()
        channel = await link.open_channel(recorder)
        channel.write([INIT[:3], INIT[3:]])
        assert (await recorder.at_least(9))[4:] == VERSION_3
    async with asyncio.timeout(5):
        assert await recorder.reason() is None
    assert await link.wait_lost() is None
    assert subprocess.run(["pgrep", "-P", str(os.getpid()), "-x", "ssh"], check=False).returncode


async def pipe_failure(*command: str) -> ConnectError:
    async with linked(config_with(ssh_command=command)) as link:
        recorder = Recorder()
        await link.open_channel(recorder)
        reason = await recorder.reason()
        assert await link.wait_lost() is reason
    assert isinstance(reason, ConnectError)
    return reason


def script(path: Path, body: str) -> str:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


async def test_what_ssh_complains_of_is_shown_and_in_the_error(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fails = script(tmp_path / "ssh", 'echo "ssh: no route" >&2; exit 255')
    error = await pipe_failure(fails)
    assert error.kind is ConnectErrorKind.PROXY_FAILED
    assert "ssh: no route" in str(error)
    assert "ssh: no route" in capfd.readouterr().err


@pytest.mark.sshd
async def test_a_login_that_the_systems_ssh_is_refused_is_told_from_other_failures(
    sshd: Sshd, tmp_path: Path
) -> None:
    words = {"pubkeyauthentication": ("no",)}
    unknown = {"UserKnownHostsFile": (str(tmp_path / "none"),)}
    (tmp_path / "known").write_text(
        f"[127.0.0.1]:{sshd.port} {sshd.user_key.with_suffix('.pub').read_text()}"
    )
    changed = {"UserKnownHostsFile": (str(tmp_path / "known"),)}
    for keywords, kind in (
        (words, ConnectErrorKind.AUTH_FAILED),
        (unknown, ConnectErrorKind.HOST_KEY_UNKNOWN),
        (changed, ConnectErrorKind.HOST_KEY_CHANGED),
        ({"Port": ("1",)}, ConnectErrorKind.REFUSED),
        ({"HostName": ("no-such-host.invalid",)}, ConnectErrorKind.HOST_UNKNOWN),
        ({"Ciphers": ("aes256-ctr",), "Port": (str(sshd.port),)}, None),
    ):
        port = None if "Port" in keywords else sshd.port
        config = config_with(
            user=sshd.user,
            port=port,
            ssh_command=("ssh",),
            config_file=str(sshd.client_config),
            keywords=keywords,
        )
        async with linked(config) as link:
            recorder = Recorder()
            channel = await link.open_channel(recorder)
            channel.write([INIT])
            if kind is None:
                assert (await recorder.at_least(9))[4:] == VERSION_3
                continue
            reason = await recorder.reason()
        assert isinstance(reason, ConnectError)
        assert reason.kind is kind, str(reason)


async def test_a_command_that_prints_is_named(tmp_path: Path) -> None:
    error = await pipe_failure(script(tmp_path / "ssh", "echo hello; cat"))
    assert error.kind is ConnectErrorKind.NO_SFTP
    assert "hello" in str(error)


async def test_a_command_that_does_not_exist_is_named() -> None:
    error = await pipe_failure("/no/such/ssh")
    assert error.kind is ConnectErrorKind.PROXY_FAILED
    assert "/no/such/ssh" in str(error)


async def test_aborting_kills_the_command(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    stubborn = script(tmp_path / "ssh", f"trap '' TERM; echo $$ > {pid_file}; exec sleep 100")
    link = PipeLink(config_with(ssh_command=(stubborn,)))
    recorder = Recorder()
    await link.open_channel(recorder)
    async with asyncio.timeout(5):
        while not pid_file.exists() or not pid_file.read_text():
            await asyncio.sleep(0.001)
    link.abort()
    assert await recorder.reason() is None
    pid = int(pid_file.read_text())
    async with asyncio.timeout(5):
        while os.path.exists(f"/proc/{pid}"):
            await asyncio.sleep(0.001)
    await link.close()


# --- stdin and stdout ----------------------------------------------------------------------------


async def speak_passively() -> None:
    server = subprocess.Popen([SFTP_SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert server.stdin is not None
    assert server.stdout is not None
    link = PassiveLink(server.stdout.fileno(), server.stdin.fileno())
    recorder = Recorder()
    channel = await link.open_channel(recorder)
    server.stdin.close()
    server.stdout.close()
    channel.write([INIT])
    assert (await recorder.at_least(9))[4:] == VERSION_3
    with pytest.raises(ConnectError):
        await link.open_channel(Recorder())
    await link.close()
    assert await recorder.reason() is None
    assert await link.wait_lost() is None
    assert server.wait(5) == 0


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_passive_speaks_on_two_pipes_and_once_only(loop_factory: Any) -> None:
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(speak_passively())


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_passive_speaks_on_one_socket_for_both_ways(loop_factory: Any) -> None:
    left, right = socket.socketpair()
    server = subprocess.Popen([SFTP_SERVER], stdin=right.fileno(), stdout=right.fileno())
    right.close()

    async def speak() -> None:
        link = PassiveLink(left.fileno(), left.fileno())
        assert await version_of(link) == VERSION_3
        await link.close()

    with left, asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(speak())
    assert server.wait(5) == 0


async def test_passive_tells_when_the_other_side_ends() -> None:
    left, right = socket.socketpair()
    link = PassiveLink(left.fileno(), left.fileno())
    recorder = Recorder()
    await link.open_channel(recorder)
    left.close()
    right.close()
    reason = await recorder.reason()
    assert isinstance(reason, ConnectError)
    assert reason.kind is ConnectErrorKind.NO_SFTP
    assert await link.wait_lost() is reason


# --- plain TCP -----------------------------------------------------------------------------------


async def test_each_channel_of_directport_is_a_connection() -> None:
    with running_sftpd() as port:
        async with linked(config_with(directport=port, max_conns=3)) as link:
            assert isinstance(link, TcpLink)
            assert link.max_channels == 3
            assert await version_of(link) == VERSION_3
            recorder = Recorder()
            channel = await link.open_channel(recorder)
            channel.write([INIT])
            await recorder.at_least(9)
            assert link.acked_at() is not None


async def test_a_refused_directport_is_named() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        link = TcpLink(config_with(directport=unused.getsockname()[1]))
        with pytest.raises(ConnectError) as caught:
            await link.open_channel(Recorder())
    assert caught.value.kind is ConnectErrorKind.REFUSED


async def test_a_directport_that_hangs_up_is_named_and_the_link_is_lost() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with server:
        link = TcpLink(config_with(directport=server.sockets[0].getsockname()[1]))
        recorder = Recorder()
        await link.open_channel(recorder)
        reason = await recorder.reason()
        assert isinstance(reason, ConnectError)
        assert reason.kind is ConnectErrorKind.NO_SFTP
        assert await link.wait_lost() is reason
        await link.close()


async def test_abort_resets_the_connection_so_that_nothing_late_is_executed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        link = TcpLink(config_with(directport=listener.getsockname()[1]))
        loop = asyncio.get_running_loop()
        recorder = Recorder()
        channel = await link.open_channel(recorder)
        peer, _ = await loop.sock_accept(listener)
        channel.write([bytes(3_000_000)])
        link.abort()
        assert await recorder.reason() is None

        async def read_all() -> None:
            while await loop.sock_recv(peer, 1 << 20):
                pass

        with peer, pytest.raises(ConnectionResetError):
            await read_all()


async def test_an_address_that_is_silent_gives_way_to_the_next_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("netfs.client.remote.sockets._TRY_S", 0.05)
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as full:
        # A listener with a full queue drops SYNs: it is silent.
        full.bind(("127.0.0.2", listener.getsockname()[1]))
        full.listen(0)
        fillers = [socket.socket() for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        addresses = [
            (socket.AF_INET, socket.SOCK_STREAM, 0, "", full.getsockname()),
            (socket.AF_INET, socket.SOCK_STREAM, 0, "", listener.getsockname()),
        ]

        async def resolve(*_: object, **__: object) -> list[object]:
            return list(addresses)

        monkeypatch.setattr(loop, "getaddrinfo", resolve)
        async with asyncio.timeout(5):
            sock = await open_tcp("two-addresses", listener.getsockname()[1])
        assert sock.getpeername() == listener.getsockname()
        sock.close()
        for filler in fillers:
            filler.close()


def test_keepalive_words_of_ssh_config_count(tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_text("ServerAliveInterval 5\n")
    assert keepalive(config_with(config_file=str(file))) == (5.0, 3)
    assert keepalive(config_with(config_file="none", server_alive_interval_s=7)) == (7, 3)
    assert keepalive(config_with(config_file=str(file), ssh_command=("ssh",))) == (15.0, 3)
