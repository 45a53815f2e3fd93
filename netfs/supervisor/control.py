"""The control socket: one JSON line in, one JSON line out, for the mount's owner and root only.

Answering belongs to the supervisor; nothing here waits.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
from typing import Any, Final

Message = dict[str, Any]

_MAX_REQUEST: Final = 4096
_MAX_CLIENTS: Final = 16
_UCRED: Final = struct.Struct("iII")
"""struct ucred.  Source: socket(7), unix(7)."""


class Client:
    """One who asks."""

    __slots__ = ("_buffer", "_out", "since", "sock")

    def __init__(self, sock: socket.socket, now: float) -> None:
        self.sock = sock
        self.since = now
        self._buffer = b""
        self._out = b""

    def receive(self) -> Message | None:
        """The request when it is whole, else None.

        Raises:
            ConnectionError: the client has gone or sends nonsense.
        """
        try:
            data = self.sock.recv(_MAX_REQUEST)
        except BlockingIOError:
            return None
        if not data:
            raise ConnectionResetError
        self._buffer += data
        line, newline, _ = self._buffer.partition(b"\n")
        if not newline:
            if len(self._buffer) >= _MAX_REQUEST:
                raise ConnectionAbortedError
            return None
        try:
            request = json.loads(line)
        except ValueError:
            raise ConnectionAbortedError from None
        if not isinstance(request, dict):
            raise ConnectionAbortedError
        return request

    def answer(self, body: Message) -> bool:
        """Send *body*; whether all of it has left (else call ``send_rest`` when writable)."""
        self._out = json.dumps(body).encode() + b"\n"
        return self.send_rest()

    def send_rest(self) -> bool:
        while self._out:
            try:
                self._out = self._out[self.sock.send(self._out) :]
            except BlockingIOError:
                return False
            except OSError:
                return True  # the client did not wait for its answer
        return True


class Listener:
    """The listening socket."""

    def __init__(self, path: str) -> None:
        """Listen at *path*, which only this user may open.

        Raises:
            OSError: the directory is missing or not writable.
        """
        self._path = path
        self.clients: dict[int, Client] = {}
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        before = os.umask(0o177)
        try:
            self.sock.bind(path)
        finally:
            os.umask(before)
        self.sock.listen(_MAX_CLIENTS)

    def accept(self, now: float) -> Client | None:
        """The next client, None if it is not allowed or there are too many."""
        try:
            sock, _ = self.sock.accept()
        except OSError:
            return None  # it has gone before it was its turn
        sock.setblocking(False)
        uid = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))[1]
        if uid not in (0, os.geteuid()) or len(self.clients) >= _MAX_CLIENTS:
            sock.close()
            return None
        client = Client(sock, now)
        self.clients[sock.fileno()] = client
        return client

    def drop(self, client: Client) -> None:
        self.clients.pop(client.sock.fileno(), None)
        client.sock.close()

    def close(self) -> None:
        for client in list(self.clients.values()):
            self.drop(client)
        self.sock.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
