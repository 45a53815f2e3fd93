"""``netfs doctor [SOURCE]``: looks for what is wrong and says what to do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Final

from netfs import libraries
from netfs.cli import checks, parse, show
from netfs.cli.checks import Finding, Level
from netfs.cli.exits import Exit
from netfs.cli.parse import UsageError
from netfs.client.config import Config

_MARKS: Final = {
    Level.OK: ("ok  ", "green"),
    Level.NOTE: ("note", "yellow"),
    Level.BAD: ("BAD ", "red"),
}


def main(words: Sequence[str]) -> int:
    """Print the findings; 1 if one of them is bad."""
    as_json = "--json" in words
    given = parse.parse_arguments([word for word in words if word != "--json"])
    if given.mountpoint is not None:
        raise UsageError("usage: netfs doctor [--json] [SOURCE] [-p PORT] [-F FILE] [-o ...]")
    found: list[Finding] = []

    def tell(finding: Finding) -> None:
        found.append(finding)
        if not as_json:
            print("\n".join(lines(finding)), flush=True)

    for finding in checks.machine(checks.Machine()):
        tell(finding)
    if given.source is not None:
        given.mountpoint = "/"  # nothing is mounted; parsing wants one
        asyncio.run(_server(parse.build(given), tell))
    if as_json:
        print(json.dumps([{**one._asdict(), "level": one.level.value} for one in found], indent=2))
    bad = sum(one.level is Level.BAD for one in found)
    if not as_json:
        print(f"{bad} of {len(found)} checks found something bad" if bad else "nothing bad found")
    return Exit.FAILED if bad else Exit.OK


async def _server(config: Config, tell: Callable[[Finding], None]) -> None:
    with libraries.found_in_loader_cache():
        from netfs.cli import checks_server  # needs SSH, which the machine's checks do not

    async for finding in checks_server.server(config):
        tell(finding)


def lines(finding: Finding) -> list[str]:
    """One finding for people."""
    mark, colour = _MARKS[finding.level]
    shown = [f"{show.colour(mark, colour)}  {finding.subject}: {show.plain(finding.text)}"]
    if finding.advice:
        shown.append(f"      → {show.plain(finding.advice)}")
    return shown
