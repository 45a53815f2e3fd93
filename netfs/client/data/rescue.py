"""Where written bytes go that the server does not take any more: a directory on this machine.

One pair of files for each rescued file: NAME.data, sparse, with the bytes at their offsets, and
NAME.txt, which says what they are.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from netfs.wire import Buffer

log = logging.getLogger(__name__)


class Rescued(NamedTuple):
    """One loss, for the status."""

    path: bytes  # remote
    size: int  # bytes
    reason: str
    saved_as: str | None  # None: they could not even be saved


def default_directory() -> Path:
    """The user's state directory (XDG base directories)."""
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return Path(state) / "netfs" / "rescue"


class Rescue:
    """Saves what would be lost; never raises."""

    def __init__(self, directory: str | None) -> None:
        self._directory = Path(directory) if directory is not None else None
        self._stems: dict[bytes, str] = {}  # remote path -> file name, of this mount's losses
        self.losses: list[Rescued] = []

    def save(
        self, path: bytes, pieces: Sequence[tuple[int, Sequence[Buffer]]], reason: str
    ) -> None:
        """Save *pieces* (offset, buffers) of the remote file *path* and log what happened."""
        size = sum(len(part) for _, parts in pieces for part in parts)
        if size == 0:
            return
        saved_as: str | None = None
        try:
            saved_as = str(self._write(path, pieces, reason))
        except OSError as exc:
            log.error(
                "LOST: %d bytes written to %s: %s; and they cannot be saved: %s",
                size, _shown(path), reason, exc,
            )  # fmt: skip
        else:
            log.error(
                "%d bytes written to %s were not taken by the server (%s): saved in %s",
                size, _shown(path), reason, saved_as,
            )  # fmt: skip
        self.losses.append(Rescued(path, size, reason, saved_as))

    def _write(
        self, path: bytes, pieces: Sequence[tuple[int, Sequence[Buffer]]], reason: str
    ) -> Path:
        directory = self._directory if self._directory is not None else default_directory()
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        stem = self._stems.get(path)
        if stem is None:
            name = re.sub(rb"[^A-Za-z0-9._-]", b"_", os.path.basename(path))[:100].decode()
            moment = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
            stem = f"{moment}-{os.getpid()}-{len(self._stems)}-{name}"
            self._stems[path] = stem
        data_path = directory / f"{stem}.data"
        fd = os.open(data_path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            for offset, parts in pieces:
                os.lseek(fd, offset, os.SEEK_SET)
                for part in parts:
                    view = memoryview(part)
                    while view:
                        view = view[os.write(fd, view) :]
        finally:
            os.close(fd)
        note = os.open(
            directory / f"{stem}.txt",
            os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC,
            0o600,
        )
        with open(note, "w", encoding="utf-8", errors="backslashreplace") as file:
            for offset, parts in pieces:
                length = sum(len(part) for part in parts)
                file.write(f"{_shown(path)}: {length} bytes at {offset}: {reason}\n")
        return data_path


def _shown(path: bytes) -> str:
    """*path* as text that a log can hold, on one line."""
    text = path.decode(errors="backslashreplace")
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
