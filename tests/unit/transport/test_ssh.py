"""Logging in to a real OpenSSH server: keys, certificates, host keys, hops, and what goes wrong."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from netfs.client.config import SshConfig
from netfs.client.remote.channel import ProbedLink
from netfs.client.remote.errors import ConnectError, ConnectErrorKind
from netfs.client.remote.prompt import Purpose
from tests.harness.sshd import Sshd, make_key, running_sshd
from tests.unit.transport.support import (
    INIT,
    VERSION_3,
    Recorder,
    Script,
    base_words,
    config_for,
    linked,
    version_of,
)

pytestmark = [pytest.mark.sshd, pytest.mark.timeout(60)]

Words = dict[str, str | Sequence[str]]


@pytest.fixture
def words(sshd: Sshd) -> Words:
    return base_words(sshd.directory)


async def failure(port: int, words: Words, prompter: Script | None = None) -> ConnectError:
    """The error that connecting ends with."""
    with pytest.raises(ConnectError) as caught:
        async with linked(config_for(port, words), prompter):
            pass
    assert "\n" not in str(caught.value)
    return caught.value


async def test_a_key_file_logs_in_and_the_server_speaks_sftp(sshd: Sshd, words: Words) -> None:
    async with linked(config_for(sshd.port, words)) as link:
        assert await version_of(link) == VERSION_3
        assert isinstance(link, ProbedLink)
        await link.probe()
        assert link.acked_at() is not None


async def test_several_channels_run_over_one_connection(sshd: Sshd, words: Words) -> None:
    async with linked(config_for(sshd.port, words)) as link:
        versions = await asyncio.gather(*(version_of(link) for _ in range(5)))
    assert versions == [VERSION_3] * 5


async def test_a_program_is_run_when_sftp_server_is_a_path(sshd: Sshd, words: Words) -> None:
    keywords = config_for(None, words).ssh.keywords
    ssh = SshConfig(
        config_file="none", keywords=keywords, sftp_server="/usr/lib/openssh/sftp-server"
    )
    async with linked(config_for(sshd.port, ssh=ssh)) as link:
        assert await version_of(link) == VERSION_3


async def test_a_missing_sftp_program_is_named_with_what_the_server_said(
    sshd: Sshd, words: Words
) -> None:
    keywords = config_for(None, words).ssh.keywords
    ssh = SshConfig(config_file="none", keywords=keywords, sftp_server="/no/such/server")
    async with linked(config_for(sshd.port, ssh=ssh)) as link:
        recorder = Recorder()
        channel = await link.open_channel(recorder)
        channel.write([INIT])
        reason = await recorder.reason()
    assert isinstance(reason, ConnectError)
    assert reason.kind is ConnectErrorKind.NO_SFTP
    assert "127" in str(reason)
    assert "/no/such/server" in str(reason)


async def test_a_server_without_sftp_subsystem_is_named(sshd: Sshd, words: Words) -> None:
    keywords = config_for(None, words).ssh.keywords
    ssh = SshConfig(config_file="none", keywords=keywords, sftp_server="nosuch")
    async with linked(config_for(sshd.port, ssh=ssh)) as link:
        with pytest.raises(ConnectError) as caught:
            await link.open_channel(Recorder())
    assert caught.value.kind is ConnectErrorKind.NO_SFTP


async def test_a_login_script_that_prints_is_named_with_its_text(
    tmp_path: Path, sshd: Sshd
) -> None:
    with running_sshd(tmp_path / "s", subsystem="/bin/echo Welcome to this host") as noisy:
        words = base_words(noisy.directory)
        async with linked(config_for(noisy.port, words)) as link:
            recorder = Recorder()
            channel = await link.open_channel(recorder)
            channel.write([INIT])
            reason = await recorder.reason()
    assert isinstance(reason, ConnectError)
    assert reason.kind is ConnectErrorKind.NO_SFTP
    assert "Welcome to this host" in str(reason)
    assert not recorder.data


async def test_ssh_config_names_host_port_user_and_key(
    sshd: Sshd, words: Words, tmp_path: Path
) -> None:
    file = tmp_path / "config"
    lines = [f"  {word} {value}" for word, value in words.items()]
    file.write_text(
        f"Host work\n  HostName 127.0.0.1\n  Port {sshd.port}\n  User {sshd.user}\n"
        + "\n".join(lines)
        + "\nHost *\n  Port 1\n"
    )
    ssh = SshConfig(config_file=str(file))
    async with linked(config_for(None, host="work", ssh=ssh)) as link:
        assert await version_of(link) == VERSION_3


@pytest.mark.parametrize(
    "more",
    [
        {"Ciphers": "aes256-ctr"},
        {"Ciphers": "chacha20-poly1305@openssh.com"},
        {"Ciphers": "^aes256-gcm@openssh.com"},
        {"MACs": "hmac-sha2-256", "Ciphers": "aes128-ctr"},
        {"Compression": "yes"},
        {"KexAlgorithms": "ecdh-sha2-nistp256"},
        {"AddressFamily": "inet", "BindAddress": "127.0.0.1", "TCPKeepAlive": "no"},
        {"LogLevel": "quiet", "ServerAliveInterval": "1m", "RekeyLimit": "1G 1h"},
        {"PubkeyAcceptedAlgorithms": "ssh-ed25519"},
        {"SetEnv": "LANG=C", "SendEnv": "LC_*"},
    ],
)
async def test_ssh_words_are_honoured(sshd: Sshd, words: Words, more: Words) -> None:
    async with linked(config_for(sshd.port, {**words, **more})) as link:
        assert await version_of(link) == VERSION_3
        for cipher in [v for k, v in more.items() if k == "Ciphers"]:
            assert str(cipher).lstrip("^") in repr(link)
        agreed = link._connection.get_extra_info
        assert agreed("send_compression") == agreed("recv_compression")
        assert agreed("send_compression") == (
            "zlib@openssh.com" if "Compression" in more else "none"
        )
        if "MACs" in more:
            assert agreed("send_mac") == more["MACs"]


async def test_no_cipher_in_common_is_named(tmp_path: Path) -> None:
    with running_sshd(tmp_path / "s", extra=["Ciphers aes128-ctr"]) as server:
        words = base_words(server.directory)
        error = await failure(server.port, {**words, "Ciphers": "aes256-gcm@openssh.com"})
    assert error.kind is ConnectErrorKind.NO_ALGORITHM
    assert "encryption: here aes256-gcm@openssh.com, there aes128-ctr" in str(error)


async def test_no_algorithm_in_common_is_named_though_the_server_hangs_up_first(
    words: Words,
) -> None:
    offer = bytes([20]) + bytes(16)
    for one in (b"curve25519-sha256", b"ssh-ed25519", b"x", b"y", b"", b"", b"none", b"none"):
        offer += len(one).to_bytes(4, "big") + one
    offer += bytes(4 + 4 + 1 + 4)
    padding = 16 - (5 + len(offer)) % 8
    packet = (1 + len(offer) + padding).to_bytes(4, "big") + bytes([padding]) + offer

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"SSH-2.0-x\r\n" + packet + bytes(padding))
        await reader.readexactly(100)
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with server:
        error = await failure(server.sockets[0].getsockname()[1], words)
    assert error.kind is ConnectErrorKind.NO_ALGORITHM
    assert "there x" in str(error)


# --- who are you ---------------------------------------------------------------------------------


async def test_a_wrong_key_is_denied_and_the_line_names_what_was_tried(
    sshd: Sshd, words: Words, tmp_path: Path
) -> None:
    other = make_key(tmp_path / "other")
    error = await failure(sshd.port, {**words, "IdentityFile": str(other)})
    assert error.kind is ConnectErrorKind.AUTH_FAILED
    assert str(other) in str(error)
    assert "publickey" in str(error)


async def test_a_missing_key_file_is_named(sshd: Sshd, words: Words) -> None:
    error = await failure(sshd.port, {**words, "IdentityFile": "/no/such/key"})
    assert error.kind is ConnectErrorKind.KEY_UNREADABLE
    assert "/no/such/key: no such file" in str(error)


async def test_a_key_that_others_may_read_is_not_used(
    sshd: Sshd, words: Words, tmp_path: Path
) -> None:
    open_key = tmp_path / "open"
    shutil.copy(sshd.user_key, open_key)
    open_key.chmod(0o644)
    error = await failure(sshd.port, {**words, "IdentityFile": str(open_key)})
    assert error.kind is ConnectErrorKind.KEY_UNREADABLE
    assert "chmod 600" in str(error)


def encrypt(key: Path, to: Path, passphrase: str = "secret", *, pem: bool = False) -> Path:
    shutil.copy(key, to)
    to.chmod(0o600)
    form = ["-m", "PEM"] if pem else []
    command = ["ssh-keygen", "-q", "-p", "-a", "1", *form, "-N", passphrase, "-f", str(to)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return to


async def test_a_passphrase_is_asked_until_it_is_right(
    sshd: Sshd, words: Words, tmp_path: Path
) -> None:
    key = encrypt(sshd.user_key, tmp_path / "k")
    prompter = Script("wrong", "secret")
    async with linked(config_for(sshd.port, {**words, "IdentityFile": str(key)}), prompter):
        pass
    assert prompter.asked == [(Purpose.PASSPHRASE, f"Enter passphrase for key '{key}': ")] * 2


async def test_no_passphrase_is_asked_for_a_key_that_the_server_does_not_want(
    sshd: Sshd, words: Words, tmp_path: Path
) -> None:
    unwanted = encrypt(make_key(tmp_path / "u"), tmp_path / "unwanted")
    prompter = Script("secret")
    files = (str(unwanted), str(sshd.user_key))
    async with linked(config_for(sshd.port, {**words, "IdentityFile": files}), prompter):
        pass
    assert prompter.asked == []


async def test_without_anybody_to_ask_an_encrypted_key_is_named(
    sshd: Sshd, words: Words, tmp_path: Path
) -> None:
    key = encrypt(sshd.user_key, tmp_path / "k")
    error = await failure(sshd.port, {**words, "IdentityFile": str(key), "BatchMode": "yes"})
    assert error.kind in (ConnectErrorKind.AUTH_FAILED, ConnectErrorKind.KEY_UNREADABLE)
    assert "its passphrase is needed" in str(error)


@pytest.fixture
def agent(tmp_path: Path, sshd: Sshd) -> Iterator[str]:
    """An agent's socket; it holds two keys, the second of which is the right one."""
    path = str(tmp_path / "agent")
    process = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL)
    try:
        wrong = make_key(tmp_path / "wrong")
        while not os.path.exists(path):
            assert process.poll() is None
        for key in (wrong, sshd.user_key):
            subprocess.run(
                ["ssh-add", "-q", str(key)], check=True, env={**os.environ, "SSH_AUTH_SOCK": path}
            )
        yield path
    finally:
        process.terminate()
        process.wait(5)


