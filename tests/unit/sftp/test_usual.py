"""The fast decoders of what usually comes agree with the complete ones."""

from __future__ import annotations

import pytest

from netfs.sftp.attrs import Attrs
from netfs.sftp.responses import (
    AttrsResponse,
    Data,
    Handle,
    Response,
    StatusResponse,
    decode_response,
    decode_usual,
    encode_response,
)
from netfs.wire import Reader

_HEAD = 9  # length, type, id

_USUAL: list[Response] = [
    AttrsResponse(Attrs(5, 1, 2, 0o100644, 3, 4)),
    AttrsResponse(Attrs(2**64 - 1, 2**32 - 1, 0, 0, 0, 2**32 - 1)),
    StatusResponse(0, b"Success"),
]
_UNUSUAL: list[Response] = [
    AttrsResponse(Attrs()),
    AttrsResponse(Attrs(mode=0o644)),
    AttrsResponse(Attrs(5, 1, 2, 0o100644, 3, 4, nlink=2, ino=7)),
    StatusResponse(0),
    StatusResponse(0, b"Success", b"en"),
    StatusResponse(2, b"Success"),
    StatusResponse(0, b"success"),
    Handle(b"\0\0\0\0"),
    Data(memoryview(b"\0" * 28)),
]


def packet(response: Response) -> tuple[int, memoryview]:
    whole = b"".join(encode_response(1, response, extended_attrs=True))
    return whole[4], memoryview(whole)[_HEAD:]


@pytest.mark.parametrize("response", _USUAL)
def test_what_is_usual_is_decoded_alike(response: Response) -> None:
    kind, body = packet(response)
    assert decode_usual(kind, body) == response == decode_response(kind, Reader(body))


@pytest.mark.parametrize("response", _UNUSUAL)
def test_what_is_not_is_left_to_the_complete_decoder(response: Response) -> None:
    kind, body = packet(response)
    assert decode_usual(kind, body) is None


@pytest.mark.parametrize("response", _USUAL)
def test_a_byte_more_or_less_is_not_usual(response: Response) -> None:
    kind, body = packet(response)
    assert decode_usual(kind, body[:-1]) is None
    assert decode_usual(kind, memoryview(bytes(body) + b"\0")) is None
