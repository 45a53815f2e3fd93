"""The server's own keys: read, and the first one made when the server starts for the first time."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable

import asyncssh

log = logging.getLogger(__name__)


def load_host_keys(paths: Iterable[str]) -> list[asyncssh.SSHKey]:
    """Read the host keys; the first is made (Ed25519, mode 0600) if its file does not exist.

    Raises:
        OSError: a file cannot be read or made, or others may read it.
        ValueError: a file holds no private key.
    """
    keys: list[asyncssh.SSHKey] = []
    for path in paths:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            if keys:
                raise
            keys.append(_make_host_key(path))
            continue
        with open(fd, "rb") as file:
            if os.fstat(fd).st_mode & 0o077:
                raise PermissionError(f"{path}: others may read this host key (chmod 600)")
            try:
                keys.append(asyncssh.import_private_key(file.read()))
            except asyncssh.KeyImportError as error:
                raise ValueError(f"{path}: {error}") from None
    return keys


def _make_host_key(path: str) -> asyncssh.SSHKey:
    key = asyncssh.generate_private_key("ssh-ed25519", comment="netfs serve")
    os.makedirs(os.path.dirname(os.path.abspath(path)), mode=0o700, exist_ok=True)
    # Whole or not at all, and never readable by others, not even for a moment.
    temporary = f"{path}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)  # of a start that was killed
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        file.write(key.export_private_key())
        file.flush()
        os.fsync(fd)
    os.rename(temporary, path)
    with open(f"{path}.pub", "wb") as public:
        public.write(key.export_public_key())
    log.info("host-key-made path=%r fingerprint=%s", path, key.get_fingerprint())
    return key
