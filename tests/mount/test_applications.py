"""Everyday programs on a real mount of a real OpenSSH server, checked again after a remount."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Mounter
from tests.harness.packages import require
from tests.harness.trees import describe, git, make_repository, make_tree

pytestmark = [pytest.mark.mount, pytest.mark.sshd]

LONG = bool(os.environ.get("NETFS_TEST_LONG"))


def run(*command: str | Path, timeout_s: float = 100.0, **more: Any) -> str:
    done: subprocess.CompletedProcess[str] = subprocess.run(
        [os.fspath(word) for word in command],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        **more,
    )
    assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout


def test_git_clones_commits_and_is_clean_after_a_remount(
    mount_at: Mounter, remote: Path, tmp_path: Path
) -> None:
    require("git")
    origin = make_repository(tmp_path / "origin")
    mount = mount_at(remote)
    work = mount.path / "work"
    git(mount.path, "clone", "-q", str(origin), "work")
    assert git(work, "status", "--porcelain") == ""
    changed = sorted(work.rglob("*.py"))[7]
    with changed.open("a") as file:
        file.write("# changed on the mount\n")
    assert git(work, "status", "--porcelain").split() == ["M", str(changed.relative_to(work))]
    git(work, "commit", "-q", "-a", "-m", "from the mount")
    git(work, "branch", "side", "HEAD~2")
    git(work, "checkout", "-q", "side")
    git(work, "checkout", "-q", "main")
    git(work, "gc", "-q")
    git(work, "fsck", "--full", "--strict")
    assert mount.unmount() == 0
    work = mount_at(remote).path / "work"
    assert git(work, "status", "--porcelain") == ""
    assert git(work, "log", "-1", "--format=%s") == "from the mount\n"
    git(work, "fsck", "--full")


def test_tar_extracts_the_same_tree_as_on_a_local_disk(
    mount_at: Mounter, remote: Path, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    make_tree(tree, files=250, directories=25)
    archive = tmp_path / "tree.tar"
    run("tar", "-C", tree, "-cf", archive, ".")
    mount = mount_at(remote)
    run("tar", "-C", mount.path, "-xpf", archive)
    expected = describe(tree)
    assert describe(mount.path) == expected
    assert describe(remote) == expected
    assert mount.unmount() == 0
    assert describe(mount_at(remote).path) == expected


def test_rsync_finds_nothing_to_do_after_rsync(
    mount_at: Mounter, remote: Path, tmp_path: Path
) -> None:
    require("rsync")
    tree = tmp_path / "tree"
    make_tree(tree, files=200, directories=20)
    mount = mount_at(remote)
    run("rsync", "-a", f"{tree}/", f"{mount.path}/")
    assert run("rsync", "-aci", "--dry-run", f"{tree}/", f"{mount.path}/") == ""
    assert mount.unmount() == 0
    mount = mount_at(remote)
    assert run("rsync", "-aci", "--dry-run", f"{tree}/", f"{mount.path}/") == ""
    (tree / "new").write_text("new")
    victim = sorted(tree.rglob("*.py"))[3]
    victim.unlink()
    run("rsync", "-a", "--delete", f"{tree}/", f"{mount.path}/")
    assert describe(remote) == describe(tree)


@pytest.mark.parametrize("journal", ["delete", "wal", "truncate"])
def test_sqlite_keeps_its_integrity(mount_at: Mounter, remote: Path, journal: str) -> None:
    mount = mount_at(remote)
    path = mount.path / "data.db"
    with sqlite3.connect(path, timeout=20) as base:
        assert base.execute(f"pragma journal_mode={journal}").fetchone() == (journal,)
        base.execute("create table t (id integer primary key, body blob, mark text)")
        base.execute("create index i on t (mark)")
        for round_ in range(12):
            with base:
                base.executemany(
                    "insert into t (body, mark) values (?, ?)",
                    [(os.urandom(700), f"{round_}-{n}") for n in range(40)],
                )
            with base:
                base.execute("delete from t where id % 7 = ?", (round_ % 7,))
        base.rollback()
        count = base.execute("select count(*) from t").fetchone()
        assert base.execute("pragma integrity_check").fetchone() == ("ok",)
    base.close()
    assert mount.unmount() == 0
    path = mount_at(remote).path / "data.db"
    require("sqlite3")
    assert run("sqlite3", path, "pragma integrity_check; select count(*) from t;") == (
        f"ok\n{count[0]}\n"
    )
    check = sqlite3.connect(remote / "data.db")
    assert check.execute("pragma integrity_check").fetchone() == ("ok",)
    check.close()


def test_make_builds_a_c_program_and_then_has_nothing_to_do(
    mount_at: Mounter, remote: Path
) -> None:
    require("make")
    require("cc")
    mount = mount_at(remote)
    place = mount.path / "project"
    place.mkdir()
    units = range(8)
    (place / "all.h").write_text("".join(f"int f{n}(int);\n" for n in units))
    for n in units:
        (place / f"f{n}.c").write_text(f'#include "all.h"\nint f{n}(int x) {{ return x + {n}; }}\n')
    calls = " + ".join(f"f{n}(1)" for n in units)
    (place / "main.c").write_text(
        f'#include <stdio.h>\n#include "all.h"\nint main(void) {{ printf("%d\\n", {calls}); }}\n'
    )
    objects = " ".join(["main.o", *(f"f{n}.o" for n in units)])
    (place / "Makefile").write_text(
        f"prog: {objects}\n\tcc -o $@ $^\n%.o: %.c all.h\n\tcc -c -o $@ $<\n"
    )
    run("make", "-s", "-j2", cwd=place)
    assert run(place / "prog") == "36\n"
    assert "up to date" in run("make", "-j2", cwd=place)
    assert mount.unmount() == 0
    place = mount_at(remote).path / "project"
    assert "up to date" in run("make", "-j2", cwd=place)
    assert run(place / "prog") == "36\n"


def test_a_virtual_environment_works_on_the_mount(mount_at: Mounter, remote: Path) -> None:
    mount = mount_at(remote)
    place = mount.path / "venv"
    run(sys.executable, "-m", "venv", *([] if LONG else ["--without-pip"]), place)
    python = place / "bin" / "python"
    assert run(python, "-c", "import sys; print(sys.prefix)") == f"{place}\n"
    package = place / "lib" / "package"
    package.mkdir()
    make_modules(package, 60)
    run(python, "-m", "compileall", "-q", "-j2", package)
    assert len(list(package.rglob("*.pyc"))) == 60
    code = "import package.m59 as m; print(m.VALUE, m.__cached__.endswith('.pyc'))"
    assert run(python, "-c", code, env={"PYTHONPATH": str(package.parent)}) == "59 True\n"


def make_modules(package: Path, count: int) -> None:
    """A package whose modules import each other, one after another."""
    (package / "m0.py").write_text("VALUE = 0\n")
    for n in range(1, count):
        (package / f"m{n}.py").write_text(
            f"from package import m{n - 1}\nVALUE = m{n - 1}.VALUE + 1\n"
        )


def test_cp_keeps_attributes_links_and_holes(
    mount_at: Mounter, remote: Path, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    make_tree(tree, files=120, directories=12)
    first = sorted(tree.rglob("*.py"))[0]
    os.link(first, tree / "another name")
    (tree / "dangling").symlink_to("/nowhere/at/all")
    odd = os.fsencode(tree) + b"/not utf-8 \xff\xfe"
    with open(odd, "wb") as file:
        file.write(b"odd name")
    with open(tree / "sparse", "wb") as file:
        file.truncate(3_000_000)
        file.seek(1_000_000)
        file.write(b"middle")
    os.chmod(tree / "sparse", 0o4750)
    mount = mount_at(remote)
    run("cp", "-a", f"{tree}/.", mount.path)
    expected = describe(tree)
    assert describe(mount.path) == expected
    assert describe(remote, links=True) == describe(tree, links=True)
    back = tmp_path / "back"
    run("cp", "-a", mount.path, back)
    assert describe(back) == expected


def test_fio_verifies_four_writers(mount_at: Mounter, remote: Path) -> None:
    require("fio")
    mount = mount_at(remote)
    output = run(
        "fio", "--name=verify", "--verify_state_save=0",
        f"--directory={mount.path}", "--numjobs=4", "--size=12M",
        "--rw=randwrite", "--bsrange=1k-64k", "--verify=crc32c", "--do_verify=1",
        "--verify_fatal=1", "--ioengine=psync", "--fsync=64", "--group_reporting",
        "--randseed=7", "--fallocate=none",
    )  # fmt: skip
    assert "err= 0" in output


@pytest.mark.timeout(900 if LONG else 120)
def test_a_directory_of_many_files_is_filled_listed_and_emptied(
    mount_at: Mounter, remote: Path
) -> None:
    count = 100_000 if LONG else 3_000
    mount = mount_at(remote)
    place = mount.path / "many"
    place.mkdir()
    names = [f"file-{n:06}" for n in range(count)]
    for name in names:
        os.close(os.open(place / name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
    assert sorted(os.listdir(place)) == names
    assert len(os.listdir(remote / "many")) == count
    found = 0
    with os.scandir(place) as entries:  # removing while the listing is being read
        for entry in entries:
            os.unlink(place / entry.name)
            found += 1
    assert found == count
    assert os.listdir(place) == []
    os.rmdir(place)
    assert os.listdir(remote) == []
