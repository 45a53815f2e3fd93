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
from netfs.client.remote.pending import Disconnected
from netfs.client.remote.window import Links
from netfs.wire import Buffer

CARRIED: Final = 7 * 256 * 1024
"""Bytes under way from which a channel counts as full: OpenSSH's window (2 MiB,
CHAN_SES_WINDOW_DEFAULT in its channels.h) less the block that does not fit any more."""

_BIG: Final = 4 * 1024 * 1024
"""Bytes written through a handle from which further channels are worth their opening."""

_FAR_S: Final = 0.002
"""On a shorter way one channel carries 1 GB/s."""


class Begun:
    """A request that has come and has not ended, one way or the other."""

    __slots__ = ()


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
        "_others",
        "_total",
        "_waiting",
        "_writes",
        "in_flight",
        "is_final",
        "is_wide",
        "is_widening",
        "release",
        "strands",
    )

    def __init__(self) -> None:
        self._writes: set[Begun] = set()
        self._others: set[Begun] = set()
        self._waiting: list[asyncio.Future[None]] = []  # until a request ends
        self._total = 0  # bytes written so far
        self.in_flight = 0  # bytes of WRITEs on all channels
        self.strands: Sequence[Strand] = ()
        self.release: Callable[[], None] | None = None  # tells that the lanes are not used now
        self.is_wide = False  # there are, or were, strands: order is kept here
        self.is_widening = False
        self.is_final = False  # it can't get more strands

    # The order.

    def begin_write(self, size: int) -> Begun:
        """A WRITE has come: ``turn_of_write`` before it leaves, ``end_write`` when it has ended."""
        begun = Begun()
        self._writes.add(begun)
        self.in_flight += size
        return begun

    def end_write(self, begun: Begun, size: int) -> None:
        """See ``end``."""
        self.in_flight -= size
        self.end(begun)

    def begin_other(self) -> tuple[Begun, set[Begun] | None]:
        """Another request has come, and these were before: ``turn_of_other``, then ``end``.

        None: one channel keeps the order by itself, the request may leave at once.
        """
        begun = Begun()
        earlier = self._writes | self._others if self.is_wide else None
        self._others.add(begun)
        return begun, earlier

    async def turn_of_write(self) -> None:
        """Wait for what is no WRITE and came before."""
        if self.is_wide:
            await self._until_ended(set(self._others))

    async def turn_of_other(self, earlier: set[Begun]) -> None:
        """Wait for the *earlier*, and for what is still on its way of abandoned WRITEs."""
        await self._until_ended(earlier)
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
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            for future in waiting:
                if not future.done():
                    future.set_result(None)

    async def _until_ended(self, earlier: set[Begun]) -> None:
        while not earlier.isdisjoint(self._writes) or not earlier.isdisjoint(self._others):
            future = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            await future

    # The channels.

    async def write(
        self, files: SftpFiles, sftp: SftpHandle, offset: int, data: Sequence[Buffer], size: int
    ) -> None:
        """Send a WRITE over the channel that has the least of this file under way."""
        least: Strand | None = None
        under_way = self.in_flight - size - sum([strand.in_flight for strand in self.strands])
        for strand in self.strands:
            if strand.in_flight < under_way:
                least, under_way = strand, strand.in_flight
        if least is None:
            await files.write(sftp, offset, data)
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
        if self._total < _BIG or self.is_final or self.is_widening:
            return 0
        window = links.writes
        carried = CARRIED * (1 + len(self.strands))
        if window.in_flight < carried or links.round_trip.shortest_s < _FAR_S:
            return 0
        if self.in_flight < carried:
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
