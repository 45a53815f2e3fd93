"""A short soak: applications on a mount whose link is cut in every way, none of which notices."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.harness.mounts import mounted
from tests.harness.packages import require
from tests.harness.relay import Relay
from tests.harness.soak import Soak
from tests.harness.sshd import Sshd

pytestmark = [pytest.mark.mount, pytest.mark.sshd, pytest.mark.slow, pytest.mark.timeout(300)]

SECONDS = float(os.environ.get("NETFS_SOAK_SECONDS", "25"))


@pytest.mark.parametrize("seed", [1])
def test_no_application_notices_that_the_link_is_cut(
    own_sshd: Sshd, remote: Path, tmp_path: Path, need_fuse: None, seed: int
) -> None:
    for program in ("fio", "git", "rsync"):
        require(program)
    local = tmp_path / "local"
    local.mkdir()
    with (
        Relay(own_sshd.port) as relay,
        mounted(own_sshd, remote, tmp_path / "m", port=relay.port) as mount,
    ):
        soak = Soak(own_sshd, relay, mount, remote, local, seed, max_cut_s=2.5, pause_s=1.5)
        soak.prepare()
        soak.run(SECONDS)
        assert not soak.problems, "\n".join([*soak.problems, mount.text()[-3000:]])
        assert soak.cuts >= 5
        assert all(count for count in soak.rounds.values()), soak.rounds
        assert mount.unmount(60) == 0
