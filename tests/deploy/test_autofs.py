"""deploy/autofs as its README says it, with the real automount."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.space import Space
from tests.harness import processes
from tests.harness.packages import require
from tests.harness.relay import Relay
from tests.harness.sshd import Sshd, free_port
from tests.harness.waiting import wait_until

AUTOFS = Path(__file__).parents[2] / "deploy/autofs"
TIMEOUT_S = 2  # without use, instead of the example's 300

pytestmark = [pytest.mark.autofs, pytest.mark.root, pytest.mark.mount, pytest.mark.sshd]


class Automount:
    """The daemon, and accesses through it."""

    def __init__(self, space: Space, log: Path, options: str) -> None:
        self.space = space
        self.log = log
        self.process = space.start(
            require("automount"),
            "-f",
            "-d",
            "--pid-file",
            f"{space.scratch}/automount.pid",
            log=log,
            environment={"NETFS_AUTOFS_OPTIONS": options},
        )
        wait_until(
            lambda: {"/net/ssh", "/net/any", "/mnt/data"} <= set(space.mounts()),
            15,
            f"automount serves its maps ({log})",
        )

    def read(self, path: str, timeout_s: float = 30) -> subprocess.CompletedProcess[str]:
        return self.space.run(f"cat {path}", check=False, timeout_s=timeout_s)


@pytest.fixture
def dead_port() -> int:
    """Nobody listens there."""
    return free_port()


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that accepts and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        yield int(listener.getsockname()[1])


@pytest.fixture
def automount(
    space: Space,
    server: Sshd,
    login: str,
    export: Path,
    tmp_path: Path,
    dead_port: int,
    silent: int,
) -> Iterator[Automount]:
    """The README's set-up; only the example's names are replaced, as it tells to do."""
    user = server.user
    space.run("netfs install-helper")
    space.run(
        f"cd {AUTOFS} && cp auto.netfs auto.netfs.prog auto.netfs.direct /etc/ && "
        "mkdir -p /etc/auto.master.d && cp netfs.autofs /etc/auto.master.d/"
    )
    space.run(
        f"sed -i 's/--timeout=300/--timeout={TIMEOUT_S} --negative-timeout=1/'"
        " /etc/auto.master.d/netfs.autofs && "
        f"sed -i 's#alice@server.example#{user}@127.0.0.1#; s#run_as=alice#run_as={user},{login}#;"
        f" s#:/srv/data#:{export}#' /etc/auto.netfs /etc/auto.netfs.direct"
    )
    space.run(
        f"echo 'refused -fstype=netfs,port={dead_port} :{user}@127.0.0.1\\:/' >> /etc/auto.netfs; "
        f"echo 'silent -fstype=netfs,port={silent},ConnectTimeout=2 :{user}@127.0.0.1\\:/'"
        " >> /etc/auto.netfs"
    )
    space.run("echo '+dir:/etc/auto.master.d' > /etc/auto.master; mkdir -p /net /mnt")
    daemon = Automount(space, tmp_path / "automount.log", login)
    try:
        yield daemon
    finally:
        processes.end(daemon.process, grace_s=15)


def test_an_indirect_map_mounts_at_access_and_expires(automount: Automount, space: Space) -> None:
    assert space.netfs_mounts() == []
    assert automount.read("/net/ssh/example/hello").stdout == "hello\n"
    assert space.netfs_mounts() == ["/net/ssh/example"]
    wait_until(lambda: space.netfs_mounts() == [], 20, "the mount expires")
    assert automount.read("/net/ssh/example/hello").stdout == "hello\n"


def test_a_direct_map_mounts_at_access_and_expires(automount: Automount, space: Space) -> None:
    assert automount.read("/mnt/data/hello").stdout == "hello\n"
    assert space.netfs_mounts() == ["/mnt/data"]
    wait_until(lambda: space.netfs_mounts() == [], 20, "the mount expires")


def test_the_program_map_takes_user_at_host_as_the_key(
    automount: Automount, server: Sshd, export: Path
) -> None:
    done = automount.read(f"/net/any/{server.user}@127.0.0.1{export}/hello")
    assert done.stdout == "hello\n", done.stderr


@pytest.mark.parametrize("key", ["-oProxyCommand=x", "a@b@c", "@host", "x;y", ".git", "a b"])
def test_the_program_map_refuses_keys_that_are_no_host(key: str) -> None:
    done = subprocess.run([AUTOFS / "auto.netfs.prog", key], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (1, b"")


def test_a_refused_server_fails_at_once_and_is_tried_again(
    automount: Automount, space: Space, server: Sshd, dead_port: int, tmp_path: Path
) -> None:
    begin = time.monotonic()
    assert "No such file" in automount.read("/net/ssh/refused/tmp").stderr
    assert time.monotonic() - begin < 5
    with Relay(server.port, port=dead_port):
        server.trust(dead_port)
        wait_until(
            lambda: automount.read("/net/ssh/refused/etc/hostname").returncode == 0,
            15,
            "the next access after the negative time-out mounts",
            every_s=0.3,
        )
    assert space.netfs_mounts() == ["/net/ssh/refused"]


def test_a_silent_server_fails_within_connect_timeout_and_delays_nobody_else(
    automount: Automount, space: Space
) -> None:
    waiting = subprocess.Popen(
        space.argv("cat", "/net/ssh/silent/x"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    begin = time.monotonic()
    assert automount.read("/net/ssh/example/hello", timeout_s=10).stdout == "hello\n"
    _, error = waiting.communicate(timeout=15)
    assert time.monotonic() - begin < 8
    assert b"No such file" in error
    lines = [x for x in automount.log.read_text().splitlines() if "no answer in 2 s" in x]
    assert len(lines) == 1, lines


def test_it_expires_while_the_server_is_silent(
    automount: Automount, space: Space, server: Sshd
) -> None:
    assert automount.read("/net/ssh/example/hello").stdout == "hello\n"
    server.pause()
    try:
        wait_until(lambda: space.netfs_mounts() == [], 45, "it expires without the server")
    finally:
        server.resume()


def test_a_restarted_server_is_found_again(
    automount: Automount, space: Space, server: Sshd
) -> None:
    assert automount.read("/net/ssh/example/hello").stdout == "hello\n"
    server.restart()
    assert automount.read("/net/ssh/example/hello").stdout == "hello\n"


def test_a_killed_daemon_leaves_nothing_that_wedges_automount(
    automount: Automount, space: Space
) -> None:
    assert automount.read("/net/ssh/example/hello").stdout == "hello\n"
    before = [pid for pid in space.mount_processes() if _is_netfs(pid)]
    assert before
    for pid in before:
        os.kill(pid, signal.SIGKILL)
        break
    wait_until(
        lambda: automount.read("/net/ssh/example/hello").stdout == "hello\n",
        20,
        "the same access works again",
        every_s=0.2,
    )
    wait_until(lambda: space.netfs_mounts() == [], 30, "and it still expires")


def test_stopping_automount_unmounts_what_is_idle(automount: Automount, space: Space) -> None:
    assert automount.read("/net/ssh/example/hello").stdout == "hello\n"
    pid = int(Path(f"/proc/{space.holder.pid}/root{space.scratch}/automount.pid").read_text())
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not processes.alive(pid), 20, "automount ends")
    assert space.netfs_mounts() == []
    wait_until(
        lambda: not any(_is_netfs(pid) for pid in space.mount_processes()), 10, "netfs has ended"
    )


def _is_netfs(pid: int) -> bool:
    try:
        return b"netfs" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False  # it ended while we looked
