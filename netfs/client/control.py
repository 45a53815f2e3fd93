"""Answers the questions that come through the supervisor's control socket.

What the answers are is the daemon's business: a table of question -> callable.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any

from netfs.client.heartbeat import Uplink

log = logging.getLogger(__name__)

Body = Mapping[str, object]
Answer = Callable[[], Body | Awaitable[Body]]


class Control:
    """Listens to the supervisor on the event loop."""

    def __init__(
        self,
        uplink: Uplink,
        answers: Mapping[str, Answer],
        *,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        on_orphaned: Callable[[], None],
    ) -> None:
        """*on_orphaned* is called once if the supervisor has gone."""
        self._uplink = uplink
        self._answers = answers
        self._spawn = spawn
        self._on_orphaned = on_orphaned

    def start(self) -> None:
        asyncio.get_running_loop().add_reader(self._uplink.fileno(), self._receive)

    def stop(self) -> None:
        asyncio.get_running_loop().remove_reader(self._uplink.fileno())

    def _receive(self) -> None:
        try:
            questions = self._uplink.hear()
        except EOFError:
            self.stop()
            self._on_orphaned()
            return
        for question in questions:
            answer = self._answers.get(question.get("ask", ""))
            number = question.get("number")
            if answer is None:
                self._uplink.tell("answer", number=number, body={"error": "unknown question"})
                continue
            try:
                body = answer()
            except Exception:
                log.exception("answering %r", question.get("ask"))
                body = {"error": "see the log"}
            if isinstance(body, Mapping):
                self._uplink.tell("answer", number=number, body=dict(body))
            else:
                self._spawn(self._answer_later(number, body))

    async def _answer_later(self, number: object, body: Awaitable[Body]) -> None:
        try:
            found: Body = await body
        except OSError as error:
            found = {"error": str(error)}
        self._uplink.tell("answer", number=number, body=dict(found))
