"""Actors and places for the POSIX tests."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.harness.mounts import mounted
from tests.harness.sshd import Sshd


@dataclass
class Actor:
    """Makes calls as one user; returns "ok", an errno's name, or the call's value."""

    process: subprocess.Popen[str]
    uid: int
    gid: int
    groups: tuple[int, ...] = ()

    def __call__(self, call: str, *arguments: object) -> Any:
        words = [os.fspath(a) if isinstance(a, Path) else a for a in arguments]
        request = [self.uid, self.gid, list(self.groups), call, words]
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


@dataclass
class Actors:
    """root, and two users; alice is also in group 10003."""

    root: Actor
    alice: Actor
    bob: Actor


@pytest.fixture(scope="session")
def actors() -> Iterator[Actors]:
    """The users, all in one process."""
    if os.geteuid() != 0:
        pytest.skip("the POSIX tests change identities: root only")
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("actor.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd="/",
    )
    yield Actors(
        root=Actor(process, 0, 0),
        alice=Actor(process, 10001, 10001, (10003,)),
        bob=Actor(process, 10002, 10002),
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    process.wait(10)
    process.stdout.close()


@pytest.fixture
def root(actors: Actors) -> Actor:
    return actors.root


@pytest.fixture
def alice(actors: Actors) -> Actor:
    return actors.alice


@pytest.fixture
def bob(actors: Actors) -> Actor:
    return actors.bob


@pytest.fixture(scope="session", params=["local", "mount"])
def ground(
    request: pytest.FixtureRequest, sandbox: Path, sshd: Sshd, actors: Actors
) -> Iterator[Path]:
    """A directory that everyone may enter: on the local disk, then on a mount."""
    served = sandbox / f"posix-{request.param}"
    # pytest-xdist hands out file after file: this is set up again for each of a worker's files.
    served.mkdir(mode=0o755, exist_ok=True)
    if request.param == "local":
        yield served
        return
    if not os.path.exists("/dev/fuse"):
        pytest.skip("this machine has no /dev/fuse")
    peer: Any = os.environ.get("NETFS_TEST_PEER", "netfs")
    options = ("allow_other", "default_permissions", "suid", "dev")
    with mounted(sshd, served, sandbox / "posix-m", options=options, peer=peer) as mount:
        yield mount.path


@pytest.fixture
def on_mount(ground: Path) -> bool:
    """Whether this is the mount, where forced.py applies."""
    return ground.name == "posix-m"


@pytest.fixture
def place(ground: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """An empty directory of root's, mode 0755, for one test."""
    path = ground / f"t{abs(hash(request.node.nodeid)) % 10**9}"
    path.mkdir()
    yield path
    shutil.rmtree(path)


@pytest.fixture
def shared(place: Path) -> Path:
    """An empty directory where everyone may write."""
    path = place / "shared"
    path.mkdir()
    path.chmod(0o777)
    return path
