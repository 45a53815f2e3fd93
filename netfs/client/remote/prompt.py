"""Who is asked when a password, a passphrase, a code or a yes is needed.

Nothing here knows SSH.  A prompter answers None where there is nobody to ask, and a link that is
made again in the background (``Prompter.background``) never waits for a person.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import os
import shutil
import sys
import termios
from collections.abc import Iterator, Mapping
from typing import Final, Protocol


class Purpose(enum.Enum):
    """What is asked for; a prompter may know only some."""

    PASSWORD = "password"
    PASSPHRASE = "passphrase"  # of a key file
    RESPONSE = "response"  # to a keyboard-interactive prompt
    CONFIRM = "confirm"  # yes or no


class Prompter(Protocol):
    """Asks a person, or whoever stands in for one."""

    async def ask(self, text: str, purpose: Purpose, *, echo: bool = False) -> str | None:
        """The answer to *text*, or None if nobody can or will answer."""
        ...

    def notice(self, text: str) -> None:
        """Show *text* (a server's banner, a warning) without waiting."""
        ...

    def accepted(self) -> None:
        """The answers since the last call were right."""
        ...

    def background(self) -> Prompter:
        """The same without a person: it may know answers, but never waits for one."""
        ...


class NoPrompter:
    """Nobody is there (BatchMode)."""

    async def ask(self, text: str, purpose: Purpose, *, echo: bool = False) -> str | None:
        return None

    def notice(self, text: str) -> None:
        """Nobody to show it to."""

    def accepted(self) -> None:
        """Nothing was answered."""

    def background(self) -> Prompter:
        return self


class TerminalPrompter:
    """The user's terminal, whatever stdin and stderr are."""

    def __init__(self, path: str = "/dev/tty") -> None:
        self._path = path

    async def ask(self, text: str, purpose: Purpose, *, echo: bool = False) -> str | None:
        try:
            # O_NOCTTY: asking must never make a terminal ours.
            fd = os.open(self._path, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:
            return None  # no terminal: nobody is there, which is an answer
        try:
            if echo or purpose is Purpose.CONFIRM:
                os.write(fd, text.encode())
                return await _read_line(fd)
            with _silent(fd):
                os.write(fd, text.encode())
                answer = await _read_line(fd)
                os.write(fd, b"\n")  # the user's own was not echoed
            return answer
        finally:
            os.close(fd)

    def notice(self, text: str) -> None:
        sys.stderr.write(text.rstrip("\n") + "\n")
        sys.stderr.flush()

    def accepted(self) -> None:
        """Nothing is kept here; see Remembering."""

    def background(self) -> Prompter:
        return NoPrompter()


class AskpassPrompter(TerminalPrompter):
    """A program that asks in a window (SSH_ASKPASS).  Source: ssh(1), ENVIRONMENT."""

    def __init__(self, program: str) -> None:
        super().__init__()
        self._program = program

    async def ask(self, text: str, purpose: Purpose, *, echo: bool = False) -> str | None:
        env = dict(os.environ)
        if purpose is Purpose.CONFIRM:
            env["SSH_ASKPASS_PROMPT"] = "confirm"
        try:
            process = await asyncio.create_subprocess_exec(
                self._program,
                text,
                env=env,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
            )
        except OSError as exc:
            self.notice(f"netfs: SSH_ASKPASS: {self._program}: {exc.strerror}")
            return None
        try:
            output, _ = await process.communicate()
        except asyncio.CancelledError:
            process.kill()
            await process.wait()
            raise
        if process.returncode != 0:
            return None
        answer = output.split(b"\n", 1)[0].decode("utf-8", "surrogateescape")
        if purpose is Purpose.CONFIRM and not answer:
            return "yes"  # a confirm dialog answers with its exit status alone
        return answer


class PasswordPrompter(NoPrompter):
    """Knows one password (password_stdin) and answers it, once per connection attempt."""

    def __init__(self, password: str, warn: Prompter) -> None:
        self._password = password
        self._warn = warn

    async def ask(self, text: str, purpose: Purpose, *, echo: bool = False) -> str | None:
        asks_password = purpose is Purpose.RESPONSE and "assword" in text
        return self._password if purpose is Purpose.PASSWORD or asks_password else None

    def notice(self, text: str) -> None:
        self._warn.notice(text)


class Remembering:
    """Another prompter, with right answers kept in memory so that a lost link comes back alone.

    Passwords and passphrases are kept, never written anywhere; codes that work once are not.
    """

    def __init__(self, inner: Prompter) -> None:
        self._inner = inner
        self._given: dict[tuple[Purpose, str], str] = {}
        self._right: dict[tuple[Purpose, str], str] = {}

    async def ask(self, text: str, purpose: Purpose, *, echo: bool = False) -> str | None:
        answer = await self._inner.ask(text, purpose, echo=echo)
        if answer is not None and _is_lasting(text, purpose):
            self._given[purpose, text] = answer
        return answer

    def notice(self, text: str) -> None:
        self._inner.notice(text)

    def accepted(self) -> None:
        self._right.update(self._given)
        self._given.clear()

    def background(self) -> Prompter:
        return _Recall(self._right, self._inner.background())


class _Recall(NoPrompter):
    """Answers from what was right before; asks nobody."""

    def __init__(self, right: Mapping[tuple[Purpose, str], str], inner: Prompter) -> None:
        self._right = right
        self._inner = inner

    async def ask(self, text: str, purpose: Purpose, *, echo: bool = False) -> str | None:
        answer = self._right.get((purpose, text))
        return answer if answer is not None else await self._inner.ask(text, purpose, echo=echo)


def _is_lasting(text: str, purpose: Purpose) -> bool:
    if purpose is Purpose.RESPONSE:
        return "assword" in text  # PAM asks for the plain password this way, too
    return True  # a question about a host key names the key, so a yes holds for that key only


def choose_prompter(
    environ: Mapping[str, str], *, batch: bool = False, password_stdin: bool = False
) -> Prompter:
    """The prompter for a mount that is made now, by the rules of ssh(1).

    With *password_stdin* one line is read from stdin here, before anything else uses it.
    """
    person = NoPrompter() if batch else _person(environ)
    if password_stdin:
        line = sys.stdin.buffer.readline().rstrip(b"\r\n")
        return PasswordPrompter(line.decode("utf-8", "surrogateescape"), _person(environ))
    return Remembering(person)


def _person(environ: Mapping[str, str]) -> Prompter:
    program = environ.get("SSH_ASKPASS", "")
    require = environ.get("SSH_ASKPASS_REQUIRE", "").lower()
    if not program or require == "never" or shutil.which(program) is None:
        return TerminalPrompter()
    if require in ("force", "prefer"):
        return AskpassPrompter(program)
    has_display = bool(environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY"))
    return AskpassPrompter(program) if has_display and not _has_terminal() else TerminalPrompter()


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


_ECHO_FLAGS: Final = termios.ECHO | termios.ECHOE | termios.ECHOK | termios.ECHONL


@contextlib.contextmanager
def _silent(fd: int) -> Iterator[None]:
    """No echo on the terminal *fd*, whatever happens inside.

    TCSAFLUSH throws away what was typed before the question, as ssh does.
    """
    try:
        before = termios.tcgetattr(fd)
    except termios.error:
        yield  # not a terminal (a test's pipe): nothing echoes
        return
    quiet = list(before)
    quiet[3] &= ~_ECHO_FLAGS
    termios.tcsetattr(fd, termios.TCSAFLUSH, quiet)
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


async def _read_line(fd: int) -> str | None:
    """One line from *fd*; None at end of file.  Cancelling leaves nothing waiting."""
    loop = asyncio.get_running_loop()
    line = bytearray()
    while not line.endswith(b"\n"):
        readable = asyncio.Event()
        loop.add_reader(fd, readable.set)
        try:
            await readable.wait()
        finally:
            loop.remove_reader(fd)
        data = os.read(fd, 1024)
        if not data:
            return None if not line else line.decode("utf-8", "surrogateescape")
        line += data
    return line.rstrip(b"\r\n").decode("utf-8", "surrogateescape")
