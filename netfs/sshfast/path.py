"""One connection's short way: what its reading side and its writers share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, Protocol

from asyncssh.encryption import GCMEncryption

from netfs.buffers import Landing, Spares
from netfs.sshfast.packets import IGNORE
from netfs.wire import Buffer

BATCH: Final = 512 * 1024  # bytes sealed before the socket gets them: the pipeline starts early
_BATCHES: Final = 4  # of those are kept: what waits for the socket at a time, and one more
_JOINED: Final = 32 * 1024  # bytes up to which one buffer more to write costs more than a copy


class Turn(Protocol):
    """What receivers put off to the end of all that came in one piece."""

    def begin(self) -> None: ...

    def end(self) -> None: ...


class Outlet(Protocol):
    """Who sends a channel's data."""

    channel: Any

    def waiting(self) -> int: ...

    def flush(self) -> None: ...


class Inlet(NamedTuple):
    """Who gets a channel's data."""

    receive: Callable[[memoryview], None]
    least: int  # window (bytes) below which asyncssh delivers it
    landing: Landing | None  # where it may be put instead
    landed: Callable[[int], None]  # to be told how much was


class FastPath:
    """The short way of one connection: its reading side and the writers of its channels."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._writers: list[Outlet] = []
        self.inlets: dict[Any, Inlet] = {}
        """Of a channel: who gets its data."""
        self.turn: Turn | None = None
        self._is_full = False
        self._is_held = False
        self.batches = Spares(BATCH, _BATCHES)  # what is sealed into one buffer
        self._after_kex = connection._send_deferred_packets
        connection._send_deferred_packets = self._kex_done

    def add(self, writer: Outlet) -> None:
        """Flush *writer* whenever writing becomes possible again."""
        self._writers.append(writer)

    def remove(self, writer: Outlet) -> None:
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
        return self.may_write and self.is_plain

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
            connection.send_packet(IGNORE, bytes(4))

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
        for writer in sorted(self._writers, key=lambda writer: writer.waiting()):
            writer.flush()
