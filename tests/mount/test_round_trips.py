"""How many requests everyday calls cost: counted on the wire, so that speed cannot rot unseen."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.harness.mounts import Mount, mounted
from tests.harness.relay import Relay
from tests.harness.sftpd import running_sftpd
from tests.harness.sshd import Sshd

pytestmark = [pytest.mark.mount, pytest.mark.sshd]

NAMES: Final = {
    3: "OPEN", 4: "CLOSE", 5: "READ", 6: "WRITE", 7: "LSTAT", 8: "FSTAT", 9: "SETSTAT",
    10: "FSETSTAT", 11: "OPENDIR", 12: "READDIR", 13: "REMOVE", 14: "MKDIR", 15: "RMDIR",
    16: "REALPATH", 17: "STAT", 18: "RENAME", 19: "READLINK", 20: "SYMLINK", 200: "EXTENDED",
}  # fmt: skip

Count = Callable[[Callable[[], object]], Counter[str]]


@pytest.fixture
def wire(
    remote: Path, tmp_path: Path, sshd: Sshd, need_fuse: None
) -> Iterator[tuple[Mount, Count]]:
    """A mount over clear SFTP, and what counts the requests that an action sends."""
    (remote / "d").mkdir()
    for number in range(20):
        (remote / "d" / f"f{number}").write_bytes(b"x" * 3000)
        os.utime(remote / "d" / f"f{number}", (1_600_000_000, 1_600_000_000))
    (remote / "d" / "sub").mkdir()
    (remote / "d" / "sub" / "deep").write_text("x")
    with running_sftpd() as port, Relay(port) as relay:
        options = (f"directport={relay.port}",)
        source = f"127.0.0.1:{remote}"
        with mounted(sshd, remote, tmp_path / "m", options=options, source=source) as mount:

            def count(action: Callable[[], object]) -> Counter[str]:
                relay.record()
                action()
                sent = Counter(
                    NAMES.get(kind, str(kind)) for way, kind, _ in relay.packets() if way == "up"
                )
                del sent["CLOSE"]  # nobody waits for it, it may come whenever
                return sent

            yield mount, count


def test_what_a_mount_must_know_is_asked_at_once(
    remote: Path, tmp_path: Path, sshd: Sshd, need_fuse: None
) -> None:
    with running_sftpd() as port, Relay(port) as relay:
        relay.record()
        options = (f"directport={relay.port}",)
        with mounted(sshd, remote, tmp_path / "m", options=options, source=f"127.0.0.1:{remote}"):
            seen = [(way, NAMES.get(kind)) for way, kind, _ in relay.packets()]
    first = seen.index(("up", "REALPATH"))
    assert seen[first : first + 3] == [("up", "REALPATH"), ("up", "STAT"), ("up", "STAT")]


def test_names_are_asked_for_with_the_opening_once_the_server_has_shown_its_handles(
    remote: Path, tmp_path: Path, sshd: Sshd, need_fuse: None
) -> None:
    for number in range(10):
        (remote / f"d{number}" / f"in{number}").mkdir(parents=True)
    with running_sftpd() as port, Relay(port) as relay:
        options = (f"directport={relay.port}", "no_tree_readahead")
        source = f"127.0.0.1:{remote}"
        with mounted(sshd, remote, tmp_path / "m", options=options, source=source) as mount:
            for number in range(9):
                assert os.listdir(mount.path / f"d{number}") == [f"in{number}"]
            relay.record()
            assert os.listdir(mount.path / "d9") == ["in9"]
            seen = [(way, NAMES.get(kind)) for way, kind, _ in relay.packets()]
            assert len(os.listdir(mount.path)) == 10
    first = seen.index(("up", "OPENDIR"))
    assert seen[first : first + 3] == [("up", "OPENDIR"), ("up", "READDIR"), ("up", "READDIR")]


def test_a_stat_of_an_unknown_name_is_one_request(wire: tuple[Mount, Count]) -> None:
    mount, count = wire
    os.stat(mount.path / "d")
    assert count(lambda: os.stat(mount.path / "d" / "f3")) == {"LSTAT": 1}


def test_a_known_name_is_none(wire: tuple[Mount, Count]) -> None:
    mount, count = wire
    os.stat(mount.path / "d" / "f3")
    assert not count(lambda: os.stat(mount.path / "d" / "f3"))


def test_a_missing_name_is_asked_for_once(wire: tuple[Mount, Count]) -> None:
    mount, count = wire
    os.stat(mount.path / "d")
    assert count(lambda: os.path.exists(mount.path / "d" / "missing")) == {"LSTAT": 1}
    assert not count(lambda: os.path.exists(mount.path / "d" / "missing"))


def test_a_listing_tells_attributes_and_what_is_missing(wire: tuple[Mount, Count]) -> None:
    mount, count = wire
    os.listdir(mount.path / "d")
    assert not count(lambda: [os.stat(mount.path / "d" / f"f{n}") for n in range(20)])
    assert not count(lambda: os.path.exists(mount.path / "d" / "missing"))


def test_a_single_listing_fetches_nothing_else(wire: tuple[Mount, Count]) -> None:
    mount, count = wire
    os.stat(mount.path / "d")
    sent = count(lambda: os.listdir(mount.path / "d"))
    assert sent["OPENDIR"] == 1
    assert sent["OPEN"] == sent["READ"] == sent["LSTAT"] == 0


def test_a_small_file_is_read_with_at_most_one_of_each(wire: tuple[Mount, Count]) -> None:
    mount, count = wire
    os.stat(mount.path / "d" / "f1")
    sent = count(lambda: (mount.path / "d" / "f1").read_bytes())
    assert all(times == 1 for times in sent.values()), sent
    assert set(sent) <= {"OPEN", "LSTAT", "FSTAT", "READ"}


def test_an_unchanged_file_is_read_again_without_fetching_it(wire: tuple[Mount, Count]) -> None:
    mount, count = wire
    (mount.path / "d" / "f1").read_bytes()
    sent = count(lambda: (mount.path / "d" / "f1").read_bytes())
    assert sent["READ"] == sent["OPEN"] == 0


def test_a_small_new_file_costs_two_round_trips(wire: tuple[Mount, Count]) -> None:
    mount, count = wire
    os.stat(mount.path / "d")
    sent = count(lambda: (mount.path / "d" / "new").write_bytes(b"y" * 3000))
    assert sent["OPEN"] == sent["WRITE"] == 1
    assert sent.total() <= 6, sent


def test_joined_writes_leave_in_few_requests(wire: tuple[Mount, Count]) -> None:
    mount, count = wire

    def write() -> None:
        with (mount.path / "new").open("wb", buffering=0) as file:
            for _ in range(256):
                file.write(b"z" * 4096)

    assert count(write)["WRITE"] <= 24  # 1 MiB; the server takes 255 KiB at once


def test_removing_needs_no_looking_before_or_after(wire: tuple[Mount, Count]) -> None:
    mount, count = wire
    os.listdir(mount.path / "d")
    sent = count(lambda: [os.unlink(mount.path / "d" / f"f{n}") for n in range(10)])
    assert sent["REMOVE"] == 10
    assert sent["OPENDIR"] == sent["READDIR"] == 0, sent
    assert sent.total() <= 20, sent
