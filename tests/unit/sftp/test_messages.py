"""Every message both ways, cut at each length, with garbage behind, and at random."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netfs.sftp import extensions as ext
from netfs.sftp import requests as req
from netfs.sftp import responses as rsp
from netfs.sftp.attrs import Attrs, decode_attrs, encode_attrs
from netfs.sftp.codes import PacketType
from netfs.sftp.errors import LocalProtocolError, RemoteProtocolError
from netfs.wire import Reader, Truncated
from tests.unit.sftp.vectors import (
    ID,
    LIMITS,
    NETFS,
    REQUESTS,
    RESPONSES,
    STATVFS,
    USUAL,
    packet,
)


def decode_request(data: bytes) -> req.Request | None:
    reader = Reader(data)
    return req.decode_request(reader.u8(), (reader.u32(), reader)[1])


def decode_response(data: bytes) -> rsp.Response:
    reader = Reader(data)
    return rsp.decode_response(reader.u8(), (reader.u32(), reader)[1])


@pytest.mark.parametrize(("request_", "text"), REQUESTS, ids=lambda v: type(v).__name__)
def test_a_request_is_its_bytes_both_ways(request_: req.Request, text: str) -> None:
    data = packet(text)
    assert b"".join(req.encode_request(ID, request_, extended_attrs=True)) == data
    assert decode_request(data[4:]) == request_


@pytest.mark.parametrize(("response", "text"), RESPONSES, ids=lambda v: type(v).__name__)
def test_a_response_is_its_bytes_both_ways(response: rsp.Response, text: str) -> None:
    data = packet(text)
    assert b"".join(rsp.encode_response(ID, response, extended_attrs=True)) == data
    assert decode_response(data[4:]) == response


def test_the_vectors_cover_every_message() -> None:
    assert {type(value) for value, _ in REQUESTS} == set(req.REQUESTS)
    packets = {row.packet_type for row in req.REQUESTS.values()}
    packets |= {PacketType(packet(text)[4]) for _, text in RESPONSES}
    assert packets == set(PacketType) - {PacketType.INIT, PacketType.VERSION}


@pytest.mark.parametrize(("request_", "text"), REQUESTS, ids=lambda v: type(v).__name__)
def test_a_request_cut_anywhere_is_refused(request_: req.Request, text: str) -> None:
    data = packet(text)[4:]
    free_tail = isinstance(request_, ext.Extended)
    for length in range(5, len(data)):
        if free_tail and length >= len(data) - 2:
            continue
        with pytest.raises((Truncated, RemoteProtocolError)):
            decode_request(data[:length])


@pytest.mark.parametrize(("response", "text"), RESPONSES, ids=lambda v: type(v).__name__)
def test_a_response_cut_anywhere_is_refused(response: rsp.Response, text: str) -> None:
    if isinstance(response, rsp.ExtendedReply):
        return  # its body is the extension's
    data = packet(text)[4:]
    for length in range(5, len(data)):
        if isinstance(response, rsp.StatusResponse) and length in (9, 9 + 4 + 12):
            continue  # old servers send no message or no language
        with pytest.raises((Truncated, RemoteProtocolError)):
            decode_response(data[:length])


@pytest.mark.parametrize(("request_", "text"), REQUESTS, ids=lambda v: type(v).__name__)
def test_garbage_after_a_request_is_refused(request_: req.Request, text: str) -> None:
    if not isinstance(request_, ext.Extended):
        with pytest.raises((Truncated, RemoteProtocolError)):
            decode_request(packet(text)[4:] + b"!")


@pytest.mark.parametrize(("response", "text"), RESPONSES, ids=lambda v: type(v).__name__)
def test_garbage_after_a_response_is_refused(response: rsp.Response, text: str) -> None:
    if not isinstance(response, rsp.ExtendedReply):
        with pytest.raises((Truncated, RemoteProtocolError)):
            decode_response(packet(text)[4:] + b"!")


def test_a_status_of_an_old_server_has_no_message() -> None:
    assert decode_response(packet("65 01020304 00000004")[4:]) == rsp.StatusResponse(4)


def test_an_unknown_request_type_is_none() -> None:
    assert req.decode_request(99, Reader(b"")) is None


def test_the_payload_of_a_write_is_not_copied() -> None:
    payload = bytes(100_000)
    _, *rest = req.encode_request(1, req.Write(b"h", 0, (payload, payload)))
    assert rest == [payload, payload]
    assert rest[0] is payload


def test_the_payload_of_a_read_is_a_view_unless_it_would_pin_much_more() -> None:
    packet_ = rsp.encode_response(1, rsp.Data(b"x" * 1000))
    whole = b"".join(packet_)
    reader = Reader(memoryview(whole)[9:])
    big = rsp.decode_response(103, reader)
    assert isinstance(big, rsp.Data)
    assert isinstance(big.data, memoryview)
    reader = Reader(memoryview(whole + bytes(5000))[9 : len(whole)])
    small = rsp.decode_response(103, reader)
    assert isinstance(small, rsp.Data)
    assert isinstance(small.data, bytes)


def test_netfs_attributes_are_only_sent_to_who_asked_for_them() -> None:
    assert encode_attrs(NETFS) == encode_attrs(USUAL)
    assert encode_attrs(NETFS, True) != encode_attrs(USUAL, True)


def test_unknown_extended_attributes_are_skipped() -> None:
    data = packet("80000004 000001ed 00000002 00000001 'a' 00000000 00000001 'b' 00000001 ff")[4:]
    assert decode_attrs(Reader(data)) == Attrs(mode=0o755)


@pytest.mark.parametrize(
    "text",
    [
        "00000010",  # undefined flag
        "80000000 ffffffff",  # lying count
        "80000000 00000001 0000000b 'attrs@netfs' 00000002 0000",
        "80000000 00000001 0000000b 'attrs@netfs' 00000008 0000003f 00000000",
    ],
)
def test_malformed_attributes_are_refused(text: str) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_attrs(Reader(packet(text)[4:]))


@pytest.mark.parametrize(
    "attrs", [Attrs(uid=1), Attrs(mtime=1), Attrs(atime=-1, mtime=0), Attrs(size=-1)]
)
def test_attributes_that_v3_cannot_say_are_refused(attrs: Attrs) -> None:
    with pytest.raises(LocalProtocolError):
        req.encode_request(1, req.Setstat(b"/", attrs))


def test_a_lying_count_of_names_is_refused_before_anything_is_allocated() -> None:
    with pytest.raises(RemoteProtocolError, match="names announced"):
        decode_response(packet("68 01020304 ffffffff")[4:])


def test_a_handle_of_more_than_256_bytes_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="handle"):
        decode_response(b"\x66\0\0\0\1" + (257).to_bytes(4, "big") + bytes(257))


def test_bodies_of_extended_replies_are_whole_or_refused() -> None:
    assert ext.decode_statvfs(ext.encode_statvfs(STATVFS)) == STATVFS
    assert ext.decode_limits(ext.encode_limits(LIMITS)) == LIMITS
    for decode, data in (
        (ext.decode_statvfs, ext.encode_statvfs(STATVFS)),
        (ext.decode_limits, ext.encode_limits(LIMITS)),
    ):
        for wrong in (data[:-1], data + b"\0", b""):
            with pytest.raises(RemoteProtocolError):
                decode(wrong)


def test_users_and_groups_come_in_the_order_asked() -> None:
    value = ext.UsersGroups((b"root", b""), (b"wheel",))
    data = ext.encode_users_groups(value)
    assert ext.decode_users_groups(data, 2, 1) == value
    for users, groups in ((1, 1), (3, 1), (2, 0), (2, 2)):
        with pytest.raises(RemoteProtocolError):
            ext.decode_users_groups(data, users, groups)


@pytest.mark.parametrize(
    ("longname", "nlink"),
    [
        (b"-rw-r--r--    2 user group 5 Jan 1 00:00 f", 2),
        (b"drwxr-xr-x   12 0 0 4096 Jan 1 00:00 d", 12),
        (b"-rw-r--r--    ? user group 5 Jan 1 00:00 f", None),
        (b"-rw-r--r--    0 user group 5 Jan 1 00:00 f", None),
        (b"01-02-2020 11:00AM 55 file.txt", None),
        (b"-rw-r--r--    99999999999999999999 user", None),
        (b"", None),
    ],
)
def test_the_link_count_of_a_longname(longname: bytes, nlink: int | None) -> None:
    assert rsp.longname_nlink(longname) == nlink


U32 = st.integers(0, 2**32 - 1)
U64 = st.integers(0, 2**64 - 1)
S64 = st.integers(-(2**63), 2**63 - 1)


@st.composite
def attributes(draw: st.DrawFn) -> Attrs:
    uid, gid = draw(st.one_of(st.just((None, None)), st.tuples(U32, U32)))
    atime, mtime = draw(st.one_of(st.just((None, None)), st.tuples(U32, U32)))
    more = [draw(st.none() | kind) for kind in (U64, U64, U64, S64, S64, S64)]
    return Attrs(draw(st.none() | U64), uid, gid, draw(st.none() | U32), atime, mtime, *more)


@given(attributes(), st.binary(max_size=20), st.binary(max_size=20))
@settings(max_examples=100, deadline=None)
def test_any_attributes_survive_the_wire(attrs: Attrs, name: bytes, longname: bytes) -> None:
    request = req.Setstat(name, attrs)
    data = b"".join(req.encode_request(1, request, extended_attrs=True))
    assert decode_request(data[4:]) == request
    names = rsp.Name((rsp.NameEntry(name, longname, attrs),) * 3)
    assert decode_response(rsp.encode_response(1, names, extended_attrs=True)[0][4:]) == names


@given(st.integers(0, 255), st.binary(max_size=80))
@settings(max_examples=100, deadline=None)
def test_random_bytes_decode_or_are_refused(packet_type: int, data: bytes) -> None:
    for decode in (req.decode_request, rsp.decode_response):
        with contextlib.suppress(Truncated, RemoteProtocolError):
            decode(packet_type, Reader(data))
