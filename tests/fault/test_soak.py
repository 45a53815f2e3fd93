"""A short soak: applications on a mount whose link is cut in every way, none of which notices."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.harness.packages import require
from tests.harness.soak import Plan, stage

pytestmark = [pytest.mark.mount, pytest.mark.sshd, pytest.mark.slow, pytest.mark.timeout(300)]

SECONDS = float(os.environ.get("NETFS_SOAK_SECONDS", "25"))


@pytest.mark.parametrize("seed", [1])
def test_no_application_notices_that_the_link_is_cut(
    tmp_path: Path, need_fuse: None, seed: int
) -> None:
    for program in ("fio", "git", "rsync"):
        require(program)
    with stage(tmp_path, []) as soak:
        soak.run(Plan(seed, SECONDS, max_cut_s=2.5, pause_s=1.5))
        assert not soak.problems, "\n".join([*soak.problems, soak.mount.text()[-3000:]])
        assert soak.cuts >= 5
        assert all(soak.rounds.values()), soak.rounds
        soak.wait_quiet()
        assert soak.mount.unmount(60) == 0
