"""Other people's clients on ``netfs serve``: OpenSSH's sftp and scp, asyncssh, paramiko, sshfs."""

from __future__ import annotations

import contextlib
import filecmp
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import asyncssh
import paramiko
import pytest

from tests.harness.mounts import Mount, netfs_command, start
from tests.harness.packages import require
from tests.harness.sshd import running_sshd
from tests.server.served import TREE, Served, command, serving

pytestmark = pytest.mark.sshd


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "root"
    (path / "dir" / "inner").mkdir(parents=True)
    (path / "file").write_text("content\n")
    (path / "dir" / "one").write_text("1")
    (path / "dir" / "two words").write_text("2")
    (path / "link").symlink_to("/dir/one")
    return path


@pytest.fixture
def served(tmp_path: Path, root: Path) -> Iterator[Served]:
    with serving(tmp_path / "serve", root) as one:
        yield one


def sftp(served: Served, batch: str, cwd: Path) -> str:
    argv = [require("sftp"), "-F", str(served.client_config), "-b", "-", served.host]
    done = subprocess.run(argv, input=batch, capture_output=True, text=True, timeout=60, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_openssh_sftp_with_every_command(served: Served, root: Path, tmp_path: Path) -> None:
    local = tmp_path / "local"
    local.mkdir()
    big = os.urandom(3_000_000)
    (local / "big").write_bytes(big)
    (local / "tree").mkdir()
    (local / "tree" / "leaf").write_text("leaf")
    (local / "resumed").write_bytes(big[:1_000_000])
    (root / "resumed").write_bytes(big)
    (root / "upload").write_bytes(big[:500_000])
    batch = """
        version
        pwd
        lpwd
        ls
        ls -la
        ls -1ntr dir
        ls -lh "dir/two words"
        cd dir
        pwd
        ls *
        lcd .
        lls
        cd /
        put big
        put -p big kept
        put -R tree
        put -f big synced
        reput big upload
        get big got
        get -p big got-kept
        get -R dir got-dir
        get -f file got-file
        reget resumed resumed
        copy big copied
        cp file copied-file
        rename big renamed
        rename -l file renamed-old
        ln renamed hard
        ln -s dir/one soft
        symlink dir/inner soft2
        chmod 640 renamed
        chmod -h 777 renamed
        chown 0 renamed
        chgrp 0 renamed
        chown -h 0 soft
        chgrp -h 0 soft
        mkdir made
        rmdir made
        lmkdir lmade
        lumask 077
        df
        df -h
        df -i /dir
        rm kept
        rm got* soft2
        progress
        !true
        help
        ?
        bye
    """.replace("rm got* soft2", "rm soft2")
    text = sftp(served, batch, local)
    assert "Remote working directory: /dir" in text
    assert (local / "got").read_bytes() == big
    assert (local / "resumed").read_bytes() == big
    assert (root / "upload").read_bytes() == big
    assert (root / "copied").read_bytes() == big
    assert (root / "synced").read_bytes() == big
    assert (root / "renamed").stat().st_nlink == 2
    assert stat.S_IMODE((root / "renamed").stat().st_mode) == 0o777
    assert os.readlink(root / "soft") == "dir/one"
    assert not (root / "kept").exists()
    assert not (root / "made").exists()
    assert (root / "tree" / "leaf").read_text() == "leaf"
    assert (local / "got-dir" / "two words").read_text() == "2"
    assert (root / "renamed-old").read_text() == "content\n"
    for word in ("-rw-r--r--", "drwxr-xr-x", "lrwxrwxrwx"):
        assert word in text


@pytest.mark.parametrize("options", [[], ["-s"], ["-p"]])
def test_scp_both_ways(served: Served, root: Path, tmp_path: Path, options: list[str]) -> None:
    local = tmp_path / "local"
    local.mkdir()
    content = os.urandom(1_000_000)
    (local / "up").write_bytes(content)
    argv = [require("scp"), "-F", str(served.client_config), "-q", *options]
    subprocess.run([*argv, str(local / "up"), "served:/dir/up"], check=True, timeout=30)
    assert (root / "dir" / "up").read_bytes() == content
    subprocess.run([*argv, "-r", "served:dir", str(local)], check=True, timeout=30)
    assert (local / "dir" / "up").read_bytes() == content
    assert (local / "dir" / "two words").read_text() == "2"


async def test_asyncssh_client(served: Served, root: Path, tmp_path: Path) -> None:
    async with (
        asyncssh.connect(
            "127.0.0.1", served.port, username="u", client_keys=[str(served.user_key)],
            known_hosts=str(served.directory / "known_hosts"), config=None, agent_path=None,
        ) as connection,
        connection.start_sftp_client() as client,
    ):  # fmt: skip
        assert client.limits.max_read_len == 256 * 1024
        names = [name async for name in client.scandir("/dir")]
        assert {name.filename for name in names} >= {"one", "two words", "inner"}
        content = os.urandom(2_000_000)
        (tmp_path / "up").write_bytes(content)
        await client.put(str(tmp_path / "up"), "up", preserve=True)
        await client.get("up", str(tmp_path / "down"))
        assert (tmp_path / "down").read_bytes() == content
        await client.copy("up", "copy", remote_only=True)
        assert (root / "copy").read_bytes() == content
        await client.posix_rename("copy", "up")
        await client.link("up", "hard")
        await client.symlink("up", "soft")
        assert await client.readlink("soft") == "up"
        assert await client.realpath("dir/../soft") == "/up"
        assert (await client.statvfs("/")).namemax == os.statvfs(root).f_namemax
        await client.makedirs("a/b/c")
        await client.setstat("up", asyncssh.SFTPAttrs(permissions=0o600, atime=1, mtime=2))
        assert (root / "up").stat().st_mtime == 2
        async with client.open("up", "r+b") as file:
            await file.write(b"start", 0)
            await file.fsync()
            assert await file.read(5, 0) == b"start"
            assert (await file.stat()).size == len(content)
            await file.truncate(3)
        await client.rmtree("a")
        with pytest.raises(asyncssh.SFTPNoSuchFile):
            await client.stat("a")
        assert "/dir/one" in await client.glob("/dir/o*")


def test_paramiko_client(served: Served, root: Path, tmp_path: Path) -> None:
    ssh = paramiko.SSHClient()
    ssh.load_host_keys(str(served.directory / "known_hosts"))
    ssh.connect(
        "127.0.0.1", served.port, username="u", key_filename=str(served.user_key),
        allow_agent=False, look_for_keys=False,
    )  # fmt: skip
    with ssh, ssh.open_sftp() as client:
        assert set(client.listdir("/dir")) == {"one", "two words", "inner"}
        content = os.urandom(2_000_000)
        (tmp_path / "up").write_bytes(content)
        client.put(str(tmp_path / "up"), "up")
        client.get("up", str(tmp_path / "down"))
        assert (tmp_path / "down").read_bytes() == content
        client.chdir("dir")
        assert client.normalize("one") == "/dir/one"
        with client.open("one", "r+") as file:
            file.write("changed")
            file.seek(0)
            assert file.read() == b"changed"
        client.posix_rename("one", "uno")
        client.symlink("uno", "soft")
        assert client.readlink("soft") == "uno"
        client.truncate("uno", 2)
        client.utime("uno", (1, 2))
        client.chmod("uno", 0o600)
        st = client.stat("uno")
        assert (st.st_size, st.st_mtime, stat.S_IMODE(st.st_mode or 0)) == (2, 2, 0o600)
        client.mkdir("new")
        client.rmdir("new")
        client.remove("soft")
        with pytest.raises(FileNotFoundError):
            client.stat("soft")
    assert (root / "dir" / "uno").read_text() == "ch"


@contextlib.contextmanager
def mounted(peer: str, source: str, mountpoint: Path, *options: str) -> Iterator[Mount]:
    program = netfs_command() if peer == "netfs" else [require("sshfs")]
    mount = start([*program, source, str(mountpoint), "-f", *options], mountpoint)
    try:
        yield mount
    finally:
        mount.clean_up()


def workload(mount: Path, root: Path) -> None:
    """What applications do on a mount."""
    work = mount / "work"
    work.mkdir()
    content = os.urandom(5_000_000)
    (work / "data").write_bytes(content)
    assert (work / "data").read_bytes() == content

    def run(*argv: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            list(map(str, argv)), check=True, timeout=60, capture_output=True, text=True
        )

    for number in range(50):
        (work / f"f{number}").write_text(str(number))
    run("tar", "-cf", work / "all.tar", "-C", work, "f1", "f2", "data")
    run("mkdir", work / "out")
    run("tar", "-xf", work / "all.tar", "-C", work / "out")
    assert filecmp.cmp(work / "out" / "data", root / "work" / "data", shallow=False)
    run("cp", "-a", work / "out", work / "copy")
    run("sed", "-i", "s/1/one/", work / "f1")
    assert (root / "work" / "f1").read_text() == "one"
    with open(work / "data", "r+b") as file:
        file.seek(1_000_000)
        file.write(b"patched")
        file.truncate(1_000_010)
    assert (root / "work" / "data").read_bytes()[-10:] == b"patched" + content[1_000_007:1_000_010]
    (work / "f2").rename(work / "f3")
    assert (root / "work" / "f3").read_text() == "2"
    assert len(list(work.iterdir())) == 53
    git = [require("git"), "-C", str(work), "-c", "user.name=a", "-c", "user.email=a@b"]
    run(*git, "init", "-q")
    run(*git, "add", "f1", "f3", "f4")
    run(*git, "commit", "-qm", "x")
    done = run(*git, "fsck", "--strict")
    assert "error" not in done.stderr
    run("rm", "-rf", work)
    assert not (root / "work").exists()


@pytest.mark.mount
@pytest.mark.parametrize("peer", ["sshfs", "netfs"])
def test_a_mount_of_it_carries_applications(
    served: Served, root: Path, tmp_path: Path, need_fuse: None, peer: str
) -> None:
    with mounted(peer, "served:/", tmp_path / "mnt", "-F", str(served.client_config)) as mount:
        assert (mount.path / "file").read_text() == "content\n"
        workload(mount.path, root)


@pytest.mark.mount
def test_netfs_shows_true_inodes_links_blocks_and_times(
    served: Served, root: Path, tmp_path: Path, need_fuse: None
) -> None:
    os.link(root / "file", root / "dir" / "again")
    os.utime(root / "file", ns=(1_111_111_111, 2_222_222_222_333_444_555))
    with open(root / "holes", "wb") as file:
        file.truncate(1 << 30)
    with mounted("netfs", "served:/", tmp_path / "mnt", "-F", str(served.client_config)) as mount:
        for name in ("file", "dir/again", "dir/one", "dir", "link", "holes"):
            here, there = (mount.path / name).lstat(), (root / name).lstat()
            assert here.st_ino == there.st_ino, name
            assert here.st_mtime_ns == there.st_mtime_ns, name
            assert here.st_ctime_ns == there.st_ctime_ns, name
            assert here.st_blocks == there.st_blocks, name
            if name != "dir":
                assert here.st_nlink == there.st_nlink, name
        inode = (root / "file").stat().st_ino
        found = subprocess.run(
            ["find", ".", "-inum", str(inode)],
            cwd=mount.path, capture_output=True, text=True, timeout=20, check=True,
        ).stdout  # fmt: skip
        assert set(found.split()) == {"./file", "./dir/again"}
        used = [
            subprocess.run(["du", "-s", "."], cwd=where, capture_output=True, timeout=20).stdout
            for where in (mount.path, root)
        ]
        assert used[0] == used[1]
        os.utime(mount.path / "file", ns=(5, 1_000_000_001))
        assert (root / "file").stat().st_mtime_ns == 1_000_000_001


@pytest.mark.mount
@pytest.mark.parametrize("peer", ["sshfs", "netfs"])
def test_a_real_sshd_with_it_as_subsystem_carries_a_mount(
    root: Path, tmp_path: Path, need_fuse: None, peer: str
) -> None:
    subsystem = (
        f"/usr/bin/env PYTHONPATH={TREE} {' '.join(command('--stdio', '--root', str(root)))}"
    )
    with (
        running_sshd(tmp_path / "sshd", subsystem=subsystem) as sshd,
        mounted(peer, sshd.source("/"), tmp_path / "mnt", *sshd.options()) as mount,
    ):
        assert (mount.path / "file").read_text() == "content\n"
        workload(mount.path, root)
