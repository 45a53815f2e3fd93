"""The worker's voice: what it tells its supervisor, above all each second that its loop turns.

Messages are JSON objects, one a packet (see supervisor/worker.py).  Nothing here waits: a
supervisor that does not listen loses messages, the mount goes on.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable, Mapping
from typing import Any, Final

BEAT_S: Final = 1.0

_MAX_MESSAGE: Final = 1 << 17
"""Bytes of one message; half of the kernel's default socket buffer."""


class Uplink:
    """The worker's end of the channel."""

    def __init__(self, channel: socket.socket) -> None:
        channel.setblocking(False)
        self._channel = channel

    def fileno(self) -> int:
        return self._channel.fileno()

    def tell(self, event: str, **fields: object) -> None:
        """Say *event*; lost where the supervisor is gone or its buffer full."""
        packet = json.dumps({"event": event, **fields}, default=str).encode()
        if len(packet) > _MAX_MESSAGE:
            packet = json.dumps({"event": event, "error": "too long"}).encode()
        try:
            self._channel.send(packet)
        except OSError:
            return  # a full buffer means that the supervisor is stopped; it will see later beats

    def hear(self) -> list[dict[str, Any]]:
        """The questions asked since the last call.

        Raises:
            EOFError: the supervisor is gone.
        """
        questions: list[dict[str, Any]] = []
        while True:
            try:
                packet = self._channel.recv(_MAX_MESSAGE)
            except BlockingIOError:
                return questions
            except OSError:
                raise EOFError from None
            if not packet:
                raise EOFError
            questions.append(json.loads(packet))


async def beat(uplink: Uplink, snapshot: Callable[[], Mapping[str, object]]) -> None:
    """Tell each second how things stand; ends by being cancelled."""
    while True:
        uplink.tell("beat", **snapshot())
        await asyncio.sleep(BEAT_S)
