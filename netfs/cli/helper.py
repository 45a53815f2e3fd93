"""``mount.netfs``, ``mount.fuse.netfs``, ``umount.fuse.netfs``: called by mount(8) and autofs.

``SOURCE DIR [-n] [-s] [-v] [-f] [-o options]``; PATH and HOME may be missing or somebody else's.
"""

from __future__ import annotations

import os
import pwd
import sys
from collections.abc import Sequence
from typing import Final

from netfs.cli import exits, parse
from netfs.cli.exits import Exit
from netfs.cli.parse import Given, UsageError

_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CONNECT_TIMEOUT_S: Final = 10


def main(program: str, argv: Sequence[str]) -> int:
    """Run as *program*; mount(8)'s exit codes."""
    _restore_environment()
    if program.startswith("umount."):
        return _umount(program, argv)
    try:
        given, fake = parse_arguments(argv)
        for note in given.notes:
            sys.stderr.write(f"{program}: {note}\n")
        from netfs.cli import mount

        if "remount" in given.words:
            return exits.for_mount(mount.remount(given))
        config = parse.build(given)
        return 0 if fake else exits.for_mount(mount.mount(config))
    except UsageError as error:
        sys.stderr.write(f"{program}: {error}\n")
        return exits.MOUNT_USAGE
    except KeyboardInterrupt:
        return exits.MOUNT_INTERRUPTED


def _restore_environment() -> None:
    """mount(8) removes PATH and HOME, mount.fuse3 sets another user's HOME."""
    os.environ.setdefault("PATH", _PATH)
    try:
        os.environ["HOME"] = pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:
        os.environ.setdefault("HOME", "/")  # a user without an entry, as in containers


def parse_arguments(argv: Sequence[str]) -> tuple[Given, bool]:
    """What to mount, and whether mount(8) only pretends (-f)."""
    given = Given()
    operands: list[str] = []
    fake = False
    words = iter(argv)
    for word in words:
        if not word.startswith("-") or word == "-":
            operands.append(word)
            continue
        letters = word[1:]
        while letters:
            letter, letters = letters[0], letters[1:]
            match letter:
                case "o" | "t" | "N":
                    value = letters or next(words, None)
                    letters = ""
                    if value is None:
                        raise UsageError(f"option '-{letter}' needs a value")
                    if letter == "o":
                        for item in parse.split_options(value):
                            parse.apply_option(given, item)
                case "f":
                    fake = True
                case "v":
                    given.fields["daemon.log_level"] = "debug"
                case "r":
                    parse.apply_option(given, "ro")
                case "w":
                    parse.apply_option(given, "rw")
                case "n" | "s" | "i":
                    pass  # no mtab to write; unknown words of others are named below
                case _:
                    raise UsageError(f"unknown option '-{letter}'")
    if len(operands) != 2:
        raise UsageError("usage: mount.netfs SOURCE MOUNTPOINT [-nsvf] [-o options]")
    given.source, given.mountpoint = operands
    # nobody sits before mount -a or autofs: no prompt may keep them waiting
    if "BatchMode" not in given.words and not sys.stdin.isatty():
        parse.apply_option(given, "BatchMode=yes")
    if "ConnectTimeout" not in given.words:
        parse.apply_option(given, f"ConnectTimeout={_CONNECT_TIMEOUT_S}")
    return given, fake


def _umount(program: str, argv: Sequence[str]) -> int:
    """``umount.fuse.netfs DIR [-n] [-l] [-f] [-v] [-r]``, the directory first."""
    from netfs.cli import tools

    letters = {letter for word in argv if word.startswith("-") for letter in word[1:]}
    operands = [word for word in argv if not word.startswith("-")]
    if not operands:
        sys.stderr.write(f"{program}: the mountpoint is missing\n")
        return exits.MOUNT_USAGE
    code = tools.umount(operands[0], lazy="l" in letters, force="f" in letters, program=program)
    return 0 if code == Exit.OK else exits.MOUNT_FAILURE
