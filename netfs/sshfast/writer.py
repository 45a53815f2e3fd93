"""To the socket: a channel's data in packets of its own, in the order it was given."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from netfs.buffers import Landing
from netfs.sshfast.packets import (
    BLOCK,
    CHANNEL_DATA,
    DATA_HEAD,
    DATA_STRUCT,
    OPENS_INTO,
    SEALS_INTO,
    TAG,
)
from netfs.sshfast.path import BATCH, FastPath, Inlet, Turn
from netfs.wire import Buffer

HIGH_WATER: Final = 1024 * 1024
"""Bytes waiting in a writer above which its session's pause_writing is called."""

_AROUND: Final = 4 + DATA_HEAD + 2 * BLOCK + TAG  # bytes around the data of a packet, at most
_LARGEST_DATA: Final = 256 * 1024  # bytes in one packet, whatever size (to 4 GiB) the peer allows


def _nowhere(count: int) -> None:
    """There is no landing that bytes could have been put to."""


class FastWriter:
    """The sending side of one channel.

    Data waits in ``_queue`` until the server's window, the key exchange and the socket allow it.
    asyncssh's own queue stays empty, and what it does after its queue (EOF, CLOSE) waits for ours.
    """

    def __init__(self, path: FastPath, connection: Any, channel: Any, session: Any) -> None:
        self._path = path
        self._connection = connection
        self.channel = channel
        self._session = session
        self._queue: deque[memoryview] = deque()
        self._size = 0
        self._is_paused = False
        self._has_ended = False  # what is written is dropped
        self._padding = os.urandom(2 * BLOCK)
        self._packet_size = min(channel._send_pktsize, _LARGEST_DATA)
        self._batch_size = BATCH // (self._packet_size + _AROUND) * self._packet_size
        self._finish = channel._flush_send_buf
        channel._flush_send_buf = self.flush
        path.add(self)

    def deliver_to(
        self,
        receive: Callable[[memoryview], None],
        turn: Turn | None = None,
        landing: Landing | None = None,
        landed: Callable[[int], None] | None = None,
    ) -> None:
        """Give the channel's data to *receive* from now on, and no more to its session; or put it
        where *landing* says, and tell *landed* how many bytes.

        Only where asyncssh would deliver it at once; else it still does, to the session.  What is
        read from the socket at once is one *turn*.
        """
        if turn is not None:
            self._path.turn = turn
        least = (self.channel._init_recv_window + 1) // 2
        if landed is None or not OPENS_INTO:
            landing = None
        self._path.inlets[self.channel] = Inlet(receive, least, landing, landed or _nowhere)

    def write(self, buffers: Sequence[Buffer]) -> None:
        """Send *buffers*, which are not copied before they can leave."""
        channel, path = self.channel, self._path
        size = sum(map(len, buffers))
        if (
            self._size
            or self._has_ended
            or not 0 < size <= self._packet_size
            or size > channel._send_window
            or channel._send_chan is None
            or not path.may_write
            or path.sealer() is None
        ):
            self._put_off(buffers)
            return
        # One packet that may leave: most requests.
        channel._send_window -= size
        head, padding = self._around(size)
        path.send(b"".join((head, *buffers, padding)))

    def _put_off(self, buffers: Sequence[Buffer]) -> None:
        if self._has_ended:
            return
        for buffer in buffers:
            if len(buffer):
                self._queue.append(memoryview(buffer))
                self._size += len(buffer)
        self.flush()

    def waiting(self) -> int:
        """Bytes in the queue."""
        return self._size

    def clear(self) -> None:
        """Drop the queue."""
        self._queue.clear()
        self._size = 0

    def end(self) -> None:
        """Take no more; what waits is still sent."""
        self._has_ended = True

    def close(self) -> None:
        """The channel is gone."""
        self.end()
        self.clear()
        self._path.remove(self)

    def flush(self) -> None:
        """Send what may be sent now."""
        channel = self.channel
        if self._size and self._path.sealer() is None:
            data = b"".join(self._queue)
            self.clear()
            with contextlib.suppress(OSError):  # it is being closed: connection_lost tells
                channel.write(data)
        while self._size and self._path.may_write:
            limit = min(channel._send_window, self._size)
            if limit <= 0 or channel._send_chan is None:
                break
            if limit > self._packet_size and SEALS_INTO:
                size = min(limit, self._batch_size)
                channel._send_window -= size
                self._path.send_all(self._packets(size))
            else:
                size = min(self._packet_size, limit)
                channel._send_window -= size
                self._path.send(self._wrap(self._dequeue(size), size))
        self._pause_or_resume()
        if not self._size:
            self._finish()

    def _packets(self, size: int) -> Iterator[bytes]:
        """The next *size* bytes of the queue, as insides of packets that are as large as may be."""
        queue, whole = self._queue, self._packet_size
        head, padding = self._around(whole)
        while size >= whole:
            first = queue[0]
            if len(first) > whole:
                queue[0] = first[whole:]
                self._size -= whole
                yield b"".join((head, first[:whole], padding))
            else:
                yield b"".join((head, *self._dequeue(whole), padding))
            size -= whole
        if size:
            yield self._wrap(self._dequeue(size), size)

    def _wrap(self, buffers: Sequence[Buffer], size: int) -> bytes:
        """*buffers*, *size* bytes, as the inside of a packet."""
        head, padding = self._around(size)
        return b"".join((head, *buffers, padding))

    def _around(self, size: int) -> tuple[bytes, bytes]:
        """What is before and behind *size* bytes of data in a packet.

        The padding is random once: under AES-GCM nothing depends on it.
        """
        count = -(DATA_HEAD + size) % BLOCK
        if count < 4:
            count += BLOCK
        head = DATA_STRUCT.pack(count, CHANNEL_DATA, self.channel._send_chan, size)
        return head, self._padding[:count]

    def _dequeue(self, size: int) -> list[memoryview]:
        """The next *size* bytes of the queue."""
        self._size -= size
        queue = self._queue
        taken: list[memoryview] = []
        while True:
            first = queue[0]
            part = len(first)
            if part > size:
                taken.append(first[:size])
                queue[0] = first[size:]
                return taken
            taken.append(first)
            queue.popleft()
            size -= part
            if not size:
                return taken

    def _pause_or_resume(self) -> None:
        if self._is_paused:
            if self._size <= HIGH_WATER // 4:
                self._is_paused = False
                self._session.resume_writing()
        elif self._size > HIGH_WATER:
            self._is_paused = True
            self._session.pause_writing()
