"""The keys that are offered to a server, in ssh's order, each opened only when it is wanted.

Order: the agent's keys that IdentityFile names, the agent's other keys (not with IdentitiesOnly),
the files.  A certificate goes before its bare key.  A passphrase is asked for only after the
server has said that it would accept the key.
"""

from __future__ import annotations

import base64
import os
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import asyncssh

from netfs.client.remote.sshsettings import Settings

AskPassphrase = Callable[[str], Awaitable[str | None]]
"""Asks for the passphrase of the file named; None: nobody answers."""


class KeyUnusable(ValueError):
    """A private key can't be used; ValueError makes asyncssh go on with the next key."""


@dataclass(slots=True)
class Identity:
    """One IdentityFile, as far as it can be known without its passphrase."""

    path: str
    public: asyncssh.SSHKey | None  # None: only the passphrase would tell
    has_private: bool
    certificates: list[asyncssh.SSHCertificate] = field(default_factory=list)


class FileKeyPair(asyncssh.SSHKeyPair):
    """A key in a file, whose private half is read when something must be signed."""

    _key_type = "local"

    def __init__(
        self,
        path: str,
        public: asyncssh.SSHKey,
        certificate: asyncssh.SSHCertificate | None,
        load: Callable[[str], Awaitable[asyncssh.SSHKey]],
    ) -> None:
        super().__init__(
            public.algorithm,
            public.algorithm,
            public.sig_algorithms,
            public.sig_algorithms,
            public.public_data,
            path,
            certificate,
        )
        self._path = path
        self._load = load

    async def sign_async(self, data: bytes) -> bytes:
        """Sign with the private half; asyncssh prefers this to sign()."""
        key = await self._load(self._path)
        return key.sign(data, self.sig_algorithm)


class Keys:
    """Key pairs for one login, and notes on what was tried and why some could not be."""

    def __init__(self, settings: Settings, ask: AskPassphrase) -> None:
        self._settings = settings
        self._ask = ask
        self._opened: dict[str, asyncssh.SSHKey] = {}
        self._agent: asyncssh.SSHAgentClient | None = None
        self.tried: list[str] = []
        self.unusable: list[str] = []  # "path: why"; only of files that the user named

    async def candidates(self) -> AsyncIterator[asyncssh.SSHKeyPair]:
        """Each key pair to offer, best first."""
        identities = [i for path in self._settings.identity_files if (i := self._inspect(path))]
        certificates = self._read_certificates(self._settings.certificate_files)
        for identity in identities:
            if identity.public is not None:
                blob = identity.public.public_data
                identity.certificates += [c for c in certificates if c.key.public_data == blob]
        agent_keys = {pair.key_public_data: pair for pair in await self._agent_keys()}
        in_agent = set()
        for identity in identities:
            pair = agent_keys.get(identity.public.public_data) if identity.public else None
            if pair is not None:
                in_agent.add(pair.key_public_data)
                for certificate in identity.certificates:
                    signer = _copy(pair)
                    signer.set_certificate(certificate)
                    yield self._note(signer, f"agent certificate for {identity.path}")
                yield self._note(pair, f"agent key {identity.path}")
        if not self._settings.identities_only:
            for blob, pair in agent_keys.items():
                if blob not in in_agent:
                    yield self._note(pair, f"agent key {pair.get_comment(errors='replace') or ''}")
        for identity in identities:
            if not identity.has_private:
                continue
            if identity.public is None:
                try:
                    identity.public = await self._private(identity.path)
                except KeyUnusable:
                    continue  # noted where it was raised
            if identity.public.public_data in in_agent:
                continue
            for one in (*identity.certificates, None):
                pair = FileKeyPair(identity.path, identity.public, one, self._private)
                yield self._note(pair, identity.path)

    async def close(self) -> None:
        """End the conversation with the agent."""
        if self._agent is not None:
            self._agent.close()
            await self._agent.wait_closed()
            self._agent = None

    def _note(self, pair: asyncssh.SSHKeyPair, name: str) -> asyncssh.SSHKeyPair:
        self.tried.append(name.strip())
        return pair

    async def _agent_keys(self) -> Sequence[asyncssh.SSHKeyPair]:
        path = self._settings.agent
        if path is None:
            return ()
        try:
            self._agent = await asyncssh.connect_agent(path)
            return await self._agent.get_keys()
        except (OSError, ValueError):
            return ()  # an agent that is gone is an agent without keys, as in ssh

    def _inspect(self, path: str) -> Identity | None:
        """What *path* and its .pub say without a passphrase; None if there is nothing to use."""
        problem = _unsafe(path)
        if problem is not None:
            self._complain(path, problem)
            return None
        public = _read_public(path + ".pub")
        has_private = os.path.exists(path)
        if has_private:
            embedded = _embedded_public(path)
            public = embedded or public
            if public is None and (alone := _read_public(path)) is not None:
                public, has_private = alone, False  # IdentityFile may name a public key
        elif public is None:
            self._complain(path, "no such file")
            return None
        return Identity(path, public, has_private, self._read_certificates([path + "-cert.pub"]))

    def _complain(self, path: str, why: str) -> None:
        if self._settings.identity_named or why != "no such file":
            self.unusable.append(f"{path}: {why}")

    def _read_certificates(self, paths: Sequence[str]) -> list[asyncssh.SSHCertificate]:
        found = []
        for path in paths:
            try:
                found.append(asyncssh.read_certificate(path))
            except FileNotFoundError:
                if path in self._settings.certificate_files:
                    self._complain(path, "no such file")
            except (OSError, asyncssh.KeyImportError) as exc:
                self._complain(path, _reason(exc))
        return found

    async def _private(self, path: str) -> asyncssh.SSHKey:
        """The private key in *path*, asking for its passphrase if it has one.

        Raises:
            KeyUnusable: nobody knows the passphrase, or the file makes no sense.
        """
        if path in self._opened:
            return self._opened[path]
        passphrase: str | None = None
        for _ in range(self._settings.password_prompts + 1):
            try:
                key = asyncssh.read_private_key(path, passphrase)
            except (asyncssh.KeyEncryptionError, asyncssh.KeyImportError) as exc:
                if not _is_encrypted(path) or "bcrypt" in str(exc):  # or can't be opened here
                    self._complain(path, _reason(exc))
                    raise KeyUnusable(path) from None
            except OSError as exc:
                self._complain(path, _reason(exc))
                raise KeyUnusable(path) from None
            else:
                self._opened[path] = key
                return key
            passphrase = await self._ask(path)
            if passphrase is None or passphrase == "":
                break
        self.unusable.append(f"{path}: its passphrase is needed")
        raise KeyUnusable(path)


