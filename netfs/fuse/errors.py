"""What the codec itself can find wrong.

ValueError
└── FuseProtocolError
    ├── MalformedRequest    the bytes are not the request they claim to be
    ├── NameTooLong         a name of more than NAME_MAX bytes
    └── UnsupportedVersion  INIT from a kernel that is too old, or of another major
"""

from __future__ import annotations


class FuseProtocolError(ValueError):
    """The kernel's bytes can't be used."""


class MalformedRequest(FuseProtocolError):
    """A request that is shorter than its opcode says, or lacks a NUL."""


class NameTooLong(FuseProtocolError):
    """ENAMETOOLONG, as a local filesystem gives it: the kernel passes such names on."""


class UnsupportedVersion(FuseProtocolError):
    """INIT asks for a protocol that is not spoken here."""
