"""Logging in over SSH: hops and proxies first, host key questions, several attempts.

asyncssh's own reader of ssh_config, known_hosts and keys is not used: everything it is told here
comes from Settings (see docs/adr).
"""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import socket
from collections.abc import Sequence
from typing import Any, Final

import asyncssh
from asyncssh.encryption import get_encryption_algs
from asyncssh.kex import get_default_kex_algs, get_kex_algs
from asyncssh.mac import get_default_mac_algs, get_mac_algs
from asyncssh.public_key import (
    get_certificate_algs,
    get_default_public_key_algs,
    get_public_key_algs,
)

from netfs import sshfast
from netfs.client.config import Config
from netfs.client.remote import algorithms, hostkeys, sshconfig
from netfs.client.remote.errors import ConnectError, ConnectErrorKind
from netfs.client.remote.prompt import Prompter, Purpose
from netfs.client.remote.sockets import ProxyCommand, acked_at, open_tcp, reset_on_close
from netfs.client.remote.ssh import ProbedSshLink, SshLink
from netfs.client.remote.sshlogin import (
    Login,
    Patience,
    accepts,
    denied,
    may_add,
    refused_key,
    strict_question,
)
from netfs.client.remote.sshsettings import Settings, StrictHostKey
from netfs.sftp.requests import SYMLINK_AS_OPENSSH

_MAX_HOPS: Final = 8
_QUESTIONS: Final = 3  # new host keys in one attempt: a cluster behind one name shows several
_REKEY_BYTES: Final = 16 << 30
"""Before new keys are made: far below what the ciphers bear (RFC 4344 §3.2: 2^32 blocks, as
OpenSSH's default), and rare enough not to be felt in a long copy."""

_RETRY_PAUSE_S: Final = 1.0  # between ConnectionAttempts, as ssh waits


async def connect_ssh(config: Config, prompter: Prompter) -> SshLink:
    """Log in and return the link.

    Raises:
        ConnectError: see errors.py.
    """
    source = config.source
    settings = sshconfig.settings_for(config.ssh, source.host, user=source.user, port=source.port)
    # asyncssh tells its life at INFO; a mount's log is about the mount.
    logging.getLogger("asyncssh").setLevel(
        logging.DEBUG if settings.log_level.startswith("debug") else logging.WARNING
    )
    dialer = Dialer(config, prompter)
    try:
        connection, login = await dialer.dial(settings)
    except BaseException:
        await dialer.undo()
        raise
    kind = ProbedSshLink if hasattr(connection, "_make_global_request") else SshLink
    return kind(connection, login, settings, config.ssh.sftp_server, dialer)


