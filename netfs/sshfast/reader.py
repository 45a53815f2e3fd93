"""From the socket: data packets are opened here, all others are left to asyncssh."""

from __future__ import annotations

import asyncio
import mmap
import struct
from typing import Any, Final

from asyncssh.encryption import GCMEncryption
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from netfs.sshfast.packets import CHANNEL_DATA, DATA_HEAD, DATA_STRUCT, TAG, WINDOW_ADJUST, step
from netfs.sshfast.path import FastPath, Inlet

_READ_BUFFER: Final = 1024 * 1024  # holds the largest packet that we allow, and many usual ones
_AROUND: Final = 4 + TAG  # bytes around the inside of a packet: its length, and the tag
_length_at: Final = struct.Struct(">I").unpack_from


class FastReader(asyncio.BufferedProtocol):
    """Stands between the socket and an asyncssh connection."""

    def __init__(self, connection: Any, path: FastPath) -> None:
        self._connection = connection
        self._path = path
        # Anonymous pages take memory when they are first written to: an idle connection has few.
        self._view = memoryview(mmap.mmap(-1, _READ_BUFFER))
        self._end = 0  # bytes in the buffer; they begin with a packet
        self._limit = -1  # bytes of a packet to be taken; -1: look at asyncssh before
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
        end = self._end + nbytes
        self._end = 0  # whatever happens below, get_buffer must have room
        view, path = self._view, self._path
        start, is_held = 0, False
        turn = path.turn
        turn.depth += 1
        try:
            while end - start >= 4:
                length = _length_at(view, start)[0]
                if length > self._limit and (not self._look() or length > self._limit):
                    path.release()
                    # It keeps an unfinished packet, and refuses one that is too long.
                    self._hand_over(view[start:end])
                    return
                stop = start + length + _AROUND
                if stop > end:
                    break
                if stop < end and not is_held:
                    is_held = True
                    path.hold()
                packet = view[start:stop]
                if not self._take(packet, length):
                    self._hand_over(packet)
                    if self._connection._transport is None:
                        return
                start = stop
            if is_held:
                path.release()
            rest = end - start
            if rest:
                # At most one packet, and usually a small part of one.
                view[:rest] = view[start:end]
            self._end = rest
        finally:
            turn.end()

    def _hand_over(self, piece: memoryview) -> None:
        """asyncssh takes what is not taken here: only that changes its state."""
        self._limit = -1
        self._connection.data_received(bytes(piece))

    def _look(self) -> bool:
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
        self._limit = min(connection._max_recv_pktlen, _READ_BUFFER - _AROUND)
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
            or length - DATA_HEAD > len(landing.block) - landing.at
        ):
            try:
                plain = opener.decrypt(self._cipher._iv, packet[4:], packet[:4])
            except InvalidTag:
                return False  # asyncssh finds the same and ends the connection
            return self._deliver(plain)
        # Most likely the next piece of what lands: it is put there, its head over what was before.
        block, at = landing.block, landing.at
        start = at - DATA_HEAD
        room = block[start : start + length]
        before = bytes(room[:DATA_HEAD])
        try:
            opener.decrypt_into(self._cipher._iv, packet[4:], packet[:4], room)
            head = bytes(room[:DATA_HEAD])
        except InvalidTag:
            return False
        finally:
            room[:DATA_HEAD] = before
        padding, kind, number, size = DATA_STRUCT.unpack(head)
        channel = self._channel
        window = channel._recv_window - size
        if (
            kind != CHANNEL_DATA
            or number != self._number
            or not 0 < size <= landing.missing
            or DATA_HEAD + size + padding != length
            or self._path.inlets.get(channel) is not inlet
            or not _is_plain(channel, window, inlet)
        ):
            return self._deliver(head + room[DATA_HEAD:])
        connection = self._connection
        step(self._cipher)
        connection._recv_seq = (connection._recv_seq + 1) & 0xFFFFFFFF
        channel._recv_window = window
        inlet.landed(size)
        return True

    def _deliver(self, plain: bytes) -> bool:
        """``_take`` a packet that was opened."""
        if len(plain) < DATA_HEAD:
            return False
        padding, kind, number, size = DATA_STRUCT.unpack_from(plain)
        connection = self._connection
        channel = connection._channels.get(number)
        if channel is None or channel._recv_state != "open":
            return False
        end = DATA_HEAD + size
        window = channel._recv_window - size
        is_data = kind == CHANNEL_DATA and end + padding == len(plain) and size and window >= 0
        if not is_data and not (kind == WINDOW_ADJUST and DATA_HEAD + padding == len(plain)):
            return False
        step(self._cipher)
        connection._recv_seq = (connection._recv_seq + 1) & 0xFFFFFFFF
        if not is_data:
            channel._send_window += size
            if not self._path.will_flush(channel):
                channel._flush_send_buf()
            return True
        data = memoryview(plain)[DATA_HEAD:end]
        inlet = self._path.inlets.get(channel)
        if inlet is not None and _is_plain(channel, window, inlet):
            self._channel, self._number, self._inlet = channel, number, inlet
            channel._recv_window = window
            inlet.receive(data)
        else:
            channel._accept_data(data)
        return True


def _is_plain(channel: Any, window: int, inlet: Inlet) -> bool:
    """Whether asyncssh would deliver *channel*'s data at once, *window* being left then."""
    return (
        window >= inlet.least
        and channel._recv_state == "open"
        and channel._send_state == "open"
        and not channel._recv_paused
    )
