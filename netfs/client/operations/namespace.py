"""Names: LOOKUP, FORGET, READLINK, and what makes, moves and removes names.

Each mutation follows one shape: mark the directory as changing, send the mutation and the question
what came of it in one burst, and put the answer into the tree.  A mutation whose outcome is unknown
(cancelled after sending, link lost) leaves nothing believed that it may have changed.
"""

from __future__ import annotations

import asyncio
import errno
import os
import posixpath
import stat
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import nullcontext, suppress
from functools import partial
from typing import Any, Final

from netfs.client import convert
from netfs.client.inflight import Question
from netfs.client.nodes import NEVER, Node
from netfs.client.operations.context import Context
from netfs.client.remote import api
from netfs.client.remote.pending import Disconnected
from netfs.client.turns import Begun
from netfs.fuse import abi, replies, requests
from netfs.fuse.replies import EMPTY, Reply
from netfs.sftp.attrs import Attrs

TARGET_MAX: Final = 4095
"""bytes of a symlink's target: PATH_MAX without the NUL."""

LINK_ERRNOS: Final = frozenset(
    {errno.ETIMEDOUT, errno.EIO, errno.ENOTCONN, errno.ECONNRESET, errno.EHOSTUNREACH, errno.EPIPE}
)
"""What a lost link looks like.  On a LOOKUP these would make the kernel drop the name, and silently
detach what is mounted below it."""


def os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


# --- LOOKUP, FORGET ------------------------------------------------------------------------------


def lookup(ctx: Context, request: requests.Lookup) -> Reply | Coroutine[Any, Any, Reply] | Question:
    name = request.name
    parent = ctx.nodes.get(request.nodeid)
    coherence = ctx.coherence
    children = parent.children
    node = children.get(name) if children is not None else None
    if node is not None and node.attrs is not None:
        now = ctx.clock()
        if coherence.name_left(node, now) > 0 or not ctx.remote.is_up:
            ctx.tree.looked_up(parent, now, asked=False)
            return convert.entry_reply(ctx, node)
        return _LookupAgain(ctx, parent, name)
    if node is None:
        if parent.listed_at > NEVER or parent.negative is not None:
            left = coherence.missing_left(parent, name, ctx.clock())
            if left > 0:
                return Reply((replies.negative_entry(left),))
        if not ctx.remote.is_up:
            if coherence.is_known_missing(parent, name):
                raise os_error(errno.ENOENT)
            if coherence.is_given_up(parent, name):
                raise os_error(errno.ETIMEDOUT)
    return _Lookup(ctx, parent, name)


class _Lookup(Question):
    """A name that is not known."""

    at: float  # when it was asked
    asked: int  # and the stamp then

    def __init__(self, ctx: Context, parent: Node, name: bytes) -> None:
        self.ctx = ctx
        self.parent = parent
        self.name = name

    def ask(self) -> Coroutine[Any, Any, Reply] | None:
        """See Question."""
        ctx, parent, name = self.ctx, self.parent, self.name
        self.at = ctx.clock()
        ctx.tree.looked_up(parent, self.at, asked=True)
        if ctx.config.semantics.follow_symlinks or ctx.directories.is_listing(parent.nodeid):
            return self.otherwise()
        self.asked = ctx.nodes.stamp
        if ctx.remote.look(ctx.nodes.path_of(parent, name), self):
            return None
        return self.otherwise()

    def otherwise(self) -> Coroutine[Any, Any, Reply]:
        """Where one answer does not do."""
        return _ask_name(self.ctx, self.parent, self.name)

    def found(self, attrs: Attrs) -> Reply:
        """See Looking."""
        learned = self.ctx.coherence.learned(self.parent, self.name, attrs, self.at, self.asked)
        return convert.entry_reply(self.ctx, learned)

    def refused(self, error: OSError) -> Reply:
        """See Looking."""
        ctx, parent, name = self.ctx, self.parent, self.name
        if error.errno == errno.ENOENT:
            believed_s = ctx.coherence.missing(parent, name, self.at, self.asked)
            if believed_s > 0:
                return Reply((replies.negative_entry(believed_s),))
            raise error
        node = ctx.nodes.child(parent, name)
        if error.errno in LINK_ERRNOS and node is not None and node.attrs is not None:
            return convert.entry_reply(ctx, node)
        if error.errno == errno.ETIMEDOUT:
            ctx.coherence.gave_up(parent, name)
        raise error

    def ask_again(self, lost: Disconnected) -> Coroutine[Any, Any, Reply]:
        """See Question."""
        return self.answered_by(self.ctx.remote.look_again(self, lost))

    async def answered_by(self, looking: Awaitable[Attrs]) -> Reply:
        """The reply that the outcome of *looking* leads to."""
        try:
            attrs = await looking
        except OSError as exc:
            return self.refused(exc)
        return self.found(attrs)


