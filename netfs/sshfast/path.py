"""One connection's short way: what its reading side and its writers share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple, Protocol

from asyncssh.encryption import GCMEncryption
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from netfs.buffers import Landing, Spares
from netfs.sshfast.packets import COUNTER, IGNORE, IV, TAG

BATCH: Final = 512 * 1024  # bytes sealed before the socket gets them: the pipeline starts early
_BATCHES: Final = 4  # of those are kept: what waits for the socket at a time, and one more
_JOINED: Final = 32 * 1024  # bytes up to which one buffer more to write costs more than a copy


class Turn(Protocol):
    """What receivers put off to the end of all that came in one piece."""

    depth: int  # grows by one where it begins; ``end`` takes that back

    def end(self) -> None: ...


class _NoTurn:
    """Nobody puts anything off."""

    depth = 0

    def end(self) -> None:
        pass


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
        self.turn: Turn = _NoTurn()
        self._is_full = False
        self._is_held = False
        self._encryption: Any = None  # asyncssh's, whose key _sealer uses
        self._sealer: AESGCM | None = None
        self._batches = Spares(BATCH, _BATCHES)  # what is sealed into one buffer
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

    def sealer(self) -> AESGCM | None:
        """What packets are sealed with now; None where they are compressed, or not AES-GCM."""
        connection = self._connection
        encryption = connection._send_encryption
        if encryption is not self._encryption:  # the keys are new, and compression may be
            self._encryption = encryption
            is_plain = type(encryption) is GCMEncryption and connection._compressor is None
            self._sealer = AESGCM(encryption._cipher._key) if is_plain else None
        return self._sealer

    def send(self, plain: bytes) -> None:
        """Seal the inside of a packet and write it; there must be a ``sealer``."""
        sealer, cipher = self._sealer, self._encryption._cipher
        assert sealer is not None
        iv = cipher._iv
        size = len(plain)
        head = size.to_bytes(4, "big")
        sealed = sealer.encrypt(iv, plain, head)
        fixed, counter = IV.unpack(iv)
        cipher._iv = IV.pack(fixed, (counter + 1) & COUNTER)
        transport = self._connection._transport
        if size <= _JOINED:
            transport.write(head + sealed)
        else:
            transport.writelines((head, sealed))
        self._sent(1, size)

    def send_all(self, plains: Iterable[bytes]) -> None:
        """``send`` the insides of several packets, BATCH bytes when sealed at most, in one go.

        Only where SEALS_INTO.
        """
        sealer, cipher = self._sealer, self._encryption._cipher
        assert sealer is not None
        seal, pack = sealer.encrypt_into, IV.pack
        batch = memoryview(self._batches.take())
        fixed, counter = IV.unpack(cipher._iv)
        end = count = total = 0
        for plain in plains:
            size = len(plain)
            head = size.to_bytes(4, "big")
            start = end + 4
            batch[end:start] = head
            end = start + size + TAG
            seal(pack(fixed, counter), plain, head, batch[start:end])
            counter = (counter + 1) & COUNTER
            count += 1
            total += size
        cipher._iv = pack(fixed, counter)
        self._connection._transport.write(batch[:end])
        self._sent(count, total)

    def _sent(self, count: int, size: int) -> None:
        """*count* packets were written, *size* bytes that count towards the next rekeying."""
        connection = self._connection
        connection._send_seq = (connection._send_seq + count) & 0xFFFFFFFF
        connection._rekey_bytes_sent += size
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
        waiting = [writer for writer in self._writers if writer.waiting()]
        for writer in sorted(waiting, key=lambda writer: writer.waiting()):
            writer.flush()
