"""uidfile and gidfile: which remote id is which local one.  Format and checks as sshfs's."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Callable


def read_users(path: str) -> dict[int, int]:
    """Remote uid -> local uid, from ``name:uid`` or passwd(5) lines."""
    return _read(path, lambda name: pwd.getpwnam(name).pw_uid)


def read_groups(path: str) -> dict[int, int]:
    """Remote gid -> local gid, from ``name:gid`` or group(5) lines."""
    return _read(path, lambda name: grp.getgrnam(name).gr_gid)


def _read(path: str, local_id: Callable[[str], int]) -> dict[int, int]:
    """Read the mapping; names that are unknown here are skipped, as sshfs does.

    Raises:
        OSError: the file can't be read.
        ValueError: somebody else could write it, or a line is malformed.
    """
    mapping: dict[int, int] = {}
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        status = os.fstat(file.fileno())
        if status.st_uid not in (os.geteuid(), 0):
            raise ValueError(f"{path} belongs to another user")
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise ValueError(f"{path} can be written by others")
        for number, line in enumerate(file, 1):
            text = line.strip()
            if not text or text.startswith("#"):
                continue
            parts = text.split(":")
            # name:id, or name:password:id:... as in passwd and group
            remote = parts[1] if len(parts) == 2 else parts[2] if len(parts) > 2 else ""
            if not parts[0] or not remote.isdigit():
                raise ValueError(f"{path}, line {number}: not like name:id")
            try:
                mapping[int(remote)] = local_id(parts[0])
            except KeyError:
                continue  # nobody here has that name
    return mapping
