"""``netfs install-helper``: the small programs by which mount(8), umount(8) and autofs find netfs.

mount(8) takes PATH and HOME away, so they name this interpreter by its absolute path.  The command
``netfs`` itself is put into /usr/local/bin unless another one is there: the fstab spelling
``netfs#user@host:/path`` and the systemd units call it by that path.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from netfs.cli.exits import Exit
from netfs.cli.parse import UsageError

NAMES: Final = (
    "sbin/mount.netfs",
    "sbin/mount.fuse.netfs",
    "sbin/umount.fuse.netfs",
    "usr/local/bin/netfs",
)
"""What is installed, below the prefix."""

_MARK: Final = "# Made by 'netfs install-helper'."
_MAX_SHEBANG: Final = 126
"""The kernel reads no more of the first line before Linux 5.1.  Source: execve(2)."""


def main(words: Sequence[str]) -> int:
    """Install or remove; the exit code."""
    prefix, is_removal = Path("/"), False
    pending = list(words)
    while pending:
        word = pending.pop(0)
        if word == "--remove":
            is_removal = True
        elif word == "--prefix" and pending:
            prefix = Path(pending.pop(0)).absolute()
        elif word.startswith("--prefix="):
            prefix = Path(word.partition("=")[2]).absolute()
        else:
            raise UsageError("usage: netfs install-helper [--prefix DIR] [--remove]")
    try:
        return _remove(prefix) if is_removal else _install(prefix)
    except OSError as error:
        way_out = "; run it as root" if os.geteuid() else ""
        sys.stderr.write(f"netfs: {error.filename}: {error.strerror}{way_out}\n")
        return Exit.FAILED


def script(entry: str = "mount_helper") -> str:
    """The text of a program that calls *entry* of netfs.cli.main.

    Raises:
        UsageError: the interpreter's path can't stand in a first line.
    """
    interpreter = sys.executable
    if not interpreter or " " in interpreter or len(interpreter) > _MAX_SHEBANG - 5:
        raise UsageError(f"the interpreter's path {interpreter!r} does not fit into a shebang")
    lines = [f"#!{interpreter} -I", _MARK, "import sys", ""]
    package = Path(__file__).resolve().parents[2]
    if not _is_importable():
        lines.append(f"sys.path.insert(0, {os.fspath(package)!r})")
    lines += [f"from netfs.cli.main import {entry}", "", f"sys.exit({entry}())", ""]
    return "\n".join(lines)


def _is_importable() -> bool:
    """Whether the bare interpreter finds this netfs (an installed package, not a source tree)."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", "import netfs; print(netfs.__file__)"],
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode == 0 and Path(done.stdout.strip()).resolve() == (
        Path(__file__).resolve().parents[1] / "__init__.py"
    )


def _install(prefix: Path) -> int:
    for name in NAMES:
        path = prefix / name
        if path.name == "netfs" and path.exists() and not is_ours(path):
            continue  # a package's own
        text = script("main" if path.name == "netfs" else "mount_helper")
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.new")
        partial.write_text(text)
        partial.chmod(0o755)
        partial.replace(path)
        print(path)
    return Exit.OK


def is_ours(path: Path) -> bool:
    """Whether *path* is a helper made here."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return _MARK in file.read(1024)
    except OSError:
        return False


def _remove(prefix: Path) -> int:
    for name in NAMES:
        path = prefix / name
        if is_ours(path):
            path.unlink()
            print(f"removed {path}")
    return Exit.OK
