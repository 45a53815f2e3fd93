"""A throw-away ``netfs serve`` on loopback: own keys, and an ssh_config for its clients."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.harness import processes
from tests.harness.sshd import CIPHER, make_key
from tests.harness.waiting import wait_until

TREE = Path(__file__).parents[2]


def environment() -> dict[str, str]:
    """Of a process that imports netfs from this tree, wherever it is started."""
    return {**os.environ, "PYTHONPATH": str(TREE)}


def command(*arguments: str) -> list[str]:
    """The argv of ``netfs serve``."""
    return [sys.executable, "-m", "netfs", "serve", *arguments]


@dataclass
class Served:
    """One running server."""

    directory: Path
    root: Path
    process: subprocess.Popen[bytes]
    port: int

    @property
    def log(self) -> Path:
        return self.directory / "serve.log"

    @property
    def user_key(self) -> Path:
        return self.directory / "user_key"

    @property
    def authorized_keys(self) -> Path:
        return self.directory / "authorized_keys"

    @property
    def client_config(self) -> Path:
        return self.directory / "ssh_config"

    @property
    def host(self) -> str:
        """What ssh_config calls the server."""
        return "served"

    def text(self) -> str:
        """The log so far."""
        return self.log.read_text()

    def wait_for(self, pattern: str, timeout_s: float = 10.0) -> re.Match[str]:
        """The first place in the log that matches *pattern*, once there is one."""
        wait_until(lambda: re.search(pattern, self.text()) is not None, timeout_s, pattern)
        found = re.search(pattern, self.text())
        assert found is not None
        return found

    def reload(self) -> None:
        """SIGHUP, and wait until the files are read."""
        before = self.text().count("access-loaded")
        self.process.send_signal(signal.SIGHUP)
        wait_until(lambda: self.text().count("access-loaded") > before, 10, "reloaded")

    def descriptors(self) -> int:
        """Open file descriptors of the server."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def rss(self) -> int:
        """Resident memory, bytes."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", text)[1]) * 1024  # type: ignore[index]

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        return processes.end(self.process, grace_s=15)


def write_client_config(directory: Path, port: int) -> None:
    """An ssh_config in which the host ``served`` is the server of *directory*."""
    public = (directory / "host_key.pub").read_text()
    (directory / "known_hosts").write_text(f"[127.0.0.1]:{port} {public}")
    lines = (
        "Host served",
        "  HostName 127.0.0.1",
        f"  Port {port}",
        "  User somebody",
        f"  IdentityFile {directory}/user_key",
        "  IdentitiesOnly yes",
        "  IdentityAgent none",
        f"  UserKnownHostsFile {directory}/known_hosts",
        "  GlobalKnownHostsFile /dev/null",
        "  StrictHostKeyChecking yes",
        "  BatchMode yes",
        f"  Ciphers {CIPHER}",
        "",
    )
    (directory / "ssh_config").write_text("\n".join(lines))


@contextlib.contextmanager
def serving(
    directory: Path,
    root: Path,
    *options: str,
    key_options: str = "",
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
) -> Iterator[Served]:
    """``netfs serve --root`` *root* with *options*; its files are in *directory*."""
    directory.mkdir(parents=True, exist_ok=True)
    key = directory / "user_key"
    if not key.exists():
        make_key(key)
    allowed = directory / "authorized_keys"
    if not allowed.exists():
        allowed.write_text(f"{key_options} {key.with_suffix('.pub').read_text()}".strip() + "\n")
    argv = command(
        "--root", str(root), "--listen", "127.0.0.1:0",
        "--host-key", str(directory / "host_key"), "--authorized-keys", str(allowed), *options,
    )  # fmt: skip
    with open(directory / "serve.log", "wb") as log:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stderr=log,
            env={**environment(), **(env or {})},
            pass_fds=pass_fds,
            start_new_session=True,
        )
    served = Served(directory, root, process, 0)
    try:
        wait_until(
            lambda: "listening" in served.text() or process.poll() is not None, 20, "listening"
        )
        if process.poll() is not None:
            raise RuntimeError(f"netfs serve ended: {served.text()}")
        served.port = int(served.wait_for(r"listening .*port=(\d+)")[1])
        write_client_config(directory, served.port)
        yield served
    finally:
        served.stop()
