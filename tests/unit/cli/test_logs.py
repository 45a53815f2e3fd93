"""Log lines go where they are wanted."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from netfs import logs
from netfs.client.config import DaemonConfig


@pytest.fixture(autouse=True)
def plain_root() -> Iterator[None]:
    """The root logger as it was, whatever a test does."""
    root = logging.getLogger()
    handlers, level, raises = list(root.handlers), root.level, logging.raiseExceptions
    yield
    for handler in root.handlers:
        if handler not in handlers:
            handler.close()
    root.handlers, logging.raiseExceptions = handlers, raises
    root.setLevel(level)
    logging.getLogger("asyncssh").setLevel(logging.NOTSET)


def test_to_a_file_from_the_level_asked_for(tmp_path: Path) -> None:
    config = DaemonConfig(log_file=str(tmp_path / "log"), log_level="warning")
    logs.configure(config, foreground=False)
    logging.getLogger("netfs.x").info("not this")
    logging.getLogger("netfs.x").warning("but this")
    text = (tmp_path / "log").read_text()
    assert "but this" in text
    assert "not this" not in text
    assert "netfs[" in text


def test_debug_shows_everything_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(DaemonConfig(debug=True), foreground=True)
    logging.getLogger("netfs.x").debug("a request")
    logging.getLogger("asyncssh").info("chatter")
    err = capsys.readouterr().err
    assert "a request" in err
    assert "chatter" not in err


def test_in_the_background_to_the_system_log(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as system:
        system.bind(str(tmp_path / "log"))
        system.settimeout(5)
        monkeypatch.setattr(logs, "_SYSLOG", str(tmp_path / "log"))
        logs.configure(DaemonConfig(), foreground=False)
        logging.getLogger("netfs.x").warning("the link is lost")
        said = system.recv(1000).decode()
    # daemon.warning, and a tag that journalctl -t finds
    assert said.rstrip("\0") == f"<28>netfs[{os.getpid()}]: the link is lost"


def test_without_a_system_log_nothing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_SYSLOG", "/nowhere")
    logs.configure(DaemonConfig(), foreground=False)
    logging.getLogger("netfs.x").error("nobody hears this")


def test_configured_again_it_replaces_what_was_but_not_the_supervisor_s(tmp_path: Path) -> None:
    lines: list[str] = []
    forward = logs.Forward(lines.append)
    logging.getLogger().addHandler(forward)
    logs.configure(DaemonConfig(log_file=str(tmp_path / "a")), foreground=False)
    logs.configure(DaemonConfig(log_file=str(tmp_path / "b")), foreground=False)
    logging.getLogger("netfs.x").info("once %s", "x" * 5000)
    assert not (tmp_path / "a").read_text()
    assert "once" in (tmp_path / "b").read_text()
    assert len(lines) == 1
    assert len(lines[0]) == 2000
