"""Whose files are, both ways: the table of idmap is tested totally."""

from __future__ import annotations

import errno
import os
import stat

import pytest

from netfs.client.config import IdentityConfig
from netfs.client.identity import Identity, Login, Owner, ask_login
from tests.fakes.remote import FakeRemote

REG, DIR, LNK = stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK


ALICE = Login(1000, 1001)


def make(login: Login | None = ALICE, *, shared: bool = False, **config) -> Identity:
    return Identity(
        IdentityConfig(**config), local_uid=501, local_gid=502, login=login, shared=shared
    )


@pytest.mark.parametrize(
    ("config", "remote", "shown"),
    [
        ({"idmap": "none"}, (1000, 1001), (1000, 1001)),
        ({"idmap": "none"}, (0, 0), (0, 0)),
        ({"idmap": "user"}, (1000, 1001), (501, 502)),
        ({"idmap": "user"}, (7, 1001), (7, 502)),
        ({"idmap": "file", "nomap": "ignore", "uid_map": {1000: 9}}, (1000, 8), (9, 8)),
        ({"idmap": "none", "uid": 3}, (1000, 1001), (3, 1001)),
        ({"idmap": "user", "gid": 4}, (1000, 1001), (501, 4)),
        ({}, (None, None), (501, 502)),
    ],
)
def test_owners_are_shown(config, remote, shown):
    identity = make(**config)
    assert (identity.uid(remote[0]), identity.gid(remote[1])) == shown


def test_unmapped_owners_are_an_error_if_asked_for():
    identity = make(idmap="file", uid_map={1000: 9}, gid_map={1001: 8})
    assert identity.uid(1000) == 9
    assert identity.remote_uid(9) == 1000
    assert identity.remote_gid(8) == 1001
    for attempt in (identity.uid, identity.gid, identity.remote_uid, identity.remote_gid):
        with pytest.raises(OSError, match=os.strerror(errno.EPERM)):
            attempt(77)


def test_owners_are_mapped_back():
    identity = make()
    assert (identity.remote_uid(501), identity.remote_gid(502)) == (1000, 1001)
    assert (identity.remote_uid(7), identity.remote_gid(7)) == (7, 7)


def test_nothing_is_mapped_until_the_login_is_known():
    identity = make(None)
    assert identity.uid(1000) == 1000
    identity.set_login(Login(1000, 1001))
    assert identity.uid(1000) == 501


@pytest.mark.parametrize(
    ("config", "remote", "shown"),
    [
        ({}, REG | 0o4755, REG | 0o4755),
        ({"umask": 0o022}, REG | 0o600, REG | 0o755),
        ({"umask": 0o022}, LNK | 0o777, LNK | 0o777),
        ({"fmask": 0o133}, REG | 0o777, REG | 0o644),
        ({"fmask": 0o133}, DIR | 0o700, DIR | 0o700),
        ({"dmask": 0o077}, DIR | 0o755, DIR | 0o700),
        ({"dmask": 0o077}, REG | 0o755, REG | 0o755),
        ({"umask": 0o077, "fmask": 0}, REG | 0o600, REG | 0o777),
    ],
)
def test_modes_are_shown(config, remote, shown):
    assert make(**config).mode(remote) == shown


@pytest.mark.parametrize(
    ("login", "shared", "caller", "setgid", "made", "wanted"),
    [
        (Login(0, 0), True, (5, 6), False, 0, Owner(5, 6)),
        (Login(0, 0), True, (5, 6), False, None, Owner(5, 6)),
        (Login(0, 0), True, (5, 6), True, 0, Owner(5, None)),
        (Login(0, 0), True, (501, 502), False, 0, None),  # the mount's owner is root there
        (Login(0, 0), True, (5, 6), False, 1000, None),  # only its directory is root's
        (Login(0, 0), False, (5, 6), False, 0, None),
        (Login(1000, 1000), True, (5, 6), False, 1000, None),
        (None, True, (5, 6), False, 0, None),
    ],
)
def test_what_is_created_is_given_away_only_by_root(login, shared, caller, setgid, made, wanted):
    assert make(login, shared=shared).creator(*caller, setgid, made) == wanted


def test_who_makes_somebody_elses_files_is_not_root():
    identity = make(Login(0, 0))
    identity.creator(0, 0, False, 0)
    assert identity.may(os.W_OK, 1, 1, REG) is True
    identity.creator(0, 0, False, 1000)
    assert identity.may(os.W_OK, 1, 1, REG) is None
    identity.set_login(Login(0, 0))
    assert identity.may(os.W_OK, 1, 1, REG) is True


@pytest.mark.parametrize(
    ("login", "mask", "owner", "group", "mode", "allowed"),
    [
        (None, os.R_OK, 1, 1, REG | 0o777, None),
        (Login(0, 0), os.W_OK, 1, 1, REG | 0o000, True),
        (Login(0, 0), os.X_OK, 1, 1, REG | 0o000, False),
        (Login(0, 0), os.X_OK, 1, 1, REG | 0o001, True),
        (Login(0, 0), os.X_OK, 1, 1, DIR | 0o000, True),
        (Login(1, 1), os.R_OK, 1, 9, REG | 0o400, True),
        (Login(1, 1), os.R_OK, 1, 9, REG | 0o077, False),
        (Login(1, 1), os.R_OK, 9, 1, REG | 0o040, True),
        (Login(1, 1), os.R_OK, 9, 1, REG | 0o404, False),
        (Login(1, 1), os.R_OK, 9, 9, REG | 0o044, True),
        (Login(1, 1), os.R_OK, 9, 9, REG | 0o700, False),
        (Login(1, 1), os.R_OK, 9, 9, REG | 0o740, None),
        (Login(1, 1), os.R_OK, None, 9, REG | 0o777, None),
    ],
)
def test_access_is_judged_as_the_server_will(login, mask, owner, group, mode, allowed):
    assert make(login).may(mask, owner, group, mode) is allowed


async def test_the_login_is_the_owner_of_the_login_directory():
    remote = FakeRemote()
    remote.root.uid, remote.root.gid = 12, 13
    assert await ask_login(remote) == Login(12, 13)
    remote.fail_next("stat", errno.ENOENT)
    assert await ask_login(remote) is None
