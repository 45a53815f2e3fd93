"""What the options of the command line do to a mount, seen from inside it."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Mounter
from tests.harness.mounts import Mount, command_for, connection_of, mounted, netfs_command, start
from tests.harness.packages import require
from tests.harness.relay import Relay
from tests.harness.sftpd import SFTP_SERVER, running_sftpd
from tests.harness.sshd import Sshd

pytestmark = [pytest.mark.mount, pytest.mark.sshd]

SOMEBODY = 65534
OTHER = (1234, 2345)  # numbers that nobody has here

MOUNTS_AND_EXECS = """
import ctypes, os, sys
os.dup2(os.open("/dev/fuse", os.O_RDWR), 9)
options = b"fd=9,rootmode=40000,user_id=0,group_id=0"
libc = ctypes.CDLL(None)
assert libc.mount(b"csi", os.fsencode(sys.argv[1]), b"fuse.netfs", 0, options) == 0
os.execv(sys.argv[2], sys.argv[2:])
"""
"""In one process: another that held the device, too, would keep its mount for ever."""

SftpMounter = Callable[..., Mount]


@pytest.fixture
def mount_sftp(need_fuse: None, sshd: Sshd, remote: Path, tmp_path: Path) -> Iterator[SftpMounter]:
    """Mounts *remote* as the system's sftp-server serves it, started by a command of the test's."""
    with contextlib.ExitStack() as stack:

        def mount(*options: str, command: tuple[str, ...] = SFTP_SERVER) -> Mount:
            port = stack.enter_context(running_sftpd(command))
            more = (f"directport={port}", *options)
            source = f"127.0.0.1:{remote}"
            place = tmp_path / "m"
            return stack.enter_context(mounted(sshd, remote, place, options=more, source=source))

        yield mount


def as_somebody(home: Path) -> tuple[str, ...]:
    """An SFTP server that runs as another user, whose login directory is *home*."""
    ids = (f"--reuid={SOMEBODY}", f"--regid={SOMEBODY}", "--clear-groups")
    reading = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
    return (require("setpriv"), *ids, *reading, *SFTP_SERVER, "-d", str(home))


def owner(path: Path) -> tuple[int, int]:
    found = path.lstat()
    return found.st_uid, found.st_gid


# --- whose the files are -------------------------------------------------------------------------


@pytest.fixture
def owned(remote: Path) -> Path:
    """A directory of the connecting user's with a file of that user and one of another."""
    (remote / "mine").write_text("mine")
    (remote / "other").write_text("other")
    os.chown(remote, SOMEBODY, SOMEBODY)
    os.chown(remote / "mine", SOMEBODY, SOMEBODY)
    os.chown(remote / "other", *OTHER)
    return remote


@pytest.mark.root
def test_by_default_the_connecting_user_s_files_are_the_mounting_user_s(
    owned: Path, mount_sftp: SftpMounter
) -> None:
    place = mount_sftp(command=as_somebody(owned)).path
    assert owner(place / "mine") == (os.getuid(), os.getgid())
    assert owner(place / "other") == OTHER
    (place / "new").write_text("new")
    assert owner(place / "new") == (os.getuid(), os.getgid())
    assert owner(owned / "new") == (SOMEBODY, SOMEBODY)
    os.chown(place / "new", os.getuid(), os.getgid())  # SOMEBODY there: allowed
    with pytest.raises(PermissionError):
        os.chown(place / "new", SOMEBODY + 1, -1)


@pytest.mark.root
def test_idmap_none_shows_the_server_s_numbers(owned: Path, mount_sftp: SftpMounter) -> None:
    place = mount_sftp("idmap=none", command=as_somebody(owned)).path
    assert owner(place / "mine") == (SOMEBODY, SOMEBODY)
    assert owner(place / "other") == OTHER


