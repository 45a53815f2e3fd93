"""The supervisor's loop: starts the worker, watches it, answers for it, and cleans up after it.

Events come from one selector; everything here returns at once.
"""

from __future__ import annotations

import contextlib
import logging
import os
import random
import selectors
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from netfs import systemd
from netfs.supervisor import deaths, mounts, watchdog
from netfs.supervisor.desk import Desk
from netfs.supervisor.fusectl import Control
from netfs.supervisor.watchdog import Verdict
from netfs.supervisor.worker import Message, Run, Worker

log = logging.getLogger(__name__)

_TICK_S: Final = 1.0
_DUMP_S: Final = 2.0
"""Between SIGABRT (stack dump) and SIGKILL."""
_KEPT_LINES: Final = 40

HURRY: Final = signal.SIGUSR1
"""Tells the worker, which has SIGTERM already, to wait for nothing more."""

EXIT_GAVE_UP: Final = 53
EXIT_LINK_LOST: Final = 54
EXIT_REMOUNT: Final = 75
EXIT_INTERRUPTED: Final = 130
"""Source: netfs/cli/exits.py."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the supervisor must know of a mount."""

    mountpoint: str | None  # None: mounted by somebody else (/dev/fd/N)
    source: str
    socket_path: str
    abort_after_s: float
    remount: bool
    stop_within_s: float  # how long the worker may take to write everything back
    version: str

    @property
    def name(self) -> str:
        """What the log calls it."""
        return self.mountpoint or self.source


