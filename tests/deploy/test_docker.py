"""deploy/docker as its README says it, with a real engine."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.deploy.engine import NO_NETWORK, Engine, UnavailableError, running_engine
from tests.harness.packages import require
from tests.harness.sshd import free_port, make_key
from tests.harness.waiting import wait_until

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "deploy/docker"

pytestmark = [
    pytest.mark.docker,
    pytest.mark.root,
    pytest.mark.mount,
    pytest.mark.slow,
    pytest.mark.timeout(900),
]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    # NETFS_TEST_ENGINE keeps the images between runs of the suite on one machine.
    kept = os.environ.get("NETFS_TEST_ENGINE")
    with contextlib.ExitStack() as stack:
        try:
            directory = Path(kept) if kept else tmp_path_factory.mktemp("engine")
            it = stack.enter_context(running_engine(directory))
            for target in ("serve", "mount"):
                build(it, target)
        except UnavailableError as error:
            pytest.skip(str(error))
        yield it


def build(engine: Engine, target: str) -> None:
    done = engine.docker(
        *("build", "--network=host", "-q", "-f", str(DOCKER / "Dockerfile")),
        *("--target", target, "-t", f"netfs-{target}", str(ROOT)),
        timeout_s=600,
        check=False,
    )
    said = done.stdout + done.stderr
    if done.returncode and NO_NETWORK.search(said):
        raise UnavailableError(said[-2000:])
    assert done.returncode == 0, said


class Stack:
    """The compose file's three containers."""

    def __init__(self, engine: Engine, directory: Path, volume: Path, port: int) -> None:
        self.engine = engine
        self.directory = directory
        self.volume = volume
        self.port = port
        self.project = f"netfs{os.getpid()}"

    def compose(
        self, *arguments: str, check: bool = True, timeout_s: float = 300
    ) -> subprocess.CompletedProcess[str]:
        files = ["-f", "compose.yaml", "-f", "override.yaml"]
        return self.engine.run(
            *(require("docker-compose"), "-p", self.project, *files, *arguments),
            check=check,
            timeout_s=timeout_s,
            cwd=self.directory,
            NETFS_VOLUME=str(self.volume),
        )

    def container(self, service: str) -> str:
        return self.compose("ps", "-q", service).stdout.strip()

    def app(self, line: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
        """A shell line in the application's container."""
        return self.engine.docker(
            "exec", self.container("app"), "sh", "-c", line, check=False, timeout_s=timeout_s
        )


@pytest.fixture
def stack(engine: Engine, tmp_path: Path) -> Iterator[Stack]:
    directory = tmp_path / "deploy/docker"
    shutil.copytree(DOCKER, directory)
    (directory / "secrets").mkdir()
    make_key(directory / "secrets/key")
    shutil.copy(directory / "secrets/key.pub", directory / "secrets/authorized_keys")
    volume = tmp_path / "volume"
    volume.mkdir()
    port = free_port()
    # Only what a machine without bridges changes: the host's network and a port of its own;
    # and health is looked at more often, so that the test need not wait.
    host = {"network_mode": "host"}
    options = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]["mount"][
        "environment"
    ]["NETFS_OPTIONS"].replace("port=2022", f"port={port}")
    override = {
        "services": {
            "export": {
                **host,
                "healthcheck": {"interval": "1s"},
                "environment": {"NETFS_LISTEN": f"127.0.0.1:{port}"},
            },
            "mount": {
                **host,
                "healthcheck": {"interval": "1s"},
                "environment": {
                    "NETFS_SOURCE": "netfs@127.0.0.1:/",
                    "NETFS_OPTIONS": f"{options},link_timeout=5",
                },
            },
            "app": host,
        }
    }
    (directory / "override.yaml").write_text(yaml.safe_dump(override))
    it = Stack(engine, directory, volume, port)
    try:
        it.compose("up", "-d", "--no-build")
        yield it
    finally:
        it.compose("unpause", check=False)
        it.compose("down", "-v", "-t", "3", check=False)


def test_the_application_reads_and_writes_once_the_sidecar_is_healthy(stack: Stack) -> None:
    health = stack.engine.state(stack.container("mount"))["Health"]
    assert isinstance(health, dict)
    assert health["Status"] == "healthy"
    done = stack.app("echo written > /vol/mnt/file && cat /vol/mnt/file")
    assert done.stdout == "written\n", done.stderr
    export = stack.engine.docker("exec", stack.container("export"), "cat", "/srv/file")
    assert export.stdout == "written\n"


def test_stopping_the_sidecar_sends_everything_and_exits_with_0(stack: Stack) -> None:
    stack.app("dd if=/dev/zero of=/vol/mnt/big bs=1M count=20 2>/dev/null")
    begin = time.monotonic()
    stack.compose("stop", "-t", "30", "mount")
    assert time.monotonic() - begin < 20
    assert stack.engine.state(stack.container("mount"))["ExitCode"] == 0
    size = stack.engine.docker("exec", stack.container("export"), "stat", "-c%s", "/srv/big")
    assert size.stdout.strip() == str(20 << 20)
    assert "Transport endpoint" not in stack.app("ls /vol/mnt").stderr


def test_a_killed_sidecar_comes_back_and_the_running_application_sees_it(stack: Stack) -> None:
    stack.app("echo before > /vol/mnt/file")
    app = stack.container("app")
    stack.engine.docker("kill", stack.container("mount"))
    stack.compose("up", "-d", "--no-build", "mount")
    wait_until(
        lambda: stack.app("cat /vol/mnt/file").stdout == "before\n",
        60,
        "the application sees the new mount",
        every_s=0.5,
    )
    assert stack.container("app") == app
    assert stack.engine.state(app)["Running"] is True


def test_a_silent_server_leaves_the_application_stoppable(stack: Stack) -> None:
    stack.app("echo before > /vol/mnt/file")
    stack.engine.docker("pause", stack.container("export"))
    begin = time.monotonic()
    done = stack.app("cat /vol/mnt/uncached", timeout_s=60)
    assert done.returncode != 0
    stack.compose("stop", "-t", "3", "app", timeout_s=60)
    assert time.monotonic() - begin < 40
    assert stack.engine.state(stack.container("app"))["Running"] is False


def test_the_exporting_container_is_not_root_and_stops_with_0(stack: Stack) -> None:
    export = stack.container("export")
    assert stack.engine.docker("exec", export, "id", "-u").stdout.strip() == "1000"
    stack.compose("stop", "-t", "20", "export")
    assert stack.engine.state(export)["ExitCode"] == 0
