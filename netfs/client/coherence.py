"""Coherence: how long what is known may be believed, and what each change makes of it.

| what happens | here | to the kernel |
|---|---|---|
| a name is created | node stored, directory's times distrusted | nothing: it did it itself |
| a name is removed, renamed | tree follows, directory's times distrusted | nothing, likewise |
| attributes are set | stored as the server tells them afterwards | in the reply |
| other attributes are found | stored; another version drops the file's data | by its time-outs |
| a listing lacks a name | name removed | the name is expired |
| a multi-linked file is written | the other names' attributes are distrusted | never cached there |
| the link is down | all known is believed; directories changed here show about now | time-out 0 |

Times are seconds of the monotonic clock.  Nothing here waits or sends.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Final

from netfs.client.config import CacheConfig
from netfs.client.nodes import NEVER, ROOT_ID, Node, NodeTable
from netfs.fuse.replies import Validity, validity
from netfs.sftp.attrs import Attrs, StatVfs

if TYPE_CHECKING:
    from netfs.client.operations.context import Notifications
    from netfs.client.remote.api import Remote


class Prompt:
    """A question that must be answered within a second, whatever the link does."""

    def __init__(self) -> None:
        self.ended: asyncio.Event | None = None  # while it is being asked
        self.silent_until = NEVER  # the server was waited for in vain


_QUEUED_S: Final = 0.3
"""Between the answers to two who waited for the same name: the second asks as soon as it runs."""


class WhileUp:
    """Ends with TimeoutError what is awaited in it, as soon as the link stops being up.

    For questions to which there is an old answer.
    """

    __slots__ = ("_limit", "_waiting")

    def __init__(self, waiting: set[Callable[[], None]], is_up: bool) -> None:
        self._waiting = waiting
        self._limit = asyncio.timeout(None if is_up else 0)

    def _end(self) -> None:
        self._limit.reschedule(asyncio.get_running_loop().time())

    async def __aenter__(self) -> None:
        await self._limit.__aenter__()
        self._waiting.add(self._end)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._waiting.discard(self._end)
        await self._limit.__aexit__(kind, value, trace)


class FilesystemSize:
    """What statfs(2) shows, and since when it is known."""

    def __init__(self) -> None:
        self.prompt = Prompt()
        self.told: StatVfs | None = None
        self.at = NEVER


class Coherence:
    """The policy of one mount, and the only writer of what the server told into the tree."""

    def __init__(
        self,
        config: CacheConfig,
        *,
        nodes: NodeTable,
        remote: Remote,
        notifier: Notifications,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        def ttl(value: float | None) -> float:
            if not config.enabled:
                return 0.0
            return config.cache_timeout_s if value is None else value

        self._attr_s = ttl(config.stat_timeout_s)
        self._dir_s = ttl(config.dir_timeout_s)
        self._target_s = ttl(config.link_timeout_s)
        self._negative_s = ttl(config.negative_timeout_s)
        self._kernel_attr_s = config.attr_timeout_s
        self._kernel_entry_s = config.entry_timeout_s
        self._nodes = nodes
        nodes.ages.on_surplus = self._ask_back
        self._remote = remote
        self._notifier = notifier
        self._clock = clock
        self._wall_clock = wall_clock
        self._links_distrusted_at = NEVER
        self.filesystem = FilesystemSize()
        self.set_last = (0, 0)
        """Of whom attributes were set here last, with success: nodeid, and the stamp after that."""
        self.root_prompt = Prompt()
        self.when_down: set[Callable[[], None]] = set()
        """Called once, and forgotten, when the link stops being up."""
        self._given_up: dict[tuple[int, bytes], float] = {}  # (directory, name): when
        watch = getattr(remote, "on_change", None)
        if watch is not None:
            watch(self._link_changed)

    # --- how long ------------------------------------------------------------------------------

    def while_up(self) -> WhileUp:
        """``async with`` around a question to which there is an old answer."""
        return WhileUp(self.when_down, self._remote.is_up)

    def _link_changed(self, _status: object) -> None:
        if not self._remote.is_up:
            while self.when_down:
                self.when_down.pop()()
        else:
            self._given_up.clear()

    def attr_left(self, node: Node, now: float) -> float:
        """Seconds for which the attributes may still be believed; <= 0: ask."""
        attrs = node.attrs
        if attrs is None:
            return -1.0
        if attrs.nlink != 1 and _is_ambiguous(attrs) and node.attrs_at <= self._links_distrusted_at:
            return -1.0  # another name of the file may have been changed here since
        return node.attrs_at + self._attr_s - now

    def has_attrs(self, node: Node, now: float) -> bool:
        """Whether the attributes can be shown without asking."""
        return node.attrs is not None and (self.attr_left(node, now) > 0 or not self._remote.is_up)

    def name_left(self, node: Node, now: float) -> float:
        """Seconds for which the node's name may still be believed to lead to it."""
        if node.parent is None:
            return self._attr_s if node.nodeid == ROOT_ID else -1.0
        return max(node.attrs_at + self._attr_s, node.parent.listed_at + self._dir_s) - now

    def missing_left(self, parent: Node, name: bytes, now: float) -> float:
        """Seconds for which *name* may still be believed not to exist; <= 0: ask.

        Only for a name that is not among the directory's children.
        """
        left = parent.listed_at + self._dir_s - now
        negative = parent.negative
        if negative is not None:
            at = negative.get(name)
            if at is not None:
                left = max(left, at + self._negative_s - now)
        return left

    def is_known_missing(self, parent: Node, name: bytes) -> bool:
        """Whether *name* was missing when last looked for, however long ago."""
        return parent.listed_at > NEVER or bool(parent.negative and name in parent.negative)

    def gave_up(self, parent: Node, name: bytes) -> None:
        """The link was waited for in vain to look for *name*."""
        self._given_up[parent.nodeid, name] = self._clock()

    def is_given_up(self, parent: Node, name: bytes) -> bool:
        """Whether that was just now.

        The kernel has those who want one unknown name wait for each other, unkillably, and ask one
        by one: each would wait for link_timeout again.
        """
        key = (parent.nodeid, name)
        at = self._given_up.pop(key, NEVER)
        if self._clock() - at > _QUEUED_S:
            return False
        self._given_up[key] = self._clock()
        return True

    def listing_left(self, directory: Node, now: float) -> float:
        """Seconds for which the children known are all there is; <= 0: list again."""
        return directory.listed_at + self._dir_s - now

    def target_left(self, link: Node, now: float) -> float:
        """Seconds for which the symlink's known target may be believed."""
        if link.target is None:
            return -1.0
        return link.attrs_at + self._target_s - now

    def kernel_attr_s(self, node: Node, now: float) -> float:
        """How long the kernel may keep the attributes."""
        attrs = node.attrs
        if attrs is None:
            return self._kernel_attr_s or 0.0
        if attrs.nlink != 1 and _is_ambiguous(attrs):
            return 0.0  # changing another name does not tell the kernel about this one
        if self._kernel_attr_s is not None:
            return self._kernel_attr_s
        return max(0.0, node.attrs_at + self._attr_s - now)

    def kernel_valid(self, node: Node, now: float) -> Validity:
        """How long the kernel may keep the name, and the attributes."""
        if (
            self._kernel_entry_s is None
            and self._kernel_attr_s is None
            and (parent := node.parent) is not None
            and ((attrs := node.attrs) is None or attrs.nlink is None or attrs.nlink == 1)
        ):
            # As below, for nearly all, without four calls for each.
            attr_s = node.attrs_at + self._attr_s - now
            if attr_s > 0 and parent.listed_at + self._dir_s - now <= attr_s:
                seconds = int(attr_s)
                nanoseconds = int((attr_s - seconds) * 1e9)
                return seconds, seconds, nanoseconds, nanoseconds
        entry_s = self._kernel_entry_s
        if entry_s is None:
            entry_s = max(0.0, self.name_left(node, now))
        return validity(entry_s, self.kernel_attr_s(node, now))

    # --- what the server told --------------------------------------------------------------------

    def learned(self, parent: Node, name: bytes, attrs: Attrs, at: float, asked: int) -> Node:
        """A name and its attributes, asked for at *at* (seconds) and *asked* (stamp)."""
        node = self._nodes.learn(parent, name, attrs, at, asked)
        if node.data is not None and node.changes <= asked:
            node.data.told(attrs)
        return node

    def learned_all(
        self, parent: Node, told: Sequence[tuple[bytes, Attrs]], at: float, asked: int
    ) -> list[Node]:
        """``learned`` for each name of a part of a listing."""
        found = self._nodes.learn_all(parent, told, at, asked)
        for node, (_, attrs) in zip(found, told, strict=True):
            if node.data is not None and node.changes <= asked:
                node.data.told(attrs)
        return found

    def store(self, node: Node, attrs: Attrs, at: float, asked: int) -> None:
        """Attributes of a node; dropped if its own changes may have overtaken them."""
        if node.changes > asked:
            return
        self._nodes.set_attrs(node, attrs, at)
        if node.data is not None:
            node.data.told(attrs)

    def missing(self, parent: Node, name: bytes, at: float, asked: int) -> float:
        """The server knows no *name*.  Returns how long that may be believed, seconds."""
        if parent.changes > asked:
            return 0.0
        self._nodes.set_missing(parent, name, at)
        return self._negative_s

    def listed(self, parent: Node, names: set[bytes], at: float, asked: int) -> bool:
        """All names of a directory, learned already.  False if they may be outdated."""
        if parent.changes > asked:
            return False
        if parent.children is not None and parent.children.keys() != names:
            for name in parent.children.keys() - names:
                if parent.children[name].nlookup:
                    self._notifier.expire_entry(parent.nodeid, name)
        self._nodes.set_listing(parent, names, at)
        return True

    # --- what we changed -------------------------------------------------------------------------

    def created(self, parent: Node, name: bytes, attrs: Attrs, at: float) -> Node:
        """*name* was made here and had *attrs* then; between begin_change and end_change."""
        nodes = self._nodes
        if parent.children is not None and name in parent.children:
            nodes.remove(parent, name)  # it had been removed elsewhere without our knowing
        node = nodes.add(parent, name)
        is_dir = _is_dir(attrs)
        if attrs.nlink is None and not is_dir:
            attrs = Attrs(*attrs[:6], 1, *attrs[7:])
        nodes.set_attrs(node, attrs, at)
        if is_dir:
            nodes.set_listing(node, frozenset(), at)  # an empty directory is known in full
            self._count_subdirectory(parent, +1)
        self.names_changed(parent)
        return node

    def removed(self, parent: Node, name: bytes, at: float) -> None:
        """*name* was removed here."""
        node = parent.children.get(name) if parent.children is not None else None
        if node is not None:
            self._lost_name(node, parent)
        self._nodes.set_missing(parent, name, at)
        self.names_changed(parent)

    def _lost_name(self, node: Node, parent: Node) -> None:
        """*node* is about to lose a name in *parent*."""
        attrs = node.attrs
        if node.is_dir:
            self._count_subdirectory(parent, -1)
        elif attrs is not None and attrs.nlink is not None:
            if attrs.nlink > 1:
                self.wrote(node)
            attrs = Attrs(*attrs[:6], max(0, attrs.nlink - 1), *attrs[7:])
            self._nodes.change_attrs(node, attrs)

    def renamed(self, parent: Node, name: bytes, new_parent: Node, new_name: bytes) -> None:
        """A name was moved here, perhaps over another file."""
        nodes = self._nodes
        node = nodes.child(parent, name)
        replaced = nodes.child(new_parent, new_name)
        if node is not None and replaced is node:
            return  # rename(2) between two names of one file does nothing
        if replaced is not None:
            self._lost_name(replaced, new_parent)
        if node is not None and node.is_dir and parent is not new_parent:
            self._count_subdirectory(parent, -1)
            self._count_subdirectory(new_parent, +1)
        nodes.rename(parent, name, new_parent, new_name)
        if node is None:
            # Moved without our having looked at it: what is there now has to be asked.
            nodes.drop_listing(new_parent)
        nodes.set_missing(parent, name, self._clock())
        self.names_changed(parent)
        if new_parent is not parent:
            self.names_changed(new_parent)

    def linked(self, node: Node, parent: Node, name: bytes) -> None:
        """*name* was made one more name of *node* here."""
        self._nodes.link(node, parent, name)
        if node.attrs is not None:
            count = (node.attrs.nlink or 1) + 1
            self._nodes.change_attrs(node, node.attrs._replace(nlink=count))
        self.names_changed(parent)

    def names_changed(self, directory: Node) -> None:
        """Its names were changed here: its times are the server's business, the names are known.

        Should the link be down when they are asked for, about now is shown.  What they were before
        is known to be wrong: rsync would take it for what it has set, and not set it again.
        """
        attrs = directory.attrs
        now = int(self._wall_clock())
        if attrs is not None and attrs.mtime != now:
            ns = None if attrs.mtime_ns is None else now * 10**9
            attrs = attrs._replace(mtime=now, mtime_ns=ns, ctime_ns=ns)
            self._nodes.change_attrs(directory, attrs)
        self._nodes.drop_times(directory)

    def unknown(self, directory: Node, *names: bytes) -> None:
        """A change of these names may have happened or not (cancelled, link lost)."""
        nodes = self._nodes
        nodes.drop_listing(directory)
        self.names_changed(directory)
        for name in names:
            node = nodes.child(directory, name)
            if node is not None:
                nodes.drop_attrs(node)

    def wrote(self, node: Node) -> None:
        """The content or attributes of a file were changed here, or are about to be.

        A file that may have other names makes what is known of those worthless.
        """
        attrs = node.attrs
        if attrs is None or attrs.nlink is None or attrs.nlink > 1:
            self._links_distrusted_at = self._clock()

    def _count_subdirectory(self, parent: Node, step: int) -> None:
        attrs = parent.attrs
        # 0 and 1 are what filesystems without such counts say.
        if attrs is not None and attrs.nlink is not None and attrs.nlink >= 2:
            self._nodes.change_attrs(parent, attrs._replace(nlink=attrs.nlink + step))

    # --- bounds ----------------------------------------------------------------------------------

    def _ask_back(self, surplus: list[Node]) -> None:
        """There are too many nodes: have the kernel drop some that it has not asked for lately."""
        if self._notifier.can_prune:
            self._notifier.prune([node.nodeid for node in surplus])
            return
        for node in surplus:
            if not node.is_dir:  # dropping a directory's name would detach mounts on it
                for parent, name in node.names:
                    self._notifier.invalidate_entry(parent.nodeid, name)


def _is_ambiguous(attrs: Attrs) -> bool:
    """A file with several names that cannot be recognised as one."""
    return attrs.nlink is not None and attrs.nlink > 1 and not attrs.ino and not _is_dir(attrs)


def _is_dir(attrs: Attrs) -> bool:
    return (attrs.mode or 0) & 0o170000 == 0o040000
