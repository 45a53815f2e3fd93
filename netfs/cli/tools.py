"""``netfs status|list|ps|reconnect|abort|umount``: ask the supervisors, never touch a mount."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from typing import Any, Final

from netfs import runtime
from netfs.cli import parse, show
from netfs.cli.exits import Exit
from netfs.cli.parse import UsageError
from netfs.runtime import Record
from netfs.supervisor import mounts
from netfs.supervisor.fusectl import Control

Body = dict[str, Any]

_PATIENCE_S: Final = 0.9
"""For an answer; the supervisor answers within 0.5 s."""
_FLUSH_S: Final = 600.0
"""For writing everything back; the worker itself stops trying after link_timeout."""
_END_S: Final = 20.0
"""For the processes to end after the mount has gone."""


class NoAnswerError(Exception):
    """The supervisor does not answer."""


def ask(record: Record, question: str, patience_s: float = _PATIENCE_S) -> Body:
    """The supervisor's answer.

    Raises:
        NoAnswerError: it is gone or hangs.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(patience_s)
            sock.connect(record.socket)
            sock.sendall(json.dumps({"ask": question}).encode() + b"\n")
            with sock.makefile("rb") as file:
                line = file.readline()
        body = json.loads(line)
    except (OSError, ValueError) as error:
        raise NoAnswerError(f"{record.mountpoint}: its supervisor does not answer") from error
    if not isinstance(body, dict):
        raise NoAnswerError(f"{record.mountpoint}: its supervisor answers nonsense")
    return body


def main(command: str, words: Sequence[str]) -> int:
    """Run one of the tools; the exit code."""
    flags, operands, folder = _arguments(command, words)
    match command:
        case "list":
            return _list(folder, as_json="--json" in flags)
        case "status":
            return _status(operands, folder, flags)
    if len(operands) != 1:
        raise UsageError(f"usage: netfs {command} MOUNTPOINT")
    if command == "umount":
        return umount(
            operands[0],
            lazy=bool(flags & {"--lazy", "-l"}),
            force="--force" in flags,
            folder=folder,
        )
    point = parse.resolve_mountpoint(operands[0])
    record = runtime.find(point, folder)
    if record is None:
        if command == "abort":
            return _abort_foreign(point)
        return _not_mounted(point)
    try:
        body = ask(record, command)
    except NoAnswerError as error:
        if command == "abort":
            return _abort_foreign(point)
        sys.stderr.write(f"netfs: {error}\n")
        return Exit.UNHEALTHY
    match command:
        case "ps":
            return _ps(body, as_json="--json" in flags)
        case "abort":
            return _done(body.get("done", False), f"{point}: can't be aborted")
        case _:
            return _done(body.get("done", False), f"{point}: no answer from the worker")


_FLAGS: Final = {
    "list": {"--json"},
    "status": {"--json", "--check"},
    "ps": {"--json"},
    "umount": {"--lazy", "-l", "--force"},
    "abort": set[str](),
    "reconnect": set[str](),
}


def _arguments(command: str, words: Sequence[str]) -> tuple[set[str], list[str], str | None]:
    flags: set[str] = set()
    operands: list[str] = []
    folder: str | None = None
    for word in words:
        if word.startswith("--runtime-dir="):
            folder = word.partition("=")[2]
        elif word.startswith("-") and word != "-":
            if word not in _FLAGS[command]:
                known = " ".join(sorted(_FLAGS[command]))
                raise UsageError(f"unknown option {word!r} of 'netfs {command}' ({known})")
            flags.add(word)
        else:
            operands.append(word)
    return flags, operands, folder


def _list(folder: str | None, *, as_json: bool) -> int:
    found = list(runtime.records(folder))
    if as_json:
        print(json.dumps([record._asdict() for record in found]))
    else:
        for line in show.table([(r.source, r.mountpoint, str(r.pid)) for r in found]):
            print(line)
    return Exit.OK


