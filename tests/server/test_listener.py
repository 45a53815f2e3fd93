"""``netfs serve --listen`` as OpenSSH's client sees it: logins, refusals, limits, signals."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import signal
import socket
import stat
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, cast

import asyncssh
import pytest

from netfs.sftp import requests
from netfs.sftp.attrs import Attrs
from netfs.sftp.connection import ClientConnection
from tests.harness.packages import require
from tests.harness.sshd import make_key
from tests.harness.waiting import wait_until
from tests.server.served import Served, command, environment, serving, write_client_config

pytestmark = pytest.mark.sshd


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "root"
    (path / "sub").mkdir(parents=True)
    (path / "file").write_text("content\n")
    return path


@pytest.fixture
def served(tmp_path: Path, root: Path) -> Iterator[Served]:
    with serving(tmp_path / "serve", root, "--max-failures=3", "--max-sessions-per-key=4") as one:
        yield one


def sftp(served: Served, *options: str, batch: str = "ls -1\n") -> subprocess.CompletedProcess[str]:
    argv = [require("sftp"), "-F", str(served.client_config), *options, "-b", "-", served.host]
    return subprocess.run(argv, input=batch, capture_output=True, text=True, timeout=30)


def ssh(served: Served, *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [require("ssh"), "-F", str(served.client_config), *arguments]
    return subprocess.run(
        argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30
    )


@contextlib.asynccontextmanager
async def connected(
    served: Served, **options: object
) -> AsyncIterator[asyncssh.SSHClientConnection]:
    values: dict[str, object] = {
        "username": "somebody", "client_keys": [str(served.user_key)], "config": None,
        "known_hosts": str(served.directory / "known_hosts"), "agent_path": None, **options,
    }  # fmt: skip
    async with asyncssh.connect("127.0.0.1", served.port, **values) as connection:
        yield connection


def test_a_key_lets_in_and_is_logged(served: Served) -> None:
    done = sftp(served)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["sftp>", "ls", "-1", "file", "sub"]
    served.wait_for(r"login connection=1 user='somebody' address=127.0.0.1 by='key SHA256:")
    served.wait_for(r"session-open session=1\.1 .* read_only=False")
    served.wait_for(r"session-end session=1\.1 requests=\d+")
    served.wait_for(r"logout connection=1")


def test_another_key_is_refused_logged_and_disconnected(served: Served, tmp_path: Path) -> None:
    keys = [make_key(tmp_path / f"other{number}") for number in range(5)]
    options = [word for key in keys for word in ("-o", f"IdentityFile={key}")]
    served.user_key.rename(tmp_path / "away")
    assert sftp(served, *options).returncode != 0
    served.wait_for(r"login-refused connection=1 .* failures=3")
    assert "failures=4" not in served.text()
    assert "login connection" not in served.text()


@pytest.mark.parametrize(
    "arguments",
    [
        ("served", "id"),
        ("served",),
        ("-tt", "served"),
        ("-s", "served", "netconf"),
        ("-W", "127.0.0.1:22", "served"),
        ("-o", "ExitOnForwardFailure=yes", "-N", "-R", "0:127.0.0.1:22", "served"),
    ],
)
def test_nothing_but_sftp_is_served(served: Served, arguments: tuple[str, ...]) -> None:
    done = ssh(served, *arguments)
    assert done.returncode != 0
    assert not done.stdout
    assert sftp(served).returncode == 0


async def test_forwarding_is_refused(served: Served) -> None:
    async with connected(served) as connection:
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.open_connection("127.0.0.1", 22)
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.open_unix_connection("/run/dbus/system_bus_socket")
        with pytest.raises(asyncssh.ChannelListenError):
            await connection.forward_remote_port("127.0.0.1", 0, "127.0.0.1", 22)


def test_the_host_key_is_made_once_and_private(tmp_path: Path, root: Path) -> None:
    with serving(tmp_path / "serve", root) as one:
        key = one.directory / "host_key"
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
        made = key.read_bytes()
    with serving(tmp_path / "serve", root) as again:
        assert key.read_bytes() == made
        assert sftp(again).returncode == 0
    key.chmod(0o644)
    with pytest.raises(RuntimeError, match="others may read"), serving(tmp_path / "serve", root):
        pass


@pytest.mark.parametrize(
    ("options", "allowed"),
    [
        ("restrict", True),
        ('from="127.0.0.1"', True),
        ('from="127.0.0.0/8,!127.0.0.1"', False),
        ('from="10.0.0.0/8"', False),
        ('command="internal-sftp"', False),
        ('expiry-time="20200101"', False),
        ('expiry-time="29990101"', True),
        ("some-new-option", False),
    ],
)
def test_options_of_a_key_are_honoured(
    tmp_path: Path, root: Path, options: str, allowed: bool
) -> None:
    with serving(tmp_path / "serve", root, key_options=options) as one:
        assert (sftp(one).returncode == 0) == allowed
        if "command" in options:
            one.wait_for(r"key-refused where='.*authorized_keys:1' reason=\"?'?command= cannot")


def test_a_key_has_a_root_of_its_own_and_reads_only(tmp_path: Path, root: Path) -> None:
    options = f'root="{root}/sub",read-only'
    (root / "sub" / "inner").touch()
    with serving(tmp_path / "serve", root, key_options=options) as one:
        done = sftp(one, batch="ls -1\nls -1 ..\n-rm inner\n-put /etc/hostname x\n")
        assert done.stdout.split("\n")[1] == "inner"
        assert "file" not in done.stdout.replace("hostname", "")
        assert (root / "sub" / "inner").exists()
        assert not (root / "sub" / "x").exists()
        assert "ermission denied" in done.stderr


def test_a_read_only_server(tmp_path: Path, root: Path) -> None:
    with serving(tmp_path / "serve", root, "--read-only") as one:
        done = sftp(one, batch=f"get file {tmp_path}/got\n-rm file\n-mkdir d\n-rename file x\n")
        assert (tmp_path / "got").read_text() == "content\n"
        assert done.stderr.count("ermission denied") == 3
        assert sorted(os.listdir(root)) == ["file", "sub"]


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    return make_key(tmp_path / "ca")


def certify(served: Served, authority: Path, *options: str, principals: str = "somebody") -> None:
    certificate = served.directory / "user_key-cert.pub"
    certificate.unlink(missing_ok=True)
    subprocess.run(
        [require("ssh-keygen"), "-q", "-s", str(authority), "-I", "test", "-n", principals,
         *options, str(served.user_key.with_suffix(".pub"))],
        check=True, timeout=20,
    )  # fmt: skip


def test_user_certificates(tmp_path: Path, root: Path, authority: Path) -> None:
    directory = tmp_path / "serve"
    directory.mkdir()
    (directory / "authorized_keys").write_text("# nobody\n")
    with serving(directory, root, "--user-ca", str(authority.with_suffix(".pub"))) as one:
        assert sftp(one).returncode != 0  # the bare key
        certify(one, authority)
        assert sftp(one).returncode == 0
        one.wait_for(r"login .* by='certificate by .*ca.pub:1'")
        certify(one, authority, principals="somebody-else")
        assert sftp(one).returncode != 0
        certify(one, authority, "-V", "20200101:20200102")
        assert sftp(one).returncode != 0
        certify(one, authority, "-O", "source-address=10.0.0.0/8")
        assert sftp(one).returncode != 0
        certify(one, make_key(tmp_path / "false-ca"))
        assert sftp(one).returncode != 0
        certify(one, authority, "-O", "force-command=/bin/sh")
        assert sftp(one).returncode != 0


def test_an_authority_in_authorized_keys_has_its_options(
    tmp_path: Path, root: Path, authority: Path
) -> None:
    directory = tmp_path / "serve"
    directory.mkdir()
    public = authority.with_suffix(".pub").read_text()
    (directory / "authorized_keys").write_text(
        f'from="10.0.0.0/8",cert-authority {public}'
        f'cert-authority,principals="staff",root="{root}/sub",read-only {public}'
    )
    with serving(directory, root) as one:
        certify(one, authority, principals="staff,guests")
        done = sftp(one, batch="-mkdir x\nls -1\n")
        assert done.returncode == 0
        assert "file" not in done.stdout
        assert "ermission denied" in done.stderr
        certify(one, authority, principals="guests")
        assert sftp(one).returncode != 0


async def test_passwords(tmp_path: Path, root: Path) -> None:
    hashed = subprocess.run(
        command("--hash-password"), input="right\n", capture_output=True, text=True,
        env=environment(), check=True, timeout=20,
    ).stdout  # fmt: skip
    (tmp_path / "passwords").write_text(f"somebody:{hashed}")
    with serving(tmp_path / "serve", root, "--passwords", str(tmp_path / "passwords")) as one:
        async with (
            connected(one, client_keys=None, password="right") as connection,
            connection.start_sftp_client() as client,
        ):
            assert "file" in await client.listdir(".")
        for name, password in (("somebody", "wrong"), ("nobody", "right"), ("nobody", "")):
            with pytest.raises(asyncssh.PermissionDenied):
                async with connected(one, client_keys=None, username=name, password=password):
                    pass
        assert "right" not in one.text()
        assert "wrong" not in one.text()


def test_hup_reloads_keys_and_a_bad_file_locks_nobody_out(served: Served, tmp_path: Path) -> None:
    lines = served.authorized_keys.read_text()
    served.authorized_keys.write_text("# nobody\n")
    served.reload()
    assert sftp(served).returncode != 0
    served.authorized_keys.write_text(lines)
    served.reload()
    assert sftp(served).returncode == 0
    served.authorized_keys.unlink()
    served.process.send_signal(signal.SIGHUP)
    served.wait_for("reload-failed")
    assert sftp(served).returncode == 0


async def test_term_finishes_what_is_in_flight(tmp_path: Path, root: Path) -> None:
    with serving(tmp_path / "serve", root) as one:
        async with connected(one) as connection, connection.start_sftp_client() as client:
            file = await client.open("big", "wb")
            writes = [asyncio.ensure_future(file.write(bytes(65536), n * 65536)) for n in range(64)]
            await writes[0]
            one.process.send_signal(signal.SIGTERM)
            results = await asyncio.gather(*writes, return_exceptions=True)
            answered = sum(not isinstance(result, BaseException) for result in results)
        assert await asyncio.to_thread(one.process.wait, 15) == 0
    # What was answered is on the disk.
    assert answered >= 1
    assert (root / "big").stat().st_size >= 65536
    assert "stopped" in one.text()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", one.port), 1)


async def test_sessions_per_key_are_limited(served: Served) -> None:
    async with connected(served) as connection:
        clients = [await connection.start_sftp_client() for _ in range(4)]
        with pytest.raises((asyncssh.ChannelOpenError, asyncssh.SFTPError)):
            await connection.start_sftp_client()
        clients[0].exit()
        await clients[0].wait_closed()
        await asyncio.to_thread(served.wait_for, "session-end")
        client = await connection.start_sftp_client()
        assert "file" in await client.listdir("/")
    assert sftp(served).returncode == 0


async def test_a_client_that_takes_no_packets_is_refused(served: Served) -> None:
    async with connected(served) as connection:
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.create_session(
                asyncssh.SSHClientSession, subsystem="sftp", max_pktsize=0, encoding=None
            )
    assert sftp(served).returncode == 0


async def test_a_client_that_reads_nothing_holds_only_so_much(tmp_path: Path, root: Path) -> None:
    (root / "big").write_bytes(bytes(8 << 20))
    with serving(tmp_path / "serve", root, "--stall-timeout=3") as one:
        async with connected(one) as connection:
            session = Silent()
            channel, _ = await connection.create_session(
                lambda: session, subsystem="sftp", encoding=None, window=1 << 30
            )
            before = one.rss()
            client: ClientConnection[Any] = ClientConnection()
            channel.write(client.hello())
            channel.write(
                b"".join(map(bytes, client.send(requests.Open(b"/big", 1, Attrs()), None)[1]))
            )
            await asyncio.wait_for(session.opened.wait(), 10)
            # From here on the client's TCP takes no byte more.
            cast(Any, connection)._transport.pause_reading()
            for at in range(3000):
                read = requests.Read(struct.pack(">Q", 1), (at % 32) << 18, 1 << 18)
                channel.write(b"".join(map(bytes, client.send(read, None)[1])))
            await asyncio.to_thread(one.wait_for, "client-stalled session=1.1", 20)
            assert one.rss() - before < 64 << 20
            await asyncio.to_thread(one.wait_for, "session-end session=1.1", 20)
            connection.abort()


class Silent(asyncssh.SSHClientSession[bytes]):
    """A client that asked to open a file and says when it has the handle."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()
        self.received = b""

    def data_received(self, data: bytes, datatype: int | None) -> None:
        self.received += data
        if struct.pack(">Q", 1) in self.received:
            self.opened.set()


