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
from typing import Any, Final, NamedTuple, Protocol

import asyncssh
from asyncssh.encryption import GCMEncryption
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from netfs.buffers import Landing, Spares
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
_AROUND: Final = 4 + _DATA_HEAD + 2 * _BLOCK + _TAG  # bytes around the data of a packet, at most
_READ_BUFFER: Final = 1024 * 1024  # holds the largest packet that we allow, and many usual ones
_LARGEST_DATA: Final = 256 * 1024  # bytes in one packet, whatever size (to 4 GiB) the peer allows
_BATCH: Final = 512 * 1024  # bytes sealed before the socket gets them: the pipeline starts early
_BATCHES: Final = 4  # of those are kept: what waits for the socket at a time, and one more
_JOINED: Final = 32 * 1024  # bytes up to which one buffer more to write costs more than a copy

# From cryptography 47 on; before it, one buffer more is made for each packet.
_OPENS_INTO: Final = hasattr(AESGCM, "decrypt_into")
_SEALS_INTO: Final = hasattr(AESGCM, "encrypt_into")

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
        self.inlets: dict[Any, Inlet] = {}
        """Of a channel: who gets its data."""
        self.turn: Turn | None = None
        self._is_full = False
        self._is_held = False
        self.batches = Spares(_BATCH, _BATCHES)  # what is sealed into one buffer
        self._after_kex = connection._send_deferred_packets
        connection._send_deferred_packets = self._kex_done

    def add(self, writer: FastWriter) -> None:
        """Flush *writer* whenever writing becomes possible again."""
        self._writers.append(writer)

    def remove(self, writer: FastWriter) -> None:
        """*writer*'s channel is gone."""
        self._writers.remove(writer)
        self.inlets.pop(writer.channel, None)

    @property
    def may_write(self) -> bool:
        """No key exchange is going on, the socket takes more, and nothing is held."""
        connection = self._connection
        return (
            connection._kex_complete
            and not (self._is_full or self._is_held)
            and connection._transport is not None
        )

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
            and not (self._is_full or self._is_held)
            and connection._transport is not None
            and type(connection._send_encryption) is GCMEncryption
            and connection._compressor is None
        )

    def send(self, packets: Sequence[Buffer], count: int, size: int) -> None:
        """Write *count* sealed packets, *size* bytes of them counting towards the next rekeying."""
        connection = self._connection
        connection._send_seq = (connection._send_seq + count) & 0xFFFFFFFF
        connection._rekey_bytes_sent += size
        if len(packets) == 1:
            connection._transport.write(packets[0])
        elif size <= _JOINED:
            connection._transport.write(b"".join(packets))
        else:
            connection._transport.writelines(packets)
        if connection._rekey_bytes_sent >= connection._rekey_bytes:
            # asyncssh looks whether a new key is due whenever it sends something.
            connection.send_packet(_IGNORE, bytes(4))

    def hold(self) -> None:
        """More answers are at hand: what they ask for leaves together, at ``release``."""
        self._is_held = True

    def will_flush(self, channel: Any) -> bool:
        """Whether ``release`` will flush *channel*: a server widens a window each 64 KiB."""
        return self._is_held and channel in self.inlets

    def release(self) -> None:
        """Write what was held."""
        if self._is_held:
            self._is_held = False
            self._flush()

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


class Inlet(NamedTuple):
    """Who gets a channel's data."""

    receive: Callable[[memoryview], None]
    least: int  # window (bytes) below which asyncssh delivers it
    landing: Landing | None  # where it may be put instead
    landed: Callable[[int], None]  # to be told how much was