class _LookupAgain(_Lookup):
    """A name that is known: when the link turns out to be down, it is shown as it was."""

    def ask(self) -> Coroutine[Any, Any, Reply] | None:
        """See Question."""
        if not self.ctx.remote.is_up:
            return self.otherwise()
        other = super().ask()
        if other is None:
            self.ctx.coherence.when_down.add(self.link_down)
        return other

    def otherwise(self) -> Coroutine[Any, Any, Reply]:
        return _ask_known(self.ctx, self.parent, self.name)

    def link_down(self) -> None:
        """The link stopped being up before the answer came."""
        self.end()
        self.go_on(_as_it_was(self.ctx, self.parent, self.name))

    def found(self, attrs: Attrs) -> Reply:
        """See Looking."""
        self.ctx.coherence.when_down.discard(self.link_down)
        return super().found(attrs)

    def refused(self, error: OSError) -> Reply:
        """See Looking."""
        self.ctx.coherence.when_down.discard(self.link_down)
        return super().refused(error)

    def ask_again(self, lost: Disconnected) -> Coroutine[Any, Any, Reply]:
        """See Question."""
        self.ctx.coherence.when_down.discard(self.link_down)
        return self.otherwise()

    def cancel(self) -> None:
        """See Question."""
        self.ctx.coherence.when_down.discard(self.link_down)
        super().cancel()


async def _ask_known(ctx: Context, parent: Node, name: bytes) -> Reply:
    """As ``_ask_name``; when the link turns out to be down, the name is shown as it was."""
    try:
        async with ctx.coherence.while_up():
            return await _ask_name(ctx, parent, name)
    except TimeoutError as exc:
        if exc.errno is not None:
            raise  # the link has been waited for already
    return await _as_it_was(ctx, parent, name)


async def _as_it_was(ctx: Context, parent: Node, name: bytes) -> Reply:
    node = ctx.nodes.child(parent, name)
    if node is None or node.attrs is None:
        return await _ask_name(ctx, parent, name)  # it was changed here meanwhile
    return convert.entry_reply(ctx, node)


async def _ask_name(ctx: Context, parent: Node, name: bytes) -> Reply:
    """A LOOKUP that takes more than one question."""
    if ctx.directories.is_listing(parent.nodeid):
        # Its listing is under way and will tell: one request instead of one per name.
        with suppress(TimeoutError):  # the question itself waits as long as it may for the link
            async with ctx.coherence.while_up():
                await ctx.tree.wait_listed(parent)
        node = ctx.nodes.child(parent, name)
        at = ctx.clock()
        if node is not None and ctx.coherence.has_attrs(node, at):
            return convert.entry_reply(ctx, node)
        if node is None and ctx.coherence.missing_left(parent, name, at) > 0:
            return Reply((replies.negative_entry(ctx.coherence.missing_left(parent, name, at)),))
    one = _Lookup(ctx, parent, name)
    one.at, one.asked = ctx.clock(), ctx.nodes.stamp
    return await one.answered_by(look(ctx, ctx.nodes.path_of(parent, name)))


def look(ctx: Context, path: bytes) -> Coroutine[Any, Any, Attrs]:
    """The attributes of a name as this mount shows symlinks (follow_symlinks)."""
    if ctx.config.semantics.follow_symlinks:
        return _look_behind(ctx, path)
    return ctx.remote.lstat(path)


async def _look_behind(ctx: Context, path: bytes) -> Attrs:
    try:
        return await ctx.remote.stat(path)
    except OSError as exc:
        if exc.errno not in (errno.ENOENT, errno.ELOOP, errno.EACCES):
            raise
    return await ctx.remote.lstat(path)  # dangling: shown as the link it is


def forget(ctx: Context, request: requests.Forget) -> None:
    nodes = ctx.nodes
    for nodeid, count in request.entries:
        nodes.forget(nodeid, count)


# --- READLINK ------------------------------------------------------------------------------------


def readlink(ctx: Context, request: requests.ReadLink) -> Reply | Coroutine[Any, Any, Reply]:
    node = ctx.nodes.get(request.nodeid)
    ctx.tree.read_link(node)
    if node.target is not None and (
        ctx.coherence.target_left(node, ctx.clock()) > 0 or not ctx.remote.is_up
    ):
        return Reply((_shown_target(ctx, node, node.target),))
    return _readlink(ctx, node)


