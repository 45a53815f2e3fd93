"""One client's conversation on an event loop: bytes in, disk work in a thread, bytes out.

Requests are carried out one after the other in the order they came, which is all the ordering a
client may ask for, by one worker thread that takes what has arrived as a batch.  A disk that hangs
stops this session and no other.  What a client can make the server hold is bounded: requests
waiting (then its channel is read no further) and answers not yet sent (then nothing more is carried
out).  A client that does not take its answers for ``stall_s`` is disconnected.

The channel and the SSH connection belong to ``listener``; what a request does, to ``handlers``.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from netfs.server import handlers
from netfs.server.workers import Workers
from netfs.sftp.connection import Asked
from netfs.sftp.errors import SftpError
from netfs.sftp.requests import Write
from netfs.wire import Buffer

log = logging.getLogger(__name__)

BATCH_REQUESTS: Final = 512
BATCH_BYTES: Final = 2 << 20
"""Of answers: where a worker hands over what it has and goes on with the next batch."""

MAX_WAITING_REQUESTS: Final = 2048
MAX_WAITING_BYTES: Final = 8 << 20
"""Of requests' payload not yet carried out; above either the channel is not read."""

MAX_UNSENT_BYTES: Final = 4 << 20
"""Of answers that the transport has said it cannot take at once."""


_LARGE: Final = 16 * 1024
"""Bytes of one buffer above which joining costs more than writing it apart."""

_Waiting = tuple[handlers.Event, int]
"""What has come and the bytes that it holds."""


class Channel(Protocol):
    """What carries a session (an SSH channel)."""

    def write(self, buffers: Sequence[Buffer]) -> None:
        """Raises BrokenPipeError if the channel is closed already."""
        ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def exit(self, status: int) -> None:
        """Send what is written, then *status* as a program's, then close."""
        ...

    def abort(self) -> None:
        """End the connection at once, whatever the client does."""
        ...


