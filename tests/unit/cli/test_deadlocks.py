"""Configurations that would make netfs wait for itself are refused."""

from __future__ import annotations

import pytest

from netfs.cli import mount, parse


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ("log_file=/mnt/x/log", "log_file"),
        ("rescue_dir=/mnt/x/rescue", "rescue_dir"),
        ("runtime_dir=/mnt/x/run", "runtime_dir"),
        ("IdentityFile=/mnt/x/.ssh/id", "identityfile"),
        ("CertificateFile=/mnt/x/cert", "certificatefile"),
        ("UserKnownHostsFile=/a /mnt/x/known", "userknownhostsfile"),
        ("IdentityAgent=/mnt/x/agent", "identityagent"),
    ],
)
def test_a_file_below_the_mountpoint_is_named(options: str, what: str) -> None:
    config = parse.build(parse.parse_arguments(["host:", "/mnt/x", "-o", options]))
    problem = mount.self_deadlock(config)
    assert problem is not None
    assert problem.startswith(what)


def test_so_is_the_agent_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", "/mnt/x/agent")
    config = parse.build(parse.parse_arguments(["host:", "/mnt/x"]))
    assert "SSH_AUTH_SOCK" in str(mount.self_deadlock(config))


def test_what_lies_beside_it_is_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", "/mnt/xy/agent")
    words = ["host:", "/mnt/x", "-F", "none", "-o", "log_file=/mnt/xy/log,IdentityFile=~/.ssh/id"]
    assert mount.self_deadlock(parse.build(parse.parse_arguments(words))) is None