async def test_the_agents_keys_are_used(sshd: Sshd, words: Words, agent: str) -> None:
    del words["IdentityFile"]
    async with linked(config_for(sshd.port, {**words, "IdentityAgent": agent})):
        pass


async def test_with_identities_only_the_agent_signs_for_named_keys_alone(
    sshd: Sshd, words: Words, agent: str, tmp_path: Path
) -> None:
    public = tmp_path / "named.pub"
    shutil.copy(sshd.user_key.with_suffix(".pub"), public)
    only: Words = {**words, "IdentityAgent": agent, "IdentitiesOnly": "yes"}
    async with linked(config_for(sshd.port, {**only, "IdentityFile": str(public)})):
        pass
    error = await failure(sshd.port, {**only, "IdentityFile": str(tmp_path / "wrong.pub")})
    assert error.kind is ConnectErrorKind.AUTH_FAILED


async def test_a_dead_agent_is_an_agent_without_keys(sshd: Sshd, words: Words) -> None:
    async with linked(config_for(sshd.port, {**words, "IdentityAgent": "/no/such/socket"})):
        pass


async def test_a_user_certificate_logs_in(tmp_path: Path) -> None:
    ca = make_key(tmp_path / "ca")
    key = make_key(tmp_path / "certified")
    extra = [f"TrustedUserCAKeys {ca}.pub"]
    with running_sshd(tmp_path / "s", extra=extra) as server:
        sign = ["ssh-keygen", "-q", "-s", str(ca), "-I", "test", "-n", server.user, f"{key}.pub"]
        subprocess.run(sign, check=True)
        words = {**base_words(server.directory), "IdentityFile": str(key)}
        async with linked(config_for(server.port, words)) as link:
            assert await version_of(link) == VERSION_3
        elsewhere = tmp_path / "elsewhere.pub"
        os.rename(f"{key}-cert.pub", elsewhere)
        assert (await failure(server.port, words)).kind is ConnectErrorKind.AUTH_FAILED
        async with linked(config_for(server.port, {**words, "CertificateFile": str(elsewhere)})):
            pass


