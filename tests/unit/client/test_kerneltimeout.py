"""No waiting for the link is longer than the kernel lets a request take."""

from __future__ import annotations

from pathlib import Path

import pytest

from netfs.client import kerneltimeout
from netfs.client.config import Config, LinkConfig, MountConfig, SourceConfig

NEVER = float("inf")


def config(**link: object) -> Config:
    return Config(
        source=SourceConfig(text="h:", host="h"),
        mount=MountConfig(mountpoint="/m"),
        link=LinkConfig(**link),  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, NEVER),
        ({"default_request_timeout": "0", "max_request_timeout": "0"}, NEVER),
        ({"default_request_timeout": "20\n", "max_request_timeout": "0\n"}, 20),
        ({"default_request_timeout": "0", "max_request_timeout": "45"}, 45),
        ({"default_request_timeout": "60", "max_request_timeout": "45"}, 45),
        ({"default_request_timeout": "soon"}, NEVER),
    ],
)
def test_the_smallest_limit_that_is_set_counts(
    tmp_path: Path, files: dict[str, str], expected: float
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert kerneltimeout.read(tmp_path) == expected


@pytest.mark.parametrize(
    ("link", "limit_s", "timeout_s", "hard"),
    [
        ({}, NEVER, 30, False),
        ({"hard": True}, NEVER, 30, True),
        ({}, 60, 30, False),
        ({}, 20, 17, False),
        ({"hard": True}, 60, 30, False),
        ({"hard": True, "link_timeout_s": 300}, 60, 57, False),
        ({}, 2, 1, False),
    ],
)
def test_waiting_ends_before_the_kernel_s_limit(
    link: dict[str, object], limit_s: float, timeout_s: float, hard: bool
) -> None:
    bounded = kerneltimeout.within(config(**link), limit_s).link
    assert (bounded.link_timeout_s, bounded.hard) == (timeout_s, hard)
