"""What the server does not take is on this machine afterwards."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

from netfs.client.data.rescue import Rescue, default_directory


def test_bytes_are_saved_at_their_places_for_the_user_alone(tmp_path, caplog):
    directory = tmp_path / "deep" / "rescue"
    rescue = Rescue(str(directory))
    rescue.save(
        b"/home/x/a file.txt", [(10, [b"abc", memoryview(b"def")]), (0, [b"Z"])], "No space"
    )
    (loss,) = rescue.losses
    assert (loss.path, loss.size, loss.reason) == (b"/home/x/a file.txt", 7, "No space")
    assert loss.saved_as is not None
    saved = Path(loss.saved_as)
    assert saved.read_bytes() == b"Z" + bytes(9) + b"abcdef"
    assert stat.S_IMODE(saved.stat().st_mode) == 0o600
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    note = saved.with_suffix(".txt").read_text()
    assert "/home/x/a file.txt: 6 bytes at 10: No space" in note
    assert "a file.txt" in caplog.text
    assert str(saved) in caplog.text


def test_losses_of_one_file_are_together(tmp_path):
    rescue = Rescue(str(tmp_path))
    rescue.save(b"/a", [(0, [b"abc"])], "one")
    rescue.save(b"/a", [(3, [b"def"])], "two")
    rescue.save(b"/b/a", [(0, [b"other"])], "three")
    contents = sorted(path.read_bytes() for path in tmp_path.glob("*.data"))
    assert contents == [b"abcdef", b"other"]


def test_a_hostile_name_stays_in_the_directory(tmp_path, caplog):
    rescue = Rescue(str(tmp_path / "r"))
    rescue.save(b"/x/..\xff\n" + b"n" * 300, [(0, [b"abc"])], "why")
    assert len(list((tmp_path / "r").iterdir())) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["r"]
    assert r"/x/..\xff\nnnn" in caplog.text
    caplog.text.encode()  # no lone surrogate, which no log file can hold


def test_what_cannot_even_be_saved_is_said(caplog):
    rescue = Rescue("/dev/null/nowhere")
    rescue.save(b"/a", [(0, [b"abc"])], "why")
    assert rescue.losses[0].saved_as is None
    assert "LOST: 3 bytes written to /a" in caplog.text
    assert caplog.records[0].levelno == logging.ERROR


def test_nothing_lost_is_nothing_said(tmp_path, caplog):
    rescue = Rescue(str(tmp_path))
    rescue.save(b"/a", [], "why")
    assert not rescue.losses
    assert not caplog.text
    assert os.listdir(tmp_path) == []


def test_the_users_state_directory_is_the_default(monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert default_directory() == Path("/state/netfs/rescue")
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", "/home/x")
    assert default_directory() == Path("/home/x/.local/state/netfs/rescue")
