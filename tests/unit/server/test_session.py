"""A session on a loop: order, back-pressure, slow and dead clients, a hanging disk."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from netfs.server import handlers, session
from netfs.server.session import Session
from netfs.server.workers import Workers
from netfs.sftp import requests
from netfs.sftp.attrs import Attrs
from netfs.sftp.connection import ClientConnection, Version
from netfs.sftp.requests import Request
from netfs.sftp.responses import AttrsResponse, Data, Handle, Response
from netfs.wire import Buffer
from tests.unit.server.tree import CREATE, INSIDE, Tree, make_tree


class Waiter(NamedTuple):
    """What the client's codec keeps per request."""

    index: int

    def done(self) -> bool:
        return False


class FakeChannel:
    """Takes what the session writes; a client's codec on top."""

    def __init__(self) -> None:
        self.connection: ClientConnection[Waiter] = ClientConnection()
        self.answers: list[tuple[int, Response]] = []
        self.written = 0
        self.reading = True
        self.closed = ""
        self.session: Session | None = None

    def write(self, buffers: Sequence[Buffer]) -> None:
        assert not self.closed
        data = b"".join(buffers)
        self.written += len(data)
        events: list[Any] = []
        self.connection.receive_data(data, events)
        for event in events:
            if not isinstance(event, Version):
                self.answers.append((event.waiter.index, event.response))

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def exit(self, status: int) -> None:
        self.closed = f"exit {status}"
        assert self.session is not None
        self.session.connection_lost()

    def abort(self) -> None:
        self.closed = "abort"
        assert self.session is not None
        self.session.connection_lost()

    def packets(self, *wanted: Request) -> bytes:
        return b"".join(
            bytes(buffer)
            for index, request in enumerate(wanted)
            for buffer in self.connection.send(request, Waiter(index))[1]
        )


class Rig:
    """A session over a tree."""

    def __init__(self, tree: Tree, **options: Any) -> None:
        self.tree = tree
        self.channel = FakeChannel()
        self.workers = Workers(4)
        self.session = Session(tree.client, self.channel, self.workers, **options)
        self.channel.session = self.session
        self.session.data_received(self.channel.connection.hello())

    def send(self, *wanted: Request) -> None:
        self.session.data_received(self.channel.packets(*wanted))

    async def answered(self, count: int) -> list[Response]:
        await until(lambda: len(self.channel.answers) >= count)
        return [response for _, response in self.channel.answers]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    made = Rig(make_tree(tmp_path))
    yield made
    made.session.connection_lost()
    await made.session.ended.wait()
    assert len(made.tree.client.handles) == 0


