"""Random operations against a model: no wrong byte, whatever options the mount has."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from tests.conftest import Mounter
from tests.harness.fsx import Exerciser

pytestmark = [pytest.mark.mount, pytest.mark.sshd]

COUNT = 20_000 if os.environ.get("NETFS_TEST_LONG") else 700


def test_the_exerciser_finds_nothing_wrong_on_a_local_disk(tmp_path: Path) -> None:
    exerciser = Exerciser(tmp_path / "file", 1)
    exerciser.run(1500)
    exerciser.close()


@pytest.mark.parametrize(
    ("options", "seed"),
    [
        ((), 11),
        ((), 12),
        (("sync",), 13),
        (("direct_io",), 14),
        (("dir_cache=no",), 15),
        (("cache_timeout=0", "cto_window=0"), 16),
        (("max_read=4096",), 17),
    ],
    ids=lambda value: ",".join(value) or "default" if isinstance(value, tuple) else None,
)
def test_no_wrong_byte(
    mount_at: Mounter, remote: Path, options: tuple[str, ...], seed: int
) -> None:
    mount = mount_at(remote, *options)
    exerciser = Exerciser(mount.path / "file", seed, mapping="direct_io" not in options)
    exerciser.run(COUNT)
    exerciser.close()
    assert (remote / exerciser.path.name).read_bytes() == bytes(exerciser.model)
    assert mount.unmount() == 0
    assert (remote / exerciser.path.name).read_bytes() == bytes(exerciser.model)


def test_no_wrong_byte_while_files_are_exercised_side_by_side(
    mount_at: Mounter, remote: Path
) -> None:
    mount = mount_at(remote)
    exercisers = [Exerciser(mount.path / f"file{n}", 100 + n) for n in range(4)]
    problems: list[BaseException] = []

    def work(exerciser: Exerciser) -> None:
        try:
            exerciser.run(COUNT // 2)
        except BaseException as problem:
            problems.append(problem)

    threads = [threading.Thread(target=work, args=(one,)) for one in exercisers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(110)
    assert not problems, problems[0]
    for exerciser in exercisers:
        exerciser.close()
        assert (remote / exerciser.path.name).read_bytes() == bytes(exerciser.model)
