"""Who may import whom (docs/design.md), read from the source: a lazy import counts as well."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[1]
PACKAGE: Final = ROOT / "netfs"

MAY: Final[dict[str, tuple[str, ...]]] = {
    "netfs.wire": (),
    "netfs.buffers": (),
    "netfs.fuse": ("netfs.wire", "netfs.fuse"),
    "netfs.sftp": ("netfs.wire", "netfs.buffers", "netfs.sftp"),
    "netfs.sshfast": ("netfs.wire", "netfs.buffers", "netfs.sshfast"),
    "netfs.libraries": (),
    "netfs.systemd": (),
    "netfs.supervisor": ("netfs.supervisor", "netfs.systemd"),
    "netfs.client.remote": (
        "netfs.wire",
        "netfs.buffers",
        "netfs.sftp",
        "netfs.client.remote",
        "netfs.client.config",
        "netfs.client.turns",
        "netfs.sshfast",
    ),
}
"""Module prefix -> what of netfs it may import. ``netfs`` itself (the version): always."""

NEVER: Final[dict[str, tuple[str, ...]]] = {
    "netfs.client": ("netfs.server", "netfs.cli", "netfs.supervisor"),
    "netfs.server": ("netfs.client", "netfs.cli", "netfs.supervisor", "netfs.fuse"),
    "netfs.client.operations": ("netfs.client.remote.session", "netfs.client.remote.requester"),
}
"""Module prefix -> what of netfs it must not know."""

HOMES: Final[dict[str, tuple[str, ...]]] = {
    "asyncssh": (
        "netfs.client.remote.ssh",
        "netfs.client.remote.sshdial",
        "netfs.client.remote.sshkeys",
        "netfs.client.remote.sshlogin",
        "netfs.server.channel",
        "netfs.server.hostkeys",
        "netfs.server.listener",
        "netfs.server.run",
        "netfs.sshfast",
    ),
    # what the standard library lacks: mount(2), umount2(2), openat2(2), mallopt(3), dlopen(3)
    "ctypes": (
        "netfs.cli.mount",
        "netfs.client.heap",
        "netfs.client.mount",
        "netfs.libraries",
        "netfs.server.kernel",
        "netfs.supervisor.fusectl",
        "netfs.supervisor.mounts",
    ),
    "prometheus_client": ("netfs.client.metrics",),
    "uvloop": ("netfs.client.daemon", "netfs.server", "netfs.cli"),
}
"""A library -> the only modules that may use it."""

PURE: Final = ("netfs.wire", "netfs.buffers", "netfs.fuse", "netfs.sftp")
IMPURE: Final = frozenset({"asyncio", "socket", "time", "random", "subprocess", "threading"})


def module_of(path: Path) -> str:
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path) -> dict[str, int]:
    """Absolute names imported anywhere in the file -> line."""
    found: dict[str, int] = {}
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            found |= {alias.name: node.lineno for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            module = node.module or ""
            for alias in node.names:
                name = f"{module}.{alias.name}"
                whole = ROOT.joinpath(*name.split("."))
                is_module = whole.is_dir() or whole.with_suffix(".py").exists()
                found[name if is_module else module] = node.lineno
    return found


def below(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def longest(table: dict[str, tuple[str, ...]], module: str) -> str | None:
    return max((key for key in table if below(module, key)), key=len, default=None)


SOURCES: Final = sorted(PACKAGE.rglob("*.py"))
NAMES: Final = {module_of(path): imports_of(path) for path in SOURCES}


def violations(module: str) -> list[str]:
    found = []
    may = longest(MAY, module)
    for name, line in NAMES[module].items():
        ours = below(name, "netfs") and name != "netfs"
        if ours and may is not None and not any(below(name, prefix) for prefix in MAY[may]):
            found.append(f"line {line}: {may} must not import {name}")
        for prefix, banned in NEVER.items():
            if below(module, prefix) and any(below(name, ban) for ban in banned):
                found.append(f"line {line}: {prefix} must not know {name}")
        library = name.split(".")[0]
        if library in HOMES and not any(below(module, home) for home in HOMES[library]):
            found.append(f"line {line}: {library} is used only in {', '.join(HOMES[library])}")
        if library in IMPURE and any(below(module, pure) for pure in PURE):
            found.append(f"line {line}: a codec must not import {name}")
        foreign = not ours and library not in sys.stdlib_module_names and library != "netfs"
        if foreign and below(module, "netfs.supervisor"):
            found.append(f"line {line}: the supervisor is stdlib only, not {name}")
    return found


@pytest.mark.parametrize("module", list(NAMES))
def test_a_module_imports_only_what_its_layer_may(module: str) -> None:
    assert not violations(module)


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    edges = {
        module: {name for name in names if name in NAMES and name != module}
        for module, names in NAMES.items()
    }
    typing_only = {module: _typing_imports(ROOT, module) for module in NAMES}
    finished: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " -> ".join((*way[way.index(module) :], module))
        if module not in finished:
            for other in sorted(edges[module] - typing_only[module]):
                visit(other, (*way, module))
            finished.add(module)

    for module in sorted(edges):
        visit(module, ())


def _typing_imports(root: Path, module: str) -> set[str]:
    """Names imported only for type checkers, or inside a function (which runs later)."""
    path = root.joinpath(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    tree = ast.parse(path.read_bytes())
    early: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.Import):
            early |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            early.add(node.module or "")
            early |= {f"{node.module}.{alias.name}" for alias in node.names}
    return set(NAMES[module]) - early


def test_the_checker_sees_a_lazy_import(tmp_path: Path) -> None:
    path = tmp_path / "m.py"
    path.write_text("def f():\n    import asyncssh.sftp\n    from netfs.client import config\n")
    assert imports_of(path) == {"asyncssh.sftp": 2, "netfs.client.config": 3}
