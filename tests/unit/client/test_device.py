"""The device against a socket pair in place of the kernel."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator

import pytest

from netfs.client import device as device_module
from netfs.client.device import Aborted, Device, Unmounted
from netfs.fuse.replies import EMPTY, Reply


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, Device]]:
    kernel, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    os.set_inheritable(ours.fileno(), True)
    device = Device(ours.detach())
    yield kernel, device
    kernel.close()
    device.close()


def test_the_descriptor_is_never_inherited_and_never_blocks(
    pair: tuple[socket.socket, Device],
) -> None:
    _, device = pair
    assert not os.get_inheritable(device.fileno())
    assert not os.get_blocking(device.fileno())


def test_one_read_is_one_message(pair: tuple[socket.socket, Device]) -> None:
    kernel, device = pair
    assert device.read() is None
    kernel.send(b"first")
    kernel.send(b"second")
    first = device.read()
    assert first == b"first"
    assert device.read() == b"second"
    assert device.read() is None


@pytest.mark.parametrize("size", [5, 131072, 600_000])
def test_an_owned_message_is_not_overwritten(pair: tuple[socket.socket, Device], size: int) -> None:
    kernel, device = pair
    kernel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
    kernel.send(b"a" * size)
    message = device.read()
    assert message is not None
    owned = device.own(message)
    kernel.send(b"b" * size)
    assert device.read() == b"b" * size
    assert owned == b"a" * size


def test_a_lent_buffer_is_used_again_only_when_nobody_holds_it(
    pair: tuple[socket.socket, Device],
) -> None:
    kernel, device = pair
    kernel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
    held: list[tuple[bytes, memoryview]] = []
    for number in range(60):
        content = bytes([number]) * (600_000 + number)
        kernel.send(content)
        message = device.read()
        assert message is not None
        held.append((content, device.own(message)[1:]))
        del message
        if number % 3 == 0:
            del held[: len(held) // 2]
        assert all(view == content[1:] for content, view in held)


def test_replies_are_one_write_each(pair: tuple[socket.socket, Device]) -> None:
    kernel, device = pair
    assert device.reply(8, EMPTY)
    assert device.reply(10, Reply((b"abc",)))
    assert device.reply(12, Reply((b"abc", memoryview(b"de"), bytearray(b"f"))))
    assert device.reply_error(14, errno.ENOENT)
    assert kernel.recv(100) == struct.pack("<IiQ", 16, 0, 8)
    assert kernel.recv(100) == struct.pack("<IiQ", 19, 0, 10) + b"abc"
    assert kernel.recv(100) == struct.pack("<IiQ", 22, 0, 12) + b"abcdef"
    assert kernel.recv(100) == struct.pack("<IiQ", 16, -2, 14)


@pytest.mark.parametrize("number", [0, -1, 512, 100_000])
def test_an_errno_the_kernel_would_refuse_becomes_eio(
    pair: tuple[socket.socket, Device], number: int
) -> None:
    kernel, device = pair
    device.reply_error(14, number)
    assert kernel.recv(100) == struct.pack("<IiQ", 16, -errno.EIO, 14)


class Scripted:
    """os.readv or os.writev as a list of errors and results."""

    def __init__(self, *script: int) -> None:
        self.script = list(script)

    def __call__(self, fd: int, buffers: object) -> int:
        step = self.script.pop(0)
        if step < 0:
            raise OSError(-step, os.strerror(-step))
        return step


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (errno.ENODEV, Unmounted),
        (errno.ENOTCONN, Unmounted),
        (errno.ECONNABORTED, Aborted),
        (errno.EINVAL, OSError),
    ],
)
def test_how_reading_ends(
    pair: tuple[socket.socket, Device],
    monkeypatch: pytest.MonkeyPatch,
    error: int,
    raised: type[Exception],
) -> None:
    again = 100 * [-error]  # what is said for good
    script = Scripted(-errno.EINTR, -errno.ENOENT, *again)
    monkeypatch.setattr(device_module.os, "readv", script)
    with pytest.raises(raised):
        pair[1].read()


@pytest.mark.parametrize("times", [1, 3])
def test_an_unmount_that_overtakes_a_read_is_no_abort(
    pair: tuple[socket.socket, Device], monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    script = Scripted(*times * [-errno.ECONNABORTED], -errno.ENODEV)
    monkeypatch.setattr(device_module.os, "readv", script)
    with pytest.raises(Unmounted):
        pair[1].read()


def test_the_queue_may_still_be_open_then(
    pair: tuple[socket.socket, Device], monkeypatch: pytest.MonkeyPatch
) -> None:
    script = Scripted(-errno.ECONNABORTED, -errno.EAGAIN)
    monkeypatch.setattr(device_module.os, "readv", script)
    assert pair[1].read() is None


@pytest.mark.parametrize("error", [errno.ENOENT, errno.ENODEV, errno.ECONNABORTED])
def test_a_reply_to_nobody_is_undone(
    pair: tuple[socket.socket, Device], monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    undone: list[int] = []
    monkeypatch.setattr(device_module.os, "writev", Scripted(-error))
    assert not pair[1].reply(8, Reply((b"x",), lambda: undone.append(1)))
    assert undone == [1]


def test_a_reply_the_kernel_refuses_becomes_eio_and_is_undone(
    pair: tuple[socket.socket, Device],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    kernel, device = pair
    undone: list[int] = []
    monkeypatch.setattr(device_module.os, "writev", Scripted(-errno.EINVAL))
    assert not device.reply(8, Reply((b"x",), lambda: undone.append(1)))
    assert kernel.recv(100) == struct.pack("<IiQ", 16, -errno.EIO, 8)
    assert undone == [1]
    assert "refuses" in caplog.text


def test_closing_twice_is_allowed(pair: tuple[socket.socket, Device]) -> None:
    _, device = pair
    device.close()
    device.close()