def _copy(pair: asyncssh.SSHKeyPair) -> asyncssh.SSHKeyPair:
    twin = object.__new__(type(pair))
    twin.__dict__.update(pair.__dict__)
    return twin


def _unsafe(path: str) -> str | None:
    """Why ssh would refuse the file *path*, if it would."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    except OSError as exc:
        return _reason(exc)
    if stat.S_ISDIR(found.st_mode):
        return "is a directory"
    if found.st_mode & 0o077 and found.st_uid == os.getuid() and not _is_public(path):
        mode = stat.S_IMODE(found.st_mode)
        return f"others may read this private key (mode {mode:04o}); chmod 600 it"
    if not os.access(path, os.R_OK):
        return "permission denied"
    return None


def _is_public(path: str) -> bool:
    """Whether there is nothing secret in the file."""
    try:
        with open(path, "rb") as file:
            return b"PRIVATE KEY" not in file.read(1 << 16)
    except OSError:
        return False  # whoever reads it next says why


def _read_public(path: str) -> asyncssh.SSHKey | None:
    try:
        return asyncssh.read_public_key(path)
    except (OSError, asyncssh.KeyImportError):
        return None  # absent, or not a public key


def _is_encrypted(path: str) -> bool:
    try:
        asyncssh.read_private_key(path)
    except asyncssh.KeyEncryptionError:
        return True
    except asyncssh.KeyImportError as exc:
        return "assphrase" in str(exc)
    return False


_MAGIC = b"openssh-key-v1\0"


def _embedded_public(path: str) -> asyncssh.SSHKey | None:
    """The public half, which OpenSSH's private key files carry in clear.

    Source: OpenSSH PROTOCOL.key: magic, cipher, kdf, kdf options, number of keys, public key.
    """
    try:
        with open(path, "rb") as file:
            text = file.read(1 << 16)
    except OSError:
        return None  # _unsafe has said why
    begin, end = b"-----BEGIN OPENSSH PRIVATE KEY-----", b"-----END OPENSSH PRIVATE KEY-----"
    if begin not in text or end not in text:
        return None  # another format: only the .pub file or the passphrase can tell
    try:
        data = base64.b64decode(text.split(begin, 1)[1].split(end, 1)[0])
        if not data.startswith(_MAGIC):
            return None
        position = len(_MAGIC)
        for _ in range(3):
            position += 4 + int.from_bytes(data[position : position + 4], "big")
        position += 4
        length = int.from_bytes(data[position : position + 4], "big")
        blob = data[position + 4 : position + 4 + length]
        name_length = int.from_bytes(blob[:4], "big")
        name = blob[4 : 4 + name_length].decode("ascii")
        return asyncssh.import_public_key(f"{name} {base64.b64encode(blob).decode()}")
    except ValueError:  # includes bad base64, KeyImportError and UnicodeDecodeError
        return None  # loading the key will say what is wrong


def _reason(exc: Exception) -> str:
    if isinstance(exc, OSError) and exc.strerror:
        return exc.strerror.lower()
    return str(exc)
