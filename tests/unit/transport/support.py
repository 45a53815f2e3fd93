"""What the transport's tests share: a receiver that waits, prompters, configurations."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from netfs.client.config import Config, MountConfig, SourceConfig, SshConfig
from netfs.client.remote.channel import Link
from netfs.client.remote.prompt import NoPrompter, Prompter, Purpose
from netfs.client.remote.transport import connect
from netfs.client.turns import Turn
from netfs.wire import Buffer

INIT = bytes([0, 0, 0, 5, 1, 0, 0, 0, 3])
"""SSH_FXP_INIT, version 3."""


class Recorder:
    """A receiver that keeps what it got."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.turn = Turn(asyncio.get_running_loop())
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self.paused = 0
        self.resumed = asyncio.Event()
        self._arrived = asyncio.Event()

    def data_received(self, data: Buffer) -> None:
        self.data += data
        self._arrived.set()

    def connection_lost(self, exc: Exception | None) -> None:
        assert not self.lost.done(), "connection_lost came twice"
        self.lost.set_result(exc)

    def pause_writing(self) -> None:
        self.paused += 1
        self.resumed.clear()

    def resume_writing(self) -> None:
        self.resumed.set()

    async def at_least(self, count: int) -> bytes:
        """The first *count* bytes, as soon as they are there."""
        async with asyncio.timeout(20):
            while len(self.data) < count:
                self._arrived.clear()
                await self._arrived.wait()
        return bytes(self.data[:count])

    async def reason(self) -> Exception | None:
        """Why the channel was lost."""
        async with asyncio.timeout(10):
            return await asyncio.shield(self.lost)


class Script(NoPrompter):
    """A prompter that answers from a list and records the questions."""

    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[Purpose, str]] = []
        self.notices: list[str] = []

    async def ask(self, text: str, purpose: Purpose, *, echo: bool = False) -> str | None:
        self.asked.append((purpose, text))
        return self.answers.pop(0) if self.answers else None

    def notice(self, text: str) -> None:
        self.notices.append(text)

    def background(self) -> Prompter:
        return NoPrompter()


def config_for(
    port: int | None,
    words: dict[str, str | Sequence[str]] | None = None,
    *,
    host: str = "127.0.0.1",
    user: str | None = None,
    ssh: SshConfig | None = None,
) -> Config:
    """A mount's configuration with -o *words*, reading no ssh_config unless *ssh* says so."""
    keywords = {
        word.lower(): (value,) if isinstance(value, str) else tuple(value)
        for word, value in (words or {}).items()
    }
    return Config(
        source=SourceConfig(text=f"{host}:", host=host, user=user, port=port),
        mount=MountConfig(mountpoint="/nowhere"),
        ssh=ssh or SshConfig(config_file="none", keywords=keywords, connect_timeout_s=10),
    )


@asynccontextmanager
async def linked(config: Config, prompter: Prompter | None = None) -> AsyncIterator[Link]:
    """A link for the length of the block."""
    link = await connect(config, prompter or NoPrompter())
    try:
        yield link
    finally:
        await link.close()


async def version_of(link: Link) -> bytes:
    """The head of what the server answers to INIT on a new channel."""
    recorder = Recorder()
    channel = await link.open_channel(recorder)
    channel.write([INIT])
    head = await recorder.at_least(9)
    channel.close()
    assert await recorder.reason() is None
    return head[4:]


VERSION_3 = bytes([2, 0, 0, 0, 3])


def base_words(directory: Path) -> dict[str, str | Sequence[str]]:
    """-o words for the harness's sshd in *directory*."""
    return {
        "IdentityFile": str(directory / "user_key"),
        "IdentityAgent": "none",
        "UserKnownHostsFile": str(directory / "known_hosts"),
        "GlobalKnownHostsFile": "none",
        "StrictHostKeyChecking": "yes",
    }
