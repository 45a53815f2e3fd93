"""What a user sees while the link is down, and after: answers in time, and no action needed."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness.mounts import Mount, mounted
from tests.harness.relay import Relay
from tests.harness.sshd import Sshd
from tests.harness.waiting import wait_until

pytestmark = [pytest.mark.mount, pytest.mark.sshd]


class Cuttable:
    """A mount behind a relay, on a server of its own."""

    def __init__(self, server: Sshd, relay: Relay, mount: Mount, remote: Path) -> None:
        self.server = server
        self.relay = relay
        self.mount = mount
        self.remote = remote

    @property
    def path(self) -> Path:
        return self.mount.path


Starter = Callable[..., Cuttable]


@pytest.fixture
def cuttable(own_sshd: Sshd, remote: Path, tmp_path: Path, need_fuse: None) -> Iterator[Starter]:
    """``cuttable("link_timeout=4", ...)`` mounts behind a relay."""
    with Relay(own_sshd.port) as relay:
        contexts = []

        def begin(*options: str) -> Cuttable:
            context = mounted(own_sshd, remote, tmp_path / "m", options=options, port=relay.port)
            contexts.append(context)
            return Cuttable(own_sshd, relay, context.__enter__(), remote)

        yield begin
        relay.heal(reset=True)
        for context in contexts:
            context.__exit__(None, None, None)


def took(action: Callable[[], object]) -> float:
    started = time.monotonic()
    action()
    return time.monotonic() - started


def run(*command: str) -> None:
    subprocess.run(command, capture_output=True, timeout=60, check=True)


def test_statfs_the_root_and_cached_listings_answer_while_nothing_passes(
    cuttable: Starter,
) -> None:
    mount = cuttable("cache_timeout=1")
    (mount.remote / "d").mkdir()
    (mount.remote / "d" / "file").write_text("content")
    run("ls", "-l", str(mount.path / "d"))
    mount.relay.cut("blackhole")
    time.sleep(1.5)  # the caches' time is over: what is shown is shown because the link is down
    assert took(lambda: run("df", str(mount.path))) < 1.5
    assert took(lambda: run("stat", str(mount.path))) < 1.5
    wait_until(
        lambda: took(lambda: run("stat", "-f", str(mount.path))) < 1, 30, "statfs within a second"
    )


def test_a_cached_directory_is_listed_soon_after_the_cut_however_old_it_is(
    cuttable: Starter,
) -> None:
    mount = cuttable("cache_timeout=1")
    (mount.remote / "d").mkdir()
    (mount.remote / "d" / "file").write_text("content")
    (mount.remote / "d" / "link").symlink_to("file")
    run("ls", "-l", str(mount.path / "d"))
    time.sleep(1.1)  # what is cached is too old to be shown while the server answers
    mount.relay.cut("blackhole")
    assert took(lambda: run("ls", "-l", str(mount.path / "d"))) < 2  # 1 s, and a busy machine


def test_a_directory_changed_just_before_a_cut_does_not_show_its_old_time(
    cuttable: Starter,
) -> None:
    """rsync sets a directory's time again only where it differs from what it has set before."""
    mount = cuttable()
    directory = mount.path / "d"
    directory.mkdir()
    os.utime(directory, (1_600_000_000, 1_600_000_000))
    assert int(directory.stat().st_mtime) == 1_600_000_000
    (directory / "part").touch()
    (directory / "part").rename(directory / "whole")
    mount.relay.cut("rst")
    assert directory.stat().st_mtime > 1_700_000_000
    mount.relay.heal()
    os.utime(directory, (1_600_000_000, 1_600_000_000))
    assert int((mount.remote / "d").stat().st_mtime) == 1_600_000_000


def test_an_uncached_listing_fails_with_etimedout_in_time_and_works_when_healed(
    cuttable: Starter,
) -> None:
    mount = cuttable("link_timeout=3")
    (mount.remote / "new").mkdir()
    mount.relay.cut("blackhole")
    started = time.monotonic()
    with pytest.raises(OSError, match="timed out") as caught:
        os.listdir(mount.path / "new")
    assert caught.value.errno == errno.ETIMEDOUT
    assert 2 <= time.monotonic() - started <= 6
    mount.relay.heal(reset=True)
    assert wait_until(lambda: listable(mount.path / "new"), 30, "the mount works again")


def listable(path: Path) -> bool:
    try:
        return os.listdir(path) == []
    except TimeoutError:
        return False  # still connecting


