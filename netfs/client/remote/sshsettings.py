"""From ssh_config words to typed settings of one connection; the only place that knows them all.

Words come from sshconfig.py (files) with the mount's own -o words before them.
"""

from __future__ import annotations

import enum
import os
import pwd
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from netfs.client.remote.errors import ConnectError, ConnectErrorKind

Words = Mapping[str, Sequence[str]]
"""Lower-case keyword -> its values in order; for most only the first one counts."""

DEFAULT_KEYS: Final = ("id_rsa", "id_ecdsa", "id_ecdsa_sk", "id_ed25519", "id_ed25519_sk")
"""In ssh's order.  Source: ssh_config(5), IdentityFile."""

DEFAULT_METHODS: Final = ("publickey", "keyboard-interactive", "password")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


HONOURED: Final = _words(
    """
    addressfamily addkeystoagent batchmode bindaddress casignaturealgorithms certificatefile
    challengeresponseauthentication ciphers compression connectionattempts connecttimeout
    globalknownhostsfile hashknownhosts host hostkeyalgorithms hostkeyalias hostname
    identitiesonly identityagent identityfile ignoreunknown include kbdinteractiveauthentication
    kexalgorithms loglevel macs match nohostauthenticationforlocalhost numberofpasswordprompts
    passwordauthentication port preferredauthentications proxycommand proxyjump
    pubkeyacceptedalgorithms pubkeyacceptedkeytypes pubkeyauthentication rekeylimit
    revokedhostkeys sendenv serveralivecountmax serveraliveinterval setenv
    stricthostkeychecking tag tcpkeepalive user userknownhostsfile
    """
)

HARMLESS: Final = _words(
    """
    checkhostip clearallforwardings compressionlevel dynamicforward enableescapecommandline
    escapechar exitonforwardfailure fingerprinthash forkafterauthentication forwardagent
    forwardx11 forwardx11timeout forwardx11trusted gatewayports localcommand localforward
    permitlocalcommand permitremoteopen protocol remotecommand remoteforward requesttty
    sessiontype stdinnull streamlocalbindmask streamlocalbindunlink syslogfacility tunnel
    tunneldevice visualhostkey xauthlocation requiredrsasize updatehostkeys warnweakcrypto
    obscurekeystroketiming channeltimeout
    """
)
"""Words that change nothing an SFTP session needs; no warning."""