class Gate:
    """Holds requests for one path in their worker thread."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tree: Tree, path: bytes) -> None:
        self.arrived = threading.Event()
        self.open = threading.Event()
        real = type(tree.client.export).stat

        def stat(export: Any, wanted: bytes) -> Any:
            if wanted == path:
                self.arrived.set()
                self.open.wait(10)
            return real(export, wanted)

        monkeypatch.setattr(type(tree.client.export), "stat", stat)


async def test_pipelined_requests_are_carried_out_in_order(rig: Rig) -> None:
    rig.send(requests.Open(b"/new", CREATE, Attrs()))
    (opened,) = await rig.answered(1)
    assert isinstance(opened, Handle)
    rig.send(
        requests.Write(opened.handle, 0, (b"first",)),
        requests.Write(opened.handle, 0, (b"later",)),
        requests.Read(opened.handle, 0, 10),
        requests.Setstat(b"/new", Attrs(size=2)),
        requests.Read(opened.handle, 0, 10),
        requests.Close(opened.handle),
    )
    answers = await rig.answered(7)
    assert answers[3] == Data(b"later")
    assert answers[5] == Data(b"la")
    assert [index for index, _ in rig.channel.answers[1:]] == [0, 1, 2, 3, 4, 5]


async def test_many_requests_are_all_answered(rig: Rig) -> None:
    rig.send(*[requests.Lstat(b"/file")] * 3000)
    answers = await rig.answered(3000)
    assert all(isinstance(answer, AttrsResponse) for answer in answers)
    assert rig.channel.reading


async def test_a_hanging_disk_stops_no_other_session(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch, rig.tree, b"/file")
    rig.send(requests.Stat(b"/file"))
    await until(gate.arrived.is_set)
    other = Rig(make_tree(tmp_path / "other"))
    other.workers = rig.workers
    other.send(requests.Lstat(b"/file"))
    await other.answered(1)
    assert rig.channel.answers == []
    gate.open.set()
    await rig.answered(1)
    other.session.connection_lost()
    await other.session.ended.wait()


async def test_what_waits_is_bounded_by_reading_no_further(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch, rig.tree, b"/file")
    rig.send(requests.Stat(b"/file"))
    await until(gate.arrived.is_set)
    rig.send(*[requests.Lstat(b"/file")] * (session.MAX_WAITING_REQUESTS + 1))
    assert not rig.channel.reading
    gate.open.set()
    await rig.answered(session.MAX_WAITING_REQUESTS + 2)
    await until(lambda: rig.channel.reading)


async def test_payload_that_waits_is_bounded_too(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch, rig.tree, b"/file")
    rig.send(requests.Stat(b"/file"))
    await until(gate.arrived.is_set)
    writes = session.MAX_WAITING_BYTES // 200_000 + 1
    rig.send(*[requests.Write(b"none", 0, (bytes(200_000),))] * writes)
    assert not rig.channel.reading
    gate.open.set()
    await rig.answered(writes + 1)
    await until(lambda: rig.channel.reading)


async def test_no_more_is_read_from_disk_than_the_client_takes(rig: Rig) -> None:
    (rig.tree.root / "big").write_bytes(bytes(256 * 1024))
    rig.send(requests.Open(b"/big", 1, Attrs()))
    (opened,) = await rig.answered(1)
    assert isinstance(opened, Handle)
    rig.session.pause_writing()
    rig.send(*[requests.Read(opened.handle, 0, 256 * 1024)] * 200)
    before = -1
    while before != rig.channel.written:  # until it stands still
        before = rig.channel.written
        await asyncio.sleep(0.1)
    assert rig.channel.written < session.MAX_UNSENT_BYTES + session.BATCH_BYTES + (1 << 20)
    rig.session.resume_writing()
    await rig.answered(201)


async def test_both_layers_must_have_room_again(rig: Rig) -> None:
    rig.session.pause_writing("channel")
    rig.session.pause_writing("connection")
    rig.session.resume_writing("channel")
    assert rig.session._stall is not None
    rig.session.resume_writing("connection")
    assert rig.session._stall is None


async def test_a_client_that_takes_nothing_is_disconnected(tmp_path: Path) -> None:
    rig = Rig(make_tree(tmp_path), stall_s=0.05)
    rig.send(requests.Open(b"/file", 1, Attrs()))
    await rig.answered(1)
    rig.session.pause_writing()
    await asyncio.wait_for(rig.session.ended.wait(), 10)
    assert rig.channel.closed == "abort"
    assert len(rig.tree.client.handles) == 0


async def test_the_end_answers_what_had_come_and_closes_handles(rig: Rig) -> None:
    rig.send(requests.Open(b"/file", 1, Attrs()), *[requests.Lstat(b"/file")] * 1500)
    rig.session.eof_received()
    rig.send(requests.Lstat(b"/file"))  # too late
    await asyncio.wait_for(rig.session.ended.wait(), 10)
    assert len(rig.channel.answers) == 1501
    assert rig.channel.closed == "exit 0"
    assert len(rig.tree.client.handles) == 0


async def test_a_lost_client_leaves_nothing_even_while_the_disk_hangs(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch, rig.tree, b"/file")
    rig.send(requests.Open(b"/file", 1, Attrs()))
    await rig.answered(1)
    rig.send(requests.Stat(b"/file"), *[requests.Open(b"/file", 1, Attrs())] * 10)
    await until(gate.arrived.is_set)
    rig.session.connection_lost()
    assert not rig.session.ended.is_set()  # the thread still has the handles
    gate.open.set()
    await asyncio.wait_for(rig.session.ended.wait(), 10)
    assert len(rig.tree.client.handles) == 0
    assert len(rig.channel.answers) == 1


@pytest.mark.parametrize(
    "data", [b"\0\0\0\5\1\0\0\0\3", b"\xff" * 8, b"\0\0\0\0", b"\0\x10\0\0", b"\0\0\0\1\3"]
)
async def test_a_broken_protocol_ends_the_session(rig: Rig, data: bytes) -> None:
    rig.send(requests.Lstat(b"/file"))
    rig.session.data_received(data)
    if data[4:5] != b"\1":  # a second INIT is a request that v3 does not have
        await asyncio.wait_for(rig.session.ended.wait(), 10)
        assert rig.channel.closed == "exit 1"
    assert len(await rig.answered(1)) >= 1


async def test_statistics_are_in_the_repr(rig: Rig) -> None:
    assert "open" in repr(rig.session)
    assert INSIDE
    assert "Workers" in repr(rig.workers)
    assert handlers.ROWS


async def test_workers_are_no_more_than_their_limit() -> None:
    workers = Workers(2)
    gate = threading.Event()
    done: list[int] = []
    for number in range(5):
        workers.submit(lambda number=number: (gate.wait(10), done.append(number))[0])  # type: ignore[misc]
    assert "threads=2 busy=5" in repr(workers)
    gate.set()
    await until(lambda: len(done) == 5)
    await until(lambda: "busy=0" in repr(workers))


async def test_a_failing_job_does_not_end_its_thread(caplog: pytest.LogCaptureFixture) -> None:
    workers = Workers(1)
    done = threading.Event()

    def fail() -> None:
        raise RuntimeError("bug")

    workers.submit(fail)
    workers.submit(done.set)
    await until(done.is_set)
    assert "bug" in caplog.text