async def _readlink(ctx: Context, node: Node) -> Reply:
    asked = ctx.nodes.stamp
    old = node.target
    try:
        async with nullcontext() if old is None else ctx.coherence.while_up():
            target = await ctx.remote.readlink(ctx.nodes.path(node))
    except TimeoutError:
        if old is None:
            raise os_error(errno.ETIMEDOUT) from None
        return Reply((_shown_target(ctx, node, old),))
    if node.changes <= asked:
        node.target = target
    return Reply((_shown_target(ctx, node, target),))


def _shown_target(ctx: Context, node: Node, target: bytes) -> bytes:
    """The target as it is, or as transform_symlinks and contain_symlinks want it.

    Raises: OSError(EPERM) for one that contain_symlinks refuses.
    """
    semantics = ctx.config.semantics
    base = ctx.nodes.path(ctx.nodes.root)
    if semantics.transform_symlinks and target.startswith(b"/") and node.parent is not None:
        normal = posixpath.normpath(target)
        if normal == base or normal.startswith(base.rstrip(b"/") + b"/"):
            target = posixpath.relpath(normal, ctx.nodes.path(node.parent))
            return target[:TARGET_MAX]
    if semantics.contain_symlinks and (target.startswith(b"/") or b".." in target.split(b"/")):
        raise os_error(errno.EPERM)
    return target[:TARGET_MAX]


# --- making names --------------------------------------------------------------------------------


def mkdir(ctx: Context, request: requests.MkDir) -> Coroutine[Any, Any, Reply]:
    parent = ctx.nodes.get(request.nodeid)
    path = ctx.nodes.path_of(parent, request.name)
    return _make(ctx, parent, request, partial(ctx.remote.mkdir, path, request.mode & 0o7777))


def symlink(ctx: Context, request: requests.Symlink) -> Coroutine[Any, Any, Reply]:
    if len(request.target) > TARGET_MAX:
        raise os_error(errno.ENAMETOOLONG)
    parent = ctx.nodes.get(request.nodeid)
    path = ctx.nodes.path_of(parent, request.name)
    return _make(ctx, parent, request, partial(ctx.remote.symlink, request.target, path))


def mknod(ctx: Context, request: requests.MkNod) -> Coroutine[Any, Any, Reply]:
    """Regular files only: SFTP cannot make fifos, sockets and devices."""
    if stat.S_IFMT(request.mode) not in (0, stat.S_IFREG):
        raise os_error(errno.EPERM)
    parent = ctx.nodes.get(request.nodeid)
    path = ctx.nodes.path_of(parent, request.name)
    return _make(ctx, parent, request, partial(_create_empty, ctx, path, request.mode & 0o7777))


async def _create_empty(ctx: Context, path: bytes, mode: int) -> None:
    handle = await ctx.remote.open(path, api.WRITE | api.CREAT | api.EXCL, mode)
    await ctx.remote.close(handle)


async def _make(
    ctx: Context,
    parent: Node,
    request: requests.MkDir | requests.Symlink | requests.MkNod,
    making: Callable[[], Coroutine[Any, Any, None]],
) -> Reply:
    """Make a name and learn what came of it."""
    path = ctx.nodes.path_of(parent, request.name)
    keep_told(ctx, parent)
    with changing(ctx, parent, request.name):
        at = ctx.clock()
        attrs = await then_look(ctx, making, path)
        attrs = await give_to_creator(ctx, request, parent, path, attrs)
        if isinstance(request, requests.Symlink):
            if attrs.mode is not None and not stat.S_ISLNK(attrs.mode):
                # ProFTPD's LSTAT looks behind links; the kernel would take it for a failure.
                attrs = Attrs(size=len(request.target), mode=stat.S_IFLNK | 0o777)
        else:
            attrs = await _set_bits(ctx, path, request.mode & 0o7777, attrs)
        node = ctx.coherence.created(parent, request.name, attrs, at)
        if isinstance(request, requests.Symlink):
            node.target = request.target
    return convert.entry_reply(ctx, node)