class Session:
    """See the module.  All methods but ``_work`` run in the loop's thread.

    ``ended`` is set when nothing of it is left: no thread works for it, its handles are closed.
    """

    def __init__(
        self,
        client: handlers.Client,
        channel: Channel,
        workers: Workers,
        *,
        stall_s: float = 300.0,
        on_end: Callable[[Session], None] = lambda session: None,
    ) -> None:
        self.client = client
        self.ended = asyncio.Event()
        self._channel = channel
        self._workers = workers
        self._loop = asyncio.get_running_loop()
        self._stall_s = stall_s
        self._on_end = on_end
        self._waiting: deque[_Waiting] = deque()
        self._waiting_bytes = 0
        self._working = False
        self._reading_paused = False
        self._blocked: set[str] = set()  # who says that nothing more can be sent now
        self._unsent = 0  # bytes written since then
        self._stall: asyncio.TimerHandle | None = None
        self._eof = False  # no more requests will come; what has come is answered
        self._status = 0  # which scp wants to hear
        self._lost = False  # nobody is there to be answered
        self.requests = 0

    def __repr__(self) -> str:
        state = "lost" if self._lost else "ending" if self._eof else "open"
        return (
            f"<Session {self.client.label} {state} waiting={len(self._waiting)}"
            f" working={self._working} handles={len(self.client.handles)}>"
        )

    # --- what comes in --------------------------------------------------------------------------

    def data_received(self, data: Buffer) -> None:
        """Bytes of the client, ours to keep."""
        if self._eof or self._lost:
            return
        try:
            events = self.client.connection.receive_data(data)
        except SftpError as error:
            log.warning("protocol-error session=%s reason=%r", self.client.label, str(error))
            self._status = 1
            self.eof_received()
            return
        for event in events:
            size = 64  # about what an event takes in memory
            if isinstance(event, Asked) and isinstance(event.request, Write):
                size += sum(map(len, event.request.data))
            self._waiting.append((event, size))
            self._waiting_bytes += size
        self._go_on()

    def eof_received(self) -> None:
        """Nothing more comes: answer what has come and close."""
        self._eof = True
        self._go_on()

    def connection_lost(self) -> None:
        """The client is gone: give up what waits and close the handles."""
        self._lost = True
        self.client.gone = True  # a copy that is going on stops at its next step
        self._waiting.clear()
        self._waiting_bytes = 0
        self._clear_stall()
        self._go_on()

    # --- what goes out --------------------------------------------------------------------------

    def pause_writing(self, who: str = "channel") -> None:
        """*who* has more to send than it likes."""
        if not self._blocked:
            self._unsent = 0
            self._stall = self._loop.call_later(self._stall_s, self._stalled)
        self._blocked.add(who)

    def resume_writing(self, who: str = "channel") -> None:
        self._blocked.discard(who)
        if not self._blocked:
            self._clear_stall()
            self._unsent = 0
            self._go_on()

    def _clear_stall(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def _stalled(self) -> None:
        log.warning("client-stalled session=%s seconds=%.0f", self.client.label, self._stall_s)
        self._stall = None
        self._channel.abort()

    # --- the work -------------------------------------------------------------------------------

    def _go_on(self) -> None:
        """Decide what is next.  Called whenever something has changed."""
        if not self._lost:
            full = (
                len(self._waiting) >= MAX_WAITING_REQUESTS
                or self._waiting_bytes >= MAX_WAITING_BYTES
            )
            if full and not self._reading_paused:
                self._reading_paused = True
                self._channel.pause_reading()
            elif (
                self._reading_paused
                and self._waiting_bytes * 2 < MAX_WAITING_BYTES
                and len(self._waiting) * 2 < MAX_WAITING_REQUESTS
            ):
                self._reading_paused = False
                self._channel.resume_reading()
        if self._working or self.ended.is_set():
            return
        if self._waiting:
            if not self._blocked or self._unsent < MAX_UNSENT_BYTES:
                self._start_batch()
        elif self._eof or self._lost:
            self._working = True
            self._workers.submit(self._close_all)

    def _start_batch(self) -> None:
        batch: list[_Waiting] = []
        taken = 0
        waiting = self._waiting
        while waiting and len(batch) < BATCH_REQUESTS and taken < BATCH_BYTES:
            one = waiting.popleft()
            taken += one[1]
            batch.append(one)
        self._waiting_bytes -= taken
        self._working = True
        self._workers.submit(lambda: self._work(batch))

    def _work(self, batch: list[_Waiting]) -> None:
        """In a worker's thread: carry out *batch* and hand over the answers."""
        client = self.client
        answers: list[Buffer] = []
        small: list[Buffer] = []
        size = 0
        done = 0
        for event, _ in batch:
            if client.gone:
                break
            buffers = handlers.answer(client, event)
            done += 1
            for buffer in buffers:
                length = len(buffer)
                size += length
                small.append(buffer)
                if length >= _LARGE:  # a file's content is not copied for being written together
                    answers += (b"".join(small[:-1]), small.pop())
                    small.clear()
            if size >= BATCH_BYTES:
                break
        answers.append(b"".join(small))
        self._loop.call_soon_threadsafe(self._worked, answers, size, batch[done:], done)

    def _worked(self, answers: list[Buffer], size: int, undone: list[_Waiting], done: int) -> None:
        self._working = False
        self.requests += done
        if self._lost:
            self._go_on()
            return
        self._waiting.extendleft(reversed(undone))
        self._waiting_bytes += sum(held for _, held in undone)
        self._unsent += size
        # The next batch first: its thread works while the loop encrypts these answers.
        self._go_on()
        if size and not self._lost:
            try:
                self._channel.write(answers)
            except BrokenPipeError:
                # The client has closed the channel; its end is about to be told again.
                self.connection_lost()

    def _close_all(self) -> None:
        """In a worker's thread, the last job of the session."""
        for error in self.client.handles.close_all():
            log.warning("close-failed session=%s reason=%r", self.client.label, str(error))
        self._loop.call_soon_threadsafe(self._closed)

    def _closed(self) -> None:
        self._working = False
        if self.ended.is_set():
            return
        self.ended.set()
        self._clear_stall()
        if not self._lost:
            self._channel.exit(self._status)
        self._on_end(self)
