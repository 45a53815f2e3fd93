"""A shorter way for channel data through asyncssh, where the cipher is AES-GCM, and fewer packets
whatever it is; both sides use it.

asyncssh copies each packet about eight times and spends more in Python than in the cipher; here
data is decrypted from the socket's buffer into what the receiver gets, and encrypted into what
the socket sends.  Everything else stays asyncssh's: a packet that is neither data nor a wider
window of an open channel is handed to it unopened, and during a key exchange all writing waits.

This leans on names inside asyncssh.  ``install`` looks for each of them and leaves the connection
alone if one is missing, so that another version is only slower.  Why this is worth it, and what
was measured: docs/adr.
"""

from __future__ import annotations

import copy
import logging
from typing import Any, Final

import asyncssh
from asyncssh.encryption import GCMEncryption

from netfs.sshfast.packets import COUNTER, IGNORE, IV
from netfs.sshfast.path import FastPath
from netfs.sshfast.reader import FastReader
from netfs.sshfast.writer import HIGH_WATER, FastWriter

__all__ = [
    "HIGH_WATER",
    "FastPath",
    "FastReader",
    "FastWriter",
    "install",
    "new_writer",
    "send_no_ignores",
]

log = logging.getLogger(__name__)

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


def send_no_ignores(
    connection: asyncssh.SSHClientConnection | asyncssh.SSHServerConnection,
) -> None:
    """Keep asyncssh from sending an empty IGNORE in front of each packet.

    That hides the initialisation vector of a cipher in CBC mode (RFC 4251 §9.3.1), and it stays
    there.  With other ciphers it costs both ends as much as the packet, and one server waits for
    ever for the packet behind it when both arrive together (tinysshd 20230101).
    """
    inside: Any = connection
    cipher = connection.get_extra_info("send_cipher")
    names = ("send_packet", "_rekey_bytes", "_rekey_bytes_sent")
    if not all(hasattr(inside, name) for name in names) or not cipher or "cbc" in cipher:
        return
    send = inside.send_packet

    def send_packet(kind: int, *parts: bytes, **named: Any) -> None:
        # Whatever is sent when a new key is due has asyncssh ask for it.
        if kind != IGNORE or inside._rekey_bytes_sent >= inside._rekey_bytes:
            send(kind, *parts, **named)

    inside.send_packet = send_packet


def new_writer(
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
    fixed, counter = IV.unpack(cipher._iv)
    return bool(other._iv == IV.pack(fixed, (counter + 1) & COUNTER))
