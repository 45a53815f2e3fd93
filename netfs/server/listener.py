"""``netfs serve --listen``: SSH connections whose only service is the ``sftp`` subsystem.

Logins, limits and keepalive.  Who may log in is decided by ``access``; a channel is ``channel``'s;
what a session does is said by ``session`` and ``handlers``.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import socket
from collections import Counter
from typing import Any, Final, cast

import asyncssh

from netfs import sshfast
from netfs.server import attributes, authorized, handlers
from netfs.server.access import Access
from netfs.server.channel import SftpChannel
from netfs.server.config import ServerConfig
from netfs.server.export import Export
from netfs.server.session import Session
from netfs.server.workers import Workers
from netfs.sftp.requests import SYMLINK_AS_OPENSSH

log = logging.getLogger(__name__)

_WINDOW: Final = 4 << 20
"""Bytes that a client may send unasked on one channel: what is held of it when its disk hangs."""

_MAX_PACKET: Final = 256 * 1024
"""Bytes of one SSH packet that we take."""

_HASHES: Final = 2
"""Passwords that are tried at a time: each takes 32 MiB and a processor."""

_ENTRY: Final = "netfs-entry"
"""An option that is put into what asyncssh is told of an authority, to know which one it was."""


class Server:
    """All listening sockets, connections and sessions."""

    def __init__(self, config: ServerConfig, access: Access, export: Export) -> None:
        self.config = config
        self.access = access
        self.workers = Workers(config.limits.max_sessions + 8)
        self.names = attributes.Names()
        self.sessions: set[Session] = set()
        self.connections: set[Connection] = set()
        self.per_user: Counter[str] = Counter()
        self.closing = False
        self.hashing = asyncio.Semaphore(_HASHES)
        self._export = export
        self._exports: dict[str, Export] = {export.path: export}
        self._acceptors: list[asyncssh.SSHAcceptor] = []
        self._numbers = 0

    def __repr__(self) -> str:
        return (
            f"<Server connections={len(self.connections)} sessions={len(self.sessions)}"
            f" {self.workers!r}>"
        )

    def next_number(self) -> int:
        """Counts connections, for the log."""
        self._numbers += 1
        return self._numbers

    def export_of(self, entry: authorized.Entry | None) -> Export:
        """What the owner of *entry* sees."""
        if entry is None or entry.root is None:
            return self._export
        path = os.path.abspath(entry.root)
        found = self._exports.get(path)
        if found is None:
            # Opened by its first request, in a thread: the disk may hang.
            found = Export(path, one_file_system=self.config.one_file_system, later=True)
            self._exports[path] = found
        return found

    async def listen(self, sockets: list[socket.socket], keys: list[asyncssh.SSHKey]) -> None:
        """Accept on *sockets*, which are bound already."""
        limits = self.config.limits
        for sock in sockets:
            acceptor = await asyncssh.listen(
                sock=sock,
                config=None,  # no file of a user's or the machine's has a say here
                server_factory=lambda: Connection(self),
                server_host_keys=keys,
                login_timeout=limits.login_s,
                keepalive_interval=limits.keepalive_s,
                keepalive_count_max=2,
                encoding=None,
                window=_WINDOW,
                max_pktsize=_MAX_PACKET,
                line_editor=False,
                allow_pty=False,
                x11_forwarding=False,
                agent_forwarding=False,
                allow_scp=False,
                gss_host=None,
                host_based_auth=False,
                compression_algs=None,  # bytes of files are compressed already, or not worth it
                server_version=SYMLINK_AS_OPENSSH,
            )
            self._acceptors.append(acceptor)

    async def close(self) -> None:
        """Accept nobody more, let what is in flight finish, then close all that is left."""
        self.closing = True
        for acceptor in self._acceptors:
            acceptor.close()
        sessions = list(self.sessions)
        for session in sessions:
            session.eof_received()
        if sessions:
            ends = [asyncio.ensure_future(session.ended.wait()) for session in sessions]
            _, late = await asyncio.wait(ends, timeout=self.config.limits.grace_s)
            for task in late:
                task.cancel()
            if late:
                log.warning("sessions-cut count=%d reason='not finished in time'", len(late))
        for connection in list(self.connections):
            connection.close()
        deadline = asyncio.get_running_loop().time() + 2
        while self.connections and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.01)
        for connection in list(self.connections):
            connection.abort()


class Connection(asyncssh.SSHServer):
    """One SSH connection: its login and its sessions."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._conn: asyncssh.SSHServerConnection | None = None
        self._address = ""
        self._label = ""
        self._user = ""
        self._failures = 0
        self._logged_in = False
        self._entry: authorized.Entry | None = None
        self._offered: list[authorized.Entry] = []
        self._who = ""
        self._sessions: set[Session] = set()
        self._channels = 0  # counts the sessions, for the log
        self._open_channels = 0
        self._fast: sshfast.FastPath | None = None

    # --- connecting -----------------------------------------------------------------------------

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        server = self._server
        self._conn = conn
        peer = conn.get_extra_info("peername")
        self._address = str(peer[0]) if isinstance(peer, tuple) else "127.0.0.1"
        self._label = str(server.next_number())
        server.connections.add(self)
        # asyncssh leaves these two of asyncio's Protocol empty.  Without them a client that grants
        # a huge SSH window and then reads nothing would have us hold all its answers.
        hooks = cast(Any, conn)
        hooks.pause_writing = self._pause_writing
        hooks.resume_writing = self._resume_writing
        if server.closing or self._too_many_logins():
            log.warning(
                "refused connection=%s address=%s reason='too many connections'",
                self._label, self._address,
            )  # fmt: skip
            conn.abort()

    def _too_many_logins(self) -> bool:
        waiting = sum(not other._logged_in for other in self._server.connections)
        return waiting > self._server.config.limits.max_logins

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.connections.discard(self)
        if self._logged_in:
            log.info(
                "logout connection=%s user=%r address=%s reason=%r",
                self._label, self._user, self._address, str(exc) if exc else "closed",
            )  # fmt: skip
        elif exc is not None:
            log.info(
                "no-login connection=%s address=%s reason=%r", self._label, self._address, str(exc)
            )

    def close(self) -> None:
        if self._conn is not None:
            self._conn.disconnect(asyncssh.DISC_BY_APPLICATION, "the server is stopped")

    def abort(self) -> None:
        if self._conn is not None:
            self._conn.abort()

    def _pause_writing(self) -> None:
        for session in self._sessions:
            session.pause_writing("connection")

    def _resume_writing(self) -> None:
        for session in list(self._sessions):
            session.resume_writing("connection")

    # --- logging in -----------------------------------------------------------------------------

    def begin_auth(self, username: str) -> bool:
        self._user = username
        self._entry = None
        self._offered = self._server.access.authorities(self._address)
        lines = [
            " ".join((_authority_options(entry, index), entry.key_type, _base64(entry.blob)))
            for index, entry in enumerate(self._offered)
        ]
        assert self._conn is not None
        self._conn.set_authorized_keys(
            asyncssh.import_authorized_keys("\n".join(lines)) if lines else None
        )
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        entry = self._server.access.key(key.public_data, self._address)
        if entry is None:
            self._failed(f"key {key.get_fingerprint()}")
            return False
        # A key is offered before it is proven; the last one that was accepted is the proven one
        # when auth_completed() comes, because nothing is awaited in between.
        self._entry = entry
        self._who = f"key {key.get_fingerprint()}"
        return True

    def validate_ca_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        self._failed(f"certificate of {key.get_fingerprint()}")
        return False  # the accepted ones were told to asyncssh in begin_auth

    def password_auth_supported(self) -> bool:
        return self._server.access.has_passwords()

    async def validate_password(self, username: str, password: str) -> bool:
        async with self._server.hashing:
            right = await self._is_right(username, password)
        if right:
            self._entry = None
            self._who = f"password of {username}"
            return True
        self._failed("password")
        return False

    async def _is_right(self, username: str, password: str) -> bool:
        hashed = self._server.access.password(username)
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[bool] = loop.create_future()

        def tell(right: bool) -> None:
            if not answer.done():  # the client may have left meanwhile
                answer.set_result(right)

        self._server.workers.submit(
            lambda: (loop.call_soon_threadsafe(tell, hashed.is_right(password)), None)[1]
        )
        return await answer

    def _failed(self, what: str) -> None:
        self._failures += 1
        log.warning(
            "login-refused connection=%s user=%r address=%s what=%r failures=%d",
            self._label, self._user, self._address, what, self._failures,
        )  # fmt: skip
        if self._failures >= self._server.config.limits.max_failures and self._conn is not None:
            self._conn.disconnect(
                asyncssh.DISC_NO_MORE_AUTH_METHODS_AVAILABLE, "too many failed logins"
            )

    def auth_completed(self) -> None:
        assert self._conn is not None
        index = self._conn.get_key_option(_ENTRY)
        if index is not None:
            self._entry = self._offered[int(cast(list[str], index)[0])]
            self._who = f"certificate by {self._entry.where}"
        self._logged_in = True
        # Not now: asyncssh is in the middle of the data that logged the client in.
        asyncio.get_running_loop().call_soon(self._go_fast)
        entry = self._entry
        same = sum(
            other._logged_in and other._who == self._who for other in self._server.connections
        )
        if same > self._server.config.limits.max_sessions_per_user:
            log.warning(
                "refused connection=%s user=%r by=%r reason='too many connections of this user'",
                self._label, self._user, self._who,
            )  # fmt: skip
            self._conn.disconnect(asyncssh.DISC_TOO_MANY_CONNECTIONS, "too many connections")
            return
        log.info(
            "login connection=%s user=%r address=%s by=%r where=%r comment=%r",
            self._label, self._user, self._address, self._who,
            entry.where if entry else "", entry.comment if entry else "",
        )  # fmt: skip

    def _go_fast(self) -> None:
        if self._conn is not None and self in self._server.connections:
            sshfast.send_no_ignores(self._conn)
            self._fast = sshfast.install(self._conn)

    # --- sessions -------------------------------------------------------------------------------

    def session_requested(self) -> asyncssh.SSHServerSession[bytes] | bool:
        # Channels that hold no session are cheap, but not free.
        if self._open_channels >= 2 * self._server.config.limits.max_sessions_per_user:
            return False
        self._open_channels += 1
        return SftpChannel(self)

    def channel_closed(self) -> None:
        self._open_channels -= 1

    def fast_writer(
        self, channel: asyncssh.SSHServerChannel[bytes], session: Session
    ) -> sshfast.FastWriter | None:
        """The short way out for a new session, if there is one."""
        if self._fast is None or self._conn is None:
            return None
        return sshfast.new_writer(self._fast, self._conn, channel, session)

    def open_session(self, channel: SftpChannel) -> Session | None:
        """The session of a started subsystem; None if it is refused."""
        server = self._server
        limits = server.config.limits
        reason = ""
        if server.closing:
            reason = "the server is being stopped"
        elif len(server.sessions) >= limits.max_sessions:
            reason = "too many sessions"
        elif server.per_user[self._who] >= limits.max_sessions_per_user:
            reason = "too many sessions of this user"
        if reason:
            log.warning(
                "session-refused connection=%s user=%r reason=%r", self._label, self._user, reason
            )
            return None
        self._channels += 1
        entry = self._entry
        export = server.export_of(entry)
        client = handlers.Client(
            export,
            max_handles=limits.max_handles,
            read_only=server.config.read_only or (entry is not None and entry.read_only),
            user=self._user,
            label=f"{self._label}.{self._channels}",
            names=server.names,
            log_requests=server.config.log_requests,
        )
        session = Session(
            client, channel, server.workers, stall_s=limits.stall_s, on_end=self._ended
        )
        server.sessions.add(session)
        server.per_user[self._who] += 1
        self._sessions.add(session)
        log.info(
            "session-open session=%s user=%r root=%r read_only=%s",
            client.label, self._user, export.path, client.read_only,
        )  # fmt: skip
        return session

    def _ended(self, session: Session) -> None:
        server = self._server
        server.sessions.discard(session)
        self._sessions.discard(session)
        server.per_user[self._who] -= 1
        if not server.per_user[self._who]:
            del server.per_user[self._who]
        log.info("session-end session=%s requests=%d", session.client.label, session.requests)


def _authority_options(entry: authorized.Entry, index: int) -> str:
    options = f'cert-authority,{_ENTRY}="{index}"'
    if entry.principals:
        names = ",".join(entry.principals).replace("\\", "\\\\").replace('"', '\\"')
        options += f',principals="{names}"'
    return options


def _base64(blob: bytes) -> str:
    return base64.b64encode(blob).decode()
