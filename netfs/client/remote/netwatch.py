"""Notices what makes the way to a server change: addresses, routes, and the machine's sleep.

Each event only asks for a look (LinkKeeper.nudge); deciding is link.py's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Callable
from typing import Final

log = logging.getLogger(__name__)

_GROUPS: Final = 0x1 | 0x10 | 0x40 | 0x100 | 0x400
"""RTMGRP_LINK, _IPV4_IFADDR, _IPV4_ROUTE, _IPV6_IFADDR, _IPV6_ROUTE.

Source: linux/rtnetlink.h.
"""

SETTLE_S: Final = 0.3
"""A change of network comes as a burst of messages; one look after it is enough."""

TICK_S: Final = 5.0
SLEPT_S: Final = 2.0
"""A jump of the boot clock against the monotonic one that is no scheduling delay."""


class SleepMeter:
    """Tells a suspend from its two clocks: one stands still meanwhile.  Pure."""

    def __init__(self, boottime: float, monotonic: float) -> None:
        self._offset = boottime - monotonic

    def slept(self, boottime: float, monotonic: float) -> float:
        """Seconds the machine was suspended since the last call."""
        offset = boottime - monotonic
        slept = offset - self._offset
        self._offset = offset
        return slept


class NetWatch:
    """Calls *on_change* on the loop after each change.  Close it."""

    def __init__(self, on_change: Callable[[str], None], *, tick_s: float = TICK_S) -> None:
        """*on_change* gets a word on what happened."""
        self._loop = asyncio.get_running_loop()
        self._on_change = on_change
        self._tick_s = tick_s
        self._settling: asyncio.TimerHandle | None = None
        self._meter = SleepMeter(_boottime(), time.monotonic())
        self._socket = _netlink()
        if self._socket is not None:
            self._loop.add_reader(self._socket.fileno(), self._readable)
        self._ticking = self._loop.call_later(tick_s, self._tick)

    def close(self) -> None:
        """Stop watching."""
        self._ticking.cancel()
        if self._settling is not None:
            self._settling.cancel()
        if self._socket is not None:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def _readable(self) -> None:
        assert self._socket is not None
        # EAGAIN: all are read.  ENOBUFS: some were lost, which says "a change" as well.
        with contextlib.suppress(OSError):
            while self._socket.recv(65536):
                pass
        if self._settling is None:
            self._settling = self._loop.call_later(SETTLE_S, self._settled)

    def _settled(self) -> None:
        self._settling = None
        self._on_change("network")

    def _tick(self) -> None:
        self._ticking = self._loop.call_later(self._tick_s, self._tick)
        if self._meter.slept(_boottime(), time.monotonic()) > SLEPT_S:
            self._on_change("resume")


def _boottime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _netlink() -> socket.socket | None:
    """A socket that hears of changes; None where the system gives none (some sandboxes)."""
    sock = None
    try:
        sock = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
        )
        sock.bind((0, _GROUPS))
    except OSError as exc:
        log.info("network changes can't be watched: %s", exc.strerror)
        if sock is not None:
            sock.close()
        return None
    return sock
