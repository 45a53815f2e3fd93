"""Passwords, codes and changes of password, against a server that asks what a test wants."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import asyncssh
import pytest

from netfs.client.remote.errors import ConnectError, ConnectErrorKind
from netfs.client.remote.prompt import PasswordPrompter, Prompter, Purpose, Remembering
from netfs.client.remote.sshlogin import Patience
from tests.unit.transport.support import Script, config_for, linked


class Door(asyncssh.SSHServer):
    """Lets in who knows the password ``right``."""

    def __init__(self, **behaviour: object) -> None:
        self.behaviour = behaviour
        self.tries = 0

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        if "banner" in self.behaviour:
            conn.send_auth_banner(str(self.behaviour["banner"]))

    def begin_auth(self, username: str) -> bool:
        return True

    def password_auth_supported(self) -> bool:
        return bool(self.behaviour.get("password", True))

    def validate_password(self, username: str, password: str) -> bool:
        self.tries += 1
        if self.behaviour.get("expired") and password == "old":
            raise asyncssh.PasswordChangeRequired("Your password has expired.")
        return password == "right"

    def change_password(self, username: str, old_password: str, new_password: str) -> bool:
        return old_password == "old" and new_password == "right"

    def kbdint_auth_supported(self) -> bool:
        return "prompts" in self.behaviour

    def get_kbdint_challenge(
        self, username: str, lang: str, submethods: str
    ) -> tuple[str, str, str, list[tuple[str, bool]]]:
        self.tries += 1
        return "", "Two-step login", "", list(self.behaviour["prompts"])  # type: ignore[call-overload]  # the test gives a list

    def validate_kbdint_response(self, username: str, responses: Sequence[str]) -> bool:
        return list(responses) == ["right"] * len(responses)


@asynccontextmanager
async def door(**behaviour: object) -> AsyncIterator[tuple[int, list[Door]]]:
    """A server's port and its sessions."""
    doors: list[Door] = []

    def enter() -> Door:
        doors.append(Door(**behaviour))
        return doors[-1]

    key = asyncssh.generate_private_key("ssh-ed25519")
    server = await asyncssh.create_server(
        enter, "127.0.0.1", 0, server_host_keys=[key], config=None
    )
    try:
        yield server.get_port(), doors
    finally:
        server.close()
        await server.wait_closed()


WORDS = {
    "IdentityAgent": "none",
    "IdentityFile": "none",
    "UserKnownHostsFile": "/dev/null",
    "GlobalKnownHostsFile": "none",
    "StrictHostKeyChecking": "no",
    "User": "alice",
}


async def login(port: int, prompter: Prompter, **words: str) -> None:
    async with linked(config_for(port, {**WORDS, **words}), prompter):
        pass


async def denied(port: int, prompter: Prompter, **words: str) -> ConnectError:
    with pytest.raises(ConnectError) as caught:
        await login(port, prompter, **words)
    assert caught.value.kind is ConnectErrorKind.AUTH_FAILED
    return caught.value


async def test_a_password_is_asked_until_it_is_right() -> None:
    prompter = Script("wrong", "right")
    async with door() as (port, _):
        await login(port, prompter)
    assert prompter.asked == [(Purpose.PASSWORD, "alice@127.0.0.1's password: ")] * 2


@pytest.mark.parametrize("prompts", [1, 2])
async def test_passwords_are_asked_as_often_as_allowed(prompts: int) -> None:
    prompter = Script(*["wrong"] * 9)
    async with door() as (port, doors):
        error = await denied(port, prompter, NumberOfPasswordPrompts=str(prompts))
    assert doors[-1].tries == prompts
    assert "what was typed" in str(error)


async def test_batch_mode_asks_nothing() -> None:
    prompter = Script("right")
    async with door() as (port, doors):
        error = await denied(port, prompter, BatchMode="yes")
    assert prompter.asked == []
    assert doors[-1].tries == 0
    assert "no key or password to try" in str(error)


