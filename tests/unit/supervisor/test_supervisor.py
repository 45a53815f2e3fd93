"""The supervisor's life with workers that behave in every way (no mount is made)."""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from netfs.supervisor import supervisor
from netfs.supervisor.supervisor import Settings, supervise


def tell(channel: socket.socket, event: str, **fields: object) -> None:
    channel.send(json.dumps({"event": event, **fields}).encode())


def settings(path: Path, **changes: Any) -> Settings:
    values: dict[str, Any] = {
        "mountpoint": None,
        "source": "u@h:",
        "socket_path": str(path / "s.sock"),
        "abort_after_s": 300.0,
        "remount": True,
        "stop_within_s": 2.0,
        "version": "0",
    }
    return Settings(**{**values, **changes})


def ask(path: Path, question: str) -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(5)
        sock.connect(str(path / "s.sock"))
        sock.sendall(json.dumps({"ask": question}).encode() + b"\n")
        body: dict[str, Any] = json.loads(sock.makefile("rb").readline())
        return body


@pytest.fixture
def asker(tmp_path: Path) -> Iterator[Callable[..., None]]:
    """Runs a function beside the supervisor, whose loop needs the main thread (signals)."""
    threads: list[threading.Thread] = []
    failures: list[BaseException] = []

    def start(action: Callable[[], None]) -> None:
        def run() -> None:
            try:
                action()
            except BaseException as error:
                failures.append(error)
                os.kill(os.getpid(), signal.SIGTERM)  # ends the supervisor under test

        thread = threading.Thread(target=run)
        thread.start()
        threads.append(thread)

    yield start
    for thread in threads:
        thread.join(10)
    assert not failures, failures


