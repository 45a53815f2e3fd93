"""Requests that need no coroutine, in the hands of the dispatcher and the in-process kernel."""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from netfs.client.dispatcher import Dispatcher
from netfs.client.inflight import Question
from netfs.client.operations.refused import REFUSED
from netfs.client.remote.pending import Disconnected, fail
from netfs.fuse.abi import Opcode
from netfs.fuse.replies import Reply
from netfs.sftp.attrs import Attrs
from netfs.sftp.requests import Lstat
from netfs.sftp.responses import AttrsResponse, StatusResponse
from tests.fakes.kernel import Answer, Kernel, serving

LOOKUP = b"name\0"
FOUND = AttrsResponse(Attrs(size=7))
MISSING = StatusResponse(2, b"No such file")
LOST = Disconnected("cut", sent=True)


class Asking(Question):
    """One whose answers the test gives."""

    def __init__(self) -> None:
        self.request = Lstat(b"/name")
        self.times = 0
        self.again: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

    def ask(self) -> Coroutine[Any, Any, Reply] | None:
        self.times += 1
        return None

    def found(self, attrs: Attrs) -> Reply:
        return Reply((b"%d" % (attrs.size or 0),))

    def refused(self, error: OSError) -> Reply:
        if error.errno == errno.EACCES:
            return Reply((b"as before",))
        raise error

    async def ask_again(self, lost: Disconnected) -> Reply:
        assert lost is LOST
        return await self.again


class Asked:
    """Makes the questions of a test."""

    def __init__(self, make: Callable[[], Asking] = Asking) -> None:
        self.make = make
        self.made: list[Asking] = []

    def __call__(self, context: Any, request: Any) -> Question:
        self.made.append(self.make())
        return self.made[-1]

    async def asked(self, kernel: Kernel) -> tuple[int, Asking]:
        """A LOOKUP, and the question that it became."""
        count = len(self.made)
        unique = kernel.send(Opcode.LOOKUP, body=LOOKUP)
        async with asyncio.timeout(20):
            while len(self.made) == count:
                await asyncio.sleep(0)
        return unique, self.made[-1]


async def test_the_reply_is_made_of_the_answer() -> None:
    handler = Asked()
    async with serving(None, {Opcode.LOOKUP: handler}) as kernel:
        unique, question = await handler.asked(kernel)
        assert question.times == 1
        question.told(FOUND)
        assert await kernel.answer(unique) == Answer(0, b"7")


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (MISSING, Answer(errno.ENOENT, b"")),
        (StatusResponse(3, b"Permission denied"), Answer(0, b"as before")),
        (StatusResponse(4, b"Failure"), Answer(errno.EIO, b"")),
        (StatusResponse(5, b"Bad message"), Answer(errno.EINVAL, b"")),
        (StatusResponse(4, b"all gone (ESTALE)"), Answer(errno.ESTALE, b"")),
    ],
)
async def test_a_refusal_becomes_an_errno_without_another_question(
    status: StatusResponse, answer: Answer
) -> None:
    handler = Asked()
    async with serving(None, {Opcode.LOOKUP: handler}) as kernel:
        unique, question = await handler.asked(kernel)
        question.told(status)
        assert await kernel.answer(unique) == answer


async def test_a_mistake_in_it_is_logged_and_answered(caplog: pytest.LogCaptureFixture) -> None:
    class Wrong(Asking):
        def found(self, attrs: Attrs) -> Reply:
            raise ZeroDivisionError

    handler = Asked(Wrong)
    async with serving(None, {Opcode.LOOKUP: handler}) as kernel:
        unique, question = await handler.asked(kernel)
        question.told(FOUND)
        assert await kernel.answer(unique) == Answer(errno.EIO, b"")
    assert any(record.exc_info for record in caplog.records)


async def test_what_cannot_be_asked_is_answered_at_once() -> None:
    class Unsayable(Asking):
        def ask(self) -> Coroutine[Any, Any, Reply] | None:
            raise OSError(errno.EILSEQ, "x")

    handler = Asked(Unsayable)
    async with serving(None, {Opcode.LOOKUP: handler}) as kernel:
        unique, _ = await handler.asked(kernel)
        assert await kernel.answer(unique) == Answer(errno.EILSEQ, b"")


