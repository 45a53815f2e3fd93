"""Coroutines driven without tasks, and work put off to the end of a callback.

A task costs two turns of the event loop per wait: one to begin, one to go on.  An ``Operation``
begins where it is made, and goes on where its answer comes in.  What is asked for and answered
belongs to others.
"""

from __future__ import annotations

import asyncio
from asyncio.tasks import _enter_task, _leave_task
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

_T = TypeVar("_T")

Waker = Callable[["asyncio.Future[Any]"], object]


class Turn:
    """The present callback of the event loop: what is put off to its end is done once for all
    that happens in it."""

    __slots__ = ("_later", "_loop", "depth")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.depth = 0  # grows by one where a turn begins; ``end`` takes that back
        self._later: list[Callable[[], None]] = []

    def at_end(self, work: Callable[[], None]) -> None:
        """Do *work* when the turn ends; soon, if there is none."""
        if self.depth:
            self._later.append(work)
        else:
            self._loop.call_soon(work)

    def end(self) -> None:
        self.depth -= 1
        if not self.depth and self._later:
            later, self._later = self._later, []
            while later:
                try:
                    later.pop()()
                except BaseException:
                    for work in later:
                        self._loop.call_soon(work)
                    raise


class Awaited(asyncio.Future[_T]):
    """A future whose maker may wake an ``Operation`` that waits for it, without the loop."""

    waker: Waker | None = None

    def take_waker(self) -> Waker | None:
        """The one to be called, with the future, after its result was set: by nobody else then."""
        waker = self.waker
        if waker is not None:
            self.remove_done_callback(waker)
        return waker

    def deliver(self, result: _T) -> None:
        """Set the result, if nobody has given up meanwhile; an ``Operation`` that waits goes on
        before this returns."""
        if self.done():
            return
        waker = self.take_waker()
        self.set_result(result)
        if waker is not None:
            waker(self)


_running: list[Operation[Any]] = []
"""Those that run now, each within the one before: asking asyncio would cost more than they do."""


class Operation(Generic[_T]):
    """Drives a coroutine as a task would, beginning at once: see ``step``.

    To what runs in it, it is the current task (asyncio documents this under "Extending"), so that
    ``asyncio.timeout`` works.
    """

    __slots__ = ("_cancels", "_coroutine", "_loop", "_must_cancel", "_on_end", "_waits_for", "done")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        coroutine: Coroutine[Any, Any, _T],
        on_end: Callable[[Any, _T | None, BaseException | None], None],
    ) -> None:
        """*on_end* gets the operation and its result, or the exception (CancelledError if it was
        cancelled)."""
        self._loop = loop
        self._coroutine = coroutine
        self._on_end = on_end
        self._waits_for: asyncio.Future[Any] | None = None
        self._must_cancel = False
        self._cancels = 0
        self.done = False

    def __repr__(self) -> str:
        state = "done" if self.done else f"waits for {self._waits_for!r}"
        return f"<Operation {self._coroutine!r} {state}>"

    def cancel(self, msg: object = None) -> bool:
        """As Task.cancel."""
        if self.done:
            return False
        self._cancels += 1
        if self._waits_for is None or not self._waits_for.cancel():
            self._must_cancel = True
        return True

    def cancelling(self) -> int:
        """As Task.cancelling."""
        return self._cancels

    def uncancel(self) -> int:
        """As Task.uncancel."""
        if self._cancels:
            self._cancels -= 1
        return self._cancels

    def discard(self) -> None:
        """Never begin it."""
        self.done = True
        self._coroutine.close()

    def step(self, _awaited: asyncio.Future[Any] | None = None) -> None:
        """Run it up to its next wait, or its end: to begin it, and when its wait is over."""
        self._waits_for = None
        loop = self._loop
        outer: Any = _running[-1] if _running else None
        if outer is not None:  # who begins it, or gives it its answer
            _leave_task(loop, outer)
        try:
            _enter_task(loop, self)  # type: ignore[arg-type]
        except RuntimeError:  # that is a task: seldom
            outer = asyncio.current_task(loop)
            assert outer is not None
            _leave_task(loop, outer)
            _enter_task(loop, self)  # type: ignore[arg-type]
        _running.append(self)
        future: asyncio.Future[Any] | None = None
        value: _T | None = None
        error: BaseException | None = None
        try:
            if self._must_cancel:
                self._must_cancel = False
                future = self._coroutine.throw(asyncio.CancelledError())
            else:
                future = self._coroutine.send(None)
        except StopIteration as stop:
            self.done = True
            value = stop.value
        except BaseException as exc:
            self.done = True
            error = exc
        finally:
            _running.pop()
            _leave_task(loop, self)  # type: ignore[arg-type]
            if outer is not None:
                _enter_task(loop, outer)
        if self.done:
            on_end = self._on_end
            del self._on_end  # it may know the operation: no cycle that only the collector finds
            try:
                on_end(self, value, error)
                if isinstance(error, KeyboardInterrupt | SystemExit):
                    raise error
            finally:
                error = None  # its traceback knows this frame
        elif future is None:  # asyncio.sleep(0)
            loop.call_soon(self.step)
        else:
            future._asyncio_future_blocking = False
            waker = self.step
            future.add_done_callback(waker)
            if isinstance(future, Awaited):
                future.waker = waker
            self._waits_for = future
            if self._must_cancel and future.cancel():
                self._must_cancel = False


