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
import logging
import mmap
import os
import struct
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

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
    "_recv_state",
    "_recv_window",
    "_send_chan",
    "_send_pktsize",
    "_send_state",
    "_send_window",
)


class FastPath:
    """The short way of one connection: its reading side and the writers of its channels."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._writers: list[FastWriter] = []
        self._is_full = False
        self._after_kex = connection._send_deferred_packets
        connection._send_deferred_packets = self._kex_done

    def add(self, writer: FastWriter) -> None:
        """Flush *writer* whenever writing becomes possible again."""
        self._writers.append(writer)

    def remove(self, writer: FastWriter) -> None:
        """*writer*'s channel is gone."""
        self._writers.remove(writer)

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

    def send(self, packets: Sequence[Buffer], size: int) -> None:
        """Write encrypted *packets*, *size* bytes of them counting towards the next rekeying."""
        connection = self._connection
        connection._send_seq = (connection._send_seq + len(packets) // 2) & 0xFFFFFFFF
        connection._rekey_bytes_sent += size
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
        end = self._end + nbytes
        self._end = 0  # whatever happens below, get_buffer must have room
        start = self._take_packets(end)
        if start is None:
            return
        rest = end - start
        if rest:
            # At most one packet, and usually a small part of one.
            self._view[:rest] = self._view[start:end]
        self._end = rest

    def _take_packets(self, end: int) -> int | None:
        """Handle the packets up to *end*; returns where the unfinished one begins.

        None: all was given to asyncssh, which has kept an unfinished one.
        """
        connection, view = self._connection, self._view
        start, is_ready = 0, False
        while end - start >= 4:
            # Only what asyncssh is handed changes its state.
            if not is_ready and not self._is_ready():
                connection.data_received(bytes(view[start:end]))
                return None
            is_ready = True
            head = view[start : start + 4]
            length = int.from_bytes(head, "big")
            if length > connection._max_recv_pktlen or length + 4 + _TAG > _READ_BUFFER:
                connection.data_received(bytes(view[start:end]))  # it refuses this one
                return None
            stop = start + 4 + length + _TAG
            if stop > end:
                break
            if not self._deliver(view[start + 4 : stop], head):
                connection.data_received(bytes(view[start:stop]))
                is_ready = False
                if connection._transport is None:
                    return None
            start = stop
        return start

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

    def _deliver(self, sealed: memoryview, length: memoryview) -> bool:
        """Deliver channel data, or widen a window.  False: something else; nothing was done."""
        connection, cipher = self._connection, self._cipher
        assert self._decrypt is not None
        try:
            plain = self._decrypt(cipher._iv, sealed, length)
        except InvalidTag:
            return False  # asyncssh finds the same and ends the connection
        if len(plain) < _DATA_HEAD:
            return False
        padding, kind, number, size = _DATA_STRUCT.unpack_from(plain)
        channel = connection._channels.get(number)
        if channel is None or channel._recv_state != "open":
            return False
        is_adjust = kind == _WINDOW_ADJUST and _DATA_HEAD + padding == len(plain)
        is_data = kind == _CHANNEL_DATA and _DATA_HEAD + size + padding == len(plain)
        if not is_adjust and not (is_data and 0 < size <= channel._recv_window):
            return False
        cipher._update_iv()
        connection._recv_seq = (connection._recv_seq + 1) & 0xFFFFFFFF
        if is_adjust:
            channel._send_window += size
            channel._flush_send_buf()
        else:
            channel._accept_data(memoryview(plain)[_DATA_HEAD : _DATA_HEAD + size])
        return True


class FastWriter:
    """The sending side of one channel.

    Data waits in ``_queue`` until the server's window, the key exchange and the socket allow it.
    asyncssh's own queue stays empty, and what it does after its queue (EOF, CLOSE) waits for ours.
    """

    def __init__(self, path: FastPath, connection: Any, channel: Any, session: Any) -> None:
        self._path = path
        self._connection = connection
        self._channel = channel
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

    def write(self, buffers: Sequence[Buffer]) -> None:
        """Send *buffers*, which are not copied before they can leave."""
        if not self._size and self._write_now(buffers):
            return
        for buffer in buffers:
            if len(buffer):
                self._queue.append(memoryview(buffer))
                self._size += len(buffer)
        self.flush()

    def _write_now(self, buffers: Sequence[Buffer]) -> bool:
        """Send *buffers* as one packet, if they fit and may leave: most requests do."""
        channel, path = self._channel, self._path
        size = sum(map(len, buffers))
        if (
            not 0 < size <= min(channel._send_window, channel._send_pktsize)
            or channel._send_chan is None
            or not path.may_write
            or not path.is_plain
        ):
            return False
        padding = -(_DATA_HEAD + size) % _BLOCK
        if padding < 4:
            padding += _BLOCK
        head = _DATA_STRUCT.pack(padding, _CHANNEL_DATA, channel._send_chan, size)
        plain = b"".join((head, *buffers, self._random(padding)))
        channel._send_window -= size
        path.send(self._seal(plain), len(plain))
        return True

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
        channel = self._channel
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
        _DATA_STRUCT.pack_into(plain, 0, padding, _CHANNEL_DATA, self._channel._send_chan, size)
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
        cipher._update_iv()
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
    cipher = getattr(encryption, "_cipher", None)
    names = ("_key", "_iv", "_update_iv")
    return type(encryption) is GCMEncryption and all(hasattr(cipher, name) for name in names)
