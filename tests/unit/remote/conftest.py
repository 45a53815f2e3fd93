"""Nothing here waits for a back-off: these tests cut links much more often than a network does."""

import itertools
from collections.abc import Iterator

import pytest

from netfs.client.remote import link


def _at_once(jitter: object = None) -> Iterator[float]:
    return itertools.repeat(0.0)


@pytest.fixture(autouse=True)
def no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "backoff", _at_once)
