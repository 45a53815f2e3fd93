"""known_hosts: what is known of a server's key, and remembering a new one.

Reads and appends the files of OpenSSH.  Source: sshd(8), SSH_KNOWN_HOSTS FILE FORMAT.
Knows no SSH library: keys are (type, blob).
"""

from __future__ import annotations

import base64
import binascii
import enum
import hashlib
import hmac
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final, NamedTuple

DEFAULT_PORT: Final = 22


class Key(NamedTuple):
    """A public key."""

    type: str
    blob: bytes

    def fingerprint(self) -> str:
        """As ssh shows it: SHA256 in base64 without padding."""
        digest = base64.b64encode(hashlib.sha256(self.blob).digest()).decode()
        return "SHA256:" + digest.rstrip("=")


class Entry(NamedTuple):
    """One line of a file that names the host looked for."""

    file: str
    line: int  # from 1
    marker: str  # "", "cert-authority" or "revoked"
    key: Key

    @property
    def where(self) -> str:
        return f"{self.file}:{self.line}"


class Verdict(enum.Enum):
    """What known_hosts says of a key."""

    KNOWN = "one of the host's keys"
    UNKNOWN = "nothing is known of this host"
    CHANGED = "the host is known with other keys"
    REVOKED = "the key is marked @revoked"


@dataclass(frozen=True, slots=True)
class HostKeys:
    """What the files say of one host."""

    name: str  # as it is written into the file: host, or [host]:port
    entries: tuple[Entry, ...] = ()  # for the name with its port
    plain: tuple[Entry, ...] = ()  # for the name without port, where the port is not 22
    revoked_blobs: frozenset[bytes] = frozenset()  # RevokedHostKeys
    accepted_blobs: frozenset[bytes] = frozenset()  # somebody said yes a moment ago

    def judge(self, key: Key) -> tuple[Verdict, Entry | None]:
        """The verdict on *key*, with the line that decides it."""
        for entry in (*self.entries, *self.plain):
            if entry.marker == "revoked" and entry.key.blob == key.blob:
                return Verdict.REVOKED, entry
        if key.blob in self.revoked_blobs:
            return Verdict.REVOKED, None
        # A key known for the host without a port is good for each of its ports (as in ssh), but
        # another key there only means that this port is new.
        for entry in (*self.entries, *self.plain):
            if entry.marker == "" and entry.key.blob == key.blob:
                return Verdict.KNOWN, entry
        if key.blob in self.accepted_blobs:
            return Verdict.KNOWN, None
        others = [entry for entry in self.entries if entry.marker == ""]
        same_type = [entry for entry in others if entry.key.type == key.type]
        if others:
            return Verdict.CHANGED, (same_type or others)[0]
        return Verdict.UNKNOWN, None

    def authorities(self) -> list[Entry]:
        """The certificate authorities that may vouch for this host."""
        return [e for e in (*self.entries, *self.plain) if e.marker == "cert-authority"]

    def known_types(self) -> list[str]:
        """Types of the keys known, for asking the server for one of them."""
        return [e.key.type for e in (*self.entries, *self.plain) if e.marker == ""]


def host_name(host: str, port: int) -> str:
    """The name under which *host* stands in known_hosts."""
    host = host.lower()
    return host if port == DEFAULT_PORT else f"[{host}]:{port}"


def look_up(
    files: Iterable[str],
    host: str,
    port: int,
    *,
    alias: str | None = None,
    revoked_file: str | None = None,
    accepted: frozenset[bytes] = frozenset(),
) -> HostKeys:
    """Read *files* (missing ones count as empty) for *host* at *port*.

    Raises:
        OSError: a file is there but can't be read.
    """
    name = alias.lower() if alias else host_name(host, port)
    plain_name = None if alias or port == DEFAULT_PORT else host.lower()
    entries: list[Entry] = []
    plain: list[Entry] = []
    for file in dict.fromkeys(files):
        for number, marker, hosts, key in _lines(file):
            if _matches(hosts, name):
                entries.append(Entry(file, number, marker, key))
            elif plain_name is not None and _matches(hosts, plain_name):
                plain.append(Entry(file, number, marker, key))
    revoked = frozenset(_public_blobs(revoked_file)) if revoked_file else frozenset()
    return HostKeys(name, tuple(entries), tuple(plain), revoked, accepted)


