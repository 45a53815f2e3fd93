"""To the socket: a channel's data in packets of its own, in the order it was given."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from netfs.buffers import Landing
from netfs.sshfast.packets import (
    BLOCK,
    CHANNEL_DATA,
    COUNTER,
    DATA_HEAD,
    DATA_STRUCT,
    IV,
    OPENS_INTO,
    SEALS_INTO,
    TAG,
    step,
)
from netfs.sshfast.path import FastPath, Inlet, Turn
from netfs.wire import Buffer

HIGH_WATER: Final = 1024 * 1024
"""Bytes waiting in a writer above which its session's pause_writing is called."""

_AROUND: Final = 4 + DATA_HEAD + 2 * BLOCK + TAG  # bytes around the data of a packet, at most
_LARGEST_DATA: Final = 256 * 1024  # bytes in one packet, whatever size (to 4 GiB) the peer allows
_RANDOMNESS: Final = 4096


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
        self._randomness = b""
        self._used = 0
        self._cipher: Any = None
        self._sealer: AESGCM | None = None
        self._packet_size = min(channel._send_pktsize, _LARGEST_DATA)
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
        self._path.turn = turn
        least = (self.channel._init_recv_window + 1) // 2
        if landed is None or not OPENS_INTO:
            landing = None
        self._path.inlets[self.channel] = Inlet(receive, least, landing, landed or _nowhere)

    def write(self, buffers: Sequence[Buffer]) -> None:
        """Send *buffers*, which are not copied before they can leave."""
        channel = self.channel
        size = sum(map(len, buffers))
        if (
            self._size
            or not 0 < size <= self._packet_size
            or size > channel._send_window
            or channel._send_chan is None
            or not self._path.is_clear()
        ):
            self._put_off(buffers)
            return
        # One packet that may leave: most requests.
        plain = self._wrap(buffers, size)
        channel._send_window -= size
        self._path.send(self._seal(plain), 1, len(plain))

    def _put_off(self, buffers: Sequence[Buffer]) -> None:
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

    def close(self) -> None:
        """The channel is gone."""
        self.clear()
        self._path.remove(self)

    def flush(self) -> None:
        """Send what may be sent now."""
        channel = self.channel
        if self._size and not self._path.is_plain:
            data = b"".join(self._queue)
            self.clear()
            with contextlib.suppress(OSError):  # it is being closed: connection_lost tells
                channel.write(data)
        while self._size and self._path.may_write:
            limit = min(channel._send_window, self._size)
            if limit <= 0 or channel._send_chan is None:
                break
            if limit > self._packet_size and SEALS_INTO:
                self._send_batch(limit)
            else:
                size = min(self._packet_size, limit)
                plain = self._wrap(self._dequeue(size), size)
                channel._send_window -= size
                self._path.send(self._seal(plain), 1, len(plain))
        self._pause_or_resume()
        if not self._size:
            self._finish()

    def _send_batch(self, limit: int) -> None:
        """Send up to *limit* bytes of the queue, in packets that lie one behind the other."""
        batch = memoryview(self._path.batches.take())
        last = len(batch) - self._packet_size - _AROUND  # where a packet may begin
        cipher, sealer = self._current()
        fixed, counter = IV.unpack(cipher._iv)
        end = count = taken = total = 0
        while taken < limit and end <= last:
            size = min(self._packet_size, limit - taken)
            plain = self._wrap(self._dequeue(size), size)
            length = len(plain)
            head = length.to_bytes(4, "big")
            start = end + 4
            batch[end:start] = head
            end = start + length + TAG
            sealer.encrypt_into(IV.pack(fixed, counter), plain, head, batch[start:end])
            counter = (counter + 1) & COUNTER
            taken += size
            count += 1
            total += length
        cipher._iv = IV.pack(fixed, counter)
        self.channel._send_window -= taken
        self._path.send((batch[:end],), count, total)

    def _wrap(self, buffers: Sequence[Buffer], size: int) -> bytes:
        """*buffers*, *size* bytes, as the inside of a packet."""
        padding = -(DATA_HEAD + size) % BLOCK
        if padding < 4:
            padding += BLOCK
        head = DATA_STRUCT.pack(padding, CHANNEL_DATA, self.channel._send_chan, size)
        return b"".join((head, *buffers, self._random(padding)))

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

    def _current(self) -> tuple[Any, AESGCM]:
        """asyncssh's cipher as it is now, and ours with the same key."""
        cipher = self._connection._send_encryption._cipher
        if cipher is not self._cipher:
            self._cipher = cipher
            self._sealer = AESGCM(cipher._key)
        assert self._sealer is not None
        return cipher, self._sealer

    def _seal(self, plain: Buffer) -> tuple[bytes, bytes]:
        """A packet: its length, and the rest, sealed."""
        cipher, sealer = self._current()
        length = len(plain).to_bytes(4, "big")
        sealed = sealer.encrypt(cipher._iv, plain, length)
        step(cipher)
        return length, sealed

    def _random(self, count: int) -> bytes:
        """Unused random bytes; one system call for hundreds of packets."""
        if self._used + count > len(self._randomness):
            self._randomness, self._used = os.urandom(_RANDOMNESS), 0
        self._used += count
        return self._randomness[self._used - count : self._used]

    def _pause_or_resume(self) -> None:
        if self._is_paused:
            if self._size <= HIGH_WATER // 4:
                self._is_paused = False
                self._session.resume_writing()
        elif self._size > HIGH_WATER:
            self._is_paused = True
            self._session.pause_writing()
