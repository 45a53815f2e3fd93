"""A shorter way for channel data through asyncssh, where the cipher is AES-GCM; both sides use it.

asyncssh copies each packet about eight times and spends more in Python than in the cipher; here
data is decrypted from the socket's buffer into what the receiver gets, and encrypted into what
the socket sends.  Everything else stays asyncssh's: a packet that is neither data nor a wider
window of an open channel is handed to it unopened, and during a key exchange all writing waits.

This leans on names inside asyncssh.  ``install`` looks for each of them and leaves the connection
alone if one is missing, so that another version is only slower.  Why this is worth it, and what
was measured: docs/adr.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
import mmap
import os
import struct
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import asyncssh
from asyncssh.encryption import GCMEncryption
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from netfs.wire import Buffer

log = logging.getLogger(__name__)

HIGH_WATER: Final = 1024 * 1024
"""Bytes waiting in a writer above which its session's pause_writing is called."""

_WINDOW_ADJUST: Final = 93  # RFC 4254 §9; OpenSSH sends one for each 96 KiB
_CHANNEL_DATA: Final = 94
_IGNORE: Final = 2  # RFC 4253 §12
_TAG: Final = 16  # RFC 5647 §5.1
_BLOCK: Final = 16
_DATA_STRUCT: Final = struct.Struct(">BBII")  # padding length, type, channel, length
_DATA_HEAD: Final = _DATA_STRUCT.size
_READ_BUFFER: Final = 1024 * 1024  # holds the largest packet that we allow, and many usual ones
_LARGEST_DATA: Final = 256 * 1024  # bytes in one packet, whatever size (to 4 GiB) the peer allows
_BATCH: Final = 512 * 1024  # bytes encrypted before the socket gets them: the pipeline starts early
_JOINED: Final = 32 * 1024  # bytes up to which one buffer more to write costs more than a copy

_LENGTH: Final = struct.Struct(">I")
_IV: Final = struct.Struct(">4sQ")  # a fixed part and a counter.  Source: RFC 5647 §7.1
_COUNTER: Final = 0xFFFF_FFFF_FFFF_FFFF

_RANDOMNESS: Final = 4096

_CONNECTION_NAMES: Final = (
    "_auth_complete",
    "_channels",
    "_decompressor",
    "_compressor",
    "_inpbuf",
    "_kex_complete",
    "_max_recv_pktlen",  # absent before 2.24; with 2.18 the key exchange stalled in this way
    "_recv_encryption",
    "_recv_handler",
    "_recv_pkthdr",
    "_recv_seq",
    "_rekey_bytes",
    "_rekey_bytes_sent",
    "_send_deferred_packets",
    "_send_encryption",
    "_send_seq",
    "_transport",
)
_CHANNEL_NAMES: Final = (
    "_accept_data",
    "_flush_send_buf",
    "_init_recv_window",
    "_recv_paused",
    "_recv_state",
    "_recv_window",
    "_send_chan",
    "_send_pktsize",
    "_send_state",
    "_send_window",
)


class Turn(Protocol):
    """What receivers put off to the end of all that came in one piece."""

    def begin(self) -> None: ...

    def end(self) -> None: ...