class Dialer:
    """Makes the connections that a link consists of, and knows how to undo them."""

    def __init__(self, config: Config, prompter: Prompter) -> None:
        self._config = config
        self._prompter = prompter
        self._connections: list[asyncssh.SSHClientConnection] = []  # the outermost first
        self._sockets: list[socket.socket] = []
        self._proxies: list[ProxyCommand] = []
        self._logins: list[Login] = []
        self._accepted: set[bytes] = set()  # host keys somebody said yes to in this attempt

    async def dial(
        self, settings: Settings, depth: int = 0
    ) -> tuple[asyncssh.SSHClientConnection, Login]:
        """Connect and log in as *settings* say.

        Raises:
            ConnectError: the last attempt's.
        """
        if depth > _MAX_HOPS:
            raise ConnectError(
                ConnectErrorKind.BAD_CONFIG, f"ProxyJump: more than {_MAX_HOPS} hops; a loop?"
            )
        tunnel = await self._jump(settings, depth) if settings.proxy_jump else None
        for left in range(settings.connection_attempts - 1, -1, -1):
            try:
                return await self._attempt(settings, tunnel)
            except ConnectError as exc:
                if left == 0 or not exc.kind.may_retry:
                    raise
                await asyncio.sleep(_RETRY_PAUSE_S)
        raise AssertionError  # the loop's last round raises

    async def _jump(self, settings: Settings, depth: int) -> asyncssh.SSHClientConnection:
        """The connection to the last of the hops."""
        tunnel: asyncssh.SSHClientConnection | None = None
        for hop in settings.proxy_jump:
            user, host, port = sshconfig.split_destination(hop)
            # As ssh does: the file's words hold for the hops, the mount's own -o words do not.
            there = sshconfig.settings_for_hop(self._config.ssh, host, user=user, port=port)
            try:
                if tunnel is None:
                    tunnel, _ = await self.dial(there, depth + 1)
                else:
                    tunnel, _ = await self._attempt(there, tunnel)
            except ConnectError as exc:
                raise ConnectError(exc.kind, f"ProxyJump {hop}: {exc}") from None
        assert tunnel is not None
        return tunnel

    async def _attempt(
        self, settings: Settings, tunnel: asyncssh.SSHClientConnection | None
    ) -> tuple[asyncssh.SSHClientConnection, Login]:
        """One attempt, and again after each host key that was found good."""
        for _ in range(_QUESTIONS):
            known = _known(settings, frozenset(self._accepted))
            timeout_s = settings.connect_timeout_s or self._config.ssh.connect_timeout_s or None
            patience = Patience(timeout_s)
            login = Login(settings, self._prompter, known, patience)
            self._logins.append(login)
            try:
                async with patience:
                    connection = await self._connect(settings, tunnel, login, known)
            except TimeoutError:
                raise ConnectError(
                    ConnectErrorKind.TIMED_OUT,
                    f"{settings.host} port {settings.port}: no answer in {timeout_s:g} s "
                    "(ConnectTimeout); is the host up, and does a firewall let ssh through?",
                ) from None
            except asyncssh.HostKeyNotVerifiable as exc:
                if login.host_key is None:
                    raise _untrusted(exc, known) from None
                if not await self._accept(settings, login, known):
                    raise refused_key(settings, login) from None
            else:
                self._connections.append(connection)
                return connection, login
            finally:
                await login.keys.close()
        raise ConnectError(
            ConnectErrorKind.HOST_KEY_UNKNOWN,
            f"{settings.host} shows another host key at each connection",
        )

    async def _connect(
        self,
        settings: Settings,
        tunnel: asyncssh.SSHClientConnection | None,
        login: Login,
        known: hostkeys.HostKeys,
    ) -> asyncssh.SSHClientConnection:
        options = _options(settings, known)
        sock = None if tunnel is not None else await self._socket(settings)
        try:
            connection = await asyncssh.connect(
                settings.host,
                settings.port,
                sock=sock,
                tunnel=tunnel,
                client_factory=lambda: login,
                **options,
            )
        except asyncssh.HostKeyNotVerifiable:
            self._drop(sock)
            raise
        except asyncssh.PermissionDenied:
            self._drop(sock)
            raise denied(settings, login) from None
        except asyncssh.ChannelOpenError as exc:
            raise ConnectError(
                ConnectErrorKind.PROXY_FAILED,
                f"the jump host can't reach {settings.host} port {settings.port}: {exc.reason}",
            ) from None
        except (asyncssh.Error, OSError, ValueError) as exc:
            self._drop(sock)
            raise self._translate(_cause(exc, login, options), settings, login) from None
        sshfast.send_no_ignores(connection)
        return connection

    async def _socket(self, settings: Settings) -> socket.socket:
        if settings.proxy_command is not None:
            proxy = ProxyCommand(settings.proxy_command)
            self._proxies.append(proxy)
            sock = proxy.socket
        else:
            sock = await open_tcp(
                settings.host,
                settings.port,
                family=settings.address_family,
                bind=settings.bind_address,
            )
        self._sockets.append(sock)
        return sock

    def _drop(self, sock: socket.socket | None) -> None:
        if sock is not None:
            sock.close()
            self._sockets.remove(sock)

    def _translate(self, exc: Exception, settings: Settings, login: Login) -> ConnectError:
        where = f"{settings.host} port {settings.port}"
        text = str(exc).rstrip(".")
        if isinstance(exc, ValueError):
            return ConnectError(ConnectErrorKind.BAD_CONFIG, text)
        if isinstance(exc, asyncssh.KeyExchangeFailed):
            return ConnectError(
                ConnectErrorKind.NO_ALGORITHM,
                f"{where}: no algorithm in common: {text}; "
                "see Ciphers, KexAlgorithms, MACs and HostKeyAlgorithms in ssh_config(5)",
            )
        if isinstance(exc, asyncssh.ProtocolError | asyncssh.ProtocolNotSupported):
            return ConnectError(
                ConnectErrorKind.PROTOCOL,
                f"{where}: not an SSH server, or a broken one: {text}",
            )
        if "authentication failures" in text:
            return denied(settings, login)
        if settings.proxy_command is not None and not login.greeted:
            status = self._proxies[-1].status()
            ended = f"ended with status {status}" if status is not None else "closed the connection"
            return ConnectError(
                ConnectErrorKind.PROXY_FAILED, f"ProxyCommand {settings.proxy_command}: {ended}"
            )
        hint = "" if login.greeted else " before its greeting (is this an SSH port? MaxStartups?)"
        return ConnectError(
            ConnectErrorKind.LOST,
            f"{where}: the server closed the connection{hint}: {text.lower()}",
        )

    async def _accept(self, settings: Settings, login: Login, known: hostkeys.HostKeys) -> bool:
        """Whether the unknown key that *login* met is accepted; if so it is remembered."""
        assert login.verdict is not None
        assert login.host_key is not None
        if login.verdict[0] is not hostkeys.Verdict.UNKNOWN:
            return False
        if settings.strict is StrictHostKey.YES:
            return False
        key = login.host_key
        if not may_add(settings.strict):
            if settings.batch:
                return False
            question = strict_question(known, key)
            answer = await self._prompter.ask(question, Purpose.CONFIRM, echo=True)
            if answer is None or not accepts(answer, key):
                return False
        self._accepted.add(key.blob)
        file = next(iter(settings.known_hosts), None)
        if file is not None and file != os.devnull:
            try:
                hostkeys.append(
                    file,
                    known.name,
                    key,
                    hashed=settings.hash_known_hosts,
                    owner=settings.person.owner,
                )
            except OSError as exc:
                self._prompter.notice(f"netfs: {file}: {exc.strerror}; the host key is not kept")
        return True

    def abort(self) -> None:
        """See ssh.Underlay."""
        for sock in self._sockets:
            reset_on_close(sock)
        for connection in reversed(self._connections):
            connection.abort()

    def acked_at(self) -> float | None:
        """See ssh.Underlay."""
        return acked_at(self._sockets[0]) if self._sockets else None

    async def undo(self) -> None:
        """See ssh.Underlay."""
        self.abort()
        for proxy in self._proxies:
            await proxy.close()
        for login in self._logins:
            await login.keys.close()
        self._connections.clear()
        self._sockets.clear()
        self._proxies.clear()


