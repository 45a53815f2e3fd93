"""A server that changes while it is mounted: upgraded, expired passwords, keys taken and given."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.support import Cli
from tests.conftest import Mounter
from tests.harness.mounts import MountFailed, mounted
from tests.harness.relay import Relay
from tests.harness.sshd import STOCK_SUBSYSTEM, Sshd
from tests.harness.waiting import wait_until

pytestmark = [pytest.mark.mount, pytest.mark.sshd]


def test_a_new_sshd_beside_the_old_sessions_is_not_noticed(
    own_sshd: Sshd, mount_at: Mounter, remote: Path
) -> None:
    mount = mount_at(remote, server=own_sshd)
    with (mount.path / "f").open("wb", buffering=0) as file:
        file.write(b"old ")
        own_sshd.restart(sessions=False)
        file.write(b"session")
        os.fsync(file.fileno())
    assert (remote / "f").read_bytes() == b"old session"
    assert mount.text().count("link up") == 1, "it logged in again without need"


@pytest.mark.parametrize(
    "subsystem",
    [
        pytest.param("internal-sftp", id="other server"),
        pytest.param(
            f"{STOCK_SUBSYSTEM} -P fsync,statvfs,fstatvfs,posix-rename,hardlink,lsetstat,limits",
            id="fewer extensions",
        ),
    ],
)
def test_an_sshd_that_can_other_things_after_an_upgrade_is_used_as_it_is(
    own_sshd: Sshd, mount_at: Mounter, remote: Path, subsystem: str
) -> None:
    mount = mount_at(remote, server=own_sshd)
    with (mount.path / "f").open("wb", buffering=0) as file:
        file.write(b"before ")
        own_sshd.stop()
        own_sshd.subsystem = subsystem
        own_sshd.extra = ("KexAlgorithms diffie-hellman-group14-sha256", "RekeyLimit 1M")
        own_sshd.write_server_config()
        own_sshd.start()
        file.write(b"after")
        os.fsync(file.fileno())
        assert (remote / "f").read_bytes() == b"before after"
    data = os.urandom(3 << 20)
    (mount.path / "g").write_bytes(data)
    os.rename(mount.path / "g", mount.path / "f")
    assert (remote / "f").read_bytes() == data
    os.statvfs(mount.path)


def test_a_key_that_is_given_back_works_after_reconnect(
    own_sshd: Sshd, tmp_path: Path, remote: Path, need_fuse: None
) -> None:
    cli = Cli(own_sshd, tmp_path)
    options = [f"runtime_dir={tmp_path / 'run'}", "link_timeout=3"]
    with mounted(own_sshd, remote, tmp_path / "m", options=options) as mount:
        key = own_sshd.authorized_keys.read_text()
        own_sshd.authorized_keys.write_text("")
        own_sshd.kill_sessions()
        wait_until(lambda: "link authentication failed" in mount.text(), 20, "it says so")
        with pytest.raises(TimeoutError):
            (mount.path / "f").write_text("x")
        own_sshd.authorized_keys.write_text(key)
        assert cli.tool("reconnect", str(mount.path)).returncode == 0
        wait_until(lambda: writable(mount.path / "f"), 20, "the mount works again")
        assert (remote / "f").read_text() == "x"


def writable(path: Path) -> bool:
    try:
        path.write_text("x")
    except TimeoutError:
        return False  # still connecting
    return True


EXPIRED = "Your password has expired"  # sshd's words

PAM = """
auth required pam_permit.so
account required pam_unix.so
password required pam_deny.so
session required pam_permit.so
"""


@pytest.fixture
def shadow(tmp_path: Path) -> Iterator[Path]:
    """An /etc/shadow for this test's mount namespace alone, with root's account in order."""
    if os.geteuid() != 0 or os.environ.get("NETFS_TEST_SHARED_MOUNTS"):
        pytest.skip("/etc/shadow is changed: only as root, in a private mount namespace")
    if not os.path.exists("/etc/pam.d/sshd"):
        pytest.skip("this sshd has no PAM")
    copy, pam = tmp_path / "shadow", tmp_path / "pam"
    copy.write_text("root:*:19000:0:99999:7:::\nsshd:!:19000::::::\n")
    copy.chmod(0o600)
    pam.write_text(PAM)
    bound = ((copy, "/etc/shadow"), (pam, "/etc/pam.d/sshd"))
    for source, target in bound:
        subprocess.run(["mount", "--bind", source, target], check=True, timeout=10)
    yield copy
    for _, target in bound:
        subprocess.run(["umount", "-l", target], check=True, timeout=10)


def test_an_expired_password_is_named_and_the_server_not_hammered(
    shadow: Path, own_sshd: Sshd, remote: Path, tmp_path: Path, need_fuse: None
) -> None:
    own_sshd.extra = ("UsePAM yes",)
    own_sshd.write_server_config()
    own_sshd.restart()
    with (
        Relay(own_sshd.port) as relay,
        mounted(
            own_sshd, remote, tmp_path / "m", port=relay.port, options=["link_timeout=3"]
        ) as mount,
    ):
        (mount.path / "f").write_text("before")
        shadow.write_text(shadow.read_text().replace("root:*:19000:", "root:*:0:"))
        own_sshd.kill_sessions()
        wait_until(lambda: EXPIRED in mount.text(), 20, "the log says so")
        with pytest.raises(TimeoutError):
            (mount.path / "f").write_text("while expired")
        logins = relay.counts()["connections"]
        time.sleep(4)
        assert relay.counts()["connections"] <= logins + 3, "it hammers the server"
        shadow.write_text(shadow.read_text().replace("root:*:0:", "root:*:19000:"))
        wait_until(lambda: writable(mount.path / "f"), 60, "the mount works again")
        assert (remote / "f").read_text() == "x"


def test_a_mount_to_an_account_whose_password_has_expired_says_so(
    shadow: Path, own_sshd: Sshd, remote: Path, tmp_path: Path, need_fuse: None
) -> None:
    own_sshd.extra = ("UsePAM yes",)
    own_sshd.write_server_config()
    own_sshd.restart()
    shadow.write_text(shadow.read_text().replace("root:*:19000:", "root:*:0:"))
    with pytest.raises(MountFailed, match=EXPIRED), mounted(own_sshd, remote, tmp_path / "m"):
        pass
