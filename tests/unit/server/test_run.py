"""Binding addresses."""

from __future__ import annotations

import socket

import pytest

from netfs.server import run


def test_all_addresses_means_the_families_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "_has_ipv6", lambda: False)
    sockets = run._bind("", 0)
    assert [sock.family for sock in sockets] == [socket.AF_INET]
    sockets[0].close()


def test_a_port_in_use_is_one_clear_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(run.StartError, match=f"cannot listen on 127.0.0.1:{port}: Address"):
            run._bind("127.0.0.1", port)


def test_an_unknown_user_is_one_clear_line() -> None:
    with pytest.raises(run.StartError, match="no-such-user"):
        run.become("no-such-user")