def _known(settings: Settings, accepted: frozenset[bytes]) -> hostkeys.HostKeys:
    try:
        return hostkeys.look_up(
            (*settings.known_hosts, *settings.global_known_hosts),
            settings.host,
            settings.port,
            alias=settings.host_key_alias,
            revoked_file=settings.revoked_host_keys,
            accepted=accepted,
        )
    except OSError as exc:
        raise ConnectError(
            ConnectErrorKind.BAD_CONFIG, f"{exc.filename}: {exc.strerror}; host keys can't be read"
        ) from None


def _cause(exc: Exception, login: Login, options: dict[str, Any]) -> Exception:
    """Why the connection ended, if no algorithm fits.

    Both sides see that at once; asyncssh reports the server's hanging up when that comes first.
    """
    if isinstance(exc, asyncssh.KeyExchangeFailed | asyncssh.ConnectionLost | OSError):
        lacking = algorithms.unmatched(
            login.kexinit,
            kex=options["kex_algs"],
            host_keys=options["server_host_key_algs"],
            ciphers=options["encryption_algs"],
            macs=options["mac_algs"],
        )
        if lacking is not None:
            return asyncssh.KeyExchangeFailed(lacking)
    return exc


def _untrusted(exc: Exception, known: hostkeys.HostKeys) -> ConnectError:
    """The error for a key or certificate that asyncssh refused by what Login told it."""
    entries = (*known.entries, *known.plain)
    is_revoked = "revoked" in str(exc)
    marker = "revoked" if is_revoked else "cert-authority"
    lines = ", ".join(entry.where for entry in entries if entry.marker == marker)
    kind = ConnectErrorKind.HOST_KEY_REVOKED if is_revoked else ConnectErrorKind.HOST_KEY_UNKNOWN
    return ConnectError(kind, f"{exc} (see {lines}): not connecting")