def _status(operands: list[str], folder: str | None, flags: set[str]) -> int:
    if operands:
        points = [parse.resolve_mountpoint(operand) for operand in operands]
        found = [(point, runtime.find(point, folder)) for point in points]
    else:
        found = [(record.mountpoint, record) for record in runtime.records(folder)]
    code = Exit.OK
    bodies: list[Body] = []
    for point, record in found:
        if record is None:
            code = Exit.NOT_MOUNTED
            bodies.append({"mountpoint": point, "healthy": False, "error": "not mounted"})
            continue
        try:
            body = ask(record, "status")
        except NoAnswerError as error:
            body = {"error": str(error), "answered": False}
        body = {"mountpoint": point, "source": record.source, **body}
        body["healthy"] = show.is_healthy(body)
        if not body["healthy"] and "--check" in flags and code == Exit.OK:
            code = Exit.UNHEALTHY
        bodies.append(body)
    if "--json" in flags:
        print(json.dumps(bodies[0] if len(operands) == 1 else bodies, indent=2))
    elif "--check" in flags:
        for body in bodies:
            if not body["healthy"]:
                print(f"{body['mountpoint']}: {show.complaint(body)}")
    else:
        for number, body in enumerate(bodies):
            if number:
                print()
            print("\n".join(show.status(body)))
        if not bodies:
            print("no netfs is mounted")
    if "--check" in flags and not bodies:
        return Exit.NOT_MOUNTED
    return code


def _ps(body: Body, *, as_json: bool) -> int:
    rows = body.get("requests")
    if as_json:
        print(json.dumps(rows if rows is not None else {"waiting": body["supervisor"]["waiting"]}))
        return Exit.OK
    if rows is None:
        waiting = body["supervisor"]["waiting"]
        print(f"the worker does not answer; the kernel counts {waiting} waiting requests")
        return Exit.UNHEALTHY
    for line in show.requests(rows):
        print(line)
    return Exit.OK


def _abort_foreign(point: str) -> int:
    """Abort a mount whose supervisor is gone or hangs."""
    found = mounts.find(point)
    if found is None or not found.is_fuse:
        return _not_mounted(point)
    control = Control(found.minor)
    try:
        again = mounts.find(point)
        if again is None or (again.id, again.minor) != (found.id, found.minor):
            return _not_mounted(point)  # gone meanwhile: the files may be another mount's
        done = control.abort()
    finally:
        control.close()
    if not done:
        try:
            mounts.umount(point, force=True)
        except OSError as error:
            # EBUSY says that processes use it still; they have got their errors
            done = error.errno == errno.EBUSY
        else:
            done = True
    return _done(done, f"{point}: can't be aborted: not permitted")


def umount(
    operand: str,
    *,
    lazy: bool = False,
    force: bool = False,
    folder: str | None = None,
    program: str = "netfs",
) -> int:
    """Have everything written back, unmount, and wait until the processes have ended."""
    point = parse.resolve_mountpoint(operand)
    record = runtime.find(point, folder)
    found = mounts.find(point)
    if found is None or not found.is_fuse:
        if record is not None:
            return _stop(record)  # between two mounts: nothing but the processes is left
        return _not_mounted(point, program)
    if force:
        _abort_foreign(point)
    elif record is not None:
        try:
            undelivered = ask(record, "flush", _FLUSH_S).get("undelivered") or []
        except NoAnswerError as error:
            sys.stderr.write(f"{program}: {error}\n")
            undelivered = []
        for loss in undelivered:
            sys.stderr.write(f"{program}: {loss}: not delivered; it will be saved (see the log)\n")
    try:
        mounts.umount(point, lazy=lazy or force)
    except OSError as error:
        if error.errno == errno.EBUSY:
            sys.stderr.write(f"{program}: {point} is in use (netfs umount --lazy detaches it)\n")
            return Exit.BUSY
        if mounts.find(point) is not None:
            sys.stderr.write(f"{program}: {point}: {error.strerror}\n")
            return Exit.NOT_PERMITTED
        # An aborted worker unmounts by itself: it was quicker. Its supervisor is still to be ended.
    if record is not None:
        if force:
            return _stop(record)
        if not lazy:
            _wait_for_end(record)
    return Exit.OK


def _stop(record: Record) -> int:
    try:
        ask(record, "stop")
    except NoAnswerError:
        try:
            os.kill(record.pid, signal.SIGTERM)
        except ProcessLookupError:
            return Exit.OK  # it has ended meanwhile
        except PermissionError:
            return Exit.NOT_PERMITTED
    return Exit.OK if _wait_for_end(record) else Exit.FAILED


def _wait_for_end(record: Record) -> bool:
    deadline = time.monotonic() + _END_S
    while os.path.exists(record.socket):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)  # no child of ours, and its socket goes before it does: nothing to wait on
    return True


def _not_mounted(point: str, program: str = "netfs") -> int:
    sys.stderr.write(f"{program}: {point}: no netfs is mounted there (see netfs list)\n")
    return Exit.NOT_MOUNTED


def _done(done: bool, otherwise: str) -> int:
    if done:
        return Exit.OK
    sys.stderr.write(f"netfs: {otherwise}\n")
    return Exit.UNHEALTHY
