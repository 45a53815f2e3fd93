"""The application tests of tests/mount, on mounts of ``netfs serve`` instead of an sshd's own.

On its listener; in the long form also as the subsystem of an sshd, whose shorter proof is in
test_clients.py. By netfs: sshfs fails seven of them on OpenSSH's server too (owners and times of
symlinks); what it can do is asked of it in test_clients.py.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.mounts import Mount, netfs_command, start
from tests.harness.sshd import running_sshd
from tests.mount.test_applications import *  # noqa: F403  (the tests; the fixture here is ours)
from tests.mount.test_applications import LONG
from tests.server.served import TREE, command, serving

pytestmark = [pytest.mark.mount, pytest.mark.sshd]


WAYS = ["listener", "subsystem of an sshd"] if LONG else ["listener"]


@pytest.fixture(params=WAYS)
def mount_at(
    request: pytest.FixtureRequest, need_fuse: None, remote: Path, tmp_path: Path
) -> Iterator[object]:
    """As the fixture of the same name in tests/conftest.py; *remote* is what is exported."""
    count = itertools.count(1)
    with contextlib.ExitStack() as stack:
        if request.param == "listener":
            served = stack.enter_context(serving(tmp_path / "serve", remote))
            source, options = "served:/", ["-F", str(served.client_config)]
        else:
            argv = " ".join(command("--stdio", "--root", str(remote)))
            subsystem = f"/usr/bin/env PYTHONPATH={TREE} {argv}"
            sshd = stack.enter_context(running_sshd(tmp_path / "sshd", subsystem=subsystem))
            source, options = sshd.source("/"), sshd.options()

        def mount(where: Path, *words: str) -> Mount:
            assert where == remote
            place = tmp_path / f"mnt{next(count)}"
            more = [argument for word in words for argument in ("-o", word)]
            made = start([*netfs_command(), source, str(place), "-f", *options, *more], place)
            stack.callback(made.clean_up)
            return made

        yield mount