def _options(settings: Settings, known: hostkeys.HostKeys) -> dict[str, Any]:
    """Everything asyncssh is told; nothing is left for it to look up in files."""
    revoked = [e for e in (*known.entries, *known.plain) if e.marker == "revoked"]
    return {
        "config": None,
        "client_version": SYMLINK_AS_OPENSSH,
        # Unknown and known plain keys all go to Login; only certificates are judged in asyncssh.
        "known_hosts": lambda host, addr, port: ([], [], [_import(e.key) for e in revoked]),
        "host_key_alias": settings.host_key_alias,
        "server_host_key_algs": _host_key_algorithms(settings, known),
        "username": settings.user,
        "client_keys": None,
        "preferred_auth": settings.methods,
        "host_based_auth": False,
        "gss_host": None,
        "x509_trusted_certs": None,
        "x509_trusted_cert_paths": [],
        "kex_algs": _pick("KexAlgorithms", settings.kex, get_default_kex_algs(), get_kex_algs()),
        "encryption_algs": _pick(
            "Ciphers",
            settings.ciphers,
            [name.encode() for name in algorithms.ciphers(_cpu_flags())],
            get_encryption_algs(),
        ),
        "mac_algs": _pick("MACs", settings.macs, get_default_mac_algs(), get_mac_algs()),
        "compression_algs": ["zlib@openssh.com", "none"] if settings.compression else ["none"],
        "signature_algs": _signatures(settings),
        "rekey_bytes": settings.rekey_bytes or _REKEY_BYTES,
        "rekey_seconds": settings.rekey_s or (),
        "tcp_keepalive": settings.tcp_keepalive,
        "keepalive_interval": 0,  # link.py watches the link
        "login_timeout": 0,  # Patience does
        "agent_forwarding": False,
    }


def _pick(
    word: str, spec: str | None, default: Sequence[bytes], supported: Sequence[bytes]
) -> list[str]:
    """Names for one kind of algorithm.

    Raises:
        ConnectError: BAD_CONFIG, nothing of *spec* can be done here.
    """
    names = algorithms.expand(
        spec, [name.decode() for name in default], [name.decode() for name in supported]
    )
    if not names:
        raise ConnectError(
            ConnectErrorKind.BAD_CONFIG, f"{word} {spec}: none of these is supported here"
        )
    return names


def _host_key_algorithms(settings: Settings, known: hostkeys.HostKeys) -> list[str]:
    supported = [*get_certificate_algs(), *get_public_key_algs()]
    default = [name.encode() for name in algorithms.HOST_KEYS]
    names = _pick("HostKeyAlgorithms", settings.host_key_algorithms, default, supported)
    if not known.authorities():
        # Without an authority to check it, a certificate would only hide the bare key.
        names = [name for name in names if "-cert-v0" not in name] or names
    if settings.host_key_algorithms is None:
        names = algorithms.with_known_first(names, known.known_types())
    return names


def _signatures(settings: Settings) -> list[str]:
    default = [*get_default_public_key_algs(), b"ssh-rsa"]
    return _pick(
        "PubkeyAcceptedAlgorithms", settings.pubkey_algorithms, default, get_public_key_algs()
    )


def _import(key: hostkeys.Key) -> asyncssh.SSHKey:
    return asyncssh.import_public_key(f"{key.type} {base64.b64encode(key.blob).decode()}")


def _cpu_flags() -> list[str]:
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            return algorithms.cpu_flags(file.read())
    except OSError:
        return []  # no /proc: the order of those without AES is right everywhere, only slower
