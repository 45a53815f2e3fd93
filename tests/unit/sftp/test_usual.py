"""The fast decoders of what usually comes agree with the complete ones."""

from __future__ import annotations

import pytest

from netfs.sftp.attrs import Attrs
from netfs.sftp.responses import (
    AttrsResponse,
    Data,
    ExtendedReply,
    Handle,
    Name,
    NameEntry,
    Response,
    StatusResponse,
    decode_response,
    decode_usual,
    encode_response,
)
from netfs.wire import Reader
from tests.unit.sftp.vectors import NETFS, USUAL

_LENGTH = 4
_HEAD = 5  # type, id

_USUAL: list[Response] = [
    AttrsResponse(Attrs(5, 1, 2, 0o100644, 3, 4)),
    AttrsResponse(Attrs(2**64 - 1, 2**32 - 1, 0, 0, 0, 2**32 - 1)),
    AttrsResponse(NETFS),
    StatusResponse(0, b"Success"),
    StatusResponse(1, b"End of file"),
    StatusResponse(2, b"No such file"),
    Handle(b"\0\0\0\0"),
    Handle(bytes(256)),
    Data(b"x" * 100),
    Data(b""),
]
_UNUSUAL: list[Response] = [
    AttrsResponse(Attrs()),
    AttrsResponse(Attrs(mode=0o644)),
    AttrsResponse(Attrs(5, 1, 2, 0o100644, 3, 4, nlink=2, ino=7)),
    AttrsResponse(Attrs(5, 1, 2, 0o100644, nlink=2, ino=7, blocks=2, atime_ns=0, mtime_ns=0)),
    StatusResponse(0),
    StatusResponse(0, b"Success", b"en"),
    StatusResponse(2, b"Success"),
    StatusResponse(0, b"success"),
    StatusResponse(4, b"the disk is full, and much more is to be said of it"),
    Name(()),
    ExtendedReply(b"\0\0\0\4body"),
]


def packet(response: Response) -> memoryview:
    whole = b"".join(encode_response(1, response, extended_attrs=True))
    return memoryview(whole)[_LENGTH:]


def usual(data: memoryview) -> Response | None:
    return decode_usual(data[0], data)


@pytest.mark.parametrize("response", _USUAL)
def test_what_is_usual_is_decoded_alike(response: Response) -> None:
    data = packet(response)
    assert usual(data) == response == decode_response(data[0], Reader(data[_HEAD:]))
    assert type(usual(data)) is type(response)


@pytest.mark.parametrize("response", _UNUSUAL)
def test_what_is_not_is_left_to_the_complete_decoder(response: Response) -> None:
    assert usual(packet(response)) is None


@pytest.mark.parametrize("response", _USUAL)
def test_a_byte_more_or_less_is_not_usual(response: Response) -> None:
    data = packet(response)
    assert usual(memoryview(bytes(data) + b"\0")) is None
    for length in range(1, len(data)):
        assert usual(data[:length]) is None


def test_a_handle_that_is_too_long_is_left_to_who_refuses_it() -> None:
    assert usual(memoryview(b"\x66\0\0\0\1" + (257).to_bytes(4, "big") + bytes(257))) is None


@pytest.mark.parametrize("at", range(len(packet(AttrsResponse(NETFS))) - _HEAD))
def test_any_changed_byte_of_full_attributes_is_decoded_alike(at: int) -> None:
    data = bytearray(packet(AttrsResponse(NETFS)))
    data[_HEAD + at] ^= 1
    view = memoryview(bytes(data))
    if (found := usual(view)) is not None:
        assert found == decode_response(view[0], Reader(view[_HEAD:]))


@pytest.mark.parametrize(
    ("longname", "nlink"),
    [
        (b"-rw-r--r--    2 user group 5 Jan 1 00:00 f", 2),
        (b"drwxr-xr-x 12345 user group 5 Jan 1 00:00 f", 12345),  # wider than its column
        (b"drwxr-xr-x 123 user group 5 Jan 1 00:00 f", 123),
        (b"-rw-r--r--    ? user group 5 Jan 1 00:00 f", None),
        (b"-rw-r--r--    7", None),
        (b"some text", None),
    ],
)
def test_a_listing_takes_the_link_count_from_the_longname(
    longname: bytes, nlink: int | None
) -> None:
    attrs = [USUAL, Attrs(mode=0o755), NETFS, NETFS._replace(ino=None)]
    sent = Name(tuple(NameEntry(b"f", longname, each) for each in attrs))
    data = b"".join(encode_response(1, sent, extended_attrs=True))[_LENGTH + _HEAD :]
    for _ in range(2):  # the second time from what is remembered
        got = decode_response(104, Reader(data))
        assert isinstance(got, Name)
        assert [entry.attrs for entry in got.entries] == [
            *(each._replace(nlink=nlink) for each in attrs[:2]),
            *attrs[2:],  # they carry it themselves
        ]
