"""Programs that tests need: found, installed by apt when root, or named in a failure."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from typing import Final

import pytest

PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

DEBIAN: Final[dict[str, str]] = {
    "automount": "autofs",
    "cc": "gcc",
    "debootstrap": "debootstrap",
    "docker-compose": "docker-compose",
    "dockerd": "docker.io",
    "findmnt": "util-linux",
    "fio": "fio",
    "fusermount3": "fuse3",
    "git": "git",
    "ip": "iproute2",
    "make": "make",
    "nft": "nftables",
    "rsync": "rsync",
    "scp": "openssh-client",
    "setfacl": "acl",
    "setfattr": "attr",
    "setpriv": "util-linux",
    "sftp": "openssh-client",
    "sqlite3": "sqlite3",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "sshd": "openssh-server",
    "sshfs": "sshfs",
    "systemd-analyze": "systemd",
    "unshare": "util-linux",
}
"""Program -> the Debian package that has it."""


def find(program: str) -> str | None:
    """The program's path, also in the sbin directories a user's PATH lacks."""
    return shutil.which(program) or shutil.which(program, path=PATH)


@cache
def require(program: str, package: str | None = None) -> str:
    """The path of *program*; installs its Debian package when root, fails the test by name else.

    *package* names the Debian package of a program that the table lacks.
    """
    package = package or DEBIAN.get(program, program)
    found = find(program)
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        install(package)
        found = find(program)
    if found is None:
        pytest.fail(f"'{program}' is missing: apt-get install {package}", pytrace=False)
    return found


def install(package: str) -> None:
    """Install one Debian package; a stale or empty package list is fetched first.

    Services are kept from starting: a test machine needs the programs only.
    """
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    # The workers of one run may want packages at the same time: apt waits for the other.
    apt = ["apt-get", "-q", "-o", "DPkg::Lock::Timeout=300"]
    command = [*apt, "install", "-y", "--no-install-recommends", package]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    if done.returncode:
        subprocess.run([*apt, "update"], capture_output=True, timeout=600)
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    if done.returncode:
        pytest.fail(
            f"apt-get install {package} failed: {done.stderr.strip()[-400:]}", pytrace=False
        )
