"""mountinfo is read as the kernel writes it."""

from __future__ import annotations

import pytest

from netfs.supervisor import fusectl, mounts

LINES = [
    "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n",
    "40 22 0:45 / /mnt/with\\040space rw,nosuid - fuse.netfs u@h:/a\\040b rw,user_id=0\n",
    "41 22 0:46 / /mnt/x rw shared:9 master:2 - fuse.netfs u@h: rw\n",
    "42 41 0:47 / /mnt/x rw - fuse.netfs u@h: rw\n",
    "nonsense\n",
    "43 22 0:9 / /mnt/y rw -\n",
]


def test_fields_and_escapes() -> None:
    found = list(mounts.parse(LINES))
    assert len(found) == 4
    assert found[1].point == "/mnt/with space"
    assert found[1].source == "u@h:/a b"
    assert (found[1].major, found[1].minor) == (0, 45)
    assert found[1].is_fuse
    assert not found[0].is_fuse


def test_the_topmost_mount_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounts, "table", lambda: list(mounts.parse(LINES)))
    found = mounts.find("/mnt/x")
    assert found is not None
    assert found.minor == 47
    assert mounts.find("/mnt/z") is None


@pytest.mark.parametrize(
    ("path", "point", "below"),
    [
        ("/mnt/x/log", "/mnt/x", True),
        ("/mnt/x", "/mnt/x", True),
        ("/mnt/xy", "/mnt/x", False),
        ("/", "/mnt/x", False),
    ],
)
def test_what_lies_below_a_mountpoint(path: str, point: str, below: bool) -> None:
    assert mounts.is_below(path, point) is below


def test_an_unknown_connection_can_be_neither_counted_nor_aborted() -> None:
    control = fusectl.Control(1 << 20)
    try:
        assert control.waiting() is None
        assert not control.abort()
    finally:
        control.close()