@pytest.mark.parametrize("kind", ["rst", "close", "blackhole", "refuse"])
def test_a_reader_and_a_writer_go_on_over_a_cut(cuttable: Starter, kind: str) -> None:
    mount = cuttable()
    data = os.urandom(6 << 20)
    (mount.remote / "source").write_bytes(data)
    with (
        (mount.path / "source").open("rb", buffering=0) as source,
        (mount.path / "target").open("wb", buffering=0) as target,
    ):
        target.write(source.read(1 << 20))
        mount.relay.cut(kind)
        healer = threading.Timer(1.0, mount.relay.heal, kwargs={"reset": True})
        healer.start()
        while piece := source.read(1 << 18):
            target.write(piece)
        os.fsync(target.fileno())
        healer.join()
        assert (mount.remote / "target").read_bytes() == data
    assert (mount.path / "target").read_bytes() == data


def test_a_restarted_server_is_found_again(cuttable: Starter) -> None:
    mount = cuttable()
    with (mount.path / "f").open("wb", buffering=0) as file:
        file.write(b"before ")
        mount.server.restart()
        file.write(b"after")
        os.fsync(file.fileno())
        assert (mount.remote / "f").read_bytes() == b"before after"
    assert (mount.remote / "f").read_bytes() == b"before after"


def test_a_server_that_stops_answering_and_goes_on_loses_nothing(cuttable: Starter) -> None:
    mount = cuttable()
    mount.server.pause()
    timer = threading.Timer(1.5, mount.server.resume)
    timer.start()
    (mount.path / "f").write_text("written meanwhile")
    timer.join()
    assert (mount.remote / "f").read_text() == "written meanwhile"


def test_a_file_replaced_during_the_cut_is_estale_for_its_old_handle(cuttable: Starter) -> None:
    mount = cuttable()
    (mount.remote / "f").write_text("old content")
    fd = os.open(mount.path / "f", os.O_RDWR)
    try:
        assert os.read(fd, 3) == b"old"
        mount.relay.cut("refuse")
        replacement = mount.remote / "other"
        replacement.write_text("another file altogether, longer")
        os.utime(replacement, (1_500_000_000, 1_500_000_000))
        os.rename(replacement, mount.remote / "f")
        mount.relay.heal()
        with pytest.raises(OSError, match="Stale") as caught:  # noqa: PT012 (write may be buffered)
            os.pwrite(fd, b"must not reach the other file", 0)
            os.fsync(fd)
        assert caught.value.errno == errno.ESTALE
    finally:
        with contextlib.suppress(OSError):  # closing says ESTALE as well
            os.close(fd)
    assert (mount.remote / "f").read_text() == "another file altogether, longer"
    assert (mount.path / "f").read_text() == "another file altogether, longer"


def test_a_changed_host_key_stops_reconnecting(cuttable: Starter) -> None:
    mount = cuttable("link_timeout=3")
    mount.server.stop()
    mount.server.host_key.unlink()
    mount.server.host_key.with_suffix(".pub").unlink()
    known = mount.server.known_hosts.read_text()
    mount.server.prepare()
    mount.server.known_hosts.write_text(known)
    mount.server.start()
    with pytest.raises(OSError, match=r"timed out|denied|Host|Input"):
        (mount.path / "f").write_text("x")
    wait_until(lambda: "host key" in mount.mount.text().lower(), 20, "the log names the host key")
    connections = mount.relay.counts()["connections"]
    time.sleep(4)
    assert mount.relay.counts()["connections"] <= connections + 1, "it keeps on trying"


def test_a_removed_user_key_stops_reconnecting(cuttable: Starter) -> None:
    mount = cuttable("link_timeout=3")
    mount.server.authorized_keys.write_text("")
    mount.server.kill_sessions()
    with pytest.raises(OSError, match=r"timed out|denied|Input"):
        (mount.path / "f").write_text("x")
    wait_until(lambda: "auth" in mount.mount.text().lower(), 20, "the log names the reason")
    connections = mount.relay.counts()["connections"]
    time.sleep(4)
    assert mount.relay.counts()["connections"] <= connections + 1, "it hammers the server"


def test_noreconnect_ends_and_unmounts_when_the_link_is_lost(cuttable: Starter) -> None:
    mount = cuttable("noreconnect")
    assert os.listdir(mount.path) == []
    mount.relay.cut("refuse")
    assert mount.mount.process.wait(20) != 0
    assert not os.path.ismount(mount.path)