class FastPath:
    """The short way of one connection: its reading side and the writers of its channels."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._writers: list[FastWriter] = []
        self.receivers: dict[Any, tuple[Callable[[memoryview], None], int]] = {}
        """Of a channel: who gets its data, and the window below which asyncssh delivers it."""
        self.turn: Turn | None = None
        self._is_full = False
        self._after_kex = connection._send_deferred_packets
        connection._send_deferred_packets = self._kex_done

    def add(self, writer: FastWriter) -> None:
        """Flush *writer* whenever writing becomes possible again."""
        self._writers.append(writer)

    def remove(self, writer: FastWriter) -> None:
        """*writer*'s channel is gone."""
        self._writers.remove(writer)
        self.receivers.pop(writer.channel, None)

    @property
    def may_write(self) -> bool:
        """No key exchange is going on, and the socket takes more."""
        connection = self._connection
        return connection._kex_complete and not self._is_full and connection._transport is not None

    @property
    def is_plain(self) -> bool:
        """What is sent is AES-GCM without compression."""
        connection = self._connection
        is_gcm = type(connection._send_encryption) is GCMEncryption
        return is_gcm and connection._compressor is None

    def is_clear(self) -> bool:
        """Whether what is written now may leave at once, and in the short way."""
        connection = self._connection
        return (
            connection._kex_complete
            and not self._is_full
            and connection._transport is not None
            and type(connection._send_encryption) is GCMEncryption
            and connection._compressor is None
        )

    def send(self, packets: Sequence[Buffer], size: int) -> None:
        """Write encrypted *packets*, *size* bytes of them counting towards the next rekeying."""
        connection = self._connection
        connection._send_seq = (connection._send_seq + len(packets) // 2) & 0xFFFFFFFF
        connection._rekey_bytes_sent += size
        if len(packets) == 2 and size <= _JOINED:
            connection._transport.write(b"".join(packets))
        else:
            connection._transport.writelines(packets)
        if connection._rekey_bytes_sent >= connection._rekey_bytes:
            # asyncssh looks whether a new key is due whenever it sends something.
            connection.send_packet(_IGNORE, bytes(4))

    def pause(self) -> None:
        """The socket's buffer is full."""
        self._is_full = True

    def resume(self) -> None:
        """The socket's buffer has room."""
        self._is_full = False
        self._flush()

    def _kex_done(self) -> None:
        self._after_kex()
        self._flush()

    def _flush(self) -> None:
        # Who has least to send goes first: a request of another channel does not wait for bulk.
        for writer in sorted(self._writers, key=FastWriter.waiting):
            writer.flush()


class FastReader(asyncio.BufferedProtocol):
    """Stands between the socket and an asyncssh connection."""

    def __init__(self, connection: Any, path: FastPath) -> None:
        self._connection = connection
        self._path = path
        # Anonymous pages take memory when they are first written to: an idle connection has few.
        self._view = memoryview(mmap.mmap(-1, _READ_BUFFER))
        self._end = 0  # bytes in the buffer; they begin with a packet
        self._cipher: Any = None  # asyncssh's, whose key _decrypt uses
        self._decrypt: Callable[[bytes, Buffer, Buffer], bytes] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Not called: the transport is asyncssh's already."""

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.connection_lost(exc)

    def eof_received(self) -> bool | None:
        return bool(self._connection.eof_received())

    def pause_writing(self) -> None:
        self._path.pause()

    def resume_writing(self) -> None:
        self._path.resume()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._view[self._end :]

    def buffer_updated(self, nbytes: int) -> None:
        turn = self._path.turn
        if turn is None:
            self._read(nbytes)
            return
        turn.begin()
        try:
            self._read(nbytes)
        finally:
            turn.end()

    def _read(self, nbytes: int) -> None:
        end = self._end + nbytes
        self._end = 0  # whatever happens below, get_buffer must have room
        connection, view = self._connection, self._view
        start, is_ready = 0, False
        while end - start >= 4:
            # Only what asyncssh is handed changes its state.
            if not is_ready and not self._is_ready():
                connection.data_received(bytes(view[start:end]))  # it keeps an unfinished packet
                return
            is_ready = True
            length = _LENGTH.unpack_from(view, start)[0]
            if length > connection._max_recv_pktlen or length + 4 + _TAG > _READ_BUFFER:
                connection.data_received(bytes(view[start:end]))  # it refuses this one
                return
            body = start + 4
            stop = body + length + _TAG
            if stop > end:
                break
            assert self._decrypt is not None
            try:
                plain = self._decrypt(self._cipher._iv, view[body:stop], view[start:body])
            except InvalidTag:
                plain = b""  # asyncssh finds the same and ends the connection
            if not self._deliver(plain):
                connection.data_received(bytes(view[start:stop]))
                is_ready = False
                if connection._transport is None:
                    return
            start = stop
        rest = end - start
        if rest:
            # At most one packet, and usually a small part of one.
            view[:rest] = view[start:end]
        self._end = rest

    def _is_ready(self) -> bool:
        """Whether asyncssh stands between two packets, and they are plain AES-GCM."""
        connection = self._connection
        encryption = connection._recv_encryption
        if (
            connection._inpbuf
            or connection._recv_handler != connection._recv_pkthdr
            or type(encryption) is not GCMEncryption
            or connection._decompressor is not None
        ):
            return False
        if encryption._cipher is not self._cipher:
            self._cipher = encryption._cipher
            self._decrypt = AESGCM(self._cipher._key).decrypt
        return True

    def _deliver(self, plain: bytes) -> bool:
        """Deliver channel data, or widen a window.  False: something else; nothing was done."""
        if len(plain) < _DATA_HEAD:
            return False
        connection = self._connection
        padding, kind, number, size = _DATA_STRUCT.unpack_from(plain)
        channel = connection._channels.get(number)
        if channel is None or channel._recv_state != "open":
            return False
        end = _DATA_HEAD + size
        window = channel._recv_window - size
        is_data = kind == _CHANNEL_DATA and end + padding == len(plain) and size and window >= 0
        if not is_data and not (kind == _WINDOW_ADJUST and _DATA_HEAD + padding == len(plain)):
            return False
        cipher = self._cipher
        fixed, counter = _IV.unpack(cipher._iv)
        cipher._iv = _IV.pack(fixed, (counter + 1) & _COUNTER)
        connection._recv_seq = (connection._recv_seq + 1) & 0xFFFFFFFF
        if not is_data:
            channel._send_window += size
            channel._flush_send_buf()
            return True
        data = memoryview(plain)[_DATA_HEAD:end]
        inlet = self._path.receivers.get(channel)
        if (
            inlet is not None
            and window >= inlet[1]
            and channel._send_state == "open"
            and not channel._recv_paused
        ):
            channel._recv_window = window
            inlet[0](data)
        else:
            channel._accept_data(data)
        return True


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
        self._encrypt: Callable[[bytes, Buffer, Buffer], bytes] | None = None
        self._packet_size = min(channel._send_pktsize, _LARGEST_DATA)
        self._plain = memoryview(mmap.mmap(-1, _DATA_HEAD + self._packet_size + 2 * _BLOCK))
        self._finish = channel._flush_send_buf
        channel._flush_send_buf = self.flush
        path.add(self)

    def deliver_to(self, receive: Callable[[memoryview], None], turn: Turn | None = None) -> None:
        """Give the channel's data to *receive* from now on, and no more to its session.

        Only where asyncssh would deliver it at once; else it still does, to the session.  What is
        read from the socket at once is one *turn*.
        """
        self._path.turn = turn
        self._path.receivers[self.channel] = receive, (self.channel._init_recv_window + 1) // 2

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
        padding = -(_DATA_HEAD + size) % _BLOCK
        if padding < 4:
            padding += _BLOCK
        head = _DATA_STRUCT.pack(padding, _CHANNEL_DATA, channel._send_chan, size)
        plain = b"".join((head, *buffers, self._random(padding)))
        channel._send_window -= size
        self._path.send(self._seal(plain), len(plain))

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
            limit = min(channel._send_window, _BATCH)
            if limit <= 0 or channel._send_chan is None:
                break
            packets: list[Buffer] = []
            taken = total = 0
            while self._size and taken < limit:
                size = min(self._packet_size, limit - taken, self._size)
                plain = self._pack(size)
                packets += self._seal(plain)
                taken += size
                total += len(plain)
            channel._send_window -= taken
            self._path.send(packets, total)
        self._pause_or_resume()
        if not self._size:
            self._finish()

    def _pack(self, size: int) -> memoryview:
        """The next *size* bytes of the queue as the inside of a packet."""
        padding = -(_DATA_HEAD + size) % _BLOCK
        if padding < 4:
            padding += _BLOCK
        plain, end = self._plain, _DATA_HEAD + size
        _DATA_STRUCT.pack_into(plain, 0, padding, _CHANNEL_DATA, self.channel._send_chan, size)
        self._fill(plain[_DATA_HEAD:end])
        plain[end : end + padding] = self._random(padding)
        return plain[: end + padding]

    def _seal(self, plain: Buffer) -> tuple[bytes, bytes]:
        """A packet: its length, and the rest, sealed."""
        cipher = self._connection._send_encryption._cipher
        if cipher is not self._cipher:
            self._cipher = cipher
            self._encrypt = AESGCM(cipher._key).encrypt
        assert self._encrypt is not None
        length = len(plain).to_bytes(4, "big")
        sealed = self._encrypt(cipher._iv, plain, length)
        fixed, counter = _IV.unpack(cipher._iv)
        cipher._iv = _IV.pack(fixed, (counter + 1) & _COUNTER)
        return length, sealed

    def _random(self, count: int) -> bytes:
        """Unused random bytes; one system call for hundreds of packets."""
        if self._used + count > len(self._randomness):
            self._randomness, self._used = os.urandom(_RANDOMNESS), 0
        self._used += count
        return self._randomness[self._used - count : self._used]

    def _fill(self, room: memoryview) -> None:
        """Move bytes from the queue into *room*."""
        queue, position, size = self._queue, 0, len(room)
        self._size -= size
        while position < size:
            first = queue[0]
            part = min(len(first), size - position)
            room[position : position + part] = first[:part]
            position += part
            if part == len(first):
                queue.popleft()
            else:
                queue[0] = first[part:]

    def _pause_or_resume(self) -> None:
        if self._is_paused:
            if self._size <= HIGH_WATER // 4:
                self._is_paused = False
                self._session.resume_writing()
        elif self._size > HIGH_WATER:
            self._is_paused = True
            self._session.pause_writing()


def install(
    connection: asyncssh.SSHClientConnection | asyncssh.SSHServerConnection,
) -> FastPath | None:
    """Put the short way into a logged-in *connection* of either side; None where it can't be."""
    missing = [name for name in _CONNECTION_NAMES if not hasattr(connection, name)]
    if missing:
        log.info("asyncssh %s lacks %s: plain data path", asyncssh.__version__, missing)
        return None
    inside: Any = connection
    transport = inside._transport
    ciphers = (inside._recv_encryption, inside._send_encryption)
    is_compressed = inside._compressor is not None or inside._decompressor is not None
    is_socket = hasattr(transport, "set_protocol")  # uvloop's are no asyncio.Transport
    if not is_socket or is_compressed or not all(map(_is_known, ciphers)):
        return None  # through a jump host, or another cipher: asyncssh's own way
    path = FastPath(inside)
    # A transport chooses its way of reading when it starts to read.
    transport.pause_reading()
    transport.set_protocol(FastReader(inside, path))
    transport.resume_reading()
    return path


def writer(
    path: FastPath, connection: object, channel: object, session: object
) -> FastWriter | None:
    """The sending side for a new *channel*, or None where it can't be."""
    if not all(hasattr(channel, name) for name in _CHANNEL_NAMES):
        return None
    return FastWriter(path, connection, channel, session)


def _is_known(encryption: object) -> bool:
    """Whether *encryption* is AES-GCM as it is expected here."""
    cipher: Any = getattr(encryption, "_cipher", None)
    names = ("_key", "_iv", "_update_iv")
    if type(encryption) is not GCMEncryption or not all(hasattr(cipher, name) for name in names):
        return False
    other = copy.copy(cipher)
    other._update_iv()
    fixed, counter = _IV.unpack(cipher._iv)
    return bool(other._iv == _IV.pack(fixed, (counter + 1) & _COUNTER))
