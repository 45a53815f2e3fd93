"""The systemd units by systemd's own checker, the fstab lines by mount(8)'s own parser."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.harness.packages import require

UNITS = Path(__file__).parents[2] / "deploy/systemd"
SYSTEM_UNITS = [
    "netfs@.service",
    "mnt-data.mount",
    "mnt-data.automount",
    "netfs-serve.service",
    "netfs-serve.socket",
]


def verify(directory: Path, unit: str, *scope: str) -> str:
    """What systemd-analyze has to say against *unit*; empty when nothing."""
    require("systemd-analyze")
    done = subprocess.run(
        ["systemd-analyze", *scope, "--man=no", "verify", str(directory / unit)],
        capture_output=True,
        text=True,
        env={**os.environ, "XDG_RUNTIME_DIR": str(directory), "HOME": str(directory)},
        check=False,
    )
    return done.stderr if done.returncode else ""


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A copy of the units whose netfs exists, as it would after an installation."""
    shutil.copytree(UNITS, tmp_path, dirs_exist_ok=True)
    netfs = tmp_path / "netfs"
    netfs.write_text("#!/bin/sh\n")
    netfs.chmod(0o755)
    for unit in tmp_path.rglob("*.service"):
        unit.write_text(unit.read_text().replace("/usr/local/bin/netfs", str(netfs)))
    return tmp_path


@pytest.mark.parametrize("unit", SYSTEM_UNITS)
def test_systemd_finds_nothing_wrong_in(installed: Path, unit: str) -> None:
    assert verify(installed, unit) == ""


def test_systemd_finds_nothing_wrong_in_the_users_unit(installed: Path) -> None:
    assert verify(installed / "user", "netfs@.service", "--user") == ""


def test_the_checker_sees_a_missing_program(installed: Path) -> None:
    (installed / "netfs").unlink()
    assert "not executable" in verify(installed, "netfs@.service")


def test_the_service_is_ready_by_notification_and_watched() -> None:
    text = (UNITS / "netfs@.service").read_text()
    assert "Type=notify" in text
    assert "WatchdogSec=" in text


def test_mount_reads_the_fstab_lines() -> None:
    done = subprocess.run(
        ["findmnt", "--tab-file", str(UNITS / "fstab"), "-rno", "SOURCE,TARGET,FSTYPE"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["alice@server.example:/srv/data", "/mnt/data", "netfs"],
        ["alice@server.example:/srv/lazy", "/mnt/lazy", "netfs"],
        ["alice@server.example:/srv/old", "/mnt/old", "fuse.netfs"],
        ["netfs#alice@server.example:/srv/older", "/mnt/older", "fuse"],
    ]
