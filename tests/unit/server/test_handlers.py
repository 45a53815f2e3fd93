"""The table of requests: total, read-only mode, and what each does."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path
from typing import Any

import pytest

from netfs.server import attributes, handlers, kernel
from netfs.sftp import extensions, requests
from netfs.sftp.attrs import Attrs
from netfs.sftp.codes import OpenFlag, PacketType, Status
from netfs.sftp.connection import Asked, Init, Malformed, Unknown
from netfs.sftp.responses import (
    AttrsResponse,
    Data,
    ExtendedReply,
    Handle,
    Name,
    StatusResponse,
)
from tests.unit.server.tree import CREATE, INSIDE, READ, Tree, errno_name, make_tree


@pytest.fixture(params=["openat2", "walk"])
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    made = make_tree(tmp_path, request.param)
    yield made
    made.client.handles.close_all()


def ok(response: Any) -> None:
    assert response == StatusResponse(Status.OK, b"Success")


def test_every_request_and_extension_has_a_row() -> None:
    assert set(handlers.ROWS) == set(requests.REQUESTS)
    assert set(handlers.OFFERED) == {row.name for row in extensions.EXTENSIONS.values()}


WRITING = {
    requests.Write: (b"h", 0, (b"x",)),
    requests.Setstat: (b"/file", Attrs(mode=0)),
    requests.Fsetstat: (b"h", Attrs(mode=0)),
    requests.Remove: (b"/file",),
    requests.Mkdir: (b"/new", Attrs()),
    requests.Rmdir: (b"/sub/deep",),
    requests.Rename: (b"/file", b"/other"),
    requests.Symlink: (b"target", b"/new"),
    extensions.PosixRename: (b"/file", b"/other"),
    extensions.Hardlink: (b"/file", b"/other"),
    extensions.Lsetstat: (b"/file", Attrs(mode=0)),
    extensions.CopyData: (b"h", 0, 0, b"h", 0),
}


def test_what_writes_is_what_changes_the_disk() -> None:
    writing = {kind for kind, row in handlers.ROWS.items() if row.writes is True}
    assert writing == set(WRITING)
    assert callable(handlers.ROWS[requests.Open].writes)


@pytest.mark.parametrize("kind", WRITING, ids=lambda kind: kind.__name__)
def test_a_read_only_export_refuses_what_writes(tmp_path: Path, kind: type) -> None:
    tree = make_tree(tmp_path, read_only=True)
    response = tree.ask(kind(*WRITING[kind]))
    assert isinstance(response, StatusResponse)
    assert response.code == Status.PERMISSION_DENIED
    assert errno_name(response) == "EROFS"


@pytest.mark.parametrize("pflags", range(64))
def test_a_read_only_export_opens_for_reading_only(tmp_path: Path, pflags: int) -> None:
    tree = make_tree(tmp_path, read_only=True)
    response = tree.ask(requests.Open(b"/file", pflags, Attrs()))
    harmless = not pflags & ~(OpenFlag.READ | OpenFlag.EXCL)
    assert isinstance(response, Handle) == harmless
    assert (tree.root / "file").read_bytes() == INSIDE
    tree.client.handles.close_all()


def test_the_conversation_is_answered_in_its_own_types(tree: Tree) -> None:
    def packet_type(event: handlers.Event) -> int:
        return bytes(handlers.answer(tree.client, event)[0])[4]

    assert packet_type(Init(3)) == PacketType.VERSION
    assert packet_type(Asked(1, requests.Stat(b"/file"))) == PacketType.ATTRS
    assert packet_type(Malformed(1, "short")) == PacketType.STATUS
    assert packet_type(Unknown(1, 99)) == PacketType.STATUS


def test_an_unforeseen_error_is_answered_and_logged(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(self: object, path: bytes) -> None:
        raise RuntimeError("bug")

    monkeypatch.setattr(type(tree.client.export), "stat", broken)
    response = tree.ask(requests.Stat(b"/file"))
    assert response == StatusResponse(Status.FAILURE, b"internal error of the server")
    assert "bug" in caplog.text


def test_a_file_is_written_read_and_truncated(tree: Tree) -> None:
    handle = tree.open(b"/new", CREATE)
    ok(tree.ask(requests.Write(handle, 3, (memoryview(b"abc"), b"def"))))
    assert tree.ask(requests.Read(handle, 0, 1000)) == Data(b"\0\0\0abcdef")
    assert tree.ask(requests.Read(handle, 0, 0)) == Data(b"")
    response = tree.ask(requests.Read(handle, 9, 10))
    assert isinstance(response, StatusResponse)
    assert response.code == Status.EOF
    ok(tree.ask(requests.Fsetstat(handle, Attrs(size=4))))
    ok(tree.ask(extensions.Fsync(handle)))
    ok(tree.ask(requests.Close(handle)))
    assert (tree.root / "new").read_bytes() == b"\0\0\0a"
    ok(tree.ask(requests.Setstat(b"/new", Attrs(size=1))))
    assert (tree.root / "new").stat().st_size == 1


def test_a_long_read_gets_what_limits_says(tree: Tree) -> None:
    (tree.root / "big").write_bytes(bytes(600_000))
    handle = tree.open(b"/big")
    response = tree.ask(requests.Read(handle, 0, 0xFFFF_FFFF))
    assert isinstance(response, Data)
    assert len(response.data) == 256 * 1024


def test_appending_ignores_the_offset(tree: Tree) -> None:
    handle = tree.open(b"/file", OpenFlag.WRITE | OpenFlag.APPEND)
    ok(tree.ask(requests.Write(handle, 0, (b"more",))))
    assert (tree.root / "file").read_bytes() == INSIDE + b"more"


@pytest.mark.parametrize(
    ("pflags", "name"),
    [
        (OpenFlag.WRITE | OpenFlag.CREAT | OpenFlag.EXCL, "EEXIST"),
        (OpenFlag.WRITE | OpenFlag.CREAT | OpenFlag.TRUNC, ""),
        (OpenFlag.READ, ""),
        (0, ""),
    ],
)
def test_open_flags_mean_what_open_means(tree: Tree, pflags: int, name: str) -> None:
    assert errno_name(tree.ask(requests.Open(b"/file", pflags, Attrs()))) == name
    assert (tree.root / "file").stat().st_size == (0 if pflags & OpenFlag.TRUNC else len(INSIDE))


def test_a_created_file_gets_its_mode(tree: Tree) -> None:
    old = os.umask(0o027)
    try:
        tree.ask(requests.Open(b"/new", CREATE, Attrs(mode=0o100666)))
        tree.ask(requests.Mkdir(b"/dir", Attrs(mode=0o40777)))
    finally:
        os.umask(old)
    assert stat.S_IMODE((tree.root / "new").stat().st_mode) == 0o640
    assert stat.S_IMODE((tree.root / "dir").stat().st_mode) == 0o750


@pytest.mark.parametrize("offset", [2**63, 2**64 - 1])
def test_an_impossible_offset_is_an_error(tree: Tree, offset: int) -> None:
    handle = tree.open(b"/file", READ | OpenFlag.WRITE)
    for request in (
        requests.Read(handle, offset, 1),
        requests.Write(handle, offset, (b"x",)),
        requests.Fsetstat(handle, Attrs(size=offset)),
        requests.Setstat(b"/file", Attrs(size=offset)),
        extensions.CopyData(handle, offset, 1, handle, 0),
        extensions.CopyData(handle, 0, 1, handle, offset),
    ):
        assert errno_name(tree.ask(request)) in ("EINVAL", "EFBIG")


def test_attributes_are_true(tree: Tree) -> None:
    os.utime(tree.root / "file", ns=(1_500_000_000_123_456_789, 1_600_000_000_987_654_321))
    os.link(tree.root / "file", tree.root / "again")
    st = (tree.root / "file").stat()
    response = tree.ask(requests.Lstat(b"/file"))
    assert response == AttrsResponse(
        Attrs(
            st.st_size, st.st_uid, st.st_gid, st.st_mode, 1_500_000_000, 1_600_000_000,
            2, st.st_ino, st.st_blocks, 1_500_000_000_123_456_789, 1_600_000_000_987_654_321,
            st.st_ctime_ns,
        )
    )  # fmt: skip


@pytest.mark.parametrize(("seconds", "told"), [(-5, 0), (2**33, 2**32 - 1), (7, 7)])
def test_times_beyond_32_bits_are_the_nearest(tree: Tree, seconds: int, told: int) -> None:
    os.utime(tree.root / "file", (seconds, seconds))
    if (tree.root / "file").stat().st_mtime != seconds:
        pytest.skip("this file system has no such time")
    response = tree.ask(requests.Stat(b"/file"))
    assert isinstance(response, AttrsResponse)
    assert response.attrs.mtime == told
    assert response.attrs.mtime_ns == seconds * 10**9


def test_other_devices_get_inodes_of_their_own() -> None:
    st = os.stat("/proc/self/stat")
    here = attributes.from_stat(st, st.st_dev).ino
    there = attributes.from_stat(st, st.st_dev + 1).ino
    assert here == st.st_ino
    assert there is not None
    assert there != here
    assert 0 <= there < 2**64


def test_setstat_follows_and_lsetstat_does_not(tree: Tree) -> None:
    times = Attrs(atime=5, mtime=6)
    before = (tree.root / "within").lstat().st_mtime
    ok(tree.ask(requests.Setstat(b"/within", times)))
    assert (tree.root / "sub" / "file").stat().st_mtime == 6
    assert (tree.root / "within").lstat().st_mtime == before
    ok(tree.ask(extensions.Lsetstat(b"/within", Attrs(atime_ns=7, mtime_ns=8_000_000_001))))
    assert (tree.root / "within").lstat().st_mtime_ns == 8_000_000_001
    assert (tree.root / "sub" / "file").stat().st_mtime == 6
    assert errno_name(tree.ask(extensions.Lsetstat(b"/within", Attrs(mode=0o600)))) == "EOPNOTSUPP"
    assert errno_name(tree.ask(extensions.Lsetstat(b"/within", Attrs(size=0)))) == "ELOOP"


def test_setstat_sets_mode_and_owner(tree: Tree) -> None:
    st = (tree.root / "file").stat()
    ok(tree.ask(requests.Setstat(b"/file", Attrs(mode=0o100604, uid=st.st_uid, gid=st.st_gid))))
    assert stat.S_IMODE((tree.root / "file").stat().st_mode) == 0o604
    ok(tree.ask(requests.Setstat(b"/file", Attrs())))
    assert errno_name(tree.ask(requests.Setstat(b"/nothing", Attrs()))) == "ENOENT"


def test_one_time_alone_keeps_the_other(tree: Tree) -> None:
    os.utime(tree.root / "file", ns=(1, 2))
    ok(tree.ask(requests.Setstat(b"/file", Attrs(mtime_ns=9))))
    st = (tree.root / "file").stat()
    assert (st.st_atime_ns, st.st_mtime_ns) == (1, 9)


def test_modes_are_set_without_fchmodat2(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "_SYS_FCHMODAT2", 100_000)  # ENOSYS, as before Linux 6.6
    ok(tree.ask(requests.Setstat(b"/within", Attrs(mode=0o600))))
    assert stat.S_IMODE((tree.root / "sub" / "file").stat().st_mode) == 0o600
    assert errno_name(tree.ask(extensions.Lsetstat(b"/within", Attrs(mode=0o600)))) == "EOPNOTSUPP"


def test_rename_never_replaces_and_posix_rename_does(tree: Tree) -> None:
    (tree.root / "other").write_bytes(b"old")
    assert errno_name(tree.ask(requests.Rename(b"/file", b"/other"))) == "EEXIST"
    ok(tree.ask(extensions.PosixRename(b"/file", b"/other")))
    assert (tree.root / "other").read_bytes() == INSIDE
    ok(tree.ask(requests.Rename(b"/other", b"/file")))
    assert errno_name(tree.ask(requests.Rename(b"/nothing", b"/x"))) == "ENOENT"
    assert errno_name(tree.ask(requests.Rename(b"/", b"/x"))) == "EBUSY"


@pytest.mark.parametrize("what", ["file", "sub", "abs"])
def test_rename_without_renameat2_never_replaces_either(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    def unknown(*arguments: object) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(kernel, "rename_noreplace", unknown)
    ok(tree.ask(requests.Rename(f"/{what}".encode(), b"/moved")))
    assert os.path.lexists(tree.root / "moved")
    assert not os.path.lexists(tree.root / what)
    (tree.root / "other").mkdir()
    assert errno_name(tree.ask(requests.Rename(b"/moved", b"/other"))) == "EEXIST"


def test_links_directories_and_removal(tree: Tree) -> None:
    ok(tree.ask(extensions.Hardlink(b"/file", b"/hard")))
    assert (tree.root / "hard").stat().st_nlink == 2
    ok(tree.ask(requests.Symlink(b"../any where", b"/soft")))
    assert os.readlink(tree.root / "soft") == "../any where"
    ok(tree.ask(requests.Remove(b"/soft")))
    ok(tree.ask(requests.Mkdir(b"/d/", Attrs())))
    assert errno_name(tree.ask(requests.Mkdir(b"/d", Attrs()))) == "EEXIST"
    assert errno_name(tree.ask(requests.Remove(b"/d"))) == "EISDIR"
    assert errno_name(tree.ask(requests.Remove(b"/file/"))) == "ENOTDIR"
    ok(tree.ask(requests.Rmdir(b"/d/")))
    assert errno_name(tree.ask(requests.Rmdir(b"/sub"))) == "ENOTEMPTY"
    assert errno_name(tree.ask(requests.Rmdir(b"/"))) == "EBUSY"
    assert errno_name(tree.ask(requests.Mkdir(b"/", Attrs()))) == "EEXIST"
    assert errno_name(tree.ask(requests.Readlink(b"/file"))) == "EINVAL"
    assert errno_name(tree.ask(requests.Symlink(b"a\0b", b"/nul"))) == "EINVAL"


def listing(tree: Tree, path: bytes) -> list[Any]:
    opened = tree.ask(requests.Opendir(path))
    assert isinstance(opened, Handle), opened
    entries: list[Any] = []
    while isinstance(response := tree.ask(requests.Readdir(opened.handle)), Name):
        assert response.entries
        entries += response.entries
    assert response == StatusResponse(Status.EOF, b"End of file")
    ok(tree.ask(requests.Close(opened.handle)))
    return entries


def test_a_listing_has_every_name_once_with_its_attributes(tree: Tree) -> None:
    (tree.root / "many").mkdir()
    names = (
        {b".", b".."} | {b"n%04d" % number for number in range(1200)} | {b"\xff\xfe", b"x" * 255}
    )
    for name in names - {b".", b".."}:
        open(os.fsencode(tree.root / "many") + b"/" + name, "wb").close()
    entries = listing(tree, b"/many")
    assert len(entries) == len(names)
    assert {entry.filename for entry in entries} == names
    for entry in entries:
        if entry.filename == b"n0007":
            st = (tree.root / "many" / "n0007").stat()
            assert entry.attrs == attributes.from_stat(st, st.st_dev)
            assert entry.longname.split()[1] == b"1"
            assert entry.longname.endswith(b" n0007")


def test_a_listing_does_not_follow_links_nor_tell_of_the_parent(tree: Tree) -> None:
    entries = {entry.filename: entry.attrs for entry in listing(tree, b"/")}
    assert stat.S_ISLNK(entries[b"abs"].mode)
    assert entries[b".."].ino == tree.root.stat().st_ino


def test_longnames_show_time_or_year() -> None:
    st = os.stat("/")
    now = time.time()
    entry = attributes.Entry(b"n", os.stat_result((*st[:8], now - 86400, 0)))
    assert b":" in attributes.longname(entry, attributes.Names(), now)
    old = attributes.Entry(b"n", os.stat_result((*st[:8], 86400 * 400, 0)))
    assert b" 1971 n" in attributes.longname(old, attributes.Names(), now)


def test_statvfs_and_limits(tree: Tree) -> None:
    st = os.statvfs(tree.root)
    response = tree.ask(extensions.StatvfsRequest(b"/sub"))
    assert isinstance(response, ExtendedReply)
    told = extensions.decode_statvfs(response.data)
    assert (told.bsize, told.frsize, told.blocks, told.namemax) == (
        st.f_bsize, st.f_frsize, st.f_blocks, st.f_namemax,
    )  # fmt: skip
    handle = tree.open(b"/file")
    assert isinstance(tree.ask(extensions.FstatvfsRequest(handle)), ExtendedReply)
    limits = tree.ask(extensions.LimitsRequest())
    assert isinstance(limits, ExtendedReply)
    assert extensions.decode_limits(limits.data) == (263168, 262144, 262144, 64)


def test_home_is_the_root_for_oneself_only(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, user="anna")
    for name in (b"", b"anna"):
        response = tree.ask(extensions.HomeDirectory(name))
        assert isinstance(response, Name)
        assert response.entries[0].filename == b"/"
    assert errno_name(tree.ask(extensions.HomeDirectory(b"root"))) == "ENOENT"
    for path, expected in (
        (b"~", b"/"),
        (b"~/sub", b"/sub"),
        (b"~anna/sub", b"/sub"),
        (b"sub", b"/sub"),
    ):
        response = tree.ask(extensions.ExpandPath(path))
        assert isinstance(response, Name), path
        assert response.entries[0].filename == expected
    assert errno_name(tree.ask(extensions.ExpandPath(b"~root/x"))) == "ENOENT"


def test_names_of_ids(tree: Tree) -> None:
    response = tree.ask(extensions.UsersGroupsById((0, 4_000_000_000), (0,)))
    assert isinstance(response, ExtendedReply)
    assert extensions.decode_users_groups(response.data, 2, 1) == ((b"root", b""), (b"root",))
    assert errno_name(tree.ask(extensions.UsersGroupsById((1,) * 1025, ()))) == "EINVAL"


def test_attrs_netfs_is_spoken_once_asked_for(tree: Tree) -> None:
    def size() -> int:
        return len(handlers.answer(tree.client, Asked(1, requests.Stat(b"/file")))[0])

    plain = size()
    assert errno_name(tree.ask(extensions.AttrsNetfs(2))) == "EOPNOTSUPP"
    assert size() == plain
    ok(tree.ask(extensions.AttrsNetfs(1)))
    assert size() > plain
    assert errno_name(tree.ask(extensions.Extended(b"x@y", b""))) == "EOPNOTSUPP"


@pytest.mark.parametrize("by_hand", [False, True])
def test_copy_data(tree: Tree, monkeypatch: pytest.MonkeyPatch, by_hand: bool) -> None:
    if by_hand:
        monkeypatch.delattr(os, "copy_file_range")

        def unknown(*arguments: object) -> int:
            raise OSError(18, "Invalid cross-device link")

        monkeypatch.setattr(os, "copy_file_range", unknown, raising=False)
    content = os.urandom(3 << 20)
    (tree.root / "from").write_bytes(content)
    source = tree.open(b"/from")
    dest = tree.open(b"/to", CREATE)
    ok(tree.ask(extensions.CopyData(source, 0, 0, dest, 0)))
    assert (tree.root / "to").read_bytes() == content
    ok(tree.ask(extensions.CopyData(source, 10, 5, dest, 1)))
    assert (tree.root / "to").read_bytes()[:7] == content[:1] + content[10:15] + content[6:7]
    ok(tree.ask(extensions.CopyData(source, len(content) + 5, 0, dest, 0)))
    overlap = tree.open(b"/to", READ | OpenFlag.WRITE)
    assert errno_name(tree.ask(extensions.CopyData(overlap, 0, 100, dest, 50))) == "EINVAL"
    tree.client.gone = True
    assert errno_name(tree.ask(extensions.CopyData(source, 0, 0, dest, 0))) == "ECANCELED"


def test_requests_are_logged_without_contents(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tree = make_tree(tmp_path, log_requests=True, label="7.1")
    caplog.set_level("INFO", logger="netfs.server.requests")
    handle = tree.open(b"/file", READ | OpenFlag.WRITE)
    for request in (
        requests.Write(handle, 0, (b"password123",)),
        requests.Stat(b"/new\nline"),
        requests.Read(handle, 0, 10),
        requests.Setstat(b"/file", Attrs(mode=0o600)),
    ):
        handlers.answer(tree.client, Asked(5, request))
    assert "session=7.1 id=5 type=Write" in caplog.text
    assert "length=11" in caplog.text
    assert "password123" not in caplog.text
    assert "'/new\\nline'" in caplog.text
    assert "outcome='No such file or directory (ENOENT)'" in caplog.text
    assert "mode=384" in caplog.text
