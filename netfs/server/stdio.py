"""``netfs serve --stdio``: one session on stdin and stdout, as a subsystem of an sshd.

The same handlers, without a loop or threads: there is nobody else who could be kept waiting, and
the pipes' own back-pressure bounds what is held.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
from typing import Final

from netfs.server import handlers
from netfs.sftp.errors import SftpError
from netfs.wire import Buffer

log = logging.getLogger(__name__)

_PIECE: Final = 256 * 1024 + 1024
"""Bytes of one read: a WRITE of full length, so that its payload is not put together twice."""

_WRITE_AT: Final = 1 << 20
"""Bytes of answers that are written together at most."""

_IOV_MAX: Final = 1024  # of one writev, Linux


def run(client: handlers.Client, *, in_fd: int = 0, out_fd: int = 1) -> int:
    """Serve until the client ends or SIGTERM comes; what had arrived by then is answered.

    Returns the exit status: 0, or 1 after a protocol error.
    """
    stop_read, stop_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    before = signal.set_wakeup_fd(stop_write, warn_on_full_buffer=False)
    old = {number: signal.signal(number, _noted) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        return _serve(client, in_fd, out_fd, stop_read)
    except (BrokenPipeError, ConnectionResetError):
        return 0  # the client left before its answer
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(before)
        os.close(stop_read)
        os.close(stop_write)
        for error in client.handles.close_all():
            log.warning("close-failed session=%s reason=%r", client.label, str(error))


def _noted(number: int, frame: object) -> None:
    """The wake-up descriptor carries the news; see ``_serve``."""


def _serve(client: handlers.Client, in_fd: int, out_fd: int, stop_fd: int) -> int:
    while True:
        ready, _, _ = select.select([in_fd, stop_fd], [], [])
        if stop_fd in ready:
            return 0
        data = os.read(in_fd, _PIECE)
        if not data:
            with contextlib.suppress(SftpError):  # half a packet of a client that died
                client.connection.receive_eof()
            return 0
        try:
            events = client.connection.receive_data(data)
        except SftpError as error:
            log.warning("protocol-error session=%s reason=%r", client.label, str(error))
            return 1
        answers: list[Buffer] = []
        size = 0
        for event in events:
            buffers = handlers.answer(client, event)
            answers += buffers
            size += sum(map(len, buffers))
            if size >= _WRITE_AT:
                _write_all(out_fd, answers)
                answers = []
                size = 0
        _write_all(out_fd, answers)


def _write_all(fd: int, buffers: list[Buffer]) -> None:
    pending = [memoryview(buffer) for buffer in buffers if len(buffer)]
    while pending:
        try:
            done = os.writev(fd, pending[:_IOV_MAX])
        except BlockingIOError:
            select.select([], [fd], [])  # stdout may have been left non-blocking by its owner
            continue
        while done:
            if done >= len(pending[0]):
                done -= len(pending.pop(0))
            else:
                pending[0] = pending[0][done:]
                done = 0
