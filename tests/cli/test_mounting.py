"""netfs SOURCE MOUNTPOINT, from the command line's start to the processes' end."""

from __future__ import annotations

import mmap
import os
import shlex
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.support import Cli, answers, read
from tests.harness import mounts, processes
from tests.harness.relay import Relay
from tests.harness.sshd import Sshd
from tests.harness.waiting import wait_until

pytestmark = [pytest.mark.mount, pytest.mark.sshd]

WORKER_STOPS = "netfs.client.daemon: stopping"


@pytest.fixture
def relay(sshd: Sshd) -> Iterator[Relay]:
    with Relay(sshd.port) as made:
        yield made


def gone(pid: int) -> bool:
    return not os.path.exists(f"/proc/{pid}")


def test_it_returns_when_the_mount_answers_and_leaves_no_stream_open(
    cli: Cli, remote: Path
) -> None:
    (remote / "f").write_text("hello")
    point = cli.mount(remote)  # reads stdout and stderr to EOF
    assert (point / "f").read_text() == "hello"
    assert os.stat(point).st_ino
    body = cli.status(point)
    assert body["healthy"]
    assert body["link"]["link"] == "up"
    assert cli.tool("status", "--check", str(point)).returncode == 0
    for pid in (cli.supervisor(point), cli.worker(point)):
        assert os.readlink(f"/proc/{pid}/cwd") == "/"
        assert os.getsid(pid) != os.getsid(0)


