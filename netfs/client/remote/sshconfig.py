"""ssh_config files: which words hold for a host.

Source: ssh_config(5).  Read here, and not by asyncssh, because half of the words that users rely
on are unknown there, and because files must be found through getpwuid (run_as, mount helpers
without $HOME).  ``ssh -G`` is not asked: there may be no ssh.
"""

from __future__ import annotations

import glob
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from netfs.client.config import Config, SshConfig
from netfs.client.remote.errors import ConnectError
from netfs.client.remote.hostkeys import matches_patterns
from netfs.client.remote.sshsettings import (
    Person,
    Settings,
    bad,
    person,
    settings,
    unsupported,
)

SYSTEM_FILE: Final = "/etc/ssh/ssh_config"

_REPEATED: Final = frozenset({"identityfile", "certificatefile", "sendenv", "localforward"})
"""Words of which every value counts; of the others the first."""

_WHOLE_LINE: Final = frozenset(
    {"proxycommand", "localcommand", "remotecommand", "knownhostscommand"}
)
"""Words whose value is the rest of the line, as it is."""

_MAX_INCLUDES: Final = 16  # depth; ssh's own limit
_MATCH_EXEC_TIMEOUT_S: Final = 10.0


def settings_for(
    ssh: SshConfig, host: str, *, user: str | None = None, port: int | None = None
) -> Settings:
    """Settings for the mount's server: -o words before those of the files.

    Raises:
        ConnectError: BAD_CONFIG.
    """
    who = person(ssh.run_as)
    words = {word: list(values) for word, values in ssh.keywords.items()}
    return _settings(ssh, words, who, host, user, port)


def settings_for_hop(
    ssh: SshConfig, host: str, *, user: str | None = None, port: int | None = None
) -> Settings:
    """Settings for a ProxyJump hop: the files' words only."""
    return _settings(ssh, {}, person(ssh.run_as), host, user, port)


def _settings(
    ssh: SshConfig,
    words: dict[str, list[str]],
    who: Person,
    host: str,
    user: str | None,
    port: int | None,
) -> Settings:
    # What stands in the source wins over every file, and is what Match user sees.
    if user is not None:
        words["user"] = [user]
    if port is not None:
        words["port"] = [str(port)]
    reader = _Reader(host, who, words)
    for file in _files(ssh, who):
        reader.read(file)
    if reader.wants_final:
        reader = _Reader(host, who, reader.words, final=True)  # what is set stays
        for file in _files(ssh, who):
            reader.read(file)
    return settings(reader.words, host, who, os.environ)


def unsupported_keywords(config: Config) -> list[str]:
    """Words given as -o or in the user's own file that change something netfs does not do."""
    words = dict(config.ssh.keywords)
    if config.ssh.ssh_command is not None:
        return []  # ssh itself gets them
    try:
        who = person(config.ssh.run_as)
        reader = _Reader(config.source.host, who, {})
        for file in _files(config.ssh, who):
            if file != SYSTEM_FILE:  # a distribution's defaults are not the user's wish
                reader.read(file)
        words.update((w, tuple(v)) for w, v in reader.words.items() if w not in words)
    except ConnectError:
        return unsupported(words)  # connect() reports what is wrong with the file
    ignored = set(" ".join(words.get("ignoreunknown", ())).lower().replace(",", " ").split())
    return [word for word in unsupported(words) if word not in ignored]


def split_destination(text: str) -> tuple[str | None, str, int | None]:
    """(user, host, port) of ``[user@]host[:port]`` or ``ssh://...``; IPv6 in brackets.

    Raises:
        ConnectError: BAD_CONFIG.
    """
    rest = text.removeprefix("ssh://").rstrip("/")
    user, at, rest = rest.rpartition("@")
    host, colon, port = rest, "", ""
    if rest.startswith("["):
        host, bracket, port = rest[1:].partition("]")
        colon, port = port[:1], port[1:]
        if not bracket or colon not in ("", ":"):
            raise bad(f"{text}: not a destination")
    elif rest.count(":") == 1:
        host, colon, port = rest.partition(":")
    if not host or (colon and not (port.isdecimal() and 0 < int(port) < 65536)):
        raise bad(f"{text}: [user@]host[:port] is expected")
    return (user if at else None), host, int(port) if colon else None


def _files(ssh: SshConfig, who: Person) -> list[str]:
    if ssh.config_file is None:
        return [f"{who.home}/.ssh/config", SYSTEM_FILE]
    if ssh.config_file == "none":
        return []
    file = who.expand(ssh.config_file)
    if not os.path.exists(file):
        raise bad(f"{file}: no such file; -F none reads none")
    return [file]