class Begun(Operation[_T]):
    """What the present operation has begun and will wait for: ``await begun.outcome()``."""

    __slots__ = ("_outcome",)

    def __init__(self, coroutine: Coroutine[Any, Any, _T]) -> None:
        """Runs *coroutine* up to its first wait, or its end."""
        loop = asyncio.get_running_loop()
        super().__init__(loop, coroutine, Begun._ended)
        self._outcome: Awaited[_T] = Awaited(loop=loop)
        self.step()

    async def outcome(self) -> _T:
        """Its result.  Raises: as it does; who is cancelled here cancels it."""
        try:
            return await self._outcome
        except asyncio.CancelledError:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Cancel it, and wait until it has ended, however it does."""
        ended = self._outcome
        if not self.done:
            self._outcome = ended = Awaited(loop=self._loop)
            self.cancel()
        await asyncio.wait((ended,))
        if not ended.cancelled():
            ended.exception()  # nobody wants it

    def _ended(self, value: _T | None, error: BaseException | None) -> None:
        outcome = self._outcome
        if outcome.done():
            return  # who waited was cancelled
        if error is None:
            outcome.deliver(value)  # type: ignore[arg-type]  # its own type
        elif isinstance(error, asyncio.CancelledError):
            outcome.cancel()
        else:
            outcome.set_exception(error)


class Background:
    """Work that nobody waits for, as operations: it begins within its caller."""

    __slots__ = ("_ended", "_on_error", "_running")

    def __init__(self, on_error: Callable[[BaseException], None]) -> None:
        """*on_error* gets what work ended with, but for its cancellation."""
        self._on_error = on_error
        self._running: set[Operation[None]] = set()
        self._ended: asyncio.Future[None] | None = None  # whom ``idle`` waits for

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        operation = Operation(asyncio.get_running_loop(), work, self._work_ended)
        self._running.add(operation)
        operation.step()

    def _work_ended(
        self, operation: Operation[None], _value: None, error: BaseException | None
    ) -> None:
        self._running.discard(operation)
        if error is not None and not isinstance(error, asyncio.CancelledError):
            self._on_error(error)
        if self._ended is not None and not self._running and not self._ended.done():
            self._ended.set_result(None)

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs."""
        return not self._running

    async def idle(self) -> None:
        """Wait until nothing runs."""
        while self._running:
            self._ended = asyncio.get_running_loop().create_future()
            await self._ended

    async def stop(self) -> None:
        """Cancel all of it, and wait until it has ended."""
        for operation in list(self._running):
            operation.cancel()
        await self.idle()