async def test_it_may_go_another_way() -> None:
    class Elsewhere(Asking):
        def ask(self) -> Coroutine[Any, Any, Reply] | None:
            return self.elsewhere()

        async def elsewhere(self) -> Reply:
            await asyncio.sleep(0)
            return Reply((b"elsewhere",))

    handler = Asked(Elsewhere)
    async with serving(None, {Opcode.LOOKUP: handler}) as kernel:
        unique, _ = await handler.asked(kernel)
        assert await kernel.answer(unique) == Answer(0, b"elsewhere")


async def test_a_killed_caller_gets_eintr_and_the_answer_is_not_wanted_any_more() -> None:
    handler = Asked()
    async with serving(None, {Opcode.LOOKUP: handler}) as kernel:
        unique, question = await handler.asked(kernel)
        assert not question.done()
        kernel.interrupt(unique)
        assert (await kernel.answer(unique)).error == errno.EINTR
        assert question.done()
    assert kernel.answered_twice == []


async def test_a_lost_question_goes_on_as_an_operation() -> None:
    handler = Asked()
    async with serving(None, {Opcode.LOOKUP: handler}) as kernel:
        unique, question = await handler.asked(kernel)
        fail(question, LOST)
        assert question.done()
        await asyncio.sleep(0)
        question.again.set_result(Reply((b"again",)))
        assert await kernel.answer(unique) == Answer(0, b"again")


async def test_as_an_operation_it_can_be_interrupted_too() -> None:
    handler = Asked()
    async with serving(None, {Opcode.LOOKUP: handler}) as kernel:
        unique, question = await handler.asked(kernel)
        fail(question, LOST)
        await asyncio.sleep(0)
        kernel.interrupt(unique)
        assert (await kernel.answer(unique)).error == errno.EINTR
        assert question.again.cancelled()


async def test_lost_and_interrupted_in_one_turn_it_is_answered_once() -> None:
    handler = Asked()
    async with serving(None, {Opcode.LOOKUP: handler}) as kernel:
        unique, question = await handler.asked(kernel)
        fail(question, LOST)
        question.cancelled = True  # as by an INTERRUPT that was read in the same turn
        question.cancel()
        assert (await kernel.answer(unique)).error == errno.EINTR
        await asyncio.sleep(0)
        assert not question.again.done()
    assert kernel.answered_twice == []


async def test_one_that_waits_for_its_turn_is_not_asked_before() -> None:
    handler = Asked()
    async with serving(None, {Opcode.LOOKUP: handler}, max_tasks=1) as kernel:
        first, one = await handler.asked(kernel)
        second, two = await handler.asked(kernel)
        third, three = await handler.asked(kernel)
        assert (one.times, two.times, three.times) == (1, 0, 0)
        kernel.interrupt(second)
        assert (await kernel.answer(second)).error == errno.EINTR
        assert two.done()
        one.told(FOUND)
        assert await kernel.answer(first) == Answer(0, b"7")
        assert (two.times, three.times) == (0, 1)
        three.told(FOUND)
        assert await kernel.answer(third) == Answer(0, b"7")


async def test_at_the_end_it_is_answered_with_eio() -> None:
    handler = Asked()
    kernel = Kernel()
    served = Dispatcher(
        kernel.device, None, {Opcode.LOOKUP: handler}, REFUSED, minor=45, clock=time.monotonic
    )
    run = asyncio.ensure_future(served.run())
    await asyncio.sleep(0)
    unique, question = await handler.asked(kernel)
    (one,) = served.in_flight()
    assert (one.unique, one.opcode, one.nodeid, one.pid) == (unique, "LOOKUP", 1, kernel.pid)
    run.cancel()
    await served.close(0.05)
    assert (await kernel.answer(unique)).error == errno.EIO
    assert question.done()
    kernel.unmount()
    kernel.device.close()
