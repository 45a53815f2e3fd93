"""The shell of tree read-ahead: tells the planner (``tree.py``) what happens, does what it plans.

What is worth asking ahead is not decided here.
"""

from __future__ import annotations

from netfs.client.nodes import Node


class TreeReadAhead:
    """Listings and small files asked for before the kernel asks."""

    def looked_up(self, parent: Node, name: bytes) -> None: ...

    def opened_directory(self, node: Node) -> None: ...

    def is_listing(self, node: Node) -> bool:
        return False

    async def listed(self, node: Node) -> None: ...
