"""What ``netfs doctor`` looks at on this machine.  Only looks, and never below a mountpoint."""

from __future__ import annotations

import enum
import os
import re
import shutil
import socket
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from netfs import runtime
from netfs.cli import install
from netfs.supervisor import fusectl, mounts

_AGENT_TIMEOUT_S: Final = 2.0


class Level(enum.Enum):
    """How bad a finding is."""

    OK = "ok"
    NOTE = "note"  # works, but something is missing that some need
    BAD = "bad"  # mounting fails, or is unsafe


class Finding(NamedTuple):
    """One line of the doctor's."""

    level: Level
    subject: str
    text: str
    advice: str = ""  # what to do about it


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Where things are; tests have machines of their own."""

    device: Path = Path("/dev/fuse")
    fuse_conf: Path = Path("/etc/fuse.conf")
    prefix: Path = Path("/")  # of the installed helpers
    path: str | None = None  # None: $PATH
    is_root: bool = os.geteuid() == 0


def machine(place: Machine) -> Iterator[Finding]:
    """Everything that has nothing to do with a server."""
    yield _device(place)
    yield _fusermount(place)
    yield _allow_other(place)
    yield _control_filesystem(place)
    yield from _helpers(place)
    yield _runtime_directory()
    yield from _dead_mounts()


def _device(place: Machine) -> Finding:
    path = place.device
    try:
        mode = path.stat().st_mode
    except OSError as error:
        return Finding(
            Level.BAD,
            "FUSE device",
            f"{path}: {error.strerror}",
            "load the kernel module: modprobe fuse; a container needs --device /dev/fuse",
        )
    if not stat.S_ISCHR(mode):
        return Finding(
            Level.BAD, "FUSE device", f"{path} is not a device", "remove it and load the module"
        )
    if not os.access(path, os.R_OK | os.W_OK):
        return Finding(
            Level.BAD,
            "FUSE device",
            f"{path} may not be opened by this user (mode {mode & 0o777:04o})",
            f"as root: chmod 0666 {path}",
        )
    return Finding(Level.OK, "FUSE device", f"{path} can be opened")


def _fusermount(place: Machine) -> Finding:
    found = shutil.which("fusermount3", path=place.path)
    if found is None:
        if place.is_root:
            return Finding(
                Level.NOTE, "fusermount3", "not installed; only users that are not root need it"
            )
        return Finding(
            Level.BAD,
            "fusermount3",
            "not installed, and only root mounts without it",
            "install the package fuse3",
        )
    status = os.stat(found)
    if not place.is_root and not (status.st_mode & stat.S_ISUID and status.st_uid == 0):
        return Finding(
            Level.BAD,
            "fusermount3",
            f"{found} is not set-user-ID root, so that it can't mount for users",
            f"as root: chown root {found}; chmod u+s {found}",
        )
    return Finding(Level.OK, "fusermount3", found)


def _allow_other(place: Machine) -> Finding:
    try:
        text = place.fuse_conf.read_text(errors="replace")
    except OSError:
        text = ""
    if re.search(r"(?m)^\s*user_allow_other\s*$", text):
        return Finding(Level.OK, "user_allow_other", f"set in {place.fuse_conf}")
    if place.is_root:
        return Finding(Level.OK, "user_allow_other", "not set; root may use allow_other without it")
    return Finding(
        Level.NOTE,
        "user_allow_other",
        f"not set in {place.fuse_conf}: allow_other and allow_root fail for users",
        f"as root: echo user_allow_other >> {place.fuse_conf}",
    )


def _control_filesystem(place: Machine) -> Finding:
    if any(mount.type == "fusectl" for mount in mounts.table()):
        return Finding(Level.OK, "control filesystem", "mounted: the watchdog can abort a mount")
    root = fusectl.open_root()
    if root is not None:
        os.close(root)
        return Finding(
            Level.OK, "control filesystem", "not mounted; the watchdog opens it for itself"
        )
    return Finding(
        Level.NOTE,
        "control filesystem",
        "neither mounted nor permitted: the watchdog can end a stuck mount only with its worker",
        "as root: mount -t fusectl none /sys/fs/fuse/connections",
    )


def _helpers(place: Machine) -> Iterator[Finding]:
    for place_of in install.NAMES:
        path, name = place.prefix / place_of, os.path.basename(place_of)
        if not path.is_file():
            if name == "netfs" and shutil.which("netfs", path=place.path):
                continue  # it was installed some other way
            yield Finding(
                Level.NOTE,
                name,
                f"{path} is not installed: mount(8), fstab, autofs or units do not find netfs",
                "as root: netfs install-helper",
            )
            continue
        first = path.read_text(errors="replace").splitlines()[:1]
        interpreter = first[0].removeprefix("#!").split()[0] if first and first[0][2:] else ""
        if not interpreter.startswith("/") or not os.access(interpreter, os.X_OK):
            yield Finding(
                Level.BAD,
                name,
                f"{path} runs {interpreter or 'nothing'}, which does not exist",
                "as root: netfs install-helper",
            )
        else:
            yield Finding(Level.OK, name, str(path))


def _runtime_directory() -> Finding:
    folder = runtime.directory()
    try:
        runtime.prepare(folder)
    except OSError as error:
        return Finding(
            Level.BAD,
            "runtime directory",
            f"{folder}: {error.strerror or error}",
            "set XDG_RUNTIME_DIR to a directory of yours, or use -o runtime_dir=DIR",
        )
    return Finding(Level.OK, "runtime directory", str(folder))


def _dead_mounts() -> Iterator[Finding]:
    """Mounts of netfs that nobody serves; found by tables and sockets, not by touching them."""
    alive = {record.mountpoint for record in runtime.records()}
    for mount in mounts.table():
        if mount.type == "fuse.netfs" and mount.point not in alive:
            yield Finding(
                Level.NOTE,
                "mount without a supervisor",
                f"{mount.point} ({mount.source})",
                f"if it is dead: umount -l {mount.point} (mounting there again does it, too)",
            )


# --- keys ----------------------------------------------------------------------------------------


def key_file(path: str, *, is_named: bool) -> Finding | None:
    """What is to be said about one identity file; None: a default one that is not there."""
    try:
        status = os.stat(path)
        readable = os.access(path, os.R_OK)
    except OSError as error:
        if not is_named:
            return None
        return Finding(
            Level.BAD, "key", f"{path}: {error.strerror}", "correct IdentityFile, or ssh-keygen"
        )
    if status.st_mode & 0o077 and status.st_uid == os.geteuid():
        return Finding(
            Level.BAD,
            "key",
            f"{path} can be read by others (mode {status.st_mode & 0o777:04o}); it is not used",
            f"chmod 0600 {path}",
        )
    if not readable:
        return Finding(Level.BAD, "key", f"{path} may not be read", "check its owner and mode")
    return Finding(Level.OK, "key", path)


def agent(path: str | None) -> Finding:
    """Whether the authentication agent answers."""
    if not path:
        return Finding(Level.NOTE, "agent", "none (SSH_AUTH_SOCK is not set)")
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(_AGENT_TIMEOUT_S)
            sock.connect(path)
            # SSH_AGENTC_REQUEST_IDENTITIES; draft-miller-ssh-agent §3.5
            sock.sendall(b"\0\0\0\1\x0b")
            reply = sock.recv(9)
    except OSError as error:
        return Finding(
            Level.BAD,
            "agent",
            f"{path}: {error.strerror or error}",
            "start ssh-agent again, or unset SSH_AUTH_SOCK",
        )
    if len(reply) < 9 or reply[4] != 12:
        return Finding(Level.BAD, "agent", f"{path} is not an SSH agent", "unset SSH_AUTH_SOCK")
    count = int.from_bytes(reply[5:9], "big")
    if count == 0:
        return Finding(Level.NOTE, "agent", "it holds no keys", "ssh-add")
    return Finding(Level.OK, "agent", f"{count} keys")
