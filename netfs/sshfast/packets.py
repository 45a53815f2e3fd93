"""What both directions know of SSH packets under AES-GCM."""

from __future__ import annotations

import struct
from typing import Any, Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

WINDOW_ADJUST: Final = 93  # RFC 4254 §9; OpenSSH sends one for each 96 KiB
CHANNEL_DATA: Final = 94
IGNORE: Final = 2  # RFC 4253 §12
TAG: Final = 16  # RFC 5647 §5.1
BLOCK: Final = 16
DATA_STRUCT: Final = struct.Struct(">BBII")  # padding length, type, channel, length
DATA_HEAD: Final = DATA_STRUCT.size

# From cryptography 47 on; before it, one buffer more is made for each packet.
OPENS_INTO: Final = hasattr(AESGCM, "decrypt_into")
SEALS_INTO: Final = hasattr(AESGCM, "encrypt_into")

IV: Final = struct.Struct(">4sQ")  # a fixed part and a counter.  Source: RFC 5647 §7.1
COUNTER: Final = 0xFFFF_FFFF_FFFF_FFFF


def step(cipher: Any) -> None:
    """The nonce of the next packet, as asyncssh does it.  Source: RFC 5647 §7.1."""
    fixed, counter = IV.unpack(cipher._iv)
    cipher._iv = IV.pack(fixed, (counter + 1) & COUNTER)
