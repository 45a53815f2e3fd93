"""What ``netfs --help`` and ``netfs help`` say, made from the tables."""

from __future__ import annotations

import shutil
import sys
import textwrap
from importlib import metadata
from typing import Final

from netfs import __version__
from netfs.cli import exits, options

USAGE: Final = """\
usage: netfs [user@]host:[dir] MOUNTPOINT [-p PORT] [-F FILE] [-C] [-f] [-d] [-o OPTION[,...]]
       netfs sftp://[user@]host[:port]/path MOUNTPOINT [...]
       netfs COMMAND [...]"""

COMMANDS: Final = {
    "serve": "export a directory over SFTP",
    "umount": "write everything back, then unmount ([--lazy] MOUNTPOINT)",
    "abort": "end all requests of a stuck mount with an error (MOUNTPOINT)",
    "status": "state of one or all mounts ([--json] [--check] [MOUNTPOINT])",
    "list": "the mounts there are ([--json])",
    "ps": "who waits for what on a mount ([--json] MOUNTPOINT)",
    "reconnect": "try the link again now (MOUNTPOINT)",
    "doctor": "look for what is wrong on this machine and on the way ([SOURCE])",
    "install-helper": "let mount(8) and autofs find netfs ([--prefix DIR] [--remove])",
    "completion": "print the completion for a shell (bash, zsh or fish)",
    "help": "this text",
}

LETTERS: Final = {
    "-h, --help": "this text",
    "-V, --version": "the versions",
    "-p PORT": "the same as -o port=PORT",
    "-F FILE": "another ssh_config; none reads none",
    "-C": "the same as -o compression=yes",
    "-f": "stay in the foreground",
    "-d, --debug": "log each request to standard error; implies -f",
    "-v, --verbose": "the same as -o log_level=debug",
    "-s, -1, -2": "accepted as sshfs does",
    "-o OPTION[,...]": "options, see below",
}


def versions() -> str:
    """What ``netfs -V`` prints."""
    try:
        ssh = f"asyncssh {metadata.version('asyncssh')}"
    except metadata.PackageNotFoundError:
        ssh = "asyncssh missing"
    python = ".".join(map(str, sys.version_info[:3]))
    return f"netfs {__version__} ({ssh}, Python {python})"


def help_text() -> str:
    """The whole help."""
    width = min(shutil.get_terminal_size((100, 24)).columns, 110)
    lines = [USAGE, "", "Commands:"]
    lines += _rows(COMMANDS, width)
    lines += ["", "Options:"]
    lines += _rows(LETTERS, width)
    for section, rows in options.sections():
        lines += ["", f"{section.value}:"]
        if section not in (options.Section.SSH, options.Section.ACCEPTED):
            lines += _rows({row.usage: describe(row) for row in rows}, width)
        else:
            lines += _words([row.name for row in rows], width)
    lines += ["", "Exit codes:"]
    lines += _rows({f"{int(code)}": text for code, text in exits.MEANING.items()}, width)
    return "\n".join(lines)


def describe(row: options.Option) -> str:
    """The help of a row with its default and its other names."""
    also = f" (also {', '.join(row.names[1:])})" if len(row.names) > 1 else ""
    default = f" [{row.default}]" if row.default else ""
    return f"{row.help}{also}{default}"


def _rows(rows: dict[str, str], width: int) -> list[str]:
    lines: list[str] = []
    for left, right in rows.items():
        wrapped = textwrap.wrap(right, width - 28) or [""]
        if len(left) > 23:
            lines.append(f"  {left}")
            left = ""
        lines.append(f"  {left:<24}  {wrapped[0]}".rstrip())
        lines += [f"{'':28}{more}" for more in wrapped[1:]]
    return lines


def _words(words: list[str], width: int) -> list[str]:
    return textwrap.wrap(" ".join(words), width, initial_indent="  ", subsequent_indent="  ")