@dataclass(slots=True)
class _Reader:
    """Collects the words that hold for one host, file after file."""

    host: str
    who: Person
    given: Mapping[str, Sequence[str]]  # before all files
    final: bool = False
    wants_final: bool = False
    words: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.words = {word: list(values) for word, values in self.given.items()}

    def read(self, file: str, active: bool = True, depth: int = 0) -> None:
        """Add what *file* says; a missing file says nothing.

        Raises:
            ConnectError: BAD_CONFIG with file and line.
        """
        if depth > _MAX_INCLUDES:
            raise bad(f"{file}: Include nested more than {_MAX_INCLUDES} deep")
        outer = active
        for where, word, rest in _lines(file):
            if word == "host":
                active = outer and matches_patterns(_split(where, rest), self.host)
            elif word == "match":
                active = self._match(where, _split(where, rest), outer)
            elif word == "include":
                for name in self._included(where, rest):
                    self.read(name, active, depth + 1)
            elif active:
                self._add(where, word, rest)

    def _add(self, where: str, word: str, rest: str) -> None:
        if word in _WHOLE_LINE:
            value = rest
        else:
            # One value may be of several words (SendEnv A B, UserKnownHostsFile a b).
            value = " ".join(_split(where, rest))
        if not value:
            raise bad(f"{where}: {word} needs a value")
        if word not in self.words:
            self.words[word] = [value]
        elif word in _REPEATED and value not in self.words[word]:
            self.words[word].append(value)

    def _included(self, where: str, rest: str) -> Iterator[str]:
        for pattern in _split(where, rest):
            path = self.who.expand(pattern)
            if not os.path.isabs(path):
                is_system = where.startswith("/etc/")
                path = os.path.join("/etc/ssh" if is_system else f"{self.who.home}/.ssh", path)
            yield from sorted(glob.glob(path))

    def _match(self, where: str, words: Sequence[str], active: bool) -> bool:
        """Whether a Match line holds.  All its conditions must."""
        remaining = list(words)
        if not remaining:
            raise bad(f"{where}: Match needs a condition")
        while remaining:
            condition = remaining.pop(0).lower()
            negated = condition.startswith("!")
            condition, equals, value = condition.removeprefix("!").partition("=")
            if condition == "final":
                self.wants_final = True
            if condition in ("all", "canonical", "final"):
                holds = condition == "all" or (condition == "final" and self.final)
            else:
                if not equals:
                    if not remaining:
                        raise bad(f"{where}: Match {condition} needs a pattern")
                    value = remaining.pop(0)
                # Nothing is run for a line that is lost already.
                holds = active and self._condition(where, condition, value)
            active = active and holds is not negated
        return active

    def _condition(self, where: str, condition: str, value: str) -> bool:
        first = {word: values[0] for word, values in self.words.items() if values}
        subjects = {
            "host": first.get("hostname", self.host).replace("%h", self.host),
            "originalhost": self.host,
            "user": first.get("user", self.who.name),
            "localuser": self.who.name,
            "tagged": first.get("tag", ""),
        }
        if condition == "exec":
            return self._run(value)
        if condition in ("localnetwork", "command", "sessiontype", "version"):
            return condition == "sessiontype" and value.lower() == "subsystem"
        if condition not in subjects:
            raise bad(f"{where}: Match {condition} is not understood")
        return matches_patterns(value.split(","), subjects[condition])

    def _run(self, command: str) -> bool:
        """Whether the shell command of ``Match exec`` succeeds."""
        tokens = {"%h": self.host, "%n": self.host, "%u": self.who.name, "%%": "%"}
        tokens["%r"] = self.words.get("user", [self.who.name])[0]
        tokens["%p"] = self.words.get("port", ["22"])[0]
        for token, value in tokens.items():
            command = command.replace(token, value)
        try:
            done = subprocess.run(
                ["/bin/sh", "-c", command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=_MATCH_EXEC_TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return False  # a condition that can't be found true does not hold
        return done.returncode == 0


def _lines(file: str) -> Iterator[tuple[str, str, str]]:
    """("file:line", lower-case word, rest) of each line that says something."""
    try:
        with open(file, encoding="utf-8", errors="surrogateescape") as opened:
            text = opened.read()
    except FileNotFoundError:
        return  # no file is the usual case
    except OSError as exc:
        raise bad(f"{file}: {(exc.strerror or '').lower()}") from None
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        # "Word value", "Word=value" and "Word = value" are the same.
        word = line.split("=", 1)[0].split(None, 1)[0]
        rest = line[len(word) :].lstrip()
        if rest.startswith("="):
            rest = rest[1:].lstrip()
        yield f"{file}:{number}", word.lower(), rest


def _split(where: str, text: str) -> list[str]:
    """Words of a value: quotes join, backslash keeps a quote, a word beginning with # ends it."""
    words: list[str] = []
    current: list[str] | None = None
    quote = ""
    position = 0
    while position < len(text):
        char = text[position]
        position += 1
        if char == "\\" and text[position : position + 1] in ("\\", "'", '"', " "):
            current = [*(current or []), text[position]]
            position += 1
        elif quote:
            if char == quote:
                quote = ""
            else:
                current = [*(current or []), char]
        elif char in "'\"":
            quote, current = char, current or []
        elif char in " \t":
            if current is not None:
                words.append("".join(current))
            current = None
        elif char == "#" and current is None:
            break
        else:
            current = [*(current or []), char]
    if quote:
        raise bad(f"{where}: a quote is not closed")
    if current is not None:
        words.append("".join(current))
    return words
