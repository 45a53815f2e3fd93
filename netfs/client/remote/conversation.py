"""One link in use: its SFTP conversation, with the signs of life that the link's keeper wants."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from netfs.client.config import Config
from netfs.client.remote import files
from netfs.client.remote.channel import Link
from netfs.client.remote.errors import ConnectError, ConnectErrorKind
from netfs.client.remote.files import SftpFiles
from netfs.client.remote.link import Signs
from netfs.client.remote.requester import Disconnected, Links, Requester, new_links


class Conversation:
    """SFTP over one link.  Made by ``converse``."""

    def __init__(
        self, link: Link, sftp: SftpFiles, links: Links, clock: Callable[[], float]
    ) -> None:
        self.files = sftp
        self.links = links
        self._link = link
        self._clock = clock

    def __repr__(self) -> str:
        return f"<Conversation {self.files!r}>"

    @property
    def is_ended(self) -> bool:
        return self.files.requester.is_ended

    def signs(self) -> Signs:
        """See ``link.Live``."""
        requester = self.files.requester
        return Signs(requester.heard_at, self._link.acked_at(), requester.oldest_sent_at())

    async def probe(self) -> None:
        """See ``link.Live``."""
        if self._link.can_probe:
            await self._link.probe()
            return
        try:
            await self.files.realpath(b".")
        except OSError:
            pass  # a refusal is an answer
        except Disconnected as exc:
            raise ConnectError(ConnectErrorKind.LOST, str(exc)) from exc

    async def wait_lost(self) -> Exception | None:
        """Returns why, when the link or the conversation on it has ended."""
        link = asyncio.ensure_future(self._link.wait_lost())
        conversation = asyncio.ensure_future(self.files.requester.wait_ended())
        try:
            await asyncio.wait((link, conversation), return_when=asyncio.FIRST_COMPLETED)
            if link.done():
                return link.result()
            return ConnectError(ConnectErrorKind.LOST, conversation.result())
        finally:
            link.cancel()
            conversation.cancel()

    def abort(self) -> None:
        """Drop it at once: nothing more of what was asked is carried out."""
        self._link.abort()
        self.files.requester.abort("the link was given up")

    async def close(self) -> None:
        """Say goodbye."""
        self.files.requester.close()
        await self._link.close()
        self.files.requester.abort("closed")


async def converse(link: Link, config: Config, clock: Callable[[], float]) -> Conversation:
    """Start SFTP on *link*; the link is aborted if that fails.

    Raises:
        ConnectError
    """
    links = new_links()
    requester = Requester(links, clock, log_requests=config.daemon.debug)
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
    return Conversation(link, sftp, links, clock)
