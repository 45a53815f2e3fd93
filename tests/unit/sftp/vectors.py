"""Each message of SFTP v3 as a value and as annotated bytes."""

from netfs.sftp import extensions as ext
from netfs.sftp import requests as req
from netfs.sftp import responses as rsp
from netfs.sftp.attrs import Attrs, Limits, StatVfs

ID = 0x01020304


def packet(text: str) -> bytes:
    """Bytes from hex and 'quoted text', '#' starts a comment; length and id come first."""
    out = b""
    for line in text.splitlines():
        rest = line.split(" #")[0]
        while rest.strip():
            rest = rest.strip()
            if rest.startswith("'"):
                word, rest = rest[1:].split("'", 1)
                out += word.encode()
            else:
                word, _, rest = rest.partition(" ")
                out += bytes.fromhex(word)
    return len(out).to_bytes(4, "big") + out


USUAL = Attrs(size=5, uid=1000, gid=1001, mode=0o100644, atime=16, mtime=17)
USUAL_HEX = "0000000f 0000000000000005 000003e8 000003e9 000081a4 00000010 00000011"
NETFS = USUAL._replace(
    nlink=2, ino=7, blocks=8, atime_ns=16_000_000_001, mtime_ns=17_000_000_002, ctime_ns=-1
)
NETFS_HEX = """8000000f 0000000000000005 000003e8 000003e9 000081a4 00000010 00000011
    00000001                                  # one pair
    0000000b 'attrs@netfs' 00000034           # its name and length
    0000003f 0000000000000002 0000000000000007 0000000000000008  # mask, nlink, ino, blocks
    00000003b9aca001 00000003f5476a02 ffffffffffffffff           # atime_ns, mtime_ns, ctime_ns"""

REQUESTS: list[tuple[req.Request, str]] = [
    (
        req.Open(b"/f", 0x1A, Attrs(mode=0o600)),
        "03 01020304 00000002 '/f' 0000001a 00000004 00000180  # CREAT|TRUNC|WRITE, mode",
    ),
    (req.Open(b"/f", 1, Attrs()), "03 01020304 00000002 '/f' 00000001 00000000"),
    (req.Close(b"h"), "04 01020304 00000001 'h'"),
    (req.Read(b"h", 2**33, 4096), "05 01020304 00000001 'h' 0000000200000000 00001000"),
    (req.Write(b"h", 9, (b"data",)), "06 01020304 00000001 'h' 0000000000000009 00000004 'data'"),
    (req.Lstat(b"/f"), "07 01020304 00000002 '/f'"),
    (req.Fstat(b"h"), "08 01020304 00000001 'h'"),
    (req.Setstat(b"/f", USUAL), f"09 01020304 00000002 '/f' {USUAL_HEX}"),
    (req.Fsetstat(b"h", Attrs(size=1)), "0a 01020304 00000001 'h' 00000001 0000000000000001"),
    (req.Opendir(b"/"), "0b 01020304 00000001 '/'"),
    (req.Readdir(b"h"), "0c 01020304 00000001 'h'"),
    (req.Remove(b"/f"), "0d 01020304 00000002 '/f'"),
    (req.Mkdir(b"/d", Attrs(mode=0o755)), "0e 01020304 00000002 '/d' 00000004 000001ed"),
    (req.Rmdir(b"/d"), "0f 01020304 00000002 '/d'"),
    (req.Realpath(b"."), "10 01020304 00000001 '.'"),
    (req.Stat(b"/f"), "11 01020304 00000002 '/f'"),
    (req.Rename(b"/a", b"/b"), "12 01020304 00000002 '/a' 00000002 '/b'"),
    (req.Readlink(b"/l"), "13 01020304 00000002 '/l'"),
    (
        req.Symlink(b"target", b"/l"),
        "14 01020304 00000006 'target' 00000002 '/l'  # OpenSSH's order, not the draft's",
    ),
    (
        ext.PosixRename(b"/a", b"/b"),
        "c8 01020304 00000018 'posix-rename@openssh.com' 00000002 '/a' 00000002 '/b'",
    ),
    (
        ext.Hardlink(b"/a", b"/b"),
        "c8 01020304 00000014 'hardlink@openssh.com' 00000002 '/a' 00000002 '/b'",
    ),
    (ext.StatvfsRequest(b"/"), "c8 01020304 00000013 'statvfs@openssh.com' 00000001 '/'"),
    (ext.FstatvfsRequest(b"h"), "c8 01020304 00000014 'fstatvfs@openssh.com' 00000001 'h'"),
    (ext.Fsync(b"h"), "c8 01020304 00000011 'fsync@openssh.com' 00000001 'h'"),
    (
        ext.Lsetstat(b"/l", Attrs(atime=1, mtime=2)),
        "c8 01020304 00000014 'lsetstat@openssh.com' 00000002 '/l' 00000008 00000001 00000002",
    ),
    (ext.LimitsRequest(), "c8 01020304 00000012 'limits@openssh.com'"),
    (ext.ExpandPath(b"~"), "c8 01020304 00000017 'expand-path@openssh.com' 00000001 '~'"),
    (
        ext.CopyData(b"a", 1, 2, b"b", 3),
        "c8 01020304 00000009 'copy-data' 00000001 'a' 0000000000000001 0000000000000002"
        " 00000001 'b' 0000000000000003",
    ),
    (ext.HomeDirectory(b"joe"), "c8 01020304 0000000e 'home-directory' 00000003 'joe'"),
    (
        ext.UsersGroupsById((0, 1), (2,)),
        "c8 01020304 0000001e 'users-groups-by-id@openssh.com'"
        " 00000008 00000000 00000001 00000004 00000002",
    ),
    (ext.AttrsNetfs(1), "c8 01020304 0000000b 'attrs@netfs' 00000001"),
    (ext.Extended(b"x@y", b"zz"), "c8 01020304 00000003 'x@y' 'zz'"),
]

RESPONSES: list[tuple[rsp.Response, str]] = [
    (
        rsp.StatusResponse(2, b"No such file", b"en"),
        "65 01020304 00000002 0000000c 'No such file' 00000002 'en'",
    ),
    (rsp.Handle(b"\0\0\0\1"), "66 01020304 00000004 00000001"),
    (rsp.Data(b"payload"), "67 01020304 00000007 'payload'"),
    (
        rsp.Name((rsp.NameEntry(b"f", b"long", USUAL), rsp.NameEntry(b"\xff", b"", Attrs()))),
        f"68 01020304 00000002 00000001 'f' 00000004 'long' {USUAL_HEX}"
        " 00000001 ff 00000000 00000000",
    ),
    (rsp.AttrsResponse(USUAL), f"69 01020304 {USUAL_HEX}"),
    (rsp.AttrsResponse(Attrs(mode=0o755)), "69 01020304 00000004 000001ed"),
    (rsp.AttrsResponse(NETFS), f"69 01020304 {NETFS_HEX}"),
    (
        rsp.AttrsResponse(Attrs(mtime_ns=5)),
        "69 01020304 80000000 00000001 0000000b 'attrs@netfs' 0000000c 00000010 0000000000000005",
    ),
    (rsp.ExtendedReply(b"body"), "c9 01020304 'body'"),
]

STATVFS = StatVfs(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 255)
LIMITS = Limits(262144, 261120, 261120, 1019)
