"""The worker: puts the parts of one mount together, starts them in order and ends them in order.

connect and authenticate → check the remote directory → mount → INIT → ready; and back: everything
buffered reaches the server (or is saved), then the mount goes, then the link.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import errno
import faulthandler
import gc
import logging
import os
import signal
import socket
import stat
import time
from collections.abc import Coroutine
from typing import Any, Final

import uvloop

from netfs import logs
from netfs.client import heap, kerneltimeout, mountinfo
from netfs.client import mount as mounting
from netfs.client.config import Config
from netfs.client.control import Control
from netfs.client.device import Aborted, Device, Unmounted
from netfs.client.dispatcher import End, shake_hands
from netfs.client.heartbeat import Uplink, beat
from netfs.client.identity import ask_login
from netfs.client.mount import Mounted, MountError, MountErrorKind
from netfs.client.parts import Parts, Root, assemble
from netfs.client.remote.charset import CharsetSession, new_session
from netfs.client.remote.errors import ConnectError
from netfs.client.remote.netwatch import NetWatch
from netfs.client.remote.prompt import (
    NoPrompter,
    PasswordPrompter,
    Prompter,
    choose_prompter,
)
from netfs.client.remote.session import Session
from netfs.client.remote.sshconfig import unsupported_keywords
from netfs.client.remote.transport import connect
from netfs.client.report import Report
from netfs.client.turns import Background
from netfs.fuse.errors import FuseProtocolError

log = logging.getLogger(__name__)

EXIT_FAILED: Final = 1
EXIT_LINK_LOST: Final = 54
EXIT_REMOUNT: Final = 75
EXIT_INTERRUPTED: Final = 130
EXIT_MOUNT: Final = {
    MountErrorKind.MISSING: 40,
    MountErrorKind.NOT_A_DIRECTORY: 41,
    MountErrorKind.NOT_PERMITTED: 42,
    MountErrorKind.NO_DEVICE: 43,
    MountErrorKind.NO_HELPER: 44,
    MountErrorKind.IN_USE: 45,
    MountErrorKind.REFUSED: 45,
}
"""Source: netfs/cli/exits.py."""

HURRY: Final = signal.SIGUSR1
"""The supervisor was asked a second time.  Source: netfs/supervisor/supervisor.py."""

_LOOK_S: Final = 0.25
"""Between two looks at what is still to be delivered."""

_GC_THRESHOLDS: Final = (50_000, 20, 100)
"""Hundreds of thousands of nodes live long; a full collection of them stops everybody."""

_CLOSE_S: Final = 5.0
"""For what is under way when the mount is gone, and for saying goodbye to the server."""


class DirectoryProblem(enum.Enum):
    """What is wrong with the remote directory; the value is the exit code."""

    MISSING = 30
    NOT_A_DIRECTORY = 31
    DENIED = 32


class DirectoryError(Exception):
    """The remote directory can't be served; str() is the one line for the user."""

    def __init__(self, problem: DirectoryProblem, message: str) -> None:
        super().__init__(message)
        self.problem = problem


class SetUpError(Exception):
    """Something asked for beside the mount can't be had; str() is the one line for the user."""


class _Stopping(Exception):
    """Asked to stop before the mount was ready."""


