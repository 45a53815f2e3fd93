"""Which file counts as the same after a reconnect."""

import pytest

from netfs.client.remote.opened import OpenedFile, OpenedFiles, touches_version
from netfs.sftp.attrs import Attrs

FILE = Attrs(size=100, mode=0o100644, mtime=50)


def test_an_untouched_file_must_be_exactly_as_it_was() -> None:
    file = OpenedFile(b"/f", FILE)
    assert file.fits(FILE)
    assert not file.fits(FILE._replace(size=101))
    assert not file.fits(FILE._replace(mtime=51))
    assert not file.fits(FILE._replace(mode=0o040755))
    assert not file.fits(Attrs(mode=0o100644))


def test_an_inode_number_decides_where_it_is_told() -> None:
    file = OpenedFile(b"/f", FILE._replace(ino=7))
    assert file.fits(FILE._replace(ino=7, size=5, mtime=1))
    assert not file.fits(FILE._replace(ino=8))


def test_a_write_under_way_may_have_arrived_or_not() -> None:
    file = OpenedFile(b"/f", FILE)
    file.write_begun(200)
    for size in (100, 150, 200):
        assert file.fits(FILE._replace(size=size, mtime=60))
    assert not file.fits(FILE._replace(size=201, mtime=60))
    assert not file.fits(FILE._replace(size=99, mtime=60))
    assert not file.fits(FILE._replace(mtime=49))
    file.write_ended(200, done=True)
    assert not file.fits(FILE._replace(size=150, mtime=60))
    file.learn(FILE._replace(size=200, mtime=60))
    assert not file.fits(FILE._replace(size=200, mtime=61))


def test_what_is_learned_during_a_write_widens_the_range() -> None:
    file = OpenedFile(b"/f", FILE)
    file.write_begun(200)
    file.learn(FILE._replace(size=300, mtime=60))
    assert file.size_high == 300
    assert file.fits(FILE._replace(size=300, mtime=61))


def test_a_truncate_under_way_may_have_happened_or_not() -> None:
    file = OpenedFile(b"/f", FILE)
    file.change_begun(Attrs(size=10))
    assert file.fits(FILE)
    assert file.fits(FILE._replace(size=10, mtime=70))
    file.change_ended(Attrs(size=10), done=True)
    assert not file.fits(FILE)
    assert file.fits(FILE._replace(size=10, mtime=70))


@pytest.mark.parametrize("change", [Attrs(mtime=5), Attrs(mtime_ns=5_000_000_001)])
def test_a_time_that_was_set_is_exact_again(change: Attrs) -> None:
    file = OpenedFile(b"/f", FILE)
    file.change_begun(change)
    assert file.fits(FILE)
    assert file.fits(FILE._replace(mtime=5))
    file.change_ended(change, done=True)
    assert file.fits(FILE._replace(mtime=5))
    assert not file.fits(FILE)


def test_a_refused_change_leaves_both_possible() -> None:
    file = OpenedFile(b"/f", FILE)
    file.change_begun(Attrs(mtime=5))
    file.change_ended(Attrs(mtime=5), done=False)
    assert file.fits(FILE)


def test_only_size_and_time_touch_the_version() -> None:
    assert touches_version(Attrs(size=0))
    assert touches_version(Attrs(mtime_ns=0))
    assert not touches_version(Attrs(mode=0o600, uid=1, gid=1, atime_ns=1))


def test_handles_of_one_file_share_what_is_known() -> None:
    files = OpenedFiles()
    one = files.attach(b"/f", FILE, truncated=False)
    assert files.attach(b"/f", FILE, truncated=False) is one
    other = files.attach(b"/f", FILE._replace(size=5), truncated=False)
    assert other is not one  # somebody put another file there
    files.detach(one)
    files.detach(one)
    files.detach(other)
    assert not files.by_name


def test_names_follow_renames_and_removals_made_here() -> None:
    files = OpenedFiles()
    deep = files.attach(b"/d/e/f", FILE, truncated=False)
    near = files.attach(b"/de", FILE, truncated=False)
    over = files.attach(b"/x", FILE, truncated=False)
    files.renamed(b"/d", b"/x")
    assert deep.path == b"/x/e/f"
    assert near.path == b"/de"
    assert over.is_removed
    files.renamed(b"/de", b"/de")
    assert not near.is_removed
    files.removed(b"/de")
    assert near.is_removed


def test_a_file_with_several_names_is_gone_with_the_last() -> None:
    files = OpenedFiles()
    file = files.attach(b"/d/a", FILE, truncated=False)
    files.also(b"/d/a", b"/d/b")
    files.also(b"/d/b", b"/d/b")
    assert file.names == (b"/d/a", b"/d/b")
    assert list(files.at(b"/d/b")) == [file]
    files.renamed(b"/d", b"/e")
    assert file.names == (b"/e/a", b"/e/b")
    files.renamed(b"/e/b", b"/c")
    files.removed(b"/e/a")
    assert file.names == (file.path,) == (b"/c",)
    files.removed(b"/c")
    assert file.is_removed
    assert file.names == ()


def test_a_rename_between_two_names_of_one_file_leaves_one() -> None:
    files = OpenedFiles()
    file = files.attach(b"/a", FILE, truncated=False)
    files.also(b"/a", b"/b")
    files.renamed(b"/a", b"/b")
    assert file.names == (b"/b",)


def test_a_rename_that_is_known_late_does_not_touch_what_has_changed_since() -> None:
    files = OpenedFiles()
    moved = files.attach(b"/a", FILE, truncated=False)
    target = files.attach(b"/b", FILE._replace(size=7), truncated=False)
    late = files.affected(b"/a", b"/b")
    files.renamed(b"/a", b"/b")  # the caller tried again
    files.renamed(b"/b", b"/c")
    files.apply(late)
    assert moved.names == (b"/c",)
    assert target.is_removed


@pytest.mark.parametrize("how", ["truncate", "open"])
def test_a_write_that_a_cut_may_have_undone_says_nothing_of_the_size(how: str) -> None:
    file = OpenedFile(b"/f", FILE)
    file.write_begun(200)
    if how == "truncate":
        file.change_begun(Attrs(size=0))
        file.change_ended(Attrs(size=0), done=True)
    else:
        file.cut()
    file.write_ended(200, done=True)
    for size in (0, 200):
        assert file.fits(FILE._replace(size=size, mtime=60))
    file.write_begun(300)
    file.write_ended(300, done=True)
    assert not file.fits(FILE._replace(size=200, mtime=60))
