"""``netfs`` and ``mount.netfs``: argv in, exit code out.

Which words mean which command; what the commands do belongs to their modules, which are imported
when they are asked for, so that ``netfs --help`` needs no SSH.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from netfs.cli.exits import Exit


def _open_streams() -> None:
    """Have a standard stream that the caller has closed lead nowhere.

    Else the device or a socket would get its number, and be lost when the streams are let go of.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            os.set_inheritable(number, True)
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", closefd=False))


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``netfs`` with *argv* (without the program's name); the exit code."""
    _open_streams()
    words = list(sys.argv[1:] if argv is None else argv)
    from netfs.cli.parse import UsageError

    try:
        return _run(words)
    except UsageError as error:
        sys.stderr.write(f"netfs: {error}\n")
        return Exit.USAGE
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except BrokenPipeError:
        # the reader (head, less) has seen enough; nothing more can be said to it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.FAILED
    except OSError as error:
        where = f"{error.filename}: " if error.filename is not None else ""
        sys.stderr.write(f"netfs: {where}{error.strerror or error}\n")
        return Exit.FAILED


def _run(words: list[str]) -> int:
    command = words[0] if words else "help"
    match command:
        case "help" | "-h" | "--help":
            from netfs.cli.help import help_text

            print(help_text())
            return Exit.OK if words else Exit.USAGE
        case "-V" | "--version":
            from netfs.cli.help import versions

            print(versions())
            return Exit.OK
        case "serve":
            from netfs.cli.serve import main as serve

            return serve(words[1:])
        case "umount" | "abort" | "status" | "list" | "ps" | "reconnect":
            from netfs.cli import tools

            return tools.main(command, words[1:])
        case "doctor":
            from netfs.cli import doctor

            return doctor.main(words[1:])
        case "install-helper":
            from netfs.cli import install

            return install.main(words[1:])
        case "completion":
            from netfs.cli import completion

            return completion.main(words[1:])
        case _:
            return _mount(words)


def _mount(words: list[str]) -> int:
    from netfs.cli import mount, parse
    from netfs.cli.help import help_text, versions

    if {"-h", "--help"} & set(words):
        print(help_text())
        return Exit.OK
    if {"-V", "--version"} & set(words):
        print(versions())
        return Exit.OK
    given = parse.parse_arguments(words)
    for note in given.notes:
        sys.stderr.write(f"netfs: {note}\n")
    if "remount" in given.words and given.mountpoint is not None:
        return mount.remount(given)
    return mount.mount(parse.build(given))


def mount_helper(argv: Sequence[str] | None = None) -> int:
    """Run ``mount.netfs`` (and its other names) as mount(8) and autofs call it."""
    from netfs.cli import helper

    _open_streams()
    words = list(sys.argv[1:] if argv is None else argv)
    program = os.path.basename(sys.argv[0]) if argv is None else "mount.netfs"
    return helper.main(program, words)
