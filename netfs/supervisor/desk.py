"""Where questions from the control socket are answered: by the worker, or without it in time.

What questions mean is the supervisor's business; nothing here waits.
"""

from __future__ import annotations

import contextlib
import selectors
import time
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from netfs.supervisor.control import Client, Listener, Message

_ANSWER_S: Final = 0.35
"""How long the worker may take; then the supervisor answers alone (within 0.5 s)."""
_IDLE_S: Final = 10.0
"""A client that has not finished its question is dropped after this."""


class _Question(NamedTuple):
    client: Client
    deadline: float


class Desk:
    """The control socket's clients and their questions."""

    def __init__(
        self,
        path: str,
        selector: selectors.BaseSelector,
        *,
        act: Callable[[str], Message | None],
        ask: Callable[[int, str], bool],
        status: Callable[[], Message],
        patience_s: Mapping[str, float],
    ) -> None:
        """
        Args:
            act: answers a question at once, or returns None to have the worker asked.
            ask: puts the numbered question to the worker; False if it can't be reached.
            status: what goes with every answer.
            patience_s: of questions that may take longer than others.

        Raises:
            OSError: the socket can't be made.
        """
        self._act = act
        self._ask = ask
        self._status = status
        self._patience_s = patience_s
        self._selector = selector
        self._listener = Listener(path)
        self._questions: dict[int, _Question] = {}
        self._number = 0
        selector.register(self._listener.sock, selectors.EVENT_READ, self._accept)

    def close(self) -> None:
        """Drop everybody and remove the socket."""
        self._listener.close()

    def abandon(self) -> None:
        """In a forked child: let go of the sockets without touching their files."""
        self._listener.sock.close()
        for client in self._listener.clients.values():
            client.sock.close()

    def deadlines(self) -> list[float]:
        return [question.deadline for question in self._questions.values()]

    def on_time(self, now: float) -> None:
        """Answer for a worker that has not, and drop clients that ask nothing."""
        for number, question in list(self._questions.items()):
            if now >= question.deadline:
                self.answer(number, {})
        for client in list(self._listener.clients.values()):
            if now - client.since > _IDLE_S:
                self._drop(client)

    def answer(self, number: object, body: Message) -> None:
        """The worker's answer; late ones are nobody's."""
        question = self._questions.pop(number, None) if isinstance(number, int) else None
        if question is not None:
            self._reply(question.client, body)

    def _accept(self) -> None:
        client = self._listener.accept(time.monotonic())
        if client is not None:
            self._selector.register(client.sock, selectors.EVENT_READ, lambda: self._read(client))

    def _read(self, client: Client) -> None:
        try:
            request = client.receive()
        except OSError:
            self._drop(client)
            return
        if request is None:
            return
        question = str(request.get("ask"))
        body = self._act(question)
        if body is not None:
            self._reply(client, body)
            return
        self._number += 1
        patience_s = self._patience_s.get(question, _ANSWER_S)
        client.since += patience_s
        self._questions[self._number] = _Question(client, time.monotonic() + patience_s)
        if not self._ask(self._number, question):
            self.answer(self._number, {})

    def _reply(self, client: Client, body: Message) -> None:
        """Send the worker's *body* ({}: it has not answered) and what is known here."""
        if client.sock.fileno() < 0:
            return  # it has not waited
        if client.answer({"supervisor": self._status(), "answered": bool(body), **body}):
            self._drop(client)
        else:
            self._selector.modify(
                client.sock,
                selectors.EVENT_WRITE,
                lambda: self._drop(client) if client.send_rest() else None,
            )

    def _drop(self, client: Client) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(client.sock)
        self._listener.drop(client)
