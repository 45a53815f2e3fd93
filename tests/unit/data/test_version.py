"""When two looks at a file prove that it did not change."""

from __future__ import annotations

import pytest

from netfs.client.data.version import is_trusted, version_of
from netfs.sftp.attrs import Attrs

NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("mtime", "trusted"),
    [(NOW - 100, True), (NOW - 3, True), (NOW - 1, False), (NOW, False), (NOW + 50, False)],
)
def test_whole_seconds_are_trusted_when_they_are_past(mtime, trusted):
    assert is_trusted(version_of(Attrs(size=1, mtime=int(mtime))), NOW) is trusted


@pytest.mark.parametrize(("age_s", "trusted"), [(10.0, True), (0.2, True), (0.01, False)])
def test_nanoseconds_are_trusted_sooner(age_s, trusted):
    attrs = Attrs(size=1, mtime=int(NOW), ctime_ns=int((NOW - age_s) * 1e9))
    assert is_trusted(version_of(attrs), NOW) is trusted


def test_a_server_without_times_is_never_trusted():
    assert not is_trusted(version_of(Attrs(size=1)), NOW)


@pytest.mark.parametrize(
    "change",
    [{"size": 2}, {"mtime": 5}, {"ino": 9}, {"mtime_ns": 7}, {"ctime_ns": 8}],
)
def test_any_difference_is_another_version(change):
    attrs = Attrs(size=1, mtime=4, ino=3, mtime_ns=1, ctime_ns=2)
    assert version_of(attrs) != version_of(attrs._replace(**change))


def test_owner_and_mode_are_no_content():
    attrs = Attrs(size=1, mtime=4)
    assert version_of(attrs) == version_of(attrs._replace(mode=0o644, uid=1, atime=9))