async def _set_bits(ctx: Context, path: bytes, mode: int, attrs: Attrs) -> Attrs:
    """Set the bits of *mode* that the server's umask took off (the creator's left them), and take
    back permissions that a server gave which does not look at modes.

    Returns the attributes after that.
    """
    if attrs.mode is None or not (mode & ~attrs.mode or attrs.mode & ~mode & 0o777):
        return attrs
    mode |= attrs.mode & 0o7000  # also the group that a set-group-ID parent hands down
    try:
        await ctx.remote.setstat(path, Attrs(mode=mode))
    except OSError as exc:
        if exc.errno in (errno.EPERM, errno.EACCES, errno.EOPNOTSUPP):
            return attrs  # a server that decides about modes itself
        raise
    return attrs._replace(mode=stat.S_IFMT(attrs.mode) | mode)


async def give_to_creator(
    ctx: Context, request: requests.Request, parent: Node, path: bytes, attrs: Attrs
) -> Attrs:
    """What a caller creates belongs to the caller, where the connection may give files away.

    Returns the attributes after that.
    """
    is_setgid = bool(parent.mode & stat.S_ISGID)
    wanted = ctx.identity.creator(request.uid, request.gid, is_setgid, attrs.uid)
    if wanted is None:
        return attrs
    uid = wanted.uid if wanted.uid is not None else attrs.uid
    gid = wanted.gid if wanted.gid is not None else attrs.gid
    is_link = stat.S_ISLNK(attrs.mode or 0)
    try:
        await ctx.remote.setstat(path, Attrs(uid=uid, gid=gid), follow=not is_link)
    except OSError as exc:
        if is_link and exc.errno == errno.EOPNOTSUPP:
            return attrs  # a server without lsetstat: the link's owner does not matter much
        raise
    return attrs._replace(uid=uid, gid=gid)


def link(ctx: Context, request: requests.Link) -> Coroutine[Any, Any, Reply]:
    if ctx.config.semantics.disable_hardlink:
        raise os_error(errno.EPERM)  # what link(2) gives for a filesystem without links
    parent = ctx.nodes.get(request.nodeid)
    return _link(ctx, ctx.nodes.get(request.old_nodeid), parent, request.name)


async def _link(ctx: Context, node: Node, parent: Node, name: bytes) -> Reply:
    old, new = ctx.nodes.path(node), ctx.nodes.path_of(parent, name)
    with changing(ctx, parent, name):
        at, asked = ctx.clock(), ctx.nodes.stamp
        try:
            attrs = await then_look(ctx, partial(ctx.remote.link, old, new), new)
        except OSError as exc:
            raise os_error(errno.EPERM) if exc.errno == errno.EOPNOTSUPP else exc from exc
        ctx.coherence.linked(node, parent, name)
        ctx.coherence.store(node, attrs, at, asked)
    return convert.entry_reply(ctx, node)


# --- removing and moving names -------------------------------------------------------------------


def unlink(ctx: Context, request: requests.Unlink) -> Coroutine[Any, Any, Reply]:
    return _remove(ctx, ctx.nodes.get(request.nodeid), request.name, is_dir=False)


def rmdir(ctx: Context, request: requests.RmDir) -> Coroutine[Any, Any, Reply]:
    return _remove(ctx, ctx.nodes.get(request.nodeid), request.name, is_dir=True)


async def _remove(ctx: Context, parent: Node, name: bytes, *, is_dir: bool) -> Reply:
    path = ctx.nodes.path_of(parent, name)
    node = parent.children.get(name) if parent.children is not None else None
    above = parent.parent
    if is_dir and node is not None and above is not None and len(parent.children or ()) == 1:
        # Who removes a tree removes the emptied directory next, and before that he comes up and
        # looks whether he is where he was (fts(3)).
        expect(ctx, above)
    with changing(ctx, parent, name):
        if node is not None and node.data is not None:
            await _keep_open(ctx, node, path)
        at = ctx.clock()
        try:
            await (ctx.remote.rmdir(path) if is_dir else ctx.remote.remove(path))
        except OSError as exc:
            if exc.errno == errno.ENOENT:
                ctx.coherence.removed(parent, name, at)
            elif exc.errno == errno.ENOTEMPTY and node is not None:
                ctx.nodes.drop_listing(node)  # it holds something that was not listed
            raise
        ctx.coherence.removed(parent, name, at)
    return EMPTY


def rename(ctx: Context, request: requests.Rename) -> Coroutine[Any, Any, Reply]:
    if request.flags & ~abi.RENAME_NOREPLACE:
        raise os_error(errno.EINVAL)  # EXCHANGE and WHITEOUT: nothing in SFTP can keep them
    return _rename(ctx, request)


