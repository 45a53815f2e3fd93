"""argv of mount(8), umount(8) and automount(8) as they were recorded."""

from __future__ import annotations

import io

import pytest

from netfs.cli import helper, parse
from netfs.cli.parse import UsageError


@pytest.fixture(autouse=True)
def no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())


@pytest.mark.parametrize(
    ("argv", "is_read_only", "fake"),
    [
        ("u@h:/p /mnt -n -o rw,port=2522,reconnect,_netdev", False, False),  # automount
        ("u@h:/p /mnt -o rw", False, False),
        ("u@h:/p /mnt -s -n -v -o ro", True, False),
        ("u@h:/p /mnt -f -o rw", False, True),
        ("u@h:/p /mnt -o rw,noexec,nosuid,nodev,user", False, False),
        ("u@h:/p /mnt -o rw,user=bob,nofail,sloppy", False, False),
        ("u@h:/p /mnt -o ro,noatime,dev,suid,_netdev,nofail,user", True, False),  # mount.fuse3
        ("sftp://u@h:2522/p /mnt -o rw", False, False),
        ("netfs#u@h:/p /mnt -o rw", False, False),
    ],
)
def test_recorded_argv_is_understood(argv: str, is_read_only: bool, fake: bool) -> None:
    given, is_fake = helper.parse_arguments(argv.split())
    config = parse.build(given)
    assert (config.source.host, config.source.user, config.source.path) == ("h", "u", b"/p")
    assert config.mount.mountpoint == "/mnt"
    assert config.mount.read_only is is_read_only
    assert is_fake is fake


def test_nobody_is_asked_and_the_connection_is_not_waited_for_long() -> None:
    given, _ = helper.parse_arguments(["h:", "/mnt", "-o", "rw"])
    config = parse.build(given)
    assert config.ssh.keywords["batchmode"] == ("yes",)
    assert config.ssh.connect_timeout_s == 10
    given, _ = helper.parse_arguments(["h:", "/mnt", "-o", "ConnectTimeout=3,batchmode=no"])
    config = parse.build(given)
    assert config.ssh.keywords["batchmode"] == ("no",)
    assert config.ssh.connect_timeout_s == 3


def test_remount_is_recognised() -> None:
    given, _ = helper.parse_arguments(["h:", "/mnt", "-o", "ro,remount"])
    assert "remount" in given.words


@pytest.mark.parametrize("argv", [[], ["h:"], ["h:", "/mnt", "x"], ["h:", "/m", "-Z"], ["-o"]])
def test_wrong_use_is_named(argv: list[str]) -> None:
    with pytest.raises(UsageError):
        helper.parse_arguments(argv)


def test_errors_end_with_mount_s_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert helper.main("mount.netfs", ["h:", "/mnt", "-o", "magic"]) == 1
    assert capsys.readouterr().err.startswith("mount.netfs: unknown option 'magic'")
    assert helper.main("umount.fuse.netfs", ["/nowhere", "-n"]) == 32
