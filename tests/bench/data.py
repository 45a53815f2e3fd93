"""The trees and files that the benchmark works on, made once per run from seeds."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.harness.trees import git, make_tree

MIB = 1 << 20


@dataclass(frozen=True)
class Sizes:
    """How much of everything."""

    files: int = 800
    directories: int = 80
    many: int = 10_000
    modules: int = 300
    units: int = 12
    big_mib: int = 256
    small_writes: int = 4096  # of 4 KiB
    random_reads: int = 400
    stats: int = 400
    creates: int = 200
    entries: int = 100_000
    bulk_s: float = 5.0


QUICK = Sizes(
    files=160, directories=16, many=1500, modules=60, units=6, big_mib=48, small_writes=1024,
    random_reads=100, stats=100, creates=50, entries=10_000, bulk_s=3.0,
)  # fmt: skip


@dataclass(frozen=True)
class Data:
    """Paths on the server's side, and a local directory for what is copied out."""

    server: Path
    local: Path
    sizes: Sizes

    @property
    def archive(self) -> Path:
        """A tar of the tree, on the client's side."""
        return self.local / "tree.tar"


def prepare(server: Path, local: Path, sizes: Sizes) -> Data:
    """Make everything below *server*, and the archive in *local*."""
    server.mkdir(parents=True)
    local.mkdir(parents=True)
    data = Data(server, local, sizes)
    # No symbolic links: sshfs as root fails to set their owner and times, so tar and cp would fail.
    make_tree(server / "tree", files=sizes.files, directories=sizes.directories, links=False)
    subprocess.run(["tar", "-C", server / "tree", "-cf", data.archive, "."], check=True)
    subprocess.run(["cp", "-a", server / "tree", server / "repo"], check=True)
    git(server / "repo", "init", "-q", "-b", "main")
    git(server / "repo", "add", "-A")
    git(server / "repo", "commit", "-q", "-m", "all of it")
    subprocess.run(["cp", "-a", server / "repo", local / "origin"], check=True)
    (server / "many").mkdir()
    for number in range(sizes.many):
        (server / "many" / f"file-{number:06}").touch()
    make_package(server / "lib" / "package", sizes.modules)
    make_project(server / "project", sizes.units)
    with (server / "big").open("wb") as file:
        for _ in range(sizes.big_mib):
            file.write(os.urandom(MIB))
    (server / "out").mkdir()
    return data


def make_package(place: Path, count: int) -> None:
    """A Python package whose import loads *count* modules, none of them compiled before."""
    place.mkdir(parents=True)
    for number in range(count):
        body = "\n".join(f"def f{n}(x):\n    return x + {n}\n" for n in range(20))
        (place / f"m{number}.py").write_text(body)
    names = "\n".join(f"from package import m{number}" for number in range(count))
    (place / "__init__.py").write_text(names + "\n")


def make_project(place: Path, units: int) -> None:
    """A C project of *units* files that share headers."""
    place.mkdir()
    (place / "include").mkdir()
    for number in range(10):
        lines = "".join(f"int g{number}_{n}(int);\n" for n in range(50))
        (place / "include" / f"h{number}.h").write_text(lines)
    headers = "".join(f'#include "include/h{number}.h"\n' for number in range(10))
    for unit in range(units):
        (place / f"u{unit}.c").write_text(f"{headers}int u{unit}(int x) {{ return x + {unit}; }}\n")
    calls = " + ".join(f"u{unit}(1)" for unit in range(units))
    declarations = "".join(f"int u{unit}(int);\n" for unit in range(units))
    (place / "main.c").write_text(f"{declarations}int main(void) {{ return !({calls}); }}\n")
    objects = " ".join(f"u{unit}.o" for unit in range(units))
    (place / "Makefile").write_text(
        f"prog: main.o {objects}\n\tcc -o $@ $^\n%.o: %.c\n\tcc -c -o $@ $<\n"
    )


def warm(data: Data) -> None:
    """Bring what the server has into its page cache: disks are not what is measured."""
    command = (
        "find . -type f -not -path './many/*' -print0 | xargs -0 cat >/dev/null; "
        "ls -lR . >/dev/null"
    )
    subprocess.run(["sh", "-c", command], cwd=data.server, check=True)
