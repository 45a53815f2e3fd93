"""A background mount by the command line, as users and mount(8) make it."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from netfs.cli import tools
from tests.harness import mounts
from tests.harness.sshd import Sshd
from tests.harness.waiting import wait_until


@dataclass
class Cli:
    """The command line with a runtime directory of its own."""

    server: Sshd
    folder: Path
    made: list[Path] = field(default_factory=list)

    def run(self, *words: str, timeout_s: float = 30.0) -> subprocess.CompletedProcess[str]:
        """``netfs WORDS`` to its end; its output is read to EOF, as automount does."""
        return subprocess.run(
            mounts.netfs_command(*words),
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=timeout_s,
            env=mounts.environment(),
            cwd="/",
        )

    def tool(self, command: str, *words: str, timeout_s: float = 30.0) -> Any:
        return self.run(command, f"--runtime-dir={self.folder / 'run'}", *words)

    def here(self, command: str, *words: str) -> tuple[int, float]:
        """The same tool in this process, and the seconds it took: without an interpreter's start.

        That start takes longer than the answer, and how long depends on what else runs.
        """
        began = time.monotonic()
        code = tools.main(command, [f"--runtime-dir={self.folder / 'run'}", *words])
        return code, time.monotonic() - began

    def status(self, point: Path) -> dict[str, Any]:
        """What the supervisor says; asked again where it had no turn in time."""

        def ask() -> dict[str, Any] | None:
            body: dict[str, Any] = json.loads(self.tool("status", "--json", str(point)).stdout)
            return None if "its supervisor does not answer" in body.get("error", "") else body

        body = wait_until(ask, 20, "the supervisor's answer")
        assert body is not None
        return body

    def words(
        self, remote: str | Path, point: Path, options: Sequence[str] = (), port: int | None = None
    ) -> list[str]:
        words = [
            self.server.source(remote),
            str(point),
            *self.server.options(port),
            "-o",
            f"runtime_dir={self.folder / 'run'},log_file={self.folder / 'log'}",
        ]
        for option in options:
            words += ["-o", option]
        return words

    def mount(
        self, remote: str | Path, *options: str, port: int | None = None, name: str = "mnt"
    ) -> Path:
        """Mount in the background; the mountpoint."""
        point = self.folder / name
        if not mounts.is_mounted(point):
            point.mkdir(exist_ok=True)
        self.made.append(point)
        done = self.run(*self.words(remote, point, options, port))
        assert done.returncode == 0, done.stderr
        assert mounts.is_mounted(point)
        return point

    def supervisor(self, point: Path) -> int:
        return int(self.status(point)["supervisor"]["pid"])

    def worker(self, point: Path) -> int:
        return int(self.status(point)["supervisor"]["worker_pid"])

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def wait_state(self, point: Path, state: str, timeout_s: float = 30.0) -> dict[str, Any]:
        def reached() -> dict[str, Any] | None:
            body = self.status(point)
            supervisor = body.get("supervisor") or {}
            return body if supervisor.get("state") == state else None

        found = wait_until(reached, timeout_s, f"state {state!r}", every_s=0.05)
        assert found is not None
        return found

    def clean_up(self) -> None:
        for point in self.made:
            if mounts.is_mounted(point) or list((self.folder / "run").glob("*.sock")):
                self.run("umount", f"--runtime-dir={self.folder / 'run'}", "--force", str(point))
            mounts.unmount_lazily(point)


def read(path: Path, timeout_s: float = 10.0) -> subprocess.CompletedProcess[bytes]:
    """cat in a process of its own: a stuck mount must not hold the test."""
    return subprocess.run(["cat", str(path)], capture_output=True, timeout=timeout_s)


def answers(path: Path) -> bool:
    """Whether cat works now."""
    try:
        return read(path, 3).returncode == 0
    except subprocess.TimeoutExpired:
        return False
