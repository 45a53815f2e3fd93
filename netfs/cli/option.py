"""What a row of the option table is, and short ways to write one."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from netfs.cli.kinds import Kind


class Section(enum.Enum):
    """Where a row is shown."""

    CONNECTION = "Connection"
    LINK = "When the link is lost"
    CACHE = "Caches and speed"
    SEMANTICS = "How files look"
    OWNERSHIP = "Whose the files are"
    MOUNT = "The mount"
    PROCESS = "The processes"
    SSH = "ssh_config keywords (any case, as -o KEYWORD=VALUE; see ssh_config(5))"
    ACCEPTED = "Accepted for compatibility, without effect"
    FSTAB = "Words of fstab(5) and mount(8), accepted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option.

    ``kind`` None makes it a flag, which sets ``sets``; otherwise the value goes to each of
    ``fields`` (a kind that reads a mapping names its fields itself).  Fields are dotted paths
    into Config.
    """

    names: tuple[str, ...]  # the first is the one that is shown
    help: str
    section: Section
    kind: Kind | None = None
    fields: tuple[str, ...] = ()
    sets: Mapping[str, object] = field(default_factory=dict)
    default: str = ""
    note: str | None = None  # said once when the option is used; why it does nothing
    obsolete: frozenset[str] = frozenset()  # of its value's words, those that do nothing
    optional: bool = False  # the value may be left out (fstab's user=bob)

    @property
    def name(self) -> str:
        return self.names[0]

    @property
    def usage(self) -> str:
        """As help shows it, e.g. ``link_timeout=SECONDS``."""
        return f"{self.name}={self.kind.metavar}" if self.kind is not None else self.name


def value(
    section: Section, names: str, kind: Kind, fields: str, help: str, default: str = ""
) -> Option:
    return Option(
        names=tuple(names.split()),
        help=help,
        section=section,
        kind=kind,
        fields=tuple(fields.split()),
        default=default,
    )


def flag(section: Section, names: str, help: str, **sets: object) -> Option:
    return Option(
        names=tuple(names.split()),
        help=help,
        section=section,
        sets={name.replace("__", "."): value for name, value in sets.items()},
    )