async def _rename(ctx: Context, request: requests.Rename) -> Reply:
    nodes = ctx.nodes
    parent, new_parent = nodes.get(request.nodeid), nodes.get(request.new_parent)
    name, new_name = request.name, request.new_name
    old, new = nodes.path_of(parent, name), nodes.path_of(new_parent, new_name)
    replaced = nodes.child(new_parent, new_name)
    with changing(ctx, parent, name), changing(ctx, new_parent, new_name):
        if (
            replaced is not None
            and replaced.data is not None
            and replaced is not nodes.child(parent, name)
        ):
            await _keep_open(ctx, replaced, new)
        replace = not request.flags & abi.RENAME_NOREPLACE
        try:
            await ctx.remote.rename(old, new, replace=replace)
        except OSError as exc:
            if exc.errno == errno.ENOENT:
                ctx.coherence.unknown(parent, name)
            elif exc.errno == errno.ENOTEMPTY and replaced is not None:
                ctx.nodes.drop_listing(replaced)
            raise
        ctx.coherence.renamed(parent, name, new_parent, new_name)
    return EMPTY


async def _keep_open(ctx: Context, node: Node, path: bytes) -> None:
    """Before the name *path* goes away, of a file with ``data``: who has it open goes on with that.

    A file that is open here may not be open on the server yet; without its name it never could.
    """
    if node.opens:
        await ctx.files.keep_open(node)
    if node.links is not None:
        for parent, name in node.names:
            if (other := ctx.nodes.path_of(parent, name)) != path:
                ctx.remote.also_named(path, other)


# --- the shape of a mutation ---------------------------------------------------------------------


class changing:  # in small letters as contextlib's; a generator costs three times as much
    """Around a mutation of *name*: answers asked for meanwhile are not stored; what a mutation of
    unknown outcome may have changed is not believed any more."""

    __slots__ = ("_ctx", "_name", "_parent")

    def __init__(self, ctx: Context, parent: Node, name: bytes) -> None:
        self._ctx = ctx
        self._parent = parent
        self._name = name

    def __enter__(self) -> None:
        self._ctx.nodes.begin_names(self._parent)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        if error is not None:
            is_unknown = isinstance(error, asyncio.CancelledError) or (
                isinstance(error, OSError)
                and (error.errno in LINK_ERRNOS or error.errno == errno.EEXIST)
            )
            if is_unknown:
                self._ctx.coherence.unknown(self._parent, self._name)
        self._ctx.nodes.end_names(self._parent)


def expect(ctx: Context, directory: Node) -> None:
    """Have the attributes of *directory* asked for, if they are unknown, along with what is about
    to be asked: they will be wanted next."""
    if not ctx.coherence.has_attrs(directory, ctx.clock()):
        _look_along(ctx, directory)


def keep_told(ctx: Context, directory: Node) -> None:
    """The same if what is known of it becomes old: who unpacks an archive sets one of its times in
    the end, and then the other one has to be known."""
    if NEVER < directory.told_at < ctx.clock() - ctx.config.cache.cto_window_s / 2:
        _look_along(ctx, directory)


def _look_along(ctx: Context, directory: Node) -> None:
    # The mount's root, and what may be a symlink followed, are asked for in their own ways.
    parent = directory.parent
    if parent is not None and ctx.remote.is_up and not ctx.config.semantics.follow_symlinks:
        ctx.spawn(_look_again(ctx, directory, parent, directory.name))


async def _look_again(ctx: Context, directory: Node, parent: Node, name: bytes) -> None:
    at, asked, told_at = ctx.clock(), ctx.nodes.stamp, directory.told_at
    attrs = await ctx.remote.lstat(ctx.nodes.path(directory))
    if directory.removed or (directory.parent, directory.name) != (parent, name):
        return
    ctx.coherence.learned(parent, name, attrs, at, asked)
    if directory.told_at == told_at and directory.is_dir and stat.S_ISDIR(attrs.mode or 0):
        ctx.nodes.tell_all_but_times(directory, attrs, at)  # its names were changed meanwhile


async def then_look(
    ctx: Context, change: Callable[[], Coroutine[Any, Any, None]], path: bytes
) -> Attrs:
    """Do *change*, then ask what *path* is now: two requests in one burst.

    Raises: OSError, of *change* first.
    """
    changing = Begun(change())
    try:
        told: Attrs | None = await ctx.remote.lstat(path)
    except OSError:
        told = None
    except BaseException:
        await changing.stop()
        raise
    await changing.outcome()
    # A server that works on several requests at once may have looked too early.
    return told if told is not None else await ctx.remote.lstat(path)
