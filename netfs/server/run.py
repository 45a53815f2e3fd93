"""Puts a server together and runs it: sockets, privileges, signals, systemd.

The only place that knows the order of things: bind and read the host keys as root, then drop the
privileges, then open the export, then say that we are ready.
"""

from __future__ import annotations

import asyncio
import contextlib
import grp
import logging
import os
import pwd
import signal
import socket
import sys
import time
from typing import TYPE_CHECKING

from netfs import libraries, systemd
from netfs.server import handlers, stdio
from netfs.server.config import ServerConfig
from netfs.server.export import Export

if TYPE_CHECKING:
    import asyncssh

    from netfs.server.listener import Server

log = logging.getLogger(__name__)


class StartError(Exception):
    """The server cannot start; the text is one clear line."""


def serve(config: ServerConfig) -> int:
    """Serve until the client (--stdio) or SIGTERM ends it; the exit status.

    Raises:
        StartError: something of the configuration cannot be had.
    """
    if config.umask is not None:
        os.umask(config.umask)
    if config.stdio:
        return _serve_stdio(config)
    return _serve_sockets(config)


def _serve_stdio(config: ServerConfig) -> int:
    if config.user is not None:
        become(config.user)
    # Who is at the other end: sshd sets both for a subsystem.
    user = os.environ.get("USER", "")
    address = os.environ.get("SSH_CONNECTION", "").partition(" ")[0]
    client = handlers.Client(
        _open_export(config),
        max_handles=config.limits.max_handles,
        read_only=config.read_only,
        user=user,
        label=f"stdio-{os.getpid()}",
        log_requests=config.log_requests,
    )
    log.info(
        "session-open session=%s user=%r address=%s root=%r read_only=%s",
        client.label, user, address, client.export.path, config.read_only,
    )  # fmt: skip
    status = stdio.run(client)
    log.info("session-end session=%s", client.label)
    return status


def _serve_sockets(config: ServerConfig) -> int:
    # Here, because asyncssh takes a quarter of a second to import, which --stdio should not wait
    # for; and now, because who we become may not be allowed to read the libraries' files.
    import concurrent.futures.thread  # noqa: F401  (asyncio imports it when first used)
    import encodings.idna  # noqa: F401  (likewise)

    with libraries.found_in_loader_cache():
        from netfs.server import access, hostkeys, listener

    run = asyncio.run
    with contextlib.suppress(ImportError):
        import uvloop

        run = uvloop.run

    sockets = [socket.socket(fileno=fd) for fd in systemd.listen_fds()]
    if not sockets:
        sockets = [sock for address in config.listen for sock in _bind(*address)]
    try:
        keys = hostkeys.load_host_keys(config.host_keys)
    except (OSError, ValueError) as error:
        raise StartError(f"host key: {error}") from error
    if config.user is not None:
        become(config.user)
    export = _open_export(config)
    users = access.Access(config)
    try:
        users.load()
    except OSError as error:
        raise StartError(f"cannot read {error.filename}: {error.strerror}") from error
    server = listener.Server(config, users, export)
    run(_main(server, sockets, keys))
    return 0


async def _main(server: Server, sockets: list[socket.socket], keys: list[asyncssh.SSHKey]) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, _reload, server)
    await server.listen(sockets, keys)
    for sock in sockets:
        name = sock.getsockname()
        address, port = name[:2] if isinstance(name, tuple) else (name, 0)
        log.info("listening address=%r port=%d root=%r", address, port, server.config.root)
    systemd.notify("READY=1")
    await stop.wait()
    log.info("stopping sessions=%d", len(server.sessions))
    systemd.notify("STOPPING=1")
    await server.close()
    log.info("stopped")


def _reload(server: Server) -> None:
    """SIGHUP: the files of keys and passwords."""
    systemd.notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
    try:
        server.access.load()
    except OSError as error:
        log.error("reload-failed reason=%r", str(error))  # what was known stays in force
    systemd.notify("READY=1")


def _open_export(config: ServerConfig) -> Export:
    try:
        return Export(config.root, one_file_system=config.one_file_system)
    except OSError as error:
        raise StartError(f"cannot export {config.root}: {error.strerror}") from error


def _bind(host: str, port: int) -> list[socket.socket]:
    """Listening sockets for every address of *host* ("" for all)."""
    sockets: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        for family, kind, protocol, _, address in found:
            if not host and family == socket.AF_INET6 and not _has_ipv6():
                continue
            sock = socket.socket(family, kind, protocol)
            sockets.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(address)
            sock.listen(128)
    except OSError as error:
        for sock in sockets:
            sock.close()
        raise StartError(f"cannot listen on {host or '*'}:{port}: {error.strerror}") from error
    return sockets


def _has_ipv6() -> bool:
    """Whether this machine has IPv6 switched on: "all addresses" should not fail without it."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def become(user: str) -> None:
    """Give up root for ``USER[:GROUP]``, for good and with the user's groups.

    Raises:
        StartError: no such user, or no right to.
    """
    name, _, group = user.partition(":")
    try:
        entry = pwd.getpwnam(name)
        gid = grp.getgrnam(group).gr_gid if group else entry.pw_gid
    except KeyError as error:
        raise StartError(f"--user {user}: {error.args[0]}") from None
    if os.geteuid() == entry.pw_uid and not group:
        return
    try:
        os.initgroups(name, gid)
        os.setresgid(gid, gid, gid)
        os.setresuid(entry.pw_uid, entry.pw_uid, entry.pw_uid)
    except PermissionError as error:
        raise StartError(f"--user {user}: only root can change its user") from error
    os.environ["HOME"] = entry.pw_dir
    sys.stdout.flush()
    log.info("became user=%r uid=%d gid=%d", name, entry.pw_uid, gid)
