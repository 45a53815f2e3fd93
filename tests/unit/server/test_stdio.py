"""One session on pipes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from netfs.server import stdio
from netfs.sftp import requests
from netfs.sftp.attrs import Attrs
from netfs.sftp.connection import ClientConnection
from tests.server.served import command, environment
from tests.unit.server.tree import make_tree


def conversation(*wanted: requests.Request) -> bytes:
    client: ClientConnection[Any] = ClientConnection()
    packets = [client.hello()]
    for request in wanted:
        packets += [bytes(buffer) for buffer in client.send(request, None)[1]]
    return b"".join(packets)


def run(tmp_path: Path, sent: bytes) -> tuple[int, bytes]:
    """Serve *sent* and what came back."""
    tree = make_tree(tmp_path)
    ours, theirs = socket.socketpair()
    received: list[bytes] = []

    def read() -> None:
        while piece := ours.recv(65536):
            received.append(piece)

    def write() -> None:
        ours.sendall(sent)
        ours.shutdown(socket.SHUT_WR)

    threads = [threading.Thread(target=target) for target in (read, write)]
    for thread in threads:
        thread.start()
    with theirs:
        status = stdio.run(tree.client, in_fd=theirs.fileno(), out_fd=theirs.fileno())
    for thread in threads:
        thread.join(10)
    ours.close()
    assert len(tree.client.handles) == 0
    return status, b"".join(received)


def test_everything_asked_is_answered_before_the_end(tmp_path: Path) -> None:
    wanted = [requests.Open(b"/file", 1, Attrs()), *[requests.Lstat(b"/file")] * 5000]
    status, received = run(tmp_path, conversation(*wanted))
    assert status == 0
    assert received.count(b"\x69\0\0") >= 5000  # ATTRS


def test_a_broken_protocol_is_exit_status_1(tmp_path: Path) -> None:
    status, _ = run(tmp_path, b"GET / HTTP/1.1\r\n\r\n")
    assert status == 1


def test_half_a_packet_at_the_end_is_no_error(tmp_path: Path) -> None:
    status, _ = run(tmp_path, conversation() + b"\0\0\0\x09")
    assert status == 0


def test_a_client_that_is_gone_is_no_error(tmp_path: Path) -> None:
    tree = make_tree(tmp_path)
    ours, theirs = socket.socketpair()
    ours.sendall(conversation(*[requests.Lstat(b"/file")] * 100))
    ours.close()
    with theirs:
        assert stdio.run(tree.client, in_fd=theirs.fileno(), out_fd=theirs.fileno()) == 0


def test_the_program_serves_and_sigterm_ends_it(tmp_path: Path) -> None:
    make_tree(tmp_path)
    process = subprocess.Popen(
        command("--stdio", "--root", str(tmp_path / "root"), "--log-file", str(tmp_path / "log")),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment(),
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        process.stdin.write(conversation(requests.Lstat(b"/file")))
        process.stdin.flush()
        assert os.read(process.stdout.fileno(), 100_000)[4] == 2  # VERSION
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    assert "session-end" in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--stdio"], 2, "--root DIR is needed"),
        (["--stdio", "--root", "/nothing/here"], 1, "cannot export /nothing/here"),
        (["--root", "/tmp", "--listen", "nonsense"], 2, "--listen"),
        (["--root", "/tmp", "--listen", "192.0.2.1:1"], 1, "cannot listen on 192.0.2.1:1"),
        (["--root", "/tmp", "--umask", "999"], 2, "--umask"),
        (["--stdio", "--root", "/tmp", "--user", "no-such-user"], 1, "no-such-user"),
        (["--root", "/tmp", "--listen", ":0", "--authorized-keys", "/no/file"], 1, "/no/file"),
        (["--root", "/tmp", "--listen", ":0", "--host-key", "/dev/null"], 1, "host key"),
    ],
)
def test_a_wrong_start_is_one_clear_line(
    arguments: list[str], status: int, words: str, tmp_path: Path
) -> None:
    if "--host-key" not in arguments:
        arguments = [*arguments, "--host-key", str(tmp_path / "key")]
    done = subprocess.run(
        command(*arguments), capture_output=True, text=True, env=environment(), timeout=20
    )
    assert done.returncode == status
    assert words in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_hash_password_reads_a_line() -> None:
    done = subprocess.run(
        command("--hash-password"), input="secret\n", capture_output=True, text=True,
        env=environment(), timeout=20,
    )  # fmt: skip
    assert done.returncode == 0
    assert done.stdout.startswith("scrypt$32768$8$1$")
