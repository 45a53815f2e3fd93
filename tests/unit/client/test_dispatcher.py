"""The dispatcher against the in-process kernel."""

from __future__ import annotations

import asyncio
import errno
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from netfs.client.dispatcher import Dispatcher, End, shake_hands
from netfs.client.inflight import InFlightTable
from netfs.client.interrupts import Signals
from netfs.client.operations.refused import REFUSED
from netfs.fuse import abi, requests
from netfs.fuse.abi import Opcode
from netfs.fuse.errors import FuseProtocolError, UnsupportedVersion
from netfs.fuse.replies import EMPTY, Reply
from tests.fakes.kernel import Answer, Kernel, serving

LOOKUP = b"name\0"

QUIET = Signals(pending=0, blocked=0, ignored=0, caught=0, dead=False)
KILLED = QUIET._replace(pending=1 << 8)
SIGURG_CAUGHT = QUIET._replace(pending=1 << 22, caught=1 << 22)


class Gate:
    """A handler whose operation tells when it has arrived and ends when it is let go."""

    def __init__(self, reply: Reply = EMPTY) -> None:
        self.reply = reply
        self.arrived = asyncio.Event()
        self.release = asyncio.Event()
        self.running = 0
        self.cancelled = 0

    def __call__(self, context: Any, request: Any) -> Coroutine[Any, Any, Reply]:
        return self._wait()

    async def _wait(self) -> Reply:
        self.running += 1
        self.arrived.set()
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1
        return self.reply


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.002)


async def test_an_answer_that_needs_no_waiting_makes_no_task() -> None:
    tasks: list[int] = []

    def lookup(context: Any, request: requests.Lookup) -> Reply:
        tasks.append(len(asyncio.all_tasks()))
        return Reply((request.name, context))

    async with serving(b"!", {Opcode.LOOKUP: lookup}) as kernel:
        before = len(asyncio.all_tasks())
        unique = kernel.send(Opcode.LOOKUP, body=LOOKUP)
        answer = await kernel.answer(unique)
        assert answer == Answer(0, b"name!")
        assert tasks[0] <= before + 1  # answer() itself


