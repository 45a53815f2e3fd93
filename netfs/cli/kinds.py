"""How the text after an option's '=' becomes a value.  Pure; no option is known here."""

from __future__ import annotations

import codecs
import grp
import os
import pwd
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

_SUFFIXES: Final = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of value.  ``read`` raises ValueError; ``allowed`` then tells what would do."""

    metavar: str
    allowed: str
    read: Callable[[str], object]
    words: tuple[str, ...] = ()  # all values there are, for completion


def integer(low: int, high: int | None = None, metavar: str = "N") -> Kind:
    """A whole number from *low* to *high*."""

    def read(text: str) -> int:
        value = int(text)
        if value < low or (high is not None and value > high):
            raise ValueError(text)
        return value

    allowed = f"a whole number of at least {low}" if high is None else f"{low} to {high}"
    return Kind(metavar, allowed, read)


def choice(*words: str) -> Kind:
    """One of a few words."""

    def read(text: str) -> str:
        if text not in words:
            raise ValueError(text)
        return text

    return Kind("|".join(words), " or ".join(words), read, words)


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1e9:  # also refuses nan
        raise ValueError(text)
    return value


def _size(text: str) -> int:
    lowered = text.strip().lower().removesuffix("b").removesuffix("i")
    digits = lowered.rstrip("kmgt")
    value = int(float(digits) * _SUFFIXES[lowered[len(digits) :]])
    if value < 0:
        raise ValueError(text)
    return value


def _checked_size(text: str) -> int:
    try:
        return _size(text)
    except (KeyError, OverflowError):
        raise ValueError(text) from None


def _octal(text: str) -> int:
    value = int(text, 8)
    if not 0 <= value <= 0o7777:
        raise ValueError(text)
    return value


def _yes_no(text: str) -> bool:
    lowered = text.lower()
    if lowered in ("yes", "true", "on", "1"):
        return True
    if lowered in ("no", "false", "off", "0"):
        return False
    raise ValueError(text)


def _text(text: str) -> str:
    if not text or "\0" in text or "\n" in text:
        raise ValueError(text)
    return text


def _path(text: str) -> str:
    return os.path.abspath(os.path.expanduser(_text(text)))


def _command(text: str) -> tuple[str, ...]:
    """Words as a shell splits them (quotes and backslashes), without any expansion."""
    words = tuple(shlex.split(text))
    if not words:
        raise ValueError(text)
    return words


def _user_id(text: str) -> int:
    try:
        return _unsigned(text)
    except ValueError:
        try:
            return pwd.getpwnam(text).pw_uid
        except KeyError:
            raise ValueError(text) from None


def _group_id(text: str) -> int:
    try:
        return _unsigned(text)
    except ValueError:
        try:
            return grp.getgrnam(text).gr_gid
        except KeyError:
            raise ValueError(text) from None


def _unsigned(text: str) -> int:
    value = int(text)
    if not 0 <= value < 0xFFFFFFFF:
        raise ValueError(text)
    return value


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not 0 < int(port) < 65536:
        raise ValueError(text)
    return host.strip("[]") or "127.0.0.1", int(port)


def _vsock(text: str) -> tuple[int, int]:
    cid, _, port = text.partition(":")
    return _unsigned(cid), _unsigned(port)


OBSOLETE_WORKAROUNDS: Final = frozenset({"truncate", "fstat", "buflimit"})
"""sshfs's for servers and kernels of 2007; nothing is left to be done about them."""


def _modules(text: str) -> frozenset[str]:
    words = frozenset(text.split(":"))
    if not words <= {"subdir", "iconv"}:
        raise ValueError(text)
    return words


def _charset(text: str) -> str:
    """A character set in which ASCII is ASCII: the parts of a path must stay its parts."""
    ascii_bytes = bytes(range(0x20, 0x7F))
    ascii_text = ascii_bytes.decode("ascii")
    try:
        name = codecs.lookup(text).name
        if ascii_bytes.decode(name) == ascii_text and ascii_text.encode(name) == ascii_bytes:
            return name
    except (LookupError, UnicodeError) as error:
        raise ValueError(text) from error
    raise ValueError(text)


def _workarounds(text: str) -> Mapping[str, object]:
    """The fields that sshfs's ``workaround=LIST`` sets."""
    fields: dict[str, object] = {}
    for word in text.split(":"):
        match word:
            case "rename" | "norename":
                fields["semantics.rename_workaround"] = word == "rename"
            case "renamexdev" | "norenamexdev":
                fields["semantics.rename_xdev"] = word == "renamexdev"
            case "createmode" | "nocreatemode":
                fields["semantics.create_mode"] = word == "nocreatemode"
            case "none" | "all":
                pass  # accepted, nothing to do
            case _:
                if word.removeprefix("no") not in OBSOLETE_WORKAROUNDS:
                    raise ValueError(text)
    return fields


PORT: Final = integer(1, 65535, "PORT")
COUNT: Final = integer(0)
SECONDS: Final = Kind("SECONDS", "a number of seconds, 0 or more", _seconds)
SIZE: Final = Kind("SIZE", "a number of bytes, also with K, M or G", _checked_size)
OCTAL: Final = Kind("MASK", "an octal mode such as 022", _octal)
YES_NO: Final = Kind("yes|no", "yes or no", _yes_no, ("yes", "no"))
TEXT: Final = Kind("TEXT", "some text", _text)
FILE: Final = Kind("FILE", "a file's name", _path)
DIRECTORY: Final = Kind("DIR", "a directory's name", _path)
COMMAND: Final = Kind("COMMAND", "a command with its arguments", _command)
USER: Final = Kind("USER", "a user's name", _text)
USER_ID: Final = Kind("UID", "a user's name or number", _user_id)
GROUP_ID: Final = Kind("GID", "a group's name or number", _group_id)
ADDRESS: Final = Kind("ADDR:PORT", "an address and a port, such as 127.0.0.1:9100", _address)
VSOCK: Final = Kind("CID:PORT", "a context id and a port, such as 2:22", _vsock)
MODULES: Final = Kind(
    "subdir|iconv", "subdir, iconv, or both joined by ':'", _modules, ("subdir", "iconv")
)
CHARSET: Final = Kind("CHARSET", "a character set that contains ASCII, such as utf-8", _charset)
WORKAROUNDS: Final = Kind(
    "LIST", "rename, renamexdev, none and sshfs's other words, joined by ':'", _workarounds
)
