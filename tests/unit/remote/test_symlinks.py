"""The order of SYMLINK's paths, found out on servers of each kind; real ones: tests/mount."""

from __future__ import annotations

import errno
import posixpath
import stat
from collections.abc import Mapping

import pytest

from netfs.client.remote.pending import Disconnected
from netfs.client.remote.symlinks import Symlinks
from netfs.sftp import extensions as ext
from netfs.sftp import requests as req
from netfs.sftp.attrs import Attrs

HOME = b"/home"
OPENSSH = {ext.POSIX_RENAME: b"1"}
FOR_EVER = 10**6


class Server:
    """Names and what SYMLINK makes of them; what ``Symlinks`` uses of ``SftpFiles``."""

    def __init__(
        self, told: Mapping[bytes, bytes], *, drafted: bool, absolute: bool = False
    ) -> None:
        self.told = told
        self.extensions = frozenset(told)
        self.links: dict[bytes, bytes] = {}
        self.directories = {b"/", HOME, b"/d", b"/there", b"/ro"}
        self.sent: list[req.Symlink] = []
        self.cut_after = FOR_EVER  # requests until the link is lost
        self._drafted = drafted
        self.shows_absolute = False  # READLINK tells where relative ones lead (ProFTPD)
        self._absolute = absolute  # it makes targets absolute (MySecureShell)

    def _at(self, path: bytes) -> bytes:
        self.cut_after -= 1
        if self.cut_after < 0:
            raise Disconnected("cut", sent=False)
        return posixpath.join(HOME, path)

    def _has(self, path: bytes) -> bool:
        return path in self.links or path in self.directories

    async def done(self, request: req.Symlink) -> None:
        self.sent.append(request)
        target, link = request.targetpath, request.linkpath
        if self._drafted != request.as_drafted:
            target, link = link, target
        link = self._at(link)
        if posixpath.dirname(link) == b"/ro":
            raise OSError(errno.EACCES, "not permitted")
        if posixpath.dirname(link) not in self.directories:
            raise OSError(errno.ENOENT, "no such directory")
        if self._has(link):  # a bare FAILURE: SftpFiles looks at the name asked for
            raise OSError(errno.EEXIST if self._has(request.linkpath) else errno.EIO, "no")
        self.links[link] = posixpath.join(HOME, target) if self._absolute else target

    async def lstat(self, path: bytes) -> Attrs:
        at = self._at(path)
        if not self._has(at):
            raise OSError(errno.ENOENT, "nothing there")
        return Attrs(mode=stat.S_IFLNK if at in self.links else stat.S_IFDIR)

    async def readlink(self, path: bytes) -> bytes:
        at = self._at(path)
        if at not in self.links:
            raise OSError(errno.EINVAL if self._has(at) else errno.ENOENT, "no link")
        if self.shows_absolute:
            return posixpath.normpath(posixpath.join(posixpath.dirname(at), self.links[at]))
        return self.links[at]

    async def remove(self, path: bytes) -> None:
        del self.links[self._at(path)]


KINDS = {
    "OpenSSH": (OPENSSH, False),
    "as OpenSSH, says nothing": ({}, False),
    "as drafted, says nothing": ({}, True),
    "as drafted, says so": ({**OPENSSH, ext.SYMLINK_ORDER: b"linkpath-targetpath"}, True),
    "as OpenSSH, says so": ({ext.SYMLINK_ORDER: b"targetpath-linkpath"}, False),
}
WRONG = {
    "says the wrong order": ({ext.SYMLINK_ORDER: b"linkpath-targetpath"}, False),
    "has OpenSSH's extensions only": (OPENSSH, True),
}


@pytest.fixture(params=KINDS)
def server(request: pytest.FixtureRequest) -> Server:
    told, drafted = KINDS[request.param]
    return Server(told, drafted=drafted)


@pytest.mark.parametrize("target", [b"name", b"../up/name", b"/there", b"/not/there", b"/d/free"])
async def test_links_are_where_they_should_be_and_nothing_else_is(
    server: Server, target: bytes
) -> None:
    symlinks = Symlinks()
    for name in (b"/d/one", b"/d/two"):
        await symlinks.make(server, req.Symlink(target, name))
    assert server.links == {b"/d/one": target, b"/d/two": target}
    assert symlinks.is_proven is not target.startswith(b"/")


