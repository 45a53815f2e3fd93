"""mount(8), umount(8) and fstab with the installed helpers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.deploy.space import Space
from tests.harness.sshd import Sshd, free_port
from tests.harness.waiting import wait_until

FSTAB = Path(__file__).parents[2] / "deploy/systemd/fstab"

pytestmark = [pytest.mark.root, pytest.mark.mount, pytest.mark.sshd]


@pytest.fixture(autouse=True)
def helpers(space: Space) -> None:
    space.run("netfs install-helper")
    space.run("mkdir -p /mnt/data /mnt/lazy /mnt/old /mnt/older")


def gone(space: Space) -> None:
    wait_until(lambda: space.netfs_mounts() == [], 15, "unmounted")


@pytest.mark.parametrize("kind", ["netfs", "fuse.netfs"])
def test_mount_and_umount_by_type(
    kind: str, space: Space, server: Sshd, export: Path, login: str
) -> None:
    space.run(f"mount -t {kind} -o {login} {server.source(export)} /mnt/data")
    assert space.mounts()["/mnt/data"] == "fuse.netfs"
    assert space.run("cat /mnt/data/hello").stdout == "hello\n"
    space.run("echo more > /mnt/data/written && umount /mnt/data")
    assert (export / "written").read_text() == "more\n"
    gone(space)


def test_every_fstab_line_of_the_example_mounts(
    space: Space, server: Sshd, export: Path, login: str
) -> None:
    text = FSTAB.read_text().replace("alice@server.example", f"{server.user}@127.0.0.1")
    text = text.replace("run_as=alice", f"run_as={server.user},{login}")
    for name in ("data", "lazy", "old", "older"):
        text = text.replace(f":/srv/{name} ", f":{export} ")
    Path(f"/proc/{space.holder.pid}/root/etc/fstab").write_text(text)
    space.run("mount -a")
    assert set(space.netfs_mounts()) == {"/mnt/data", "/mnt/old", "/mnt/older"}
    space.run("mount /mnt/lazy")
    for name in ("data", "lazy", "old", "older"):
        assert space.run(f"cat /mnt/{name}/hello").stdout == "hello\n"
        space.run(f"umount /mnt/{name}")
    gone(space)


def test_generic_words_are_accepted(space: Space, server: Sshd, export: Path, login: str) -> None:
    words = "defaults,_netdev,nofail,noauto,user,x-systemd.automount,x-gvfs-show,comment=x,noatime"
    space.run(f"mount -t netfs -o {words},{login} {server.source(export)} /mnt/data")
    assert space.run("cat /mnt/data/hello").stdout == "hello\n"
    space.run("umount /mnt/data")
    gone(space)


def test_read_only_and_remount(space: Space, server: Sshd, export: Path, login: str) -> None:
    space.run(f"mount -r -t netfs -o {login} {server.source(export)} /mnt/data")
    assert "Read-only" in space.run("touch /mnt/data/x", check=False).stderr
    space.run("umount /mnt/data")
    gone(space)


@pytest.mark.parametrize(
    ("what", "code", "message"),
    [
        ("refused", 32, "refused"),
        ("no such directory", 32, "/does/not/exist"),
        ("unknown option", 1, "link_timeout"),
        ("malformed source", 1, "host"),
    ],
)
def test_exit_codes_are_those_of_mount(
    what: str, code: int, message: str, space: Space, server: Sshd, export: Path, login: str
) -> None:
    source, options = {
        "refused": (server.source(export), f"port={free_port()}"),
        "no such directory": (server.source("/does/not/exist"), login),
        "unknown option": (server.source(export), f"{login},link_timout=3"),
        "malformed source": ("nonsense", login),
    }[what]
    done = space.run(f"mount -t netfs -o {options} {source} /mnt/data", check=False)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert space.netfs_mounts() == []


def test_the_helpers_are_removed_again(space: Space) -> None:
    assert space.run("ls /sbin/mount.netfs /sbin/mount.fuse.netfs").returncode == 0
    space.run("netfs install-helper --remove")
    assert space.run("ls /sbin/mount.netfs", check=False).returncode != 0
    assert space.run("ls /sbin/mount.fuse.netfs", check=False).returncode != 0


def add_alice(space: Space, server: Sshd, home: str) -> None:
    """A user who can log in to *server*."""
    space.run(f"useradd -d {home} -m alice && mkdir -m 700 {home}/.ssh")
    config = server.client_config.read_text()
    for name in ("user_key", "known_hosts"):
        space.run(f"cp {server.directory}/{name} {home}/.ssh/{name}")
        config = config.replace(str(server.directory / name), f"~/.ssh/{name}")
    Path(f"/proc/{space.holder.pid}/root{home}/.ssh/config").write_text(config)
    space.run(f"chown -R alice: {home}")


def test_root_s_fstab_mounts_with_the_keys_of_run_as(
    space: Space, server: Sshd, export: Path
) -> None:
    add_alice(space, server, f"{space.scratch}/alice")
    line = f"{server.source(export)} /mnt/data netfs port={server.port},run_as=alice 0 0\n"
    Path(f"/proc/{space.holder.pid}/root/etc/fstab").write_text(line.replace("run_as=alice", "ro"))
    assert space.run("mount /mnt/data", check=False).returncode == 32  # root has no key here
    Path(f"/proc/{space.holder.pid}/root/etc/fstab").write_text(line)
    space.run("mount /mnt/data")
    assert space.run("cat /mnt/data/hello").stdout == "hello\n"
    space.run("umount /mnt/data")
    gone(space)


def test_a_user_mounts_and_unmounts_a_line_with_the_word_user(
    space: Space, server: Sshd, export: Path
) -> None:
    home = "/usr/local/alice"  # where any user may enter
    add_alice(space, server, home)
    space.run(f"install -d -o alice {home}/mnt")
    # the device as on usual machines; and the interpreter may be root's
    device = f"{space.scratch}/fuse"
    space.run(f"mknod -m 666 {device} c 10 229 && mount --bind {device} /dev/fuse")
    space.run("chmod 755 /root")
    line = f"{server.source(export)} {home}/mnt netfs port={server.port},user,noauto 0 0\n"
    Path(f"/proc/{space.holder.pid}/root/etc/fstab").write_text(line)
    as_alice = f"setpriv --reuid=alice --regid=alice --clear-groups env -i HOME={home} PATH=$PATH"
    space.run(f"{as_alice} mount {home}/mnt")
    assert space.mounts()[f"{home}/mnt"] == "fuse.netfs"
    assert space.run(f"{as_alice} cat {home}/mnt/hello").stdout == "hello\n"
    assert space.run(f"cat {home}/mnt/hello", check=False).returncode  # not even root
    space.run(f"{as_alice} umount {home}/mnt")
    gone(space)
