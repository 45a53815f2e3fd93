"""``python -m netfs.cli.docs [DIR]``: docs/options.md and the man pages, made from the tables.

A test compares what is in the tree with what is made, so that they can't drift.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Final

from netfs import __version__
from netfs.cli import exits, options
from netfs.cli.help import COMMANDS, LETTERS, describe
from netfs.cli.options import Section

_ABOUT: Final = (
    "mounts a directory of any SSH server as a local file system. It needs nothing on the server "
    "but SFTP, which OpenSSH has. It caches, reads ahead and writes behind; a lost link comes back "
    "without a loss, whatever waits can be interrupted, and a watchdog ends a mount that hangs."
)


def files() -> dict[str, str]:
    """Path in the project -> text."""
    return {
        "docs/options.md": options_page(),
        "man/netfs.1": man_netfs(),
        "man/netfs-serve.1": man_serve(),
        "man/mount.netfs.8": man_mount(),
    }


def options_page() -> str:
    """The reference of all options."""
    lines = [
        "# Options",
        "",
        "Made from `netfs/cli/options.py` by `python -m netfs.cli.docs`.",
        "",
        "Given as `-o NAME` or `-o NAME=VALUE`, several joined by commas. A backslash makes the",
        "next character literal, and a value may stand in double quotes:",
        "`-o 'ssh_command=\"ssh -F x\"'`.",
        "",
        "## Letters",
        "",
        "| option | meaning |",
        "|---|---|",
    ]
    lines += [f"| `{left}` | {_cell(right)} |" for left, right in LETTERS.items()]
    for section, rows in options.sections():
        lines += ["", f"## {section.value}", ""]
        if section is Section.SSH:
            lines.append(", ".join(f"`{row.name}`" for row in rows) + ".")
            lines += [
                "",
                "What the built-in SSH can't do is named in one warning when it is used; "
                "`ssh_command=ssh` hands all of them to the system's ssh.",
            ]
            continue
        lines += ["| option | meaning | default |", "|---|---|---|"]
        for row in rows:
            also = "".join(f", `{name}`" for name in row.names[1:])
            lines.append(f"| `{row.usage}`{also} | {_cell(row.help)} | {_cell(row.default)} |")
    lines += ["", "## Exit codes", "", "| code | meaning |", "|---|---|"]
    lines += [f"| {int(code)} | {_cell(text)} |" for code, text in exits.MEANING.items()]
    lines += [
        "",
        "`mount.netfs` ends with mount(8)'s codes: 0 done, 1 wrong use, 2 system error, "
        "8 interrupted, 32 failure.",
    ]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


# --- man pages ---------------------------------------------------------------------------------


def _page(name: str, section: int, summary: str) -> list[str]:
    return [
        f'.TH {name.upper()} {section} "" "netfs {__version__}"',
        ".SH NAME",
        rf"{name} \- {_roff(summary)}",
    ]


def _roff(text: str) -> str:
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"(?m)^([.'])", r"\\&\1", escaped)


def _item(term: str, text: str) -> list[str]:
    return [".TP", rf"\fB{_roff(term)}\fR", _roff(text) if text else r"\&"]


def man_netfs() -> str:
    """netfs(1)."""
    lines = _page("netfs", 1, "mount a directory of any SSH server")
    lines += [
        ".SH SYNOPSIS",
        r"\fBnetfs\fR [\fIuser\fR@]\fIhost\fR:[\fIdir\fR] \fImountpoint\fR [\fIoptions\fR]",
        ".br",
        r"\fBnetfs\fR sftp://[\fIuser\fR@]\fIhost\fR[:\fIport\fR]/\fIpath\fR \fImountpoint\fR "
        r"[\fIoptions\fR]",
        ".br",
        r"\fBnetfs\fR \fIcommand\fR [\fIarguments\fR]",
        ".SH DESCRIPTION",
        rf"\fBnetfs\fR {_roff(_ABOUT)}",
        ".PP",
        _roff(
            "It connects and authenticates first, checks the directory, mounts, and returns when "
            "the mount answers. Unmount with netfs umount, umount or fusermount3 -u; everything "
            "written reaches the server first."
        ),
        ".SH COMMANDS",
    ]
    for name, text in COMMANDS.items():
        lines += _item(name, text)
    lines += [".SH OPTIONS"]
    for term, text in LETTERS.items():
        lines += _item(term, text)
    lines += _man_options()
    lines += [".SH EXIT STATUS"]
    for code, text in exits.MEANING.items():
        lines += _item(str(int(code)), text)
    lines += [
        ".SH FILES",
        *_item("$XDG_RUNTIME_DIR/netfs, /run/netfs", "control sockets of running mounts"),
        *_item("~/.local/state/netfs/rescue", "data that could not be delivered"),
        ".SH SEE ALSO",
        "netfs\\-serve(1), mount.netfs(8), ssh_config(5), sshfs(1), fusermount3(1)",
    ]
    return "\n".join(lines) + "\n"


def _man_options() -> list[str]:
    lines: list[str] = []
    for section, rows in options.sections():
        lines += [f".SS {_roff(section.value)}"]
        if section is Section.SSH:
            lines.append(_roff(", ".join(row.name for row in rows)))
            continue
        for row in rows:
            lines += _item(row.usage, describe(row))
    return lines


def man_serve() -> str:
    """netfs-serve(1), from the command's own parser."""
    from netfs.cli.serve import make_parser

    parser = make_parser()
    lines = _page("netfs-serve", 1, "export a directory over SFTP")
    lines += [
        ".SH SYNOPSIS",
        r"\fBnetfs serve\fR \-\-root \fIdir\fR [\fIoptions\fR]",
        ".SH DESCRIPTION",
        _roff(" ".join((parser.description or "").split())),
        ".SH OPTIONS",
    ]
    for group in parser._action_groups:
        actions = [a for a in group._group_actions if a.help is not argparse.SUPPRESS]
        if not actions:
            continue
        lines.append(f".SS {_roff(group.title or '')}")
        for action in actions:
            term = ", ".join(action.option_strings) or action.dest
            if action.nargs != 0:
                metavar = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
                term += f" {metavar}"
            text = (action.help or "") % {"default": action.default, "prog": parser.prog}
            lines += _item(term, text)
    lines += [".SH SEE ALSO", "netfs(1), sshd(8), sftp\\-server(8)"]
    return "\n".join(lines) + "\n"


