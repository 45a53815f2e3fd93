"""Every request as bytes and as a value."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netfs.fuse import abi, requests
from netfs.fuse.abi import Opcode
from netfs.fuse.errors import MalformedRequest, NameTooLong

WHO = (0x22, 7, 1000, 100, 4242)  # unique, nodeid, uid, gid, pid


def message(opcode: int, body: bytes, total_extlen: int = 0) -> bytes:
    unique, nodeid, uid, gid, pid = WHO
    return (
        struct.pack(
            "<IIQQIIIHH", 40 + len(body), opcode, unique, nodeid, uid, gid, pid, total_extlen, 0
        )
        + body
    )


SETATTR = "<IIQQQQQQIIIIIIII"

TABLE: list[tuple[Opcode, bytes, requests.Request]] = [
    (Opcode.LOOKUP, b"a\xff\0", requests.Lookup(*WHO, b"a\xff")),
    (Opcode.FORGET, struct.pack("<Q", 3), requests.Forget(*WHO, ((7, 3),))),
    (
        Opcode.BATCH_FORGET,
        struct.pack("<IIQQQQ", 2, 0, 5, 1, 6, 2),
        requests.Forget(*WHO, ((5, 1), (6, 2))),
    ),
    (Opcode.BATCH_FORGET, struct.pack("<II", 0, 0), requests.Forget(*WHO, ())),
    (Opcode.GETATTR, struct.pack("<IIQ", 1, 0, 9), requests.GetAttr(*WHO, 9)),
    (Opcode.GETATTR, struct.pack("<IIQ", 0, 0, 9), requests.GetAttr(*WHO, None)),
    (
        Opcode.SETATTR,
        struct.pack(SETATTR, 0xC7F, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0o100644, 0, 10, 11, 0),
        requests.SetAttr(
            *WHO, 1, 0o100644, 10, 11, 2,
            4_000_000_007, 5_000_000_008, 6_000_000_009, False, False, True,
        ),
    ),
    (
        Opcode.SETATTR,  # utime(NULL): both NOW, with the client's clock beside them
        struct.pack(SETATTR, 0x1B0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 0, 10, 11, 0),
        requests.SetAttr(
            *WHO, None, None, None, None, None, None, None, None, True, True, False
        ),
    ),
    (
        Opcode.SETATTR,  # nothing at all: only the attributes are wanted
        struct.pack(SETATTR, 0, *(1,) * 15),
        requests.SetAttr(
            *WHO, None, None, None, None, None, None, None, None, False, False, False
        ),
    ),
    (
        Opcode.SETATTR,  # before 1970
        struct.pack("<IIQQQqqqIIIIIIII", 0x20, 0, 0, 0, 0, 0, -2, 0, 0, 5, 0, 0, 0, 0, 0, 0),
        requests.SetAttr(
            *WHO, None, None, None, None, None, None, -1_999_999_995, None, False, False, False
        ),
    ),
    (Opcode.READLINK, b"", requests.ReadLink(*WHO)),
    (Opcode.SYMLINK, b"n\0/t\0", requests.Symlink(*WHO, b"n", b"/t")),
    (
        Opcode.MKNOD,
        struct.pack("<IIII", 0o10644, 5, 0o22, 0) + b"n\0",
        requests.MkNod(*WHO, b"n", 0o10644, 5, 0o22),
    ),
    (
        Opcode.MKDIR,
        struct.pack("<II", 0o755, 0o22) + b"n\0",
        requests.MkDir(*WHO, b"n", 0o755, 0o22),
    ),
    (Opcode.UNLINK, b"n\0", requests.Unlink(*WHO, b"n")),
    (Opcode.RMDIR, b"n\0", requests.RmDir(*WHO, b"n")),
    (
        Opcode.RENAME,
        struct.pack("<Q", 8) + b"a\0b\0",
        requests.Rename(*WHO, b"a", 8, b"b", 0),
    ),
    (
        Opcode.RENAME2,
        struct.pack("<QII", 8, 1, 0) + b"a\0b\0",
        requests.Rename(*WHO, b"a", 8, b"b", abi.RENAME_NOREPLACE),
    ),
    (Opcode.LINK, struct.pack("<Q", 8) + b"n\0", requests.Link(*WHO, 8, b"n")),
    (Opcode.OPEN, struct.pack("<II", 0o101002, 1), requests.Open(*WHO, 0o101002, True)),
    (Opcode.OPENDIR, struct.pack("<II", 0o200000, 0), requests.OpenDir(*WHO, 0o200000)),
    (
        Opcode.CREATE,
        struct.pack("<IIII", 0o102, 0o100644, 0o22, 0) + b"n\0",
        requests.Create(*WHO, b"n", 0o102, 0o100644, 0o22, False),
    ),
    (
        Opcode.READ,
        struct.pack("<QQIIQII", 1, 2, 3, 0, 4, 5, 0),
        requests.Read(*WHO, 1, 2, 3, 5),
    ),
    (
        Opcode.WRITE,
        struct.pack("<QQIIQII", 1, 2, 3, 5, 4, 6, 0) + b"abc",
        requests.Write(*WHO, 1, 2, b"abc", 6, True, True),
    ),
    (
        Opcode.WRITE,
        struct.pack("<QQIIQII", 1, 2, 0, 2, 4, 6, 0),
        requests.Write(*WHO, 1, 2, b"", 6, False, False),
    ),
    (Opcode.STATFS, b"", requests.StatFs(*WHO)),
    (Opcode.RELEASE, struct.pack("<QIIQ", 1, 2, 1, 3), requests.Release(*WHO, 1, 2, True)),
    (Opcode.RELEASEDIR, struct.pack("<QIIQ", 1, 2, 0, 3), requests.ReleaseDir(*WHO, 1)),
    (Opcode.FLUSH, struct.pack("<QIIQ", 1, 0, 0, 3), requests.Flush(*WHO, 1, 3)),
    (Opcode.FSYNC, struct.pack("<QII", 1, 1, 0), requests.FSync(*WHO, 1, True)),
    (
        Opcode.READDIR,
        struct.pack("<QQIIQII", 1, 2, 3, 0, 4, 5, 0),
        requests.ReadDir(*WHO, 1, 2, 3),
    ),
    (
        Opcode.READDIRPLUS,
        struct.pack("<QQIIQII", 1, 2, 3, 0, 4, 5, 0),
        requests.ReadDirPlus(*WHO, 1, 2, 3),
    ),
    (Opcode.ACCESS, struct.pack("<II", 6, 0), requests.Access(*WHO, 6)),
    (
        Opcode.FALLOCATE,
        struct.pack("<QQQII", 1, 2, 3, 1, 0),
        requests.FAllocate(*WHO, 1, 2, 3, 1),
    ),
    (Opcode.LSEEK, struct.pack("<QQII", 1, 2, 3, 0), requests.LSeek(*WHO, 1, 2, 3)),
    (
        Opcode.COPY_FILE_RANGE,
        struct.pack("<7Q", 1, 2, 3, 4, 5, 6, 0),
        requests.CopyFileRange(*WHO, 1, 2, 3, 4, 5, 6),
    ),
    (Opcode.STATX, struct.pack("<IIQII", 1, 0, 9, 2, 3), requests.StatX(*WHO, 9, 2, 3)),
    (Opcode.STATX, struct.pack("<IIQII", 0, 0, 9, 2, 3), requests.StatX(*WHO, None, 2, 3)),
    (Opcode.INTERRUPT, struct.pack("<Q", 0x20), requests.Interrupt(*WHO, 0x20)),
    (Opcode.DESTROY, b"", requests.Destroy(*WHO)),
    (
        Opcode.INIT,  # up to 7.35
        struct.pack("<IIII", 7, 31, 131072, 0x3FFFFFFF),
        requests.Init(*WHO, 7, 31, 131072, 0x3FFFFFFF),
    ),
    (
        Opcode.INIT,
        struct.pack("<IIIII11I", 7, 45, 131072, 0x73FFFFFB, 0x5FD, *(0,) * 11),
        requests.Init(*WHO, 7, 45, 131072, 0x5FD_73FF_FFFB),
    ),
    (
        Opcode.INIT,  # the second word counts only with INIT_EXT
        struct.pack("<IIIII11I", 7, 45, 131072, 1, 0x5FD, *(0,) * 11),
        requests.Init(*WHO, 7, 45, 131072, 1),
    ),
    (Opcode.NOTIFY_REPLY, bytes(40), requests.NotifyReply(*WHO)),
]  # fmt: skip

IDS = [f"{opcode.name}-{number}" for number, (opcode, _, _) in enumerate(TABLE)]

NAMED = {
    Opcode.LOOKUP, Opcode.SYMLINK, Opcode.MKNOD, Opcode.MKDIR, Opcode.UNLINK, Opcode.RMDIR,
    Opcode.RENAME, Opcode.RENAME2, Opcode.LINK, Opcode.CREATE, Opcode.WRITE,
}  # fmt: skip


@pytest.mark.parametrize(("opcode", "body", "value"), TABLE, ids=IDS)
def test_a_request_decodes(opcode: Opcode, body: bytes, value: requests.Request) -> None:
    decoded = requests.decode(message(opcode, body))
    assert decoded == value
    assert type(decoded) is type(value)


@pytest.mark.parametrize(("opcode", "body", "value"), TABLE, ids=IDS)
def test_a_request_truncated_anywhere_is_malformed(
    opcode: Opcode, body: bytes, value: requests.Request
) -> None:
    whole = message(opcode, body)
    if opcode is Opcode.INIT:
        shortest = 40 + 16  # later fields came with later minors
    elif opcode is Opcode.NOTIFY_REPLY:
        shortest = 40  # its body is not looked at
    else:
        shortest = len(whole)
    for size in range(shortest):
        with pytest.raises(MalformedRequest):
            requests.decode(whole[:size])


@pytest.mark.parametrize(("opcode", "body", "value"), TABLE, ids=IDS)
def test_what_follows_a_request_is_not_part_of_it(
    opcode: Opcode, body: bytes, value: requests.Request
) -> None:
    whole = message(opcode, body + b"\0garbage")
    if opcode in NAMED:
        with pytest.raises(MalformedRequest):
            requests.decode(whole)
    elif opcode is not Opcode.INIT:  # where it would be flags2
        assert requests.decode(whole) == value


@pytest.mark.parametrize(("opcode", "body", "value"), TABLE, ids=IDS)
def test_extensions_are_cut_off(opcode: Opcode, body: bytes, value: requests.Request) -> None:
    assert requests.decode(message(opcode, body + bytes(16), total_extlen=2), 38) == value
    with pytest.raises(MalformedRequest, match="extensions"):
        requests.decode(message(opcode, body, total_extlen=1 + len(body) // 8), 38)


def test_before_7_38_there_are_no_extensions() -> None:
    assert requests.decode(message(Opcode.LOOKUP, b"n\0", total_extlen=5), 37) == requests.Lookup(
        *WHO, b"n"
    )


def test_the_data_of_a_write_is_the_buffer_itself() -> None:
    buffer = bytearray(message(Opcode.WRITE, struct.pack("<QQIIQII", 1, 2, 3, 0, 4, 6, 0) + b"abc"))
    request = requests.decode(buffer)
    assert isinstance(request, requests.Write)
    buffer[-3:] = b"xyz"
    assert request.data == b"xyz"


def test_a_write_with_another_size_than_it_says_is_malformed() -> None:
    with pytest.raises(MalformedRequest, match="WRITE"):
        requests.decode(
            message(Opcode.WRITE, struct.pack("<QQIIQII", 1, 2, 4, 0, 4, 6, 0) + b"abc")
        )


def test_every_opcode_decodes_to_a_type_of_its_own_or_is_unserved() -> None:
    covered = {opcode for opcode, _, _ in TABLE}
    assert covered == set(requests.SERVED)
    for opcode in set(Opcode) - covered:
        decoded = requests.decode(message(opcode, b"anything"))
        assert decoded == requests.Unserved(*WHO, opcode)


@settings(max_examples=100)
@given(st.sampled_from([*Opcode, 0, 7, 4096]), st.binary(max_size=200), st.integers(0, 8))
def test_any_bytes_give_a_request_or_malformed(opcode: int, body: bytes, extlen: int) -> None:
    try:
        request = requests.decode(message(opcode, body, extlen))
    except MalformedRequest:
        return
    assert isinstance(request, requests.Request)


AROUND_NAMES: list[tuple[Opcode, bytes, bytes]] = [
    (Opcode.LOOKUP, b"", b""),
    (Opcode.UNLINK, b"", b""),
    (Opcode.RMDIR, b"", b""),
    (Opcode.SYMLINK, b"", b"target\0"),
    (Opcode.MKNOD, bytes(abi.MKNOD_IN.size), b""),
    (Opcode.MKDIR, bytes(abi.MKDIR_IN.size), b""),
    (Opcode.CREATE, bytes(abi.CREATE_IN.size), b""),
    (Opcode.LINK, bytes(abi.LINK_IN.size), b""),
    (Opcode.RENAME, bytes(abi.RENAME_IN.size), b"new\0"),
    (Opcode.RENAME, bytes(abi.RENAME_IN.size) + b"old\0", b""),
    (Opcode.RENAME2, bytes(abi.RENAME2_IN.size), b"new\0"),
    (Opcode.RENAME2, bytes(abi.RENAME2_IN.size) + b"old\0", b""),
]


@pytest.mark.parametrize(("opcode", "before", "behind"), AROUND_NAMES)
def test_a_name_has_255_bytes_at_most(opcode: Opcode, before: bytes, behind: bytes) -> None:
    longest = b"n" * 255
    request = requests.decode(message(opcode, before + longest + b"\0" + behind))
    assert longest in [getattr(request, field, None) for field in ("name", "new_name")]
    with pytest.raises(NameTooLong):
        requests.decode(message(opcode, before + longest + b"n\0" + behind))


def test_the_target_of_a_symlink_is_no_name() -> None:
    request = requests.decode(message(Opcode.SYMLINK, b"name\0" + b"t" * 4095 + b"\0"))
    assert request == requests.Symlink(*WHO, b"name", b"t" * 4095)
