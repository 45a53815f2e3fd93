"""``netfs SOURCE MOUNTPOINT``: the processes of one mount, and when the command returns.

The command forks the supervisor (in the foreground it becomes the supervisor) and returns when
the mount answers.  What the worker does belongs to client/daemon.py, which only the worker imports.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import sys
from typing import Final

from netfs import __version__, libraries, logs, runtime
from netfs.cli import parse
from netfs.cli.exits import Exit
from netfs.cli.parse import Given, UsageError
from netfs.client.config import Config
from netfs.supervisor import mounts
from netfs.supervisor.supervisor import Settings, supervise

_STOP_MARGIN_S: Final = 15.0
"""What stopping may take beyond link_timeout: unmounting, and saving what can't be delivered."""

_ENDING: Final = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})

_REMOUNTABLE: Final = {
    "ro": 0x1,
    "nosuid": 0x2,
    "nodev": 0x4,
    "noexec": 0x8,
    "noatime": 0x400,
    "nodiratime": 0x800,
}
_MS_REMOUNT: Final = 0x20
"""Source: mount(2), linux/mount.h."""


def mount(config: Config) -> int:
    """Mount as *config* says; returns when the mount answers, in the foreground when it ended."""
    if problem := self_deadlock(config):
        return _fail(Exit.SELF_DEADLOCK, problem)
    folder = runtime.directory(config.daemon.runtime_dir)
    try:
        runtime.prepare(folder)
    except OSError as error:
        return _fail(Exit.FAILED, f"runtime directory {folder}: {error.strerror or error}")
    if config.daemon.log_file is not None:
        try:
            with open(config.daemon.log_file, "a"):
                pass  # it is opened later, when nobody is there to be told
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            return _fail(Exit.FAILED, f"log_file={config.daemon.log_file}: {why}; name another")
    # relative names were resolved while parsing; a daemon in its own mountpoint would deadlock
    os.chdir("/")
    password: str | None = None
    if config.ssh.password_stdin:
        # read here, so that a worker that is started again has it, too
        line = sys.stdin.buffer.readline().rstrip(b"\r\n")
        password = line.decode("utf-8", "surrogateescape")
    if config.daemon.foreground:
        logs.configure(config.daemon, foreground=True)
        return _supervise(config, None, password)
    logs.configure_start()
    read_end, write_end = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)  # until both know what to do with them
    pid = os.fork()
    if pid == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
        os.close(read_end)
        code = int(Exit.FAILED)
        try:
            code = _supervise(config, write_end, password)
        finally:
            sys.stderr.flush()
            os._exit(code)
    os.close(write_end)
    return _wait(pid, read_end, config.mount.mountpoint)


def _wait(pid: int, read_end: int, point: str) -> int:
    """Wait until the supervisor says that the mount answers, or ends.

    Who ends this command ends the mount that is being made: a terminal tells all of its processes,
    kill(1) and timeout(1) this one alone.
    """
    is_told = False

    def pass_on(number: int, frame: object) -> None:
        nonlocal is_told
        is_told = True
        os.kill(pid, number)  # it is not reaped yet

    previous = {number: signal.signal(number, pass_on) for number in _ENDING}
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
    try:
        with open(read_end, "rb", closefd=True) as ready:
            is_ready = bool(ready.read(1))
        if is_ready and not is_told:
            with contextlib.suppress(OSError):  # whoever uses it will see why
                os.stat(point)  # this process may: it is none of those that serve the mount
            return Exit.OK
        _, status = os.waitpid(pid, 0)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if is_told:
        return Exit.INTERRUPTED
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else Exit.FAILED


def _supervise(config: Config, ready_fd: int | None, password: str | None) -> int:
    point = config.mount.mountpoint
    record = runtime.new_record(
        runtime.directory(config.daemon.runtime_dir), point, config.source.text
    )
    is_descriptor = point.startswith("/dev/fd/")
    settings = Settings(
        mountpoint=None if is_descriptor else point,
        source=config.source.text,
        socket_path=record.socket,
        abort_after_s=config.link.abort_after_s,
        remount=config.link.remount,
        stop_within_s=config.link.link_timeout_s + _STOP_MARGIN_S,
        version=__version__,
    )

    def work(channel: socket.socket, generation: int, dump_fd: int) -> int:
        with libraries.found_in_loader_cache():
            from netfs.client.daemon import run

        if ready_fd is not None and generation == 1:  # later ones come after it was closed
            os.close(ready_fd)  # else the command would wait for this process, too
        return run(config, channel, generation, dump_fd, password)

    def on_ready() -> None:
        if is_descriptor:
            os.close(int(point.removeprefix("/dev/fd/")))  # the worker's must be the last
        if ready_fd is not None:
            logs.configure(config.daemon, foreground=False)
            logs.detach_from_terminal()
            os.write(ready_fd, b"+")
            os.close(ready_fd)

    try:
        runtime.write(record)
        return supervise(settings, work, on_ready)
    except OSError as error:
        return _fail(Exit.FAILED, f"control socket {record.socket}: {error.strerror or error}")
    finally:
        runtime.forget(record)


def self_deadlock(config: Config) -> str | None:
    """What of *config* lies below its own mountpoint: the daemon would wait for itself."""
    point = config.mount.mountpoint
    named = [
        ("log_file", config.daemon.log_file),
        ("runtime_dir", str(runtime.directory(config.daemon.runtime_dir))),
        ("rescue_dir", config.link.rescue_dir),
        ("-F", config.ssh.config_file),
    ]
    for keyword in (
        "identityfile",
        "certificatefile",
        "identityagent",
        "userknownhostsfile",
        "globalknownhostsfile",
        "pkcs11provider",
        "revokedhostkeys",
    ):
        named += [
            (keyword, os.path.expanduser(path))
            for value in config.ssh.keywords.get(keyword, ())
            for path in value.split()
        ]
    named.append(("SSH_AUTH_SOCK", os.environ.get("SSH_AUTH_SOCK")))
    for what, path in named:
        if not path or not path.startswith("/"):
            continue
        # the text first: following a path into a mount that hangs would hang as well
        if mounts.is_below(path, point) or mounts.is_below(os.path.realpath(path), point):
            return f"{what}: {path} is below the mountpoint {point}: netfs would wait for itself"
    return None


def remount(given: Given) -> int:
    """``-o remount,...``: change the kernel's flags (ro, nosuid ...) of what is mounted."""
    assert given.mountpoint is not None
    point = parse.resolve_mountpoint(given.mountpoint)
    found = mounts.find(point)
    if found is None or not found.is_fuse:
        raise UsageError(f"{point}: nothing of netfs is mounted there")
    flags = _MS_REMOUNT
    words = [*found.options, *given.words]
    for name, bit in _REMOUNTABLE.items():
        opposite = {"ro": "rw"}.get(name, name.removeprefix("no"))
        if name in words and opposite not in given.words:
            flags |= bit
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"none", os.fsencode(point), None, flags, None) != 0:
        error = ctypes.get_errno()
        return _fail(Exit.NOT_PERMITTED, f"{point}: remount: {os.strerror(error)}")
    return Exit.OK


def _fail(code: Exit, message: str) -> int:
    sys.stderr.write(f"netfs: {message}\n")
    return code
