"""What makes the way to a server change is noticed."""

from __future__ import annotations

import asyncio
import os
import subprocess

import pytest

from netfs.client.remote import netwatch
from netfs.client.remote.netwatch import NetWatch, SleepMeter


@pytest.mark.parametrize(
    ("boottime", "monotonic", "slept"),
    [(110.0, 60.0, 0.0), (3710.0, 60.0, 3600.0), (110.5, 60.0, 0.5)],
)
def test_a_suspend_shows_in_the_two_clocks(boottime: float, monotonic: float, slept: float) -> None:
    meter = SleepMeter(100.0, 50.0)
    assert meter.slept(boottime, monotonic) == pytest.approx(slept)
    assert meter.slept(boottime + 5, monotonic + 5) == pytest.approx(0)


async def test_a_resume_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: asyncio.Queue[str] = asyncio.Queue()
    watch = NetWatch(seen.put_nowait, tick_s=0.01)
    try:
        ahead = netwatch._boottime() + 3600
        monkeypatch.setattr(netwatch, "_boottime", lambda: ahead)
        async with asyncio.timeout(5):
            assert await seen.get() == "resume"
    finally:
        watch.close()


@pytest.mark.root
async def test_a_burst_of_network_changes_is_reported_once() -> None:
    if os.geteuid() != 0:
        pytest.skip("adding an address needs root")
    seen: list[str] = []
    changed = asyncio.Event()

    def on_change(what: str) -> None:
        seen.append(what)
        changed.set()

    watch = NetWatch(on_change)
    try:
        for change in ("add", "del"):
            command = ["ip", "address", change, "127.45.6.7/32", "dev", "lo"]
            done = subprocess.run(command, check=False, capture_output=True)
            if done.returncode != 0:
                pytest.skip(f"addresses can't be changed here: {done.stderr!r}")
        async with asyncio.timeout(5):
            await changed.wait()
        assert seen == ["network"]
    finally:
        watch.close()


async def test_without_netlink_the_clock_is_still_watched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(netwatch, "_netlink", lambda: None)
    watch = NetWatch(lambda what: None, tick_s=0.001)
    await asyncio.sleep(0.01)
    watch.close()
