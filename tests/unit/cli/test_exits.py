"""Every kind of failure of the parts has its exit code in the one table."""

from __future__ import annotations

import pytest

from netfs.cli.exits import Exit
from netfs.client.daemon import EXIT_MOUNT, DirectoryProblem
from netfs.client.mount import MountErrorKind
from netfs.client.remote.errors import ConnectErrorKind


@pytest.mark.parametrize("kind", ConnectErrorKind)
def test_connecting(kind: ConnectErrorKind) -> None:
    assert Exit[kind.name] == kind.exit_code


@pytest.mark.parametrize("kind", MountErrorKind)
def test_mounting(kind: MountErrorKind) -> None:
    assert EXIT_MOUNT[kind] in set(Exit)


def test_the_remote_directory() -> None:
    assert {problem.value for problem in DirectoryProblem} == {
        Exit.NO_REMOTE_DIRECTORY,
        Exit.REMOTE_NOT_DIRECTORY,
        Exit.REMOTE_DENIED,
    }


def test_the_processes_agree_on_their_codes() -> None:
    from netfs.client import daemon
    from netfs.supervisor import supervisor

    assert daemon.EXIT_LINK_LOST == supervisor.EXIT_LINK_LOST == Exit.LINK_LOST
    assert daemon.EXIT_REMOUNT == supervisor.EXIT_REMOUNT == Exit.REMOUNT
    assert daemon.EXIT_INTERRUPTED == supervisor.EXIT_INTERRUPTED == Exit.INTERRUPTED
    assert supervisor.EXIT_GAVE_UP == Exit.GAVE_UP
    assert daemon.HURRY == supervisor.HURRY
