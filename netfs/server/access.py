"""The files that say who may log in, as they are now: keys, certificate authorities, passwords.

Read at the start and at SIGHUP.  A file that cannot be read then leaves what was known of it in
force, with an error in the log: nobody is locked out by a slip.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from netfs.server import authorized
from netfs.server.config import ServerConfig

log = logging.getLogger(__name__)


class Access:
    """See the module.  ``load`` raises OSError where a file cannot be read at the start."""

    def __init__(self, config: ServerConfig, *, now: Callable[[], float] = time.time) -> None:
        self._config = config
        self._now = now
        self._keys: dict[bytes, list[authorized.Entry]] = {}
        self._authorities: list[authorized.Entry] = []
        self._passwords: dict[str, authorized.Password] = {}

    def load(self) -> None:
        """Read all files anew.

        Raises:
            OSError: one cannot be read; nothing is changed then.
        """
        keys: dict[bytes, list[authorized.Entry]] = {}
        authorities: list[authorized.Entry] = []
        for name in self._config.authorized_keys:
            entries, refused = authorized.parse(_read(name), name)
            for entry in entries:
                if entry.authority:
                    authorities.append(entry)
                else:
                    keys.setdefault(entry.blob, []).append(entry)
            _warn(refused)
        for name in self._config.user_ca:
            entries, refused = authorized.parse(_read(name), name)
            authorities += entries
            _warn(refused)
        passwords: dict[str, authorized.Password] = {}
        if self._config.passwords is not None:
            name = self._config.passwords
            passwords, refused = authorized.parse_passwords(_read(name), name)
            _warn(refused)
        self._keys, self._authorities, self._passwords = keys, authorities, passwords
        log.info(
            "access-loaded keys=%d authorities=%d passwords=%d",
            sum(map(len, keys.values())), len(authorities), len(passwords),
        )  # fmt: skip
        if not keys and not authorities and not passwords:
            log.warning("nobody-can-login reason='no key, authority or password is configured'")

    def has_passwords(self) -> bool:
        return bool(self._passwords)

    def key(self, blob: bytes, address: str) -> authorized.Entry | None:
        """The first entry of this public key that admits *address* now."""
        for entry in self._keys.get(blob, ()):
            if entry.admits(address, self._now()):
                return entry
        return None

    def authorities(self, address: str) -> list[authorized.Entry]:
        """The authorities whose certificates are taken from *address* now."""
        return [entry for entry in self._authorities if entry.admits(address, self._now())]

    def password(self, user: str) -> authorized.Password:
        """The user's, or one that is never right."""
        return self._passwords.get(user, authorized.NOBODYS)


def _read(name: str) -> str:
    with open(name, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def _warn(refused: list[authorized.Refused]) -> None:
    for where, reason in refused:
        log.warning("key-refused where=%r reason=%r", where, reason)
