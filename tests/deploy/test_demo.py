"""script/demo shows what it says, and leaves nothing behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.mounts import environment

ROOT = Path(__file__).parents[2]


@pytest.mark.mount
def test_each_step_of_the_demonstration_holds(need_fuse: None) -> None:
    """Without what script/demo does before: a virtual environment of its own."""
    done = subprocess.run(
        [sys.executable, ROOT / "script" / "demo.py"],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=100,
        cwd="/",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("  ok: ") >= 5
    assert done.stdout.endswith("Done: nothing is left mounted or running.\n")
