"""What the codec itself can find wrong.

ValueError
└── FuseProtocolError
    ├── MalformedRequest    the bytes are not the request they claim to be
    └── UnsupportedVersion  INIT from a kernel that is too old, or of another major
"""

from __future__ import annotations


class FuseProtocolError(ValueError):
    """The kernel's bytes can't be used."""


class MalformedRequest(FuseProtocolError):
    """A request that is shorter than its opcode says, or lacks a NUL."""


class UnsupportedVersion(FuseProtocolError):
    """INIT asks for a protocol that is not spoken here."""
