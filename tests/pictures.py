"""Draws what a terminal shows of real runs: a server, a mount over a slow link, its tools.

``python -m tests.pictures [DIRECTORY]`` writes status.svg and doctor.svg (docs/images by default).
"""

from __future__ import annotations

import contextlib
import html
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.harness.relay import Relay
from tests.harness.sshd import Sshd, running_sshd

ROOT: Final = Path(__file__).parents[1]
IMAGES: Final = ROOT / "docs/images"

_CHAR_W: Final = 8.4  # pixels of one character at 14 px
_LINE_H: Final = 19
_COLOURS: Final = {"31": "#f2777a", "32": "#99cc99", "33": "#ffcc66", "34": "#6699cc", "2": "#999"}
_ESCAPE: Final = re.compile(r"\x1b\[([0-9;]*)m")


def draw(command: str, output: str) -> str:
    """An SVG of a terminal in which *command* printed *output* (SGR colours are kept)."""
    lines = [f"\x1b[34m$\x1b[0m {command}", *output.rstrip("\n").split("\n")]
    width = max(len(_ESCAPE.sub("", line)) for line in lines) * _CHAR_W + 32
    height = len(lines) * _LINE_H + 28
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height}" '
        f'viewBox="0 0 {width:.0f} {height}">',
        f'<rect width="{width:.0f}" height="{height}" rx="8" fill="#22272e"/>',
        '<g font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="14" '
        'fill="#d8dee9">',
    ]
    for number, line in enumerate(lines):
        y = 26 + number * _LINE_H
        parts.append(f'<text x="16" y="{y}" xml:space="preserve">{_spans(line)}</text>')
    return "\n".join([*parts, "</g>", "</svg>", ""])


def _spans(line: str) -> str:
    """One line with its colours as tspans."""
    found = []
    colour: str | None = None
    bold = False
    at = 0
    for match in [*_ESCAPE.finditer(line), None]:
        text = line[at : match.start() if match else len(line)]
        if text:
            style = f' fill="{colour}"' if colour else ""
            style += ' font-weight="bold"' if bold else ""
            found.append(f"<tspan{style}>{html.escape(text)}</tspan>")
        if match:
            at = match.end()
            for code in match[1].split(";"):
                if code in ("", "0"):
                    colour, bold = None, False
                elif code == "1":
                    bold = True
                else:
                    colour = _COLOURS.get(code, colour)
    return "".join(found)


def run(*command: str, check: bool = True) -> str:
    """What *command* shows on a terminal."""
    master, terminal = os.openpty()
    try:
        with subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal) as process:
            os.close(terminal)
            shown = b""
            # A terminal whose last writer has gone fails with EIO instead of an end of file.
            with contextlib.suppress(OSError):
                while piece := os.read(master, 65536):
                    shown += piece
    finally:
        os.close(master)
    output = shown.decode().replace("\r\n", "\n")
    if check and process.returncode:
        raise RuntimeError(f"{command} ended with {process.returncode}: {output}")
    return output


@contextlib.contextmanager
def mounted(server: Sshd, port: int, directory: Path) -> Iterator[tuple[str, Path, list[str]]]:
    """A mount through *port*; its source, its place and the options."""
    source, place = server.source(directory / "export"), directory / "mnt"
    place.mkdir()
    options = server.options(port)
    netfs = [sys.executable, "-m", "netfs"]
    run(*netfs, source, str(place), *options)
    try:
        yield source, place, options
    finally:
        run(*netfs, "umount", str(place))


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    netfs = [sys.executable, "-m", "netfs"]
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        export = directory / "export"
        export.mkdir()
        for number in range(200):
            (export / f"{number:03}.txt").write_text("netfs\n" * 1000)
        with (
            running_sshd(directory / "sshd") as server,
            Relay(server.port, delay_ms=10) as relay,
            mounted(server, relay.port, directory) as (source, place, options),
        ):
            run("grep", "-rc", "netfs", str(place))
            run("cp", str(export / "000.txt"), str(place / "copy"))
            pictures = {
                "status": ("netfs status ~/mnt", run(*netfs, "status", str(place))),
                "doctor": (
                    "netfs doctor alice@server.example:/srv",
                    run(*netfs, "doctor", source, *options, check=False),
                ),
            }
        # The names of this machine say nothing to a reader.
        for name, (command, output) in pictures.items():
            for real, shown in (
                (str(place), "~/mnt"),
                (source, "alice@server.example:/srv"),
                (str(directory), "~"),
                (f"{server.user}@127.0.0.1", "alice@server.example"),
                ("127.0.0.1", "server.example"),
            ):
                output = output.replace(real, shown)
            path = folder / f"{name}.svg"
            path.write_text(draw(command, output))
            print(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else IMAGES)