class StrictHostKey(enum.Enum):
    """StrictHostKeyChecking."""

    YES = "yes"
    ASK = "ask"
    ACCEPT_NEW = "accept-new"
    NO = "no"


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """On whose behalf keys and files are used; from getpwuid, never from $HOME."""

    name: str
    uid: int
    gid: int
    home: str
    is_other: bool  # run_as somebody else than who runs this

    @property
    def owner(self) -> tuple[int, int] | None:
        """To whom new files are given, if that is not who makes them anyway."""
        return (self.uid, self.gid) if self.is_other else None

    def expand(self, path: str) -> str:
        """*path* with ``~`` replaced by this person's home."""
        if path == "~" or path.startswith("~/"):
            return self.home + path[1:]
        return os.path.expanduser(path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How one SSH server is reached."""

    person: Person
    alias: str  # the host as the user wrote it
    host: str  # as it is resolved and looked up
    port: int
    user: str
    proxy_jump: tuple[str, ...]  # hops, nearest first
    proxy_command: str | None
    address_family: str  # any, inet, inet6
    bind_address: str | None
    connect_timeout_s: float | None
    connection_attempts: int
    tcp_keepalive: bool
    batch: bool

    strict: StrictHostKey
    host_key_alias: str | None
    known_hosts: tuple[str, ...]  # the first one gets new keys
    global_known_hosts: tuple[str, ...]
    revoked_host_keys: str | None
    hash_known_hosts: bool
    trust_localhost: bool

    methods: tuple[str, ...]
    password_prompts: int
    identity_files: tuple[str, ...]
    identity_named: bool  # by the user: a missing or broken one is worth a word
    identities_only: bool
    certificate_files: tuple[str, ...]
    agent: str | None  # socket
    pubkey_algorithms: str | None

    ciphers: str | None
    macs: str | None
    kex: str | None
    host_key_algorithms: str | None
    ca_algorithms: str | None
    compression: bool
    rekey_bytes: int | None
    rekey_s: int | None

    alive_interval_s: float | None  # None: not given, the mount's own default holds
    alive_count_max: int | None
    environment: tuple[tuple[str, str], ...]
    log_level: str


def person(run_as: str | None) -> Person:
    """Who *run_as* (None: this process) is.

    Raises:
        ConnectError: BAD_CONFIG, there is no such user.
    """
    try:
        entry = pwd.getpwnam(run_as) if run_as is not None else pwd.getpwuid(os.getuid())
    except KeyError:
        if run_as is not None:
            raise bad(f"run_as={run_as}: no such user here") from None
        uid = os.getuid()  # a container's uid without a passwd line
        home = os.environ.get("HOME", "/")
        return Person(name=str(uid), uid=uid, gid=os.getgid(), home=home, is_other=False)
    is_other = entry.pw_uid != os.getuid()
    return Person(
        name=entry.pw_name,
        uid=entry.pw_uid,
        gid=entry.pw_gid,
        home=entry.pw_dir,
        is_other=is_other,
    )


def bad(message: str) -> ConnectError:
    """The error for something in the configuration that can't be understood."""
    return ConnectError(ConnectErrorKind.BAD_CONFIG, message)


def unsupported(words: Words) -> list[str]:
    """Those of *words* that change something for the user and that netfs does not do."""
    return sorted(
        word
        for word, values in words.items()
        if word not in HONOURED
        and word not in HARMLESS
        and list(values[:1]) not in (["no"], ["none"])  # what netfs does not do anyway
    )


def settings(words: Words, alias: str, who: Person, environ: Mapping[str, str]) -> Settings:
    """Typed settings from *words*; tokens (%h, %u ...) are expanded here.

    Raises:
        ConnectError: BAD_CONFIG names the word and the value.
    """
    get = _Getter(words)
    tokens = {"%": "%", "n": alias, "u": who.name, "d": who.home, "i": str(who.uid)}
    tokens["h"] = alias
    named = get.text("hostname")
    host = (
        alias if named is None else _expand(named, tokens)
    )  # a source may name an interface: %eth0
    port = get.integer("port", 22, 1, 65535)
    user = get.text("user") or who.name
    local = os.uname().nodename
    tokens.update(
        h=host,
        p=str(port),
        r=user,
        l=local,
        L=local.split(".")[0],
        k=get.text("hostkeyalias") or alias,
    )

    def paths(values: Sequence[str]) -> tuple[str, ...]:
        return tuple(
            who.expand(_expand_env(_expand(v, tokens), environ))
            for v in values
            if v.lower() != "none"
        )

    keys = get.all("identityfile")
    default_keys = tuple(f"{who.home}/.ssh/{name}" for name in DEFAULT_KEYS)
    jump = get.text("proxyjump")
    command = get.text("proxycommand")
    rekey_bytes, rekey_s = _rekey(get.text("rekeylimit"))
    return Settings(
        person=who,
        alias=alias,
        host=host,
        port=port,
        user=user,
        proxy_jump=() if not jump else tuple(j.strip() for j in jump.split(",")),
        proxy_command=None if command is None or jump else _expand(command, tokens),
        address_family=get.choice("addressfamily", "any", ("any", "inet", "inet6")),
        bind_address=get.text("bindaddress"),
        connect_timeout_s=get.seconds("connecttimeout"),
        connection_attempts=get.integer("connectionattempts", 1, 1, 1000),
        tcp_keepalive=get.flag("tcpkeepalive", True),
        batch=get.flag("batchmode", False),
        strict=_strict(get),
        host_key_alias=get.text("hostkeyalias"),
        known_hosts=_known_hosts(
            get, "userknownhostsfile", ("~/.ssh/known_hosts", "~/.ssh/known_hosts2"), paths
        ),
        global_known_hosts=_known_hosts(
            get,
            "globalknownhostsfile",
            ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"),
            paths,
        ),
        revoked_host_keys=next(iter(paths(get.all("revokedhostkeys")[:1])), None),
        hash_known_hosts=get.flag("hashknownhosts", False),
        trust_localhost=get.flag("nohostauthenticationforlocalhost", False),
        methods=_methods(get),
        password_prompts=get.integer("numberofpasswordprompts", 3, 1, 100),
        identity_files=paths(keys) if keys else default_keys,
        identity_named=bool(keys),
        identities_only=get.flag("identitiesonly", False),
        certificate_files=paths(get.all("certificatefile")),
        agent=_agent(get, who, environ, tokens),
        pubkey_algorithms=get.text("pubkeyacceptedalgorithms")
        or get.text("pubkeyacceptedkeytypes"),
        ciphers=get.text("ciphers"),
        macs=get.text("macs"),
        kex=get.text("kexalgorithms"),
        host_key_algorithms=get.text("hostkeyalgorithms"),
        ca_algorithms=get.text("casignaturealgorithms"),
        compression=get.flag("compression", False),
        rekey_bytes=rekey_bytes,
        rekey_s=rekey_s,
        alive_interval_s=get.seconds("serveraliveinterval"),
        alive_count_max=get.optional_integer("serveralivecountmax", 1, 1000),
        environment=_environment(get, environ),
        log_level=(get.text("loglevel") or "info").lower(),
    )


class _Getter:
    """Typed access to words, with errors that name them."""

    def __init__(self, words: Words) -> None:
        self._words = words

    def all(self, word: str) -> Sequence[str]:
        return self._words.get(word, ())

    def text(self, word: str) -> str | None:
        """The first value; None where it is absent or ``none``."""
        values = self.all(word)
        return None if not values or values[0].lower() == "none" else values[0]

    def flag(self, word: str, default: bool) -> bool:
        value = self.text(word)
        if value is None:
            return default
        if value.lower() in ("yes", "true", "1"):
            return True
        if value.lower() in ("no", "false", "0"):
            return False
        raise bad(f"{word}={value}: yes or no is expected")

    def choice(self, word: str, default: str, allowed: Sequence[str]) -> str:
        value = (self.text(word) or default).lower()
        if value not in allowed:
            raise bad(f"{word}={value}: one of {', '.join(allowed)} is expected")
        return value

    def integer(self, word: str, default: int, low: int, high: int) -> int:
        value = self.optional_integer(word, low, high)
        return default if value is None else value

    def optional_integer(self, word: str, low: int, high: int) -> int | None:
        value = self.text(word)
        if value is None:
            return None
        if not value.isdecimal() or not low <= int(value) <= high:
            raise bad(f"{word}={value}: a number from {low} to {high} is expected")
        return int(value)

    def seconds(self, word: str) -> float | None:
        value = self.text(word)
        return None if value is None else float(parse_time(word, value))


_TIME: Final = re.compile(r"(\d+)([smhdw]?)", re.IGNORECASE)
_TIME_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def parse_time(word: str, text: str) -> int:
    """Seconds of a time like ``90`` or ``1h30m``.  Source: sshd_config(5), TIME FORMATS."""
    parts = _TIME.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise bad(f"{word}={text}: a time like 30, 5m or 1h is expected")
    return sum(int(number) * _TIME_UNITS[unit.lower()] for number, unit in parts)


def _rekey(text: str | None) -> tuple[int | None, int | None]:
    """Bytes and seconds of RekeyLimit."""
    if text is None:
        return None, None
    size, _, time = text.partition(" ")
    found = re.fullmatch(r"(\d+)([kmg]?)", size.lower())
    if size.lower() != "default" and found is None:
        raise bad(f"rekeylimit={text}: a size like 1G is expected")
    shift = {"": 0, "k": 10, "m": 20, "g": 30}
    count = None if found is None else int(found[1]) << shift[found[2]]
    seconds = (
        None if time.strip().lower() in ("", "none") else parse_time("rekeylimit", time.strip())
    )
    return count or None, seconds


def _strict(get: _Getter) -> StrictHostKey:
    value = (get.text("stricthostkeychecking") or "ask").lower()
    names = {"true": "yes", "false": "no", "off": "no", "on": "yes"}
    try:
        return StrictHostKey(names.get(value, value))
    except ValueError:
        raise bad(
            f"stricthostkeychecking={value}: one of yes, no, ask, accept-new is expected"
        ) from None


def _known_hosts(
    get: _Getter,
    word: str,
    default: Sequence[str],
    paths: Callable[[Sequence[str]], tuple[str, ...]],
) -> tuple[str, ...]:
    values = get.all(word)
    if not values:
        return paths(default)
    # One value may name several files: UserKnownHostsFile "~/.ssh/a ~/.ssh/b".
    return paths([name for name in values[0].split() if name])


def _methods(get: _Getter) -> tuple[str, ...]:
    """Authentication methods to try, in order."""
    preferred = get.text("preferredauthentications")
    names = DEFAULT_METHODS if preferred is None else tuple(preferred.split(","))
    keyboard = get.flag("challengeresponseauthentication", True)
    allowed = {
        "publickey": get.flag("pubkeyauthentication", True)
        if (get.text("pubkeyauthentication") or "") not in ("unbound", "host-bound")
        else True,
        "keyboard-interactive": get.flag("kbdinteractiveauthentication", keyboard),
        "password": get.flag("passwordauthentication", True),
    }
    return tuple(name for name in names if allowed.get(name.strip(), False))


def _agent(
    get: _Getter, who: Person, environ: Mapping[str, str], tokens: Mapping[str, str]
) -> str | None:
    """The agent's socket; IdentityAgent wins over the environment."""
    values = get.all("identityagent")
    value = values[0] if values else "SSH_AUTH_SOCK"
    if value.lower() == "none":
        return None
    if value == "SSH_AUTH_SOCK":
        # Somebody else's agent is found where it usually is: the environment here is not theirs.
        own = None if who.is_other else environ.get("SSH_AUTH_SOCK")
        return own or _usual_agent(who)
    if value.startswith("$"):
        return environ.get(value[1:].strip("{}")) or None
    return who.expand(_expand_env(_expand(value, tokens), environ))


def _usual_agent(who: Person) -> str | None:
    """The socket of a user's agent as systemd, GNOME and GnuPG place it, for run_as."""
    if not who.is_other:
        return None
    runtime = f"/run/user/{who.uid}"
    for name in ("ssh-agent.socket", "keyring/ssh", "gcr/ssh", "gnupg/S.gpg-agent.ssh"):
        path = f"{runtime}/{name}"
        if os.path.exists(path):
            return path
    return None


def _environment(get: _Getter, environ: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """What SetEnv and SendEnv ask to be sent; SetEnv wins."""
    sent: dict[str, str] = {}
    for line in get.all("sendenv"):
        for pattern in line.split():
            expression = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
            sent.update((k, v) for k, v in environ.items() if re.fullmatch(expression, k))
    for line in get.all("setenv")[:1]:
        for item in line.split():
            name, _, value = item.partition("=")
            sent[name] = value
    return tuple(sent.items())


_TOKEN: Final = re.compile(r"%(.)")
_ENV: Final = re.compile(r"\$\{(\w+)\}")


def _expand(text: str, tokens: Mapping[str, str]) -> str:
    """*text* with %-tokens replaced; unknown ones are an error, as in ssh."""

    def token(found: re.Match[str]) -> str:
        try:
            return tokens[found[1]]
        except KeyError:
            raise bad(f"{text}: %{found[1]} is not understood here") from None

    return _TOKEN.sub(token, text)


def _expand_env(text: str, environ: Mapping[str, str]) -> str:
    def variable(found: re.Match[str]) -> str:
        try:
            return environ[found[1]]
        except KeyError:
            raise bad(f"{text}: the variable {found[1]} is not set") from None

    return _ENV.sub(variable, text)
