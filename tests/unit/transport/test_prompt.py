"""Prompters: the terminal, a program, memory, nobody."""

from __future__ import annotations

import asyncio
import io
import os
import pty
import sys
import termios
from pathlib import Path

import pytest

from netfs.client.remote.prompt import (
    AskpassPrompter,
    NoPrompter,
    PasswordPrompter,
    Purpose,
    Remembering,
    TerminalPrompter,
    choose_prompter,
)
from tests.unit.transport.support import Script


async def read_until(fd: int, end: bytes) -> bytes:
    data = b""
    os.set_blocking(fd, False)
    async with asyncio.timeout(5):
        while not data.endswith(end):
            try:
                data += os.read(fd, 1000)
            except BlockingIOError:
                await asyncio.sleep(0.001)
    return data


def echoes(fd: int) -> bool:
    return bool(termios.tcgetattr(fd)[3] & termios.ECHO)


async def test_a_secret_is_read_without_echo_and_the_terminal_is_as_before() -> None:
    master, slave = pty.openpty()
    try:
        asking = asyncio.ensure_future(
            TerminalPrompter(os.ttyname(slave)).ask("Password: ", Purpose.PASSWORD)
        )
        assert await read_until(master, b": ") == b"Password: "
        assert not echoes(slave)
        os.write(master, "geheim ü\n".encode())
        assert await asking == "geheim ü"
        assert await read_until(master, b"\n") == b"\r\n"
        assert echoes(slave)
    finally:
        os.close(master)
        os.close(slave)


async def test_cancelling_a_question_restores_the_terminal() -> None:
    master, slave = pty.openpty()
    try:
        asking = asyncio.ensure_future(
            TerminalPrompter(os.ttyname(slave)).ask("Password: ", Purpose.PASSPHRASE)
        )
        await read_until(master, b": ")
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert echoes(slave)
    finally:
        os.close(master)
        os.close(slave)


async def test_a_confirmation_is_echoed() -> None:
    master, slave = pty.openpty()
    try:
        asking = asyncio.ensure_future(
            TerminalPrompter(os.ttyname(slave)).ask("Sure? ", Purpose.CONFIRM)
        )
        await read_until(master, b"? ")
        assert echoes(slave)
        os.write(master, b"yes\n")
        assert await asking == "yes"
    finally:
        os.close(master)
        os.close(slave)


async def test_without_a_terminal_nobody_answers() -> None:
    assert await TerminalPrompter("/no/such/tty").ask("x", Purpose.PASSWORD) is None


def program(path: Path, body: str) -> str:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("body", "purpose", "answer"),
    [
        ('echo "$1!"; echo more', Purpose.PASSWORD, "question!"),
        ("echo no; exit 1", Purpose.PASSWORD, None),
        ('test "$SSH_ASKPASS_PROMPT" = confirm', Purpose.CONFIRM, "yes"),
        ('test -z "$SSH_ASKPASS_PROMPT" && echo plain', Purpose.PASSPHRASE, "plain"),
    ],
)
async def test_askpass(tmp_path: Path, body: str, purpose: Purpose, answer: str | None) -> None:
    prompter = AskpassPrompter(program(tmp_path / "ask", body))
    assert await prompter.ask("question", purpose) == answer


async def test_a_missing_askpass_program_is_told_and_nobody_answers(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert await AskpassPrompter("/no/such/program").ask("x", Purpose.PASSWORD) is None
    assert "/no/such/program" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("environ", "kind"),
    [
        ({}, TerminalPrompter),
        ({"SSH_ASKPASS": "true", "SSH_ASKPASS_REQUIRE": "never"}, TerminalPrompter),
        ({"SSH_ASKPASS": "true", "SSH_ASKPASS_REQUIRE": "force"}, AskpassPrompter),
        ({"SSH_ASKPASS": "true", "SSH_ASKPASS_REQUIRE": "prefer"}, AskpassPrompter),
        ({"SSH_ASKPASS": "/no/such", "SSH_ASKPASS_REQUIRE": "force"}, TerminalPrompter),
        ({"SSH_ASKPASS": "true"}, TerminalPrompter),
    ],
)
def test_who_is_asked(environ: dict[str, str], kind: type[object]) -> None:
    prompter = choose_prompter(environ)
    assert isinstance(prompter, Remembering)
    assert type(prompter._inner) is kind


def test_batch_mode_has_nobody() -> None:
    prompter = choose_prompter({}, batch=True)
    assert isinstance(prompter, Remembering)
    assert isinstance(prompter._inner, NoPrompter)


async def test_password_stdin_reads_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"secret word\r\nrest\n")))
    prompter = choose_prompter({}, password_stdin=True)
    assert await prompter.ask("x", Purpose.PASSWORD) == "secret word"
    assert sys.stdin.buffer.readline() == b"rest\n"
    assert await prompter.background().ask("x", Purpose.PASSWORD) == "secret word"
    assert await prompter.ask("Code:", Purpose.RESPONSE) is None
    assert await prompter.ask("x", Purpose.PASSPHRASE) is None


async def test_only_lasting_answers_that_were_right_are_remembered() -> None:
    inner = Script("pw", "code", "yes", "later")
    prompter = Remembering(inner)
    await prompter.ask("p", Purpose.PASSWORD)
    await prompter.ask("Code:", Purpose.RESPONSE)
    await prompter.ask("key SHA256:x?", Purpose.CONFIRM)
    prompter.accepted()
    await prompter.ask("q", Purpose.PASSWORD)
    background = prompter.background()
    assert await background.ask("p", Purpose.PASSWORD) == "pw"
    assert await background.ask("key SHA256:x?", Purpose.CONFIRM) == "yes"
    assert await background.ask("key SHA256:y?", Purpose.CONFIRM) is None
    assert await background.ask("Code:", Purpose.RESPONSE) is None
    assert await background.ask("q", Purpose.PASSWORD) is None
    assert len(inner.asked) == 4


def test_a_password_prompter_passes_notices_on() -> None:
    script = Script()
    PasswordPrompter("x", script).notice("hello")
    assert script.notices == ["hello"]
