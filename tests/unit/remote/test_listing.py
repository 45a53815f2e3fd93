"""How many READDIRs are asked, and when; on a server of the test's own."""

from __future__ import annotations

import asyncio

from netfs.client.remote.listing import scan
from netfs.sftp import responses as rsp
from netfs.sftp.attrs import Attrs
from tests.unit.remote.test_requester import OK, Peer, closed, peer, turn

EOF = rsp.StatusResponse(1)


def names(first: int, count: int) -> rsp.Name:
    return rsp.Name(
        tuple(rsp.NameEntry(b"%d" % n, b"", Attrs(size=n)) for n in range(first, first + count))
    )


async def begin(it: Peer) -> asyncio.Task[list[bytes]]:
    """A listing whose directory is open by now."""

    async def read() -> list[bytes]:
        batches = scan(it.requester, b"/d", lambda name: None)
        return [entry.name async for batch in batches for entry in batch]

    listing = asyncio.ensure_future(read())
    await turn()
    await turn()
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
