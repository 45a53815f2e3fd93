"""A server that lies, for a mount: ``python -m tests.harness.hostile`` speaks SFTP on its streams.

It has one directory, ``/``, with one file or directory for each lie (``LIES``); what a client asks
about anything else it answers well.  Nothing that is changed is kept.
"""

from __future__ import annotations

import os
import stat
import struct
import sys
from collections.abc import Callable
from typing import Final

from netfs.sftp import extensions as ext
from netfs.sftp import requests as req
from netfs.sftp import responses as rsp
from netfs.sftp.attrs import Attrs
from netfs.sftp.codes import Status
from netfs.sftp.connection import Asked, Init, ServerConnection

DIRECTORY: Final = Attrs(4096, os.geteuid(), os.getegid(), stat.S_IFDIR | 0o755, 1000, 1000)
FILE: Final = Attrs(5, os.geteuid(), os.getegid(), stat.S_IFREG | 0o644, 1000, 1000)
LINK: Final = FILE._replace(mode=stat.S_IFLNK | 0o777)
OK: Final = rsp.StatusResponse(Status.OK)
EOF: Final = rsp.StatusResponse(Status.EOF)
NO: Final = rsp.StatusResponse(Status.NO_SUCH_FILE)

WRONG_NAMES: Final = (
    b"", b".", b"..", b"/", b"/etc", b"a/b", b"../outside", b"nul\0name", b"n" * 256, b"n" * 60_000,
)  # fmt: skip
GOOD_NAMES: Final = (b"good", b"\xff\xfe", b"good", b"...")


def entries(*names: bytes, attrs: Attrs = FILE) -> rsp.Name:
    return rsp.Name(tuple(rsp.NameEntry(name, b"", attrs) for name in names))


def packet(kind: int, request_id: int, body: bytes) -> bytes:
    return struct.pack(">IBI", 5 + len(body), kind, request_id) + body


# What the server does when a request comes about the path or the handle of that name: a response,
# bytes as they are sent, or None: the good answer.
Lie = Callable[[int, req.Request], "rsp.Response | bytes | None"]


def _names(request_id: int, request: req.Request) -> rsp.Response | None:
    global _told
    if not isinstance(request, req.Readdir):
        return None
    _told = not _told
    return entries(*WRONG_NAMES, *GOOD_NAMES) if _told else EOF


_count = 0
_told = False


def _endless(request_id: int, request: req.Request) -> rsp.Response | None:
    global _count
    if not isinstance(request, req.Readdir):
        return None
    _count += 100
    return entries(*(b"%d" % number for number in range(_count, _count + 100)))


def _empty(request_id: int, request: req.Request) -> rsp.Response | None:
    if isinstance(request, req.Rmdir):
        return rsp.StatusResponse(Status.FAILURE)
    return rsp.Name(()) if isinstance(request, req.Readdir) else None


def _about_attrs(answer: rsp.Response | bytes) -> Lie:
    def lie(request_id: int, request: req.Request) -> rsp.Response | bytes | None:
        return answer if isinstance(request, req.Lstat | req.Fstat | req.Stat) else None

    return lie


def _about_content(make: Callable[[int, req.Read], rsp.Response | bytes]) -> Lie:
    def lie(request_id: int, request: req.Request) -> rsp.Response | bytes | None:
        return make(request_id, request) if isinstance(request, req.Read) else None

    return lie


