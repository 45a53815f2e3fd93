"""A newcomer's way: the README's own lines, from installing to a mounted directory."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.deploy.space import Space
from tests.harness.sshd import Sshd
from tests.harness.waiting import wait_until

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()

pytestmark = [pytest.mark.root, pytest.mark.mount, pytest.mark.sshd, pytest.mark.timeout(400)]


def block(heading: str) -> list[str]:
    """The indented lines of a section, without their comments."""
    section = re.search(rf"^## {heading}\n(.*?)(?=^## )", README, re.DOTALL | re.MULTILINE)
    assert section, heading
    lines = re.findall(r"^    (\S.*)$", section[1], re.MULTILINE)
    return [re.sub(r"\s+#.*", "", line) for line in lines]


def test_from_pip_install_to_a_mounted_directory(
    space: Space, server: Sshd, export: Path, login: str, tmp_path: Path
) -> None:
    install = [line for line in block("Install") if not line.startswith("apt-get")]
    assert any(line.endswith("pip install .") for line in install)
    # In a copy: building leaves its files beside the source.
    space.run(f"git clone -q {ROOT} {tmp_path}/clone")
    for line in install:
        line = line.replace("python3 ", f"{sys.executable} ")
        done = space.run(f"cd {tmp_path}/clone && {line}", timeout_s=300)
    assert done.stdout.startswith("netfs ")
    space.run("mkdir -p /mnt/data")
    used = block("Use")
    first = used.index("netfs alice@server.example:/srv/data /mnt/data")
    # root's ssh_config in the namespace says how 127.0.0.1 is reached
    space.run(f"printf 'Port %s\\n' {server.port} >> /root/.ssh/config")
    for line in used[first : first + 4]:
        shown = line.replace("alice@server.example:/srv/data", server.source(export))
        done = space.run(shown.replace("netfs ", "/root/.local/netfs/bin/netfs ", 1))
        if line.startswith("ls"):
            assert done.stdout == "hello\n"
    wait_until(lambda: space.netfs_mounts() == [], 15, "unmounted")
    # the other command that pip makes
    helper = f"/root/.local/netfs/bin/mount.netfs {server.source(export)} /mnt/data -o ro"
    assert space.run(f"{helper} && cat /mnt/data/hello && umount /mnt/data").stdout == "hello\n"
    wait_until(lambda: space.netfs_mounts() == [], 15, "unmounted")


def test_every_page_the_readme_names_is_there() -> None:
    pages = re.findall(r"\]\(([^)#:]+)\)", README)
    assert len(pages) > 10
    assert [page for page in pages if not (ROOT / page).exists()] == []