def append(file: str, name: str, key: Key, *, hashed: bool, owner: tuple[int, int] | None) -> None:
    """Add *key* for *name* to *file*, made 0600 (and its directory 0700) if it is missing.

    One O_APPEND write of one line: a reader or another writer never sees half of it.
    *owner* (uid, gid) is given to what is made here (run_as).

    Raises:
        OSError: it can't be written.
    """
    directory = os.path.dirname(file) or "."
    if not os.path.isdir(directory):
        os.makedirs(directory, mode=0o700)
        if owner is not None:
            os.chown(directory, *owner)
    is_new = not os.path.exists(file)
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    fd = os.open(file, flags, 0o600)
    try:
        if is_new and owner is not None:
            os.fchown(fd, *owner)
        size = os.fstat(fd).st_size
        ends_in_line = size == 0 or os.pread(fd, 1, size - 1) == b"\n"
        label = _hash(name, os.urandom(20)) if hashed else name
        line = f"{label} {key.type} {base64.b64encode(key.blob).decode()}\n"
        os.write(fd, (line if ends_in_line else "\n" + line).encode())
    finally:
        os.close(fd)


def _lines(file: str) -> Iterable[tuple[int, str, str, Key]]:
    """(line number, marker, hosts, key) of each line that makes sense; others are skipped, as ssh
    does: a file shared with newer programs may hold what is not understood here."""
    try:
        with open(file, encoding="utf-8", errors="surrogateescape") as lines:
            text = lines.read()
    except FileNotFoundError:
        return  # nothing is known yet
    for number, line in enumerate(text.split("\n"), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        marker = words.pop(0)[1:] if words[0].startswith("@") else ""
        if len(words) < 3 or marker not in ("", "cert-authority", "revoked"):
            continue
        blob = _decode(words[2])
        if blob is not None:
            yield number, marker, words[0], Key(words[1], blob)


def _decode(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return None  # not a key (see _lines)


def _public_blobs(file: str) -> Iterable[bytes]:
    """Blobs of a file of public keys, one a line (RevokedHostKeys; no KRL)."""
    with open(file, encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            for word in line.split():
                blob = _decode(word)
                if blob is not None and len(blob) > 16:
                    yield blob
                    break


def _matches(hosts: str, name: str) -> bool:
    """Whether the hosts field of a line names *name*; a negated pattern that does wins."""
    if hosts.startswith("|"):
        return _hash_matches(hosts, name)
    return matches_patterns(hosts.split(","), name)


def matches_patterns(patterns: Sequence[str], name: str) -> bool:
    """ssh's pattern lists: ``*`` and ``?``, ``!`` to exclude.  Source: ssh_config(5), PATTERNS."""
    found = False
    for pattern in patterns:
        negated = pattern.startswith("!")
        if _glob(name, pattern[1:] if negated else pattern):
            if negated:
                return False
            found = True
    return found


def _glob(name: str, pattern: str) -> bool:
    # ssh's patterns know no character classes: "[host]:22" is literal.
    return fnmatchcase(name.lower(), pattern.lower().replace("[", "[[]"))


def _hash(name: str, salt: bytes) -> str:
    digest = hmac.new(salt, name.encode(), hashlib.sha1).digest()
    return f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()}"


def _hash_matches(field_text: str, name: str) -> bool:
    parts = field_text.split("|")
    if len(parts) != 4 or parts[1] != "1":
        return False
    salt = _decode(parts[2])
    return salt is not None and hmac.compare_digest(_hash(name, salt), field_text)
