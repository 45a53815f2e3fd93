"""The optional libraries of asyncssh are found without running other programs."""

from __future__ import annotations

import ctypes.util
import subprocess
import sys
from pathlib import Path

import pytest

from netfs import libraries

_TELLS = """
import sys
from netfs import libraries

started = []
sys.addaudithook(
    lambda event, arguments: event in ("subprocess.Popen", "os.posix_spawn", "os.exec")
    and started.append(arguments)
)
with libraries.found_in_loader_cache():
    import {module}
print("asyncssh" in sys.modules, started)
"""


@pytest.mark.parametrize(
    "module", ["netfs.client.daemon", "netfs.server.listener", "netfs.cli.checks_server"]
)
def test_starting_runs_no_other_program(module: str) -> None:
    code = _TELLS.format(module=module)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "True []\n"


@pytest.mark.parametrize("name", ["c", "m", "z", "stdc++", "no-such-library", "c.", "(c"])
def test_what_is_found_is_what_the_standard_library_finds(name: str) -> None:
    assert libraries.find_library(name) == ctypes.util.find_library(name)


def test_what_cannot_be_loaded_is_not_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    cache.write_bytes(
        b"glibc-ld.so.cache1.1\0\1\2\3\0libelsewhere.so.3\0/lib32/libelsewhere.so.3\0"
    )
    monkeypatch.setattr(libraries, "LOADER_CACHE", cache)
    assert libraries.find_library("elsewhere") is None
    assert libraries.find_library("c") is None


@pytest.mark.parametrize("reason", ["no cache", "LD_LIBRARY_PATH"])
def test_where_the_cache_cannot_tell_the_standard_library_searches(
    reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    if reason == "no cache":
        monkeypatch.setattr(libraries, "LOADER_CACHE", tmp_path / "none")
    else:
        monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    asked = []
    monkeypatch.setattr(libraries, "_search", lambda name: asked.append(name) or "libfound.so.1")
    assert libraries.find_library("oqs") == "libfound.so.1"
    assert asked == ["oqs"]


def test_the_standard_library_is_as_before_afterwards() -> None:
    before = ctypes.util.find_library
    with libraries.found_in_loader_cache():
        assert ctypes.util.find_library is libraries.find_library
    assert ctypes.util.find_library is before
