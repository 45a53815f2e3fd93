"""Private mount namespaces and pairs of network namespaces, so that no fault leaks out."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.harness.packages import require

CLONE_NEWNS: Final = 0x00020000
MS_REC: Final = 0x4000
MS_PRIVATE: Final = 1 << 18

CUT_TABLE: Final = """
table inet cut {{
  chain input {{
    type filter hook input priority 0; policy {policy};
    {rule}
  }}
}}
"""


def enter_private_mounts() -> None:
    """Move this process into a mount namespace of its own: its mounts are seen nowhere else.

    For single-threaded processes (a pytest-xdist worker calls it once, in conftest).
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWNS)")
    if libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None):
        raise OSError(ctypes.get_errno(), "mount --make-rprivate /")


def in_private_mounts(*command: str) -> list[str]:
    """The argv that runs *command* in a mount namespace of its own."""
    return [require("unshare"), "-m", "--propagation", "private", *command]


def rerun_in_private_mounts(
    test: str, *, timeout_s: float = 100.0, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run one test id in a pytest of its own inside a private mount namespace."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test]
    return subprocess.run(
        in_private_mounts(*command),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env={**os.environ, **(env or {})},
    )


@contextlib.contextmanager
def open_fuse_device() -> Iterator[None]:
    """/dev/fuse is usable by every user, in this mount namespace only (root)."""
    if os.stat("/dev/fuse").st_mode & 0o666 == 0o666:
        yield
        return
    node = Path(f"/run/netfs-test-fuse-{os.getpid()}")
    node.unlink(missing_ok=True)
    os.mknod(node, 0o020666, os.makedev(10, 229))
    os.chmod(node, 0o666)
    subprocess.run(["mount", "--bind", os.fspath(node), "/dev/fuse"], check=True, timeout=10)
    node.unlink()
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", "/dev/fuse"], check=True, timeout=10)


@dataclass(frozen=True)
class NetPair:
    """Two network namespaces joined by a veth pair."""

    server: str
    client: str
    server_address: str
    client_address: str

    def on_server(self, *command: str) -> list[str]:
        """The argv that runs *command* in the server's namespace."""
        return [require("nsenter", "util-linux"), f"--net=/run/netns/{self.server}", *command]

    def on_client(self, *command: str) -> list[str]:
        """The argv that runs *command* in the client's namespace."""
        return [require("nsenter", "util-linux"), f"--net=/run/netns/{self.client}", *command]

    def run(self, command: Sequence[str], text: str | None = None) -> str:
        """Run one of those, and return what it prints."""
        done = subprocess.run(
            list(command), input=text, capture_output=True, text=True, check=True, timeout=20
        )
        return done.stdout

    def link(self, *, up: bool) -> None:
        """Take the server's end of the cable out, or put it back."""
        require("ip")
        command = ["ip", "link", "set", f"v{self.server}", "up" if up else "down"]
        self.run(self.on_server(*command))

    def drop(self) -> None:
        """Drop every packet between the two from now on, silently."""
        require("nft")
        rules = CUT_TABLE.format(policy="drop", rule="")
        self.run(self.on_server("nft", "-f", "-"), rules)

    def reject(self) -> None:
        """Answer every TCP packet with a reset."""
        require("nft")
        rules = CUT_TABLE.format(policy="accept", rule="meta l4proto tcp reject with tcp reset")
        self.run(self.on_server("nft", "-f", "-"), rules)

    def pass_again(self) -> None:
        """End :meth:`drop` or :meth:`reject`."""
        self.run(self.on_server("nft", "delete", "table", "inet", "cut"))


@contextlib.contextmanager
def net_pair(name: str, subnet: int) -> Iterator[NetPair]:
    """Namespaces ``s<name>`` and ``c<name>``, addresses 10.98.<subnet>.1 and .2 (root only)."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    ip = require("ip")
    pair = NetPair(f"s{name}", f"c{name}", f"10.98.{subnet}.1", f"10.98.{subnet}.2")

    def run(*arguments: str) -> None:
        subprocess.run([ip, *arguments], check=True, capture_output=True, timeout=20)

    for space in (pair.server, pair.client):
        subprocess.run([ip, "netns", "delete", space], capture_output=True, timeout=20)
    try:
        for space in (pair.server, pair.client):
            run("netns", "add", space)
            run("-n", space, "link", "set", "lo", "up")
        server_end, client_end = f"v{pair.server}", f"v{pair.client}"
        run("-n", pair.server, "link", "add", server_end, "type", "veth",
            "peer", "name", client_end, "netns", pair.client)  # fmt: skip
        for space, end, address in (
            (pair.server, server_end, pair.server_address),
            (pair.client, client_end, pair.client_address),
        ):
            run("-n", space, "addr", "add", f"{address}/24", "dev", end)
            run("-n", space, "link", "set", end, "up")
        yield pair
    finally:
        for space in (pair.server, pair.client):
            subprocess.run([ip, "netns", "delete", space], capture_output=True, timeout=20)