# --- who is the server ---------------------------------------------------------------------------


async def test_an_unknown_host_key_is_refused_when_nobody_can_be_asked(
    sshd: Sshd, words: Words, tmp_path: Path
) -> None:
    known = tmp_path / "known"
    for strict in ("yes", "ask"):
        unknown: Words = {
            **words,
            "UserKnownHostsFile": str(known),
            "StrictHostKeyChecking": strict,
        }
        error = await failure(sshd.port, unknown)
        assert error.kind is ConnectErrorKind.HOST_KEY_UNKNOWN
        assert "SHA256:" in str(error)
    assert not known.exists()


async def test_a_host_key_is_kept_after_a_yes_and_not_after_a_no(
    sshd: Sshd, words: Words, tmp_path: Path
) -> None:
    known = tmp_path / "dir" / "known"
    ask: Words = {**words, "UserKnownHostsFile": str(known), "StrictHostKeyChecking": "ask"}
    refusing = Script("no")
    assert (await failure(sshd.port, ask, refusing)).kind is ConnectErrorKind.HOST_KEY_UNKNOWN
    assert not known.exists()
    purpose, text = refusing.asked[0]
    listed = subprocess.run(
        ["ssh-keygen", "-lf", str(sshd.host_key)], capture_output=True, text=True, check=True
    )
    fingerprint = listed.stdout.split()[1]
    assert purpose is Purpose.CONFIRM
    assert f"ED25519 key fingerprint is {fingerprint}." in text
    assert f"'[127.0.0.1]:{sshd.port}'" in text
    async with linked(config_for(sshd.port, ask), Script(fingerprint)):
        pass
    assert known.stat().st_mode & 0o777 == 0o600
    assert known.parent.stat().st_mode & 0o777 == 0o700
    async with linked(config_for(sshd.port, {**ask, "StrictHostKeyChecking": "yes"})):
        pass


