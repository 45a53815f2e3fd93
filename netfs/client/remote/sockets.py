"""Getting a connected socket to a server: TCP with every address tried, vsock, or a proxy command.

Turns what the operating system says into ConnectError.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import struct
import subprocess
import time
from collections.abc import Sequence
from typing import Any, Final

from netfs.client.remote.errors import ConnectError, ConnectErrorKind

_FAMILIES: Final = {
    "any": socket.AF_UNSPEC,
    "inet": socket.AF_INET,
    "inet6": socket.AF_INET6,
}

_KINDS: Final = {
    errno.ECONNREFUSED: ConnectErrorKind.REFUSED,
    errno.ETIMEDOUT: ConnectErrorKind.TIMED_OUT,
}

_TRY_S: Final = 4.0
"""How long one address is given before the next one: a slow handshake is done by then."""

_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)  # struct linger {on, 0 seconds}


async def open_tcp(
    host: str, port: int, *, family: str = "any", bind: str | None = None
) -> socket.socket:
    """A connected, non-blocking TCP socket to the first address that answers.

    Raises:
        ConnectError: HOST_UNKNOWN, REFUSED, UNREACHABLE or TIMED_OUT.
    """
    try:
        found = await _addresses(host, port, _FAMILIES[family])
    except socket.gaierror as exc:
        why = (exc.strerror or str(exc)).lower()
        raise ConnectError(
            ConnectErrorKind.HOST_UNKNOWN,
            f"{host}: {why}; is the name right, and is there a Host block for it in ssh_config?",
        ) from None
    except UnicodeError:
        raise ConnectError(ConnectErrorKind.HOST_UNKNOWN, f"{host}: not a host name") from None
    failures: list[OSError] = []
    waiting = list(found)
    while waiting:
        # An address that says nothing is asked again after the others: a fresh SYN gets through
        # within seconds of the network's return, TCP's own retries may be half a minute apart.
        # The caller's deadline ends it.
        candidate = waiting.pop(0)
        address_family, kind, protocol, _, address = candidate
        try:
            sock = socket.socket(address_family, kind | socket.SOCK_NONBLOCK, protocol)
        except OSError as exc:  # a family the system does not have (IPv6 switched off)
            failures.append(exc)
            continue
        try:
            if bind is not None:
                sock.bind((bind, 0))
            async with asyncio.timeout(_TRY_S):
                await _connect(sock, address)
        except TimeoutError:
            sock.close()
            waiting.append(candidate)
        except OSError as exc:
            sock.close()
            failures.append(exc)
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    first = failures[0]
    kind_of = _KINDS.get(first.errno or 0, ConnectErrorKind.UNREACHABLE)
    hints = {
        ConnectErrorKind.REFUSED: "is sshd running there, on this port?",
        ConnectErrorKind.TIMED_OUT: "is the host up, and does a firewall let ssh through?",
        ConnectErrorKind.UNREACHABLE: "is the network up?",
    }
    # asyncio's own text ("Connect call failed ...") does not say why.
    why = os.strerror(first.errno).lower() if first.errno else str(first)
    raise ConnectError(kind_of, f"{host} port {port}: {why}; {hints[kind_of]}")


async def _addresses(host: str, port: int, family: socket.AddressFamily) -> list[Any]:
    if "%" in host:
        # The interface of a link-local address, which uvloop drops. A number is not waited for.
        flags = socket.AI_NUMERICHOST
        return socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=flags)
    loop = asyncio.get_running_loop()
    return await loop.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)


async def open_vsock(cid: int, port: int) -> socket.socket:
    """A connected, non-blocking virtual socket.

    Named AF_UNIX, of which nothing but reading and writing is expected: a loop takes each other
    family for TCP, and uvloop sets TCP's options.

    Raises: OSError
    """
    with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
        await _connect(sock, (cid, port))
        return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=sock.detach())


async def _connect(sock: socket.socket, address: Any) -> None:
    """connect(2).

    Not the loop's: uvloop's looks the address up once more, by host and port alone, and so loses
    the interface of a link-local IPv6 address and knows no virtual sockets.

    Raises: OSError
    """
    number = sock.connect_ex(address)
    if number == errno.EINPROGRESS:
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_writer(sock.fileno(), ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_writer(sock.fileno())
        number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if number:
        raise OSError(number, os.strerror(number))


def reset_on_close(sock: socket.socket) -> None:
    """Make closing *sock* send RST and drop what is queued.

    After a reconnect nothing that was written to the old connection may still be executed.
    """
    # Refused for sockets that are no TCP, and for one that is closed already: both send nothing.
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)


def acked_at(sock: socket.socket) -> float | None:
    """When the peer's TCP acknowledged or sent something last, in monotonic seconds.

    Source: linux/tcp.h: struct tcp_info, tcpi_last_data_recv and tcpi_last_ack_recv (ms ago).
    """
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    except OSError:
        return None  # no TCP (a proxy's socket pair), or closed
    silent_ms: int = min(struct.unpack_from("=II", info, 52))
    return time.monotonic() - silent_ms / 1000


class ProxyCommand:
    """A ProxyCommand and the socket that leads to it."""

    def __init__(self, command: str) -> None:
        """Start *command* by the shell, as ssh does.

        Raises:
            ConnectError: PROXY_FAILED, it can't be started.
        """
        # Its own session: a ^C at the terminal is for netfs to handle, not for the proxy.
        self._process, self.socket = spawn(
            ["/bin/sh", "-c", f"exec {command}"], f"ProxyCommand {command}", own_session=True
        )

    def status(self) -> int | None:
        """The exit status, or None while it runs."""
        return self._process.poll()

    async def close(self) -> None:
        """End it: politely, then not; reaped in any case."""
        await reap(self._process)


def spawn(
    argv: Sequence[str], name: str, *, own_session: bool, stderr: int | None = None
) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start *argv* with a socket as its stdin and stdout; returns our end, non-blocking.

    Raises:
        ConnectError: PROXY_FAILED, *name* can't be started.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    ours.setblocking(False)
    try:
        process = subprocess.Popen(
            list(argv),
            stdin=theirs.fileno(),
            stdout=theirs.fileno(),
            stderr=stderr,
            start_new_session=own_session,
        )
    except OSError as exc:
        ours.close()
        why = (exc.strerror or str(exc)).lower()
        raise ConnectError(ConnectErrorKind.PROXY_FAILED, f"{name}: {why}") from None
    finally:
        theirs.close()
    return process, ours


async def reap(process: subprocess.Popen[bytes], patience_s: float = 2.0) -> int:
    """Wait for *process*, made to end by SIGTERM and then SIGKILL.  Returns its status."""
    loop = asyncio.get_running_loop()
    for end in (process.terminate, process.kill):
        if process.poll() is None:
            end()
        deadline = loop.time() + patience_s
        while process.poll() is None and loop.time() < deadline:
            await asyncio.sleep(0.01)
    return process.wait()
