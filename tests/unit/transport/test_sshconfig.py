"""ssh_config files and words: which hold for a host, and what they mean."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from netfs.client.config import SshConfig
from netfs.client.remote import sshconfig, sshsettings
from netfs.client.remote.errors import ConnectError, ConnectErrorKind
from netfs.client.remote.sshconfig import (
    settings_for,
    settings_for_hop,
    split_destination,
    unsupported_keywords,
)
from netfs.client.remote.sshsettings import Settings, StrictHostKey, parse_time, person, settings
from tests.unit.transport.support import config_for


def resolve(tmp_path: Path, text: str, host: str = "box", **words: str) -> Settings:
    file = tmp_path / "config"
    file.write_text(text)
    keywords = {word: (value,) for word, value in words.items()}
    return settings_for(SshConfig(config_file=str(file), keywords=keywords), host)


def of(words: dict[str, str | list[str]], host: str = "box", **environ: str) -> Settings:
    lists = {w: [v] if isinstance(v, str) else v for w, v in words.items()}
    return settings(lists, host, person(None), environ)


@pytest.mark.parametrize(
    ("text", "port"),
    [
        ("Port 1\nHost box\nPort 2\n", 1),  # the first value counts
        ("Host other\nPort 1\nHost box\nPort 2\n", 2),
        ("Host b*\nPort 3\n", 3),
        ("Host b?x\nPort 3\n", 3),
        ("Host !box b*\nPort 3\n", 22),
        ("Host a,box\nPort 3\n", 22),  # Host separates by blanks, not commas
        ("Host a box\nPort 3\n", 3),
        ("host BOX\nport = 4\n", 4),
        ("Host=box\nPort=4\n", 4),
        ('Host "box"\nPort "4" # why\n', 4),
        ("  # Port 1\n\n\tPort\t5\n", 5),
        ("Match host box\nPort 6\n", 6),
        ("Match host a,box\nPort 6\n", 6),
        ("Match !host box\nPort 6\n", 22),
        ("Match originalhost box user nobody\nPort 6\n", 22),
        ("User nobody\nMatch user nobody\nPort 6\n", 6),
        ("HostName real\nMatch host real\nPort 6\n", 6),
        ("HostName real\nMatch originalhost real\nPort 6\n", 22),
        ("Match all\nPort 7\n", 7),
        ("Match final\nPort 8\nMatch all\nPort 9\n", 9),
        ("Match final host box\nPort 8\n", 8),
        ("Match canonical\nPort 8\n", 22),
        ("Match exec true\nPort 9\n", 9),
        ('Match exec "test %h = box"\nPort 9\n', 9),
        ("Match exec false\nPort 9\n", 22),
        ("Tag fast\nMatch tagged fast\nPort 9\n", 9),
        ("Match host other exec /no/such/program\nPort 9\n", 22),
        ("Host other\nMatch host box\nPort 10\n", 10),
        ("Match localuser nobody-else\nPort 9\n", 22),
        ("UnknownWord x\nPort 11\n", 11),
    ],
)
def test_the_word_that_holds_is_found(tmp_path: Path, text: str, port: int) -> None:
    assert resolve(tmp_path, text).port == port


def test_words_of_the_mount_come_before_those_of_the_file(tmp_path: Path) -> None:
    found = resolve(tmp_path, "Port 1\nUser filed\nCiphers a\n", port="2")
    assert (found.port, found.user, found.ciphers) == (2, "filed", "a")


def test_user_and_port_of_the_source_come_before_everything(tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_text("Match user alice\nHostName for-alice\nPort 9\n")
    ssh = SshConfig(config_file=str(file), keywords={"port": ("2",), "user": ("bob",)})
    found = settings_for(ssh, "box", user="alice", port=7)
    assert (found.user, found.port, found.host) == ("alice", 7, "for-alice")


def test_an_address_keeps_its_interface_and_a_host_name_takes_it_over() -> None:
    assert of({}, "fe80::1%lo").host == "fe80::1%lo"
    assert of({"hostname": "%h.example"}, "box").host == "box.example"


def test_a_hop_gets_the_words_of_the_file_only(tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_text("Host hop\nUser filed\n")
    ssh = SshConfig(config_file=str(file), keywords={"user": ("given",), "port": ("9",)})
    found = settings_for_hop(ssh, "hop")
    assert (found.user, found.port) == ("filed", 22)


def test_included_files_hold_inside_the_block_that_names_them(tmp_path: Path) -> None:
    (tmp_path / "a.inc").write_text("Port 5\nHost other\nUser wrong\n")
    (tmp_path / "b.inc").write_text("User right\n")
    found = resolve(tmp_path, f"Host box\nInclude {tmp_path}/*.inc\nHost other\nPort 1\n")
    assert (found.port, found.user) == (5, "right")
    found = resolve(tmp_path, f"Host other\nInclude {tmp_path}/*.inc\nHost box\nUser mine\n")
    assert (found.port, found.user) == (22, "mine")


def test_a_file_that_includes_itself_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConnectError, match="Include nested"):
        resolve(tmp_path, f"Include {tmp_path}/config\n")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("Host box\nPort\n", "config:2: port needs a value"),
        ("Port 99999\n", "port=99999"),
        ("Match host\n", "config:1: Match host needs a pattern"),
        ("Match\n", "config:1: Match needs a condition"),
        ("Match nonsense x\n", "config:1: Match nonsense"),
        ('User "open\n', "config:1: a quote is not closed"),
        ("Compression maybe\n", "compression=maybe: yes or no"),
        ("AddressFamily ipx\n", "addressfamily=ipx"),
        ("StrictHostKeyChecking perhaps\n", "stricthostkeychecking=perhaps"),
        ("ConnectTimeout soon\n", "connecttimeout=soon"),
        ("IdentityFile ~/%Z\n", "%Z is not understood"),
        ("IdentityFile ${NETFS_NOT_SET}/x\n", "NETFS_NOT_SET is not set"),
        ("RekeyLimit lots\n", "rekeylimit=lots"),
    ],
)
def test_what_makes_no_sense_is_named(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(ConnectError) as caught:
        resolve(tmp_path, text)
    assert caught.value.kind is ConnectErrorKind.BAD_CONFIG
    assert complaint in str(caught.value)


def test_a_missing_file_says_nothing_unless_it_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sshconfig, "SYSTEM_FILE", str(tmp_path / "missing"))
    nobody = dataclasses.replace(person(None), home=str(tmp_path))
    monkeypatch.setattr(sshconfig, "person", lambda run_as: nobody)
    assert settings_for(SshConfig(), "box").port == 22
    with pytest.raises(ConnectError, match="no such file") as caught:
        settings_for(SshConfig(config_file=str(tmp_path / "missing")), "box")
    assert caught.value.kind is ConnectErrorKind.BAD_CONFIG


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConnectError, match="is a directory"):
        settings_for(SshConfig(config_file=str(tmp_path)), "box")


def test_defaults_are_those_of_ssh() -> None:
    found = of({})
    home = person(None).home
    assert (found.host, found.port, found.user) == ("box", 22, person(None).name)
    assert found.identity_files[0] == f"{home}/.ssh/id_rsa"
    assert not found.identity_named
    assert found.known_hosts == (f"{home}/.ssh/known_hosts", f"{home}/.ssh/known_hosts2")
    assert found.global_known_hosts == ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")
    assert found.methods == ("publickey", "keyboard-interactive", "password")
    assert found.strict is StrictHostKey.ASK
    assert (found.password_prompts, found.connection_attempts) == (3, 1)
    assert found.agent is None


def test_identity_files_of_all_places_count_in_order(tmp_path: Path) -> None:
    text = (
        "IdentityFile ~/a\nHost box\nIdentityFile /b\nHost *\nIdentityFile /b\nIdentityFile %d/c\n"
    )
    home = person(None).home
    assert resolve(tmp_path, text).identity_files == (f"{home}/a", "/b", f"{home}/c")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({"userknownhostsfile": "/a /b"}, ("/a", "/b")),
        ({"userknownhostsfile": "none"}, ()),
        ({"userknownhostsfile": "/dev/null"}, ("/dev/null",)),
        ({"userknownhostsfile": "~/x"}, (person(None).home + "/x",)),
        ({"userknownhostsfile": "/k/%h.%p"}, ("/k/box.22",)),
    ],
)
def test_known_hosts_files(words: dict[str, str], expected: tuple[str, ...]) -> None:
    assert of(dict(words)).known_hosts == expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({"preferredauthentications": "password,publickey"}, ("password", "publickey")),
        ({"preferredauthentications": "hostbased,publickey"}, ("publickey",)),
        ({"pubkeyauthentication": "no"}, ("keyboard-interactive", "password")),
        ({"pubkeyauthentication": "unbound"}, sshsettings.DEFAULT_METHODS),
        ({"passwordauthentication": "no"}, ("publickey", "keyboard-interactive")),
        ({"challengeresponseauthentication": "no"}, ("publickey", "password")),
        ({"kbdinteractiveauthentication": "no"}, ("publickey", "password")),
    ],
)
def test_authentication_methods(words: dict[str, str], expected: tuple[str, ...]) -> None:
    assert of(dict(words)).methods == expected


@pytest.mark.parametrize(
    ("value", "strict"),
    [
        ("yes", StrictHostKey.YES),
        ("true", StrictHostKey.YES),
        ("ask", StrictHostKey.ASK),
        ("accept-new", StrictHostKey.ACCEPT_NEW),
        ("no", StrictHostKey.NO),
        ("off", StrictHostKey.NO),
    ],
)
def test_strict_host_key_checking(value: str, strict: StrictHostKey) -> None:
    assert of({"stricthostkeychecking": value}).strict is strict


@pytest.mark.parametrize(
    ("words", "environ", "agent"),
    [
        ({}, {"SSH_AUTH_SOCK": "/a"}, "/a"),
        ({"identityagent": "none"}, {"SSH_AUTH_SOCK": "/a"}, None),
        ({"identityagent": "/b"}, {"SSH_AUTH_SOCK": "/a"}, "/b"),
        ({"identityagent": "SSH_AUTH_SOCK"}, {"SSH_AUTH_SOCK": "/a"}, "/a"),
        ({"identityagent": "$OTHER"}, {"OTHER": "/c"}, "/c"),
        ({"identityagent": "${OTHER}"}, {}, None),
        ({"identityagent": "/x/%u"}, {}, f"/x/{person(None).name}"),
    ],
)
def test_the_agents_socket(
    words: dict[str, str], environ: dict[str, str], agent: str | None
) -> None:
    assert of(dict(words), **environ).agent == agent


def test_proxies_are_expanded_and_a_jump_wins() -> None:
    words: dict[str, str | list[str]] = {
        "hostname": "%h.example",
        "proxycommand": "nc %h %p # %r 100%%",
        "port": "2022",
        "user": "me",
    }
    found = of(words)
    assert found.host == "box.example"
    assert found.proxy_command == "nc box.example 2022 # me 100%"
    found = of({**words, "proxyjump": "a@b:3, c"})
    assert (found.proxy_jump, found.proxy_command) == (("a@b:3", "c"), None)
    assert of({"proxycommand": "none"}).proxy_command is None


def test_the_environment_that_is_sent() -> None:
    found = of(
        {"sendenv": ["LANG LC_*", "X?"], "setenv": "LANG=C A=b=c"},
        LANG="de",
        LC_ALL="x",
        XY="1",
        XYZ="2",
    )
    assert dict(found.environment) == {"LANG": "C", "LC_ALL": "x", "XY": "1", "A": "b=c"}


@pytest.mark.parametrize(
    ("text", "seconds"), [("0", 0), ("90", 90), ("1m", 60), ("1h30M", 5400), ("1d", 86400)]
)
def test_times(text: str, seconds: int) -> None:
    assert parse_time("x", text) == seconds


@pytest.mark.parametrize(
    ("text", "size", "seconds"),
    [
        ("1G", 1 << 30, None),
        ("default none", None, None),
        ("512K 1h", 512 << 10, 3600),
        ("100 none", 100, None),
    ],
)
def test_rekey_limits(text: str, size: int | None, seconds: int | None) -> None:
    found = of({"rekeylimit": text})
    assert (found.rekey_bytes, found.rekey_s) == (size, seconds)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("h", (None, "h", None)),
        ("u@h", ("u", "h", None)),
        ("u@h:22", ("u", "h", 22)),
        ("u@x@h", ("u@x", "h", None)),
        ("[::1]:5", (None, "::1", 5)),
        ("::1", (None, "::1", None)),
        ("ssh://u@h:5/", ("u", "h", 5)),
    ],
)
def test_destinations(text: str, expected: tuple[str | None, str, int | None]) -> None:
    assert split_destination(text) == expected


@pytest.mark.parametrize("text", ["", "u@", "h:x", "h:0", "h:99999", "[::1", "[::1]x"])
def test_bad_destinations_are_refused(text: str) -> None:
    with pytest.raises(ConnectError):
        split_destination(text)


def test_every_known_word_is_honoured_or_harmless_or_named() -> None:
    assert not sshsettings.HONOURED & sshsettings.HARMLESS
    words = {"controlpath": ("x",), "gssapiauthentication": ("yes",), "port": ("1",)}
    assert sshsettings.unsupported(words) == ["controlpath", "gssapiauthentication"]


def test_unsupported_words_are_named_from_options_and_the_users_file(tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_text(
        "IgnoreUnknown UseKeychain\nUseKeychain yes\n"
        "Host box\nControlMaster auto\nHost other\nPKCS11Provider x\n"
    )
    ssh = SshConfig(config_file=str(file), keywords={"hostbasedauthentication": ("yes",)})
    config = config_for(None, host="box", ssh=ssh)
    assert unsupported_keywords(config) == ["controlmaster", "hostbasedauthentication"]
    off = SshConfig(config_file="none", keywords={"gssapiauthentication": ("no",)})
    assert unsupported_keywords(config_for(None, ssh=off)) == []


def test_run_as_takes_the_other_users_home_and_not_the_environments(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root mounts for others")
    other = person("nobody")
    found = settings({}, "box", other, {"SSH_AUTH_SOCK": "/roots/agent", "HOME": "/elsewhere"})
    assert found.user == "nobody"
    assert found.agent is None
    assert found.known_hosts[0].startswith(other.home)
    assert other.owner == (other.uid, other.gid)
    with pytest.raises(ConnectError, match="no such user"):
        person("no-such-user-here")
