"""One attempt to log in: the answers asyncssh asks for, and a record of why it went wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import cast

import asyncssh

from netfs.client.remote.errors import ConnectError, ConnectErrorKind
from netfs.client.remote.hostkeys import Entry, HostKeys, Key, Verdict
from netfs.client.remote.prompt import Prompter, Purpose
from netfs.client.remote.sshkeys import Keys
from netfs.client.remote.sshsettings import Settings, StrictHostKey


class Patience:
    """A deadline that stands still while a person is asked.

    ConnectTimeout bounds what the network may take, never how long somebody types.
    """

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._scope = asyncio.timeout(None)

    async def __aenter__(self) -> None:
        await self._scope.__aenter__()
        self._restart()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._scope.__aexit__(exc_type, exc, traceback)

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """No time passes inside."""
        self._reschedule(None)
        try:
            yield
        finally:
            self._restart()

    def _restart(self) -> None:
        if self._seconds is not None:
            self._reschedule(asyncio.get_running_loop().time() + self._seconds)

    def _reschedule(self, when: float | None) -> None:
        # An answer may come after the attempt has ended (the server hung up meanwhile).
        if not self._scope.expired():
            try:
                self._scope.reschedule(when)
            except RuntimeError:
                return  # the scope is over: there is nothing left to time


class Login(asyncssh.SSHClient):
    """asyncssh's view of the user."""

    def __init__(
        self, settings: Settings, prompter: Prompter, known: HostKeys, patience: Patience
    ) -> None:
        self._settings = settings
        self._prompter = prompter
        self._known = known
        self._patience = patience
        self._connection: asyncssh.SSHClientConnection | None = None
        self._candidates: AsyncIterator[asyncssh.SSHKeyPair] | None = None
        self._passwords_left = settings.password_prompts
        self._keyboard_left = settings.password_prompts
        self.keys = Keys(settings, self._passphrase)
        self.host_key: Key | None = None  # the one that was not accepted
        self.verdict: tuple[Verdict, Entry | None] | None = None
        self.methods_offered: set[str] = set()
        self.answered = False  # somebody gave a password or a code
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()

    @property
    def greeted(self) -> bool:
        """Whether the server has shown that it speaks SSH."""
        connection = self._connection
        return connection is not None and bool(connection.get_extra_info("server_version"))

    @property
    def kexinit(self) -> bytes:
        """The algorithms the server offered (RFC 4253 §7.1); empty as long as nothing came."""
        return bytes(getattr(self._connection, "_server_kexinit", b""))

    # -- the connection -----------------------------------------------------------------------

    def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
        self._connection = conn

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.lost.done():
            self.lost.set_result(exc)

    def auth_banner_received(self, msg: str, lang: str) -> None:
        if self._settings.log_level not in ("quiet", "fatal", "error"):
            self._prompter.notice(_harmless(msg))

    def auth_completed(self) -> None:
        self._prompter.accepted()

    # -- the server's key ---------------------------------------------------------------------

    def validate_host_public_key(
        self, host: str, addr: str, port: int, key: asyncssh.SSHKey
    ) -> bool:
        settings = self._settings
        if settings.trust_localhost and addr in ("127.0.0.1", "::1"):
            return True
        found = Key(key.get_algorithm(), key.public_data)
        self.verdict = self._known.judge(found)
        if self.verdict[0] is Verdict.KNOWN:
            return True
        self.host_key = found
        # With "no" ssh goes on with a changed key but without passwords; a mount may not: what
        # it reads and writes would be somebody else's.
        return False

    def validate_host_ca_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        return any(entry.key.blob == key.public_data for entry in self._known.authorities())

    # -- the user -----------------------------------------------------------------------------

    async def public_key_auth_requested(self) -> Sequence[asyncssh.SSHKeyPair] | None:
        self._see_methods()
        if self._candidates is None:
            self._candidates = self.keys.candidates()
        pair = await anext(self._candidates, None)
        return None if pair is None else [pair]

    async def password_auth_requested(self) -> str | None:
        self._see_methods()
        if self._passwords_left == 0:
            return None
        self._passwords_left -= 1
        return await self._ask(f"{self._who}'s password: ", Purpose.PASSWORD)

    async def password_change_requested(self, prompt: str, lang: str) -> tuple[str, str]:
        old = await self._ask(f"{self._who}'s old password: ", Purpose.RESPONSE)
        new = await self._ask(f"{self._who}'s new password: ", Purpose.RESPONSE)
        again = await self._ask(f"Retype {self._who}'s new password: ", Purpose.RESPONSE)
        if old is None or new is None or new != again:
            # asyncssh's word for "go on without"
            return cast(tuple[str, str], NotImplemented)
        return old, new

    def kbdint_auth_requested(self) -> str | None:
        self._see_methods()
        if self._keyboard_left == 0:
            return None
        self._keyboard_left -= 1
        return ""

    async def kbdint_challenge_received(
        self, name: str, instructions: str, lang: str, prompts: Sequence[tuple[str, bool]]
    ) -> list[str] | None:
        shown = "\n".join(_harmless(text) for text in (name, instructions) if text)
        if shown and prompts:
            self._prompter.notice(shown)
        answers = []
        for prompt, echo in prompts:
            text = f"({self._who}) {_harmless(prompt)}"
            answer = await self._ask(text, Purpose.RESPONSE, echo=echo)
            if answer is None:
                self._keyboard_left = 0
                return None
            answers.append(answer)
        return answers

    async def _passphrase(self, path: str) -> str | None:
        return await self._ask(f"Enter passphrase for key '{path}': ", Purpose.PASSPHRASE)

    async def _ask(self, text: str, purpose: Purpose, *, echo: bool = False) -> str | None:
        if self._settings.batch:
            return None
        with self._patience.suspended():
            answer = await self._prompter.ask(text, purpose, echo=echo)
        self.answered = self.answered or answer is not None
        return answer

    @property
    def _who(self) -> str:
        return f"{self._settings.user}@{self._settings.host}"

    def _see_methods(self) -> None:
        if self._connection is not None:
            self.methods_offered.update(self._connection.get_server_auth_methods())


