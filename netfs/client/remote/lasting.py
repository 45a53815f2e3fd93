"""``LastingLink``: one conversation after another, as if the link were never lost.

A request that finds the link down, or loses it, waits for the next conversation: at most
``link_timeout`` (then ETIMEDOUT), for ever with ``hard``.  When the link is up is the keeper's to
know (``link.py``); what may be sent again is ``replay.py``'s.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from netfs.client.config import Config
from netfs.client.remote.channel import Link
from netfs.client.remote.conversation import Conversation, converse
from netfs.client.remote.files import SftpFiles
from netfs.client.remote.link import STABLE_S, LinkKeeper, LinkState, LinkStatus, Pulse
from netfs.client.remote.pending import Disconnected, Expired
from netfs.client.remote.transport import keepalive
from netfs.client.remote.window import Links, new_links
from netfs.client.turns import Turn

_T = TypeVar("_T")


class LastingLink:
    """See the module."""

    def __init__(
        self, config: Config, connect: Callable[[], Awaitable[Link]], clock: Callable[[], float]
    ) -> None:
        """*connect* makes the links after the first; *clock* must be the loop's."""
        self._config = config
        self._connect = connect
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self.turn = Turn(self._loop)
        interval, count = keepalive(config)
        self._keeper: LinkKeeper[Conversation] = LinkKeeper(
            self._dial, lambda: Pulse(interval, count), clock, self._state_changed
        )
        self._current: Conversation | None = None
        self._now: SftpFiles | None = None
        """What requests go through at present: the current conversation's, until it has ended."""
        self.is_up = False  # requests would not wait for the link
        self._began = clock()  # of the present conversation: patience starts anew if it lasted
        self._up = asyncio.Event()  # there may be a conversation to use
        self._is_over = False  # there will never be another one
        self._listeners: list[Callable[[LinkStatus], None]] = []
        self._background: set[asyncio.Task[Any]] = set()
        self._expiry: asyncio.TimerHandle | None = None
        self._conversations = self._repeated = 0
        self._timed_out = self._waiting = 0
        self.links: Links = new_links()

    async def start(self, link: Link | None) -> None:
        """Begin on a *link* that the caller made; None: ``run`` makes the first one too.

        Raises:
            ConnectError: no SFTP on it.
        """
        if link is not None:
            self._adopt(await converse(link, self._config, self._clock, self.turn))

    async def run(self) -> Exception | None:
        """Keep the link up until cancelled; without ``reconnect`` return why it was lost."""
        try:
            return await self._keeper.run(self._current, reconnect=self._config.link.reconnect)
        finally:
            self._end()

    async def end(self) -> None:
        """Say goodbye.  ``run`` should be cancelled before; what still waits gets ENOTCONN."""
        current = self._current
        self._end()
        for task in list(self._background):
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        if current is not None:
            await current.close()

    @property
    def status(self) -> LinkStatus:
        return self._keeper.status

    @property
    def link_state(self) -> LinkState:
        return self._keeper.status.state

    @property
    def since(self) -> float:
        """When ``link_state`` became what it is (on the clock)."""
        return self._keeper.status.since

    async def wait_up(self) -> None:
        """Returns when there is a conversation.

        Raises:
            OSError: ENOTCONN: there will never be one.
        """
        while self._now is None:
            if self._is_over:
                raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
            self._up.clear()
            await self._up.wait()

    def on_change(self, listener: Callable[[LinkStatus], None]) -> None:
        """Call *listener* at each change of the link's state.  It must not block or raise."""
        self._listeners.append(listener)

    def nudge(self) -> None:
        """The network has changed: look at the link at once."""
        self._keeper.nudge()

    def retry(self) -> None:
        """Somebody repaired the keys: leave AUTH_FAILED or HOST_KEY_CHANGED."""
        self._keeper.retry()
        self._keeper.nudge()

    def oldest_sent_at(self) -> float | None:
        """Since when the oldest request waits for its answer (on the clock)."""
        return None if self._current is None else self._current.oldest_sent_at()

    async def _dial(self) -> Conversation:
        return await converse(await self._connect(), self._config, self._clock, self.turn)

    def _state_changed(self, status: LinkStatus) -> None:
        live = self._keeper.live
        if live is not None and live is not self._current:
            self._adopt(live)
        if not status.state.is_usable:
            self._current = None
            self._use(None)
        else:
            self._use(self._now)
        if status.state is LinkState.SUSPECT:
            self._expire()
        for listener in self._listeners:
            listener(status)

    def _adopt(self, conversation: Conversation) -> None:
        """It is the present one from now on."""
        self._current = conversation
        conversation.on_end = lambda: self._ended(conversation)
        self._use(None if conversation.is_ended else conversation.files)
        self._began = self._clock()
        self._conversations += 1
        self.links = conversation.links
        self._up.set()

    def _ended(self, conversation: Conversation) -> None:
        if conversation is self._current:
            self._use(None)

    def _use(self, files: SftpFiles | None) -> None:
        self._now = files
        self.is_up = files is not None and self.link_state is not LinkState.SUSPECT

    def _end(self) -> None:
        self._is_over = True
        self._current = None
        self._use(None)
        if self._expiry is not None:
            self._expiry.cancel()
        self._up.set()

    def _expire(self) -> None:
        """While the link is suspect no request waits longer than it would for a lost one."""
        self._expiry = None
        current = self._current
        if self.link_state is not LinkState.SUSPECT or current is None or self._patience is None:
            return
        current.expire(self._clock() - self._patience, "no answer within link_timeout")
        self._expiry = self._loop.call_later(0.5, self._expire)

    @property
    def _patience(self) -> float | None:
        """Seconds that a request waits for the link; None: for ever."""
        link = self._config.link
        return None if link.hard else link.link_timeout_s

    def _spawn(self, coroutine: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        task = self._loop.create_task(coroutine)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    # How a request gets through.

    async def _files(self, since: float) -> SftpFiles:
        """The present conversation's files, waiting for one if need be.

        Raises:
            OSError: ETIMEDOUT when *since* is ``link_timeout`` ago; ENOTCONN.
        """
        if self._now is not None:
            return self._now
        patience = self._patience
        self._waiting += 1
        try:
            async with asyncio.timeout_at(None if patience is None else since + patience):
                await self.wait_up()
        except TimeoutError:
            raise self._time_out() from None
        finally:
            self._waiting -= 1
        return await self._files(since)

    def _time_out(self) -> OSError:
        self._timed_out += 1
        return OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))

    def _again(self, lost: Disconnected, since: float) -> float:
        """A request is to be sent again that was *lost*: since when it waits.

        Raises:
            OSError: ETIMEDOUT: it has waited long enough.
        """
        if isinstance(lost, Expired):
            raise self._time_out() from None
        self._repeated += 1
        if self._clock() - self._began < STABLE_S:
            return since  # perhaps the server ends each conversation because of this very request
        return max(since, self._began)
