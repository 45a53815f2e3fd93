"""What stands in the way of a mount: one line, an exit code of its own, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.support import Cli
from tests.harness import mounts
from tests.harness.mounts import environment, netfs_command
from tests.harness.packages import require
from tests.harness.sftpd import running_sftpd
from tests.harness.waiting import wait_until

pytestmark = [pytest.mark.mount, pytest.mark.sshd]


@pytest.mark.parametrize(
    ("case", "code", "message"),
    [
        ("refused", 11, "sshd running"),
        ("unknown host", 10, "nosuchhost.invalid"),
        ("no directory", 30, "make it there"),
        ("a file", 31, "name the one it is in"),
        ("no mountpoint", 40, "make it first"),
        ("mountpoint is a file", 41, "name or make one"),
        ("timed out", 13, "no answer in 1 s"),
        ("unreachable", 12, "is the network up?"),
        ("unknown host key", 14, "connect once with ssh"),
        ("changed host key", 15, "ssh-keygen -f"),
        ("revoked host key", 16, "revoked"),
        ("no key fits", 17, "permission denied ("),
        ("no subsystem", 19, "-o sftp_server=PATH"),
        ("a login script that prints", 19, "silence the login scripts"),
        ("not SSH", 20, "not an SSH server"),
        ("no cipher in common", 23, "here aes256-cbc"),
        ("an ssh word that makes no sense", 24, "yes, no, ask, accept-new"),
        ("no such ssh_config", 24, "no such file"),
        ("log_file below the mountpoint", 46, "wait for itself"),
        ("rescue_dir below the mountpoint", 46, "wait for itself"),
        ("runtime_dir below the mountpoint", 46, "wait for itself"),
        ("IdentityFile below the mountpoint", 46, "wait for itself"),
        ("IdentityAgent below the mountpoint", 46, "wait for itself"),
        ("no such log_file", 1, "no such file or directory; name another"),
        ("no such log_file in the foreground", 1, "no such file or directory; name another"),
        ("unknown option", 2, "did you mean 'reconnect'"),
        ("malformed source", 2, "not like [user@]host:[dir]"),
    ],
)
def test_each_failure_has_a_line_and_a_code_and_leaves_no_mount(
    cli: Cli, remote: Path, case: str, code: int, message: str
) -> None:
    (remote / "file").write_text("")
    (cli.folder / "empty").write_text("")
    point = cli.folder / "mnt"
    point.mkdir()
    good = cli.words(remote, point)
    match case:
        case "refused":
            words = [*good, "-p", "1"]
            words = [word for word in words if not word.startswith("Port=")]
            words.remove("-o")
        case "unknown host":
            words = ["nosuchhost.invalid:", *good[1:]]
        case "no directory":
            words = cli.words(remote / "nothing", point)
        case "a file":
            words = cli.words(remote / "file", point)
        case "no mountpoint":
            words = cli.words(remote, cli.folder / "nothing")
        case "mountpoint is a file":
            words = cli.words(remote, remote / "file")
        case "unknown host key":
            words = [*good, "-o", f"UserKnownHostsFile={cli.folder / 'empty'},BatchMode=yes"]
            words += ["-o", "StrictHostKeyChecking=yes"]
        case "changed host key" | "revoked host key":
            key = cli.server.user_key.with_suffix(".pub").read_text()
            line = f"[127.0.0.1]:{cli.server.port} {key}"
            if case.startswith("revoked"):
                key = cli.server.host_key.with_suffix(".pub").read_text()
                line = f"@revoked * {key}"
            (cli.folder / "known").write_text(line)
            words = [*good, "-o", f"UserKnownHostsFile={cli.folder / 'known'}"]
        case "timed out":
            words = [*good, "-o", "ConnectTimeout=1,ProxyCommand=sleep 10"]
        case "unreachable":
            words = ["255.255.255.255:", *good[1:]]
        case "a login script that prints":
            words = [*good, "-o", "sftp_server=/bin/echo hello"]
        case "not SSH":
            (cli.folder / "other").write_text("printf 'SSH-1.5-ancient\\r\\n'; exec sleep 5")
            words = [*good, "-o", f"ProxyCommand=/bin/sh {cli.folder / 'other'}"]
        case "no cipher in common":
            words = ["-o", "Ciphers=aes256-cbc", *good]
            words[words.index(str(cli.server.client_config))] = "none"
        case "an ssh word that makes no sense":
            words = [*good, "-o", "StrictHostKeyChecking=perhaps"]
        case "no such ssh_config":
            words = [*good, "-F", str(cli.folder / "missing")]
        case "no key fits":
            words = [*good, "-o", "PubkeyAuthentication=no,BatchMode=yes"]
        case "no subsystem":
            words = [*good, "-o", "sftp_server=nothing"]
        case below if below.endswith(" below the mountpoint"):
            words = [*good, "-o", f"{below.split()[0]}={point / 'it'}"]
        case log if log.startswith("no such log_file"):
            words = [*good, "-o", f"log_file={cli.folder / 'missing' / 'log'}"]
            words += ["-f"] if log.endswith("foreground") else []
        case "unknown option":
            words = [*good, "-o", "reconect"]
        case _:
            words = ["nothing", *good[1:]]
    done = cli.run(*words)
    assert (done.returncode, message in done.stderr) == (code, True), done.stderr
    assert done.stderr.startswith("netfs: ")
    assert done.stderr.count("\n") == 1
    assert not mounts.is_mounted(point)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("to_all", [True, False])
def test_who_ends_the_command_ends_the_mount_that_is_being_made(
    cli: Cli, remote: Path, number: signal.Signals, to_all: bool
) -> None:
    point = cli.folder / "mnt"
    point.mkdir()
    begun = cli.folder / "begun"
    (cli.folder / "proxy").write_text(f"touch {begun}; exec sleep 50")
    words = [f"ProxyCommand=/bin/sh {cli.folder / 'proxy'},ConnectTimeout=50"]
    process = subprocess.Popen(
        mounts.netfs_command(*cli.words(remote, point, words)),
        env=environment(),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        wait_until(begun.exists, 20, "the connection's beginning")
        (os.killpg if to_all else os.kill)(process.pid, number)
        assert process.wait(20) == 130
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert not mounts.is_mounted(point)
    assert not list((cli.folder / "run").iterdir())  # and the test's end sees the processes


# --- what the machine lacks ----------------------------------------------------------------------

USER = 65534

WITHOUT_DEVICE = """
devices=$(mktemp -d)
mount -t tmpfs none "$devices"
for name in null zero urandom tty; do
  touch "$devices/$name"; mount --bind "/dev/$name" "$devices/$name"
