"""Other people's SSH and SFTP servers, to be mounted: ProFTPD, Dropbear, tinysshd, asyncssh,
gesftpserver, MySecureShell.

Those that are an SSH server of their own listen on loopback and let the harness' key in; those that
are only an SFTP server run behind OpenSSH's sshd, as their packages say.
"""

from __future__ import annotations

import abc
import contextlib
import grp
import os
import pwd
import shlex
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from tests.harness import processes
from tests.harness.packages import install, require
from tests.harness.sshd import STOCK_SUBSYSTEM, Sshd, free_port, running_sshd
from tests.harness.waiting import wait_until

_ASYNCSSH: Final = """
import asyncio, sys, asyncssh

async def main(port, host_key, users):
    server = await asyncssh.listen(
        "127.0.0.1", int(port), server_host_keys=[host_key], authorized_client_keys=users,
        sftp_factory=True,
    )
    await server.wait_closed()

asyncio.run(main(*sys.argv[1:]))
"""

_INETD: Final = """
import socket, subprocess, sys

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    with listener.accept()[0] as connection:
        end = connection.fileno()
        subprocess.Popen(sys.argv[2:], stdin=end, stdout=end)
"""

_PROFTPD: Final = """
ModulePath /usr/lib/proftpd
LoadModule mod_sftp.c
ServerName netfs-test
ServerType standalone
DefaultServer on
DefaultAddress 127.0.0.1
SocketBindTight on
UseIPv6 off
Port {port}
User {user}
Group {group}
RootLogin on
UseFtpUsers off
RequireValidShell off
AuthPAM off
AuthOrder mod_auth_unix.c
AllowOverwrite on
AllowStoreRestart on
Umask 022
DelayEngine off
WtmpLog off
TransferLog none
SystemLog {directory}/system.log
PidFile {directory}/pid
ScoreboardFile {directory}/scoreboard
SFTPEngine on
SFTPLog {directory}/sftp.log
SFTPHostKey {directory}/rsa_key
SFTPAuthorizedUserKeys file:{directory}/keys/%u
SFTPAuthMethods publickey
"""

_MYSECURESHELL: Final = """
<Default>
StayAtHome false
VirtualChroot false
LimitConnectionByUser 100
LimitConnectionByIP 100
LimitConnection 100
ShowLinksAsLinks true
DefaultRights 0644 0755
</Default>
"""


class Other(Sshd):
    """An SSH server that is not OpenSSH's."""

    _process: subprocess.Popen[bytes] | None = None

    @abc.abstractmethod
    def make(self) -> list[str]:
        """Prepare what it needs; returns its argv."""

    def prepare(self) -> None:
        super().prepare()
        # A cipher that all of them have, and the host key that each of them has.
        lines = self.client_config.read_text().splitlines()
        self.client_config.write_text(
            "\n".join(line for line in lines if "Ciphers" not in line) + "\n"
        )

    def start(self) -> None:
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self.make(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._pid = self._process.pid
        try:
            wait_until(self._accepts, 20, f"the server {type(self).__name__} listens")
        except BaseException:
            self.close()
            raise

    def _accepts(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"{type(self).__name__} ended: {self.log.read_text()}")
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self, *, sessions: bool = True) -> None:
        if self._process is not None:
            processes.end_tree(self._process.pid)
            self._process.wait(10)
            self._process = self._pid = None

    def _at_home(self, command: list[str]) -> list[str]:
        """*command* for a server that wants authorized_keys below the user's home: it sees another
        home, that is its own."""
        home = self.directory / "home"
        (home / ".ssh").mkdir(parents=True, mode=0o700, exist_ok=True)
        (home / ".ssh" / "authorized_keys").write_text(self.authorized_keys.read_text())
        (home / ".ssh" / "authorized_keys").chmod(0o600)
        home.chmod(0o700)
        return _seeing(home, pwd.getpwnam(self.user).pw_dir, command)

    def add_host_key(self, public: str) -> None:
        """Have the client know one more key of this server."""
        with self.known_hosts.open("a") as file:
            file.write(f"[127.0.0.1]:{self.port} {public}\n")


class Asyncssh(Other):
    def make(self) -> list[str]:
        keys = (str(self.host_key), str(self.authorized_keys))
        return [sys.executable, "-c", _ASYNCSSH, str(self.port), *keys]