async def test_each_keyboard_interactive_question_is_asked() -> None:
    prompter = Script("right", "right")
    prompts = [("Password: ", False), ("Code\x1b[2J: ", True)]
    async with door(prompts=prompts, password=False) as (port, _):
        await login(port, prompter)
    assert [text for _, text in prompter.asked] == [
        "(alice@127.0.0.1) Password: ",
        "(alice@127.0.0.1) Code[2J: ",
    ]
    assert "Two-step login" in prompter.notices


async def test_keyboard_interactive_gives_up_where_nobody_answers() -> None:
    async with door(prompts=[("Code: ", True)], password=False) as (port, doors):
        await denied(port, Script())
    assert doors[-1].tries == 1


async def test_methods_that_are_switched_off_are_not_tried() -> None:
    prompter = Script("right")
    async with door(prompts=[("Code: ", True)]) as (port, _):
        await login(port, prompter, KbdInteractiveAuthentication="no")
    assert prompter.asked[0][0] is Purpose.PASSWORD
    async with door() as (port, _):
        await denied(port, Script("right"), PasswordAuthentication="no")


async def test_an_expired_password_is_changed() -> None:
    prompter = Script("old", "old", "right", "right")
    async with door(expired=True) as (port, _):
        await login(port, prompter)
    assert [text.split("'s ")[-1] for _, text in prompter.asked] == [
        "password: ",
        "old password: ",
        "new password: ",
        "new password: ",
    ]


async def test_new_passwords_that_differ_change_nothing() -> None:
    prompter = Script("old", "old", "right", "other")
    async with door(expired=True) as (port, _):
        await denied(port, prompter, NumberOfPasswordPrompts="1")


async def test_a_banner_is_shown_without_what_drives_a_terminal() -> None:
    prompter = Script("right")
    async with door(banner="Hello\x1b]0;x\x07\nthere\n") as (port, _):
        await login(port, prompter)
    assert prompter.notices == ["Hello]0;x\nthere\n"]
    prompter = Script("right")
    async with door(banner="Hello") as (port, _):
        await login(port, prompter, LogLevel="error")
    assert prompter.notices == []


async def test_a_password_from_stdin_is_tried_by_both_methods() -> None:
    for behaviour in ({}, {"prompts": [("Password: ", False)], "password": False}):
        async with door(**behaviour) as (port, _):
            await login(port, PasswordPrompter("right", Script()))
    async with door(prompts=[("Code: ", False)], password=False) as (port, _):
        await denied(port, PasswordPrompter("right", Script()))


async def test_a_right_password_is_remembered_for_the_background_and_a_wrong_one_is_not() -> None:
    prompter = Remembering(Script("right"))
    async with door() as (port, _):
        await login(port, prompter)
        await login(port, prompter.background())
        wrong = Remembering(Script("wrong"))
        await denied(port, wrong, NumberOfPasswordPrompts="1")
        error = await denied(port, wrong.background())
    assert "no key or password to try" in str(error)


class SlowScript(Script):
    """Somebody who takes their time."""

    def __init__(self, answer: str, ready: Callable[[], bool]) -> None:
        super().__init__(answer)
        self._ready = ready

    async def ask(self, text: str, purpose: Purpose, *, echo: bool = False) -> str | None:
        while not self._ready():
            await asyncio.sleep(0.01)
        return await super().ask(text, purpose, echo=echo)


async def test_the_time_a_person_takes_does_not_count_as_connect_timeout() -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with door() as (port, _):
        await login(
            port, SlowScript("right", lambda: loop.time() > began + 1.3), ConnectTimeout="1"
        )


async def test_patience_ends_and_stands_still_while_suspended() -> None:
    patience = Patience(0.01)
    reached = False

    async def wait() -> None:
        nonlocal reached
        async with patience:
            with patience.suspended():
                await asyncio.sleep(0.03)
            reached = True
            await asyncio.sleep(5)

    with pytest.raises(TimeoutError):
        await wait()
    assert reached
    with patience.suspended():
        pass  # an answer after the end harms nothing
