"""Which algorithms are offered in which order."""

from __future__ import annotations

import struct

import pytest

from netfs.client.remote.algorithms import (
    ciphers,
    cpu_flags,
    expand,
    unmatched,
    with_known_first,
)

DEFAULT = ("a1", "a2", "b1")
SUPPORTED = ("b2", "a1", "a2", "b1", "c1")


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (None, ["a1", "a2", "b1"]),
        ("c1,a1", ["c1", "a1"]),
        ("c1,nobody-has-this", ["c1"]),
        ("nobody-has-this", []),
        ("b*", ["b2", "b1"]),
        ("+c1", ["a1", "a2", "b1", "c1"]),
        ("+a1", ["a1", "a2", "b1"]),
        ("-a*", ["b1"]),
        ("-*", []),
        ("^b1,c1", ["b1", "c1", "a1", "a2"]),
        ("a1, a2", ["a1", "a2"]),
    ],
)
def test_lists_and_changes_of_the_default(spec: str | None, expected: list[str]) -> None:
    assert expand(spec, DEFAULT, SUPPORTED) == expected


def test_defaults_that_are_not_supported_are_left_out() -> None:
    assert expand(None, ("x", "a1"), SUPPORTED) == ["a1"]


@pytest.mark.parametrize(
    ("flags", "first"),
    [
        (["aes", "pclmulqdq"], "aes128-gcm@openssh.com"),
        (["aes", "pmull"], "aes128-gcm@openssh.com"),
        (["aes"], "chacha20-poly1305@openssh.com"),
        ([], "chacha20-poly1305@openssh.com"),
    ],
)
def test_the_fast_cipher_of_the_machine_is_first(flags: list[str], first: str) -> None:
    assert ciphers(flags)[0] == first
    assert sorted(ciphers(flags)) == sorted(ciphers([]))


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("processor : 0\nflags\t\t: fpu aes\nflags : other\n", ["fpu", "aes"]),
        ("Features\t: fp pmull aes\n", ["fp", "pmull", "aes"]),
        ("nothing here\n", []),
    ],
)
def test_cpu_flags(text: str, flags: list[str]) -> None:
    assert cpu_flags(text) == flags


def test_types_of_known_keys_come_first() -> None:
    names = ["ssh-ed25519", "rsa-sha2-512", "rsa-sha2-256"]
    assert with_known_first(names, ["ssh-rsa"]) == [
        "rsa-sha2-512",
        "rsa-sha2-256",
        "ssh-ed25519",
    ]
    assert with_known_first(names, []) == names


def kexinit(*lists: str) -> bytes:
    body = b"".join(struct.pack(">I", len(one)) + one.encode() for one in lists)
    return bytes([20]) + bytes(16) + body + bytes(5)


OURS = {"kex": ["k1", "k2"], "host_keys": ["h"], "ciphers": ["c1", "c2-gcm"], "macs": ["m"]}


@pytest.mark.parametrize(
    ("offered", "expected"),
    [
        (("k2", "h", "c1", "c1", "m", "m"), None),
        (("k2,x", "y,h", "c2-gcm", "c2-gcm", "", ""), None),
        (("k3", "h", "c1", "c1", "m", "m"), "key exchange: here k1,k2, there k3"),
        (("k1", "", "c1", "c1", "m", "m"), "host key: here h, there "),
        (("k1", "h", "c3", "c1", "m", "m"), "encryption: here c1,c2-gcm, there c3"),
        (("k1", "h", "c1", "c3", "m", "m"), "encryption: here c1,c2-gcm, there c3"),
        (("k1", "h", "c2-gcm", "c1", "", "n"), "MAC: here m, there n"),
    ],
)
def test_what_two_sides_lack_is_named(offered: tuple[str, ...], expected: str | None) -> None:
    assert unmatched(kexinit(*offered), **OURS) == expected


def test_a_message_that_is_cut_short_or_another_lacks_nothing() -> None:
    whole = kexinit("k3", "h", "c1", "c1", "m", "m")
    assert all(unmatched(whole[:at], **OURS) is None for at in range(len(whole) - 9))
    assert unmatched(bytes([21]) + whole[1:], **OURS) is None
