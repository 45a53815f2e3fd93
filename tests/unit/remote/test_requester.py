"""The queue of one conversation: order, fairness, cancelling; on a server of the test's own."""

import asyncio
import gc
import weakref
from collections.abc import Sequence

import pytest

from netfs.client.remote.pending import Asker, Disconnected, Expired, StatusError
from netfs.client.remote.requester import Requester
from netfs.client.remote.window import new_links
from netfs.sftp import requests as req
from netfs.sftp import responses as rsp
from netfs.sftp.attrs import Attrs
from netfs.sftp.connection import Asked, ServerConnection
from netfs.sftp.errors import LocalProtocolError
from netfs.sftp.foretold import PROOFS
from netfs.wire import Buffer


class Peer:
    """A channel and the server behind it, which answers when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0
        self.links = new_links()
        self.requester = Requester(self.links, lambda: self.now)
        self.server = ServerConnection(1 << 21)
        self.asked: list[Asked] = []
        self.writes = 0
        self.is_aborted = False

    def write(self, buffers: Sequence[Buffer]) -> None:
        self.writes += 1
        for event in self.server.receive_data(b"".join(buffers)):
            if isinstance(event, Asked):
                self.asked.append(event)
            else:
                self.requester.data_received(self.server.send_version({}))

    def write_buffer_size(self) -> int:
        return 0

    def close(self) -> None:
        self.requester.connection_lost(None)

    def abort(self) -> None:
        self.is_aborted = True

    def answer(self, response: rsp.Response, index: int = 0) -> None:
        asked = self.asked.pop(index)
        self.requester.data_received(b"".join(self.server.send(asked.request_id, response)))

    def kinds(self) -> list[str]:
        return [type(asked.request).__name__ for asked in self.asked]


OK = rsp.StatusResponse(0)


async def peer() -> Peer:
    it = Peer()
    await it.requester.greet(it)
    it.writes = 0
    return it


async def turn() -> None:
    await asyncio.sleep(0)


async def closed(it: Peer) -> None:
    """Returns when a CLOSE has come, which nothing drives."""
    while "Close" not in it.kinds():
        await asyncio.sleep(0.001)


async def test_requests_of_one_turn_leave_in_one_write() -> None:
    it = await peer()
    futures = [it.requester.ask(req.Lstat(b"/%d" % n)) for n in range(10)]
    await turn()
    assert it.writes == 1
    assert len(it.asked) == 10
    it.requester.abort("end")
    await asyncio.gather(*futures, return_exceptions=True)


class Told(Asker):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.heard: list[rsp.Response | Exception] = []

    def told(self, response: rsp.Response) -> None:
        self.heard.append(response)

    def failed(self, error: Exception) -> None:
        self.heard.append(error)


async def test_an_asker_is_called_with_the_answer() -> None:
    it = await peer()
    first, last = Told(), Told()
    it.requester.tell(first, req.Lstat(b"/1"))
    future = it.requester.ask(req.Lstat(b"/2"))
    it.requester.tell(last, req.Lstat(b"/3"))
    await turn()
    assert it.writes == 1
    assert it.requester.oldest_sent_at() == 0.0
    it.answer(rsp.StatusResponse(2), 2)
    assert (first.heard, future.done(), last.heard) == ([], False, [rsp.StatusResponse(2)])
    it.answer(rsp.AttrsResponse(Attrs()))
    assert first.heard == [rsp.AttrsResponse(Attrs())]
    it.answer(rsp.StatusResponse(2))
    assert future.done()
    assert it.requester.statistics().answers == 3


async def test_an_asker_that_has_ended_asks_and_hears_nothing() -> None:
    it = await peer()
    before, after = Told(), Told()
    it.requester.tell(before, req.Lstat(b"/1"))
    it.requester.tell(after, req.Lstat(b"/2"))
    before.end()
    await turn()
    assert [asked.request for asked in it.asked] == [req.Lstat(b"/2")]
    after.end()
    it.answer(rsp.StatusResponse(2))
    it.requester.abort("end")
    await turn()
    assert before.heard == after.heard == []
    assert it.requester.statistics().abandoned == 1


async def test_an_asker_is_told_of_the_end_when_the_loop_turns() -> None:
    it = await peer()
    sent, queued, late = Told(), Told(), Told()
    it.requester.tell(sent, req.Lstat(b"/1"))
    await turn()
    it.requester.tell(queued, req.Lstat(b"/2"))
    it.requester.abort("end")
    it.requester.tell(late, req.Lstat(b"/3"))
    assert sent.heard == queued.heard == late.heard == []
    assert sent.done()
    await turn()
    errors = [told.heard[0] for told in (sent, queued, late)]
    assert [isinstance(error, Disconnected) and error.sent for error in errors] == [
        True,
        False,
        False,
    ]
    assert [len(told.heard) for told in (sent, queued, late)] == [1, 1, 1]


async def test_an_asker_that_waits_too_long_expires_once() -> None:
    it = await peer()
    told = Told()
    it.requester.tell(told, req.Lstat(b"/1"))
    await turn()
    it.requester.expire(10.0, "too long")
    it.requester.expire(10.0, "too long")
    it.answer(rsp.StatusResponse(2))
    await turn()
    (error,) = told.heard
    assert isinstance(error, Expired)


async def test_a_close_leaves_with_what_is_asked_next_else_by_itself() -> None:
    it = await peer()
    futures = [it.requester.ask(req.Close(b"h"))]
    await turn()
    assert it.asked == []
    futures.append(it.requester.ask(req.Lstat(b"/")))
    await turn()
    assert it.kinds() == ["Close", "Lstat"]
    assert it.writes == 1
    it.answer(OK)
    it.answer(rsp.StatusResponse(2))
    futures.append(it.requester.ask(req.Close(b"other")))
    await closed(it)
    assert it.writes == 2
    it.answer(OK)
    assert all(future.done() for future in futures)


async def test_a_close_that_waits_is_told_when_the_conversation_ends() -> None:
    it = await peer()
    future = it.requester.ask(req.Close(b"h"))
    it.requester.abort("end")
    with pytest.raises(Disconnected):
        await future
    assert it.asked == []


async def test_small_requests_pass_bulk_but_not_that_of_their_own_file() -> None:
    it = await peer()
    block = bytes(256 * 1024)
    futures = [it.requester.ask(req.Write(b"h", n, (block,))) for n in range(20)]
    await turn()
    sent = len(it.asked)
    assert 0 < sent < 20  # the window is full
    futures.append(it.requester.ask(req.Close(b"h")))
    futures.append(it.requester.ask(req.Close(b"other")))
    await closed(it)
    assert [a.request for a in it.asked[sent:]] == [req.Close(b"other")]
    it.answer(OK, -1)
    while it.asked:
        it.now += 0.01
        it.answer(OK)
        await turn()
    assert all(future.done() for future in futures)
    assert it.links.writes.in_flight == 0


async def test_a_request_cancelled_in_its_turn_never_leaves() -> None:
    it = await peer()
    future = it.requester.ask(req.Mkdir(b"/d", Attrs()))
    future.cancel()
    await turn()
    assert it.asked == []


async def proved() -> Peer:
    """A peer whose server has given handles as OpenSSH does: the next one is foretold, 0."""
    it = await peer()
    for _ in range(PROOFS):
        opening = it.requester.ask(req.Opendir(b"/"))
        await turn()
        it.answer(rsp.Handle(bytes(4)))
        closing = it.requester.ask(req.Close((await opening).handle))
        await closed(it)
        it.answer(OK)
        await closing
    it.writes = 0
    return it


def asked(it: Peer) -> list[req.Request]:
    return [each.request for each in it.asked]


READDIRS = [req.Readdir(b"")] * 2


async def test_what_is_wanted_of_a_handle_leaves_with_its_opening() -> None:
    it = await proved()
    opening = asyncio.ensure_future(it.requester.open(req.Opendir(b"/d"), READDIRS))
    await turn()
    await turn()
    assert asked(it) == [req.Opendir(b"/d"), req.Readdir(bytes(4)), req.Readdir(bytes(4))]
    assert it.writes == 1
    it.answer(rsp.Handle(bytes(4)))
    handle, followers = await opening
    assert handle == bytes(4)
    it.answer(rsp.StatusResponse(1))
    it.answer(rsp.StatusResponse(1))
    assert [await each for each in followers] == [rsp.StatusResponse(1)] * 2


async def test_of_a_server_that_has_proved_nothing_only_the_handle_is_asked() -> None:
    it = await peer()
    before = it.requester.statistics().requests
    opening = asyncio.ensure_future(it.requester.open(req.Opendir(b"/d"), READDIRS))
    await turn()
    await turn()
    assert it.kinds() == ["Opendir"]
    it.answer(rsp.Handle(b"h"))
    assert await opening == (b"h", [])
    assert it.requester.statistics().requests == before + 1


async def test_another_handle_than_foretold_is_used_without_what_was_asked_of_the_wrong_one() -> (
    None
):
    it = await proved()
    opening = asyncio.ensure_future(it.requester.open(req.Opendir(b"/d"), READDIRS))
    await turn()
    await turn()
    it.answer(rsp.Handle(b"\0\0\0\7"))
    assert await opening == (b"\0\0\0\7", [])
    it.answer(rsp.Name((rsp.NameEntry(b"somebody else's", b"", Attrs()),)))
    it.answer(rsp.StatusResponse(4))
    assert it.requester.statistics().abandoned == 2


async def test_a_refused_opening_takes_what_was_asked_with_it_along() -> None:
    it = await proved()
    opening = asyncio.ensure_future(it.requester.open(req.Opendir(b"/none"), READDIRS))
    await turn()
    await turn()
    it.answer(rsp.StatusResponse(2))
    with pytest.raises(StatusError):
        await opening
    it.answer(rsp.StatusResponse(4))
    it.answer(rsp.StatusResponse(4))
    assert it.requester.statistics().pending == 0


async def test_a_cancelled_opening_is_closed_and_what_was_asked_with_it_dropped() -> None:
    it = await proved()
    opening = asyncio.ensure_future(it.requester.open(req.Opendir(b"/d"), READDIRS))
    await turn()
    await turn()
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    it.answer(rsp.Handle(bytes(4)))
    it.answer(rsp.StatusResponse(1))
    it.answer(rsp.StatusResponse(1))
    await closed(it)
    assert asked(it) == [req.Close(bytes(4))]


async def test_cancelled_before_it_leaves_nothing_of_it_leaves() -> None:
    it = await proved()
    it.requester.pause_writing()
    opening = asyncio.ensure_future(it.requester.open(req.Opendir(b"/d"), READDIRS))
    await turn()
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    it.requester.resume_writing()
    await turn()
    assert it.asked == []


async def test_an_opening_and_what_was_asked_with_it_end_with_the_conversation() -> None:
    it = await proved()
    opening = asyncio.ensure_future(it.requester.open(req.Opendir(b"/d"), READDIRS))
    await turn()
    await turn()
    it.requester.abort("end")
    with pytest.raises(Disconnected):
        await opening


async def test_the_late_handle_of_a_cancelled_open_is_closed() -> None:
    it = await peer()
    task = asyncio.ensure_future(it.requester.call(req.Opendir(b"/")))
    await turn()
    await turn()
    task.cancel()
    await turn()
    it.answer(rsp.Handle(b"h"))
    await closed(it)
    assert [a.request for a in it.asked] == [req.Close(b"h")]
    it.answer(OK)
    assert it.requester.statistics().orphans == 1


async def test_a_handle_that_came_just_before_the_cancelling_is_closed() -> None:
    it = await peer()
    task = asyncio.ensure_future(it.requester.call(req.Opendir(b"/")))
    await turn()
    await turn()
    it.answer(rsp.Handle(b"h"))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await closed(it)
    assert [a.request for a in it.asked] == [req.Close(b"h")]
    it.answer(OK)


async def test_the_window_is_given_back_by_cancelled_and_lost_requests() -> None:
    it = await peer()
    futures = [it.requester.ask(req.Read(b"h", n, 1 << 17)) for n in range(4)]
    await turn()
    futures[0].cancel()
    it.now += 0.1
    it.answer(rsp.Data(bytes(10)))
    assert it.links.reads.in_flight == 3 << 17
    it.requester.abort("gone")
    assert it.links.reads.in_flight == 0
    for future in futures[1:]:
        with pytest.raises(Disconnected, match="gone"):
            await future


async def test_nothing_leaves_while_the_channel_is_full() -> None:
    it = await peer()
    it.requester.pause_writing()
    future = it.requester.ask(req.Lstat(b"/"))
    await turn()
    assert it.asked == []
    it.requester.resume_writing()
    assert it.kinds() == ["Lstat"]
    it.answer(rsp.StatusResponse(2))
    assert (await future) == rsp.StatusResponse(2)


async def test_the_end_tells_what_was_sent() -> None:
    it = await peer()
    sent = it.requester.ask(req.Lstat(b"/a"))
    await turn()
    unsent = it.requester.ask(req.Lstat(b"/b"))
    it.requester.connection_lost(OSError("reset"))
    for future, expected in ((sent, True), (unsent, False), (it.requester.ask(req.Lstat(b"/")), 0)):
        with pytest.raises(Disconnected, match="reset") as caught:
            await future
        assert caught.value.sent == expected


async def test_what_ended_keeps_nothing_of_those_who_waited() -> None:
    """Their errors have tracebacks with frames that hold what came after: a chain without end."""
    it = await peer()
    kept = []
    for path in (b"/a", b"/b"):
        future = it.requester.ask(req.Lstat(path))
        kept.append(weakref.ref(future))
        if path == b"/a":
            await turn()  # this one is sent
        del future
    it.requester.connection_lost(OSError("reset"))
    it.requester.data_received(b"\0\0\0\5")  # comes too late to mean anything
    gc.collect()
    assert [ref() for ref in kept] == [None, None]
    assert it.requester.statistics().pending == 0


async def test_what_waits_too_long_expires_and_its_handle_is_closed() -> None:
    it = await peer()
    old = it.requester.ask(req.Opendir(b"/"))
    await turn()
    it.now = 30.0
    young = it.requester.ask(req.Lstat(b"/"))
    await turn()
    assert it.requester.oldest_sent_at() == 0.0
    it.requester.expire(10.0, "too long")
    with pytest.raises(Expired):
        await old
    it.answer(rsp.Handle(b"h"))
    await closed(it)
    assert it.kinds() == ["Lstat", "Close"]
    it.answer(rsp.StatusResponse(4))
    assert (await young) == rsp.StatusResponse(4)
    it.answer(OK)


async def test_a_server_that_breaks_the_protocol_is_left() -> None:
    it = await peer()
    good = it.requester.ask(req.Lstat(b"/"))
    future = it.requester.ask(req.Lstat(b"/"))
    await turn()
    answers = (rsp.StatusResponse(2), rsp.Handle(b"h"))
    packets = [it.server.send(a.request_id, r)[0] for a, r in zip(it.asked, answers, strict=True)]
    it.requester.data_received(b"".join(packets))
    assert it.is_aborted
    assert (await good) == rsp.StatusResponse(2)
    with pytest.raises(Disconnected, match="broke the SFTP protocol"):
        await future


async def test_a_bad_status_is_an_error_and_an_unsayable_value_too() -> None:
    it = await peer()
    task = asyncio.ensure_future(it.requester.call(req.Rmdir(b"/")))
    await turn()
    await turn()
    it.answer(rsp.StatusResponse(4, b"Failure"))
    with pytest.raises(StatusError, match="Rmdir: status 4"):
        await task
    with pytest.raises(LocalProtocolError):
        await it.requester.call(req.Setstat(b"/", Attrs(size=-1)))


async def test_what_lands_is_an_answer_when_it_is_whole() -> None:
    it = await peer()
    landing = it.requester.landing
    future = it.requester.ask(req.Read(b"h", 0, 240_000))
    await turn()
    data = bytes(range(256)) * 930
    packet = b"".join(it.server.send(it.asked.pop().request_id, rsp.Data(data)))
    before = it.requester.statistics().bytes_received
    it.requester.data_received(packet[:1000])
    it.now = 5.0
    for start in range(1000, len(packet), 50_000):
        piece = packet[start : start + 50_000]
        assert landing.missing >= len(piece)
        assert not future.done()
        landing.block[landing.at : landing.at + len(piece)] = piece
        it.requester.landed(len(piece))
    response = future.result()
    assert isinstance(response, rsp.Data)
    assert bytes(response.data) == data
    assert it.requester.heard_at == 5.0
    assert it.requester.statistics().bytes_received == before + len(packet)
    assert not landing.missing


async def test_what_lands_and_is_too_much_ends_the_conversation() -> None:
    it = await peer()
    landing = it.requester.landing
    future = it.requester.ask(req.Read(b"h", 0, 240_000))
    await turn()
    packet = b"".join(it.server.send(it.asked.pop().request_id, rsp.Data(bytes(240_001))))
    it.requester.data_received(packet[:100])
    it.requester.landed(landing.missing)
    assert it.is_aborted
    with pytest.raises(Disconnected, match="240001 bytes"):
        await future
    it.requester.landed(0)  # what still comes is of no interest
