"""Trees of files made from a seed, and comparing two trees with their attributes."""

from __future__ import annotations

import hashlib
import os
import random
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

WORDS: Final = tuple(
    b.decode()
    for b in (
        b"return if else for while in not and or def class import from self value name path size "
        b"offset buffer request answer error number index count begin end length result table"
    ).split()
)
EPOCH: Final = 1_600_000_000  # the oldest mtime: whole seconds, long past


def source_text(rng: random.Random, size: int) -> bytes:
    """About *size* bytes that look like source: words, indentation, lines."""
    lines = []
    total = 0
    while total < size:
        words = " ".join(rng.choices(WORDS, k=rng.randint(2, 12)))
        line = " " * 4 * rng.randint(0, 3) + words + "\n"
        lines.append(line)
        total += len(line)
    return "".join(lines).encode()


def make_tree(
    root: Path, *, files: int = 800, directories: int = 80, seed: int = 1, links: bool = True
) -> int:
    """A source tree of *files* in *directories* below *root*; returns its bytes.

    Sizes are log-normal with a median of 4 KiB, as in real projects; a few files are large.
    *links* adds symbolic links that dangle.
    """
    rng = random.Random(seed)
    places = [root]
    root.mkdir(parents=True, exist_ok=True)
    for number in range(directories - 1):
        parent = rng.choice(places[-12:] if rng.random() < 0.7 else places)
        place = parent / f"{rng.choice(WORDS)}{number}"
        place.mkdir()
        places.append(place)
    total = 0
    for number in range(files):
        size = min(int(rng.lognormvariate(8.3, 1.1)), 400_000)
        path = rng.choice(places) / f"{rng.choice(WORDS)}_{number}.py"
        data = source_text(rng, size)
        path.write_bytes(data)
        path.chmod(rng.choice((0o644, 0o644, 0o644, 0o755, 0o600)))
        when = EPOCH + rng.randrange(100_000_000)
        os.utime(path, (when, when))
        total += len(data)
    for number, place in enumerate(places[::10] if links else ()):
        (place / f"link{number}").symlink_to("../" * rng.randint(0, 2) + "somewhere")
    for number, place in enumerate(reversed(places)):
        os.utime(place, (EPOCH + number, EPOCH + number))
    return total


def make_repository(path: Path, *, files: int = 120, commits: int = 4, seed: int = 2) -> Path:
    """A git repository with a history; its last commit is checked out."""
    make_tree(path, files=files, directories=max(2, files // 10), seed=seed)
    git(path, "init", "-q", "-b", "main")
    rng = random.Random(seed)
    everything = sorted(p for p in path.rglob("*.py"))
    for number in range(commits):
        for victim in rng.sample(everything, min(10, len(everything))):
            victim.write_bytes(source_text(rng, 3000))
        git(path, "add", "-A")
        git(path, "commit", "-q", "-m", f"change {number}")
    return path


def git(where: Path, *arguments: str, timeout_s: float = 100.0) -> str:
    """Run git in *where*, as nobody in particular and without any user's configuration."""
    environment = {
        **os.environ,
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_SYSTEM": "/dev/null",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "safe.directory",
        "GIT_CONFIG_VALUE_0": "*",
        **{f"GIT_{who}_NAME": "A Tester" for who in ("AUTHOR", "COMMITTER")},
        **{f"GIT_{who}_EMAIL": "tester@example.org" for who in ("AUTHOR", "COMMITTER")},
    }
    done = subprocess.run(
        ["git", *arguments],
        cwd=where,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )
    if done.returncode:
        raise RuntimeError(f"git {' '.join(arguments)}: {done.stderr.strip()[-2000:]}")
    return done.stdout


def describe(
    root: Path, *, times: bool = True, links: bool = False
) -> dict[str, tuple[object, ...]]:
    """Each name below *root* with what must survive a copy: type, mode, mtime, size, content.

    *links* adds which names are one file, where inode numbers tell it.
    """
    return dict(_walk(root, "", times, links))


def _walk(
    root: Path, prefix: str, times: bool, links: bool
) -> Iterator[tuple[str, tuple[object, ...]]]:
    for entry in sorted(os.scandir(root / prefix), key=lambda entry: entry.name):
        name = os.path.join(prefix, entry.name)
        found = entry.stat(follow_symlinks=False)
        facts: list[object] = [stat.S_IFMT(found.st_mode)]
        if not entry.is_symlink():
            facts.append(stat.S_IMODE(found.st_mode))
        if times and not entry.is_dir(follow_symlinks=False):
            facts.append(int(found.st_mtime))
        if links and stat.S_ISREG(found.st_mode):
            facts.append(found.st_nlink)
        if entry.is_symlink():
            facts.append(os.readlink(root / name))
        elif entry.is_file(follow_symlinks=False):
            facts += [found.st_size, digest(root / name)]
        yield name, tuple(facts)
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(root, name, times, links)


def digest(path: Path) -> str:
    """A file's SHA-256."""
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()