class Daemon:
    """One generation of the worker."""

    def __init__(
        self, config: Config, uplink: Uplink, generation: int, password: str | None
    ) -> None:
        self._config = config
        self._uplink = uplink
        self._password = password
        self._is_first = generation == 1
        self._report = Report()
        self._group: asyncio.TaskGroup
        self._background = Background(_failed)
        self._starting: asyncio.Task[Any] | None = None  # cancelled by a signal
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()  # asked a second time: nothing more is waited for

    async def live(self) -> int:
        """The worker's whole life; the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)
        loop.add_signal_handler(HURRY, self._hurry.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: None)  # the supervisor decides about it
        async with asyncio.TaskGroup() as self._group:
            beating = self._group.create_task(beat(self._uplink, self._report.beat))
            try:
                return await self._explain(self._run())
            finally:
                beating.cancel()
                await self._stop_background()

    async def _stop_background(self) -> None:
        """Cancel what nobody waits for; what does not end then holds up the end no longer."""
        try:
            async with asyncio.timeout(_CLOSE_S):
                await self._background.stop()
        except TimeoutError:
            log.warning("work in the background did not end")

    def _on_signal(self) -> None:
        # One ^C comes twice: from the terminal and from the supervisor, which had it as well. So
        # how often it comes says nothing; the supervisor counts.
        if self._starting is not None:
            self._starting.cancel()
        self._stop.set()

    async def _explain(self, run: Coroutine[Any, Any, int]) -> int:
        """What went wrong becomes one line and an exit code."""
        try:
            return await run
        except _Stopping:
            return EXIT_INTERRUPTED
        except ConnectError as error:
            return self._fail(error.kind.exit_code, str(error), retry=error.kind.may_retry)
        except SetUpError as error:
            return self._fail(EXIT_FAILED, str(error), retry=True)
        except DirectoryError as error:
            return self._fail(error.problem.value, str(error), retry=True)
        except MountError as error:
            return self._fail(EXIT_MOUNT[error.kind], error.message, retry=True)
        except (FuseProtocolError, Unmounted, Aborted) as error:
            text = str(error) or "unmounted before it was ready"
            return self._fail(EXIT_MOUNT[MountErrorKind.REFUSED], text, retry=True)

    def _fail(self, code: int, message: str, *, retry: bool) -> int:
        self._uplink.tell("failed", code=code, message=message, retry=retry)
        return code

    # --- the beginning --------------------------------------------------------------------

    async def _run(self) -> int:
        self._starting = asyncio.current_task()
        assert self._starting is not None
        async with contextlib.AsyncExitStack() as stack:
            try:
                await self._start_metrics(stack)
                session = await self._connect(stack)
                root = await self._look_at_root(session)
                if isinstance(session, CharsetSession):
                    session.base = root.path
                mounted = await asyncio.to_thread(
                    mounting.mount, self._config.mount, self._config.source.text
                )
                device = Device(mounted.fd)
                stack.callback(device.close)
                # from here on something must be taken away again, whatever happens
                stack.callback(self._unmount, mounted, lazy=True)
                self._uplink.tell("mounted")
                capabilities = await shake_hands(
                    device,
                    cache_symlinks=self._config.cache.enabled,
                    time_gran_ns=1 if self._may_tell_nanoseconds(session) else 10**9,
                )
            except asyncio.CancelledError:
                if not self._stop.is_set():
                    raise
                self._starting.uncancel()
                raise _Stopping from None
            finally:
                self._starting = None
            if mounted.connection is not None and self._config.cache.read_ahead:
                mounting.raise_read_ahead(mounted.connection)
            parts = assemble(
                self._config, session, root, device, capabilities, self._background.run
            )
            self._report.parts = parts
            parts.notifier.start()
            return await self._serve(parts, session, mounted)

    async def _start_metrics(self, stack: contextlib.AsyncExitStack) -> None:
        """Raises SetUpError if they can't be served."""
        if self._config.daemon.metrics is None:
            return
        address, port = self._config.daemon.metrics
        try:
            # imported only here: the library is an extra
            from netfs.client.metrics import Metrics
        except ImportError:
            raise SetUpError(
                "option 'metrics' needs prometheus-client: pip install 'netfs[metrics]'"
            ) from None
        labels = {
            "source": self._config.source.text,
            "mountpoint": self._config.mount.mountpoint,
        }
        metrics = Metrics(self._report.status, labels)
        try:
            await metrics.start(address, port)
        except OSError as error:
            raise SetUpError(f"metrics={address}:{port}: {error.strerror}") from None
        stack.callback(metrics.stop)

    def _may_tell_nanoseconds(self, session: Session) -> bool:
        return session.has_extended_attrs or self._config.semantics.delay_connect

    async def _connect(self, stack: contextlib.AsyncExitStack) -> Session:
        config = self._config
        prompter: Prompter = NoPrompter()
        if self._is_first:
            batch = "yes" in config.ssh.keywords.get("batchmode", ())
            prompter = choose_prompter(os.environ, batch=batch)
        if self._password is not None:
            prompter = PasswordPrompter(self._password, prompter)
        if self._is_first and (words := unsupported_keywords(config)):
            log.warning(
                "not supported and ignored: %s (-o ssh_command=ssh hands them to the system's ssh)",
                ", ".join(words),
            )
        background = prompter.background()
        session = new_session(config, lambda: connect(config, background))
        stack.push_async_callback(self._close, session)
        self._report.session = session
        if not config.semantics.delay_connect:
            await session.start(await connect(config, prompter))
        return session

    async def _close(self, session: Session) -> None:
        """Say goodbye to the server, but not for ever."""
        try:
            async with asyncio.timeout(_CLOSE_S):
                await session.end()
        except TimeoutError:
            log.info("the server did not say goodbye")

    async def _look_at_root(self, session: Session) -> Root:
        """The served directory; raises DirectoryError if it can't be served."""
        path = self._config.source.path
        if self._config.semantics.delay_connect:
            return Root(path or b".", None, None)
        shown = f"{self._config.source.host}:{os.fsdecode(path)}"
        try:
            absolute, attrs, login = await asyncio.gather(
                session.realpath(path or b"."),
                session.stat(path or b"."),
                ask_login(session),
            )  # in one round trip
        except OSError as error:
            if self._config.semantics.check_root:
                raise _directory_error(shown, error) from None
            return Root(path or b".", None, await ask_login(session))
        if (
            self._config.semantics.check_root
            and attrs.mode is not None
            and not stat.S_ISDIR(attrs.mode)
        ):
            raise _not_a_directory(shown)
        return Root(absolute, attrs, login)

    # --- serving and the end --------------------------------------------------------------

    async def _serve(self, parts: Parts, session: Session, mounted: Mounted) -> int:
        control = Control(
            self._uplink,
            {
                "status": self._report.status,
                "ps": self._report.ps,
                "flush": lambda: self._flush(parts),
                "reconnect": lambda: self._reconnect(session),
            },
            spawn=self._background.run,
            on_orphaned=self._on_orphaned,
        )
        control.start()
        watch = NetWatch(lambda what: session.nudge())
        if self._config.semantics.delay_connect:
            self._background.run(_log_in_later(session, parts))
        running = self._group.create_task(session.run())
        serving = self._group.create_task(parts.dispatcher.run())
        stopping = self._group.create_task(self._stop.wait())
        self._say_ready()
        try:
            await asyncio.wait([running, serving, stopping], return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                code = await self._after_unmount(parts, session, mounted, serving.result())
            elif stopping.done():
                code = await self._on_stop(parts, session, mounted, serving)
            else:
                reason = running.result()
                log.error("the link is lost and noreconnect was asked for: %s", reason)
                self._unmount(mounted, lazy=True)
                code = EXIT_LINK_LOST
            await self._end(parts)
        finally:
            control.stop()
            watch.close()
            for task in (running, serving, stopping):
                task.cancel()
            # the device may be closed only when nothing listens to it any more
            await asyncio.wait([running, serving, stopping])
        return code

    def _say_ready(self) -> None:
        if self._is_first and not self._config.daemon.foreground:
            logs.configure(self._config.daemon, foreground=False)
            logs.detach_from_terminal()
        # what lives as long as the mount is not looked at by each collection
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_GC_THRESHOLDS)
        log.info("%s is mounted on %s", self._config.source.text, self._config.mount.mountpoint)
        self._uplink.tell("ready")

    def _on_orphaned(self) -> None:
        log.error("the supervisor is gone: unmounting")
        self._stop.set()

    def _reconnect(self, session: Session) -> dict[str, object]:
        session.retry()
        return {"done": True}

    async def _flush(self, parts: Parts) -> dict[str, object]:
        """Before ``netfs umount``: everything buffered reaches the server."""
        await self._deliver(parts)
        return {"undelivered": _undelivered(parts)}

    async def _deliver(self, parts: Parts) -> None:
        """Have the server take what it is owed, for as long as that goes on.

        Ends after link_timeout without an acknowledgement, or when asked a second time.
        """
        files = parts.context.files
        draining = self._group.create_task(_guarded(files.drain()))
        hurrying = self._group.create_task(self._hurry.wait())
        patience_s = self._config.link.link_timeout_s
        left, deadline = files.statistics().dirty, time.monotonic() + patience_s
        try:
            while not draining.done() and not hurrying.done():
                await asyncio.wait(
                    [draining, hurrying], timeout=_LOOK_S, return_when=asyncio.FIRST_COMPLETED
                )
                dirty = files.statistics().dirty
                if dirty < left:
                    left, deadline = dirty, time.monotonic() + patience_s
                if time.monotonic() >= deadline:
                    break
        finally:
            draining.cancel()
            hurrying.cancel()

    async def _on_stop(
        self, parts: Parts, session: Session, mounted: Mounted, serving: asyncio.Task[End]
    ) -> int:
        """Told to end: deliver while the mount still answers, then unmount."""
        log.info("stopping")
        await self._deliver(parts)
        if not self._unmount(mounted, lazy=False):
            log.warning("%s is in use: detached", mounted.mountpoint)
            self._unmount(mounted, lazy=True)
        # what arrived until it was unmounted
        await asyncio.wait([serving], timeout=_LOOK_S)
        if parts.context.files.dirty_files():
            await self._deliver(parts)
        return 0

    async def _after_unmount(
        self, parts: Parts, session: Session, mounted: Mounted, end: End
    ) -> int:
        """Nobody uses the mount any more, or it was aborted under its users."""
        entry = mountinfo.topmost(mountinfo.read(), mounted.mountpoint)
        is_there = entry is not None and entry.is_fuse and entry.connection == mounted.connection
        if end is End.UNMOUNTED and not is_there:
            await self._deliver(parts)
            return 0
        log.warning("%s was aborted", mounted.mountpoint)
        self._unmount(mounted, lazy=True)
        # what was written must still reach the server, however long its link stays away
        while parts.context.files.dirty_files() or not session.is_up:
            waiting = [self._group.create_task(one) for one in (self._stop.wait(), _pause())]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in waiting:
                task.cancel()
            if self._stop.is_set():
                await self._deliver(parts)
                return 0
            if session.is_up:
                await self._deliver(parts)
        return EXIT_REMOUNT

    async def _end(self, parts: Parts) -> None:
        await parts.dispatcher.close(_CLOSE_S)
        lost = _undelivered(parts)
        if lost:
            log.error("not delivered: %s", ", ".join(lost))
        await parts.context.files.close("netfs ended before the server took it")
        await asyncio.to_thread(parts.notifier.stop, _CLOSE_S)

    def _unmount(self, mounted: Mounted, *, lazy: bool) -> bool:
        try:
            return mounting.unmount(mounted, lazy=lazy)
        except MountError as error:
            log.error("%s", error.message)
            return False


