"""What is mounted where, from /proc/self/mountinfo: the way to know it without touching a mount.

Standard library only: the watchdog uses it too.
"""

from __future__ import annotations

import os
from typing import NamedTuple


class MountEntry(NamedTuple):
    """One line.  Source: proc_pid_mountinfo(5)."""

    mount_id: int
    parent_id: int
    major: int
    minor: int
    mountpoint: str  # file system encoding, surrogateescape
    fstype: str
    source: str

    @property
    def connection(self) -> int:
        """The name of a FUSE mount's directory in the control file system."""
        return self.minor

    @property
    def is_fuse(self) -> bool:
        return self.fstype == "fuse" or self.fstype.startswith("fuse.")


def parse(text: str) -> list[MountEntry]:
    """Read the file's text; the order is the kernel's, later mounts last."""
    entries = []
    for line in text.splitlines():
        before, separator, after = line.partition(" - ")
        if not separator:
            continue  # no line of mountinfo
        fields = before.split(" ")
        fstype, source = after.split(" ")[:2]
        major, _, minor = fields[2].partition(":")
        entries.append(
            MountEntry(
                mount_id=int(fields[0]),
                parent_id=int(fields[1]),
                major=int(major),
                minor=int(minor),
                mountpoint=_unescape(fields[4]),
                fstype=_unescape(fstype),
                source=_unescape(source),
            )
        )
    return entries


def read(path: str = "/proc/self/mountinfo") -> list[MountEntry]:
    """The mounts of this process's namespace."""
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return parse(file.read())


def topmost(entries: list[MountEntry], mountpoint: str) -> MountEntry | None:
    """What is seen at *mountpoint* itself, if it is one: of several the last."""
    found = None
    for entry in entries:
        # Stacked mounts are each other's parents; without stacking the last line wins.
        if entry.mountpoint == mountpoint:
            found = entry
    return found


def containing(entries: list[MountEntry], path: str) -> MountEntry | None:
    """The mount that *path* (absolute, normalized) lies on."""
    found: MountEntry | None = None
    for entry in entries:
        prefix = entry.mountpoint.rstrip("/") + "/"
        if (path == entry.mountpoint or path.startswith(prefix)) and (
            found is None or len(entry.mountpoint) >= len(found.mountpoint)
        ):
            found = entry
    return found


def _unescape(text: str) -> str:
    r"""Undo the kernel's \ooo for space, tab, newline, backslash and '#'."""
    if "\\" not in text:
        return text
    raw = os.fsencode(text)
    out = bytearray()
    position = 0
    while position < len(raw):
        octal = raw[position + 1 : position + 4]
        if raw[position] == 0x5C and len(octal) == 3 and all(0x30 <= c <= 0x37 for c in octal):
            out.append(int(octal, 8) & 0xFF)
            position += 4
        else:
            out.append(raw[position])
            position += 1
    return os.fsdecode(bytes(out))