@pytest.mark.parametrize("closed", ["<&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_streams_that_the_caller_has_closed_do_no_harm(cli: Cli, remote: Path, closed: str) -> None:
    (remote / "f").write_text("hello")
    point = cli.folder / "mnt"
    point.mkdir()
    cli.made.append(point)
    command = shlex.join(mounts.netfs_command(*cli.words(remote, point)))
    done = subprocess.run(
        ["bash", "-c", f"exec {command} {closed}"], env=mounts.environment(), timeout=30
    )
    assert done.returncode == 0
    assert (point / "f").read_text() == "hello"
    for pid in (cli.supervisor(point), cli.worker(point)):
        assert {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in (0, 1, 2)} == {"/dev/null"}


def test_umount_delivers_and_ends_the_processes(cli: Cli, remote: Path) -> None:
    point = cli.mount(remote)
    supervisor = cli.supervisor(point)
    with open(point / "f", "wb") as file:
        file.write(b"x" * 5_000_000)
        file.flush()
        done = cli.tool("umount", str(point))
        assert done.returncode == 51
        assert "in use" in done.stderr
    assert cli.tool("umount", str(point)).returncode == 0
    assert (remote / "f").stat().st_size == 5_000_000
    assert not mounts.is_mounted(point)
    wait_until(lambda: gone(supervisor), 30, "the supervisor's end")
    assert not list((cli.folder / "run").iterdir())
    assert cli.tool("umount", str(point)).returncode == 50


@pytest.mark.parametrize("program", ["umount", "fusermount3 -u", "netfs umount"])
def test_unmounting_ends_the_processes_when_the_server_has_everything(
    cli: Cli, remote: Path, relay: Relay, program: str
) -> None:
    relay.delay(30)
    point = cli.mount(remote, port=relay.port)
    supervisor = cli.supervisor(point)
    data = os.urandom(2 << 20)
    with (point / "f").open("w+b") as file:
        file.truncate(len(data))
        stored = mmap.mmap(file.fileno(), len(data))
    stored[:] = data  # the kernel alone has it: no close is left to wait for the server
    stored.close()
    if program == "netfs umount":
        assert cli.tool("umount", str(point)).returncode == 0
    else:
        subprocess.run([*program.split(), str(point)], check=True, timeout=10)
    assert not mounts.is_mounted(point)
    wait_until(lambda: gone(supervisor), 30, "the supervisor's end")
    assert (remote / "f").read_bytes() == data


def test_sigterm_delivers_what_was_written_even_while_the_file_is_open(
    cli: Cli, remote: Path
) -> None:
    point = cli.mount(remote)
    supervisor = cli.supervisor(point)
    fd = os.open(point / "f", os.O_WRONLY | os.O_CREAT)
    try:
        os.write(fd, b"y" * 3_000_000)
        os.kill(supervisor, signal.SIGTERM)
        wait_until(lambda: gone(supervisor), 30, "the supervisor's end")
    finally:
        with pytest.raises(OSError, match=r"not connected|abort"):
            os.close(fd)
    assert (remote / "f").stat().st_size == 3_000_000
    assert not mounts.is_mounted(point)


def test_mounting_twice_is_refused_and_leaves_the_first(cli: Cli, remote: Path) -> None:
    (remote / "f").write_text("hello")
    point = cli.mount(remote)
    done = cli.run(*cli.words(remote, point))
    assert done.returncode == 45
    assert "mounted" in done.stderr
    assert (point / "f").read_text() == "hello"


def test_a_dead_mount_at_the_same_place_is_replaced(cli: Cli, remote: Path) -> None:
    (remote / "f").write_text("hello")
    point = cli.mount(remote)
    supervisor, worker = cli.supervisor(point), cli.worker(point)
    os.kill(worker, signal.SIGSTOP)  # it would unmount if it saw the supervisor end
    os.kill(supervisor, signal.SIGKILL)
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: gone(worker), 30, "the worker's end")
    assert mounts.is_mounted(point)
    assert (cli.mount(remote) / "f").read_text() == "hello"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_one_signal_to_all_delivers_unmounts_and_ends_with_zero(
    need_fuse: None, sshd: Sshd, remote: Path, tmp_path: Path, relay: Relay, number: signal.Signals
) -> None:
    """As a terminal sends ^C, as it goes, and as ``pkill netfs`` does."""
    command = mounts.command_for("netfs", sshd, remote, tmp_path / "mnt", port=relay.port)
    mount = mounts.start(command, tmp_path / "mnt")
    try:
        fd = os.open(mount.path / "f", os.O_WRONLY | os.O_CREAT)
        relay.cut("blackhole")
        os.write(fd, b"kept")
        os.killpg(mount.pid, number)
        wait_until(lambda: WORKER_STOPS in mount.text(), 30, "the worker to be told")
        with pytest.raises(TimeoutError):  # it waits for the link
            wait_until(lambda: not mounts.is_mounted(mount.path), 0.5, "an end too early")
        relay.heal()
        assert mount.process.wait(30) == 0
        assert not mounts.is_mounted(mount.path)
        assert (remote / "f").read_bytes() == b"kept"
        with pytest.raises(OSError, match=r"not connected|abort"):
            os.close(fd)
    finally:
        mount.clean_up()


def test_a_second_sigint_waits_for_nothing_more_and_saves_what_is_left(
    need_fuse: None, sshd: Sshd, remote: Path, tmp_path: Path, relay: Relay
) -> None:
    options = [f"rescue_dir={tmp_path / 'rescue'}"]
    command = mounts.command_for("netfs", sshd, remote, tmp_path / "mnt", options, relay.port)
    mount = mounts.start(command, tmp_path / "mnt")
    try:
        fd = os.open(mount.path / "f", os.O_WRONLY | os.O_CREAT)
        relay.cut("blackhole")
        os.write(fd, b"saved")
        os.killpg(mount.pid, signal.SIGINT)
        wait_until(lambda: "SIGINT: stopping" in mount.text(), 30, "the supervisor to be told")
        wait_until(lambda: WORKER_STOPS in mount.text(), 30, "the worker to be told")
        began = time.monotonic()
        os.killpg(mount.pid, signal.SIGINT)
        assert mount.process.wait(30) == 0
        assert time.monotonic() - began < 15  # link_timeout alone is 30 s
        with pytest.raises(OSError, match=r"not connected|abort"):
            os.close(fd)
        assert [path.read_bytes() for path in (tmp_path / "rescue").glob("*.data")] == [b"saved"]
    finally:
        mount.clean_up()


def test_a_daemon_started_in_its_own_mountpoint_does_not_stay_there(cli: Cli, remote: Path) -> None:
    (remote / "f").write_text("hello")
    point = cli.folder / "mnt"
    point.mkdir()
    cli.made.append(point)
    done = subprocess.run(
        mounts.netfs_command(*cli.words(remote, Path("."))),
        capture_output=True,
        text=True,
        timeout=30,
        env=mounts.environment(),
        cwd=point,
    )
    assert done.returncode == 0, done.stderr
    assert (point / "f").read_text() == "hello"
    for pid in (cli.supervisor(point), cli.worker(point)):
        assert os.readlink(f"/proc/{pid}/cwd") == "/"


# --- the worker's death, and stuck mounts ---------------------------------------------------------


def test_a_killed_worker_is_back_within_two_seconds_and_nobody_stays_blocked(
    cli: Cli, remote: Path
) -> None:
    (remote / "f").write_text("hello")
    began = time.monotonic()
    point = cli.mount(remote)
    mounting = time.monotonic() - began
    (point / "g").write_bytes(b"z" * 100_000)  # closed: it is on the server
    worker = cli.worker(point)
    os.kill(worker, signal.SIGSTOP)
    caller = subprocess.Popen(["cat", str(point / "f")], stderr=subprocess.DEVNULL)
    os.kill(worker, signal.SIGKILL)
    began = time.monotonic()
    assert caller.wait(20) != 0
    wait_until(lambda: answers(point / "f"), 30, "the mount", every_s=0.05)
    # 2 s on a machine that does nothing else: about what mounting takes there, and 1 s
    assert time.monotonic() - began < 2 * mounting + 2
    assert (remote / "g").stat().st_size == 100_000
    assert cli.status(point)["supervisor"]["remounts"] == 1


def test_after_three_deaths_in_a_minute_it_gives_up_and_leaves_no_mount(
    cli: Cli, remote: Path
) -> None:
    (remote / "f").write_text("hello")
    point = cli.mount(remote)
    supervisor = cli.supervisor(point)
    for number in range(3):
        wait_until(lambda: answers(point / "f"), 30, "the mount", every_s=0.05)
        os.kill(cli.worker(point), signal.SIGKILL)
        if number < 2:
            wait_until(
                lambda n=number: cli.status(point)["supervisor"]["remounts"] == n + 1,
                30,
                "a new worker",
                every_s=0.05,
            )
    wait_until(lambda: gone(supervisor), 30, "the supervisor's end")
    assert not mounts.is_mounted(point)
    assert "giving up" in cli.log()


def test_noremount_ends_with_the_worker_and_leaves_no_mount(cli: Cli, remote: Path) -> None:
    point = cli.mount(remote, "noremount")
    supervisor = cli.supervisor(point)
    os.kill(cli.worker(point), signal.SIGKILL)
    wait_until(lambda: gone(supervisor), 30, "the supervisor's end")
    assert not mounts.is_mounted(point)
    assert "not mounted again (noremount)" in cli.log()


def test_a_stopped_worker_is_aborted_dumped_and_replaced(cli: Cli, remote: Path) -> None:
    (remote / "f").write_text("hello")
    point = cli.mount(remote, "abort_after=3")
    worker = cli.worker(point)
    os.kill(worker, signal.SIGSTOP)
    caller = subprocess.Popen(["stat", str(point / "nothing")], stderr=subprocess.DEVNULL)
    assert cli.here("status", str(point))[1] < 1
    body = cli.status(point)
    assert not body["answered"]
    assert not body["healthy"]
    assert "does not answer" in cli.tool("ps", str(point)).stdout
    assert caller.wait(30) != 0
    wait_until(lambda: answers(point / "f"), 30, "the mount", every_s=0.05)
    assert gone(worker)
    assert "has not turned" in cli.log()
    assert "Thread 0x" in cli.log()


def test_netfs_abort_ends_callers_and_the_mount_comes_back(
    cli: Cli, remote: Path, relay: Relay
) -> None:
    (remote / "f").write_text("hello")
    point = cli.mount(remote, "hard", port=relay.port)
    relay.cut("blackhole")
    caller = subprocess.Popen(["stat", str(point / "f")], stderr=subprocess.DEVNULL)
    wait_until(lambda: cli.status(point)["supervisor"]["waiting"], 20, "a caller that waits")
    began = time.monotonic()
    assert cli.here("abort", str(point))[0] == 0
    assert caller.wait(20) != 0
    assert time.monotonic() - began < 1
    relay.heal(reset=True)
    wait_until(lambda: answers(point / "f"), 30, "the mount", every_s=0.05)


# --- the link is gone ----------------------------------------------------------------------------


def test_with_a_dead_link_each_tool_answers_and_ps_names_who_waits(
    cli: Cli, remote: Path, relay: Relay
) -> None:
    (remote / "f").write_text("hello")
    point = cli.mount(remote, "hard", port=relay.port)
    relay.cut("blackhole")
    caller = subprocess.Popen(["stat", str(point / "f")], stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: cli.status(point)["supervisor"]["waiting"], 20, "a caller that waits")
        for tool in ("status", "list", "ps"):
            assert cli.here(tool, *([] if tool == "list" else [str(point)]))[1] < 1
        shown = cli.tool("ps", str(point)).stdout
        assert str(caller.pid) in shown
        assert "stat" in shown
        assert "lookup" in shown
        wait_until(
            lambda: cli.tool("status", "--check", str(point)).returncode == 52,
            30,
            "the link to count as lost",
        )
    finally:
        relay.heal(reset=True)
        assert caller.wait(30) == 0
        wait_until(lambda: cli.status(point)["healthy"], 30, "the link", every_s=0.1)


def test_after_abort_after_no_caller_is_blocked_and_the_mount_returns_with_the_link(
    cli: Cli, remote: Path, relay: Relay
) -> None:
    (remote / "f").write_text("hello")
    point = cli.mount(remote, "hard,abort_after=3,ServerAliveInterval=1", port=relay.port)
    relay.cut("blackhole")
    callers = [
        subprocess.Popen(words, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        for words in (["stat", str(point / "f")], ["ls", "-l", str(point)])
    ]
    for caller in callers:
        assert caller.wait(40) is not None
    cli.wait_state(point, "aborted")
    assert not mounts.is_mounted(point)
    assert "aborting the mount" in cli.log()
    relay.heal(reset=True)
    wait_until(lambda: answers(point / "f"), 30, "the mount", every_s=0.1)


def test_noreconnect_unmounts_and_ends(cli: Cli, remote: Path, relay: Relay) -> None:
    point = cli.mount(remote, "noreconnect", port=relay.port)
    supervisor = cli.supervisor(point)
    relay.cut("rst")
    wait_until(lambda: gone(supervisor), 30, "the supervisor's end")
    assert not mounts.is_mounted(point)


def test_stopping_with_a_dead_link_saves_what_can_t_be_delivered(
    cli: Cli, remote: Path, relay: Relay, tmp_path: Path
) -> None:
    point = cli.mount(remote, f"link_timeout=2,rescue_dir={tmp_path / 'rescue'}", port=relay.port)
    supervisor = cli.supervisor(point)
    fd = os.open(point / "f", os.O_WRONLY | os.O_CREAT)
    os.write(fd, b"first")
    os.fsync(fd)
    relay.cut("blackhole")
    os.write(fd, b"never delivered")
    os.kill(supervisor, signal.SIGTERM)
    wait_until(lambda: gone(supervisor), 30, "the supervisor's end")
    with pytest.raises(OSError):
        os.close(fd)
    saved = b"".join(path.read_bytes() for path in (tmp_path / "rescue").glob("*.data"))
    assert b"never delivered" in saved
    assert "saved in" in cli.log()


def test_delay_connect_mounts_before_the_server_is_there(
    cli: Cli, remote: Path, relay: Relay
) -> None:
    (remote / "f").write_text("hello")
    relay.cut("refuse")
    point = cli.mount(remote, "delay_connect", port=relay.port)
    assert subprocess.run(["df", str(point)], capture_output=True, timeout=20).returncode == 0
    relay.heal()
    wait_until(lambda: answers(point / "f"), 30, "the server's files", every_s=0.1)


# --- several at a time ---------------------------------------------------------------------------


def test_list_shows_each_mount(cli: Cli, remote: Path) -> None:
    points = [cli.mount(remote, name=f"mnt{number}") for number in range(2)]
    shown = cli.tool("list").stdout
    assert all(str(point) in shown for point in points)
    assert len(shown.splitlines()) == 2


def test_the_supervisor_reaps_and_holds_no_fuse_device(cli: Cli, remote: Path) -> None:
    point = cli.mount(remote)
    supervisor = cli.supervisor(point)
    held = {os.readlink(link) for link in Path(f"/proc/{supervisor}/fd").iterdir()}
    assert "/dev/fuse" not in held
    assert processes.descendants(supervisor) == [cli.worker(point)]


def test_a_reader_during_umount_gets_its_answer(cli: Cli, remote: Path) -> None:
    (remote / "f").write_bytes(os.urandom(1 << 20))
    point = cli.mount(remote)
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(read(point / "f").stdout))
    reader.start()
    code = cli.tool("umount", str(point)).returncode
    reader.join()
    assert code in (0, 51)
    assert found[0] in (b"", (remote / "f").read_bytes())


def test_metrics_are_served_for_prometheus(cli: Cli, remote: Path) -> None:
    (remote / "f").write_text("hello")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        point = cli.folder / "mnt"
        point.mkdir()
        done = cli.run(*cli.words(remote, point, [f"metrics=127.0.0.1:{port}"]))
        assert done.returncode == 1
        assert f"metrics=127.0.0.1:{port}: " in done.stderr
    point = cli.mount(remote, f"metrics=127.0.0.1:{port}")
    assert (point / "f").read_text() == "hello"
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    assert "netfs_link_up 1.0" in text
    assert 'netfs_requests_total{operation="lookup"} 1.0' in text
    assert f'mountpoint="{point}"' in text
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/other", timeout=5)


@pytest.mark.root
def test_remount_changes_the_kernel_s_flags(cli: Cli, remote: Path) -> None:
    point = cli.mount(remote)
    words = cli.words(remote, point)
    assert cli.run(*words, "-o", "remount,ro").returncode == 0
    with pytest.raises(OSError, match="Read-only"):
        (point / "f").write_text("")
    assert cli.run(*words, "-o", "remount,rw").returncode == 0
    (point / "f").write_text("again")
    assert cli.run(cli.server.source(remote), str(remote), "-o", "remount,ro").returncode == 2


def test_a_lazy_umount_leaves_its_users_alone_until_they_end(cli: Cli, remote: Path) -> None:
    (remote / "f").write_text("hello")
    point = cli.mount(remote)
    supervisor = cli.supervisor(point)
    with open(point / "f", "rb") as file:
        assert cli.tool("umount", "--lazy", str(point)).returncode == 0
        assert not mounts.is_mounted(point)
        assert file.read() == b"hello"
        assert not gone(supervisor)
    wait_until(lambda: gone(supervisor), 30, "the supervisor's end")


def test_the_status_page_says_how_things_are(cli: Cli, remote: Path, relay: Relay) -> None:
    point = cli.mount(remote, port=relay.port)
    page = cli.tool("status").stdout
    assert f"on {point}" in page
    assert "mounted" in page
    assert "\x1b" not in page  # no colours but on a terminal
    relay.cut("refuse")
    wait_until(lambda: not cli.status(point)["healthy"], 30, "the link to count as lost")
    assert "refused" in wait_until(
        lambda: "refused" in cli.tool("status").stdout and cli.tool("status").stdout, 30, "a reason"
    )
    done = cli.tool("status", "--check", str(point))
    assert done.returncode == 52
    assert done.stdout.startswith(f"{point}: the link is")
    relay.heal()
    assert cli.tool("reconnect", str(point)).returncode == 0
    wait_until(lambda: cli.status(point)["healthy"], 30, "the link")


def test_tools_name_what_is_not_mounted(cli: Cli) -> None:
    for tool in ("umount", "abort", "ps", "reconnect"):
        done = cli.tool(tool, str(cli.folder))
        assert done.returncode == 50
        assert "no netfs is mounted there" in done.stderr
    assert cli.tool("status", "--check").returncode == 50
    assert cli.tool("status", "--nonsense").returncode == 2
    assert cli.tool("ps").returncode == 2
