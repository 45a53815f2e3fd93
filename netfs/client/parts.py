"""The parts of one mounted filesystem and how they depend on each other.

Which part does what is in docs/design.md; in which order they live and end is the daemon's.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from netfs.client import mount as mounting
from netfs.client.coherence import Coherence
from netfs.client.config import Config
from netfs.client.data.files import FileTable
from netfs.client.device import Device
from netfs.client.directories import DirectoryTable
from netfs.client.dispatcher import Dispatcher
from netfs.client.identity import Identity, Login
from netfs.client.inflight import InFlightTable
from netfs.client.nodes import NodeTable
from netfs.client.notifier import Notifier
from netfs.client.operations import HANDLERS
from netfs.client.operations.context import Context
from netfs.client.operations.refused import REFUSED
from netfs.client.prefetch import TreeReadAhead
from netfs.client.remote.session import Session
from netfs.fuse.handshake import Capabilities
from netfs.sftp.attrs import Attrs


class Root(NamedTuple):
    """What is known of the served directory before it is mounted."""

    path: bytes  # absolute, or relative to the login directory while that is not known
    attrs: Attrs | None  # None: not asked (delay_connect)
    login: Login | None  # whom the server takes us for


class Parts(NamedTuple):
    """What the daemon must start, ask and end."""

    context: Context
    dispatcher: Dispatcher
    notifier: Notifier


def assemble(
    config: Config,
    session: Session,
    root: Root,
    device: Device,
    capabilities: Capabilities,
    spawn: Callable[[Coroutine[Any, Any, None]], None],
) -> Parts:
    """Put the parts together; nothing runs yet."""
    clock = time.monotonic
    in_flight = InFlightTable()
    notifier = Notifier(device.notify, capabilities, busy=in_flight.busy)
    nodes = NodeTable(root.path, max_entries=config.cache.max_entries)
    coherence = Coherence(config.cache, nodes=nodes, remote=session, notifier=notifier, clock=clock)
    if root.attrs is not None:
        coherence.store(nodes.root, root.attrs, clock(), nodes.stamp)
    identity = Identity(
        config.identity,
        local_uid=os.getuid(),
        local_gid=os.getgid(),
        login=root.login,
        shared=config.mount.allow_other,
    )
    files = FileTable(
        cache=config.cache,
        semantics=config.semantics,
        link=config.link,
        remote=session,
        nodes=nodes,
        coherence=coherence,
        notifier=notifier,
        clock=clock,
    )
    directories = DirectoryTable(
        nodes=nodes,
        remote=session,
        coherence=coherence,
        clock=clock,
        spawn=spawn,
        follow_symlinks=config.semantics.follow_symlinks,
    )
    tree = TreeReadAhead(
        config.cache,
        nodes=nodes,
        remote=session,
        coherence=coherence,
        directories=directories,
        files=files,
        round_trip_s=lambda: session.links.round_trip.shortest_s,
        clock=clock,
        spawn=spawn,
    )
    context = Context(
        config=config,
        remote=session,
        nodes=nodes,
        files=files,
        directories=directories,
        identity=identity,
        coherence=coherence,
        tree=tree,
        notifier=notifier,
        clock=clock,
        spawn=spawn,
        capabilities=capabilities,
    )
    dispatcher = Dispatcher(
        device,
        context,
        HANDLERS,
        REFUSED,
        minor=capabilities.minor,
        clock=clock,
        turn=session.turn,
        debug=config.daemon.debug,
        is_link_up=lambda: session.is_up,
        in_flight=in_flight,
        allowed_uids=mounting.allowed_uids(config.mount),
    )
    return Parts(context, dispatcher, notifier)
