"""Where log lines go: standard error in the foreground, else a file, or syslog (the journal).

The supervisor keeps the last lines of its worker: ``Forward`` hands them over.
"""

from __future__ import annotations

import logging
import logging.handlers
import os
import sys
from collections.abc import Callable
from typing import Final

from netfs.client.config import DaemonConfig

_SYSLOG: Final = "/dev/log"
_LINE: Final = "%(asctime)s netfs[%(process)d] %(levelname)s %(name)s: %(message)s"
_SHORT: Final = "netfs[%(process)d]: %(message)s"  # syslog adds the time and the level
_MAX_LINE: Final = 2000


def configure_start() -> None:
    """While a mount is made that will go to the background: warnings for who waits for it."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setLevel(logging.WARNING)
    handler.setFormatter(logging.Formatter("netfs: %(message)s"))
    logging.getLogger().addHandler(handler)


def configure(config: DaemonConfig, *, foreground: bool) -> None:
    """Send the log of this process where *config* says; called again it replaces what was."""
    root = logging.getLogger()
    for old in list(root.handlers):
        if not isinstance(old, Forward):
            root.removeHandler(old)
            old.close()
    root.addHandler(_handler(config, foreground=foreground))
    level = logging.DEBUG if config.debug else logging.getLevelName(config.log_level.upper())
    root.setLevel(level)
    # asyncssh tells each step of each connection at INFO
    logging.getLogger("asyncssh").setLevel(max(level, logging.WARNING))
    logging.raiseExceptions = False  # a full disk under the log must not fill standard error


def _handler(config: DaemonConfig, *, foreground: bool) -> logging.Handler:
    handler: logging.Handler
    if config.log_file is not None:
        # reopened when logrotate has moved it
        handler = logging.handlers.WatchedFileHandler(
            config.log_file, encoding="utf-8", errors="backslashreplace"
        )
        handler.setFormatter(logging.Formatter(_LINE))
    elif foreground:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter(_LINE))
    elif os.path.exists(_SYSLOG):
        handler = logging.handlers.SysLogHandler(
            _SYSLOG, facility=logging.handlers.SysLogHandler.LOG_DAEMON
        )
        handler.setFormatter(logging.Formatter(_SHORT))
    else:
        # no system log (a container): 'netfs status' still shows the last lines
        handler = logging.NullHandler()
    return handler


class Forward(logging.Handler):
    """Hands each line from INFO on to *send*, which must not block or raise."""

    def __init__(self, send: Callable[[str], None]) -> None:
        super().__init__(logging.INFO)
        self._send = send
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self._send(self.format(record)[:_MAX_LINE])


def detach_from_terminal() -> None:
    """Become a session of its own without standard streams (autofs waits for their end)."""
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)