async def test_handles_are_limited_and_freed(tmp_path: Path, root: Path) -> None:
    with serving(tmp_path / "serve", root, "--max-handles=5") as one:
        async with connected(one) as connection:
            before = one.descriptors()
            client = await connection.start_sftp_client()
            files = [await client.open("file") for _ in range(5)]
            with pytest.raises(asyncssh.SFTPFailure, match=r"5 handles are open.*\(EMFILE\)"):
                await client.open("file")
            assert files
        wait_until(lambda: one.descriptors() < before, 10, "descriptors closed")


def test_a_client_that_never_logs_in_is_disconnected(tmp_path: Path, root: Path) -> None:
    with serving(tmp_path / "serve", root, "--login-timeout=1", "--max-logins=3") as one:
        silent = [socket.create_connection(("127.0.0.1", one.port)) for _ in range(6)]
        started = time.monotonic()
        for sock in silent:
            sock.settimeout(10)
            with contextlib.suppress(ConnectionResetError):
                while sock.recv(10_000):
                    pass
            sock.close()
        assert time.monotonic() - started < 8
        one.wait_for("refused connection=. address=127.0.0.1 reason='too many connections'")
        assert sftp(one).returncode == 0


async def test_a_dead_client_is_noticed(tmp_path: Path, root: Path) -> None:
    with serving(tmp_path / "serve", root, "--keepalive=1") as one:
        script = (
            "import asyncio, asyncssh, sys\n"
            "async def main():\n"
            f"    c = await asyncssh.connect('127.0.0.1', {one.port}, username='u', config=None,\n"
            f"        client_keys=['{one.user_key}'], known_hosts=None, agent_path=None)\n"
            "    s = await c.start_sftp_client(); f = await s.open('file')\n"
            "    print('ready', flush=True); await asyncio.sleep(60)\n"
            "asyncio.run(main())\n"
        )
        client = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
        with client:
            assert client.stdout is not None
            assert await asyncio.to_thread(client.stdout.readline) == b"ready\n"
            client.send_signal(signal.SIGSTOP)
            await asyncio.to_thread(one.wait_for, "session-end session=1.1", 15)
            client.kill()


