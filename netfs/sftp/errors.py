"""What can go wrong between two SFTP peers.

SftpError
├── LocalProtocolError   we asked the codec for what the protocol can't say
└── RemoteProtocolError  the peer sent what the protocol forbids; the conversation can't go on
"""

from __future__ import annotations


class SftpError(Exception):
    """Base of the codec's errors."""


class LocalProtocolError(SftpError):
    """The value can't be put into a packet, or the call is out of order."""


class RemoteProtocolError(SftpError):
    """The peer broke the protocol.  Nothing after it can be trusted."""