LIES: Final[dict[bytes, tuple[Attrs, Lie]]] = {
    # name: what a listing says it is, and what it does
    b"d-names": (DIRECTORY, _names),
    b"d-endless": (DIRECTORY, _endless),
    b"d-empty": (DIRECTORY, _empty),
    b"d-is-a-file": (DIRECTORY, _about_attrs(rsp.AttrsResponse(FILE))),
    b"f-is-a-directory": (FILE, _about_attrs(rsp.AttrsResponse(DIRECTORY))),
    b"f-type-0": (FILE, _about_attrs(rsp.AttrsResponse(FILE._replace(mode=0o644)))),
    b"f-type-15": (FILE, _about_attrs(rsp.AttrsResponse(FILE._replace(mode=0o170644)))),
    b"f-no-attrs": (FILE, _about_attrs(rsp.AttrsResponse(Attrs()))),
    b"f-huge": (FILE, _about_attrs(rsp.AttrsResponse(FILE._replace(size=2**64 - 1)))),
    b"b-answers-a-handle": (FILE, _about_attrs(rsp.Handle(b"h"))),
    b"b-wrong-id": (FILE, lambda i, r: packet(105, i ^ 1 << 31, bytes(4))),
    b"b-length": (FILE, lambda i, r: b"\xff\xff\xff\xff"),
    b"b-cut": (FILE, lambda i, r: packet(105, i, b"\0\0\0")),
    b"b-garbage": (FILE, lambda i, r: packet(105, i, bytes(4) + b"garbage")),
    b"b-too-much": (FILE, _about_content(lambda i, r: rsp.Data(bytes(r.length + 1)))),
    b"f-nothing": (FILE, _about_content(lambda i, r: rsp.Data(b""))),
    b"b-no-file": (FILE, _about_content(lambda i, r: rsp.Name(()))),
    b"l-nul": (LINK, lambda i, r: entries(b"..\0b") if isinstance(r, req.Readlink) else None),
    b"l-long": (LINK, lambda i, r: entries(b"x" * 5000) if isinstance(r, req.Readlink) else None),
}
LISTED: Final = [name for name in LIES if not name.startswith(b"b-")]
"""The others end the conversation, and nobody must be led to read them ahead."""


def good(request: req.Request, listed: set[bytes]) -> rsp.Response:
    """What a server would say that has all these files with nothing in them."""
    name = about(request)
    match request:
        case req.Realpath():
            return entries(b"/" if request.path in (b"", b".") else request.path)
        case req.Lstat() | req.Stat() | req.Fstat():
            if name in (b"", b"/"):
                return rsp.AttrsResponse(DIRECTORY)
            return rsp.AttrsResponse(LIES[name][0]) if name in LIES else NO
        case req.Opendir() | req.Open():
            return rsp.Handle(name or b"/") if name in LIES or name in (b"", b"/") else NO
        case req.Readdir():
            if name in listed:
                listed.discard(name)
                return EOF
            listed.add(name)
            if name != b"/":
                return EOF
            return rsp.Name(tuple(rsp.NameEntry(each, b"", LIES[each][0]) for each in LISTED))
        case req.Read():
            return (
                EOF
                if request.offset >= 5
                else rsp.Data(b"hello"[request.offset :][: request.length])
            )
        case ext.StatvfsRequest():
            return rsp.ExtendedReply(bytes(11 * 8))  # a filesystem with blocks of no bytes
        case ext.LimitsRequest():
            return rsp.ExtendedReply(struct.pack(">4Q", 1, 2**64 - 1, 1, 0))
    return OK


def about(request: req.Request) -> bytes:
    found: bytes = getattr(request, "path", b"") or getattr(request, "handle", b"")
    return found.removeprefix(b"/") if found != b"/" else found


def serve() -> None:
    connection = ServerConnection()
    listed: set[bytes] = set()
    while piece := os.read(0, 1 << 18):
        for event in connection.receive_data(piece):
            if isinstance(event, Init):
                offered = {b"limits@openssh.com": b"1", b"statvfs@openssh.com": b"2"}
                os.write(1, connection.send_version(offered))
                continue
            assert isinstance(event, Asked), event
            request = event.request
            answer: rsp.Response | bytes | None = None
            name = about(request)
            if name in LIES:
                answer = LIES[name][1](event.request_id, request)
            if answer is None:
                answer = good(request, listed)
            if not isinstance(answer, bytes):
                answer = b"".join(map(bytes, rsp.encode_response(event.request_id, answer)))
            view = memoryview(answer)
            while view:
                view = view[os.write(1, view) :]


if __name__ == "__main__":
    try:
        serve()
    except (BrokenPipeError, ConnectionResetError):
        sys.exit(0)
