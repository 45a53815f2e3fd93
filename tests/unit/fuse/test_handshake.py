"""INIT as a pure function."""

from __future__ import annotations

import pytest

from netfs.fuse import abi, handshake
from netfs.fuse.abi import InitFlag
from netfs.fuse.errors import UnsupportedVersion
from netfs.fuse.requests import Init

OFFERED_6_18 = 0x5FD_73FF_FFFB
OFFERED_5_10 = 0x03FFFFFB
EVERYTHING = (1 << 64) - 1


def init(minor: int, flags: int, major: int = 7) -> Init:
    return Init(2, 0, 0, 0, 0, major, minor, 131072, flags)


def test_each_capability_is_in_exactly_one_table() -> None:
    tables = [*handshake.ASKED, *handshake.OFFER_ONLY, *handshake.REFUSED]
    assert sorted(tables) == sorted(InitFlag)
    reasons = [
        *handshake.ASKED.values(),
        *handshake.OFFER_ONLY.values(),
        *handshake.REFUSED.values(),
    ]
    assert all(len(reason) > 10 for reason in reasons)


@pytest.mark.parametrize("minor", range(31, 46))
def test_every_supported_minor_is_agreed_on(minor: int) -> None:
    capabilities, body = handshake.negotiate(init(minor, OFFERED_6_18))
    major, agreed, *_ = abi.INIT_OUT.unpack(body)
    assert (major, agreed) == (7, minor) == (7, capabilities.minor)
    assert capabilities.can_increment_epoch == (minor >= 44)
    assert capabilities.can_prune == (minor >= 45)


def test_a_newer_kernel_is_answered_with_the_newest_known_minor() -> None:
    capabilities, body = handshake.negotiate(init(60, EVERYTHING))
    assert abi.INIT_OUT.unpack(body)[:2] == (7, 45)
    assert capabilities.minor == 45


@pytest.mark.parametrize(("major", "minor"), [(7, 30), (7, 0), (6, 45), (8, 0)])
def test_other_protocols_are_refused(major: int, minor: int) -> None:
    with pytest.raises(UnsupportedVersion, match=f"{major}.{minor}"):
        handshake.negotiate(init(minor, 0, major))


@pytest.mark.parametrize("offered", [0, OFFERED_5_10, OFFERED_6_18, EVERYTHING])
def test_nothing_is_answered_that_was_not_offered_or_not_asked_for(offered: int) -> None:
    capabilities, body = handshake.negotiate(init(45, offered))
    fields = abi.INIT_OUT.unpack(body)
    flags = fields[3] | fields[10] << 32
    assert flags == capabilities.flags
    assert not flags & ~offered
    for flag in (*handshake.REFUSED, *handshake.OFFER_ONLY):
        assert not capabilities.has(flag)
    for flag in handshake.ASKED:
        assert capabilities.has(flag) == bool(offered & flag)


def test_requests_of_one_mebibyte_are_agreed_on_where_pages_can_be_counted() -> None:
    capabilities, body = handshake.negotiate(init(45, OFFERED_6_18))
    fields = abi.INIT_OUT.unpack(body)
    assert fields[6] == capabilities.max_write == 1 << 20
    assert fields[8] == capabilities.max_pages == 256
    without, body = handshake.negotiate(init(45, OFFERED_6_18 & ~InitFlag.MAX_PAGES))
    assert without.max_write == 131072
    assert abi.INIT_OUT.unpack(body)[8] == 0


def test_what_the_caller_wants_differently() -> None:
    capabilities, body = handshake.negotiate(
        init(45, OFFERED_6_18), cache_symlinks=False, time_gran_ns=10**9
    )
    assert not capabilities.has(InitFlag.CACHE_SYMLINKS)
    assert abi.INIT_OUT.unpack(body)[7] == 10**9


def test_what_is_only_offered_is_remembered() -> None:
    assert handshake.negotiate(init(45, OFFERED_6_18))[0].can_expire
    assert not handshake.negotiate(init(32, OFFERED_5_10))[0].can_expire


def test_the_kernels_own_numbers_are_kept() -> None:
    fields = abi.INIT_OUT.unpack(handshake.negotiate(init(45, OFFERED_6_18))[1])
    assert fields[2] == 131072  # it could only be lowered
    assert fields[4:6] == (128, 96)
    assert fields[11:] == (0, 0, *(0,) * 11)