class FastReader(asyncio.BufferedProtocol):
    """Stands between the socket and an asyncssh connection."""

    def __init__(self, connection: Any, path: FastPath) -> None:
        self._connection = connection
        self._path = path
        # Anonymous pages take memory when they are first written to: an idle connection has few.
        self._view = memoryview(mmap.mmap(-1, _READ_BUFFER))
        self._end = 0  # bytes in the buffer; they begin with a packet
        self._cipher: Any = None  # asyncssh's, whose key _opener uses
        self._opener: AESGCM | None = None
        self._channel: Any = None  # whose data came last by the short way
        self._number = 0  # its number
        self._inlet: Inlet | None = None  # and inlet

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
        start, is_ready, is_held = 0, False, False
        while end - start >= 4:
            # Only what asyncssh is handed changes its state.
            if not is_ready and not self._is_ready():
                self._path.release()
                connection.data_received(bytes(view[start:end]))  # it keeps an unfinished packet
                return
            is_ready = True
            length = _LENGTH.unpack_from(view, start)[0]
            if length > connection._max_recv_pktlen or length + 4 + _TAG > _READ_BUFFER:
                self._path.release()
                connection.data_received(bytes(view[start:end]))  # it refuses this one
                return
            stop = start + 4 + length + _TAG
            if stop > end:
                break
            if stop < end and not is_held:
                is_held = True
                self._path.hold()
            if not self._take(view[start:stop], length):
                connection.data_received(bytes(view[start:stop]))
                is_ready = False
                if connection._transport is None:
                    return
            start = stop
        if is_held:
            self._path.release()
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
            self._opener = AESGCM(self._cipher._key)
        return True

    def _take(self, packet: memoryview, length: int) -> bool:
        """Deliver channel data, or widen a window.  False: something else; nothing was done."""
        inlet, opener = self._inlet, self._opener
        assert opener is not None
        landing = None if inlet is None else inlet.landing
        if (
            inlet is None
            or landing is None
            or not landing.missing
            or length - _DATA_HEAD > len(landing.block) - landing.at
        ):
            try:
                plain = opener.decrypt(self._cipher._iv, packet[4:], packet[:4])
            except InvalidTag:
                return False  # asyncssh finds the same and ends the connection
            return self._deliver(plain)
        # Most likely the next piece of what lands: it is put there, its head over what was before.
        block, at = landing.block, landing.at
        start = at - _DATA_HEAD
        room = block[start : start + length]
        before = bytes(room[:_DATA_HEAD])
        try:
            opener.decrypt_into(self._cipher._iv, packet[4:], packet[:4], room)
            head = bytes(room[:_DATA_HEAD])
        except InvalidTag:
            return False
        finally:
            room[:_DATA_HEAD] = before
        padding, kind, number, size = _DATA_STRUCT.unpack(head)
        channel = self._channel
        window = channel._recv_window - size
        if (
            kind != _CHANNEL_DATA
            or number != self._number
            or not 0 < size <= landing.missing
            or _DATA_HEAD + size + padding != length
            or self._path.inlets.get(channel) is not inlet
            or not _is_plain(channel, window, inlet)
        ):
            return self._deliver(head + room[_DATA_HEAD:])
        connection = self._connection
        _step(self._cipher)
        connection._recv_seq = (connection._recv_seq + 1) & 0xFFFFFFFF
        channel._recv_window = window
        inlet.landed(size)
        return True

    def _deliver(self, plain: bytes) -> bool:
        """``_take`` a packet that was opened."""
        if len(plain) < _DATA_HEAD:
            return False
        padding, kind, number, size = _DATA_STRUCT.unpack_from(plain)
        connection = self._connection
        channel = connection._channels.get(number)
        if channel is None or channel._recv_state != "open":
            return False
        end = _DATA_HEAD + size
        window = channel._recv_window - size
        is_data = kind == _CHANNEL_DATA and end + padding == len(plain) and size and window >= 0
        if not is_data and not (kind == _WINDOW_ADJUST and _DATA_HEAD + padding == len(plain)):
            return False
        _step(self._cipher)
        connection._recv_seq = (connection._recv_seq + 1) & 0xFFFFFFFF
        if not is_data:
            channel._send_window += size
            if not self._path.will_flush(channel):
                channel._flush_send_buf()
            return True
        data = memoryview(plain)[_DATA_HEAD:end]
        inlet = self._path.inlets.get(channel)
        if (  # _is_plain, of which recv_state is known
            inlet is not None
            and window >= inlet.least
            and channel._send_state == "open"
            and not channel._recv_paused
        ):
            self._channel, self._number, self._inlet = channel, number, inlet
            channel._recv_window = window
            inlet.receive(data)
        else:
            channel._accept_data(data)
        return True


def _step(cipher: Any) -> None:
    """The nonce of the next packet, as asyncssh does it.  Source: RFC 5647 §7.1."""
    fixed, counter = _IV.unpack(cipher._iv)
    cipher._iv = _IV.pack(fixed, (counter + 1) & _COUNTER)


def _nowhere(count: int) -> None:
    """There is no landing that bytes could have been put to."""


def _is_plain(channel: Any, window: int, inlet: Inlet) -> bool:
    """Whether asyncssh would deliver *channel*'s data at once, *window* being left then."""
    return (
        window >= inlet.least
        and channel._recv_state == "open"
        and channel._send_state == "open"
        and not channel._recv_paused
    )


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
        if landed is None or not _OPENS_INTO:
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
            if limit > self._packet_size and _SEALS_INTO:
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
        fixed, counter = _IV.unpack(cipher._iv)
        end = count = taken = total = 0
        while taken < limit and end <= last:
            size = min(self._packet_size, limit - taken)
            plain = self._wrap(self._dequeue(size), size)
            length = len(plain)
            head = length.to_bytes(4, "big")
            start = end + 4
            batch[end:start] = head
            end = start + length + _TAG
            sealer.encrypt_into(_IV.pack(fixed, counter), plain, head, batch[start:end])
            counter = (counter + 1) & _COUNTER
            taken += size
            count += 1
            total += length
        cipher._iv = _IV.pack(fixed, counter)
        self.channel._send_window -= taken
        self._path.send((batch[:end],), count, total)

    def _wrap(self, buffers: Sequence[Buffer], size: int) -> bytes:
        """*buffers*, *size* bytes, as the inside of a packet."""
        padding = -(_DATA_HEAD + size) % _BLOCK
        if padding < 4:
            padding += _BLOCK
        head = _DATA_STRUCT.pack(padding, _CHANNEL_DATA, self.channel._send_chan, size)
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
        _step(cipher)
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
