"""known_hosts: patterns, hashes, markers, verdicts and what is written."""

from __future__ import annotations

import base64
import hashlib
import hmac
import subprocess
from pathlib import Path

import pytest

from netfs.client.remote.hostkeys import (
    HostKeys,
    Key,
    Verdict,
    append,
    host_name,
    look_up,
    matches_patterns,
)

A = Key("ssh-ed25519", b"\0\0\0\x0bssh-ed25519-a")
B = Key("ssh-ed25519", b"\0\0\0\x0bssh-ed25519-b")
R = Key("ssh-rsa", b"\0\0\0\x07ssh-rsa-r")


def line(hosts: str, key: Key, marker: str = "") -> str:
    return f"{marker} {hosts} {key.type} {base64.b64encode(key.blob).decode()} a comment\n"


def hashed(name: str) -> str:
    salt = b"0123456789abcdefghij"
    digest = hmac.new(salt, name.encode(), hashlib.sha1).digest()
    return f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()}"


def known(tmp_path: Path, text: str, host: str = "box", port: int = 22) -> HostKeys:
    file = tmp_path / "known"
    file.write_text(text)
    return look_up([str(file)], host, port)


@pytest.mark.parametrize(
    ("hosts", "host", "port", "verdict"),
    [
        ("box", "box", 22, Verdict.KNOWN),
        ("box", "BOX", 22, Verdict.KNOWN),
        ("BOX", "box", 22, Verdict.KNOWN),
        ("other,box", "box", 22, Verdict.KNOWN),
        ("b*", "box", 22, Verdict.KNOWN),
        ("b?x", "box", 22, Verdict.KNOWN),
        ("b*,!box", "box", 22, Verdict.UNKNOWN),
        ("other", "box", 22, Verdict.UNKNOWN),
        ("[box]:2222", "box", 2222, Verdict.KNOWN),
        ("[box]:2222", "box", 22, Verdict.UNKNOWN),
        ("[box]:2222", "box", 2223, Verdict.UNKNOWN),
        ("box", "box", 2222, Verdict.KNOWN),  # a key of the host without a port is good for all
        ("[::1]:5", "::1", 5, Verdict.KNOWN),
        ("::1", "::1", 22, Verdict.KNOWN),
        (hashed("box"), "box", 22, Verdict.KNOWN),
        (hashed("[box]:2222"), "box", 2222, Verdict.KNOWN),
        (hashed("other"), "box", 22, Verdict.UNKNOWN),
        ("|1|broken", "box", 22, Verdict.UNKNOWN),
        ("|2|a|b", "box", 22, Verdict.UNKNOWN),
        ("|1|!!!|b", "box", 22, Verdict.UNKNOWN),
    ],
)
def test_hosts_fields(tmp_path: Path, hosts: str, host: str, port: int, verdict: Verdict) -> None:
    assert known(tmp_path, line(hosts, A), host, port).judge(A)[0] is verdict


def test_another_key_is_a_change_and_the_line_of_the_same_type_is_named(tmp_path: Path) -> None:
    found = known(tmp_path, "# c\n" + line("box", R) + line("box", A))
    verdict, entry = found.judge(B)
    assert verdict is Verdict.CHANGED
    assert entry is not None
    assert entry.where == f"{tmp_path}/known:3"


def test_a_new_type_of_key_for_a_known_host_is_a_change(tmp_path: Path) -> None:
    assert known(tmp_path, line("box", R)).judge(A)[0] is Verdict.CHANGED


def test_another_key_for_the_host_without_port_makes_this_port_new(tmp_path: Path) -> None:
    assert known(tmp_path, line("box", A), port=2222).judge(B)[0] is Verdict.UNKNOWN


@pytest.mark.parametrize("hosts", ["box", "*"])
def test_a_revoked_key_is_refused_even_when_it_is_known(tmp_path: Path, hosts: str) -> None:
    found = known(tmp_path, line("box", A) + line(hosts, A, "@revoked"))
    assert found.judge(A)[0] is Verdict.REVOKED
    assert found.judge(B)[0] is Verdict.CHANGED


def test_an_authority_is_no_host_key(tmp_path: Path) -> None:
    found = known(tmp_path, line("*", A, "@cert-authority"))
    assert found.judge(A)[0] is Verdict.UNKNOWN
    assert [entry.key for entry in found.authorities()] == [A]
    assert found.known_types() == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "#\n",
        "box\n",
        "box ssh-rsa\n",
        "box ssh-rsa !!!\n",
        "@odd box ssh-rsa AAAA\n",
        "\xff\0\n",
    ],
)
def test_lines_that_make_no_sense_are_skipped(tmp_path: Path, text: str) -> None:
    assert known(tmp_path, text + line("box", A)).judge(A)[0] is Verdict.KNOWN


def test_revoked_and_accepted_blobs(tmp_path: Path) -> None:
    file = tmp_path / "revoked"
    long = Key("ssh-ed25519", bytes(40))
    file.write_text("# none\n" + line("", long))
    found = look_up([], "box", 22, revoked_file=str(file), accepted=frozenset([A.blob]))
    assert found.judge(long)[0] is Verdict.REVOKED
    assert found.judge(A)[0] is Verdict.KNOWN
    assert found.judge(B)[0] is Verdict.UNKNOWN


def test_an_alias_replaces_host_and_port(tmp_path: Path) -> None:
    file = tmp_path / "known"
    file.write_text(line("storage", A))
    assert look_up([str(file)], "box", 2222, alias="Storage").judge(A)[0] is Verdict.KNOWN


def test_an_unreadable_file_is_an_error_and_a_missing_one_is_empty(tmp_path: Path) -> None:
    assert look_up([str(tmp_path / "none")], "box", 22).judge(A)[0] is Verdict.UNKNOWN
    with pytest.raises(OSError):
        look_up([str(tmp_path)], "box", 22)


@pytest.mark.parametrize("is_hashed", [True, False])
@pytest.mark.parametrize("before", [None, "", "x y z\n", "no newline"])
def test_what_is_appended_is_found_by_us_and_by_ssh(
    tmp_path: Path, is_hashed: bool, before: str | None
) -> None:
    file = tmp_path / "new" / "known"
    if before is not None:
        file.parent.mkdir()
        file.write_text(before)
    append(str(file), host_name("Box", 2222), A, hashed=is_hashed, owner=None)
    assert look_up([str(file)], "box", 2222).judge(A)[0] is Verdict.KNOWN
    assert ("box" in file.read_text()) is not is_hashed
    assert file.read_text().endswith("\n")
    if before:
        assert file.read_text().startswith(before.rstrip("\n") + "\n")


def test_fingerprints_are_those_of_ssh_keygen(tmp_path: Path) -> None:
    path = tmp_path / "k"
    subprocess.run(["ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", str(path)], check=True)
    kind, data, *_ = path.with_suffix(".pub").read_text().split()
    listed = subprocess.run(
        ["ssh-keygen", "-lf", f"{path}.pub"], check=True, capture_output=True, text=True
    )
    assert Key(kind, base64.b64decode(data)).fingerprint() == listed.stdout.split()[1]


def test_patterns_know_no_character_classes() -> None:
    assert matches_patterns(["[a]:1"], "[a]:1")
    assert not matches_patterns(["[ab]x"], "ax")
