"""Which SSH algorithms are offered, in which order; pure.

The words are those of ssh_config (Ciphers, MACs, KexAlgorithms, HostKeyAlgorithms ...): a list of
names or patterns, or with a prefix a change of the default: ``+`` appends, ``-`` removes,
``^`` puts first.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Final

_GCM: Final = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")
_CHACHA: Final = ("chacha20-poly1305@openssh.com",)
_CTR: Final = ("aes128-ctr", "aes192-ctr", "aes256-ctr")

_KEXINIT: Final = 20  # RFC 4253 §7.1
_KEXINIT_HEAD: Final = 17  # the message's number and its cookie

HOST_KEYS: Final = (
    "ssh-ed25519-cert-v01@openssh.com",
    "ecdsa-sha2-nistp256-cert-v01@openssh.com",
    "ecdsa-sha2-nistp384-cert-v01@openssh.com",
    "ecdsa-sha2-nistp521-cert-v01@openssh.com",
    "sk-ssh-ed25519-cert-v01@openssh.com",
    "sk-ecdsa-sha2-nistp256-cert-v01@openssh.com",
    "rsa-sha2-512-cert-v01@openssh.com",
    "rsa-sha2-256-cert-v01@openssh.com",
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "rsa-sha2-512",
    "rsa-sha2-256",
)
"""What OpenSSH accepts by default, in its order.  Source: ssh_config(5), HostKeyAlgorithms."""


def ciphers(cpu_flags: Iterable[str]) -> tuple[str, ...]:
    """OpenSSH's default set, ordered by what is fast here.

    With AES and carry-less multiplication in hardware GCM costs a third of ChaCha20; without
    them it is the other way round, and slow software AES also leaks time.
    """
    flags = set(cpu_flags)
    has_aes = "aes" in flags and bool(flags & {"pclmulqdq", "pmull"})
    return _GCM + _CHACHA + _CTR if has_aes else _CHACHA + _GCM + _CTR


def cpu_flags(cpuinfo: str) -> list[str]:
    """The feature words of the first CPU in the text of /proc/cpuinfo."""
    for line in cpuinfo.splitlines():
        name, _, words = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return words.split()
    return []


def expand(spec: str | None, default: Sequence[str], supported: Sequence[str]) -> list[str]:
    """The names that *spec* (a value of ssh_config, or None) asks for, best first.

    Names nobody here can do are left out; an empty result is the caller's error to report.
    """
    if spec is None:
        return [name for name in default if name in supported]
    prefix = spec[:1] if spec[:1] in ("+", "-", "^") else ""
    patterns = [p.strip() for p in spec[len(prefix) :].split(",") if p.strip()]
    usable = [name for name in default if name in supported]
    if prefix == "-":
        return [n for n in usable if not any(fnmatchcase(n, p) for p in patterns)]
    asked = [n for p in patterns for n in supported if fnmatchcase(n, p)]
    if prefix == "+":
        asked = usable + asked
    elif prefix == "^":
        asked = asked + usable
    return list(dict.fromkeys(asked))


def unmatched(
    kexinit: bytes,
    *,
    kex: Iterable[str],
    host_keys: Iterable[str],
    ciphers: Iterable[str],
    macs: Iterable[str],
) -> str | None:
    """The first kind of algorithm in which the server's *kexinit* has none of ours, in words.

    None when there is nothing to complain of, also of a message that is cut short or none.
    Source: RFC 4253 §7.1.
    """
    if kexinit[:1] != bytes([_KEXINIT]):
        return None
    lists: list[list[str]] = []
    at = _KEXINIT_HEAD
    for _ in range(6):
        if len(kexinit) < at + 4:
            return None
        (length,) = struct.unpack_from(">I", kexinit, at)
        at += 4
        lists.append(kexinit[at : at + length].decode("ascii", "replace").split(","))
        at += length
    to_server = [name for name in ciphers if name in lists[2]]
    to_client = [name for name in ciphers if name in lists[3]]
    asked = [("key exchange", kex, lists[0]), ("host key", host_keys, lists[1])]
    asked += [("encryption", ciphers, lists[2]), ("encryption", ciphers, lists[3])]
    asked += [
        ("MAC", macs, theirs)
        for chosen, theirs in ((to_server, lists[4]), (to_client, lists[5]))
        if chosen and not ("gcm" in chosen[0] or "poly1305" in chosen[0])  # those need none
    ]
    for kind, ours, theirs in asked:
        names = list(ours)
        if not set(names) & set(theirs):
            return f"{kind}: here {','.join(names)}, there {','.join(theirs)}"
    return None


def with_known_first(names: Sequence[str], known_types: Iterable[str]) -> list[str]:
    """*names* with those first that a host already has keys of, so that its key is not "new"."""
    known = {name for key_type in known_types for name in _signatures(key_type)}
    return [n for n in names if n in known] + [n for n in names if n not in known]


def _signatures(key_type: str) -> tuple[str, ...]:
    return ("rsa-sha2-512", "rsa-sha2-256", "ssh-rsa") if key_type == "ssh-rsa" else (key_type,)
