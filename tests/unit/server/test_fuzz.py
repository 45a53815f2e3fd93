"""Random bytes and random requests: no crash, no leaked handle, nothing outside."""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from netfs.server import handlers
from netfs.sftp import extensions
from netfs.sftp.attrs import Attrs
from netfs.sftp.codes import PacketType
from netfs.sftp.connection import SERVER_MAX_PACKET, Asked, ServerConnection
from netfs.sftp.errors import SftpError
from netfs.sftp.requests import encode_request
from netfs.sftp.responses import Handle
from tests.unit.server.tree import Tree, make_tree

INIT = b"\0\0\0\5\1\0\0\0\3"

components = st.sampled_from(
    [b"", b".", b"..", b"file", b"sub", b"deep", b"abs", b"reldir", b"up", b"top", b"secret",
     b"outside", b"new", b"self", b"loop1", b"\xff", b"a\0b", b"n" * 300]
)  # fmt: skip
paths = st.lists(components, max_size=6).map(b"/".join)
u32 = st.integers(0, 2**32 - 1)
u64 = st.one_of(st.integers(0, 70_000), st.integers(0, 2**64 - 1))
times = st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1))


@st.composite
def attrs(draw: st.DrawFn) -> Attrs:
    owner = draw(st.booleans())
    seconds = draw(st.booleans())
    return Attrs(
        size=draw(st.one_of(st.none(), st.integers(0, 70_000), st.just(2**64 - 1))),
        uid=draw(u32) if owner else None,
        gid=draw(u32) if owner else None,
        mode=draw(st.one_of(st.none(), u32)),
        atime=draw(u32) if seconds else None,
        mtime=draw(u32) if seconds else None,
        atime_ns=draw(times),
        mtime_ns=draw(times),
    )


handle_values = st.one_of(
    st.integers(0, 30).map(lambda n: struct.pack(">Q", n)), st.binary(max_size=9)
)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "path": paths, "oldpath": paths, "newpath": paths, "targetpath": paths, "linkpath": paths,
    "handle": handle_values, "source": handle_values, "dest": handle_values, "attrs": attrs(),
    "pflags": st.integers(0, 80), "offset": u64, "dest_offset": u64, "length": u32,
    "data": st.binary(max_size=300).map(lambda data: (data,)), "username": paths,
    "uids": st.lists(u32, max_size=3).map(tuple), "gids": st.lists(u32, max_size=3).map(tuple),
    "as_drafted": st.just(False), "version": u32,
    "name": st.binary(max_size=20).filter(lambda name: b"@" not in name),
}  # fmt: skip


def values_of(kind: Any) -> st.SearchStrategy[Any]:
    fields = {name: FIELDS[name] for name in kind._fields}
    if kind is extensions.Extended:
        fields["data"] = st.binary(max_size=50)
    return st.builds(kind, **fields)


any_request = st.sampled_from(sorted(handlers.ROWS, key=lambda kind: kind.__name__)).flatmap(
    values_of
)


@pytest.fixture(scope="module", params=["openat2", "walk"])
def tree(request: pytest.FixtureRequest) -> Iterator[Tree]:
    with tempfile.TemporaryDirectory() as base:
        yield make_tree(Path(base), request.param)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(wanted=st.lists(any_request, max_size=25))
def test_any_sequence_of_requests_is_answered(tree: Tree, wanted: list[Any]) -> None:
    before = tree.outside_state()
    tree.client = handlers.Client(tree.client.export, max_handles=8)
    descriptors = len(os.listdir("/proc/self/fd"))
    opened = 0
    for number, request in enumerate(wanted):
        row = handlers.ROWS[type(request)]
        response = handlers.carry_out(tree.client, request)
        assert b"internal error" not in getattr(response, "message", b""), request
        opened += isinstance(response, Handle)
        assert row
        buffers = tree.client.connection.send(number, response)
        assert sum(map(len, buffers)) <= SERVER_MAX_PACKET
    assert len(tree.client.handles) <= min(8, opened)
    assert tree.client.handles.close_all() == []
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert tree.outside_state() == before


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    data=st.one_of(
        st.binary(max_size=400),
        st.lists(
            st.tuples(st.sampled_from([*PacketType, 0, 99, 255]), st.binary(max_size=60)),
            max_size=8,
        ).map(lambda ps: b"".join(struct.pack(">IB", 1 + len(b), t) + b for t, b in ps)),
    ),
    cut=st.integers(0, 50),
)
def test_any_bytes_are_answered_or_end_the_conversation(tree: Tree, data: bytes, cut: int) -> None:
    client = handlers.Client(tree.client.export, max_handles=8)
    try:
        events = client.connection.receive_data(INIT)
        events += client.connection.receive_data(data[:cut])
        events += client.connection.receive_data(data[cut:])
    except SftpError:
        return
    for event in events:
        assert handlers.answer(client, event)
    client.handles.close_all()


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    request=any_request,
    flips=st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), max_size=4),
)
def test_damaged_requests_are_answered(
    tree: Tree, request: Any, flips: list[tuple[int, int]]
) -> None:
    packet = bytearray(b"".join(map(bytes, encode_request(1, request, extended_attrs=True))))
    for where, value in flips:
        packet[5 + where % (len(packet) - 5)] = value  # after length and type
    client = handlers.Client(tree.client.export, max_handles=8)
    connection: ServerConnection = client.connection
    connection.receive_data(INIT)
    for event in connection.receive_data(bytes(packet)):
        assert handlers.answer(client, event)
        if isinstance(event, Asked):
            assert type(event.request) in handlers.ROWS
    client.handles.close_all()
