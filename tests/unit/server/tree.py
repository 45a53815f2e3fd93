"""An export with something outside of it that nobody may reach."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from netfs.server import confine, handlers
from netfs.server.export import Export
from netfs.sftp import requests
from netfs.sftp.attrs import Attrs
from netfs.sftp.codes import OpenFlag
from netfs.sftp.responses import Data, Handle, Response, StatusResponse

RESOLVERS = {"openat2": confine.KernelResolver, "walk": confine.WalkResolver}

SECRET = b"the secret outside\n"
INSIDE = b"what may be read\n"

READ = OpenFlag.READ
CREATE = OpenFlag.READ | OpenFlag.WRITE | OpenFlag.CREAT


@dataclass
class Tree:
    """``base/root`` is exported, ``base/outside`` is not."""

    base: Path
    client: handlers.Client

    @property
    def root(self) -> Path:
        return self.base / "root"

    @property
    def outside(self) -> Path:
        return self.base / "outside"

    def ask(self, request: Any) -> Response:
        return handlers.carry_out(self.client, request)

    def open(self, path: bytes, pflags: int = READ) -> bytes:
        response = self.ask(requests.Open(path, pflags, Attrs()))
        assert isinstance(response, Handle), response
        return response.handle

    def read(self, path: bytes) -> bytes:
        handle = self.open(path)
        try:
            response = self.ask(requests.Read(handle, 0, 100_000))
            return bytes(response.data) if isinstance(response, Data) else b""
        finally:
            self.ask(requests.Close(handle))

    def outside_state(self) -> dict[str, tuple[object, ...]]:
        """All that could be changed outside."""
        found: dict[str, tuple[object, ...]] = {}
        for path in (self.outside, *sorted(self.outside.rglob("*"))):
            st = path.lstat()
            content = path.read_bytes() if stat.S_ISREG(st.st_mode) else b""
            found[str(path)] = (
                st.st_mode, st.st_ino, st.st_nlink, st.st_uid, st.st_gid, st.st_size,
                st.st_mtime_ns, st.st_ctime_ns, content,
            )  # fmt: skip
        return found

    def outside_inodes(self) -> set[int]:
        inodes = {path.lstat().st_ino for path in (self.outside, *self.outside.rglob("*"))}
        return inodes | {self.base.stat().st_ino, os.stat("/").st_ino}


def make_tree(base: Path, resolver: str = "openat2", **options: Any) -> Tree:
    root = base / "root"
    outside = base / "outside"
    (root / "sub" / "deep").mkdir(parents=True)
    (root / "file").write_bytes(INSIDE)
    (root / "sub" / "file").write_bytes(INSIDE)
    (outside / "dir").mkdir(parents=True)
    (outside / "secret").write_bytes(SECRET)
    (outside / "dir" / "secret").write_bytes(SECRET)
    (outside / "empty").mkdir()
    links = {
        "abs": outside / "secret",
        "rel": "../outside/secret",
        "absdir": outside,
        "reldir": "../outside",
        "up": "..",
        "upup": "../../../../../../../../..",
        "top": "/",
        "chain1": "chain2",
        "chain2": "sub/chain3",
        "sub/chain3": "../../outside",
        "loop1": "loop2",
        "loop2": "loop1",
        "procroot": "/proc/self/root",
        "proccwd": f"/proc/{os.getpid()}/cwd",
        "dangling": outside / "made-by-dangling",
        "within": "/sub/file",
        "self": ".",
    }
    for name, target in links.items():
        os.symlink(target, root / name)
    export = Export(str(root), resolver=RESOLVERS[resolver]())
    client = handlers.Client(export, max_handles=64, **options)
    return Tree(base, client)


def errno_name(response: Response) -> str:
    """The errno's name at the end of a STATUS's message, "" for success."""
    if not isinstance(response, StatusResponse) or not response.code:
        return ""
    return response.message.decode().rpartition("(")[2].removesuffix(")")
