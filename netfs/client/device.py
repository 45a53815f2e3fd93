"""The /dev/fuse descriptor: the only reader of requests and writer of replies.

What requests mean does not belong here.  Notifications are written through ``notify`` by another
thread (client/notifier.py), because they can block.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from typing import Final

from netfs.buffers import Spares
from netfs.fuse import abi
from netfs.fuse.handshake import MAX_WRITE
from netfs.fuse.replies import ERRNO_MAX, Reply

log = logging.getLogger(__name__)

_BUFFER_SIZE: Final = MAX_WRITE + 64 * 1024
"""Holds any request: the kernel wants at least 80 bytes more than max_write (EINVAL otherwise)."""

_KEEP_BUFFER: Final = 512 * 1024
"""From this size on a message keeps the buffer it was read into and a new one is made (42 µs);
smaller ones are copied (27 µs for 128 KiB).  Measured; os.read's exact-size bytes cost 105 µs."""

_SPARES: Final = 16
"""Handed-over buffers that are used again once nobody holds them: fresh ones cost a page fault per
4 KiB (260 µs per MiB instead of 130).  What is kept stays resident, at most 17 MiB."""

_ABORTS: Final = 64
"""A read that the end of an unmounted filesystem overtakes says ECONNABORTED as well, until the
queue is shut a moment later: then it is ENODEV, unless somebody has aborted the connection.
Source: linux/fs/fuse/dev.c, fuse_dev_do_read and fuse_abort_conn."""

_ENDED: Final = frozenset({errno.ENODEV, errno.ECONNABORTED, errno.ENOTCONN, errno.EBADF})

_pack_header = abi.OUT_HEADER.pack


class Unmounted(Exception):
    """The filesystem is no longer mounted anywhere and nobody uses it."""


class Aborted(Exception):
    """Somebody aborted the connection; the mount is still there, dead."""


class Device:
    """One open /dev/fuse, close-on-exec and non-blocking.

    A copy of the descriptor in any other process would turn the daemon's death into a frozen
    mount, so it is never inherited.
    """

    __slots__ = ("_fd", "_iov", "_spares", "_view")

    def __init__(self, fd: int) -> None:
        """Takes *fd* over."""
        os.set_inheritable(fd, False)
        os.set_blocking(fd, False)
        self._fd = fd
        self._spares = Spares(_BUFFER_SIZE, _SPARES)
        self._use(self._spares.take())

    def __repr__(self) -> str:
        return f"<Device fd={self._fd}>"

    def fileno(self) -> int:
        return self._fd

    def read(self) -> memoryview | None:
        """The next message, or None if there is none now.

        The memory is reused by the next ``read``, except that of a WRITE's data: see ``own``.

        Raises:
            Unmounted, Aborted: there will be no more.
        """
        aborts = 0
        while True:
            try:
                size = os.readv(self._fd, self._iov)
            except BlockingIOError:
                return None
            except OSError as error:
                # ENOENT: the request was taken back by a signal while it was being read.
                if error.errno in (errno.EINTR, errno.ENOENT):
                    continue
                if error.errno == errno.ECONNABORTED:
                    aborts += 1
                    if aborts < _ABORTS:
                        continue
                    raise Aborted from None
                if error.errno in _ENDED:
                    raise Unmounted from None
                raise
            if not size:
                raise Unmounted  # end of file: what stands in for the kernel has closed its end
            return self._view[:size]

    def own(self, message: memoryview) -> memoryview:
        """*message* in memory that nobody else will write to."""
        if len(message) >= _KEEP_BUFFER:
            self._use(self._spares.take())
            return message
        return memoryview(bytes(message))

    def reply(self, unique: int, reply: Reply) -> bool:
        """Answer a request; what the reply promised is undone if nobody waits for it any more.

        Returns:
            Whether the kernel took it.
        """
        body, undo = reply
        size = 16
        for part in body:
            size += len(part)
        try:
            os.writev(self._fd, (_pack_header(size, 0, unique), *body))
        except OSError as error:
            self._refused(unique, error)
            if undo is not None:
                undo()
            return False
        return True

    def reply_error(self, unique: int, error: int) -> bool:
        """Answer a request with an errno; one the kernel would refuse becomes EIO.

        Returns:
            Whether the kernel took it.
        """
        if not 0 < error <= ERRNO_MAX:
            error = errno.EIO
        try:
            os.writev(self._fd, (_pack_header(16, -error, unique),))
        except OSError as failure:
            self._refused(unique, failure)
            return False
        return True

    def notify(self, message: bytes) -> None:
        """Write a notification.  Blocks: not for the event loop's thread.

        Raises:
            OSError: as the kernel says.
        """
        os.write(self._fd, message)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _use(self, buffer: bytearray) -> None:
        self._view = memoryview(buffer)
        self._iov = [buffer]

    def _refused(self, unique: int, error: OSError) -> None:
        """The kernel did not take a reply."""
        if error.errno == errno.ENOENT or error.errno in _ENDED:
            return  # the caller is gone, or everybody is
        # The kernel refuses what it can't parse, and the caller would wait for ever.
        log.error("unique %d: the kernel refuses the reply: %s", unique, error)
        try:
            os.write(self._fd, _pack_header(16, -errno.EIO, unique))
        except OSError as again:
            # ENOENT is usual: the kernel itself answered EIO to a body of the wrong size.
            if again.errno != errno.ENOENT and again.errno not in _ENDED:
                log.error("unique %d: it refuses EIO too: %s", unique, again)


async def wait_readable(device: Device) -> None:
    """Return once the device has a message, or has ended."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def set_ready() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(device.fileno(), set_ready)
    try:
        await ready
    finally:
        loop.remove_reader(device.fileno())
