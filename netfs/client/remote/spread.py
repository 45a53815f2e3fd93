"""The requests about one open file: their order, and the channels that its WRITEs go over.

OpenSSH gives a channel a window of 2 MiB: one channel carries 2 MiB per round trip and no more.  A
big file that has more under way is opened again on further channels, and its WRITEs go over all of
them.  A server keeps the order of one channel's requests only; so from then on (``is_wide``) each
other request that is about what was written waits for the answers to all WRITEs before it and
holds back those after it.  WRITEs themselves may overtake each other: the caller has no two of
the same place under way.

Where the channels come from is ``lanes.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Final

from netfs.client.remote.files import SftpFiles, SftpHandle
from netfs.client.remote.requester import Disconnected, Links
from netfs.wire import Buffer

CARRIED: Final = 7 * 256 * 1024
"""Bytes under way from which a channel counts as full: OpenSSH's window (2 MiB,
CHAN_SES_WINDOW_DEFAULT in its channels.h) less the block that does not fit any more."""

_BIG: Final = 4 * 1024 * 1024
"""Bytes written through a handle from which further channels are worth their opening."""

_FAR_S: Final = 0.002
"""On a shorter way one channel carries 1 GB/s."""

Begun = asyncio.Future[None]
"""A request that has come; done when it has ended, one way or the other."""


class Strand:
    """The file, open on a further channel for WRITEs alone."""

    __slots__ = ("files", "in_doubt", "in_flight", "sftp")

    def __init__(self, files: SftpFiles, sftp: SftpHandle) -> None:
        self.files = files
        self.sftp = sftp
        self.in_flight = 0  # bytes
        self.in_doubt = False  # a WRITE was abandoned and may still be on its way


class Spread:
    """See the module.  One per open file; the strands are of the present conversation."""

    __slots__ = (
        "_loop",
        "_others",
        "_total",
        "_writes",
        "in_flight",
        "is_final",
        "is_wide",
        "is_widening",
        "release",
        "strands",
    )

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._writes: set[Begun] = set()
        self._others: set[Begun] = set()
        self._total = 0  # bytes of all WRITEs so far
        self.in_flight = 0  # bytes of WRITEs on the file's own channel
        self.strands: Sequence[Strand] = ()
        self.release: Callable[[], None] | None = None  # tells that the lanes are not used now
        self.is_wide = False  # there are, or were, strands: order is kept here
        self.is_widening = False
        self.is_final = False  # it can't get more strands

    # The order.

    def begin_write(self) -> Begun:
        """A WRITE has come: ``turn_of_write`` before it leaves, ``end`` when it has ended."""
        begun = self._loop.create_future()
        self._writes.add(begun)
        return begun

    def begin_other(self) -> tuple[Begun, list[Begun] | None]:
        """Another request has come, and these were before: ``turn_of_other``, then ``end``.

        None: one channel keeps the order by itself, the request may leave at once.
        """
        begun = self._loop.create_future()
        earlier = [*self._writes, *self._others] if self.is_wide else None
        self._others.add(begun)
        return begun, earlier

    async def turn_of_write(self) -> None:
        """Wait for what is no WRITE and came before."""
        if self.is_wide and self._others:
            await asyncio.wait(self._others)

    async def turn_of_other(self, earlier: list[Begun]) -> None:
        """Wait for the *earlier*, and for what is still on its way of abandoned WRITEs."""
        if earlier:
            await asyncio.wait(earlier)
        for strand in self.strands:
            if strand.in_doubt:
                # Refused, the answer is behind the WRITEs as well; lost, so are they.
                with contextlib.suppress(OSError, Disconnected):
                    await strand.files.fstat(strand.sftp)
                strand.in_doubt = False

    def end(self, begun: Begun) -> None:
        """It was answered, or given up."""
        self._writes.discard(begun)
        self._others.discard(begun)
        begun.set_result(None)

    # The channels.

    async def write(
        self, files: SftpFiles, sftp: SftpHandle, offset: int, data: Sequence[Buffer], size: int
    ) -> None:
        """Send a WRITE over the channel that has the least of this file under way."""
        least: Strand | None = None
        for strand in self.strands:
            if strand.in_flight < (self.in_flight if least is None else least.in_flight):
                least = strand
        if least is None:
            self.in_flight += size
            try:
                await files.write(sftp, offset, data)
            finally:
                self.in_flight -= size
            return
        least.in_flight += size
        try:
            await least.files.write(least.sftp, offset, data)
        except asyncio.CancelledError:
            least.in_doubt = True
            raise
        finally:
            least.in_flight -= size

    def wants(self, size: int, links: Links) -> int:
        """How many strands the file should have, told that *size* bytes more are written.

        As many as it takes to carry what the measured way holds; 0: no more than there are.
        """
        self._total += size
        if self.is_final or self.is_widening or self._total < _BIG:
            return 0
        window = links.writes
        carried = CARRIED * (1 + len(self.strands))
        if window.in_flight < carried or links.round_trip.shortest_s < _FAR_S:
            return 0
        if self.in_flight + sum([strand.in_flight for strand in self.strands]) < carried:
            return 0
        return max(window.limit // CARRIED, len(self.strands) + 1)

    def cut(self) -> None:
        """The conversation of the strands has ended; the next one may give others."""
        self._drop()
        self.is_final = False
        self._total = 0

    def close(self) -> None:
        """Close the strands, behind what is on its way there."""
        for strand in self.strands:
            strand.files.requester.dismiss(strand.sftp.handle)
        self._drop()
        self.is_final = True

    def _drop(self) -> None:
        self.strands = ()
        if self.release is not None:
            self.release()
            self.release = None
