"""Fixtures of the tests that run the commands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.support import Cli
from tests.harness.sshd import Sshd


@pytest.fixture
def cli(need_fuse: None, sshd: Sshd, tmp_path: Path) -> Iterator[Cli]:
    made = Cli(sshd, tmp_path)
    yield made
    made.clean_up()