def _failed(error: BaseException) -> None:
    """Work nobody waits for ended with *error*: that ends nothing else."""
    if isinstance(error, OSError):
        log.info("in the background: %s", error)
    else:
        log.error("in the background", exc_info=error)


async def _guarded(work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except Exception as error:
        _failed(error)


async def _log_in_later(session: Session, parts: Parts) -> None:
    """With delay_connect: whom the server takes us for is asked when there is one."""
    await session.wait_up()
    parts.context.identity.set_login(await ask_login(session))


async def _pause() -> None:
    await asyncio.sleep(_LOOK_S)


def _undelivered(parts: Parts) -> list[str]:
    return [os.fsdecode(data.path()) for data in parts.context.files.dirty_files()]


def _not_a_directory(shown: str) -> DirectoryError:
    return DirectoryError(
        DirectoryProblem.NOT_A_DIRECTORY,
        f"{shown} is not a directory on the server: name the one it is in",
    )


def _directory_error(shown: str, error: OSError) -> DirectoryError:
    match error.errno:
        case errno.ENOENT:
            return DirectoryError(
                DirectoryProblem.MISSING,
                f"there is no directory {shown} on the server; make it there, or check the path",
            )
        case errno.ENOTDIR:
            return _not_a_directory(shown)
        case errno.EACCES | errno.EPERM:
            return DirectoryError(
                DirectoryProblem.DENIED,
                f"the server does not let this user into {shown}; see its mode there, or log in "
                "as another user",
            )
        case _:
            return DirectoryError(DirectoryProblem.DENIED, f"{shown}: {error.strerror or error}")


def run(
    config: Config,
    channel: socket.socket,
    generation: int,
    dump_fd: int,
    password: str | None = None,
) -> int:
    """Be the worker; the exit code.

    Args:
        channel: to the supervisor.
        generation: 1 for the first, which may ask for passwords; then 2, 3 ...
        dump_fd: where stacks go on SIGABRT.
        password: what stood on standard input (password_stdin).
    """
    faulthandler.enable(file=dump_fd, all_threads=True)
    heap.keep_buffers()
    uplink = Uplink(channel)
    logging.getLogger().addHandler(logs.Forward(lambda line: uplink.tell("log", line=line)))
    bounded = kerneltimeout.within(config, kerneltimeout.read())
    if bounded != config:
        log.warning(
            "link_timeout is %g s: the sysctls fs.fuse.*_request_timeout allow no more",
            bounded.link.link_timeout_s,
        )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(Daemon(bounded, uplink, generation, password).live())
