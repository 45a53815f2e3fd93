"""Who may log in: authorized_keys files with their options, and hashed passwords.

Keys are compared as the bytes of their public blobs; signatures and certificates are the SSH
library's business (``listener``).  An option that cannot be honoured refuses its key: one that is
left out would give more than its owner wrote.

Beside sshd's own, two options say what the key sees here: ``root="/dir"`` and ``read-only``.
"""

from __future__ import annotations

import base64
import binascii
import calendar
import fnmatch
import hashlib
import hmac
import ipaddress
import os
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

_WITHOUT_EFFECT: Final = frozenset(
    (
        "restrict",
        *("no-pty", "no-port-forwarding", "no-agent-forwarding", "no-x11-forwarding", "no-user-rc"),
        *("pty", "port-forwarding", "agent-forwarding", "x11-forwarding", "user-rc"),
        *("permitopen", "permitlisten", "environment", "no-touch-required"),
    )
)
"""All about what this server never gives to anybody.  (no-touch-required would lift a demand; the
touch stays demanded.)"""

_REFUSED: Final = {
    "command": "command= cannot be run here (only the sftp subsystem is served)",
    "tunnel": "tunnel= is not served here",
    "verify-required": "verify-required cannot be enforced here",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One accepted line."""

    where: str  # file:line, for the log
    key_type: str
    blob: bytes
    comment: str = ""
    authority: bool = False  # cert-authority: signs user certificates
    principals: tuple[str, ...] = ()  # of certificates; empty: the login name must be in it
    addresses: tuple[str, ...] = ()  # from=
    expires_at: float | None = None  # seconds since the epoch
    root: str | None = None  # None: the server's
    read_only: bool = False

    def admits(self, address: str, now: float) -> bool:
        """Whether it may be used from *address* (an IP address in text) at *now*."""
        if self.expires_at is not None and now >= self.expires_at:
            return False
        return not self.addresses or match_address(self.addresses, address)


class Refused(NamedTuple):
    """A line that gives nobody access, and why."""

    where: str
    reason: str


def parse(text: str, name: str) -> tuple[list[Entry], list[Refused]]:
    """The entries of an authorized_keys file called *name*."""
    entries: list[Entry] = []
    refused: list[Refused] = []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        where = f"{name}:{number}"
        try:
            entries.append(_entry(line, where))
        except ValueError as error:
            refused.append(Refused(where, str(error)))
    return entries, refused


def _entry(line: str, where: str) -> Entry:
    """Raises ValueError with the reason why the line is refused."""
    options: list[tuple[str, str | None]] = []
    fields = line.split(None, 2)
    blob = _blob(fields)
    if blob is None:
        text, rest = _cut_options(line)
        options = list(_options(text))
        fields = rest.split(None, 2)
        blob = _blob(fields)
        if blob is None:
            raise ValueError("no key where one is expected")
    values: dict[str, str] = {}
    flags: set[str] = set()
    for option, value in options:
        if option in _REFUSED:
            raise ValueError(f"{_REFUSED[option]}; this key is refused")
        if option in ("from", "principals", "expiry-time", "root"):
            if value is None:
                raise ValueError(f"the option {option} needs a value; this key is refused")
            if option in values:
                raise ValueError(f"the option {option} comes twice; this key is refused")
            values[option] = value
        elif option in ("read-only", "cert-authority") and value is None:
            flags.add(option)
        elif option not in _WITHOUT_EFFECT:
            raise ValueError(f"unknown option {option!r}; this key is refused")
    root = values.get("root")
    if root is not None and not root.startswith("/"):
        raise ValueError('root="..." must be an absolute path; this key is refused')
    return Entry(
        where=where,
        key_type=fields[0],
        blob=blob,
        comment=fields[2] if len(fields) > 2 else "",
        authority="cert-authority" in flags,
        principals=_list(values.get("principals")),
        addresses=_list(values.get("from")),
        expires_at=_expiry(values["expiry-time"]) if "expiry-time" in values else None,
        root=root,
        read_only="read-only" in flags,
    )


def _list(value: str | None) -> tuple[str, ...]:
    return tuple(part for part in (value or "").split(",") if part)


def _blob(fields: list[str]) -> bytes | None:
    """The public key's bytes if *fields* start with a key, else None."""
    if len(fields) < 2:
        return None
    try:
        blob = base64.b64decode(fields[1], validate=True)
    except (ValueError, binascii.Error):
        return None
    name = fields[0].encode()
    return blob if blob.startswith(struct.pack(">I", len(name)) + name) else None


def _cut_options(line: str) -> tuple[str, str]:
    """The options' text and what follows its first unquoted blank."""
    quoted = False
    previous = ""
    for index, char in enumerate(line):
        if char == '"' and previous != "\\":
            quoted = not quoted
        elif char in " \t" and not quoted:
            return line[:index], line[index:].strip()
        previous = char
    raise ValueError("an unbalanced quote" if quoted else "no key where one is expected")


def _options(text: str) -> Iterator[tuple[str, str | None]]:
    """Name (in lower case) and value of each option."""
    rest = text
    while rest:
        name, has_value, after = "", False, len(rest)
        for index, char in enumerate(rest):
            if char in ",=":
                name, has_value, after = rest[:index], char == "=", index + 1
                break
        else:
            name = rest
        rest = rest[after:]
        if not has_value:
            yield name.lower(), None
            continue
        if not rest.startswith('"'):
            raise ValueError(f"the value of {name} is not quoted")
        value: list[str] = []
        index = 1
        while index < len(rest) and rest[index] != '"':
            if rest[index : index + 2] == '\\"':
                index += 1
            value.append(rest[index])
            index += 1
        rest = rest[index + 1 :].removeprefix(",")
        yield name.lower(), "".join(value)


def _expiry(value: str) -> float:
    """sshd's YYYYMMDD[HHMM[SS]][Z], in local time without the Z."""
    digits = value.removesuffix("Z")
    layout = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}.get(len(digits))
    if layout is None or not digits.isascii() or not digits.isdigit():
        raise ValueError(f"expiry-time={value!r} is no time; this key is refused")
    parsed = time.strptime(digits, layout)
    if value.endswith("Z"):
        return float(calendar.timegm(parsed))
    return time.mktime(parsed)


