"""Names of another character set: both ways, and never to another file."""

from __future__ import annotations

import pytest

from netfs.client.remote.charset import Charset


@pytest.mark.parametrize(
    ("there", "here", "name", "shown"),
    [
        ("cp1251", "utf-8", b"\xf4", "ф".encode()),
        ("utf-8", "cp1251", "ф".encode(), b"\xf4"),
        ("latin-1", "utf-8", b"caf\xe9", "café".encode()),
        ("utf-8", "utf-8", "é".encode(), "é".encode()),
        ("cp1251", "utf-8", b"\x98", None),  # nothing there
        ("utf-8", "utf-8", b"caf\xe9", None),  # not UTF-8
        ("utf-8", "latin-1", "漢".encode(), None),  # nothing here
        ("iso2022_jp", "utf-8", b"\x1b(J..", None),  # a roundabout way to write '..'
        ("iso2022_jp", "utf-8", b"\x1b(Ja", None),  # shown as 'a', which leads to 'a'
    ],
)
def test_a_name_is_shown_if_it_leads_back(
    there: str, here: str, name: bytes, shown: bytes | None
) -> None:
    charset = Charset(there, here)
    assert charset.shown(name) == shown
    if shown is not None:
        assert charset.to_there(shown) == name


def test_what_can_t_be_written_there_is_refused() -> None:
    with pytest.raises(OSError, match="Invalid or incomplete"):
        Charset("cp1251", "utf-8").to_there("漢".encode())
    with pytest.raises(OSError, match="Invalid or incomplete"):
        Charset("cp1251", "utf-8").to_there(b"\xff")
