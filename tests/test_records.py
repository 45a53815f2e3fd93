"""The decision records: each has a number of its own, a status, and a line in the index."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

RECORDS: Final = Path(__file__).resolve().parents[1] / "docs" / "adr"


def records() -> dict[str, str]:
    """File name -> title, in order."""
    found = {}
    for path in sorted(RECORDS.glob("[0-9]*.md")):
        first = path.read_text().splitlines()[0]
        match = re.fullmatch(r"# (\d{4}):? (.+)", first)
        assert match, f"{path.name}: the first line must be '# NNNN: Title'"
        assert match[1] == path.name[:4], f"{path.name}: its title has another number"
        found[path.name] = match[2]
    return found


def test_numbers_are_not_used_twice() -> None:
    numbers = [name[:4] for name in records()]
    assert len(numbers) == len(set(numbers))


def test_each_record_has_a_status() -> None:
    for name in records():
        assert re.search(
            r"^\**Status", (RECORDS / name).read_text(), re.MULTILINE | re.IGNORECASE
        ), name


def test_the_index_names_each_record() -> None:
    lines = [f"| [{name[:4]}]({name}) | {title} |" for name, title in records().items()]
    index = (RECORDS / "README.md").read_text()
    missing = [line for line in lines if line not in index]
    assert not missing, "add to docs/adr/README.md:\n" + "\n".join(missing)