def refused_key(settings: Settings, login: Login) -> ConnectError:
    """The error for a host key that was not accepted."""
    assert login.verdict is not None
    assert login.host_key is not None
    verdict, entry = login.verdict
    key, name = login.host_key, login._known.name
    short = f"{_key_name(key.type)} key {key.fingerprint()}"
    if verdict is Verdict.REVOKED:
        where = entry.where if entry is not None else settings.revoked_host_keys
        return ConnectError(
            ConnectErrorKind.HOST_KEY_REVOKED,
            f"{name} showed the {short}, which is revoked in {where}: not connecting",
        )
    if verdict is Verdict.CHANGED and entry is not None:
        return ConnectError(
            ConnectErrorKind.HOST_KEY_CHANGED,
            f"the host key of {name} has changed: it showed the {short}, {entry.where} has "
            f"another ({entry.key.fingerprint()}). Somebody may be listening in. If the change is "
            f"known to be right: ssh-keygen -f {entry.file} -R '{name}'",
        )
    return ConnectError(
        ConnectErrorKind.HOST_KEY_UNKNOWN,
        f"the host key of {name} is not known ({short}); connect once with ssh, or use "
        "-o StrictHostKeyChecking=accept-new",
    )


def denied(settings: Settings, login: Login) -> ConnectError:
    """The error for a login that the server refused."""
    who = f"{settings.user}@{settings.host}"
    offered = ",".join(sorted(login.methods_offered)) or ",".join(settings.methods)
    tried = [*dict.fromkeys(login.keys.tried)]
    if login.answered:
        tried.append("what was typed")
    parts = [f"{who}: permission denied ({offered})"]
    parts.append("tried " + ", ".join(tried) if tried else "no key or password to try")
    if login.keys.unusable:
        parts.append("not usable: " + "; ".join(dict.fromkeys(login.keys.unusable)))
    unreadable = bool(login.keys.unusable) and not tried
    kind = ConnectErrorKind.KEY_UNREADABLE if unreadable else ConnectErrorKind.AUTH_FAILED
    return ConnectError(kind, "; ".join(parts))


def strict_question(known: HostKeys, key: Key) -> str:
    """What is asked about an unknown key, in ssh's words."""
    return (
        f"The authenticity of host '{known.name}' can't be established.\n"
        f"{_key_name(key.type)} key fingerprint is {key.fingerprint()}.\n"
        "Are you sure you want to continue connecting (yes/no/[fingerprint])? "
    )


def accepts(answer: str, key: Key) -> bool:
    """Whether *answer* to strict_question means yes."""
    return answer.strip().lower() == "yes" or answer.strip() == key.fingerprint()


def may_add(strict: StrictHostKey) -> bool:
    """Whether an unknown key is taken without asking."""
    return strict in (StrictHostKey.ACCEPT_NEW, StrictHostKey.NO)


def _key_name(key_type: str) -> str:
    words = {"ssh-ed25519": "ED25519", "ssh-rsa": "RSA", "ssh-dss": "DSA"}
    return words.get(key_type, "ECDSA" if key_type.startswith("ecdsa") else key_type)


def _harmless(text: str) -> str:
    """Server text without what would drive a terminal."""
    return "".join(c for c in text if c.isprintable() or c in "\n\t")