def match_address(patterns: tuple[str, ...], address: str) -> bool:
    """sshd's from=: addresses with * and ?, networks as address/bits, ``!`` forbids.

    Names of hosts are not looked up (sshd's UseDNS no), so they match nobody.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    admitted = False
    for pattern in patterns:
        wanted = pattern.removeprefix("!")
        if "/" in wanted:
            try:
                hit = ip in ipaddress.ip_network(wanted, strict=False)
            except ValueError:
                hit = pattern.startswith("!")  # what cannot be understood admits nobody
        else:
            hit = fnmatch.fnmatchcase(str(ip), wanted.lower().replace("[", "[[]"))
        if hit and pattern.startswith("!"):
            return False
        admitted = admitted or hit
    return admitted


# --- passwords ------------------------------------------------------------------------------------

_N: Final = 1 << 15
_R: Final = 8
_P: Final = 1
"""scrypt's cost: 32 MiB and about 0.1 s for each try (RFC 7914 §2)."""

_MAX_MEMORY: Final = 128 << 20


def hash_password(password: str) -> str:
    """The text for a password file: ``scrypt$N$r$p$salt$hash``, salt and hash in base64."""
    salt = os.urandom(16)
    digest = _scrypt(password, salt, _N, _R, _P)
    text = [base64.b64encode(part).decode() for part in (salt, digest)]
    return f"scrypt${_N}${_R}${_P}${text[0]}${text[1]}"


def _scrypt(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=n, r=r, p=p, maxmem=_MAX_MEMORY, dklen=32)


@dataclass(frozen=True, slots=True)
class Password:
    """One user's hashed password."""

    n: int
    r: int
    p: int
    salt: bytes
    digest: bytes

    def is_right(self, password: str) -> bool:
        """Takes about 0.1 s; never call it on an event loop."""
        return hmac.compare_digest(
            _scrypt(password, self.salt, self.n, self.r, self.p), self.digest
        )


NOBODYS: Final = Password(_N, _R, _P, b"0" * 16, b"")
"""Never right, and as slow as a real one: a login does not tell which names exist."""


def parse_passwords(text: str, name: str) -> tuple[dict[str, Password], list[Refused]]:
    """The ``user:hash`` lines of a password file called *name*."""
    passwords: dict[str, Password] = {}
    refused: list[Refused] = []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        user, _, hashed = line.partition(":")
        try:
            kind, n, r, p, salt, digest = hashed.split("$")
            if kind != "scrypt" or not user:
                raise ValueError
            password = Password(
                int(n), int(r), int(p),
                base64.b64decode(salt, validate=True), base64.b64decode(digest, validate=True),
            )  # fmt: skip
            if len(password.digest) != 32 or 128 * password.n * password.r > _MAX_MEMORY:
                raise ValueError
        except ValueError:
            reason = "not user:scrypt$N$r$p$salt$hash (see netfs serve --hash-password)"
            refused.append(Refused(f"{name}:{number}", reason))
            continue
        passwords[user] = password
    return passwords, refused