class Supervisor:
    """One mount's life."""

    def __init__(self, settings: Settings, run: Run, on_ready: Callable[[], None]) -> None:
        self._settings = settings
        self._run = run
        self._on_ready = on_ready
        self._selector = selectors.DefaultSelector()
        self._desk = Desk(
            settings.socket_path,
            self._selector,
            act=self._act,
            ask=self._ask_worker,
            status=self.status,
            patience_s={"flush": settings.stop_within_s},
        )
        self._worker: Worker | None = None
        self._generation = 0
        self._was_ready = False
        self._minor: int | None = None  # the device of our mount
        self._before: int | None = None  # of what was mounted there before it
        self._fusectl: Control | None = None
        self._waiting = watchdog.Waiting()
        self._waiting_count: int | None = None
        self._beat: Message = {}
        self._last_beat = time.monotonic()
        self._deaths = deaths.Deaths()
        self._attempts = 0
        self._restart_at: float | None = None
        self._kill_at: float | None = None
        self._stopping = False
        self._aborted = False
        self._halted: str | None = None  # why nothing is tried any more
        self._exit_code: int | None = None
        self._last_tick = time.monotonic()
        self._started = time.time()
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._remounts = 0

    # --- life -----------------------------------------------------------------------------

    def live(self) -> int:
        """Run until the mount is gone for good; the exit code."""
        wake_read, wake_write = socket.socketpair()
        for end in (wake_read, wake_write):
            end.setblocking(False)
        self._selector.register(
            wake_read, selectors.EVENT_READ, lambda: self._on_signals(wake_read)
        )
        previous_fd = signal.set_wakeup_fd(wake_write.fileno(), warn_on_full_buffer=False)
        watched = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
        previous = {number: signal.signal(number, lambda *_: None) for number in watched}
        try:
            self._start()
            while self._exit_code is None:
                for key, _ in self._selector.select(self._timeout()):
                    if self._selector.get_map().get(key.fd) is key:  # not dropped just now
                        key.data()
                self._on_time()
        finally:
            signal.set_wakeup_fd(previous_fd)
            for number, handler in previous.items():
                signal.signal(number, handler)
            self._clean_up()
            wake_read.close()
            wake_write.close()
        systemd.notify("STOPPING=1")
        return self._exit_code

    def _clean_up(self) -> None:
        if self._worker is not None:  # only when something here has failed
            self._worker.signal(signal.SIGKILL)
            self._worker.close()
        self._unmount()
        self._desk.close()
        self._selector.close()

    def _timeout(self) -> float:
        now = time.monotonic()
        moments = [self._last_tick + _TICK_S]
        moments += [at for at in (self._restart_at, self._kill_at) if at is not None]
        moments += self._desk.deadlines()
        return max(0.0, min(moments) - now)

    def _start(self) -> None:
        self._restart_at = self._kill_at = None
        self._generation += 1
        self._aborted = False
        self._beat = {}
        self._last_beat = time.monotonic()
        self._waiting = watchdog.Waiting()
        self._minor = None
        self._before = self._topmost()
        self._worker = Worker(self._run_child, self._generation)
        self._selector.register(self._worker.channel, selectors.EVENT_READ, self._on_channel)

    def _run_child(self, channel: socket.socket, generation: int, dump_fd: int) -> int:
        """In the child: what belongs to the supervisor is closed first."""
        self._desk.abandon()
        self._selector.close()
        if self._fusectl is not None:
            self._fusectl.close()
        return self._run(channel, generation, dump_fd)

    def _stop(self, why: str) -> None:
        if self._stopping and self._was_ready and self._worker is not None:
            if why != "SIGHUP":  # a shell and the kernel both tell that the terminal is gone
                log.info("%s again: nothing more is waited for", why)
                self._worker.signal(HURRY)
            return
        log.info("%s: stopping", why)
        systemd.notify("STOPPING=1")
        self._stopping = True
        self._restart_at = None
        if self._worker is None:
            self._finish(0)
            return
        self._worker.signal(signal.SIGTERM if self._was_ready else signal.SIGINT)
        if self._kill_at is None:
            self._kill_at = time.monotonic() + self._settings.stop_within_s

    def _finish(self, code: int) -> None:
        if self._exit_code is None:
            self._exit_code = code

    # --- events ---------------------------------------------------------------------------

    def _on_signals(self, wake: socket.socket) -> None:
        try:
            numbers = set(wake.recv(256))
        except BlockingIOError:
            return
        if numbers & {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}:
            name = next(
                signal.Signals(number).name
                for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
                if number in numbers
            )
            self._stop(name)
        if signal.SIGCHLD in numbers:
            self._reap()

    def _reap(self) -> None:
        """Take the status of every child that has ended; as PID 1 also of adopted ones."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if self._worker is not None and pid == self._worker.pid:
                self._on_end(self._worker, os.waitstatus_to_exitcode(status))

    def _on_channel(self) -> None:
        worker = self._worker
        if worker is None:
            return
        messages = worker.receive()
        if not messages:  # closed: its end comes by SIGCHLD
            with contextlib.suppress(KeyError):
                self._selector.unregister(worker.channel)
        for message in messages:
            self._on_message(worker, message)

    def _on_message(self, worker: Worker, message: Message) -> None:
        match message.get("event"):
            case "mounted":
                worker.is_mounted = True
                self._attach()
            case "ready":
                worker.is_ready = True
                self._attempts = 0
                if not self._was_ready:
                    self._was_ready = True
                    self._on_ready()
                    systemd.notify(f"READY=1\nMAINPID={os.getpid()}\nSTATUS=mounted")
                else:
                    self._remounts += 1
                    log.warning("%s: mounted again", self._settings.name)
            case "beat":
                if self._kill_at is not None and self._stopping:
                    self._extend(int(self._beat.get("dirty", 0)), int(message.get("dirty", 0)))
                self._beat = message
                self._last_beat = time.monotonic()
            case "failed":
                worker.failure = message
            case "log":
                self._lines.append(str(message.get("line")))
            case "answer":
                body = message.get("body") or {}
                if "beat" in body:  # newer than the last one
                    self._beat, self._last_beat = body["beat"], time.monotonic()
                self._desk.answer(message.get("number"), body)

    def _extend(self, before: int, now: int) -> None:
        """A worker that is told to stop may go on for as long as data reaches the server."""
        if now < before:
            self._kill_at = time.monotonic() + self._settings.stop_within_s

    def _attach(self) -> None:
        """Look up the new mount in the control filesystem."""
        self._detach_fusectl()
        self._minor = self._topmost()
        if self._minor is not None:
            self._fusectl = Control(self._minor)
            if self._topmost() != self._minor:
                self._detach_fusectl()  # gone already: the files may be another mount's
            elif not self._fusectl.available:
                log.info("no fuse control filesystem; the watchdog can only end the worker")

    def _detach_fusectl(self) -> None:
        if self._fusectl is not None:
            self._fusectl.close()
            self._fusectl = None

    # --- the worker's end -----------------------------------------------------------------

    def _on_end(self, worker: Worker, code: int) -> None:
        self._on_channel()  # its last words
        with contextlib.suppress(KeyError):
            self._selector.unregister(worker.channel)
        stacks = worker.stacks()
        self._worker = None
        self._kill_at = None
        if code < 0 and self._fusectl is not None:
            self._fusectl.abort()  # a leaked descriptor would keep callers blocked
        worker.close()
        if stacks:
            log.error("stacks of the worker that hung:\n%s", stacks)
            self._lines.extend(stacks.splitlines()[-_KEPT_LINES:])
        self._decide(worker, code)

    def _decide(self, worker: Worker, code: int) -> None:
        """What comes after a worker that ended with *code* (negative: a signal)."""
        failure = worker.failure or {}
        message = str(failure.get("message", ""))
        if not self._was_ready and not self._stopping:
            self._unmount()
            if message:
                sys.stderr.write(f"netfs: {message}\n")
            elif code < 0:
                sys.stderr.write(f"netfs: the worker died: {_name(code)}\n")
            self._finish(code if code > 0 else 1)
            return
        # looked at before unmounting: a mount that is still there was aborted, not unmounted
        remains = self._minor is not None and self._topmost() == self._minor
        self._unmount()
        if self._stopping:
            self._finish(EXIT_INTERRUPTED if code == EXIT_INTERRUPTED else max(0, code))
        elif code == 0 and not remains and not self._aborted:
            log.info("%s: unmounted", self._settings.name)
            self._finish(0)
        elif code == EXIT_LINK_LOST:
            self._finish(code)
        elif not self._settings.remount:
            log.error(
                "%s: the worker ended (%s); not mounted again (noremount)",
                self._settings.name,
                message or _name(code),
            )
            self._finish(EXIT_GAVE_UP)
        elif code in (0, EXIT_REMOUNT):
            self._start()
        elif worker.generation > 1 and not worker.is_ready and worker.failure is not None:
            self._retry(message, may_retry=bool(failure.get("retry", True)))
        else:
            self._on_death(message or _name(code))

    def _retry(self, message: str, *, may_retry: bool) -> None:
        """The server can't be reached for mounting again: later, or not by itself."""
        if not may_retry:
            self._halted = message
            log.error(
                "%s: %s; not trying again: see to it, then 'netfs reconnect %s'",
                self._settings.name,
                message,
                self._settings.name,
            )
            return
        delay = deaths.backoff(self._attempts, random.random())
        log.log(
            logging.WARNING if self._attempts == 0 else logging.INFO,
            "%s: %s; trying again in %.0f s",
            self._settings.name,
            message,
            delay,
        )
        self._attempts += 1
        self._restart_at = time.monotonic() + delay

    def _on_death(self, how: str) -> None:
        log.error("%s: the worker died: %s", self._settings.name, how)
        if self._deaths.add(time.monotonic()):
            log.critical(
                "%s: the worker died %d times in a minute; giving up. Its last lines:\n%s",
                self._settings.name,
                deaths.MOST,
                "\n".join(self._lines),
            )
            self._finish(EXIT_GAVE_UP)
        else:
            self._start()

    def _topmost(self) -> int | None:
        """The device of the FUSE mount that is seen at the mountpoint."""
        point = self._settings.mountpoint
        mount = mounts.find(point) if point is not None else None
        return mount.minor if mount is not None and mount.is_fuse else None

    def _unmount(self) -> None:
        """Take our mount away, if it is there; somebody else's stays."""
        self._detach_fusectl()
        point, minor = self._settings.mountpoint, self._minor
        if minor is None and (found := self._topmost()) != self._before:
            minor = found  # the worker ended between mounting and telling
        if point is not None and minor is not None and not mounts.detach(point, minor):
            log.error("%s: can't be unmounted; 'umount -l %s' as root may help", point, point)

    # --- watching -------------------------------------------------------------------------

    def _on_time(self) -> None:
        now = time.monotonic()
        self._desk.on_time(now)
        if self._restart_at is not None and now >= self._restart_at:
            self._start()
        if self._kill_at is not None and now >= self._kill_at:
            self._kill_at = None
            if self._worker is not None:
                if self._fusectl is not None:
                    self._fusectl.abort()
                log.error("%s: the worker does not end; killed", self._settings.name)
                self._worker.signal(signal.SIGKILL)
        if now - self._last_tick >= _TICK_S:
            if now - self._last_tick > 5 * _TICK_S:
                # this process was stopped too: nobody's silence means anything
                self._last_beat = now
                self._waiting = watchdog.Waiting()
            self._last_tick = now
            systemd.notify("WATCHDOG=1")
            self._watch(now)
            self._reap()  # as PID 1 also of those that ended before the signal was watched

    def _watch(self, now: float) -> None:
        worker = self._worker
        if worker is None or not worker.is_mounted or self._aborted or self._kill_at is not None:
            return
        self._waiting_count = self._fusectl.waiting() if self._fusectl is not None else None
        beats = now - self._last_beat < 3 * _TICK_S
        self._waiting.look(
            now, self._waiting_count, beats=beats, reported=int(self._beat.get("waiting", 0))
        )
        down_s = self._beat.get("down_s")
        sample = watchdog.Sample(
            now=now,
            last_beat=self._last_beat,
            down_since=None if down_s is None else self._last_beat - float(down_s),
            waiting_since=self._waiting.since,
        )
        match watchdog.judge(sample, self._settings.abort_after_s):
            case Verdict.LINK_LOST:
                log.error(
                    "%s: the link is down for %.0f s and callers wait: aborting the mount",
                    self._settings.name,
                    now - (sample.down_since or now),
                )
                self._abort()
            case Verdict.STUCK:
                log.error(
                    "%s: the worker has not turned for %.0f s and callers wait: "
                    "aborting the mount, ending the worker",
                    self._settings.name,
                    now - self._last_beat,
                )
                # In this order: a worker that waits for its own mount is freed by the abort, and
                # would be elsewhere by the time its stacks are dumped.
                self._end_stuck(worker)
                self._abort()
            case Verdict.FINE:
                pass

    def _abort(self) -> bool:
        """End all requests; the worker stays, to deliver what it holds when the link is back."""
        self._aborted = True
        done = self._fusectl is not None and self._fusectl.abort()
        if not done and self._worker is not None:
            # the last descriptor of /dev/fuse closes with the worker, which ends the connection
            self._end_stuck(self._worker)
        point = self._settings.mountpoint
        if point is not None and self._minor is not None and self._topmost() == self._minor:
            if not done:
                with contextlib.suppress(OSError):  # -f fails with EBUSY, but it aborts
                    mounts.umount(point, force=True)
            mounts.detach(point, self._minor)
        if done and not self._settings.remount and self._worker is not None:
            self._worker.signal(signal.SIGTERM)
        return done

    def _end_stuck(self, worker: Worker) -> None:
        worker.signal(signal.SIGCONT)  # a stopped process could not dump its stacks
        worker.signal(signal.SIGABRT)
        self._kill_at = time.monotonic() + _DUMP_S

    # --- answering ------------------------------------------------------------------------

    def _ask_worker(self, number: int, question: str) -> bool:
        return self._worker is not None and self._worker.ask(number, question)

    def _act(self, question: str) -> Message | None:
        """What the supervisor does itself; None: the worker is to be asked."""
        match question:
            case "status" | "ps" | "flush":
                return None
            case "reconnect":
                if self._worker is not None or self._halted is None:
                    return None
                self._halted = None
                self._start()
                return {"done": True}
            case "abort":
                return {"done": self._worker is not None and self._abort()}
            case "stop":
                self._stop("asked to")
                return {"done": True}
            case _:
                return {"error": f"unknown question {question!r}"}

    def status(self) -> dict[str, Any]:
        """What the supervisor knows by itself."""
        worker = self._worker
        if self._fusectl is not None:
            self._waiting_count = self._fusectl.waiting()
        return {
            "mountpoint": self._settings.mountpoint,
            "source": self._settings.source,
            "version": self._settings.version,
            "state": self._state(),
            "reason": self._halted,
            "pid": os.getpid(),
            "worker_pid": worker.pid if worker is not None else None,
            "beat_age_s": round(time.monotonic() - self._last_beat, 3) if worker else None,
            "waiting": self._waiting_count,
            "can_abort": self._fusectl is not None and self._fusectl.available,
            "started": self._started,
            "remounts": self._remounts,
            "lines": list(self._lines),
            "beat": {key: value for key, value in self._beat.items() if key != "event"},
        }

    def _state(self) -> str:
        if self._stopping:
            return "stopping"
        if self._halted is not None:
            return "halted"
        if self._aborted:
            return "aborted"
        if self._worker is None:
            return "waiting to mount again"
        return "mounted" if self._worker.is_ready else "mounting"


def _name(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def supervise(settings: Settings, run: Run, on_ready: Callable[[], None]) -> int:
    """Hold the mount of *settings* until it ends; the process's exit code.

    *run* is the worker (see worker.Run); *on_ready* is called once, when the mount answers.

    Raises:
        OSError: the control socket can't be made.
    """
    return Supervisor(settings, run, on_ready).live()
