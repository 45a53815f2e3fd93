"""argv and ``-o`` lists become a Config, or one line that says what is wrong.

Opens nothing but the id files; connects nowhere and touches no mountpoint.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Final
from urllib.parse import unquote_to_bytes

from netfs.cli import idfiles, options
from netfs.cli.options import Option
from netfs.client.config import Config, MountConfig, SourceConfig

_URL: Final = re.compile(r"(?:sftp|ssh)://", re.IGNORECASE)
_LEGACY: Final = re.compile(r"(?:netfs|sshfs)#")


class UsageError(Exception):
    """A command line that can't be meant; the text is one line for the user."""


@dataclass(slots=True)
class Given:
    """What the command line says, not yet put together."""

    source: str | None = None
    mountpoint: str | None = None
    fields: dict[str, object] = field(default_factory=dict)  # dotted Config field -> value
    notes: list[str] = field(default_factory=list)
    words: set[str] = field(default_factory=set)  # names of all options given


def split_options(text: str) -> list[str]:
    """Split an ``-o`` list at its commas.

    ``\\`` makes the next character literal (``\\ooo`` is one by its octal number), and a value that
    begins with a double quote ends at the next one.
    """
    items: list[str] = []
    item: list[str] = []
    position, quoted = 0, False
    while position < len(text):
        char = text[position]
        position += 1
        if char == "\\" and position < len(text):
            octal = text[position : position + 3]
            if re.fullmatch(r"[0-3][0-7]{2}", octal):
                item.append(chr(int(octal, 8)))
                position += 3
            else:
                item.append(text[position])
                position += 1
        elif char == '"' and (quoted or (item and item[-1] == "=")):
            quoted = not quoted
        elif char == "," and not quoted:
            items.append("".join(item))
            item = []
        else:
            item.append(char)
    if quoted:
        raise UsageError(f"option list {text!r}: the quote is not closed")
    items.append("".join(item))
    return [item for item in items if item]


def parse_source(text: str, *, hostless: bool = False) -> SourceConfig:
    """``[user@]host:[dir]``, ``sftp://[user@]host[:port]/path`` or either after ``netfs#``."""
    shown = _LEGACY.sub("", text, count=1)
    source = _parse_url(shown) if _URL.match(shown) else _parse_scp(shown)
    if not source.host and not hostless:
        raise UsageError(f"source {text!r}: the host is missing")
    for what, value in (("host", source.host), ("user", source.user or "")):
        if value.startswith("-"):
            raise UsageError(f"source {text!r}: a {what} can't begin with '-'")
        if re.search(r"[\s\0]", value):
            raise UsageError(f"source {text!r}: a {what} can't contain white space")
    return source


def _parse_url(text: str) -> SourceConfig:
    rest = _URL.sub("", text, count=1)
    authority, slash, path = rest.partition("/")
    login, _, place = authority.rpartition("@")
    match = re.fullmatch(r"(?:\[([^\]]+)\]|([^:\[\]]*))(?::(\d*))?", place)
    if match is None:
        raise UsageError(f"source {text!r}: not a URL like sftp://user@host:port/path")
    port = int(match[3]) if match[3] else None
    if port is not None and not 0 < port < 65536:
        raise UsageError(f"source {text!r}: the port must be 1 to 65535")
    user = os.fsdecode(unquote_to_bytes(login.partition(":")[0])) if login else None
    decoded = unquote_to_bytes(slash + path)
    if decoded == b"/~" or decoded.startswith(b"/~/"):
        decoded = decoded[3:]
    # RFC 6874: the sign before an IPv6 address's interface is written %25 in a URL
    host = match[1].replace("%25", "%") if match[1] else match[2]
    return _source(text, host, user or None, port, decoded)


def _parse_scp(text: str) -> SourceConfig:
    match = re.fullmatch(r"(?:([^:\[\]]+)@)?(?:\[([^\]]+)\]|([^:\[\]@]*)):(.*)", text, re.DOTALL)
    if match is None or match[4].startswith(":"):
        hint = " (an IPv6 address needs brackets)" if text.count(":") > 1 else ""
        raise UsageError(f"source {text!r}: not like [user@]host:[dir]{hint}")
    directory = match[4]
    if directory == "~" or directory.startswith("~/"):
        directory = directory[2:]
    return _source(text, match[2] or match[3], match[1], None, os.fsencode(directory))


def _source(text: str, host: str, user: str | None, port: int | None, path: bytes) -> SourceConfig:
    if b"\0" in path:
        raise UsageError(f"source {text!r}: a path can't contain NUL")
    return SourceConfig(text=text, host=host, user=user, port=port, path=path)


