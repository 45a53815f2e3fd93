"""Framing, handshake, ids, abandoning, and peers that break the rules."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netfs.buffers import MARGIN
from netfs.sftp import extensions as ext
from netfs.sftp import requests as req
from netfs.sftp import responses as rsp
from netfs.sftp.codes import Status
from netfs.sftp.connection import (
    Answer,
    Asked,
    ClientConnection,
    Init,
    Malformed,
    Reaped,
    ServerConnection,
    Unknown,
)
from netfs.sftp.errors import RemoteProtocolError
from netfs.sftp.framing import FrameSplitter
from netfs.wire import Buffer
from tests.unit.sftp.vectors import packet


class Waiter:
    def __init__(self) -> None:
        self.abandoned = False

    def done(self) -> bool:
        return self.abandoned


def received(client: ClientConnection[Waiter], data: Buffer) -> list[object]:
    events: list[Any] = []
    client.receive_data(data, events)
    return events


def greeted() -> tuple[ClientConnection[Waiter], ServerConnection]:
    client: ClientConnection[Waiter] = ClientConnection()
    server = ServerConnection()
    assert server.receive_data(client.hello()) == [Init(3)]
    received(client, server.send_version({b"limits@openssh.com": b"1"}))
    return client, server


def test_a_conversation_from_init_to_answer() -> None:
    client, server = greeted()
    assert client.version is not None
    assert client.version.extensions == {b"limits@openssh.com": b"1"}
    first, buffers = client.send(req.Lstat(b"/a"), a := Waiter())
    second, more = client.send(req.Read(b"h", 0, 10), b := Waiter())
    asked = server.receive_data(b"".join((*buffers, *more)))
    assert asked == [Asked(first, req.Lstat(b"/a")), Asked(second, req.Read(b"h", 0, 10))]
    answers = b"".join(
        (*server.send(second, rsp.Data(b"xyz")), *server.send(first, rsp.StatusResponse(2)))
    )
    assert received(client, answers) == [
        Answer(b, req.Read(b"h", 0, 10), rsp.Data(b"xyz")),
        Answer(a, req.Lstat(b"/a"), rsp.StatusResponse(2)),
    ]
    assert client.pending == 0


def test_the_handle_of_an_abandoned_open_is_reported() -> None:
    client, server = greeted()
    for request in (req.Open(b"/f", 1, rsp.Attrs()), req.Opendir(b"/")):
        request_id, _ = client.send(request, waiter := Waiter())
        waiter.abandoned = True
        assert received(client, server.send(request_id, rsp.Handle(b"h"))[0]) == [
            Reaped(waiter, b"h")
        ]


def test_other_answers_to_abandoned_requests_are_only_reported_as_come() -> None:
    client, server = greeted()
    request_id, _ = client.send(req.Lstat(b"/"), waiter := Waiter())
    waiter.abandoned = True
    assert list(client.waiting()) == [(req.Lstat(b"/"), waiter)]
    assert received(client, server.send(request_id, rsp.StatusResponse(4))[0]) == [
        Reaped(waiter, None)
    ]
    assert client.pending == 0


def test_what_is_lost_is_not_pending_any_more() -> None:
    client, _ = greeted()
    waiters = [Waiter(), Waiter()]
    for waiter in waiters:
        client.send(req.Lstat(b"/"), waiter)
    assert client.lose() == [(req.Lstat(b"/"), waiter) for waiter in waiters]
    assert (client.pending, client.lose()) == (0, [])


def test_an_answer_to_nothing_ends_the_conversation() -> None:
    client, server = greeted()
    with pytest.raises(RemoteProtocolError, match="never sent"):
        received(client, server.send(5, rsp.StatusResponse(4))[0])


@pytest.mark.parametrize(
    "request_",
    [
        req.Lstat(b"/"),
        req.Read(b"h", 0, 2),
        req.Open(b"/f", 1, rsp.Attrs()),
        req.Readdir(b"h"),
        req.Realpath(b"/"),
        ext.StatvfsRequest(b"/"),
    ],
)
def test_ok_without_the_value_asked_for_is_a_failure(request_: req.Request) -> None:
    client, server = greeted()
    request_id, _ = client.send(request_, Waiter())
    (answer,) = received(client, b"".join(server.send(request_id, rsp.StatusResponse(0))))
    assert isinstance(answer, Answer)
    assert answer.response == rsp.StatusResponse(Status.FAILURE, b"OK without a value")
    assert client.pending == 0


@pytest.mark.parametrize(
    ("request_", "response"),
    [
        (req.Lstat(b"/"), rsp.Handle(b"h")),
        (req.Read(b"h", 0, 2), rsp.Data(b"abc")),
        (req.Mkdir(b"/d", rsp.Attrs()), rsp.AttrsResponse(rsp.Attrs())),
        (req.Realpath(b"/"), rsp.Name(())),
    ],
)
def test_an_answer_to_something_else_ends_the_conversation(
    request_: req.Request, response: rsp.Response
) -> None:
    client, server = greeted()
    request_id, _ = client.send(request_, Waiter())
    with pytest.raises(RemoteProtocolError):
        received(client, b"".join(server.send(request_id, response)))
    assert client.pending == 1  # so that who waits is told


def test_an_answer_comes_only_once() -> None:
    client, server = greeted()
    request_id, _ = client.send(req.Lstat(b"/"), Waiter())
    answer = server.send(request_id, rsp.StatusResponse(2))[0]
    with pytest.raises(RemoteProtocolError, match="never sent"):
        received(client, bytes(answer) * 2)


def test_text_instead_of_version_is_shown() -> None:
    with pytest.raises(RemoteProtocolError, match="Welcome to the machine"):
        received(ClientConnection[Waiter](), b"Welcome to the machine\n")


@pytest.mark.parametrize(
    "text", ["02 00000002", "02 00000003 00000001", "66 00000003", "02 0000", "02"]
)
def test_a_wrong_version_packet_is_refused(text: str) -> None:
    with pytest.raises(RemoteProtocolError):
        received(ClientConnection[Waiter](), packet(text))


def test_the_server_half_names_what_it_cannot_understand() -> None:
    _, server = greeted()
    assert server.receive_data(packet("63 00000007")) == [Unknown(7, 0x63)]
    (malformed,) = server.receive_data(packet("07 00000008 00000009 'x'"))
    assert isinstance(malformed, Malformed)
    assert malformed.request_id == 8
    with pytest.raises(RemoteProtocolError, match="without an id"):
        server.receive_data(packet("07 0000"))


def test_a_client_that_does_not_start_with_init_is_refused() -> None:
    for text in ("07 00000008 00000000", "01 00"):
        with pytest.raises(RemoteProtocolError):
            ServerConnection().receive_data(packet(text))


@pytest.mark.parametrize("length", [0, 1025, 2**32 - 1])
def test_a_lying_length_is_refused_before_anything_is_allocated(length: int) -> None:
    with pytest.raises(RemoteProtocolError, match="announced"):
        FrameSplitter(1024).feed(length.to_bytes(4, "big"))


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=8), st.integers(1, 50))
@settings(max_examples=100, deadline=None)
def test_packets_come_out_whole_however_they_arrive(packets: list[bytes], step: int) -> None:
    stream = b"".join(len(item).to_bytes(4, "big") + item for item in packets)
    splitter = FrameSplitter(64)
    got: list[bytes] = []
    for start in range(0, len(stream), step):
        got += map(bytes, splitter.feed(stream[start : start + step]))
    assert got == packets
    assert not splitter.is_inside_packet()


SIZES = st.sampled_from((1, 3000, 131_072, 229_375, 229_376, 240_000, 263_168, 263_169, 400_000))


@given(
    st.lists(SIZES, max_size=5),
    st.lists(st.tuples(st.booleans(), st.integers(1000, 150_000)), min_size=1, max_size=30),
)
@settings(max_examples=60, deadline=None)
def test_large_packets_land_whoever_puts_them_there(
    sizes: list[int], pieces: list[tuple[bool, int]]
) -> None:
    sent = [bytes([number + 1]) * size for number, size in enumerate(sizes)]
    stream = b"".join(len(item).to_bytes(4, "big") + item for item in sent)
    splitter = FrameSplitter(1 << 20)
    landing = splitter.landing
    got: list[memoryview] = []  # held: no block may be used twice
    at, turn = 0, 0
    while at < len(stream):
        is_placed, most = pieces[turn % len(pieces)]
        turn += 1
        if is_placed and landing.missing:
            count = min(most, landing.missing)
            landing.block[landing.at : landing.at + count] = stream[at : at + count]
            packet = splitter.landed(count)
            got += [] if packet is None else [packet]
        else:
            count = most
            got += splitter.feed(stream[at : at + count])
        at += count
        assert landing.at >= MARGIN or not landing.missing
        assert landing.at + landing.missing + MARGIN <= len(landing.block) or not landing.missing
    assert list(map(bytes, got)) == sent
    assert not splitter.is_inside_packet()


def test_a_block_is_used_again_when_its_packet_is_not_held_any_more() -> None:
    splitter = FrameSplitter(1 << 20)
    stream = (240_000).to_bytes(4, "big") + bytes(240_000)

    def packet() -> memoryview:
        assert not splitter.feed(stream[:1000])
        (whole,) = splitter.feed(stream[1000:])
        return whole

    block = id(packet().obj)
    held = packet()
    assert id(held.obj) == block
    other = id(packet().obj)
    assert other != block
    del held
    assert id(packet().obj) in (block, other)


def test_the_end_inside_what_lands_is_an_error() -> None:
    splitter = FrameSplitter(1 << 20)
    splitter.feed((240_000).to_bytes(4, "big"))
    assert splitter.is_inside_packet()
    splitter.landed(240_000)
    assert not splitter.is_inside_packet()


def test_a_packet_in_one_piece_is_not_copied() -> None:
    piece = b"\0\0\0\3abc"
    (view,) = FrameSplitter(10).feed(piece)
    assert view.obj is piece


def test_an_end_inside_a_packet_is_an_error() -> None:
    client, server = greeted()
    client.receive_eof()
    received(client, b"\0\0")
    server.receive_data(b"\0\0\0\x05\x07")
    for half in (client, server):
        with pytest.raises(RemoteProtocolError, match="inside a packet"):
            half.receive_eof()


def test_ids_of_pending_requests_are_not_used_again() -> None:
    client, _ = greeted()
    client._next_id = 2**32 - 1
    ids = [client.send(req.Lstat(b"/"), Waiter())[0] for _ in range(2)]
    assert ids == [2**32 - 1, 0]
    client._next_id = 2**32 - 1
    assert client.send(req.Lstat(b"/"), Waiter())[0] == 1
