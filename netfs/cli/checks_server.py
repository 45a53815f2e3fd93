"""What ``netfs doctor SOURCE`` looks at on the way to a server and there."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import time
from collections.abc import AsyncIterator, Iterator
from typing import Final

from netfs.cli import checks
from netfs.cli.checks import Finding, Level
from netfs.client.config import Config
from netfs.client.remote import hostkeys
from netfs.client.remote.errors import ConnectError, ConnectErrorKind
from netfs.client.remote.prompt import choose_prompter
from netfs.client.remote.session import Session
from netfs.client.remote.sshconfig import settings_for, unsupported_keywords
from netfs.client.remote.sshsettings import Settings
from netfs.client.remote.transport import connect
from netfs.sftp import extensions as ext

_SESSION_TIMEOUT_S: Final = 20.0
_SLOW_S: Final = 0.15
_ROUNDS: Final = 5

_USE: Final = {
    ext.POSIX_RENAME: "renaming over an existing file is atomic",
    ext.STATVFS: "df is true",
    ext.HARDLINK: "hard links",
    ext.FSYNC: "fsync reaches the server's disk",
    ext.LSETSTAT: "times of symlinks can be set",
    ext.LIMITS: "large requests",
    ext.COPY_DATA: "copying inside the server",
}

_ADVICE: Final = {
    ConnectErrorKind.HOST_UNKNOWN: "check the name; is there a Host block in ssh_config?",
    ConnectErrorKind.REFUSED: "is sshd running there, and on this port (-p)?",
    ConnectErrorKind.UNREACHABLE: "check the network, the route, a VPN",
    ConnectErrorKind.TIMED_OUT: "is a firewall in between? try ssh -v",
    ConnectErrorKind.HOST_KEY_UNKNOWN: "connect once with ssh and compare the fingerprint",
    ConnectErrorKind.HOST_KEY_CHANGED: "find out why; then ssh-keygen -R HOST",
    ConnectErrorKind.HOST_KEY_REVOKED: "do not connect; ask who runs the server",
    ConnectErrorKind.AUTH_FAILED: "is the public key in authorized_keys there? try ssh -v",
    ConnectErrorKind.KEY_UNREADABLE: "check the key file's path, owner and mode",
    ConnectErrorKind.NO_SFTP: "enable 'Subsystem sftp' in sshd_config, or use -o sftp_server=",
    ConnectErrorKind.PROTOCOL: "is this an SSH server's port?",
    ConnectErrorKind.PROXY_FAILED: "try the ProxyJump or ProxyCommand by hand",
    ConnectErrorKind.LOST: "look into the server's log",
    ConnectErrorKind.NO_ALGORITHM: "update the older end, or allow an algorithm both have",
    ConnectErrorKind.BAD_CONFIG: "correct ssh_config or the option",
}


async def server(config: Config) -> AsyncIterator[Finding]:
    """Everything about the server of *config*, in the order of connecting."""
    ssh = config.ssh
    if not (ssh.ssh_command or ssh.directport or ssh.vsock or ssh.passive):
        try:
            settings = settings_for(
                ssh, config.source.host, user=config.source.user, port=config.source.port
            )
        except ConnectError as error:
            yield _failed("ssh_config", error)
            return
        for finding in _local(config, settings):
            yield finding
        if not settings.proxy_jump and settings.proxy_command is None:
            finding, may_go_on = await asyncio.to_thread(_reach, settings)
            yield finding
            if not may_go_on:
                return
    try:
        async with asyncio.timeout(_SESSION_TIMEOUT_S):
            link = await connect(config, choose_prompter(os.environ))
            session = Session(config, lambda: connect(config, choose_prompter(os.environ)))
            await session.start(link)
    except ConnectError as error:
        yield _failed("connection", error)
        return
    except TimeoutError:
        yield Finding(Level.BAD, "connection", "no answer within 20 s", "try ssh -v")
        return
    try:
        yield Finding(Level.OK, "connection", "authenticated, SFTP answers")
        yield _limits(session)
        yield _extensions(session)
        yield await _round_trip(session)
        yield await _directory(config, session)
    finally:
        await session.end()


def _failed(subject: str, error: ConnectError) -> Finding:
    return Finding(Level.BAD, subject, str(error), _ADVICE[error.kind])


def _local(config: Config, settings: Settings) -> Iterator[Finding]:
    if words := unsupported_keywords(config):
        yield Finding(
            Level.NOTE,
            "ssh_config",
            f"ignored by the built-in SSH: {', '.join(words)}",
            "-o ssh_command=ssh hands them to the system's ssh",
        )
    keys = [
        finding
        for path in settings.identity_files
        if (finding := checks.key_file(path, is_named=settings.identity_named)) is not None
    ]
    yield from keys
    found_agent = checks.agent(settings.agent)
    yield found_agent
    if not any(one.level is Level.OK for one in (*keys, found_agent)):
        yield Finding(
            Level.NOTE, "keys", "no key can be offered; a password will be asked", "ssh-keygen"
        )
    yield _known(settings)


def _known(settings: Settings) -> Finding:
    name = hostkeys.host_name(settings.host_key_alias or settings.host, settings.port)
    files = [*settings.known_hosts, *settings.global_known_hosts]
    for path in settings.known_hosts:
        try:
            mode = os.stat(path).st_mode
        except OSError:
            continue  # one that does not exist yet
        if mode & 0o022:
            return Finding(
                Level.BAD,
                "known_hosts",
                f"{path} can be written by others (mode {mode & 0o777:04o})",
                f"chmod go-w {path}",
            )
    try:
        known = hostkeys.look_up(files, settings.host, settings.port, alias=settings.host_key_alias)
    except OSError as error:
        return Finding(
            Level.BAD, "known_hosts", f"{error.filename}: {error.strerror}", "check owner and mode"
        )
    if not known.known_types() and not known.authorities():
        return Finding(
            Level.NOTE,
            "known_hosts",
            f"{name} is in none of {', '.join(files)}",
            "connect once with ssh and compare the fingerprint",
        )
    return Finding(Level.OK, "known_hosts", f"{name} is known")


def _reach(settings: Settings) -> tuple[Finding, bool]:
    """Name, route and port, before SSH is spoken."""
    place = f"{settings.host} port {settings.port}"
    try:
        began = time.monotonic()
        sock = socket.create_connection(
            (settings.host, settings.port), timeout=settings.connect_timeout_s or 10
        )
    except socket.gaierror as error:
        return (
            Finding(
                Level.BAD,
                "host name",
                f"{settings.host}: {error.strerror}",
                _ADVICE[ConnectErrorKind.HOST_UNKNOWN],
            ),
            False,
        )
    except TimeoutError:
        return (
            Finding(
                Level.BAD,
                "reachability",
                f"{place} does not answer",
                _ADVICE[ConnectErrorKind.TIMED_OUT],
            ),
            False,
        )
    except OSError as error:
        return (
            Finding(
                Level.BAD,
                "reachability",
                f"{place}: {error.strerror or error}",
                _ADVICE[ConnectErrorKind.REFUSED],
            ),
            False,
        )
    sock.close()
    took_ms = (time.monotonic() - began) * 1e3
    return Finding(Level.OK, "reachability", f"{place} answers after {took_ms:.1f} ms"), True


def _limits(session: Session) -> Finding:
    limits = session.limits
    text = f"reads of {limits.max_read >> 10} KiB, writes of {limits.max_write >> 10} KiB"
    if limits.max_handles:
        text += f", {limits.max_handles} open files"
    return Finding(Level.OK, "SFTP limits", text)


def _extensions(session: Session) -> Finding:
    missing = [
        f"{name.decode()} ({use})" for name, use in _USE.items() if name not in session.extensions
    ]
    if not missing:
        own = ", and netfs's own" if session.has_extended_attrs else ""
        return Finding(Level.OK, "SFTP extensions", f"all that matter{own}")
    return Finding(
        Level.NOTE,
        "SFTP extensions",
        f"missing: {'; '.join(missing)}",
        "a newer OpenSSH, or 'netfs serve', has them",
    )


async def _round_trip(session: Session) -> Finding:
    times = []
    for _ in range(_ROUNDS):
        began = time.monotonic()
        await session.realpath(b".")
        times.append(time.monotonic() - began)
    best_s = min(times)
    level = Level.OK if best_s < _SLOW_S else Level.NOTE
    return Finding(level, "round trip", f"{best_s * 1e3:.1f} ms")


async def _directory(config: Config, session: Session) -> Finding:
    path = config.source.path or b"."
    shown = os.fsdecode(path)
    try:
        attrs = await session.stat(await session.realpath(path))
    except OSError as error:
        return Finding(
            Level.BAD, "remote directory", f"{shown}: {error.strerror}", "check the path after ':'"
        )
    if attrs.mode is not None and not stat.S_ISDIR(attrs.mode):
        return Finding(
            Level.BAD, "remote directory", f"{shown} is not a directory", "name a directory"
        )
    return Finding(Level.OK, "remote directory", shown)
