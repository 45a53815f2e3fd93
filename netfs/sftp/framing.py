"""Splits the received byte stream into packets, with a maximum.

No packet's content belongs here.
"""

from __future__ import annotations

import struct
from typing import Final

from netfs.sftp.errors import RemoteProtocolError
from netfs.wire import Buffer

_LENGTH: Final = struct.Struct(">I")  # Source: draft-ietf-secsh-filexfer-02 §3
_HEADER: Final = _LENGTH.size


class FrameSplitter:
    """Bytes in, whole packets (without their length) out.

    A packet that arrives in one piece is a view into that piece, which is not copied; the caller
    gives immutable pieces or ones that it won't touch again.  A packet in several pieces is put
    together in one buffer of its length: each byte is copied once.
    """

    __slots__ = ("_filled", "_header", "_max_packet", "_packet")

    def __init__(self, max_packet: int) -> None:
        self._max_packet = max_packet  # bytes; bounds what a peer makes us hold
        self._header = b""  # of a length that is not yet complete
        self._packet: memoryview | None = None  # being put together
        self._filled = 0

    def feed(self, piece: Buffer) -> list[memoryview]:
        """The packets that *piece* completes.

        Raises:
            RemoteProtocolError: a length of zero or above the maximum.
        """
        view = piece if type(piece) is memoryview else memoryview(piece)
        end = len(view)
        packets: list[memoryview] = []
        pos = 0
        if self._packet is None and not self._header:
            # Whole packets in one piece: most of what comes.
            limit = self._max_packet
            while end - pos > _HEADER:
                start = pos + _HEADER
                stop = start + _LENGTH.unpack_from(view, pos)[0]
                if not start < stop <= end or stop - start > limit:
                    break
                packets.append(view[start:stop])
                pos = stop
        while pos < end:
            packet = self._packet
            if packet is not None:
                count = min(len(packet) - self._filled, end - pos)
                packet[self._filled : self._filled + count] = view[pos : pos + count]
                self._filled += count
                pos += count
                if self._filled == len(packet):
                    packets.append(packet)
                    self._packet = None
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
            else:
                self._packet = memoryview(bytearray(length))
                self._filled = 0
        return packets

    def is_inside_packet(self) -> bool:
        """Whether the stream must not end here."""
        return self._packet is not None or bool(self._header)

    def _length(self, header: Buffer) -> int:
        length = int.from_bytes(header, "big")
        if not 0 < length <= self._max_packet:
            raise RemoteProtocolError(
                f"a packet of {length} bytes announced (at most {self._max_packet})"
            )
        return length
