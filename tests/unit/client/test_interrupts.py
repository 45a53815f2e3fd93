"""The policy of interruption as a table, and its reader of /proc against real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from netfs.client import interrupts
from netfs.client.interrupts import Interruption, Signals, Verdict, grace_s, judge
from netfs.client.operations.refused import REFUSED
from netfs.fuse.abi import Opcode
from netfs.fuse.requests import SERVED

S = signal.Signals


def mask(*signals: int) -> int:
    return sum(1 << number - 1 for number in signals)


def signals(
    pending: tuple[int, ...] = (),
    caught: tuple[int, ...] = (),
    blocked: tuple[int, ...] = (),
    ignored: tuple[int, ...] = (),
    dead: bool = False,
) -> Signals:
    return Signals(mask(*pending), mask(*blocked), mask(*ignored), mask(*caught), dead)


GO_RUNTIME = tuple(set(range(1, 32)) - {S.SIGKILL, S.SIGSTOP})
PYTHON = (S.SIGINT,)

CASES = [
    # What /proc shows when the INTERRUPT is read, as probed.
    ("nothing pending", signals(), Verdict.GO_ON),
    ("kill -9", signals((S.SIGKILL,)), Verdict.END),
    ("kill -9, all blocked", signals((S.SIGKILL,), blocked=GO_RUNTIME), Verdict.END),
    ("Ctrl-C, default: the kernel adds 9", signals((S.SIGKILL, S.SIGINT)), Verdict.END),
    ("Ctrl-C after a caught SIGALRM: no 9", signals((14, 2), (14,)), Verdict.END),
    ("SIGQUIT, default", signals((S.SIGQUIT,)), Verdict.END),
    ("SIGABRT, default", signals((S.SIGABRT,)), Verdict.END),
    ("SIGPIPE, default", signals((S.SIGPIPE,)), Verdict.END),
    ("SIGUSR1, default", signals((S.SIGUSR1,)), Verdict.END),
    ("real-time, default", signals((40,)), Verdict.END),
    ("gone", signals(dead=True), Verdict.END),
    ("Ctrl-C, caught (Python)", signals((S.SIGINT,), PYTHON), Verdict.LEAVE),
    ("Ctrl-C, caught (Go)", signals((S.SIGINT,), GO_RUNTIME), Verdict.LEAVE),
    ("kill, caught", signals((S.SIGTERM,), GO_RUNTIME), Verdict.LEAVE),
    ("hangup, caught", signals((S.SIGHUP,), GO_RUNTIME), Verdict.LEAVE),
    ("Ctrl-\\, caught", signals((S.SIGQUIT,), GO_RUNTIME), Verdict.LEAVE),
    ("Ctrl-C, ignored (nohup)", signals((S.SIGINT,), ignored=(S.SIGINT,)), Verdict.GO_ON),
    ("Ctrl-C, blocked", signals((S.SIGINT,), blocked=(S.SIGINT,)), Verdict.GO_ON),
    ("Ctrl-C, caught and blocked", signals((2,), PYTHON, blocked=(2,)), Verdict.GO_ON),
    ("Go's preemption", signals((S.SIGURG,), GO_RUNTIME), Verdict.GO_ON),
    ("a timer", signals((S.SIGALRM,), (S.SIGALRM,)), Verdict.GO_ON),
    ("a timer, default", signals((S.SIGALRM,)), Verdict.END),
    ("a profiler", signals((S.SIGPROF,), GO_RUNTIME), Verdict.GO_ON),
    ("a child died, caught", signals((S.SIGCHLD,), (S.SIGCHLD,)), Verdict.GO_ON),
    ("a child died, default", signals((S.SIGCHLD,)), Verdict.GO_ON),
    ("a resized window", signals((S.SIGWINCH,), GO_RUNTIME), Verdict.GO_ON),
    ("SIGUSR1, caught", signals((S.SIGUSR1,), (S.SIGUSR1,)), Verdict.GO_ON),
    ("stopped", signals((S.SIGSTOP,)), Verdict.GO_ON),
    ("Ctrl-Z", signals((S.SIGTSTP,)), Verdict.GO_ON),
    ("continued", signals((S.SIGCONT,)), Verdict.GO_ON),
    ("Go's preemption, then Ctrl-C", signals((23, 2), GO_RUNTIME), Verdict.LEAVE),
    ("Go's preemption, then kill -9", signals((23, 9), GO_RUNTIME), Verdict.END),
]


@pytest.mark.parametrize(("seen", "verdict"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_the_pending_signals_decide(seen: Signals, verdict: Verdict) -> None:
    assert judge(seen) is verdict


def test_a_caller_that_cannot_be_seen_is_neither_dying_nor_well() -> None:
    assert judge(None) is Verdict.UNSEEN


@pytest.mark.parametrize("number", range(1, 65))
@pytest.mark.parametrize("disposition", ["default", "caught", "ignored", "blocked"])
def test_the_table_is_total_over_signals(number: int, disposition: str) -> None:
    seen = signals(
        (number,),
        caught=(number,) if disposition == "caught" else (),
        ignored=(number,) if disposition == "ignored" else (),
        blocked=(number,) if disposition == "blocked" else (),
    )
    harmless = {S.SIGCHLD, S.SIGCONT, S.SIGURG, S.SIGWINCH, *(19, 20, 21, 22)}
    if number == S.SIGKILL:
        expected = Verdict.END
    elif disposition in ("ignored", "blocked"):
        expected = Verdict.GO_ON
    elif disposition == "caught":
        expected = Verdict.LEAVE if number in (1, 2, 3, 15) else Verdict.GO_ON
    else:
        expected = Verdict.GO_ON if number in harmless else Verdict.END
    assert judge(seen) is expected


def test_every_served_opcode_has_a_rule() -> None:
    own = {Opcode.INIT, Opcode.DESTROY, Opcode.INTERRUPT, Opcode.NOTIFY_REPLY}
    assert set(interrupts.INTERRUPTION) == set(Opcode) - set(REFUSED) - own
    assert set(interrupts.INTERRUPTION) == {Opcode(number) for number in SERVED} - own


@pytest.mark.parametrize("opcode", list(Opcode))
@pytest.mark.parametrize("verdict", list(Verdict))
def test_how_long_a_request_may_go_on(opcode: Opcode, verdict: Verdict) -> None:
    rule = interrupts.INTERRUPTION.get(opcode, Interruption.NEVER)
    grace = grace_s(opcode, verdict)
    if verdict is Verdict.GO_ON or rule is Interruption.NEVER:
        assert grace is None
    elif verdict is Verdict.UNSEEN:
        assert grace == 1.0
    else:
        assert grace == (0.0 if rule is Interruption.AT_ONCE else interrupts.CHANGE_GRACE_S)


def test_a_user_waits_at_most_half_a_second() -> None:
    assert interrupts.CHANGE_GRACE_S + interrupts.ANSWER_S + 0.05 < 0.5
    assert interrupts.RECHECK_S + interrupts.CHANGE_GRACE_S <= 0.5


STATUS = """Name:\tcat
State:\tS (sleeping)
SigQ:\t0/1
SigPnd:\t0000000000000100
ShdPnd:\t0000000000000002
SigBlk:\t0000000000000001
SigIgn:\t0000000000001000
SigCgt:\t0000000180000000
"""


def test_status_is_read() -> None:
    assert interrupts.parse_status(STATUS) == Signals(
        pending=0x102, blocked=1, ignored=0x1000, caught=0x180000000, dead=False
    )
    assert interrupts.parse_status(STATUS.replace("S (", "Z (")).dead


@pytest.mark.parametrize(
    "text", ["", STATUS.replace("ShdPnd", "x"), STATUS.replace("0000000000000100", "zz")]
)
def test_a_status_without_its_masks_is_an_error(text: str) -> None:
    with pytest.raises(ValueError):
        interrupts.parse_status(text)


def test_an_unreadable_status_hides_the_caller(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "status").write_text("nonsense")
    assert interrupts.read_signals(7, str(tmp_path)) is None


def test_a_living_thread_without_a_status_is_hidden_not_gone(tmp_path: Path) -> None:
    assert interrupts.read_signals(os.getpid(), str(tmp_path)) is None


def test_the_kernel_itself_cannot_be_seen() -> None:
    assert interrupts.read_signals(0) is None


def test_real_processes_are_seen_as_they_are() -> None:
    program = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGUSR1, lambda *a: None)\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])\n"
        "print(flush=True); time.sleep(60)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        child.stdout.readline()
        os.kill(child.pid, signal.SIGUSR2)
        seen = interrupts.read_signals(child.pid)
        assert seen is not None
        assert seen.pending == mask(S.SIGUSR2) == seen.blocked
        assert seen.caught & mask(S.SIGUSR1)
        assert seen.ignored & mask(S.SIGHUP)
        assert judge(seen) is Verdict.GO_ON
        child.kill()
        deadline = time.monotonic() + 5
        while not (seen := interrupts.read_signals(child.pid)) or not seen.dead:
            assert time.monotonic() < deadline
        assert judge(seen) is Verdict.END  # a zombie
    finally:
        child.kill()
        child.communicate()
    assert judge(interrupts.read_signals(child.pid)) is Verdict.END  # gone