@pytest.mark.root
def test_idmap_file_maps_both_ways(owned: Path, mount_sftp: SftpMounter, tmp_path: Path) -> None:
    (tmp_path / "uids").write_text(f"root:{SOMEBODY}\ndaemon:{OTHER[0]}\n")
    (tmp_path / "gids").write_text(f"root:{SOMEBODY}\ndaemon:{OTHER[1]}\n")
    files = f"uidfile={tmp_path / 'uids'},gidfile={tmp_path / 'gids'}"
    place = mount_sftp(f"idmap=file,{files}").path
    assert owner(place / "mine") == (0, 0)
    assert owner(place / "other") == (1, 1)
    os.chown(place / "mine", 1, 1)
    assert owner(owned / "mine") == OTHER


@pytest.mark.root
@pytest.mark.parametrize("nomap", ["error", "ignore"])
def test_nomap_says_what_becomes_of_an_owner_without_a_line(
    owned: Path, mount_sftp: SftpMounter, tmp_path: Path, nomap: str
) -> None:
    (tmp_path / "uids").write_text(f"root:{SOMEBODY}\n")
    (tmp_path / "gids").write_text(f"root:{SOMEBODY}\n")
    files = f"uidfile={tmp_path / 'uids'},gidfile={tmp_path / 'gids'}"
    place = mount_sftp(f"idmap=file,nomap={nomap},{files}").path
    assert owner(place / "mine") == (0, 0)
    if nomap == "ignore":
        assert owner(place / "other") == OTHER
        return
    with pytest.raises(PermissionError):
        os.lstat(place / "other")
    with pytest.raises(PermissionError):
        os.chown(place / "mine", 1, 1)
    assert "mine" in os.listdir(place)


def test_uid_gid_and_the_masks_decide_what_is_shown(remote: Path, mount_at: Mounter) -> None:
    (remote / "file").touch(0o777)
    (remote / "directory").mkdir(0o700)
    options = f"uid={OTHER[0]},gid={OTHER[1]},umask=077,fmask=137"
    place = mount_at(remote, options).path
    assert owner(place / "file") == OTHER
    assert owner(place / "directory") == OTHER
    assert (place / "file").stat().st_mode & 0o7777 == 0o640
    assert (place / "directory").stat().st_mode & 0o7777 == 0o700
    assert owner(remote / "file") == (os.getuid(), os.getgid())
    place = mount_at(remote, "umask=077,dmask=022").path
    assert (place / "file").stat().st_mode & 0o7777 == 0o700
    assert (place / "directory").stat().st_mode & 0o7777 == 0o755


# --- symlinks, hard links, renaming --------------------------------------------------------------


@pytest.fixture
def linked(remote: Path, tmp_path: Path) -> Path:
    """Symlinks that stay inside the served directory, leave it, or lead nowhere."""
    (tmp_path / "outside").write_text("outside")
    (remote / "file").write_text("inside")
    (remote / "directory").mkdir()
    for name, target in {
        "absolute": remote / "file",
        "directory/deep": remote / "file",
        "relative": "file",
        "up": "../outside",
        "out": tmp_path / "outside",
        "nowhere": "missing",
    }.items():
        (remote / name).symlink_to(target)
    return remote


def test_by_default_symlinks_are_shown_as_they_are(linked: Path, mount_at: Mounter) -> None:
    place = mount_at(linked).path
    for name in ("absolute", "directory/deep", "relative", "up", "out", "nowhere"):
        assert os.readlink(place / name) == os.readlink(linked / name)
    assert (place / "out").read_text() == "outside"  # the kernel follows it here


def test_follow_symlinks_shows_what_they_lead_to(linked: Path, mount_at: Mounter) -> None:
    place = mount_at(linked, "follow_symlinks").path
    kinds = {entry.name: entry.is_symlink() for entry in os.scandir(place)}
    assert kinds["nowhere"]
    assert not kinds["out"]
    assert not (place / "out").is_symlink()
    assert (place / "out").read_text() == "outside"
    assert (place / "nowhere").is_symlink()
    (place / "absolute").write_text("changed")
    assert (linked / "file").read_text() == "changed"


def test_transform_symlinks_makes_those_inside_relative(linked: Path, mount_at: Mounter) -> None:
    place = mount_at(linked, "transform_symlinks").path
    assert os.readlink(place / "absolute") == "file"
    assert os.readlink(place / "directory" / "deep") == "../file"
    assert os.readlink(place / "out") == os.readlink(linked / "out")
    assert (place / "directory" / "deep").read_text() == "inside"


