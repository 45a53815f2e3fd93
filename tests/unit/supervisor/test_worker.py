"""The forked child, seen from its parent."""

from __future__ import annotations

import os
import signal

import pytest

from netfs.supervisor.worker import Worker


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_comes_right_after_the_fork_is_not_lost(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    fork = os.fork

    def fork_and_signal() -> int:
        pid = fork()
        if pid == 0:
            os.kill(os.getpid(), number)
        return pid

    monkeypatch.setattr(os, "fork", fork_and_signal)
    previous = signal.signal(number, lambda *_: None)  # as a supervisor's
    try:
        worker = Worker(lambda *_: 0, 1)
        _, status = os.waitpid(worker.pid, 0)
    finally:
        signal.signal(number, previous)
    worker.close()
    expected = 130 if number == signal.SIGINT else -number
    assert os.waitstatus_to_exitcode(status) == expected
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
