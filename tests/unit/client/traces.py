"""Recorded programs replayed on the planner of tree read-ahead (see tests/harness/traces.py).

The gaps are those of the program that was recorded; what it waited for is what the planner leaves
to wait for now.
"""

from __future__ import annotations

import gzip
import json
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

from netfs.client.nodes import Node
from tests.harness.traces import Access, Step, read
from tests.unit.client.walks import RTT_S, Tree, World

PLACE: Final = Path(__file__).with_name("traces")
ENTRY_BYTES: Final = 140  # of a listing, on the wire


class Figures(NamedTuple):
    """What a replay shows."""

    trips: float  # round trips waited for
    waits: int  # accesses that had to wait
    listings: int
    lookups: int  # names asked for one by one
    files: int  # fetched
    bytes: int  # fetched, files and listings
    unused: int  # bytes of them that nobody used

    @property
    def waste(self) -> float:
        """Share of what was fetched that nobody used."""
        return self.unused / self.bytes if self.bytes else 0.0


@cache
def served() -> Tree:
    """The trees that the programs were recorded on."""
    tree: Tree = json.loads(gzip.decompress((PLACE / "tree.json.gz").read_bytes()))
    # What the programs made before they began, from the same seeds.
    tree["out"] = {"rm": tree["tree"], "make": tree["project"]}
    return tree


def replay(steps: list[Step], *, rtt_s: float = RTT_S) -> Figures:
    world = World(served(), rtt_s=rtt_s)
    waits = 0
    waited_s = 0.0
    for step in steps:
        world.think(step.gap_s)
        before = world.now
        perform(world, step)
        took = world.now - before
        if took > rtt_s / 4:
            waits += 1
            waited_s += took
    world.think(5.0)
    return Figures(
        trips=round(waited_s / rtt_s, 1),
        waits=waits,
        listings=world.count("list"),
        lookups=world.count("lstat"),
        files=world.count("fetch"),
        bytes=world.fetched_bytes,
        unused=world.unused_bytes,
    )


def perform(world: World, step: Step) -> None:
    names = step.path.encode().split(b"/") if step.path else []
    match step.access:
        case Access.LOOK_UP:
            world.lookup(_node(world, names[:-1]), names[-1])
        case Access.LIST:
            world.opendir(_node(world, names))
        case Access.OPEN:
            world.open(_node(world, names))
        case Access.READ_LINK:
            world.planner.read_link(_node(world, names), world.now)


def _node(world: World, names: list[bytes]) -> Node:
    """The node of a path; the kernel may know names that the daemon has forgotten."""
    node = world.nodes.root
    for name in names:
        found = world.nodes.child(node, name)
        if found is None:
            found = world.known_to_the_kernel(node, name)
        node = found
    return node


def replayed(name: str, *, rtt_s: float = RTT_S) -> Figures:
    return replay(read(PLACE / f"{name}.gz"), rtt_s=rtt_s)