def test_contain_symlinks_refuses_what_may_leave(linked: Path, mount_at: Mounter) -> None:
    place = mount_at(linked, "contain_symlinks").path
    assert (place / "relative").read_text() == "inside"
    for name in ("absolute", "up", "out"):
        with pytest.raises(PermissionError):
            os.readlink(place / name)
        assert (place / name).is_symlink()


def test_disable_hardlink_makes_none(remote: Path, mount_at: Mounter) -> None:
    (remote / "file").touch()
    place = mount_at(remote, "disable_hardlink").path
    with pytest.raises(OSError) as caught:
        os.link(place / "file", place / "link")
    assert caught.value.errno in (errno.EPERM, errno.ENOSYS)
    assert os.listdir(remote) == ["file"]


def test_workaround_rename_replaces_without_posix_rename(
    remote: Path, sshd: Sshd, tmp_path: Path, need_fuse: None
) -> None:
    (remote / "old").write_text("old")
    (remote / "new").write_text("new")
    with running_sftpd() as port, Relay(port) as relay:
        options = (f"directport={relay.port}", "workaround=rename")
        source = f"127.0.0.1:{remote}"
        with mounted(sshd, remote, tmp_path / "m", options=options, source=source) as mount:
            relay.record()
            os.rename(mount.path / "old", mount.path / "new")
            kinds = [kind for way, kind, _ in relay.packets() if way == "up"]
            assert (mount.path / "new").read_text() == "old"
    assert 18 in kinds  # RENAME; posix-rename would be an EXTENDED
    assert 200 not in kinds
    assert [path.name for path in remote.iterdir()] == ["new"]