def resolve_mountpoint(text: str) -> str:
    """*text* made absolute and free of symlinks, without touching what is mounted there."""
    if text.startswith("/dev/fd/"):
        return text
    stripped = text.rstrip("/") or "/"
    parent, name = os.path.split(stripped)
    if name in ("", ".", ".."):
        return os.path.realpath(stripped)
    path = os.path.join(os.path.realpath(parent or "."), name)
    try:
        # readlink does not follow, so it can't reach a mount that hangs
        target = os.readlink(path)
    except OSError:
        return path  # not a symlink, or missing: mounting says it better
    return resolve_mountpoint(os.path.join(os.path.dirname(path), target))


def apply_option(given: Given, item: str) -> None:
    """Add one ``name`` or ``name=value`` to *given*."""
    name, equals, text = item.partition("=")
    option = options.find(name)
    if option is None:
        if name.startswith(options.PREFIXES):
            return
        raise UsageError(f"unknown option {name!r}{_near(name)}")
    given.words.add(option.name)
    notes = [] if option.note is None else [option.note]
    notes += [
        f"{name}={word}: has no effect" for word in text.split(":") if word in option.obsolete
    ]
    given.notes += [note for note in notes if note not in given.notes]
    if option.kind is None:
        if equals:
            raise UsageError(f"option {name!r} takes no value")
        _add(given, option.sets)
    elif not equals:
        if not option.optional:
            raise UsageError(f"option {name!r} needs a value: {option.kind.allowed}")
    else:
        _add(given, _read(option, name, text))


def _read(option: Option, name: str, text: str) -> Mapping[str, object]:
    assert option.kind is not None
    try:
        value = option.kind.read(text)
    except ValueError:
        raise UsageError(
            f"option {name!r}: {text!r} is not allowed; it takes {option.kind.allowed}"
        ) from None
    if isinstance(value, Mapping):
        return value
    return dict.fromkeys(option.fields, value)


def _add(given: Given, sets: Mapping[str, object]) -> None:
    for name, value in sets.items():
        before = given.fields.get(name, ())
        if name == "mount.flags":
            assert isinstance(before, tuple)
            assert isinstance(value, tuple)
            given.fields[name] = before + value
        elif name.startswith("ssh.keywords."):
            assert isinstance(before, tuple)
            given.fields[name] = (*before, value)
        else:
            given.fields[name] = value


def _near(name: str) -> str:
    near = difflib.get_close_matches(name, options.BY_NAME, n=1, cutoff=0.6)
    return f"; did you mean {options.BY_NAME[near[0]].name!r}?" if near else ""


def parse_arguments(argv: Sequence[str]) -> Given:
    """Read the words after ``netfs`` as sshfs does: options and the two operands in any order."""
    given = Given()
    operands: list[str] = []
    words = iter(argv)
    for word in words:
        if word == "--":
            operands.extend(words)
        elif word.startswith("--"):
            _long(given, word)
        elif word.startswith("-") and word != "-":
            _short(given, word[1:], words)
        else:
            operands.append(word)
    if len(operands) > 2:
        raise UsageError(f"unexpected argument {operands[2]!r}")
    given.source, given.mountpoint = [*operands, None, None][:2]
    return given


def _long(given: Given, word: str) -> None:
    match word:
        case "--debug":
            apply_option(given, "debug")
        case "--verbose":
            given.fields["daemon.log_level"] = "debug"
        case _:
            raise UsageError(f"unknown option {word!r}; see netfs --help")


def _short(given: Given, letters: str, words: Iterator[str]) -> None:
    while letters:
        letter, letters = letters[0], letters[1:]
        if letter in "opF":
            value = letters or next(words, None)
            if value is None:
                raise UsageError(f"option '-{letter}' needs a value")
            letters = ""
            if letter == "o":
                for item in split_options(value):
                    apply_option(given, item)
            elif letter == "p":
                apply_option(given, f"Port={value}")
            else:
                given.fields["ssh.config_file"] = (
                    value if value.lower() == "none" else os.path.abspath(value)
                )
            continue
        match letter:
            case "f":
                given.fields["daemon.foreground"] = True
            case "d":
                apply_option(given, "debug")
            case "C":
                apply_option(given, "Compression=yes")
            case "v":
                given.fields["daemon.log_level"] = "debug"
            case "s" | "2":
                pass  # sshfs's single thread and SSH version 2: netfs is both
            case "1":
                apply_option(given, "ssh_protocol=1")
            case _:
                raise UsageError(f"unknown option '-{letter}'; see netfs --help")


