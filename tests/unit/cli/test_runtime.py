"""Records of mounts are hints: complete or absent, and the dead are forgotten."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from netfs import runtime


def test_a_record_is_found_by_its_mountpoint_until_it_is_forgotten(tmp_path: Path) -> None:
    record = runtime.new_record(tmp_path, "/mnt/x", "host:")
    runtime.write(record)
    assert runtime.find("/mnt/x", str(tmp_path)) == record
    assert runtime.find("/mnt/y", str(tmp_path)) is None
    runtime.forget(record)
    assert list(tmp_path.iterdir()) == []


def test_records_of_the_dead_are_removed_when_met(tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    record = runtime.new_record(tmp_path, "/mnt/x", "host:")._replace(
        pid=ended.pid, socket=str(tmp_path / f"{ended.pid}.sock")
    )
    runtime.write(record)
    Path(record.socket).touch()
    assert list(runtime.records(str(tmp_path))) == []
    assert list(tmp_path.iterdir()) == []


def test_the_mount_of_this_namespace_is_preferred(tmp_path: Path) -> None:
    own = runtime.new_record(tmp_path, "/mnt/x", "host:")
    other = own._replace(namespace=1, pid=os.getppid(), socket=str(tmp_path / "a.sock"))
    for record in (own, other):
        runtime.write(record)
    assert runtime.find("/mnt/x", str(tmp_path)) == own


def test_nonsense_in_the_directory_is_passed_over(tmp_path: Path) -> None:
    for number, text in enumerate(("", "{", "[]", '{"pid": 1}')):
        (tmp_path / f"{number}.json").write_text(text)
    assert list(runtime.records(str(tmp_path))) == []


def test_the_directory_is_private_and_of_this_user(tmp_path: Path) -> None:
    path = tmp_path / "run"
    path.mkdir(mode=0o755)
    runtime.prepare(path)
    assert path.stat().st_mode & 0o777 == 0o700
    link = tmp_path / "link"
    link.symlink_to(path)
    with pytest.raises(PermissionError):
        runtime.prepare(link)


def test_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/tmp")
    assert runtime.directory() == Path("/tmp/netfs")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/nowhere")
    assert runtime.directory() == Path("/tmp/netfs-12345")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert runtime.directory() == Path("/run/netfs")
    assert runtime.directory("/given") == Path("/given")