def test_workaround_renamexdev_lets_mv_copy(
    remote: Path, mount_sftp: SftpMounter, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (remote / "file").write_text("moved")
    subprocess.run(["mount", "-t", "tmpfs", "none", other], check=True)
    try:
        (remote / "link").symlink_to(other)
        place = mount_sftp("workaround=renamexdev,follow_symlinks").path
        with pytest.raises(OSError) as caught:
            os.rename(place / "file", place / "link" / "file")
        assert caught.value.errno == errno.EXDEV
        subprocess.run(["mv", place / "file", place / "link" / "file"], check=True, timeout=20)
        assert (other / "file").read_text() == "moved"
    finally:
        subprocess.run(["umount", "-l", other], check=True)


def test_workaround_createmode_creates_with_mode_0_and_sets_it_afterwards(
    remote: Path, mount_at: Mounter
) -> None:
    mount = mount_at(remote, "workaround=createmode,debug")
    fd = os.open(mount.path / "file", os.O_WRONLY | os.O_CREAT, 0o640)
    os.close(fd)
    assert (remote / "file").stat().st_mode & 0o7777 == 0o640
    opened = re.findall(r"> Open path=.*/file' pflags=\d+ (.*)", mount.text())
    assert opened[0] == "(mode=0)"


# --- what is mounted, and where ------------------------------------------------------------------


def test_a_subdirectory_is_the_mount_s_root(remote: Path, mount_at: Mounter) -> None:
    (remote / "a" / "b").mkdir(parents=True)
    (remote / "a" / "b" / "file").write_text("below")
    place = mount_at(remote, "modules=subdir,subdir=a/b").path
    assert os.listdir(place) == ["file"]


def test_modules_iconv_converts_names_both_ways(remote: Path, mount_at: Mounter) -> None:
    there = Path(os.fsdecode(os.fsencode(remote) + b"/\xc4\xce\xd2"))  # KOI-8 in cp1251
    there.mkdir()
    (there / os.fsdecode("файл".encode("cp1251"))).write_text("content")
    (remote / "link").symlink_to(os.fsdecode("цель".encode("cp1251")))
    (remote / os.fsdecode(b"\x98")).touch()  # nothing in cp1251: can't be shown
    place = mount_at(remote, "modules=iconv,from_code=cp1251,to_code=utf-8").path
    directory = b"\xc4\xce\xd2".decode("cp1251")
    assert sorted(os.listdir(place)) == sorted(["link", directory])
    assert (place / directory / "файл").read_text() == "content"
    assert os.readlink(place / "link") == "цель"
    (place / directory / "файл").rename(place / "новый")
    (place / "новый").chmod(0o600)
    (place / "hard").hardlink_to(place / "новый")
    (place / "новая").mkdir()
    (place / "новая" / "ссылка").symlink_to("../новый")
    with (place / "новый").open("a") as file:
        file.write(" and more")
    assert (place / "новая" / "ссылка").read_text() == "content and more"
    names = {os.fsencode(name).decode("cp1251", "replace") for name in os.listdir(remote)}
    assert names == {"link", directory, "новый", "hard", "новая", "\N{REPLACEMENT CHARACTER}"}
    made = remote / os.fsdecode("новая".encode("cp1251")) / os.fsdecode("ссылка".encode("cp1251"))
    assert os.fsencode(os.readlink(made)) == "../новый".encode("cp1251")
    with pytest.raises(OSError) as caught:
        (place / "漢").touch()
    assert caught.value.errno == errno.EILSEQ


def test_no_check_root_mounts_what_is_not_there_yet(
    remote: Path, need_fuse: None, sshd: Sshd, tmp_path: Path
) -> None:
    later = remote / "later"
    command = command_for("netfs", sshd, later, tmp_path / "m", ["no_check_root"])
    mount = start(command, tmp_path / "m")
    try:
        with pytest.raises(FileNotFoundError):
            os.listdir(mount.path)
        later.mkdir()
        (later / "file").touch()
        assert os.listdir(mount.path) == ["file"]
    finally:
        mount.clean_up()


def test_fsname_and_subtype_are_shown_in_the_mount_table(remote: Path, mount_at: Mounter) -> None:
    place = mount_at(remote, "fsname=some thing,subtype=other,noexec,nodiratime,suid").path
    lines = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    (found,) = [line for line in lines if line[1] == str(place)]
    assert found[0] == "some\\040thing"
    assert found[2] == "fuse.other"
    assert {"nodev", "noexec", "nodiratime"} <= set(found[3].split(","))
    assert "nosuid" not in found[3]


@pytest.mark.root
def test_a_device_that_somebody_mounted_is_served(
    remote: Path, need_fuse: None, sshd: Sshd, tmp_path: Path
) -> None:
    """``/dev/fd/N``: mounted outside, by whom may; as containers and CSI drivers do it."""
    (remote / "file").write_text("inherited")
    command = netfs_command(sshd.source(remote), "/dev/fd/9", "-f", *sshd.options())
    mount = start(
        [sys.executable, "-c", MOUNTS_AND_EXECS, str(tmp_path / "m"), *command], tmp_path / "m"
    )
    try:
        assert (mount.path / "file").read_text() == "inherited"
        assert mount.unmount() == 0
    finally:
        mount.clean_up()


@pytest.mark.root
@pytest.mark.parametrize(("option", "may"), [("", False), ("allow_other", True)])
def test_other_users_are_let_in_by_allow_other(
    remote: Path, need_fuse: None, sshd: Sshd, sandbox: Path, option: str, may: bool
) -> None:
    (remote / "file").write_text("for all")
    options = [option] if option else []
    with mounted(sshd, remote, sandbox / "shared", options=options) as mount:
        ids = [f"--reuid={SOMEBODY}", f"--regid={SOMEBODY}", "--clear-groups"]
        done = subprocess.run(
            [require("setpriv"), *ids, "cat", mount.path / "file"], capture_output=True, timeout=20
        )
    assert (done.returncode == 0) == may, done.stderr


# --- caches --------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", ["dir_cache=no", "dcache_timeout=0"])
def test_without_a_cache_of_names_the_server_s_changes_are_seen_at_once(
    remote: Path, mount_at: Mounter, options: str
) -> None:
    (remote / "file").write_text("1")
    place = mount_at(remote, options).path
    assert os.listdir(place) == ["file"]
    assert (place / "file").stat().st_size == 1
    assert not (place / "new").exists()
    (remote / "file").write_text("22")
    (remote / "new").touch()
    assert (place / "file").stat().st_size == 2
    assert (place / "new").exists()
    assert sorted(os.listdir(place)) == ["file", "new"]


def test_a_missing_name_is_asked_for_again_with_negative_timeout_0(
    remote: Path, mount_at: Mounter
) -> None:
    place = mount_at(remote, "negative_timeout=0").path
    assert not (place / "new").exists()
    (remote / "new").touch()
    assert (place / "new").exists()


def test_max_read_and_max_write_bound_each_request(
    remote: Path, sshd: Sshd, tmp_path: Path, need_fuse: None
) -> None:
    data = os.urandom(300_000)
    (remote / "file").write_bytes(data)
    with running_sftpd() as port, Relay(port) as relay:
        options = (f"directport={relay.port}", "max_read=16384,max_write=8192,no_readahead")
        source = f"127.0.0.1:{remote}"
        with mounted(sshd, remote, tmp_path / "m", options=options, source=source) as mount:
            relay.record()
            assert (mount.path / "file").read_bytes() == data
            (mount.path / "new").write_bytes(data)
            sent = [kind for way, kind, _ in relay.packets() if way == "up"]
    assert sent.count(5) >= 300_000 / 16384
    assert sent.count(6) >= 300_000 / 8192
    assert (remote / "new").read_bytes() == data


@pytest.mark.parametrize("option", ["no_readahead", "direct_io"])
def test_nothing_is_read_ahead(remote: Path, mount_at: Mounter, option: str) -> None:
    (remote / "file").write_bytes(os.urandom(4 << 20))
    mount = mount_at(remote, "debug", "no_tree_readahead", option)
    fd = os.open(mount.path / "file", os.O_RDONLY)
    try:
        for offset in (0, 1 << 20, 3 << 20):
            os.pread(fd, 4096, offset)
    finally:
        os.close(fd)
    if option == "no_readahead":  # the kernel asks for four pages where a file begins
        assert sum(map(int, re.findall(r"> Read .* length=(\d+)", mount.text()))) <= 6 * 4096
        connection = connection_of(mount.path)
        assert Path(f"/sys/class/bdi/0:{connection}/read_ahead_kb").read_text() == "128\n"
    else:
        asked = re.findall(r"netfs.fuse: -> .* READ .* size=(\d+)", mount.text())
        assert asked == ["4096"] * 3


# --- what is told --------------------------------------------------------------------------------


def test_debug_shows_each_request_of_the_kernel_and_to_the_server(
    remote: Path, need_fuse: None, sshd: Sshd, tmp_path: Path
) -> None:
    (remote / "file").write_text("a secret")
    words = command_for("netfs", sshd, remote, tmp_path / "m")
    words.remove("-f")  # -d implies it
    mount = start([*words, "-d"], tmp_path / "m")
    try:
        assert (mount.path / "file").read_text() == "a secret"
        with pytest.raises(OSError, match="not supported"):
            os.getxattr(mount.path / "file", "user.x")
        assert mount.unmount() == 0
        text = mount.text()
        for word in ("LOOKUP", "OPEN", "READ", "RELEASE", "GETXATTR"):
            assert re.search(rf"netfs\.fuse: -> \d+ {word} ", text), text
        for word in ("Lstat", "Open", "Read"):
            assert re.search(rf"sftp \d+ > {word} ", text), text
            assert re.search(rf"sftp < {word} ", text), text
        replies = set(re.findall(r"<- (\d+) ", text))
        assert replies <= set(re.findall(r"-> (\d+) [A-Z]", text))  # refusals, too
        assert "a secret" not in text
    finally:
        mount.clean_up()


def test_ssh_words_that_can_t_be_followed_are_named_in_one_warning(
    remote: Path, mount_at: Mounter
) -> None:
    words = "Cipher=3des,GSSAPIAuthentication=yes,controlmaster=auto,CompressionLevel=3,IPQoS=none"
    lines = [line for line in mount_at(remote, words).text().splitlines() if "WARNING" in line]
    assert len(lines) == 1, lines
    assert "ignored: cipher, controlmaster, gssapiauthentication (" in lines[0]
