"""A throw-away Docker engine with a base image made by debootstrap: no registry, no service.

The engine lives in a mount namespace of its own in which everything is shared, so that rshared and
rslave volumes work and every mount ends with it. It touches neither bridges nor iptables:
containers use the host's network.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.harness import processes
from tests.harness.packages import require
from tests.harness.waiting import wait_until

BASE = "debian:bookworm-slim"
NO_NETWORK = re.compile(
    r"resolv|Could not connect|Failed to fetch|Failed getting"
    r"|Connection (?:refused|timed out|reset)|Network is unreachable"
    r"|SSL|Retrying|Couldn't download|No matching distribution",
    re.IGNORECASE,
)
"""What apt, debootstrap and pip print where a mirror or an index can't be reached."""
_REFUSED = re.compile("not permitted|permission denied|not supported|no such device", re.I)
"""What dockerd's last words have in them where the kernel, or a container around us, forbids it."""
CERTIFICATES = Path("/usr/local/share/ca-certificates")


class UnavailableError(Exception):
    """This machine can't run an engine, or can't reach what images are made of."""


class Engine:
    """One engine; ``docker`` and ``compose`` are its clients."""

    def __init__(self, directory: Path, process: subprocess.Popen[bytes]) -> None:
        self.directory = directory
        self.process = process
        self.environment = {**os.environ, "DOCKER_HOST": f"unix://{directory}/docker.sock"}

    def run(
        self,
        *command: str,
        check: bool = True,
        timeout_s: float = 300,
        cwd: Path | None = None,
        **environment: str,
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            cwd=cwd,
            env={**self.environment, **environment},
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(f"{command}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def docker(
        self, *arguments: str, check: bool = True, timeout_s: float = 300
    ) -> subprocess.CompletedProcess[str]:
        return self.run("/usr/bin/docker", *arguments, check=check, timeout_s=timeout_s)

    def state(self, container: str) -> dict[str, object]:
        done = self.docker("inspect", "--format", "{{json .State}}", container)
        found: dict[str, object] = json.loads(done.stdout)
        return found


@contextlib.contextmanager
def running_engine(directory: Path) -> Iterator[Engine]:
    """An engine with the base image, for the length of the block.

    Raises:
        UnavailableError: see there.
    """
    directory.mkdir(parents=True, exist_ok=True)
    command = (
        f"mount --make-rshared / && exec {require('dockerd')} --data-root {directory}/root"
        f" --exec-root {directory}/exec -H unix://{directory}/docker.sock"
        f" --pidfile {directory}/docker.pid --bridge=none --iptables=false --ip6tables=false"
        " --ip-forward=false --ip-masq=false"
    )
    with (directory / "dockerd.log").open("wb") as log:
        process = subprocess.Popen(
            [require("unshare"), "-m", "--propagation", "private", "sh", "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    engine = Engine(directory, process)

    def answers() -> bool:
        if process.poll() is not None:
            text = (directory / "dockerd.log").read_text()[-2000:]
            raise (UnavailableError if _REFUSED.search(text) else RuntimeError)(
                f"dockerd ended: {text}"
            )
        return engine.docker("info", check=False).returncode == 0

    try:
        wait_until(answers, 60, "dockerd answers", every_s=0.2)
        if engine.docker("image", "inspect", BASE, check=False).returncode:
            _import_base(engine)
        yield engine
    finally:
        for line in engine.docker("ps", "-aq", check=False).stdout.split():
            engine.docker("rm", "-f", line, check=False, timeout_s=60)
        processes.end(process, grace_s=20)


def _mirror() -> str:
    """The Debian mirror that this machine's apt uses."""
    for pattern in ("sources.list", "sources.list.d/*.list", "sources.list.d/*.sources"):
        for path in sorted(Path("/etc/apt").glob(pattern)):
            for line in path.read_text().splitlines():
                found = re.match(r"(?:URIs:|deb(?: \[[^\]]*\])?)\s+(\S+/debian/?)(?:\s|$)", line)
                if found:
                    return found[1]
    raise UnavailableError("no Debian mirror in /etc/apt")


def _import_base(engine: Engine) -> None:
    """The base image: a minimal Debian that trusts what this machine trusts."""
    root = engine.directory / "rootfs"
    done = engine.run(
        require("debootstrap"),
        "--variant=minbase",
        "--include=ca-certificates",
        "bookworm",
        str(root),
        _mirror(),
        timeout_s=600,
        check=False,
    )
    if done.returncode:
        # The log shows what failed inside, if it came so far.
        log = root / "debootstrap" / "debootstrap.log"
        said = done.stdout + done.stderr + (log.read_text() if log.exists() else "")
        raise (UnavailableError if NO_NETWORK.search(said) else RuntimeError)(
            f"debootstrap: {said[-2000:]}"
        )
    if CERTIFICATES.is_dir():
        engine.run("cp", "-r", f"{CERTIFICATES}/.", f"{root}{CERTIFICATES}/")
    engine.run("chroot", str(root), "update-ca-certificates")
    bundle = "/etc/ssl/certs/ca-certificates.crt"
    line = (
        f"tar -C {root} --numeric-owner -c . | /usr/bin/docker import --change 'CMD [\"bash\"]'"
        f" --change 'ENV PIP_CERT={bundle}' --change 'ENV SSL_CERT_FILE={bundle}' - {BASE}"
    )
    engine.run("sh", "-c", line)
