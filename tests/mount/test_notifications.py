"""Invalidations while requests hang in a real mount: they may never hold up anybody else."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fakes import toymount
from tests.harness.waiting import wait_until

pytestmark = [pytest.mark.mount, pytest.mark.root]


Stat = Callable[[Path], bool]


@pytest.fixture
def stat() -> Iterator[Stat]:
    """Whether a process of its own can stat a path within a second; it may be left behind."""
    children: list[subprocess.Popen[bytes]] = []

    def ask(path: Path) -> bool:
        program = "import os, sys; os.stat(sys.argv[1])"
        child = subprocess.Popen([sys.executable, "-I", "-S", "-c", program, path])
        children.append(child)
        try:
            return child.wait(1) == 0
        except subprocess.TimeoutExpired:
            return False

    yield ask
    for child in children:
        child.wait(10)


@pytest.mark.parametrize("carefully", [True, False])
def test_a_name_is_invalidated_beside_a_lookup_that_hangs(
    stat: Stat, tmp_path: Path, carefully: bool
) -> None:
    arguments = ("--valid", "60") if carefully else ("--valid", "60", "--careless")
    with toymount.mounted(tmp_path, *arguments) as toy:
        assert stat(tmp_path / "file")
        stuck = subprocess.Popen(["stat", tmp_path / "hanglookup"], stdout=subprocess.DEVNULL)
        try:
            toy.wait_for(f"lookup {stuck.pid}")
            toy.invalidate("file")
            began = time.monotonic()
            # Without care the kernel's lock queues a writer, and every lookup waits behind it.
            wait_until(lambda: stat(tmp_path / "hangfile") == carefully, 5, "the lookup")
            if carefully:
                while time.monotonic() - began < 3:  # longer than a name is held back
                    assert stat(tmp_path / "file")
        finally:
            stuck.kill()
            stuck.wait(5)
        wait_until(lambda: stat(tmp_path / "file"), 5, "the mount to work again")


def test_an_invalidated_name_is_looked_up_again(stat: Stat, tmp_path: Path) -> None:
    with toymount.mounted(tmp_path, "--valid", "60") as toy:
        assert stat(tmp_path / "file")
        toy.invalidate("file")
        assert stat(tmp_path / "file")
        toy.invalidate("never-heard-of")
        assert stat(tmp_path / "file")
