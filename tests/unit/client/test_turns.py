"""Coroutines driven without tasks, and work put off to the end of a turn."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Coroutine
from typing import Any

import pytest

from netfs.client.turns import Awaited, Background, Begun, Operation, Turn

Outcome = tuple[Any, BaseException | None]


def begin(coroutine: Coroutine[Any, Any, Any]) -> tuple[Operation[Any], asyncio.Future[Outcome]]:
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[Outcome] = loop.create_future()
    operation = Operation(loop, coroutine, lambda _, value, error: ended.set_result((value, error)))
    operation.step()
    return operation, ended


async def test_what_need_not_wait_has_ended_when_it_has_begun() -> None:
    async def work() -> int:
        return 5

    operation, ended = begin(work())
    assert operation.done
    assert ended.result() == (5, None)


async def test_an_error_is_handed_over() -> None:
    async def work() -> None:
        await asyncio.sleep(0)
        raise OSError(5, "no")

    _, ended = begin(work())
    value, error = await ended
    assert value is None
    assert isinstance(error, OSError)


async def test_a_waker_goes_on_at_once_and_only_once() -> None:
    future: Awaited[int] = Awaited()
    steps: list[int] = []

    async def work() -> int:
        steps.append(await future)
        return 1

    operation, ended = begin(work())
    waker = future.take_waker()
    future.set_result(7)
    assert waker is not None
    waker(future)
    assert operation.done
    assert steps == [7]
    await asyncio.sleep(0)
    assert ended.result() == (1, None)


async def test_a_future_that_ends_otherwise_wakes_by_the_loop() -> None:
    future: Awaited[int] = Awaited()

    async def work() -> int:
        return await future

    _, ended = begin(work())
    future.set_exception(OSError(5, "lost"))
    _, error = await ended
    assert isinstance(error, OSError)


@pytest.mark.parametrize("kind", [Awaited, asyncio.Future])
async def test_a_cancelled_operation_cancels_what_it_waits_for(
    kind: type[asyncio.Future[int]],
) -> None:
    future = kind()

    async def work() -> int:
        return await future

    operation, ended = begin(work())
    assert operation.cancel()
    _, error = await ended
    assert isinstance(error, asyncio.CancelledError)
    assert future.cancelled()
    assert not operation.cancel()


async def test_a_cancel_between_the_answer_and_the_waking_still_counts() -> None:
    future: Awaited[int] = Awaited()

    async def work() -> int:
        return await future

    operation, ended = begin(work())
    waker = future.take_waker()
    future.set_result(7)
    operation.cancel()
    assert waker is not None
    waker(future)
    _, error = await ended
    assert isinstance(error, asyncio.CancelledError)


async def test_it_may_clean_up_when_cancelled() -> None:
    cleaned: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def work() -> str:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            await cleaned
        return "clean"

    operation, ended = begin(work())
    operation.cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not operation.done
    cleaned.set_result(None)
    assert (await ended)[0] == "clean"


async def test_time_outs_work_inside() -> None:
    async def work() -> str:
        try:
            async with asyncio.timeout(0.01):
                await asyncio.get_running_loop().create_future()
        except TimeoutError:
            return "late"
        return "never"

    _, ended = begin(work())
    assert (await ended)[0] == "late"


async def test_inside_it_is_the_current_task_and_outside_the_old_one_is() -> None:
    seen: list[object] = []

    async def work() -> None:
        seen.append(asyncio.current_task())

    outer = asyncio.current_task()
    operation, _ = begin(work())
    assert seen == [operation]
    assert asyncio.current_task() is outer


async def test_work_put_off_is_done_at_the_end_of_the_outermost_turn() -> None:
    turn = Turn(asyncio.get_running_loop())
    done: list[int] = []
    turn.depth += 1
    turn.depth += 1
    turn.at_end(lambda: done.append(1))
    turn.end()
    assert not done
    turn.end()
    assert done == [1]


async def test_without_a_turn_work_is_done_soon() -> None:
    turn = Turn(asyncio.get_running_loop())
    done: list[int] = []
    turn.at_end(lambda: done.append(1))
    assert not done
    await asyncio.sleep(0)
    assert done == [1]


async def test_work_that_fails_does_not_lose_the_rest() -> None:
    turn = Turn(asyncio.get_running_loop())
    done: list[int] = []

    def fail() -> None:
        raise ValueError("no")

    turn.depth += 1
    turn.at_end(lambda: done.append(1))
    turn.at_end(fail)
    with pytest.raises(ValueError, match="no"):
        turn.end()
    await asyncio.sleep(0)
    assert done == [1]


@pytest.mark.parametrize("fails", [False, True])
async def test_what_has_ended_is_freed_without_the_collector(fails: bool) -> None:
    class Holder:
        """Known to the operation by its ``on_end``, and knows it."""

        operation: Operation[None]

        def ended(self, _: object, value: None, error: BaseException | None) -> None:
            pass

    async def work() -> None:
        if fails:
            raise OSError(5, "no")

    gc.disable()
    try:
        holder = Holder()
        holder.operation = Operation(asyncio.get_running_loop(), work(), holder.ended)
        known = weakref.ref(holder)
        holder.operation.step()
        del holder
        assert known() is None
    finally:
        gc.enable()


async def test_each_is_the_current_task_while_it_runs_also_within_another() -> None:
    seen: list[object] = []
    future: Awaited[None] = Awaited()

    async def inner() -> None:
        seen.append(asyncio.current_task())
        await future
        seen.append(asyncio.current_task())

    async def outer() -> None:
        operation, _ = begin(inner())
        seen.append(operation)
        seen.append(asyncio.current_task())
        future.deliver(None)
        seen.append(asyncio.current_task())

    task = asyncio.current_task()
    operation, _ = begin(outer())
    first, within, after, again, last = seen
    assert first is within is again is not operation
    assert after is last is operation
    assert asyncio.current_task() is task


async def test_what_is_begun_has_run_up_to_its_first_wait_and_is_waited_for_later() -> None:
    answer: Awaited[int] = Awaited()
    steps: list[str] = []

    async def ask() -> int:
        steps.append("asked")
        return await answer

    async def work() -> int:
        begun = Begun(ask())
        steps.append("begun")
        return await begun.outcome()

    outer = asyncio.current_task()
    operation, ended = begin(work())
    assert steps == ["asked", "begun"]
    assert asyncio.current_task() is outer
    answer.deliver(3)  # wakes both, without the loop
    assert operation.done
    assert ended.result() == (3, None)


async def test_an_error_of_what_was_begun_is_raised_where_it_is_waited_for() -> None:
    async def fail() -> None:
        raise OSError(5, "no")

    async def work() -> None:
        begun = Begun(fail())
        await asyncio.sleep(0)
        await begun.outcome()

    _, ended = begin(work())
    _, error = await ended
    assert isinstance(error, OSError)


@pytest.mark.parametrize("waits_for_it", [False, True])
async def test_who_is_cancelled_cancels_what_was_begun_and_sees_its_end(
    waits_for_it: bool,
) -> None:
    steps: list[str] = []

    async def ask() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await asyncio.sleep(0)
            steps.append("cleaned up")

    async def work() -> None:
        begun = Begun(ask())
        try:
            if waits_for_it:
                await begun.outcome()
            else:
                await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            await begun.stop()
            steps.append("cancelled")
            raise

    operation, ended = begin(work())
    operation.cancel()
    _, error = await ended
    assert isinstance(error, asyncio.CancelledError)
    assert steps == ["cleaned up", "cancelled"]


async def test_time_outs_work_in_what_was_begun() -> None:
    async def ask() -> None:
        async with asyncio.timeout(0.01):
            await asyncio.get_running_loop().create_future()

    async def work() -> None:
        await Begun(ask()).outcome()

    _, ended = begin(work())
    _, error = await ended
    assert isinstance(error, TimeoutError)


async def test_work_in_the_background_begins_at_once_and_is_waited_for() -> None:
    future: Awaited[None] = Awaited()
    failures: list[BaseException] = []
    steps: list[str] = []

    async def work() -> None:
        steps.append("begun")
        await future
        steps.append("ended")
        raise OSError(5, "no")

    background = Background(failures.append)
    background.run(work())
    assert steps == ["begun"]
    assert not background.is_idle
    asyncio.get_running_loop().call_soon(future.deliver, None)
    await background.idle()
    assert steps == ["begun", "ended"]
    assert [str(failure) for failure in failures] == ["[Errno 5] no"]


async def test_work_in_the_background_is_cancelled_in_the_end() -> None:
    failures: list[BaseException] = []
    steps: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            steps.append("ended")

    background = Background(failures.append)
    background.run(work())
    background.run(work())
    await background.stop()
    assert steps == ["ended", "ended"]
    assert background.is_idle
    assert not failures
    await background.stop()  # there is nothing any more
