"""The kernel's own time limit on FUSE requests, which an administrator may have set.

Linux 6.15 and newer abort a *whole connection* when one of its requests is older than
``fs.fuse.max_request_timeout`` (or ``default_request_timeout``, which applies to daemons that ask
for none); both are 0, "off", unless somebody sets them.  Every request must have been answered
before that, so no waiting for a lost link may be longer.
Source: Linux Documentation/admin-guide/sysctl/fs.rst, section /proc/sys/fs/fuse.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Final

from netfs.client.config import Config

SYSCTLS: Final = Path("/proc/sys/fs/fuse")

_MARGIN_S: Final = 3.0
"""Between our answer and the kernel's limit, for the rest of the way of a request."""


def read(sysctls: Path = SYSCTLS) -> float:
    """Seconds that a request may take here; infinity where the kernel sets no limit."""
    limits = []
    for name in ("default_request_timeout", "max_request_timeout"):
        try:
            limits.append(int((sysctls / name).read_text()))
        except (OSError, ValueError):
            continue  # a kernel without it, or one whose word we can't read: no limit known
    return min((float(limit) for limit in limits if limit > 0), default=float("inf"))


def within(config: Config, limit_s: float) -> Config:
    """*config* with no waiting for the link that the kernel would not wait for."""
    longest = max(1.0, limit_s - _MARGIN_S)
    link = config.link
    if not link.hard and link.link_timeout_s <= longest:
        return config
    if limit_s == float("inf"):
        return config
    return dataclasses.replace(
        config,
        link=dataclasses.replace(
            link, hard=False, link_timeout_s=min(link.link_timeout_s, longest)
        ),
    )