def forever(channel: socket.socket, generation: int, dump_fd: int) -> int:
    """A worker that serves until SIGTERM and answers what it is asked."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    tell(channel, "mounted")
    tell(channel, "ready")
    tell(channel, "beat", link="up", waiting=0)
    while True:
        packet = channel.recv(65536)
        if not packet:
            return 1
        number = json.loads(packet)["number"]
        tell(channel, "answer", number=number, body={"generation": generation})


def never(*_: object) -> None:
    raise AssertionError("not expected")


def test_a_failure_before_the_mount_ends_with_its_code_and_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(channel: socket.socket, generation: int, dump_fd: int) -> int:
        tell(channel, "failed", code=11, message="the connection was refused", retry=True)
        return 11

    assert supervise(settings(tmp_path), fail, never) == 11
    assert capsys.readouterr().err == "netfs: the connection was refused\n"


def test_unmounting_ends_with_zero(tmp_path: Path) -> None:
    def once(channel: socket.socket, generation: int, dump_fd: int) -> int:
        tell(channel, "mounted")
        tell(channel, "ready")
        return 0

    ready: list[int] = []
    assert supervise(settings(tmp_path), once, lambda: ready.append(1)) == 0
    assert ready == [1]
    assert not (tmp_path / "s.sock").exists()


def test_sigterm_stops_the_worker_and_ends_with_zero(tmp_path: Path) -> None:
    assert supervise(settings(tmp_path), forever, lambda: os.kill(os.getpid(), 15)) == 0


def test_a_worker_that_does_not_stop_is_killed(tmp_path: Path) -> None:
    def stubborn(channel: socket.socket, generation: int, dump_fd: int) -> int:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        tell(channel, "ready")
        while True:
            time.sleep(1)

    began = time.monotonic()
    code = supervise(
        settings(tmp_path, stop_within_s=0.2), stubborn, lambda: os.kill(os.getpid(), 15)
    )
    assert code == 0
    assert time.monotonic() - began < 20


def test_the_worker_answers_questions(tmp_path: Path, asker: Callable[..., None]) -> None:
    found: dict[str, Any] = {}

    def act() -> None:
        found.update(ask(tmp_path, "status"))
        assert ask(tmp_path, "nonsense")["error"]
        ask(tmp_path, "stop")

    assert supervise(settings(tmp_path), forever, lambda: asker(act)) == 0
    assert found["generation"] == 1
    assert found["answered"]
    assert found["supervisor"]["state"] == "mounted"


def test_the_supervisor_answers_for_a_worker_that_hangs(
    tmp_path: Path, asker: Callable[..., None]
) -> None:
    def hang(channel: socket.socket, generation: int, dump_fd: int) -> int:
        tell(channel, "ready")
        while True:
            time.sleep(1)

    found: dict[str, Any] = {}

    def act() -> None:
        began = time.monotonic()
        found.update(ask(tmp_path, "status"), took=time.monotonic() - began)
        os.kill(os.getpid(), signal.SIGTERM)

    supervise(settings(tmp_path, stop_within_s=0.1), hang, lambda: asker(act))
    assert found["answered"] is False
    assert found["took"] < 1  # it waits 0.35 s; the rest is the machine's
    assert found["supervisor"]["pid"] == os.getpid()


def test_a_dead_worker_is_started_again_at_once(tmp_path: Path, asker: Callable[..., None]) -> None:
    def act() -> None:
        os.kill(ask(tmp_path, "status")["supervisor"]["worker_pid"], signal.SIGKILL)
        began = time.monotonic()
        while ask(tmp_path, "status").get("generation") != 2:
            assert time.monotonic() - began < 20
        assert ask(tmp_path, "status")["supervisor"]["remounts"] == 1
        ask(tmp_path, "stop")

    assert supervise(settings(tmp_path), forever, lambda: asker(act)) == 0


def test_after_three_deaths_in_a_minute_it_gives_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def die(channel: socket.socket, generation: int, dump_fd: int) -> int:
        tell(channel, "mounted")
        tell(channel, "ready")
        tell(channel, "log", line=f"the last line of {generation}")
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    assert supervise(settings(tmp_path), die, lambda: None) == 53
    assert "giving up" in caplog.text
    assert "the last line of 3" in caplog.text


def test_noremount_ends_with_the_worker(tmp_path: Path) -> None:
    def die(channel: socket.socket, generation: int, dump_fd: int) -> int:
        tell(channel, "ready")
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    assert supervise(settings(tmp_path, remount=False), die, lambda: None) == 53


def test_a_stuck_worker_dumps_its_stacks_and_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervisor, "_TICK_S", 0.05)

    def stuck_once(channel: socket.socket, generation: int, dump_fd: int) -> int:
        faulthandler.enable(file=dump_fd, all_threads=True)
        tell(channel, "mounted")
        tell(channel, "ready")
        while generation == 1:
            time.sleep(1)
        return 0

    code = supervise(settings(tmp_path, abort_after_s=1.5), stuck_once, lambda: None)
    assert code == 0
    assert "has not turned" in caplog.text
    assert "stuck_once" in caplog.text  # its name in the stack dump


def test_a_server_that_can_t_be_reached_is_tried_again_later_and_a_wrong_key_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asker: Callable[..., None]
) -> None:
    monkeypatch.setattr(supervisor.deaths, "backoff", lambda *_: 0.05)

    def run(channel: socket.socket, generation: int, dump_fd: int) -> int:
        match generation:
            case 1:
                tell(channel, "mounted")
                tell(channel, "ready")
                return 75
            case 2:
                tell(channel, "failed", code=11, message="refused", retry=True)
                return 11
            case 3:
                tell(channel, "failed", code=17, message="no key fits", retry=False)
                return 17
            case _:
                return forever(channel, generation, dump_fd)

    def act() -> None:
        began = time.monotonic()
        while ask(tmp_path, "status")["supervisor"]["state"] != "halted":
            assert time.monotonic() - began < 20
        assert ask(tmp_path, "status")["supervisor"]["reason"] == "no key fits"
        assert ask(tmp_path, "reconnect")["done"]
        while ask(tmp_path, "status").get("generation") != 4:
            assert time.monotonic() - began < 20
        ask(tmp_path, "stop")

    assert supervise(settings(tmp_path), run, lambda: asker(act)) == 0


def test_half_a_question_hurts_nobody(tmp_path: Path, asker: Callable[..., None]) -> None:
    def act() -> None:
        for data in (b"", b"{", b"[]\n", b"x" * 8000, b"{}\n"):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
                sock.connect(str(tmp_path / "s.sock"))
                sock.sendall(data)
        ask(tmp_path, "stop")

    assert supervise(settings(tmp_path), forever, lambda: asker(act)) == 0


def test_the_socket_is_the_owner_s_only(tmp_path: Path, asker: Callable[..., None]) -> None:
    def act() -> None:
        mode = (tmp_path / "s.sock").stat().st_mode
        ask(tmp_path, "stop")
        assert mode & 0o777 == 0o600

    supervise(settings(tmp_path), forever, lambda: asker(act))


def test_the_supervisor_imports_the_standard_library_only() -> None:
    program = (
        "import sys; before = set(sys.modules); import netfs.supervisor.supervisor;"
        "print(*{name for name in set(sys.modules) - before"
        " if name.partition('.')[0] not in sys.stdlib_module_names})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    foreign = {name for name in done.stdout.split() if not name.startswith("netfs.supervisor")}
    assert foreign == {"netfs", "netfs.systemd"}