@pytest.mark.parametrize("kind", WRONG)
async def test_a_link_that_is_elsewhere_than_said_is_taken_back(kind: str) -> None:
    told, drafted = WRONG[kind]
    server = Server(told, drafted=drafted)
    symlinks = Symlinks()
    for name in (b"/d/one", b"/d/two"):
        await symlinks.make(server, req.Symlink(b"name", name))
    assert server.links == {b"/d/one": b"name", b"/d/two": b"name"}


async def test_after_one_relative_link_each_is_one_request(server: Server) -> None:
    symlinks = Symlinks()
    await symlinks.make(server, req.Symlink(b"x", b"/d/one"))
    server.sent.clear()
    server.cut_after = 3
    for number in range(3):
        await symlinks.make(server, req.Symlink(b"/there", b"/d/%d" % number))
    assert len(server.sent) == 3
    assert len(server.links) == 4


@pytest.mark.parametrize("target", [b"x", b"/d/x", b"/there", b"/ro/x"])
@pytest.mark.parametrize(
    ("path", "number"),
    [(b"/ro/l", errno.EACCES), (b"/none/l", errno.ENOENT), (b"/d", errno.EEXIST)],
)
async def test_a_refusal_is_told_and_nothing_is_left(
    server: Server, path: bytes, number: int, target: bytes
) -> None:
    with pytest.raises(OSError) as refused:
        await Symlinks().make(server, req.Symlink(target, path))
    assert not server.links
    if not server._drafted or server.told:
        assert refused.value.errno == number


async def test_who_has_openssh_s_order_is_not_asked_in_the_other_after_a_refusal() -> None:
    server = Server(OPENSSH, drafted=False)
    with pytest.raises(PermissionError):
        await Symlinks().make(server, req.Symlink(b"x", b"/ro/l"))
    assert [sent.as_drafted for sent in server.sent] == [False]


async def test_what_was_there_before_is_not_taken_for_a_stray_link() -> None:
    server = Server({}, drafted=True)
    server.links[b"/d/other"] = b"/d/one"
    await Symlinks().make(server, req.Symlink(b"/d/other", b"/d/one"))
    assert server.links == {b"/d/other": b"/d/one", b"/d/one": b"/d/other"}


async def test_a_server_that_makes_no_link_and_says_it_did() -> None:
    server = Server({}, drafted=False)
    server.links = _Forgetful()
    with pytest.raises(OSError, match="says it did"):
        await Symlinks().make(server, req.Symlink(b"x", b"/d/l"))


class _Forgetful(dict[bytes, bytes]):
    def __setitem__(self, key: bytes, value: bytes) -> None:
        pass


@pytest.mark.parametrize("drafted", [False, True])
async def test_a_server_that_makes_relative_targets_absolute_gets_none(drafted: bool) -> None:
    server = Server({}, drafted=drafted, absolute=True)
    symlinks = Symlinks()
    await symlinks.make(server, req.Symlink(b"/there", b"/d/absolute"))
    for _ in range(2):
        with pytest.raises(PermissionError):
            await symlinks.make(server, req.Symlink(b"x", b"/d/relative"))
    assert server.links == {b"/d/absolute": b"/there"}


@pytest.mark.parametrize("target", [b"x", b"../there/x"])
async def test_a_server_that_shows_where_relative_links_lead_may_have_them(target: bytes) -> None:
    server = Server({}, drafted=False)
    server.shows_absolute = True
    symlinks = Symlinks()
    await symlinks.make(server, req.Symlink(target, b"/d/l"))
    assert server.links == {b"/d/l": target}
    assert symlinks.is_proven


@pytest.mark.parametrize("cut_after", range(7))
async def test_what_was_lost_on_the_way_is_made_the_next_time(
    server: Server, cut_after: int
) -> None:
    symlinks = Symlinks()
    server.cut_after = cut_after
    lost: Disconnected | None = None
    try:
        await symlinks.make(server, req.Symlink(b"x", b"/d/l"))
    except Disconnected as exc:
        lost = exc
    server.cut_after = FOR_EVER
    if lost is not None:
        assert lost.sent, "the caller looks whether it is there"
        if b"/d/l" not in server.links:
            await symlinks.make(server, req.Symlink(b"x", b"/d/l"))
    assert server.links == {b"/d/l": b"x"}


def test_the_order_on_the_wire() -> None:
    packet = b"".join(req.encode_request(7, req.Symlink(b"to", b"/new", as_drafted=True)))
    assert packet.endswith(b"\0\0\0\4/new\0\0\0\2to")
    packet = b"".join(req.encode_request(7, req.Symlink(b"to", b"/new")))
    assert packet.endswith(b"\0\0\0\2to\0\0\0\4/new")
