"""A server for the set-ups of deploy/, and a namespace in which they are made."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.space import Space, private_space
from tests.harness.sshd import Sshd, running_sshd


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Sshd]:
    """A real sshd that exports tmp_path/export, with one file in it."""
    export = tmp_path / "export"
    export.mkdir()
    (export / "hello").write_text("hello\n")
    with running_sshd(tmp_path / "sshd") as sshd:
        yield sshd


@pytest.fixture
def export(tmp_path: Path) -> Path:
    return tmp_path / "export"


@pytest.fixture
def space(tmp_path: Path) -> Iterator[Space]:
    scratch = tmp_path / "space"
    scratch.mkdir()
    with private_space(scratch) as it:
        yield it


@pytest.fixture
def login(server: Sshd, space: Space) -> str:
    """Options with which the server lets us in; root's ssh_config in the namespace has the rest."""
    space.run(f"mkdir -p /root/.ssh && cp {server.client_config} /root/.ssh/config")
    return f"port={server.port}"
