"""Splits the received byte stream into packets, with a maximum.

No packet's content belongs here.
"""

from __future__ import annotations

import struct
from typing import Final

from netfs.buffers import MARGIN, Landing, Spares
from netfs.sftp.errors import RemoteProtocolError
from netfs.wire import Buffer

_LENGTH: Final = struct.Struct(">I")  # Source: draft-ietf-secsh-filexfer-02 §3
_HEADER: Final = _LENGTH.size
_length_at = _LENGTH.unpack_from
_SMALL: Final = 1024  # bytes of a piece: below, holding it costs more than copying it
_LARGE: Final = 224 * 1024
_LARGEST: Final = 257 * 1024
"""Bytes of a packet that lands in a block of its own: of less, more of the block would be empty,
which no cache counts.
The largest is a block of 256 KiB, the most that is asked for, with what surrounds it."""


class FrameSplitter:
    """Bytes in, whole packets (without their length) out.

    A packet that arrives in one piece is a view into that piece, which is not copied; the caller
    gives immutable pieces or ones that it won't touch again.  A packet in several pieces is joined
    when it is whole: each byte is copied once (small pieces twice, so that a packet that comes in
    single bytes does not hold a view for each), and no buffer is cleared before it is filled.

    A large one lands in a block that is used again: pieces are copied there as they come, and who
    unpacks the stream may put them there itself (``landing``, ``landed``).
    """

    __slots__ = ("_header", "_max_packet", "_missing", "_pieces", "_spares", "landing")

    def __init__(self, max_packet: int, spares: int = 4) -> None:
        """*spares*: how many blocks to keep for large packets."""
        self._max_packet = max_packet  # bytes; bounds what a peer makes us hold
        self._header = b""  # of a length that is not yet complete
        self._pieces: list[memoryview | bytearray] = []  # of a packet that is not yet complete
        self._missing = 0  # bytes of it
        self._spares = Spares(MARGIN + _LARGEST + MARGIN, spares)
        self.landing = Landing()

    def feed(self, piece: Buffer) -> list[memoryview]:
        """The packets that *piece* completes.

        Raises:
            RemoteProtocolError: a length of zero or above the maximum.
        """
        view = piece if type(piece) is memoryview else memoryview(piece)
        end = len(view)
        packets: list[memoryview] = []
        pos = 0
        landing = self.landing
        if not self._missing and not self._header and not landing.missing:
            # Whole packets in one piece: most of what comes.
            limit = self._max_packet
            while end - pos > _HEADER:
                length = _length_at(view, pos)[0]
                stop = pos + _HEADER + length
                if stop > end or not 0 < length <= limit:
                    break
                packets.append(view[pos + _HEADER : stop])
                pos = stop
        while pos < end:
            if landing.missing:
                count = min(landing.missing, end - pos)
                landing.block[landing.at : landing.at + count] = view[pos : pos + count]
                pos += count
                packet = self.landed(count)
                if packet is not None:
                    packets.append(packet)
                continue
            if self._missing:
                count = min(self._missing, end - pos)
                self._keep(view[pos : pos + count])
                pos += count
                if not self._missing:
                    packets.append(memoryview(b"".join(self._pieces)))
                    self._pieces = []
                continue
            if self._header:
                missing = _HEADER - len(self._header)
                self._header += bytes(view[pos : pos + missing])
                pos += missing
                if len(self._header) < _HEADER:
                    break
                length = self._length(self._header)
                self._header = b""
            elif end - pos < _HEADER:
                self._header = bytes(view[pos:])
                break
            else:
                length = self._length(view[pos : pos + _HEADER])
                pos += _HEADER
            if end - pos >= length:
                packets.append(view[pos : pos + length])
                pos += length
            elif _LARGE <= length <= _LARGEST:
                landing.block = memoryview(self._spares.take())
                landing.at = MARGIN
                landing.missing = length
            else:
                self._missing = length
        return packets

    def landed(self, count: int) -> memoryview | None:
        """*count* bytes, not more than are missing, were put where ``landing`` says.

        Returns: the packet, if that completes it.
        """
        landing = self.landing
        landing.at += count
        landing.missing -= count
        if landing.missing:
            return None
        packet = landing.block[MARGIN : landing.at]
        landing.block = memoryview(b"")  # the packet alone keeps the block
        return packet

    def is_inside_packet(self) -> bool:
        """Whether the stream must not end here."""
        return self._missing > 0 or self.landing.missing > 0 or bool(self._header)

    def _keep(self, piece: memoryview) -> None:
        self._missing -= len(piece)
        if len(piece) >= _SMALL:
            self._pieces.append(piece)
        elif self._pieces and type(self._pieces[-1]) is bytearray:
            self._pieces[-1] += piece
        else:
            self._pieces.append(bytearray(piece))

    def _length(self, header: Buffer) -> int:
        length = int.from_bytes(header, "big")
        if not 0 < length <= self._max_packet:
            raise RemoteProtocolError(
                f"a packet of {length} bytes announced (at most {self._max_packet})"
            )
        return length