done
mount --rbind "$devices" /dev
"""
CLOSED_DEVICE = 'touch "$1/fuse"; mknod "$1/fuse0" c 10 229; mount --bind "$1/fuse0" /dev/fuse\n'
WITHOUT_HELPER = """
for name in fusermount3 fusermount; do
  program=$(command -v $name) && mount --bind /dev/null "$(realpath "$program")"
done
mknod -m 666 "$1/fuse0" c 10 229; mount --bind "$1/fuse0" /dev/fuse
"""
OPEN_DEVICE = 'mknod -m 666 "$1/fuse0" c 10 229; mount --bind "$1/fuse0" /dev/fuse\n'
AS_USER = (
    f"setpriv --reuid={USER} --regid={USER} --clear-groups "
    "--inh-caps=+dac_read_search --ambient-caps=+dac_read_search"
)
WITHOUT_SYS_ADMIN = "setpriv --bounding-set=-sys_admin --inh-caps=-sys_admin"


@pytest.fixture
def place(sandbox: Path) -> Iterator[Path]:
    """A directory that belongs to a user, away from those that only root may enter."""
    path = sandbox / "refusals"
    path.mkdir()
    os.chown(path, USER, USER)
    yield path
    subprocess.run(["rm", "-rf", "--one-file-system", path], timeout=30)


@pytest.mark.root
@pytest.mark.parametrize(
    ("before", "by", "options", "code", "message"),
    [
        (WITHOUT_DEVICE, "", "", 43, "load the kernel module 'fuse'"),
        (CLOSED_DEVICE, AS_USER, "", 43, "give this user access to /dev/fuse"),
        (WITHOUT_HELPER, AS_USER, "", 44, "install the package 'fuse3'"),
        (OPEN_DEVICE, AS_USER, "allow_other", 42, "user_allow_other"),
        (OPEN_DEVICE, AS_USER, "not mine", 42, "owned by the user"),
        ("", WITHOUT_SYS_ADMIN, "", 42, "SYS_ADMIN"),
    ],
    ids=["no device", "closed device", "no helper", "allow_other", "not mine", "no capability"],
)
def test_what_the_machine_lacks_is_named(
    need_fuse: None, place: Path, before: str, by: str, options: str, code: int, message: str
) -> None:
    remote = place / "remote"
    remote.mkdir()
    point = place / "mnt"
    point.mkdir()
    if options != "not mine":
        os.chown(point, USER, USER)
    script = f"""
{before}
shift
{by} "$@"
code=$?
grep -c " $PLACE/mnt " /proc/self/mountinfo
exit $code
"""
    with running_sftpd() as port:
        words = [f"127.0.0.1:{remote}", str(point), "-o", f"directport={port}"]
        words += ["-o", f"runtime_dir={place / 'run'}"]
        if options == "allow_other":
            words += ["-o", options]
        done = subprocess.run(
            [
                *(require("unshare"), "-m", "--propagation", "private"),
                *("sh", "-c", script, "sh", str(place), *netfs_command(*words)),
            ],
            env=environment({"PLACE": str(place), "HOME": str(place)}),
            capture_output=True,
            text=True,
            timeout=30,
            cwd="/",
        )
    assert (done.returncode, message in done.stderr) == (code, True), done.stderr
    assert done.stderr.startswith("netfs: ")
    assert done.stderr.count("\n") == 1
    assert done.stdout == "0\n"
