"""authorized_keys lines, addresses and hashed passwords."""

from __future__ import annotations

import base64
import struct

import pytest

from netfs.server import authorized
from netfs.server.authorized import match_address, parse


def key(number: int = 1) -> str:
    blob = struct.pack(">I", 11) + b"ssh-ed25519" + struct.pack(">I", 32) + bytes([number]) * 32
    return "ssh-ed25519 " + base64.b64encode(blob).decode()


def one(line: str) -> authorized.Entry:
    entries, refused = parse(line, "keys")
    assert not refused
    (entry,) = entries
    return entry


def refusal(line: str) -> str:
    entries, refused = parse(f"# first\n\n{line}", "keys")
    assert not entries
    assert refused[0].where == "keys:3"
    return refused[0].reason


def test_a_plain_key() -> None:
    entry = one(f"{key()} anna at home")
    assert entry.key_type == "ssh-ed25519"
    assert entry.blob.endswith(b"\1" * 32)
    assert entry.comment == "anna at home"
    assert entry.where == "keys:1"
    assert entry.admits("10.0.0.1", 0)


@pytest.mark.parametrize(
    "options",
    [
        "restrict", "restrict,pty", "no-pty,no-port-forwarding,no-X11-forwarding,no-user-rc",
        'permitopen="a:1",permitopen="b:2"', 'environment="A=b c, d"', "no-touch-required",
    ],
)  # fmt: skip
def test_options_about_what_is_never_given_are_taken(options: str) -> None:
    assert one(f"{options} {key()}") == one(key())


def test_options_that_say_what_is_seen() -> None:
    entry = one(f'root="/srv/a b",read-only,from="10.0.0.0/8,!10.1.*",cert-authority {key()}')
    assert entry.root == "/srv/a b"
    assert entry.read_only
    assert entry.authority
    assert entry.addresses == ("10.0.0.0/8", "!10.1.*")
    assert one(f'cert-authority,principals="a,b" {key()}').principals == ("a", "b")
    assert one(rf'root="/a\"b" {key()}').root == '/a"b'


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (f'command="/bin/sh" {key()}', "command= cannot be run here"),
        (f'from="1.2.3.4",command="x, \\"y\\"" {key()}', "command= cannot be run here"),
        (f'tunnel="0" {key()}', "tunnel="),
        (f"verify-required {key()}", "verify-required"),
        (f"new-option {key()}", "unknown option 'new-option'"),
        (f"readonly {key()}", "unknown option 'readonly'"),
        (f'read-only="no" {key()}', "unknown option 'read-only'"),
        (f"from=1.2.3.4 {key()}", "not quoted"),
        (f'from="1.2.3.4 {key()}', "unbalanced quote"),
        (f"from {key()}", "needs a value"),
        (f'from="1.1.1.1",from="2.2.2.2" {key()}', "comes twice"),
        (f'root="srv" {key()}', "absolute"),
        (f'expiry-time="soon" {key()}', "no time"),
        ("ssh-ed25519 AAAA", "no key"),
        ("ssh-rsa " + key().split()[1], "no key"),
        ("restrict", "no key"),
        ("restrict ssh-ed25519", "no key"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----", "no key"),
    ],
)
def test_what_cannot_be_honoured_refuses_its_key(line: str, reason: str) -> None:
    assert reason in refusal(line)


def test_a_refused_line_does_not_hide_the_others() -> None:
    entries, refused = parse(f'command="x" {key(1)}\n{key(2)}\n', "keys")
    assert [entry.blob[-1] for entry in entries] == [2]
    assert len(refused) == 1


@pytest.mark.parametrize(
    ("expiry", "before", "after"),
    [("19700103Z", 172_799, 172_800), ("197001010001Z", 59, 60), ("19700101000102Z", 61, 62)],
)
def test_expiry_time_ends_a_key(expiry: str, before: float, after: float) -> None:
    entry = one(f'expiry-time="{expiry}" {key()}')
    assert entry.admits("1.2.3.4", before)
    assert not entry.admits("1.2.3.4", after)


@pytest.mark.parametrize(
    ("patterns", "address", "admitted"),
    [
        ("10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "10.0.0.11", False),
        ("10.0.0.?", "10.0.0.7", True),
        ("10.*", "10.9.8.7", True),
        ("10.0.0.0/24", "10.0.0.200", True),
        ("10.0.0.0/24", "10.0.1.0", False),
        ("10.0.0.77/24", "10.0.0.1", True),
        ("!10.0.0.9,10.0.0.0/24", "10.0.0.9", False),
        ("10.0.0.0/24,!10.0.0.9", "10.0.0.9", False),
        ("!10.0.0.9", "10.0.0.8", False),
        ("*", "2001:db8::1", True),
        ("2001:db8::/32", "2001:db8::1", True),
        ("2001:DB8::1", "2001:db8::1", True),
        ("::1", "::1", True),
        ("fe80::/10", "fe80::1%eth0", True),
        ("127.0.0.1", "::ffff:127.0.0.1", True),
        ("10.0.0.0/99", "10.0.0.1", False),
        ("*,!10.0.0.0/99", "10.0.0.1", False),
        ("host.example", "10.0.0.1", False),
        ("[1]0.0.0.1", "10.0.0.1", False),
    ],
)
def test_from_matches_addresses_as_sshd_does(patterns: str, address: str, admitted: bool) -> None:
    assert match_address(tuple(patterns.split(",")), address) is admitted


def test_a_password_is_right_or_wrong() -> None:
    line = f"anna:{authorized.hash_password('péssword')}"
    assert "péssword" not in line
    passwords, refused = authorized.parse_passwords(f"# users\n{line}\n", "file")
    assert not refused
    assert passwords["anna"].is_right("péssword")
    assert not passwords["anna"].is_right("pessword")
    assert not authorized.NOBODYS.is_right("")


@pytest.mark.parametrize(
    "line",
    [
        "anna:secret", "anna", "anna:", ":scrypt$2$8$1$AA==$AA==", "anna:$6$salt$hash",
        "anna:scrypt$a$8$1$AA==$AA==", "anna:scrypt$32768$8$1$AA==$AA==",
        "anna:scrypt$1073741824$8$1$AA==$" + base64.b64encode(bytes(32)).decode(),
    ],
)  # fmt: skip
def test_a_bad_password_line_gives_nobody_access(line: str) -> None:
    passwords, refused = authorized.parse_passwords(line, "file")
    assert not passwords
    assert refused[0].where == "file:1"
    assert "secret" not in refused[0].reason