def man_mount() -> str:
    """mount.netfs(8)."""
    lines = _page("mount.netfs", 8, "mount helper of netfs for mount(8), fstab(5) and autofs(5)")
    lines += [
        ".SH SYNOPSIS",
        r"\fBmount \-t netfs\fR [\fB\-o\fR \fIoptions\fR] [\fIuser\fR@]\fIhost\fR:[\fIdir\fR] "
        r"\fImountpoint\fR",
        ".SH DESCRIPTION",
        _roff(
            "Called by mount(8) and automount(8) for the types netfs and fuse.netfs; installed by "
            "netfs install-helper. It returns when the mount answers. Without a terminal it asks "
            "nothing (BatchMode), and it gives up after 10 seconds without an answer unless "
            "ConnectTimeout says otherwise. run_as=USER takes that user's keys, known_hosts and "
            "agent, so that root's fstab works with a user's keys."
        ),
        ".SH EXAMPLES",
        ".nf",
        _roff("alice@server:/srv/data  /mnt/data  netfs  _netdev,nofail,run_as=alice  0 0"),
        _roff("sftp://alice@server:2222/srv  /mnt/srv  fuse.netfs  noauto,user,ro  0 0"),
        ".fi",
        ".SH OPTIONS",
        "The options of netfs(1):",
    ]
    lines += _man_options()
    lines += [".SH EXIT STATUS"]
    for code, text in (
        (0, "done"),
        (1, "wrong use"),
        (2, "system error"),
        (8, "interrupted"),
        (32, "failure; the message says which"),
    ):
        lines += _item(str(code), text)
    lines += [".SH SEE ALSO", "netfs(1), mount(8), fstab(5), autofs(5)"]
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> int:
    """Write the files below the directory given (default: here)."""
    root = Path(arguments[0] if arguments else ".")
    for name, text in files().items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