@pytest.mark.root
def test_user_is_dropped_to_after_binding(tmp_path: Path, root: Path) -> None:
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents:
        if parent == Path("/tmp") or parent == Path("/"):
            break
        parent.chmod(0o755)
    (root / "secret").write_text("root's")
    (root / "secret").chmod(0o600)
    (root / "sub").chmod(0o777)
    directory = tmp_path / "serve"
    directory.mkdir()
    with serving(directory, root, "--user=nobody", "--umask=027", "--log-requests") as one:
        text = Path(f"/proc/{one.process.pid}/status").read_text()
        uid = pwd.getpwnam("nobody").pw_uid
        assert f"Uid:\t{uid}\t{uid}\t{uid}\t{uid}" in text
        done = sftp(
            one, batch=f"-get secret {tmp_path}/got\nput {one.client_config} sub/new\nls -l sub\n"
        )
        assert "ermission denied" in done.stderr
        assert (root / "sub" / "new").stat().st_uid == uid
        assert stat.S_IMODE((root / "sub" / "new").stat().st_mode) == 0o640
        one.wait_for(r"request session=1\.1 id=\d+ type=Open path='/secret' pflags=1 .*EACCES")


def test_systemd_passes_sockets_and_hears_of_readiness(tmp_path: Path, root: Path) -> None:
    directory = tmp_path / "serve"
    directory.mkdir()
    key = make_key(directory / "user_key")
    (directory / "authorized_keys").write_text(key.with_suffix(".pub").read_text())
    with socket.socket() as listening, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        notices.bind(str(tmp_path / "notify"))
        notices.settimeout(20)
        script = f"""
import os, sys
os.dup2({listening.fileno()}, 3)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()), NOTIFY_SOCKET="{tmp_path}/notify")
sys.argv = ["netfs", "serve", "--root", "{root}", "--host-key", "{directory}/host_key",
            "--authorized-keys", "{directory}/authorized_keys"]
from netfs.cli.main import main
sys.exit(main())
"""
        with open(directory / "serve.log", "wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", script], stderr=log, env=environment(),
                pass_fds=(listening.fileno(),),
            )  # fmt: skip
        one = Served(directory, root, process, listening.getsockname()[1])
        try:
            assert notices.recv(1000) == b"READY=1"
            write_client_config(directory, one.port)
            assert sftp(one).returncode == 0
            process.send_signal(signal.SIGHUP)
            assert notices.recv(1000).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
            assert notices.recv(1000) == b"READY=1"
            process.send_signal(signal.SIGTERM)
            assert notices.recv(1000) == b"STOPPING=1"
            assert process.wait(10) == 0
        finally:
            one.stop()