@pytest.mark.parametrize("hashed", ["yes", "no"])
async def test_accept_new_keeps_the_key_and_refuses_another_one_later(
    sshd: Sshd, words: Words, tmp_path: Path, hashed: str
) -> None:
    known = tmp_path / "known"
    known.write_text("# mine\n127.0.0.9 no-newline")
    take: Words = {
        **words,
        "UserKnownHostsFile": str(known),
        "StrictHostKeyChecking": "accept-new",
        "HashKnownHosts": hashed,
    }
    async with linked(config_for(sshd.port, take)):
        pass
    line = known.read_text().splitlines()[2]
    assert line.startswith("|1|" if hashed == "yes" else f"[127.0.0.1]:{sshd.port} ssh-ed25519 ")
    find = ["ssh-keygen", "-F", f"[127.0.0.1]:{sshd.port}", "-f", str(known)]
    assert subprocess.run(find, capture_output=True, check=False).returncode == 0
    other = make_key(tmp_path / "other").with_suffix(".pub").read_text().split()
    known.write_text(f"# mine\n[127.0.0.1]:{sshd.port} {other[0]} {other[1]}\n")
    error = await failure(sshd.port, take)
    assert error.kind is ConnectErrorKind.HOST_KEY_CHANGED
    assert f"{known}:2" in str(error)
    assert "ssh-keygen -f" in str(error)


