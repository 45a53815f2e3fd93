"""Replies, directory records and notifications as bytes; sizes are those of linux/fuse.h."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netfs.fuse import abi, dirents, notify, replies
from netfs.fuse.replies import Attr

ATTR = Attr(1, 2, 3, 4, -5, 6, 7, 8, 9, 0o100644, 1, 1000, 100, 0x801, 4096)
ATTR_BYTES = struct.pack(
    "<3Qqqq10I", 1, 2, 3, 4, -5, 6, 7, 8, 9, 0o100644, 1, 1000, 100, 0x801, 4096, 0
)


def test_an_entry() -> None:
    assert replies.entry(7, 2, replies.validity(1.5, 0.25), ATTR) == (
        struct.pack("<4Q2I", 7, 2, 1, 0, 500_000_000, 250_000_000) + ATTR_BYTES
    )


def test_a_negative_entry_has_node_0_and_a_validity() -> None:
    assert replies.negative_entry(2.5) == (
        struct.pack("<4Q2I", 0, 0, 2, 0, 500_000_000, 0) + bytes(88)
    )


def test_attributes() -> None:
    assert replies.attr(3.0, ATTR) == struct.pack("<QII", 3, 0, 0) + ATTR_BYTES


def test_open_and_create() -> None:
    opened = struct.pack("<QIi", 9, abi.FOPEN_KEEP_CACHE, 0)
    assert replies.open_(9, abi.FOPEN_KEEP_CACHE) == opened
    entry = replies.entry(7, 0, replies.NOT_VALID, ATTR)
    assert replies.create(entry, 9, abi.FOPEN_KEEP_CACHE) == entry + opened


def test_small_bodies() -> None:
    assert replies.write(5) == struct.pack("<II", 5, 0)
    assert replies.lseek(1 << 40) == struct.pack("<Q", 1 << 40)
    expected = struct.pack("<QQQQQIIII", 1, 2, 3, 4, 5, 6, 7, 8, 0) + bytes(24)
    assert replies.statfs(1, 2, 3, 4, 5, 6, 7, 8) == expected


@pytest.mark.parametrize(("btime", "mask"), [(None, 0x7FF), (1_500_000_000, 0xFFF)])
def test_statx(btime: int | None, mask: int) -> None:
    body = replies.statx(1.5, ATTR, btime)
    assert len(body) == 288
    assert struct.unpack_from("<QI", body) == (1, 500_000_000)
    fields = struct.unpack_from("<IIQIIIHHQQQQqIiqIiqIiqIiIIII", body, 32)
    assert fields[0] == mask
    assert fields[3:7] == (1, 1000, 100, 0o100644)
    assert fields[8:11] == (1, 2, 3)  # ino, size, blocks
    assert fields[12:14] == (4, 7)  # atime
    assert fields[15:17] == ((1, 500_000_000) if btime else (0, 0))
    assert fields[18:20] == (6, 9)  # ctime
    assert fields[21:23] == (-5, 8)  # mtime
    assert fields[24:26] == (8, 1)  # rdev


def test_a_header_says_the_length_of_the_message() -> None:
    assert replies.header(8, -2, 0) == struct.pack("<IiQ", 16, -2, 8)
    assert replies.header(8, 0, 5) == struct.pack("<IiQ", 21, 0, 8)


# Directory records


def test_dirents_are_padded_to_eight_bytes() -> None:
    writer = dirents.DirentWriter(4096)
    assert writer.add(5, 1, 0o040755, b"abc")
    assert writer.add(6, 2, 0o100644, b"12345678")
    assert writer.body() == (
        struct.pack("<QQII", 5, 1, 3, 4) + b"abc" + bytes(5)
        + struct.pack("<QQII", 6, 2, 8, 8) + b"12345678"
    )  # fmt: skip


def test_direntplus_has_an_entry_before_each() -> None:
    writer = dirents.DirentPlusWriter(4096)
    entry = replies.entry(7, 0, replies.validity(1, 1), ATTR)
    assert writer.add(1, 1, 0o040755, b".")
    assert writer.add(5, 2, 0o120777, b"a", 7, replies.validity(1, 1), ATTR)
    assert writer.body() == (
        bytes(128) + struct.pack("<QQII", 1, 1, 1, 4) + b"." + bytes(7)
        + entry + struct.pack("<QQII", 5, 2, 1, 10) + b"a" + bytes(7)
    )  # fmt: skip


@settings(max_examples=100)
@given(st.lists(st.binary(min_size=1, max_size=255), max_size=40), st.integers(0, 6000))
def test_records_fill_the_size_and_none_is_cut(names: list[bytes], size: int) -> None:
    plain = dirents.DirentWriter(size)
    plus = dirents.DirentPlusWriter(size)
    plain_used = plus_used = 0
    for number, name in enumerate(names):
        need = 24 + len(name) + -len(name) % 8
        fits = plain_used + need <= size
        assert plain.add(number, number + 1, 0o100644, name) == fits
        plain_used += need if fits else 0
        fits = plus_used + need + 128 <= size
        assert plus.add(number, number + 1, 0o100644, name) == fits
        plus_used += need + 128 if fits else 0
    assert len(plain.body()) == plain_used <= size
    assert len(plus.body()) == plus_used <= size


# Notifications


def test_notifications() -> None:
    assert notify.invalidate_inode(7, -1) == struct.pack("<IiQQqq", 40, 2, 0, 7, -1, 0)
    assert notify.invalidate_inode(7, 5, 6) == struct.pack("<IiQQqq", 40, 2, 0, 7, 5, 6)
    assert notify.invalidate_entry(1, b"ab") == (
        struct.pack("<IiQQII", 35, 3, 0, 1, 2, 0) + b"ab\0"
    )
    assert notify.invalidate_entry(1, b"ab", expire_only=True) == (
        struct.pack("<IiQQII", 35, 3, 0, 1, 2, 1) + b"ab\0"
    )
    assert notify.increment_epoch() == struct.pack("<IiQ", 16, 8, 0)
    assert notify.prune([3, 4]) == struct.pack("<IiQIIQQQ", 48, 9, 0, 2, 0, 0, 3, 4)


def test_a_long_listing_fills_what_the_kernel_asked_for():
    size = 1 << 20
    plain, plus = dirents.DirentWriter(size), dirents.DirentPlusWriter(size)
    for writer, record in ((plain, 32), (plus, 160)):
        count = 0
        while writer.add(count + 1, count + 1, 0o100644, b"%08d" % count):
            count += 1
        body = writer.body()
        assert count == size // record
        assert [bytes(body[n * record + record - 8 : (n + 1) * record]) for n in range(count)] == [
            b"%08d" % n for n in range(count)
        ]


@pytest.mark.parametrize(
    ("layout", "size"),
    [
        (abi.IN_HEADER, 40), (abi.OUT_HEADER, 16), (abi.ENTRY_OUT, 128), (abi.ATTR_OUT, 104),
        (abi.OPEN_OUT, 16), (abi.WRITE_OUT, 8), (abi.STATFS_OUT, 80), (abi.LSEEK_OUT, 8),
        (abi.INIT_OUT, 64), (abi.STATX_OUT, 288), (abi.FORGET_IN, 8), (abi.BATCH_FORGET_IN, 8),
        (abi.FORGET_ONE, 16), (abi.GETATTR_IN, 16), (abi.SETATTR_IN, 88), (abi.MKNOD_IN, 16),
        (abi.MKDIR_IN, 8), (abi.RENAME_IN, 8), (abi.RENAME2_IN, 16), (abi.LINK_IN, 8),
        (abi.OPEN_IN, 8), (abi.CREATE_IN, 16), (abi.READ_IN, 40), (abi.WRITE_IN, 40),
        (abi.RELEASE_IN, 24), (abi.FSYNC_IN, 16), (abi.FLUSH_IN, 24), (abi.INIT_IN, 16),
        (abi.INIT_IN_EXT, 64), (abi.ACCESS_IN, 8), (abi.INTERRUPT_IN, 8), (abi.FALLOCATE_IN, 32),
        (abi.LSEEK_IN, 24), (abi.COPY_FILE_RANGE_IN, 56), (abi.STATX_IN, 24), (abi.DIRENT, 24),
        (abi.DIRENTPLUS, 152),
        (abi.NOTIFY_INVAL_INODE_OUT, 24), (abi.NOTIFY_INVAL_ENTRY_OUT, 16),
        (abi.NOTIFY_PRUNE_OUT, 16),
    ],
)  # fmt: skip
def test_layouts_have_the_size_of_the_kernels_structs(layout: struct.Struct, size: int) -> None:
    assert layout.size == size