async def test_an_operation_that_waits_is_shown_until_it_ends() -> None:
    gate = Gate(Reply((b"late",)))
    kernel = Kernel()
    served = Dispatcher(
        kernel.device, None, {Opcode.READ: gate}, REFUSED, minor=45, clock=lambda: 7.0
    )
    run = asyncio.ensure_future(served.run())
    await asyncio.sleep(0)
    unique = kernel.send(Opcode.READ, 5, abi.READ_IN.pack(1, 2, 3, 0, 0, 0, 0))
    await gate.arrived.wait()
    (one,) = served.in_flight()
    assert (one.unique, one.opcode, one.nodeid, one.pid) == (unique, "READ", 5, kernel.pid)
    assert (one.since, one.interrupted) == (7.0, False)
    gate.release.set()
    assert await kernel.answer(unique) == Answer(0, b"late")
    assert served.in_flight() == []
    assert served.counters.statistics().waited == 1
    kernel.unmount()
    assert await run is End.UNMOUNTED
    await served.close(1)
    kernel.device.close()


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (OSError(errno.ENOENT, "x"), errno.ENOENT),
        (FileExistsError(errno.EEXIST, "x"), errno.EEXIST),
        (OSError(512, "ERESTARTSYS"), errno.EIO),
        (OSError(-2, "negative"), errno.EIO),
        (OSError(0, "zero"), errno.EIO),
        (OSError("no number"), errno.EIO),
        (ZeroDivisionError(), errno.EIO),
    ],
)
@pytest.mark.parametrize("waits", [False, True])
async def test_exceptions_become_an_errno_that_the_kernel_takes(
    error: Exception, number: int, waits: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def lookup(context: Any, request: requests.Lookup) -> Any:
        async def later() -> Reply:
            await asyncio.sleep(0)
            raise error

        if waits:
            return later()
        raise error

    async with serving(None, {Opcode.LOOKUP: lookup}) as kernel:
        assert await kernel.answer(kernel.send(Opcode.LOOKUP, body=LOOKUP)) == Answer(number, b"")
    is_bug = not isinstance(error, OSError) or error.errno is None
    assert any(record.exc_info for record in caplog.records) == is_bug


async def test_a_handler_without_a_reply_is_answered_with_eio() -> None:
    async with serving(None, {Opcode.LOOKUP: lambda context, request: None}) as kernel:
        assert (await kernel.answer(kernel.send(Opcode.LOOKUP, body=LOOKUP))).error == errno.EIO


async def test_forgets_are_handled_and_never_answered() -> None:
    seen: list[tuple[tuple[int, int], ...]] = []

    def forget(context: Any, request: requests.Forget) -> None:
        seen.append(request.entries)
        if request.entries[0][0] == 3:
            raise KeyError(3)

    handlers: dict[Opcode, Any] = {Opcode.FORGET: forget, Opcode.BATCH_FORGET: forget}
    async with serving(None, handlers) as kernel:
        kernel.forget(5, 2)
        kernel.batch_forget([(6, 1), (7, 9)])
        kernel.forget(3)
        await until(lambda: len(seen) == 3)
        assert await kernel.answer(kernel.send(Opcode.DESTROY, 0)) == Answer(0, b"")
    assert seen == [((5, 2),), ((6, 1), (7, 9)), ((3, 1),)]
    assert kernel.answered_twice == []


@pytest.mark.parametrize("opcode", [*REFUSED, 60, 4096])
async def test_refused_and_unknown_opcodes_are_answered(opcode: int) -> None:
    async with serving(None, {}) as kernel:
        assert (await kernel.answer(kernel.send(opcode))).error == errno.ENOSYS


async def test_a_malformed_request_is_answered_with_eio_and_the_next_one_served() -> None:
    handlers: dict[Opcode, Any] = {Opcode.LOOKUP: lambda context, request: EMPTY}
    async with serving(None, handlers) as kernel:
        for body in (b"", b"no nul", b"\0", b"a\0b\0"):
            answer = await kernel.answer(kernel.send(Opcode.LOOKUP, body=body))
            assert answer.error == errno.EIO
        kernel._socket.send(b"short")
        assert await kernel.call(Opcode.LOOKUP, body=LOOKUP) == b""


async def test_each_request_is_shown_in_the_debug_log_without_its_contents(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "netfs.fuse")
    handlers: dict[Opcode, Any] = {
        Opcode.WRITE: lambda context, request: Reply((abi.WRITE_OUT.pack(6, 0),)),
        Opcode.LOOKUP: lambda context, request: _raise(OSError(errno.ENOENT, "")),
    }
    async with serving(None, handlers, debug=True) as kernel:
        assert await kernel.write(9, 1, 0, b"secret") == 6
        with pytest.raises(FileNotFoundError):
            await kernel.lookup(1, b"name")
    text = caplog.text
    assert "WRITE node=9" in text
    assert "size=6" in text
    assert "LOOKUP node=1" in text
    assert "ENOENT" in text
    assert "secret" not in text


async def test_a_reply_nobody_waits_for_is_undone() -> None:
    undone: list[int] = []
    gate = Gate(Reply((b"entry",), lambda: undone.append(1)))
    async with serving(None, {Opcode.LOOKUP: gate}) as kernel:
        unique = kernel.send(Opcode.LOOKUP, body=LOOKUP)
        await gate.arrived.wait()
        kernel.give_up(unique)
        gate.release.set()
        await until(lambda: undone == [1])


async def test_large_and_small_write_payloads_stay_as_they_were() -> None:
    kept: list[Any] = []

    def write(context: Any, request: requests.Write) -> Reply:
        kept.append(request.data)
        return Reply((abi.WRITE_OUT.pack(len(request.data), 0),))

    payloads = [bytes([n]) * size for n, size in enumerate((1, 4096, 131072, 1 << 20, 7, 1 << 20))]
    async with serving(None, {Opcode.WRITE: write}) as kernel:
        for payload in payloads:
            assert await kernel.write(2, 1, 0, payload) == len(payload)
    assert [bytes(data) for data in kept] == payloads


# Interruption


async def test_a_killed_caller_gets_eintr_at_once_and_the_operation_is_cancelled() -> None:
    gate = Gate()
    async with serving(None, {Opcode.LOOKUP: gate}, signals=KILLED) as kernel:
        unique = kernel.send(Opcode.LOOKUP, body=LOOKUP)
        await gate.arrived.wait()
        began = time.monotonic()
        kernel.interrupt(unique)
        assert (await kernel.answer(unique)).error == errno.EINTR
        assert time.monotonic() - began < 1
        await until(lambda: gate.cancelled == 1)


async def test_a_change_may_still_end_by_itself_for_a_moment() -> None:
    gate = Gate()
    async with serving(None, {Opcode.UNLINK: gate}, signals=KILLED) as kernel:
        unique = kernel.send(Opcode.UNLINK, body=LOOKUP)
        await gate.arrived.wait()
        kernel.interrupt(unique)
        await asyncio.sleep(0.05)
        gate.release.set()
        assert (await kernel.answer(unique)).error == 0
        unique = kernel.send(Opcode.UNLINK, body=LOOKUP)
        gate.release.clear()
        began = time.monotonic()
        kernel.interrupt(unique)
        assert (await kernel.answer(unique)).error == errno.EINTR
        assert 0.15 < time.monotonic() - began < 1


async def test_a_harmless_signal_goes_unnoticed_and_a_later_fatal_one_does_not() -> None:
    gate = Gate()
    pending = SIGURG_CAUGHT
    async with serving(None, {Opcode.READ: gate}, read_signals=lambda pid: pending) as kernel:
        unique = kernel.send(Opcode.READ, 2, abi.READ_IN.pack(0, 0, 1, 0, 0, 0, 0))
        await gate.arrived.wait()
        kernel.interrupt(unique)
        await asyncio.sleep(0.3)
        assert not kernel.waiting[unique].done()
        pending = KILLED  # the kernel sends no second INTERRUPT
        began = time.monotonic()
        assert (await kernel.answer(unique)).error == errno.EINTR
        assert time.monotonic() - began < 1


async def test_an_interrupt_is_ignored_for_a_request_that_was_answered_before() -> None:
    handlers: dict[Opcode, Any] = {Opcode.LOOKUP: lambda context, request: EMPTY}
    async with serving(None, handlers) as kernel:
        unique = kernel.send(Opcode.LOOKUP, body=LOOKUP)
        await kernel.answer(unique)
        kernel.interrupt(unique)
        await kernel.call(Opcode.LOOKUP, body=LOOKUP)
        assert kernel.answered_twice == []


async def test_an_interrupt_before_its_request_waits_for_it() -> None:
    gate = Gate()
    async with serving(None, {Opcode.LOOKUP: gate}) as kernel:
        kernel.interrupt(2)
        kernel.send(Opcode.LOOKUP, body=LOOKUP, unique=2)
        assert (await kernel.answer(2)).error == errno.EINTR


async def test_an_interrupt_whose_request_never_comes_is_answered_once_with_eagain() -> None:
    async with serving(None, {}) as kernel:
        began = time.monotonic()
        unique = 1001
        kernel.waiting[unique] = asyncio.get_running_loop().create_future()
        kernel.interrupt(1000)
        answer = await kernel.answer(unique)
        assert answer.error == errno.EAGAIN
        assert time.monotonic() - began > 0.8  # no storm


async def test_an_interrupt_of_a_resent_request_finds_it() -> None:
    gate = Gate()
    unique = abi.RESENT | 8
    async with serving(None, {Opcode.LOOKUP: gate}) as kernel:
        kernel.send(Opcode.LOOKUP, body=LOOKUP, unique=unique)
        await gate.arrived.wait()
        kernel.interrupt(unique)
        assert (await kernel.answer(unique)).error == errno.EINTR


async def test_an_operation_that_does_not_heed_its_cancelling_is_answered_anyway() -> None:
    undone: list[int] = []
    release = asyncio.Event()
    arrived = asyncio.Event()

    async def stubborn() -> Reply:
        arrived.set()
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        return Reply((), lambda: undone.append(1))

    handlers: dict[Opcode, Any] = {Opcode.LOOKUP: lambda context, request: stubborn()}
    async with serving(None, handlers) as kernel:
        unique = kernel.send(Opcode.LOOKUP, body=LOOKUP)
        await arrived.wait()
        began = time.monotonic()
        kernel.interrupt(unique)
        assert (await kernel.answer(unique)).error == errno.EINTR
        assert time.monotonic() - began < 1
        release.set()
        await until(lambda: undone == [1])
    assert kernel.answered_twice == []


async def test_an_interrupt_finds_an_operation_that_was_not_yet_started() -> None:
    gate = Gate()
    async with serving(None, {Opcode.LOOKUP: gate}) as kernel:
        # Both are read in the same turn, so the task has not had its first step.
        unique = kernel.send(Opcode.LOOKUP, body=LOOKUP)
        kernel.interrupt(unique)
        assert (await kernel.answer(unique)).error == errno.EINTR
        assert gate.running == 0


@pytest.mark.parametrize(
    ("is_exiting", "is_link_up", "error"),
    [(True, False, errno.EINTR), (True, True, 0), (False, False, 0)],
)
async def test_the_last_close_of_a_caller_does_not_wait_for_a_link_that_is_down(
    is_exiting: bool, is_link_up: bool, error: int
) -> None:
    gate = Gate()
    async with serving(
        None,
        {Opcode.FLUSH: gate},
        is_exiting=lambda pid: is_exiting,
        is_link_up=lambda: is_link_up,
        read_signals=lambda pid: QUIET,
    ) as kernel:
        unique = kernel.send(Opcode.FLUSH, 2, abi.FLUSH_IN.pack(1, 0, 0, 0))
        await gate.arrived.wait()
        if not error:
            await asyncio.sleep(0.6)
            gate.release.set()
        assert (await kernel.answer(unique)).error == error


async def test_the_last_close_of_an_interrupted_caller_is_interrupted_too() -> None:
    gate = Gate()
    handlers: dict[Opcode, Any] = {Opcode.FLUSH: gate, Opcode.READ: gate}
    exiting = False
    async with serving(None, handlers, is_exiting=lambda pid: exiting) as kernel:
        unique = kernel.send(Opcode.READ, 2, abi.READ_IN.pack(0, 0, 1, 0, 0, 0, 0))
        await gate.arrived.wait()
        kernel.interrupt(unique)
        assert (await kernel.answer(unique)).error == errno.EINTR
        exiting = True
        unique = kernel.send(Opcode.FLUSH, 2, abi.FLUSH_IN.pack(1, 0, 0, 0))
        assert (await kernel.answer(unique)).error == errno.EINTR


# Limits and the end


async def test_directories_with_unanswered_requests_are_known() -> None:
    gate = Gate()
    table = InFlightTable()
    handlers: dict[Opcode, Any] = {Opcode.LOOKUP: gate, Opcode.RENAME: gate}
    async with serving(None, handlers, in_flight=table) as kernel:
        uniques = [kernel.send(Opcode.LOOKUP, 5, LOOKUP) for _ in range(2)]
        uniques.append(kernel.send(Opcode.RENAME, 5, abi.RENAME_IN.pack(6) + b"a\0b\0"))
        await until(lambda: gate.running == 3)
        assert table.busy() == {5, 6}
        kernel.interrupt(uniques[2])
        await kernel.answer(uniques[2])
        assert table.busy() == {5}
        gate.release.set()
        for unique in uniques[:2]:
            await kernel.answer(unique)
        assert table.busy() == set()


async def test_more_requests_than_tasks_wait_in_order_and_can_be_interrupted() -> None:
    gate = Gate()
    async with serving(None, {Opcode.LOOKUP: gate}, max_tasks=2) as kernel:
        uniques = [kernel.send(Opcode.LOOKUP, body=LOOKUP) for _ in range(5)]
        await until(lambda: gate.running == 2)
        kernel.interrupt(uniques[3])
        assert (await kernel.answer(uniques[3])).error == errno.EINTR
        assert gate.running == 2
        gate.release.set()
        for unique in uniques[:3] + uniques[4:]:
            assert (await kernel.answer(unique)).error == 0


async def test_every_request_is_answered_when_the_dispatcher_closes() -> None:
    gate = Gate()
    kernel = Kernel()
    served = Dispatcher(
        kernel.device,
        None,
        {Opcode.LOOKUP: gate},
        REFUSED,
        minor=45,
        clock=time.monotonic,
        max_tasks=2,
    )
    run = asyncio.ensure_future(served.run())
    await asyncio.sleep(0)
    uniques = [kernel.send(Opcode.LOOKUP, body=LOOKUP) for _ in range(3)]
    await until(lambda: gate.running == 2)
    run.cancel()
    await served.close(0.05)
    assert [(await kernel.answer(unique)).error for unique in uniques] == [errno.EIO] * 3
    kernel.unmount()
    kernel.device.close()


async def test_under_allow_root_only_root_and_the_owner_are_answered() -> None:
    handlers: dict[Opcode, Any] = {Opcode.LOOKUP: lambda context, request: EMPTY}
    async with serving(None, handlers, allowed_uids=frozenset({0, 1000})) as kernel:
        for uid, error in ((0, 0), (1000, 0), (1001, errno.EACCES)):
            kernel.uid = uid
            answer = await kernel.answer(kernel.send(Opcode.LOOKUP, body=LOOKUP))
            assert answer.error == error


# INIT


async def test_init_is_answered_before_anything_else() -> None:
    kernel = Kernel()
    hands = asyncio.ensure_future(shake_hands(kernel.device, time_gran_ns=10**9))
    body = await kernel.init(minor=99)
    capabilities = await hands
    assert capabilities.minor == 45
    assert abi.INIT_OUT.unpack(body)[:2] == (7, 45)
    kernel.unmount()
    kernel.device.close()


async def test_a_kernel_that_is_too_old_is_refused() -> None:
    kernel = Kernel()
    hands = asyncio.ensure_future(shake_hands(kernel.device))
    with pytest.raises(OSError, match="rotocol"):
        await kernel.init(minor=27)
    with pytest.raises(UnsupportedVersion, match=r"7\.27"):
        await hands
    kernel.unmount()
    kernel.device.close()


async def test_anything_but_init_first_is_an_error() -> None:
    kernel = Kernel()
    kernel.send(Opcode.LOOKUP, body=LOOKUP)
    with pytest.raises(FuseProtocolError):
        await shake_hands(kernel.device)
    kernel.unmount()
    kernel.device.close()


def _raise(error: Exception) -> Reply:
    raise error