async def test_dev_null_takes_any_key_with_no_and_keeps_none(sshd: Sshd, words: Words) -> None:
    careless: Words = {
        **words,
        "UserKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": "no",
    }
    async with linked(config_for(sshd.port, careless)):
        pass


async def test_a_revoked_host_key_is_refused(sshd: Sshd, words: Words, tmp_path: Path) -> None:
    public = sshd.host_key.with_suffix(".pub").read_text()
    known = tmp_path / "known"
    known.write_text(sshd.known_hosts.read_text() + f"@revoked * {public}")
    error = await failure(sshd.port, {**words, "UserKnownHostsFile": str(known)})
    assert error.kind is ConnectErrorKind.HOST_KEY_REVOKED
    revoked = tmp_path / "revoked"
    revoked.write_text(public)
    error = await failure(sshd.port, {**words, "RevokedHostKeys": str(revoked)})
    assert error.kind is ConnectErrorKind.HOST_KEY_REVOKED


async def test_a_host_certificate_is_trusted_by_its_authority(tmp_path: Path) -> None:
    directory = tmp_path / "s"
    directory.mkdir()
    ca = make_key(tmp_path / "ca")
    key = make_key(directory / "host_key")
    sign = ["ssh-keygen", "-q", "-s", str(ca), "-h", "-I", "t", "-n", "127.0.0.1", f"{key}.pub"]
    subprocess.run(sign, check=True)
    extra = [f"HostCertificate {key}-cert.pub"]
    with running_sshd(directory, extra=extra) as server:
        known = tmp_path / "known"
        authority = ca.with_suffix(".pub").read_text()
        known.write_text(f"@cert-authority [127.0.0.1]:{server.port} {authority}")
        words = {**base_words(directory), "UserKnownHostsFile": str(known)}
        async with linked(config_for(server.port, words)):
            pass
        known.write_text(f"@cert-authority other.example {authority}")
        error = await failure(server.port, words)
        assert error.kind is ConnectErrorKind.HOST_KEY_UNKNOWN


async def test_a_host_key_alias_is_looked_up_instead_of_the_host(
    sshd: Sshd, words: Words, tmp_path: Path
) -> None:
    known = tmp_path / "known"
    known.write_text(f"storage {sshd.host_key.with_suffix('.pub').read_text()}")
    aliased: Words = {**words, "UserKnownHostsFile": str(known), "HostKeyAlias": "storage"}
    async with linked(config_for(sshd.port, aliased)):
        pass


# --- the way there -------------------------------------------------------------------------------


async def test_a_refused_port_is_named(words: Words) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        error = await failure(unused.getsockname()[1], words)
    assert error.kind is ConnectErrorKind.REFUSED


async def test_an_unknown_host_is_named() -> None:
    with pytest.raises(ConnectError) as caught:
        async with linked(config_for(22, {}, host="no-such-host.invalid")):
            pass
    assert caught.value.kind is ConnectErrorKind.HOST_UNKNOWN


async def test_a_server_that_says_nothing_times_out(words: Words) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        error = await failure(silent.getsockname()[1], {**words, "ConnectTimeout": "1"})
    assert error.kind is ConnectErrorKind.TIMED_OUT
    assert "ConnectTimeout" in str(error)


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"HTTP/1.1 400 Bad Request\r\nServer: x\r\n\r\n",
        b"SSH-1.5-old\r\n",
        b"SSH-2.0-x\r\n" + b"\xff" * 4096,
        b"x" * 100_000,
    ],
)
async def test_what_is_no_ssh_server_is_named(words: Words, said: bytes) -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(babble, "127.0.0.1", 0)
    async with server:
        error = await failure(server.sockets[0].getsockname()[1], words)
    assert error.kind in (ConnectErrorKind.PROTOCOL, ConnectErrorKind.LOST)


