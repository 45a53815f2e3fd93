"""Where running mounts are recorded: the runtime directory, one record and one socket a mount.

A record is a hint, never the truth: whoever reads one asks its socket.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

SYSTEM: Final = Path("/run/netfs")


class Record(NamedTuple):
    """One mount that was started."""

    pid: int  # of the supervisor
    mountpoint: str
    source: str
    socket: str  # path of the control socket
    namespace: int  # inode of the mount namespace it was made in


def directory(given: str | None = None) -> Path:
    """The runtime directory of this user: *given*, the session's, or one in /run or /tmp."""
    if given is not None:
        return Path(given)
    if os.geteuid() == 0:
        return SYSTEM
    session = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}"
    if os.path.isdir(session):
        return Path(session, "netfs")
    return Path(f"/tmp/netfs-{os.geteuid()}")


def prepare(path: Path) -> None:
    """Make *path*, private to this user.

    Raises:
        OSError: it can't be made, or belongs to somebody else (/tmp is everybody's).
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise PermissionError(f"{path} belongs to another user")
    if status.st_mode & 0o077:
        path.chmod(0o700)


def namespace() -> int:
    """The inode of this process's mount namespace, 0 where /proc does not tell."""
    try:
        return os.stat("/proc/self/ns/mnt").st_ino
    except OSError:
        return 0


def new_record(path: Path, mountpoint: str, source: str) -> Record:
    """A record for this process; nothing is written yet."""
    pid = os.getpid()
    return Record(pid, mountpoint, source, str(path / f"{pid}.sock"), namespace())


def record_path(record: Record) -> str:
    return record.socket.removesuffix(".sock") + ".json"


def write(record: Record) -> None:
    """Publish *record*; a reader sees all of it or nothing."""
    path = record_path(record)
    partial = f"{path}.new"
    with open(partial, "w", encoding="utf-8") as file:
        json.dump(record._asdict(), file)
    os.replace(partial, path)


def _read(path: Path) -> Record | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return Record(**{name: found[name] for name in Record._fields})
    except (OSError, ValueError, KeyError, TypeError):
        return None  # being removed just now, or not ours


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def records(given: str | None = None) -> Iterator[Record]:
    """The mounts of this user, for root those of all users; leftovers of the dead are removed."""
    directories = [directory(given)]
    if given is None and os.geteuid() == 0:
        directories += Path("/run/user").glob("*/netfs")
        directories += Path("/tmp").glob("netfs-*")
    for folder in directories:
        for path in sorted(folder.glob("*.json")):
            record = _read(path)
            if record is None:
                continue
            if _is_alive(record.pid):
                yield record
            else:
                forget(record)


def find(mountpoint: str, given: str | None = None) -> Record | None:
    """The mount at *mountpoint*, in this mount namespace if there is one, else in any."""
    found = [record for record in records(given) if record.mountpoint == mountpoint]
    here = namespace()
    found.sort(key=lambda record: record.namespace == here)
    return found[-1] if found else None


def forget(record: Record) -> None:
    """Remove what *record* has left in the runtime directory."""
    for path in (record.socket, record_path(record)):
        Path(path).unlink(missing_ok=True)
