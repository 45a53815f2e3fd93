"""Fixtures for tests on real components: keys and one sshd per test process, mounts, sandboxes."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness import leaks
from tests.harness.mounts import Mount, mounted
from tests.harness.namespace import enter_private_mounts, open_fuse_device
from tests.harness.sshd import Sshd, running_sshd


def pytest_configure(config: pytest.Config) -> None:
    """As root, run in a private mount namespace: a stuck mount of a test blocks nobody's ``df``.

    Done before anything starts a thread; under pytest-xdist each worker does it for itself.
    """
    if os.geteuid() == 0 and not os.environ.get("NETFS_TEST_SHARED_MOUNTS"):
        with contextlib.suppress(OSError):  # not permitted in some containers: then as it is
            enter_private_mounts()
    leaks.mark_this_run()


@pytest.fixture(scope="session")
def ending_s() -> float:
    """How long what a test has told to end may take for it."""
    return leaks.PATIENCE_S


@pytest.fixture(autouse=True)
def leaves_nothing(ending_s: float) -> Iterator[None]:
    """Fail a test that leaves a mount, a namespace or a process behind."""
    before = leaks.look()
    yield
    if left := leaks.left_since(before, ending_s):
        pytest.fail("left behind:\n" + "\n".join(left))


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Path]:
    """A short-named directory for sockets, servers and mountpoints, gone afterwards."""
    path = Path(tempfile.mkdtemp(prefix="netfs-t-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)  # a busy leftover must not hide the test's own result


@pytest.fixture(scope="session")
def sshd(sandbox: Path) -> Iterator[Sshd]:
    """A real OpenSSH server on loopback that all tests of this process share."""
    with running_sshd(sandbox / "sshd") as server:
        yield server


@pytest.fixture
def own_sshd(sandbox: Path, tmp_path: Path) -> Iterator[Sshd]:
    """A server for one test alone, which may stop, pause or reconfigure it."""
    with running_sshd(tmp_path / "sshd") as server:
        yield server


@pytest.fixture
def remote(tmp_path: Path) -> Path:
    """An empty directory that plays the server's side."""
    path = tmp_path / "remote"
    path.mkdir()
    return path


@pytest.fixture
def need_fuse() -> None:
    """Skip where the machine has no FUSE at all."""
    if not os.path.exists("/dev/fuse"):
        pytest.skip("this machine has no /dev/fuse")


Mounter = Callable[..., Mount]


@pytest.fixture
def mount_at(need_fuse: None, sshd: Sshd, tmp_path: Path) -> Iterator[Mounter]:
    """Mounts directories of the shared server: ``mount_at(remote, *options, ...)``.

    Keywords as :func:`tests.harness.mounts.mounted`; ``server`` for another one. All mounts end
    with the test. NETFS_TEST_PEER=sshfs runs the same tests on sshfs: a check of the tests.
    """
    with contextlib.ExitStack() as stack:
        yield _mounter(stack, sshd, tmp_path)


@pytest.fixture
def mount_own(need_fuse: None, tmp_path: Path) -> Iterator[Mounter]:
    """The same on a server started by this test, which sees what the test mounted before."""
    with contextlib.ExitStack() as stack:

        def mount(remote: Path, *options: str, **more: object) -> Mount:
            server = stack.enter_context(running_sshd(tmp_path / "sshd"))
            return _mounter(stack, server, tmp_path)(remote, *options, **more)

        yield mount


def _mounter(stack: contextlib.ExitStack, sshd: Sshd, tmp_path: Path) -> Mounter:
    peer = os.environ.get("NETFS_TEST_PEER", "netfs")
    count = itertools.count(1)

    def mount(remote: Path, *options: str, server: Sshd | None = None, **more: object) -> Mount:
        context = mounted(
            server or sshd,
            remote,
            tmp_path / f"mnt{next(count)}",
            options=options,
            **{"peer": peer, **more},  # type: ignore[arg-type]
        )
        return stack.enter_context(context)

    return mount


@pytest.fixture
def fuse_for_users(need_fuse: None) -> Iterator[None]:
    """/dev/fuse as on a normal machine: usable by every user."""
    with open_fuse_device() if os.geteuid() == 0 else contextlib.nullcontext():
        yield
