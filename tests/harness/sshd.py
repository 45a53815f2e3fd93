"""A throw-away OpenSSH server on loopback: own host key, own user key, own configuration."""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.harness import processes
from tests.harness.packages import require
from tests.harness.waiting import wait_until

STOCK_SUBSYSTEM: Final = "/usr/lib/openssh/sftp-server"  # as Debian's sshd_config has it
CIPHER: Final = "aes128-gcm@openssh.com"  # the same for every client that is compared

STARTER: Final = """
while read -r word pid; do
  case $word in
    start) "$@" </dev/null >/dev/null & echo $! ;;
    wait) wait "$pid" 2>/dev/null; echo $? ;;
  esac
done
"""


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def make_key(path: Path, comment: str = "netfs-test", kind: str = "ed25519") -> Path:
    """An SSH key pair without passphrase at *path* and *path*.pub."""
    command = [require("ssh-keygen"), "-q", "-t", kind, "-N", "", "-C", comment, "-f", str(path)]
    subprocess.run(command, check=True, timeout=30)
    return path


@dataclass
class Sshd:
    """One server. ``client_config`` is an ssh_config for ``ssh -F``, ``sshfs -F``, ``netfs -F``."""

    directory: Path
    port: int
    user: str
    subsystem: str = STOCK_SUBSYSTEM
    extra: Sequence[str] = ()
    address: str = "127.0.0.1"  # where it listens
    _pid: int | None = None
    _starter: subprocess.Popen[str] | None = None
    _stopped: list[int] = field(default_factory=list)

    @property
    def host_key(self) -> Path:
        return self.directory / "host_key"

    @property
    def user_key(self) -> Path:
        return self.directory / "user_key"

    @property
    def known_hosts(self) -> Path:
        return self.directory / "known_hosts"

    @property
    def authorized_keys(self) -> Path:
        return self.directory / "authorized_keys"

    @property
    def client_config(self) -> Path:
        return self.directory / "ssh_config"

    @property
    def log(self) -> Path:
        return self.directory / "sshd.log"

    @property
    def pid(self) -> int:
        assert self._pid is not None, "the server is not running"
        return self._pid

    def source(self, path: str | Path) -> str:
        """``user@host:path`` of a directory of this server."""
        return f"{self.user}@127.0.0.1:{path}"

    def options(self, port: int | None = None) -> list[str]:
        """Arguments that let ssh, sshfs or netfs in; *port* is that of a relay in front."""
        return ["-F", str(self.client_config), "-o", f"Port={self.trust(port or self.port)}"]

    def ssh(self, *command: str, port: int | None = None) -> list[str]:
        """The argv of the system's ssh running *command* on this server."""
        return [require("ssh"), *self.options(port), f"{self.user}@127.0.0.1", *command]

    def trust(self, port: int) -> int:
        """Make the host key known for *port* as well (a relay's); returns the port."""
        line = f"[127.0.0.1]:{port} {self.host_key.with_suffix('.pub').read_text()}"
        known = self.known_hosts.read_text() if self.known_hosts.exists() else ""
        if line not in known:
            self.known_hosts.write_text(known + line)
        return port

    def prepare(self) -> None:
        """Write keys and configurations (also used to change the set-up between two starts)."""
        self.directory.mkdir(parents=True, exist_ok=True)
        for key in (self.host_key, self.user_key):
            if not key.exists():
                make_key(key)
        self.authorized_keys.write_text(self.user_key.with_suffix(".pub").read_text())
        self.trust(self.port)
        self.client_config.write_text(
            "\n".join(
                (
                    "Host *",
                    f"  User {self.user}",
                    f"  IdentityFile {self.user_key}",
                    "  IdentitiesOnly yes",
                    "  IdentityAgent none",
                    f"  UserKnownHostsFile {self.known_hosts}",
                    "  GlobalKnownHostsFile /dev/null",
                    "  StrictHostKeyChecking yes",
                    "  BatchMode yes",
                    f"  Ciphers {CIPHER}",
                    "",
                )
            )
        )
        self.write_server_config()

    def write_server_config(self) -> None:
        """Write sshd_config from ``subsystem`` and ``extra``; takes effect at the next start."""
        lines = [
            *self.extra,  # sshd takes the first value of a keyword: a test's own comes first
            f"Port {self.port}",
            f"ListenAddress {self.address}",
            f"HostKey {self.host_key}",
            f"PidFile {self.directory}/sshd.pid",
            f"AuthorizedKeysFile {self.authorized_keys}",
            "StrictModes no",
            f"UsePAM {'yes' if os.geteuid() == 0 and _locked(self.user) else 'no'}",
            "PermitRootLogin yes",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "UseDNS no",
            # A nested shell to bash: it reads no ~/.bashrc, whatever that may start or print.
            "SetEnv SHLVL=2",
            "PrintMotd no",
            "MaxStartups 500:30:1000",
            "MaxSessions 500",
            "MaxAuthTries 20",
            "LogLevel VERBOSE",
            f"Subsystem sftp {self.subsystem}",
        ]
        if not any(line.startswith("AcceptEnv") for line in self.extra):
            lines.append("AcceptEnv LANG LC_*")
        (self.directory / "sshd_config").write_text("\n".join(lines) + "\n")

    def start(self) -> None:
        """Start listening on ``port`` and return when it accepts connections."""
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # privilege separation wants it
        self._pid = int(self._ask("start"))
        try:
            wait_until(self._accepts, 20, "sshd listens")
        except TimeoutError:
            text = self.log.read_text() if self.log.exists() else ""
            raise RuntimeError(f"sshd did not start:\n{text}") from None

    def _ask(self, request: str) -> str:
        """Have a shell start or await the server.

        A process that holds a file of a stuck mount must not fork: its child's closing of that
        file would wait for the very server that is to be started. The shell holds no files.
        """
        if self._starter is None:
            command = [require("sshd"), "-D", "-E", str(self.log)]
            command += ["-f", str(self.directory / "sshd_config")]
            self._starter = subprocess.Popen(
                ["bash", "-c", STARTER, "bash", *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                bufsize=1,
                start_new_session=True,
            )
        assert self._starter.stdin is not None
        assert self._starter.stdout is not None
        self._starter.stdin.write(request + "\n")
        return self._starter.stdout.readline().strip()

    def _accepts(self) -> bool:
        if not processes.alive(self.pid):
            text = self.log.read_text() if self.log.exists() else ""
            raise RuntimeError(f"sshd ended: {text}")
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self, *, sessions: bool = True) -> None:
        """Stop listening; with *sessions* the open ones end too, as in a reboot."""
        if self._pid is None:
            return
        open_sessions = self.sessions()
        processes.send([self._pid], signal.SIGTERM)
        self._ask(f"wait {self._pid}")
        if sessions:
            processes.send(open_sessions, signal.SIGCONT)
            processes.send(open_sessions, signal.SIGKILL)
        self._pid = None

    def close(self) -> None:
        """Stop for good."""
        self.resume()
        self.stop()
        if self._starter is not None:
            self._starter.communicate(timeout=10)
            self._starter = None

    def restart(self, *, sessions: bool = True) -> None:
        """Stop and start on the same port, with the same keys."""
        self.stop(sessions=sessions)
        self.start()

    def sessions(self) -> list[int]:
        """The processes that serve the open sessions."""
        return processes.descendants(self._pid) if self._pid else []

    def kill_sessions(self) -> None:
        """End each open session; the server goes on listening."""
        processes.send(self.sessions(), signal.SIGKILL)

    def pause(self) -> None:
        """SIGSTOP the server and its sessions: TCP stays up, nobody answers."""
        self._stopped = [self.pid, *self.sessions()]
        processes.send(self._stopped, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT what :meth:`pause` stopped."""
        processes.send(self._stopped, signal.SIGCONT)
        self._stopped = []


def _locked(user: str) -> bool:
    """Whether the account's password is locked, which sshd without PAM takes for a refusal."""
    with contextlib.suppress(OSError):
        for line in Path("/etc/shadow").read_text().splitlines():
            name, password, *_ = line.split(":")
            if name == user:
                return password.startswith("!")
    return False


@contextlib.contextmanager
def running_sshd(
    directory: Path,
    *,
    user: str | None = None,
    subsystem: str = STOCK_SUBSYSTEM,
    extra: Sequence[str] = (),
    port: int | None = None,
) -> Iterator[Sshd]:
    """A server that runs for the length of the block, with its files in *directory*."""
    server = Sshd(
        directory=directory,
        port=port or free_port(),
        user=user or pwd.getpwuid(os.geteuid()).pw_name,
        subsystem=subsystem,
        extra=tuple(extra),
    )
    server.prepare()
    try:
        try:
            server.start()
        except RuntimeError as error:  # somebody took the port since we asked for a free one
            if port or "Address already in use" not in str(error):
                raise
            server.stop()
            server.port = free_port()
            server.prepare()
            server.start()
        yield server
    finally:
        server.close()
