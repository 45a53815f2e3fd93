"""The notifier's queue and thread, with a device that blocks when told to."""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from collections.abc import Callable

import pytest

from netfs.client.notifier import Notifier
from netfs.fuse import handshake, notify
from netfs.fuse.requests import Init


def capabilities(minor: int = 45, flags: int = 0x5FD_73FF_FFFB) -> handshake.Capabilities:
    return handshake.negotiate(Init(2, 0, 0, 0, 0, 7, minor, 131072, flags))[0]


OLD = capabilities(32, 0x03FFFFFB)


class FakeDevice:
    """Records what is written; while ``gate`` is clear, writing blocks."""

    def __init__(self, error: int = 0) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.blocked = threading.Event()
        self.written: list[bytes] = []
        self.error = error

    def write(self, message: bytes) -> None:
        if not self.gate.is_set():
            self.blocked.set()
            assert self.gate.wait(10)
        self.written.append(message)
        if self.error:
            raise OSError(self.error, os.strerror(self.error))


def blocked_notifier(
    known: handshake.Capabilities | None = None, max_queued: int = 100
) -> tuple[FakeDevice, Notifier]:
    """A notifier whose thread is stuck in its first write, so that what follows is queued."""
    device = FakeDevice()
    device.gate.clear()
    notifier = Notifier(device.write, known or capabilities(), max_queued=max_queued)
    notifier.start()
    notifier.invalidate_attributes(99)
    assert device.blocked.wait(5)
    return device, notifier


def release(device: FakeDevice, notifier: Notifier) -> list[bytes]:
    device.gate.set()
    assert notifier.stop(5)
    return device.written[1:]


def test_what_is_queued_is_written_before_the_end() -> None:
    device = FakeDevice()
    notifier = Notifier(device.write, capabilities())
    notifier.start()
    notifier.invalidate_inode(2, 5, 6)
    notifier.invalidate_attributes(3)
    notifier.invalidate_entry(1, b"a")
    notifier.expire_entry(1, b"b")
    notifier.prune([4])
    assert notifier.stop(5)
    # Nothing more is pruned once it ends.
    assert sorted(set(device.written) - {notify.prune([4])}) == sorted(
        [
            notify.invalidate_inode(2, 5, 6),
            notify.invalidate_inode(3, -1),
            notify.invalidate_entry(1, b"a"),
            notify.invalidate_entry(1, b"b", expire_only=True),
        ]
    )


@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        ([(2, 0, 10), (2, 20, 10)], [notify.invalidate_inode(2, 0, 30)]),
        ([(2, 20, 10), (2, 0, 10)], [notify.invalidate_inode(2, 0, 30)]),
        ([(2, 20, 10), (2, 30, 0)], [notify.invalidate_inode(2, 20, 0)]),
        ([(2, 0, 0), (2, 30, 5)], [notify.invalidate_inode(2, 0, 0)]),
    ],
)
def test_ranges_of_one_inode_grow_together(
    calls: list[tuple[int, int, int]], expected: list[bytes]
) -> None:
    device, notifier = blocked_notifier()
    for call in calls:
        notifier.invalidate_inode(*call)
    assert release(device, notifier) == expected


def test_attributes_are_part_of_data() -> None:
    device, notifier = blocked_notifier()
    notifier.invalidate_attributes(2)
    notifier.invalidate_inode(2)
    notifier.invalidate_attributes(2)
    assert release(device, notifier) == [notify.invalidate_inode(2)]


def test_a_name_is_queued_once_and_dropping_wins_over_expiring() -> None:
    device, notifier = blocked_notifier()
    for _ in range(3):
        notifier.expire_entry(1, b"a")
        notifier.invalidate_entry(1, b"b")
        notifier.expire_entry(1, b"b")
    assert release(device, notifier) == [
        notify.invalidate_entry(1, b"a", expire_only=True),
        notify.invalidate_entry(1, b"b"),
    ]


def test_where_names_cannot_expire_they_are_dropped() -> None:
    device, notifier = blocked_notifier(OLD)
    notifier.expire_entry(1, b"a")
    notifier.prune([5])
    assert release(device, notifier) == [notify.invalidate_entry(1, b"a")]


def test_too_many_names_become_one_new_epoch() -> None:
    device, notifier = blocked_notifier(max_queued=3)
    for number in range(10):
        notifier.expire_entry(1, b"%d" % number)
    notifier.invalidate_inode(7)
    assert release(device, notifier) == [notify.invalidate_inode(7), notify.increment_epoch()]


