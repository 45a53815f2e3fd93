"""A test that leaves something behind fails, and the next one does not suffer from it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness import leaks, processes
from tests.harness.mounts import PROJECT
from tests.harness.namespace import in_private_mounts
from tests.harness.waiting import wait_until

DETACHED = ["setsid", "--fork", "sleep"]  # no child of ours, as a background mount's supervisor


def sleeping(seconds: str) -> list[int]:
    return [
        int(entry.name)
        for entry in Path("/proc").glob("[0-9]*")
        if leaks.command(int(entry.name)) == f"sleep {seconds}"
    ]


def test_a_process_left_behind_is_named_and_ended() -> None:
    before = leaks.look()
    subprocess.run([*DETACHED, "7331.25"], check=True)
    wait_until(lambda: sleeping("7331.25"), 10, "it runs")
    (left,) = leaks.left_since(before, patience_s=0.1)
    assert "sleep 7331.25" in left
    wait_until(lambda: not sleeping("7331.25"), 10, "its end")


def test_a_process_in_a_namespace_of_its_own_is_found(need_root: None) -> None:
    before = leaks.look()
    holder = subprocess.Popen(in_private_mounts("sleep", "7331.5"))
    wait_until(lambda: sleeping("7331.5"), 10, "it runs")
    (left,) = leaks.left_since(before, patience_s=0.1)
    assert "sleep 7331.5" in left
    assert holder.wait(10) == -signal.SIGKILL


def test_a_mount_left_behind_is_named_and_detached(need_root: None, tmp_path: Path) -> None:
    before = leaks.look()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tmp_path], check=True)
    assert leaks.left_since(before, patience_s=0.1) == [f"mount tmpfs on {tmp_path}"]
    assert leaks.look().mounts == before.mounts


def test_what_goes_by_itself_is_waited_for() -> None:
    before = leaks.look()
    subprocess.run([*DETACHED, "0.35"], check=True)
    assert leaks.left_since(before) == []


def test_what_was_there_before_may_go_on_and_start_more() -> None:
    script = "read line; sleep 7331.75 & wait"
    with subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE) as shared:
        before = leaks.look()
        assert shared.stdin is not None
        shared.stdin.write(b"go\n")
        shared.stdin.flush()
        (child,) = wait_until(lambda: processes.descendants(shared.pid), 10, "its child")
        assert leaks.left_since(before, patience_s=0.1) == []
        os.kill(child, signal.SIGKILL)


def test_the_test_that_left_it_fails(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import pytest, subprocess\n"
        "@pytest.fixture(scope='session')\n"
        "def ending_s(): return 0.1\n"
        f"def test_that_leaks(): subprocess.run({[*DETACHED, '7331.125']!r})\n"
        "def test_that_does_not(): pass\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest"]
    command += ["-p", "no:cacheprovider", f"--rootdir={tmp_path}", str(tmp_path)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "PYTHONPATH": os.fspath(PROJECT),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        },
        cwd=tmp_path,
        timeout=60,
    )
    assert "2 passed, 1 error" in done.stdout
    assert "left behind:" in done.stdout
    assert ": sleep 7331.125" in done.stdout
    assert not sleeping("7331.125")


@pytest.fixture
def need_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("mounting by hand needs root")
