"""Each way to reach a server carries a mount: SSH, the system's ssh, a pipe, plain TCP."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
from pathlib import Path

import pytest

from tests.conftest import Mounter
from tests.harness.mounts import command_for, mounted, netfs_command, start
from tests.harness.packages import require
from tests.harness.sftpd import SFTP_SERVER, running_sftpd
from tests.harness.sshd import Sshd, running_sshd

pytestmark = [pytest.mark.mount, pytest.mark.sshd]


def exercise(place: Path, remote: Path) -> None:
    """A little of everything, seen from both sides."""
    data = os.urandom(700_000)
    (place / "file").write_bytes(data)
    assert (remote / "file").read_bytes() == data
    (place / "directory").mkdir()
    os.rename(place / "file", place / "directory" / "renamed")
    assert (place / "directory" / "renamed").read_bytes() == data
    assert os.listdir(remote / "directory") == ["renamed"]
    os.symlink("directory/renamed", place / "link")
    assert (place / "link").read_bytes() == data
    os.unlink(place / "link")
    assert os.statvfs(place).f_bsize > 0


def test_plain_ssh_carries_a_mount(mount_at: Mounter, remote: Path) -> None:
    exercise(mount_at(remote).path, remote)


def test_an_url_with_an_ipv6_address_carries_a_mount(
    need_fuse: None, sshd: Sshd, remote: Path, tmp_path: Path
) -> None:
    if not socket.has_ipv6 or not Path("/proc/net/if_inet6").read_text():
        pytest.skip("this machine has no IPv6")
    with running_sshd(tmp_path / "sshd", extra=["ListenAddress ::1"]) as server:
        source = f"sftp://{server.user}@[::1]:{server.port}{remote}"
        options = ("StrictHostKeyChecking=accept-new",)
        with mounted(server, remote, tmp_path / "m", options=options, source=source) as mount:
            exercise(mount.path, remote)
        assert f"[::1]:{server.port} ssh-ed25519" in server.known_hosts.read_text()


def test_ssh_command_carries_a_mount(mount_at: Mounter, remote: Path, sshd: Sshd) -> None:
    command = f"{require('ssh')} -F {sshd.client_config}"
    exercise(mount_at(remote, f"ssh_command={command}").path, remote)


def test_a_server_program_named_by_path_carries_a_mount(mount_at: Mounter, remote: Path) -> None:
    exercise(mount_at(remote, f"sftp_server={SFTP_SERVER[0]}").path, remote)


def test_directport_carries_a_mount(
    need_fuse: None, sshd: Sshd, remote: Path, tmp_path: Path
) -> None:
    with running_sftpd() as port:
        options = (f"directport={port}",)
        source = f"127.0.0.1:{remote}"
        with mounted(sshd, remote, tmp_path / "m", options=options, source=source) as mount:
            exercise(mount.path, remote)


def test_passive_carries_a_mount(need_fuse: None, remote: Path, tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        server = subprocess.Popen([*SFTP_SERVER], stdin=theirs.fileno(), stdout=theirs.fileno())
        place = tmp_path / "m"
        command = netfs_command(f"nowhere:{remote}", str(place), "-f", "-o", "passive")
        mount = start(command, place, stdin=ours.fileno(), stdout=ours.fileno())
        try:
            ours.close()
            theirs.close()
            exercise(place, remote)
            assert mount.unmount() == 0
        finally:
            mount.clean_up()
            server.kill()
            server.wait(10)


def test_in_the_background_the_command_returns_when_the_mount_answers(
    need_fuse: None, sshd: Sshd, remote: Path, tmp_path: Path
) -> None:
    (remote / "present").touch()
    place = tmp_path / "m"
    place.mkdir()
    command = [word for word in command_for("netfs", sshd, remote, place) if word != "-f"]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    try:
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=30)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), shlex.join(command)
        assert os.listdir(place) == ["present"]
    finally:
        subprocess.run(["fusermount3", "-u", str(place)], capture_output=True, timeout=30)


@pytest.mark.root
def test_a_user_mounts_through_fusermount3(
    fuse_for_users: None, sshd: Sshd, remote: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    if os.geteuid() != 0:
        exercise_as = None
    else:
        exercise_as = 65534
    place = Path("/tmp") / f"netfs-user-{os.getpid()}"
    place.mkdir()
    script = f"""
set -e
cd /tmp
mkdir {place}/m
trap 'fusermount3 -uz {place}/m 2>/dev/null; exit' EXIT
"$@" &
for _ in $(seq 200); do grep -q ' {place}/m ' /proc/self/mountinfo && break; sleep 0.05; done
echo hello > {place}/m/file
cat {place}/m/file
id -u
stat -c %u {place}/m/file
fusermount3 -u {place}/m
wait $!
echo ended $?
"""
    remote.chmod(0o777)
    try:
        os.chown(place, exercise_as or -1, -1)
        with running_sftpd() as port:
            mount = ("-o", f"directport={port}", "-f")
            command = netfs_command(f"127.0.0.1:{remote}", f"{place}/m", *mount)
            argv = ["bash", "-c", script, "bash", *command]
            if exercise_as is not None:
                # The interpreter may lie where only root may read: reading is all that is kept.
                reading = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
                ids = [f"--reuid={exercise_as}", f"--regid={exercise_as}", "--clear-groups"]
                ids += reading
                argv = [require("setpriv"), *ids, *argv]
            env = {
                **os.environ,
                "PYTHONPATH": str(Path(__file__).parents[2]),
                "HOME": str(place),
                "XDG_RUNTIME_DIR": str(place),
            }
            done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60)
        user = str(os.geteuid() if exercise_as is None else exercise_as)
        assert done.stdout.split() == ["hello", user, user, "ended", "0"], done.stderr
        assert (remote / "file").read_text() == "hello\n"
    finally:
        subprocess.run(["rm", "-rf", "--one-file-system", str(place)], timeout=30)