def test_without_epochs_the_oldest_names_are_dropped_and_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    device, notifier = blocked_notifier(OLD, max_queued=3)
    for number in range(5):
        notifier.expire_entry(1, b"%d" % number)
    assert notifier.statistics().dropped == 2
    assert notifier.statistics().queued == 3
    assert release(device, notifier) == [
        notify.invalidate_entry(1, name) for name in (b"2", b"3", b"4")
    ]
    assert len(caplog.records) == 1


def test_nothing_blocks_while_a_write_does() -> None:
    device, notifier = blocked_notifier()
    began = time.monotonic()
    for number in range(50):
        notifier.invalidate_inode(number)
        notifier.invalidate_entry(1, b"%d" % number)
    assert notifier.statistics().queued == 100
    assert not notifier.stop(0.05)
    assert time.monotonic() - began < 1
    device.gate.set()
    assert notifier.stop(5)


@pytest.mark.parametrize("error", [errno.ENOENT, errno.ENOTDIR, errno.EBUSY, errno.ENOTEMPTY])
def test_what_the_kernel_does_not_know_is_no_news(
    error: int, caplog: pytest.LogCaptureFixture
) -> None:
    device = FakeDevice(error)
    notifier = Notifier(device.write, capabilities())
    notifier.start()
    notifier.invalidate_inode(2)
    notifier.invalidate_inode(3)
    assert notifier.stop(5)
    statistics = notifier.statistics()
    assert (statistics.written, statistics.unknown) == (2, 2)
    assert not caplog.records


def test_other_errors_are_logged_and_the_thread_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    device = FakeDevice(errno.EINVAL)
    notifier = Notifier(device.write, capabilities())
    notifier.start()
    notifier.invalidate_inode(2)
    notifier.invalidate_inode(3)
    assert notifier.stop(5)
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2


@pytest.mark.parametrize("error", [errno.ENODEV, errno.ECONNABORTED, errno.ENOTCONN])
def test_the_thread_ends_with_the_device(error: int) -> None:
    device = FakeDevice(error)
    notifier = Notifier(device.write, capabilities())
    notifier.start()
    notifier.invalidate_inode(2)
    until(lambda: not notifier._thread.is_alive())
    notifier.invalidate_inode(3)
    assert notifier.stop(5)
    assert len(device.written) == 1


def test_a_notifier_that_never_started_stops() -> None:
    assert Notifier(FakeDevice().write, capabilities()).stop(1)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def busy_notifier(
    known: handshake.Capabilities, busy: set[int]
) -> tuple[FakeDevice, Notifier, list[float]]:
    now = [100.0]
    device = FakeDevice()
    notifier = Notifier(device.write, known, busy=lambda: busy, clock=lambda: now[0])
    notifier.start()
    return device, notifier, now


def test_names_of_a_directory_with_unanswered_requests_are_held_back() -> None:
    busy = {5}
    device, notifier, _ = busy_notifier(capabilities(), busy)
    notifier.invalidate_entry(5, b"a")
    notifier.invalidate_entry(5, b"b")
    notifier.invalidate_entry(6, b"c")
    until(lambda: device.written == [notify.invalidate_entry(6, b"c")])
    busy.clear()
    until(lambda: len(device.written) == 3)
    assert device.written[1:] == [
        notify.invalidate_entry(5, b"a"),
        notify.invalidate_entry(5, b"b"),
    ]
    assert notifier.stop(5)


@pytest.mark.parametrize(
    ("known", "written"),
    [
        (capabilities(), [notify.increment_epoch()]),
        (OLD, [notify.invalidate_entry(5, b"a"), notify.invalidate_entry(5, b"b")]),
    ],
)
def test_a_name_is_not_held_back_for_ever(
    known: handshake.Capabilities, written: list[bytes]
) -> None:
    device, notifier, now = busy_notifier(known, {5})
    notifier.invalidate_entry(5, b"a")
    notifier.invalidate_entry(5, b"b")
    now[0] += 10
    until(lambda: device.written == written)
    assert notifier.stop(5)


def test_names_held_back_do_not_hold_up_the_end() -> None:
    device, notifier, _ = busy_notifier(capabilities(), {5})
    notifier.invalidate_entry(5, b"a")
    assert notifier.stop(5)
    assert device.written == []
