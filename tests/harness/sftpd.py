"""The system's sftp-server on a plain TCP port, for ``directport`` and exact cut points."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from typing import Final

SFTP_SERVER: Final = ("/usr/lib/openssh/sftp-server",)


@contextlib.contextmanager
def running_sftpd(command: Sequence[str] = SFTP_SERVER) -> Iterator[int]:
    """Serve SFTP in the clear on 127.0.0.1, one *command* per connection; yields the port."""
    listener = socket.create_server(("127.0.0.1", 0))
    running: list[subprocess.Popen[bytes]] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return  # closed: the block has ended
            with connection:
                running.append(
                    subprocess.Popen(
                        list(command), stdin=connection.fileno(), stdout=connection.fileno()
                    )
                )

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)
        for process in running:
            process.kill()
            process.wait(10)