class Proftpd(Other):
    def make(self) -> list[str]:
        program = require("proftpd", "proftpd-mod-crypto")
        if not Path("/usr/lib/proftpd/mod_sftp.so").exists():
            install("proftpd-mod-crypto")
        keys = self.directory / "keys"
        keys.mkdir(exist_ok=True)
        exported = [require("ssh-keygen"), "-e", "-f", f"{self.user_key}.pub"]
        text = subprocess.run(exported, check=True, capture_output=True, timeout=20).stdout
        (keys / self.user).write_bytes(text)
        (keys / self.user).chmod(0o600)
        rsa = self.directory / "rsa_key"
        if not rsa.exists():
            make = [require("ssh-keygen"), "-q", "-t", "rsa", "-m", "PEM", "-N", ""]
            subprocess.run([*make, "-f", str(rsa)], check=True, timeout=60)
        self.add_host_key(rsa.with_suffix(".pub").read_text().strip())
        group = grp.getgrgid(os.getegid()).gr_name
        config = self.directory / "proftpd.conf"
        config.write_text(
            _PROFTPD.format(port=self.port, directory=self.directory, user=self.user, group=group)
        )
        return [program, "-n", "-c", str(config)]


class Dropbear(Other):
    def make(self) -> list[str]:
        key = self.directory / "dropbear_key"
        maker = require("dropbearkey", "dropbear-bin")
        if not key.exists():
            _told(maker, "-t", "ed25519", "-f", str(key))
        self.add_host_key(_line_of(_told(maker, "-y", "-f", str(key))))
        arguments = ["-F", "-E", "-s", "-p", f"127.0.0.1:{self.port}", "-r", str(key)]
        return self._at_home([require("dropbear", "dropbear-bin"), *arguments])


class Tinysshd(Other):
    """One process per connection; ChaCha20 only, and one channel."""

    def make(self) -> list[str]:
        keys = str(self.directory / "tiny_keys")
        if not os.path.exists(keys):
            _told(require("tinysshd-makekey", "tinysshd"), keys)
        self.add_host_key(_line_of(_told(require("tinysshd-printkey", "tinysshd"), keys)))
        server = [require("tinysshd"), "-v", "-x", f"sftp={STOCK_SUBSYSTEM}", keys]
        return [sys.executable, "-c", _INETD, str(self.port), *self._at_home(server)]


def _told(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=20).stdout


def _line_of(text: str) -> str:
    """The public key in what a tool printed."""
    line = next(line for line in text.splitlines() if "ssh-ed25519" in line)
    return line[line.index("ssh-ed25519") :]


def _gesftpserver(directory: Path) -> str:
    program = Path("/usr/libexec/gesftpserver")
    if not program.exists():
        install("gesftpserver")
    return str(program)


def _mysecureshell(directory: Path) -> str:
    """Its configuration has one place only."""
    config = directory / "sftp_config"
    config.write_text(_MYSECURESHELL)
    command = [require("mysecureshell"), "-c", "sftp-server"]
    starter = directory / "mysecureshell"
    starter.write_text(
        f"#!/bin/sh\nexec {shlex.join(_seeing(config, '/etc/ssh/sftp_config', command))}\n"
    )
    starter.chmod(0o755)
    return str(starter)


def _seeing(source: Path, place: str, command: list[str]) -> list[str]:
    """*command*, to which *source* is at *place*: in a namespace of its own, which must not keep
    anybody's mount alive."""
    bind = shlex.join(["mount", "--bind", str(source), place])
    script = (
        f"umount -l -a -t fuse.netfs,fuse.sshfs 2>/dev/null\n{bind} && exec {shlex.join(command)}"
    )
    return [require("unshare"), "-m", "--propagation", "private", "sh", "-c", script]


SSH_SERVERS: Final[dict[str, type[Other]]] = {
    "proftpd": Proftpd,
    "dropbear": Dropbear,
    "tinysshd": Tinysshd,
    "asyncssh": Asyncssh,
}
SUBSYSTEMS: Final[dict[str, Callable[[Path], str]]] = {
    "gesftpserver": _gesftpserver,
    "mysecureshell": _mysecureshell,
}


@contextlib.contextmanager
def running_other(kind: str, directory: Path) -> Iterator[Sshd]:
    """One of SSH_SERVERS or SUBSYSTEMS for the length of the block."""
    directory.mkdir(parents=True)
    if kind in SUBSYSTEMS:
        with running_sshd(directory, subsystem=SUBSYSTEMS[kind](directory)) as sshd:
            yield sshd
        return
    user = pwd.getpwuid(os.geteuid()).pw_name
    server = SSH_SERVERS[kind](directory=directory, port=free_port(), user=user)
    server.prepare()
    server.start()
    try:
        yield server
    finally:
        server.close()
