"""Identity: whose a remote file is here, whose a local file is there, and what its mode looks like.

The one place for ``idmap``, uid=, gid=, umask=, fmask=, dmask= and for who owns what a caller
creates.  Only ``ask_login`` waits.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from netfs.client.config import IdentityConfig

if TYPE_CHECKING:
    from netfs.client.remote.api import Remote


_MAX_SHOWN: Final = 4096
"""Numbers remembered: more than a server has users, unless it invents them."""


class Login(NamedTuple):
    """Whom the server takes us for: the owner of the login directory, as far as one can see."""

    uid: int
    gid: int


async def ask_login(remote: Remote) -> Login | None:
    """The owner of the login directory, as sshfs finds it out; None where it cannot be seen."""
    try:
        attrs = await remote.stat(b".")
    except OSError:
        return None  # e.g. a home that does not exist: then nothing is mapped
    if attrs.uid is None or attrs.gid is None:
        return None
    return Login(attrs.uid, attrs.gid)


class Owner(NamedTuple):
    """A file's owner; None: leave it."""

    uid: int | None
    gid: int | None


class _Shown(dict[int | None, int]):
    """What is shown for a number of the server's, worked out once for each."""

    def __init__(self, show: Callable[[int], int] | Callable[[int | None], int]) -> None:
        self._show: Callable[[Any], int] = show

    def __missing__(self, remote: int | None) -> int:
        shown = self._show(remote)
        if len(self) >= _MAX_SHOWN:
            self.clear()
        self[remote] = shown
        return shown


class Identity:
    """The mapping of one mount, both ways.

    Args:
        config: what the user asked for.
        local_uid: whose the mount is, with local_gid.
        login: None while unknown (delay_connect): then nothing is mapped.
        shared: other users reach the mount too (allow_other).
    """

    def __init__(
        self,
        config: IdentityConfig,
        *,
        local_uid: int,
        local_gid: int,
        login: Login | None = None,
        shared: bool = False,
    ) -> None:
        self._config = config
        self._local_uid = local_uid
        self._local_gid = local_gid
        self._shared = shared
        self._strict = config.idmap == "file" and config.nomap == "error"
        self._file_permissions = _permissions(config.fmask, config.umask)
        self._dir_permissions = _permissions(config.dmask, config.umask)
        self.login: Login | None = None
        self._is_root = False  # as far as one can see
        self._uids: dict[int, int] = {}
        self._gids: dict[int, int] = {}
        self._remote_uids: dict[int, int] = {}
        self._remote_gids: dict[int, int] = {}
        # As ``uid``, ``gid`` and ``mode``, for what is asked once per file of a listing.
        self.uids = _Shown(self.uid)
        self.gids = _Shown(self.gid)
        self.modes = _Shown(self.mode)
        self.set_login(login)

    def set_login(self, login: Login | None) -> None:
        """The server told whom it takes us for."""
        self.login = login
        self._is_root = login is not None and login.uid == 0
        self.uids.clear()
        self.gids.clear()
        config = self._config
        if config.idmap == "file":
            self._uids, self._gids = dict(config.uid_map), dict(config.gid_map)
        elif config.idmap == "user" and login is not None:
            self._uids, self._gids = {login.uid: self._local_uid}, {login.gid: self._local_gid}
        self._remote_uids = {local: remote for remote, local in self._uids.items()}
        self._remote_gids = {local: remote for remote, local in self._gids.items()}

    # --- server to here ------------------------------------------------------------------------

    def uid(self, remote: int | None) -> int:
        """The owner to show.  Raises: OSError(EPERM) for an unmapped one (nomap=error)."""
        if self._config.uid is not None:
            return self._config.uid
        if remote is None:
            return self._local_uid
        return self._map(self._uids, remote)

    def gid(self, remote: int | None) -> int:
        """The group to show.  Raises: as ``uid``."""
        if self._config.gid is not None:
            return self._config.gid
        if remote is None:
            return self._local_gid
        return self._map(self._gids, remote)

    def mode(self, remote: int) -> int:
        """The mode to show; umask, fmask and dmask replace the permissions, as in libfuse."""
        kind = stat.S_IFMT(remote)
        permissions = self._dir_permissions if kind == stat.S_IFDIR else self._file_permissions
        if permissions is None or kind == stat.S_IFLNK:
            return remote
        return kind | permissions

    # --- here to the server ----------------------------------------------------------------------

    def remote_uid(self, local: int) -> int:
        """The owner to ask the server for.  Raises: OSError(EPERM) as ``uid``."""
        return self._map(self._remote_uids, local)

    def remote_gid(self, local: int) -> int:
        return self._map(self._remote_gids, local)

    def creator(self, uid: int, gid: int, setgid_dir: bool, made_uid: int | None) -> Owner | None:
        """Whose a new file is to be on the server, where that is not the server's own choice.

        Only a connection as root may give files away, and only a shared mount has other callers.
        In a directory with the setgid bit the group is the directory's.

        Args:
            made_uid: whose the server made it.  A login that looks like root's and makes somebody
                else's files is none: its directory only belongs to root (ChrootDirectory), or
                root may nothing there (a squashed export).
        """
        if made_uid:
            self._is_root = False
        login = self.login
        if login is None or login.uid != 0 or made_uid or not self._shared:
            return None
        wanted = Owner(
            self._remote_uids.get(uid, uid),
            None if setgid_dir else self._remote_gids.get(gid, gid),
        )
        if wanted.uid == login.uid and wanted.gid in (None, login.gid):
            return None
        return wanted

    # --- access(2) -------------------------------------------------------------------------------

    def may(self, mask: int, owner: int | None, group: int | None, mode: int) -> bool | None:
        """Whether the server lets us do *mask* (R_OK, W_OK, X_OK) to a remote file.

        It decides by what it takes us for, whoever the local caller is; so its own numbers and
        mode are looked at, not those shown.  None: it depends on what nobody told us about.
        """
        login = self.login
        if login is None or owner is None or (login.uid == 0 and not self._is_root):
            return None
        if login.uid == 0:
            return not mask & os.X_OK or stat.S_ISDIR(mode) or bool(mode & 0o111)
        if owner == login.uid:
            return mask & ~(mode >> 6) & 7 == 0
        as_group = mask & ~(mode >> 3) & 7 == 0
        as_other = mask & ~mode & 7 == 0
        if group == login.gid:
            return as_group
        return as_group if as_group == as_other else None

    def _map(self, table: dict[int, int], number: int) -> int:
        mapped = table.get(number)
        if mapped is not None:
            return mapped
        if self._strict:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        return number


def _permissions(mask: int | None, umask: int | None) -> int | None:
    """The permissions every file is shown with, None: its own."""
    if mask is None:
        mask = umask
    return None if mask is None else 0o777 & ~mask