async def test_a_jump_host_carries_the_connection(sshd: Sshd, words: Words, tmp_path: Path) -> None:
    file = tmp_path / "config"
    lines = [f"  {word} {value}" for word, value in words.items()]
    file.write_text(
        f"Host inner\n  HostName 127.0.0.1\n  Port {sshd.port}\n  ProxyJump outer\n"
        f"Host outer\n  HostName 127.0.0.1\n  Port {sshd.port}\n"
        "Host *\n" + "\n".join(lines) + "\n"
    )
    ssh = SshConfig(config_file=str(file))
    async with linked(config_for(None, host="inner", ssh=ssh)) as link:
        assert await version_of(link) == VERSION_3


async def test_a_jump_host_that_fails_is_named(sshd: Sshd, words: Words) -> None:
    error = await failure(sshd.port, {**words, "ProxyJump": "nobody@127.0.0.1:1"})
    assert error.kind is ConnectErrorKind.REFUSED
    assert "ProxyJump nobody@127.0.0.1:1" in str(error)


async def test_a_proxy_command_carries_the_connection_and_is_reaped(
    sshd: Sshd, words: Words, tmp_path: Path
) -> None:
    pid_file = tmp_path / "pid"
    command = f"sh -c 'echo $$ > {pid_file}; exec ssh -F {sshd.client_config} -p %p -W %h:%p %h'"
    async with linked(config_for(sshd.port, {**words, "ProxyCommand": command})) as link:
        assert await version_of(link) == VERSION_3
        pid = int(pid_file.read_text())
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_proxy_command_that_fails_is_named(words: Words) -> None:
    error = await failure(22, {**words, "ProxyCommand": "exit 3"})
    assert error.kind is ConnectErrorKind.PROXY_FAILED
    assert "exit 3" in str(error)


# --- the end -------------------------------------------------------------------------------------


async def test_a_killed_server_process_is_a_lost_channel_and_a_lost_link(own_sshd: Sshd) -> None:
    config = config_for(own_sshd.port, base_words(own_sshd.directory))
    async with linked(config) as link:
        recorder = Recorder()
        channel = await link.open_channel(recorder)
        channel.write([INIT])
        await recorder.at_least(9)
        own_sshd.kill_sessions()
        reason = await recorder.reason()
        async with asyncio.timeout(10):
            lost = await link.wait_lost()
        channel.write([b"dropped"])
        assert isinstance(link, ProbedLink)
        with pytest.raises(ConnectError):
            await link.probe()
        with pytest.raises(ConnectError):
            await link.open_channel(Recorder())
    for error in (reason, lost):
        assert isinstance(error, ConnectError)
        assert error.kind is ConnectErrorKind.LOST


async def test_abort_ends_channels_at_once(sshd: Sshd, words: Words) -> None:
    async with linked(config_for(sshd.port, words)) as link:
        recorder = Recorder()
        channel = await link.open_channel(recorder)
        channel.write([INIT])
        await recorder.at_least(9)
        link.abort()
        await recorder.reason()


async def test_a_full_channel_pauses_its_writer_until_it_drains(own_sshd: Sshd) -> None:
    config = config_for(own_sshd.port, base_words(own_sshd.directory))
    async with linked(config) as link:
        recorder = Recorder()
        channel = await link.open_channel(recorder)
        channel.write([INIT])
        await recorder.at_least(9)
        own_sshd.pause()
        # WRITEs to a handle that does not exist: type 6, id, handle, offset, data
        body = bytes([6]) + bytes(4) + bytes(4) + bytes(8) + (200_000).to_bytes(4, "big")
        packet = [(len(body) + 200_000).to_bytes(4, "big"), body, bytes(200_000)]
        for _ in range(60):
            channel.write(packet)
        assert recorder.paused == 1
        assert channel.write_buffer_size() > 0
        own_sshd.resume()
        async with asyncio.timeout(30):
            await recorder.resumed.wait()
        channel.abort()


async def test_cancelling_a_connection_attempt_leaves_nothing(words: Words) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        task = asyncio.ensure_future(failure(silent.getsockname()[1], words))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
