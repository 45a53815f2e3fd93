"""One link in use: its SFTP conversation, with the signs of life that the link's keeper wants."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from netfs.client.config import Config
from netfs.client.remote import files
from netfs.client.remote.channel import Link, ProbedLink
from netfs.client.remote.errors import ConnectError, ConnectErrorKind
from netfs.client.remote.files import SftpFiles
from netfs.client.remote.lanes import Lanes
from netfs.client.remote.link import Signs
from netfs.client.remote.pending import Disconnected
from netfs.client.remote.requester import Requester
from netfs.client.remote.window import new_links
from netfs.client.turns import Turn

_log = logging.getLogger(__name__)


class Ways:
    """How the requesters of one link are made: they share the measured way and the clock."""

    def __init__(
        self, clock: Callable[[], float], *, log_requests: bool, turn: Turn | None
    ) -> None:
        self.links = new_links()
        self._turn = turn
        self._clock = clock
        self._log_requests = log_requests

    def new_requester(self) -> Requester:
        return Requester(self.links, self._clock, log_requests=self._log_requests, turn=self._turn)


class Conversation:
    """SFTP over one link: a channel for names, one for what is written, ``lanes`` for much of it.

    Made by ``converse``.  When one channel ends the whole has ended.
    """

    def __init__(self, link: Link, sftp: SftpFiles, config: Config, ways: Ways) -> None:
        self.files = sftp
        self.links = ways.links
        self.is_ended = False
        self.on_end: Callable[[], None] | None = None
        """Called at once when it has ended, before anybody who waits for an answer is told."""
        self._link = link
        self._config = config
        self._ways = ways
        self._requesters: list[Requester] = []
        self._add(sftp.requester)
        self._opening: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()  # there are other channels to watch
        self.lanes = Lanes(self._open_lane, self._close_lane, link.max_channels - 2)
        if link.max_channels > 1:
            self._opening = asyncio.get_running_loop().create_task(self._open_data())

    def __repr__(self) -> str:
        return f"<Conversation {self._requesters!r}>"

    @property
    def requesters(self) -> tuple[Requester, ...]:
        """One per channel, that for names first."""
        return tuple(self._requesters)

    def signs(self) -> Signs:
        """See ``link.Live``."""
        heard_at = max(requester.heard_at for requester in self._requesters)
        round_trip_s = self.links.round_trip.shortest_s or None
        return Signs(heard_at, self._link.acked_at(), self.oldest_sent_at(), round_trip_s)

    def oldest_sent_at(self) -> float | None:
        """When the request that waits longest left (on the clock)."""
        times = [requester.oldest_sent_at() for requester in self._requesters]
        return min((at for at in times if at is not None), default=None)

    def expire(self, before: float, reason: str) -> None:
        """See ``Requester.expire``."""
        for requester in self._requesters:
            requester.expire(before, reason)

    async def probe(self) -> None:
        """See ``link.Live``."""
        if isinstance(self._link, ProbedLink):
            await self._link.probe()
            return
        try:
            await self.files.realpath(b".")
        except OSError:
            pass  # a refusal is an answer
        except Disconnected as exc:
            raise ConnectError(ConnectErrorKind.LOST, str(exc)) from exc

    async def wait_lost(self) -> Exception | None:
        """Returns why, when the link or a channel on it has ended."""
        link = asyncio.ensure_future(self._link.wait_lost())
        try:
            while True:
                self._changed.clear()
                changed = asyncio.ensure_future(self._changed.wait())
                watched = self.requesters
                channels = [asyncio.ensure_future(r.wait_ended()) for r in watched]
                try:
                    await asyncio.wait(
                        (link, changed, *channels), return_when=asyncio.FIRST_COMPLETED
                    )
                    if link.done():
                        return link.result()
                    for requester, channel in zip(watched, channels, strict=True):
                        if channel.done() and requester in self._requesters:
                            return ConnectError(ConnectErrorKind.LOST, channel.result())
                finally:
                    for future in (changed, *channels):
                        future.cancel()
        finally:
            link.cancel()

    def abort(self) -> None:
        """Drop it at once: nothing more of what was asked is carried out."""
        self._stop_opening()
        self._link.abort()
        for requester in self._requesters:
            requester.abort("the link was given up")

    async def close(self) -> None:
        """Say goodbye."""
        self._stop_opening()
        for requester in self._requesters:
            requester.close()
        await self._link.close()
        for requester in self._requesters:
            requester.abort("closed")

    def _stop_opening(self) -> None:
        self.lanes.stop()
        if self._opening is not None:
            self._opening.cancel()

    async def _open_data(self) -> None:
        """Open the second channel; without it everything goes over the first."""
        data = await self._open_lane()
        if data is not None:
            self.files.data = data

    async def _open_lane(self) -> SftpFiles | None:
        """One more channel; None if the server gives none."""
        requester = self._ways.new_requester()
        try:
            async with asyncio.timeout(self._config.ssh.connect_timeout_s):
                channel = await self._link.open_channel(requester)
                lane = await files.start(requester, channel, self._config.semantics)
        except (ConnectError, Disconnected, TimeoutError) as exc:
            _log.info("no SFTP channel beside the %d: %s", len(self._requesters), exc)
            requester.abort("not used")
            return None
        self._add(requester)
        self._changed.set()
        return lane

    def _add(self, requester: Requester) -> None:
        self._requesters.append(requester)
        requester.on_end = self._channel_ended
        if requester.is_ended:
            self._channel_ended()

    def _channel_ended(self) -> None:
        self.is_ended = True
        if self.on_end is not None:
            self.on_end()

    def _close_lane(self, lane: SftpFiles) -> None:
        lane.requester.on_end = None
        self._requesters.remove(lane.requester)
        self._changed.set()
        lane.requester.close()


async def converse(
    link: Link, config: Config, clock: Callable[[], float], turn: Turn | None = None
) -> Conversation:
    """Start SFTP on *link*; the link is aborted if that fails.  *turn*: see ``Requester``.

    Raises:
        ConnectError
    """
    ways = Ways(clock, log_requests=config.daemon.debug, turn=turn)
    requester = ways.new_requester()
    try:
        # The system's ssh asks for passwords on the terminal meanwhile; it has its own time-outs.
        async with asyncio.timeout(None if link.may_ask else config.ssh.connect_timeout_s):
            channel = await link.open_channel(requester)
            sftp = await files.start(requester, channel, config.semantics)
    except Disconnected as exc:
        link.abort()
        if isinstance(requester.loss, ConnectError):
            raise requester.loss from None  # its kind decides whether to try again
        raise ConnectError(ConnectErrorKind.NO_SFTP, f"no SFTP: {exc}") from exc
    except TimeoutError as exc:
        link.abort()
        raise ConnectError(ConnectErrorKind.TIMED_OUT, "the server's SFTP does not answer") from exc
    except BaseException:
        link.abort()
        raise
    return Conversation(link, sftp, config, ways)
