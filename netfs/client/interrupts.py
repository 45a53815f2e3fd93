"""The policy of interruption: who is told EINTR for a signal, and when.

The kernel sends one INTERRUPT per request, for any signal that could be delivered: for a kill -9
as for the SIGURG with which Go preempts its threads.  EINTR as an answer to the latter breaks
programs that are right not to expect it, and no second INTERRUPT comes for a Ctrl-C after it.  So
the signals pending for the caller decide, and they are looked at again until the request is
answered.  Pure but for the reader of /proc at the end; timers belong to the dispatcher.
"""

from __future__ import annotations

import enum
import os
import signal
from collections.abc import Mapping
from typing import Final, NamedTuple

from netfs.fuse.abi import Opcode

RECHECK_S: Final = 0.2
"""How often the signals of a caller are looked at again, until its request is answered."""

UNSEEN_GRACE_S: Final = 1.0
"""How long a caller whose signals can't be seen (another pid namespace, hidepid) goes on: most
signals that are not meant to end anything find their request answered by then."""

CHANGE_GRACE_S: Final = 0.2
"""How long a request that changes something may still take to end by itself: a known outcome is
worth that, and 0.5 s is what a user may have to wait, perhaps twice: for fsync and for close."""

ANSWER_S: Final = 0.1
"""How long a cancelled operation may take to clean up before its caller is answered anyway."""


LEAVING_S: Final = 10.0
"""How long a caller that was told EINTR is remembered: if it exits now, closing its files is a
FLUSH that no signal reaches any more (the kernel drops signals to exiting processes), and that
nobody looks at the result of.  It is treated as interrupted too; its data stays queued.  The same
goes for every caller that exits while the link is known to be down."""


class Verdict(enum.Enum):
    """What the signals pending for a caller mean."""

    END = "the caller is dying"
    LEAVE = "the user wants the caller to stop waiting"
    GO_ON = "nothing that would end it"
    UNSEEN = "its signals can't be seen"


class Signals(NamedTuple):
    """Signal masks of one thread, bit n-1 for signal n.  Source: proc_pid_status(5)."""

    pending: int  # for the thread or its process
    blocked: int
    ignored: int
    caught: int
    dead: bool  # zombie or gone


def _mask(*signals: signal.Signals) -> int:
    return sum(1 << number - 1 for number in signals)


_KILL: Final = _mask(signal.SIGKILL)

_HARMLESS: Final = _mask(
    signal.SIGCHLD,
    signal.SIGCONT,
    signal.SIGURG,
    signal.SIGWINCH,
    signal.SIGSTOP,
    signal.SIGTSTP,
    signal.SIGTTIN,
    signal.SIGTTOU,
)
"""Signals whose default action does not end the process.  Source: signal(7)."""

