"""fusermount3: how users without privileges mount and unmount.

The helper is set-uid root: it opens the device with the user's rights, mounts, and hands the
descriptor back through a socket.  Its own checks decide what is permitted.
"""

from __future__ import annotations

import array
import os
import re
import shutil
import socket
import subprocess
from typing import Final

from netfs.client.config import MountConfig
from netfs.client.mounterrors import DEVICE, MountError, MountErrorKind

HELPER_S: Final = 30.0
"""How long fusermount3 may take."""

_HELPER_FLAGS: Final = frozenset(
    {"ro", "rw", "noexec", "exec", "sync", "async", "dirsync", "noatime", "atime"}
    | {"nosuid", "nodev"}
)
"""Words that every fusermount3 takes; suid and dev it drops for users anyway."""


def kernel_options(config: MountConfig) -> list[str]:
    """The options that the kernel itself knows, beside fd, rootmode, user_id and group_id.

    The kernel has no allow_root: it is allow_other, and the dispatcher lets only root and the
    mounting user in (``allowed_uids``).
    """
    options = []
    if config.default_permissions:
        options.append("default_permissions")
    if config.allow_other or config.allow_root:
        options.append("allow_other")
    if config.max_read is not None:
        options.append(f"max_read={config.max_read}")
    return options


def helper_options(config: MountConfig, fsname: str) -> str:
    """The option string for fusermount3; a backslash takes its commas' meaning."""
    words = [
        f"fsname={_escape(fsname)}",
        f"subtype={_escape(config.subtype)}",
        *[word for word in config.flags if word not in ("suid", "dev")],
        *kernel_options(config),
    ]
    if config.read_only and "ro" not in words:
        words.append("ro")
    return ",".join(words)


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace(",", "\\,")


def _find_helper() -> str:
    for name in ("fusermount3", "fusermount"):
        path = shutil.which(name) or shutil.which(name, path="/usr/bin:/bin:/usr/local/bin")
        if path is not None:
            return path
    raise MountError(
        MountErrorKind.NO_HELPER,
        "fusermount3 is missing, and only root mounts without it: install the package 'fuse3'",
    )


def mount(config: MountConfig, fsname: str) -> int:
    """Have the helper open the device and mount it; the descriptor that it hands back.

    Raises:
        MountError
    """
    unknown = [word for word in config.flags if word not in _HELPER_FLAGS | {"suid", "dev"}]
    if unknown:
        raise MountError(MountErrorKind.REFUSED, f"only root can mount with {', '.join(unknown)}")
    helper = _find_helper()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        child = subprocess.Popen(
            [helper, "-o", helper_options(config, fsname), "--", config.mountpoint],
            env=_helper_environment() | {"_FUSE_COMMFD": str(theirs.fileno())},
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        theirs.close()
        ours.settimeout(HELPER_S)
        try:
            fd = _receive_fd(ours)
            _, errors = child.communicate(timeout=HELPER_S)
        except (TimeoutError, subprocess.TimeoutExpired):
            child.kill()
            raise MountError(
                MountErrorKind.REFUSED, f"{helper} does not return within {HELPER_S:.0f} s"
            ) from None
    if fd is None:
        raise _helper_error(_last_line(errors), config.mountpoint)
    return fd


def unmount(mountpoint: str, *, lazy: bool) -> str | None:
    """Unmount a mount of this user; None if it is done, else why not.

    Raises:
        MountError: there is no helper, or it hangs.
    """
    command = [_find_helper(), "-u", *(["-z"] if lazy else []), "--", mountpoint]
    try:
        result = subprocess.run(
            command,
            env=_helper_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=HELPER_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise MountError(
            MountErrorKind.REFUSED, f"{command[0]} does not return within {HELPER_S:.0f} s"
        ) from None
    return _last_line(result.stderr) if result.returncode else None


def _receive_fd(channel: socket.socket) -> int | None:
    """The descriptor that the helper sends, close-on-exec; None if it sends none."""
    # socket.recv_fds() drops the flag and would hand out an inheritable descriptor.
    _, ancillary, _, _ = channel.recvmsg(
        1, socket.CMSG_SPACE(array.array("i").itemsize), socket.MSG_CMSG_CLOEXEC
    )
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds = array.array("i")
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
            return fds[0]
    return None


def _helper_error(message: str, mountpoint: str) -> MountError:
    """Its message in our words where the cause is known."""
    if "user_allow_other" in message:
        return MountError(
            MountErrorKind.NOT_PERMITTED,
            "allow_other and allow_root need the line 'user_allow_other' in /etc/fuse.conf",
        )
    if DEVICE in message:
        return MountError(
            MountErrorKind.NO_DEVICE,
            f"{message}; load the kernel module 'fuse' and give this user access to {DEVICE}",
        )
    if "no write access" in message or "not owned" in message or "ermission denied" in message:
        return MountError(
            MountErrorKind.NOT_PERMITTED,
            f"can't mount on {mountpoint}: it must be writable and owned by the user ({message})",
        )
    return MountError(MountErrorKind.REFUSED, f"can't mount on {mountpoint}: {message}")


def _helper_environment() -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C"}


def _last_line(output: bytes) -> str:
    lines = output.decode(errors="replace").strip().splitlines()
    return re.sub(r"^[\w./-]*fusermount3?: ", "", lines[-1]) if lines else "it gives no reason"
