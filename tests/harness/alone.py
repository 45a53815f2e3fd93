"""A pytest plugin: what failed beside other tests is run once more alone, and counted openly.

Loaded by ``script/test`` with ``-p``; acts only in the process that controls pytest-xdist. A test
that passes alone is shown as "passed only alone" with its first failure still printed above; one
that fails again stays a failure.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Final

import pytest

LIMIT: Final = 15  # more failures than this are no accident of load
PASSED_ALONE: Final = "passed only alone"


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Run each failed test again by itself, after the workers are gone."""
    config = session.config
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if hasattr(config, "workerinput") or reporter is None or not config.getoption("numprocesses"):
        return
    failed = reporter.stats.get("failed", []) + reporter.stats.get("error", [])
    names = list(dict.fromkeys(report.nodeid for report in failed))
    if not names or len(names) > LIMIT:
        return
    reporter.section("again, each alone")
    passed = set()
    for name in names:
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", name]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        reporter.write_line(f"{name}: {'passed' if done.returncode == 0 else 'FAILED again'}")
        if done.returncode == 0:
            passed.add(name)
        else:
            reporter.write_line(done.stdout[-8000:])
    moved = [report for report in failed if report.nodeid in passed]
    for kind in ("failed", "error"):
        kept = [report for report in reporter.stats.get(kind, []) if report not in moved]
        reporter.stats.pop(kind, None)
        if kept:
            reporter.stats[kind] = kept
    if moved:
        reporter.stats[PASSED_ALONE] = moved
    if len(passed) == len(names) and session.exitstatus == pytest.ExitCode.TESTS_FAILED:
        session.exitstatus = pytest.ExitCode.OK


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the tests that passed only alone: load may hide a race there."""
    for report in terminalreporter.stats.get(PASSED_ALONE, []):
        terminalreporter.section(f"failed beside others, passed alone: {report.nodeid}")
        terminalreporter.write_line(report.longreprtext)