_LEAVING: Final = _mask(signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
"""Signals that mean "stop what you do" even to a program that catches them."""


def judge(signals: Signals | None) -> Verdict:
    """Decide about one caller; None when nothing can be seen of it."""
    if signals is None:
        return Verdict.UNSEEN
    if signals.dead:
        return Verdict.END
    pending = signals.pending & ~signals.blocked & ~signals.ignored
    if signals.pending & _KILL or pending & ~signals.caught & ~_HARMLESS:
        return Verdict.END
    if pending & signals.caught & _LEAVING:
        return Verdict.LEAVE
    return Verdict.GO_ON


class Interruption(enum.Enum):
    """What an opcode allows."""

    AT_ONCE = "nothing changes: the wait is cancelled and the answer is EINTR"
    AFTER_GRACE = (
        "something may change: it may still end by itself for CHANGE_GRACE_S, then the wait is "
        "cancelled; what was sent is abandoned with its outcome unknown and caches are dropped; "
        "data already taken stays queued"
    )
    NEVER = "nobody waits for the answer, or it never waits"


INTERRUPTION: Final[Mapping[Opcode, Interruption]] = {
    Opcode.LOOKUP: Interruption.AT_ONCE,
    Opcode.GETATTR: Interruption.AT_ONCE,
    Opcode.READLINK: Interruption.AT_ONCE,
    Opcode.READ: Interruption.AT_ONCE,
    Opcode.STATFS: Interruption.AT_ONCE,
    Opcode.ACCESS: Interruption.AT_ONCE,
    Opcode.OPENDIR: Interruption.AT_ONCE,
    Opcode.READDIR: Interruption.AT_ONCE,
    Opcode.READDIRPLUS: Interruption.AT_ONCE,
    Opcode.LSEEK: Interruption.AT_ONCE,
    Opcode.STATX: Interruption.AT_ONCE,
    Opcode.OPEN: Interruption.AFTER_GRACE,  # O_TRUNC comes with it
    Opcode.SETATTR: Interruption.AFTER_GRACE,
    Opcode.SYMLINK: Interruption.AFTER_GRACE,
    Opcode.MKNOD: Interruption.AFTER_GRACE,
    Opcode.MKDIR: Interruption.AFTER_GRACE,
    Opcode.UNLINK: Interruption.AFTER_GRACE,
    Opcode.RMDIR: Interruption.AFTER_GRACE,
    Opcode.RENAME: Interruption.AFTER_GRACE,
    Opcode.RENAME2: Interruption.AFTER_GRACE,
    Opcode.LINK: Interruption.AFTER_GRACE,
    Opcode.CREATE: Interruption.AFTER_GRACE,
    Opcode.WRITE: Interruption.AFTER_GRACE,
    Opcode.FLUSH: Interruption.AFTER_GRACE,
    Opcode.FSYNC: Interruption.AFTER_GRACE,
    Opcode.FALLOCATE: Interruption.AFTER_GRACE,
    Opcode.COPY_FILE_RANGE: Interruption.AFTER_GRACE,
    Opcode.FORGET: Interruption.NEVER,
    Opcode.BATCH_FORGET: Interruption.NEVER,
    Opcode.RELEASE: Interruption.NEVER,  # the kernel's own, after the last close
    Opcode.RELEASEDIR: Interruption.NEVER,
}
"""Opcodes that are served; what is refused or the dispatcher's own never waits."""


def grace_s(opcode: int, verdict: Verdict) -> float | None:
    """How long after its INTERRUPT a request may go on; None: for ever.

    A caller that dies is treated like one that was told to stop: it can wait a moment longer, and
    nobody can say afterwards whether its rename was done.
    """
    rule = INTERRUPTION.get(Opcode(opcode), Interruption.NEVER)
    if rule is Interruption.NEVER or verdict is Verdict.GO_ON:
        return None
    if verdict is Verdict.UNSEEN:
        return UNSEEN_GRACE_S
    return CHANGE_GRACE_S if rule is Interruption.AFTER_GRACE else 0.0


def parse_status(text: str) -> Signals:
    """Read the signal masks of /proc/PID/status.

    Raises:
        ValueError: a mask is missing or malformed.
    """
    fields: dict[str, str] = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        fields[name] = value.strip()
    try:
        masks = {name: int(fields[name], 16) for name in _MASKS}
        state = fields["State"][:1]
    except KeyError as error:
        raise ValueError(f"/proc status without {error}") from error
    return Signals(
        pending=masks["SigPnd"] | masks["ShdPnd"],
        blocked=masks["SigBlk"],
        ignored=masks["SigIgn"],
        caught=masks["SigCgt"],
        dead=state in ("Z", "X"),
    )


_MASKS: Final = ("SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt")

_GONE: Final = Signals(pending=0, blocked=0, ignored=0, caught=0, dead=True)


def read_signals(pid: int, proc: str = "/proc") -> Signals | None:
    """The signals of thread *pid* (as FUSE numbers it), or None if they can't be seen.

    /proc/PID/status is safe to read for a process that is stuck in our own mount: unlike cmdline
    it takes no lock of its memory.
    """
    if pid == 0:
        return None
    try:
        with open(f"{proc}/{pid}/status", encoding="ascii", errors="replace") as file:
            return parse_status(file.read())
    except (FileNotFoundError, ProcessLookupError):
        return _GONE if _is_gone(pid) else None
    except (PermissionError, ValueError):
        return None


def is_exiting(pid: int, proc: str = "/proc") -> bool:
    """Whether thread *pid* is on its way out, where signals no longer reach it."""
    try:
        with open(f"{proc}/{pid}/stat", encoding="ascii", errors="replace") as file:
            # The name in parentheses may hold anything, even parentheses.
            flags = int(file.read().rpartition(")")[2].split()[6])
    except (OSError, ValueError, IndexError):
        return False  # gone or hidden: then it is judged by its signals alone
    return bool(flags & _PF_EXITING)


_PF_EXITING: Final = 0x4  # linux/sched.h


def _is_gone(pid: int) -> bool:
    """Tells a thread that has ended from one that hidepid hides."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
