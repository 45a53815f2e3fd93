"""How a daemon ends, where no mount is needed to see it."""

from __future__ import annotations

import asyncio
import contextlib
import logging

import pytest

from netfs.client import daemon as module
from netfs.client.daemon import Daemon
from netfs.client.turns import Background


async def test_what_does_not_end_in_the_background_holds_up_no_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_CLOSE_S", 0.01)
    daemon = object.__new__(Daemon)
    daemon._background = Background(lambda error: pytest.fail(str(error)))
    released = asyncio.Event()

    async def stubborn() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await released.wait()

    daemon._background.run(stubborn())
    with caplog.at_level(logging.WARNING):
        await daemon._stop_background()
    assert "did not end" in caplog.text
    assert not daemon._background.is_idle
    released.set()
    await daemon._background.idle()


async def test_what_ends_in_the_background_is_waited_for() -> None:
    daemon = object.__new__(Daemon)
    daemon._background = Background(lambda error: pytest.fail(str(error)))
    daemon._background.run(asyncio.sleep(60))
    await daemon._stop_background()
    assert daemon._background.is_idle
