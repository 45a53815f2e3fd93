"""The worker as its supervisor sees it: a forked child and the channel between the two.

Messages are JSON objects, one a packet.  The worker says ``mounted``, ``ready``, ``beat`` (each
second, with the link's state), ``log`` (a line worth keeping), ``failed`` (before it ends) and
``answer``; the supervisor says ``ask``.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any, Final

log = logging.getLogger(__name__)

Message = dict[str, Any]

MAX_MESSAGE: Final = 1 << 17
"""Bytes of one message; half of the kernel's default socket buffer."""

_OWN: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
"""What the supervisor has handlers for."""

Run = Callable[[socket.socket, int, int], int]
"""The worker's life, in the child: its channel, its generation (1, 2 ...), the file descriptor
for stack dumps; returns the exit code."""


class Worker:
    """A running worker."""

    def __init__(self, run: Run, generation: int) -> None:
        """Fork it."""
        self.generation = generation
        self.is_mounted = False
        self.is_ready = False
        self.failure: Message | None = None
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._dump_fd = os.memfd_create("netfs-stacks")
        sys.stdout.flush()
        sys.stderr.flush()
        # held back until the child has handlers of its own: the supervisor's would swallow them
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _OWN)
        try:
            self.pid = os.fork()
            if self.pid == 0:
                self.channel.close()
                _live(run, theirs, generation, self._dump_fd)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        self.channel.setblocking(False)

    def receive(self) -> list[Message]:
        """What the worker has said since the last call."""
        messages: list[Message] = []
        while True:
            try:
                packet = self.channel.recv(MAX_MESSAGE)
            except (BlockingIOError, ConnectionResetError):
                return messages
            if not packet:
                return messages
            try:
                message = json.loads(packet)
            except ValueError:
                continue  # cut off by a death in mid-sentence
            if isinstance(message, dict):
                messages.append(message)

    def ask(self, number: int, question: str) -> bool:
        """Ask the worker; whether it has room for the question (a stuck one soon has not)."""
        try:
            self.channel.send(json.dumps({"ask": question, "number": number}).encode())
        except OSError:
            return False
        return True

    def signal(self, number: signal.Signals) -> None:
        # if it has just ended, the supervisor will hear of it by SIGCHLD
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def stacks(self) -> str:
        """What faulthandler has written on SIGABRT, if anything."""
        size = os.fstat(self._dump_fd).st_size
        return os.pread(self._dump_fd, min(size, 1 << 16), 0).decode(errors="replace")

    def close(self) -> None:
        """Let go of a worker that has ended."""
        self.channel.close()
        os.close(self._dump_fd)


def _live(run: Run, channel: socket.socket, generation: int, dump_fd: int) -> None:
    """Be the child; never returns into the supervisor's frames."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        code = run(channel, generation, dump_fd)
    except KeyboardInterrupt:
        code = 130
    except BaseException:
        log.critical("the worker fails", exc_info=True)
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)
