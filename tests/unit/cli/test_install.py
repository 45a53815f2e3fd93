"""The mount helpers are installed with an absolute interpreter and removed again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from netfs.cli import install
from netfs.cli.main import main


def test_helpers_are_made_run_and_are_removed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["install-helper", "--prefix", str(tmp_path)]) == 0
    for name in install.NAMES:
        path = tmp_path / name
        assert os.access(path, os.X_OK)
        assert path.read_text().startswith(f"#!{sys.executable} -I\n")
    # as mount(8) runs it: without PATH and HOME
    done = subprocess.run(
        [tmp_path / "sbin" / "mount.netfs", "host:", "/mnt", "-o", "rw,magic"],
        env={},
        cwd="/",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("mount.netfs: unknown option 'magic'")
    done = subprocess.run(
        [tmp_path / "usr/local/bin/netfs", "-V"], env={}, cwd="/", capture_output=True, text=True
    )
    assert done.stdout.startswith("netfs ")
    foreign = tmp_path / "sbin" / "mount.netfs"
    foreign.write_text("#!/bin/sh\n")
    assert main(["install-helper", "--remove", f"--prefix={tmp_path}"]) == 0
    assert os.listdir(tmp_path / "sbin") == ["mount.netfs"]
    assert os.listdir(tmp_path / "usr/local/bin") == []


def test_a_netfs_of_somebody_else_s_stays(tmp_path: Path) -> None:
    program = tmp_path / "usr/local/bin/netfs"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    assert main(["install-helper", "--prefix", str(tmp_path)]) == 0
    assert main(["install-helper", "--remove", "--prefix", str(tmp_path)]) == 0
    assert program.read_text() == "#!/bin/sh\n"


def test_a_prefix_that_can_t_be_written_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sbin").write_text("")
    assert main(["install-helper", "--prefix", str(tmp_path)]) == 1
    assert str(tmp_path / "sbin") in capsys.readouterr().err


def test_other_words_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["install-helper", "--now"]) == 2
