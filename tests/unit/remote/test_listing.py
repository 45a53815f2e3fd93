"""How many READDIRs are asked, and when; on a server of the test's own."""

from __future__ import annotations

import asyncio
import errno

import pytest

from netfs.client.remote.listing import scan
from netfs.client.remote.pending import StatusError
from netfs.sftp import requests as req
from netfs.sftp import responses as rsp
from netfs.sftp.attrs import Attrs
from tests.unit.remote.test_requester import OK, Peer, closed, peer, proved, turn

EOF = rsp.StatusResponse(1)


def names(first: int, count: int) -> rsp.Name:
    return rsp.Name(
        tuple(rsp.NameEntry(b"%d" % n, b"", Attrs(size=n)) for n in range(first, first + count))
    )


async def started(it: Peer) -> asyncio.Task[list[bytes]]:
    """A listing whose first questions have left."""

    async def read() -> list[bytes]:
        batches = scan(it.requester, b"/d", lambda name: None)
        return [entry.name async for batch in batches for entry in batch]

    listing = asyncio.ensure_future(read())
    await turn()
    await turn()
    return listing


async def begin(it: Peer) -> asyncio.Task[list[bytes]]:
    """A listing whose directory is open by now."""
    listing = await started(it)
    assert it.kinds() == ["Opendir"]
    it.answer(rsp.Handle(b"h"))
    await turn()
    await turn()
    assert it.kinds() == ["Readdir", "Readdir"]
    return listing


async def answer(it: Peer, response: rsp.Response) -> None:
    it.answer(response)
    await turn()
    await turn()


async def test_a_few_names_are_taken_for_all_and_nothing_more_is_asked() -> None:
    it = await peer()
    listing = await begin(it)
    await answer(it, names(0, 30))
    assert it.kinds() == ["Readdir"]
    await answer(it, EOF)
    assert await listing == [b"%d" % n for n in range(30)]
    await closed(it)
    assert it.kinds() == ["Close"]


async def test_many_names_bring_more_questions_at_once() -> None:
    it = await peer()
    listing = await begin(it)
    await answer(it, names(0, 100))
    assert it.kinds() == ["Readdir"] * 3
    await answer(it, names(100, 100))
    assert it.kinds() == ["Readdir"] * 4
    for _ in range(4):
        await answer(it, EOF)
    assert await listing == [b"%d" % n for n in range(200)]


async def test_a_server_that_gives_few_at_a_time_is_asked_again() -> None:
    it = await peer()
    listing = await begin(it)
    given = 0
    while it.asked:
        await answer(it, names(given, 1) if given < 20 else EOF)
        given = min(20, given + 1)
    await closed(it)
    assert await listing == [b"%d" % n for n in range(20)]
    await answer(it, OK)


async def begin_foretold() -> tuple[Peer, asyncio.Task[list[bytes]]]:
    """A listing whose first questions have left with the OPENDIR, which is answered by now."""
    it = await proved()
    listing = await started(it)
    assert it.kinds() == ["Opendir", "Readdir", "Readdir"]
    await answer(it, rsp.Handle(bytes(4)))
    return it, listing


async def test_a_listing_whose_handle_is_foretold_takes_one_round_trip() -> None:
    it, listing = await begin_foretold()
    await answer(it, names(0, 30))
    await answer(it, EOF)
    assert await listing == [b"%d" % n for n in range(30)]
    await closed(it)
    assert [each.request for each in it.asked] == [req.Close(bytes(4))]


async def begin_again() -> tuple[Peer, asyncio.Task[list[bytes]]]:
    """The same, on a server that had not opened the directory when it was asked for names."""
    it, listing = await begin_foretold()
    await answer(it, rsp.StatusResponse(4))
    assert [each.request for each in it.asked] == [
        req.Readdir(bytes(4)),
        req.Close(bytes(4)),
        req.Opendir(b"/d"),
    ]
    await answer(it, names(0, 30))  # read for somebody who has given up
    await answer(it, OK)
    await answer(it, rsp.Handle(bytes(4)))
    assert it.kinds() == ["Readdir", "Readdir"]
    return it, listing


async def test_what_was_asked_too_early_is_asked_of_another_handle() -> None:
    it, listing = await begin_again()
    await answer(it, names(0, 30))
    await answer(it, EOF)
    assert await listing == [b"%d" % n for n in range(30)]


async def test_a_listing_is_begun_again_once_at_most() -> None:
    it, listing = await begin_again()
    await answer(it, rsp.StatusResponse(4))
    with pytest.raises(StatusError):
        await listing
    await answer(it, rsp.StatusResponse(4))
    await closed(it)


async def test_a_listing_that_cannot_be_begun_again_closes_its_handle_once() -> None:
    it, listing = await begin_foretold()
    await answer(it, rsp.StatusResponse(4))
    await answer(it, rsp.StatusResponse(4))
    await answer(it, OK)
    await answer(it, rsp.StatusResponse(2))  # the directory is gone
    with pytest.raises(StatusError):
        await listing
    it.requester.close()
    assert it.asked == []


@pytest.mark.parametrize("count", [0, 100], ids=["of nothing", "of names"])
async def test_a_listing_without_an_end_ends_with_an_error(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netfs.client.remote.listing._MAX_NAMES", 5000)
    it = await peer()
    listing = await begin(it)
    given = 0
    while not listing.done():
        assert given < 200
        await answer(it, names(given * count, count))
        given += 1
    with pytest.raises(OSError, match="too large") as caught:
        await listing
    assert caught.value.errno == errno.EOVERFLOW
