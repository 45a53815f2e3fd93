"""Policy: what to do with a request whose answer was lost with the link.

A pure table over all request types.  The request may have been carried out or not; afterwards
the server's state and the caller's answer must be as if it ran exactly once.  How to look is in
``settle.py``; who sends again is ``session.py``.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final

from netfs.sftp import extensions as ext
from netfs.sftp import requests as req
from netfs.sftp.codes import OpenFlag


class Replay(enum.Enum):
    """What to do when the request may have run; one that never left is always sent."""

    SAFE = "it changes nothing: ask again"
    SAME_RESULT = "running it twice leaves what running it once leaves: send again"
    SETTLE = "look whether it ran; send again only if it did not"
    DEAD = "what it is about died with the conversation: done"
    NEVER = "netfs does not send it, or cannot tell whether it ran"


TABLE: Final[Mapping[type, Replay]] = {
    req.Open: Replay.SETTLE,  # by its flags, see ``replay_of``
    req.Close: Replay.DEAD,  # the server closes all handles of a conversation that ends
    req.Read: Replay.SAFE,
    req.Write: Replay.SAME_RESULT,  # at its offset; O_APPEND handles are not used
    req.Lstat: Replay.SAFE,
    req.Fstat: Replay.SAFE,
    req.Setstat: Replay.SAME_RESULT,  # absolute values
    req.Fsetstat: Replay.SAME_RESULT,
    req.Opendir: Replay.SAFE,
    req.Readdir: Replay.SAFE,  # from the start: the position died with the handle
    req.Remove: Replay.SETTLE,
    req.Mkdir: Replay.SETTLE,
    req.Rmdir: Replay.SETTLE,
    req.Realpath: Replay.SAFE,
    req.Stat: Replay.SAFE,
    req.Rename: Replay.SETTLE,
    req.Readlink: Replay.SAFE,
    req.Symlink: Replay.SETTLE,
    ext.PosixRename: Replay.SETTLE,
    ext.Hardlink: Replay.SETTLE,
    ext.StatvfsRequest: Replay.SAFE,
    ext.FstatvfsRequest: Replay.SAFE,
    ext.Fsync: Replay.SAME_RESULT,
    ext.Lsetstat: Replay.SAME_RESULT,
    ext.LimitsRequest: Replay.SAFE,
    ext.ExpandPath: Replay.SAFE,
    ext.CopyData: Replay.SAME_RESULT,  # the kernel refuses overlapping ranges of one file
    ext.HomeDirectory: Replay.SAFE,
    ext.UsersGroupsById: Replay.SAFE,
    ext.AttrsNetfs: Replay.SAFE,
    ext.Extended: Replay.NEVER,
}


def replay_of(request: req.Request) -> Replay:
    """The row of *request*; an OPEN without O_EXCL can be sent again."""
    if isinstance(request, req.Open):
        if request.pflags & OpenFlag.EXCL and request.pflags & OpenFlag.CREAT:
            return Replay.SETTLE
        makes = request.pflags & (OpenFlag.CREAT | OpenFlag.TRUNC)
        return Replay.SAME_RESULT if makes else Replay.SAFE
    return TABLE[type(request)]


REOPEN_MASK: Final = OpenFlag.READ | OpenFlag.WRITE
"""What is kept of an open file's pflags when it is opened again: it is neither made nor cut."""