def build(given: Given) -> Config:
    """Put together what was given; checks what belongs together."""
    if given.source is None:
        raise UsageError("the source is missing: netfs [user@]host:[dir] MOUNTPOINT")
    if given.mountpoint is None:
        raise UsageError("the mountpoint is missing: netfs [user@]host:[dir] MOUNTPOINT")
    values = dict(given.fields)
    source = parse_source(given.source, hostless=bool(values.get("ssh.passive")))
    port = _keyword_port(values)
    if port is not None:
        source = replace(source, port=port)
    subdir = _read_modules(values)
    if subdir is not None:
        source = replace(source, path=os.path.join(source.path, os.fsencode(subdir)))
    _check(values)
    _read_id_files(values)
    _read_timing(values)
    mountpoint = resolve_mountpoint(given.mountpoint)
    if mountpoint.startswith("/dev/fd/"):
        values["link.remount"] = False  # a file descriptor can be mounted once
    return _assemble(source, mountpoint, values)


def _read_modules(values: dict[str, object]) -> str | None:
    """What libfuse's modules are told; the subdirectory, if there is one."""
    modules = values.pop("modules", frozenset())
    assert isinstance(modules, frozenset)
    subdir, there, here = (values.pop(name, None) for name in ("subdir", "from_code", "to_code"))
    if (subdir is not None) != ("subdir" in modules):
        raise UsageError("options 'modules=subdir' and 'subdir=DIR' belong together")
    if (there is not None or here is not None) != ("iconv" in modules):
        raise UsageError("options 'modules=iconv' and 'from_code' or 'to_code' belong together")
    if "iconv" in modules:
        values["semantics.charset"] = (there or "utf-8", here or "utf-8")
    return None if subdir is None else str(subdir)


def _keyword_port(values: dict[str, object]) -> int | None:
    ports = values.pop("ssh.keywords.port", None)
    if not isinstance(ports, tuple):
        return None
    text = ports[0]
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise UsageError(f"option 'port': {text!r} is not allowed; it takes 1 to 65535")
    return int(text)


def _check(values: Mapping[str, object]) -> None:
    if values.get("mount.allow_other") and values.get("mount.allow_root"):
        raise UsageError("options 'allow_other' and 'allow_root' exclude each other")
    ways = [
        name
        for name in ("ssh_command", "directport", "vsock", "passive")
        if values.get(f"ssh.{name}")
    ]
    if len(ways) > 1:
        raise UsageError(f"options {ways[0]!r} and {ways[1]!r} exclude each other")
    if values.get("ssh.passive") and values.get("ssh.password_stdin"):
        raise UsageError("options 'passive' and 'password_stdin' both need standard input")
    if values.get("ssh.run_as") and os.geteuid() != 0:
        raise UsageError("option 'run_as': only root may use another user's keys")
    if values.get("identity.idmap") == "file" and not (
        values.get("uidfile") or values.get("gidfile")
    ):
        raise UsageError("option 'idmap=file' needs 'uidfile=FILE' or 'gidfile=FILE'")


def _read_id_files(values: dict[str, object]) -> None:
    for name, read in (("uid", idfiles.read_users), ("gid", idfiles.read_groups)):
        path = values.pop(f"{name}file", None)
        if isinstance(path, str):
            try:
                values[f"identity.{name}_map"] = read(path)
            except ValueError as error:
                raise UsageError(f"option '{name}file': {error}") from None
            except OSError as error:
                why = (error.strerror or str(error)).lower()
                raise UsageError(f"option '{name}file': {path}: {why}") from None


def _read_timing(values: dict[str, object]) -> None:
    """ssh_config keywords that are time-outs of netfs's own too."""
    for keyword, target, read in (
        ("connecttimeout", "ssh.connect_timeout_s", float),
        ("serveraliveinterval", "ssh.server_alive_interval_s", float),
        ("serveralivecountmax", "ssh.server_alive_count_max", int),
    ):
        given = values.get(f"ssh.keywords.{keyword}")
        if isinstance(given, tuple):
            try:
                value = read(given[0])
            except ValueError:
                raise UsageError(
                    f"option {keyword!r}: {given[0]!r} is not allowed; it takes a number"
                ) from None
            if not 0 <= value < 1e9:
                raise UsageError(f"option {keyword!r}: {given[0]!r} is out of range")
            values[target] = value


def _assemble(source: SourceConfig, mountpoint: str, values: Mapping[str, object]) -> Config:
    grouped: dict[str, dict[str, object]] = {}
    keywords: dict[str, tuple[str, ...]] = {}
    for dotted, value in values.items():
        group, _, name = dotted.partition(".")
        if name.startswith("keywords."):
            assert isinstance(value, tuple)
            keywords[name.removeprefix("keywords.")] = value
        else:
            grouped.setdefault(group, {})[name] = value
    config = Config(source=source, mount=MountConfig(mountpoint=mountpoint))
    parts = {part.name: getattr(config, part.name) for part in fields(config)}
    parts["ssh"] = replace(parts["ssh"], keywords=keywords)
    for group, changes in grouped.items():
        parts[group] = replace(parts[group], **changes)
    return Config(**parts)
