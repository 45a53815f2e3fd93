"""The system's sftp-server on a plain TCP port, for ``directport`` and exact cut points.

Run as a module it is the process that listens, one of its own: a test that holds files of a stuck
mount must not be the one that forks the server.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

SFTP_SERVER: Final = ("/usr/lib/openssh/sftp-server",)


@contextlib.contextmanager
def running_sftpd(command: Sequence[str] = SFTP_SERVER) -> Iterator[int]:
    """Serve SFTP in the clear on 127.0.0.1, one *command* per connection; yields the port."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.harness.sftpd", *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.communicate(timeout=20)  # closing its standard input ends it


def serve(command: Sequence[str]) -> None:
    """Accept and fork until standard input ends, then end what is still running."""
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    running: list[subprocess.Popen[bytes]] = []
    os.set_blocking(0, False)
    listener.settimeout(0.05)
    while True:
        with contextlib.suppress(BlockingIOError):  # nothing to read: still wanted
            if not os.read(0, 100):
                break
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            continue
        with connection:
            connection.setblocking(True)
            # As sshd does; an answer held for the peer's ACK would cost 40 ms.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            ends = connection.fileno()
            running.append(subprocess.Popen(list(command), stdin=ends, stdout=ends))
    for process in running:
        process.kill()
        process.wait()


if __name__ == "__main__":
    serve(sys.argv[1:])
