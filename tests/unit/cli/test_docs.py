"""Help, docs, man pages and completion are made from the tables and do not drift."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from netfs import __version__
from netfs.cli import completion, docs, exits, help, options
from netfs.cli.exits import Exit
from netfs.cli.main import main

PROJECT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    "name", ["docs/options.md", "man/netfs.1", "man/netfs-serve.1", "man/mount.netfs.8"]
)
def test_what_is_in_the_tree_is_what_is_made(name: str) -> None:
    made = docs.files()[name]
    assert (PROJECT / name).read_text() == made, "run: python -m netfs.cli.docs"


def test_each_option_and_exit_code_is_in_help_and_docs() -> None:
    text, page = help.help_text(), docs.options_page()
    for option in options.OPTIONS:
        assert option.name in text
        assert f"`{option.usage}`" in page or f"`{option.name}`" in page
    for code in Exit:
        assert f"\n  {int(code)} " in text
        assert f"| {int(code)} | {exits.MEANING[code]}" in page


@pytest.mark.parametrize("words", [["-h"], ["--help"], ["help"], ["host:", "/mnt", "-h"]])
def test_help_is_asked_for(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    assert capsys.readouterr().out == help.help_text() + "\n"


@pytest.mark.parametrize("words", [["-V"], ["--version"], ["host:", "/mnt", "-V"]])
def test_the_version_is_asked_for(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    assert capsys.readouterr().out.startswith(f"netfs {__version__} (asyncssh ")


def test_without_words_the_help_is_shown_as_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == Exit.USAGE
    assert "usage: netfs" in capsys.readouterr().out


def test_the_readme_lists_the_exit_codes() -> None:
    table = (PROJECT / "README.md").read_text()
    for code in Exit:
        if code is not Exit.REMOUNT:  # the worker tells it to the supervisor, users never see it
            assert f"| {int(code)} | {exits.MEANING[code]} |" in table


def test_the_man_pages_are_free_of_warnings() -> None:
    if shutil.which("groff") is None:
        pytest.skip("groff is not installed")
    for name, text in docs.files().items():
        if name.startswith("man/"):
            done = subprocess.run(
                ["groff", "-man", "-ww", "-z", "-Tutf8"], input=text, text=True, capture_output=True
            )
            assert not done.stderr


def complete(line: str) -> set[str]:
    """What bash offers at the end of *line*."""
    script = completion.bash() + (
        f"\ncompopt() {{ :; }}\nCOMP_LINE={line!r}; COMP_POINT=${{#COMP_LINE}}\n"
        'read -r -a COMP_WORDS <<< "$COMP_LINE"\n'
        "[[ $COMP_LINE == *' ' ]] && COMP_WORDS+=('')\n"
        "COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 )); _netfs; printf '%s\\n' \"${COMPREPLY[@]}\"\n"
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert not done.stderr
    return set(done.stdout.split())


def test_bash_completes_commands_options_and_letters() -> None:
    assert {"status", "serve", "umount"} <= complete("netfs ")
    assert complete("netfs sta") == {"status"}
    assert complete("netfs host: /mnt -o link_t") == {"link_timeout="}
    assert complete("netfs host: /mnt -o ro,idm") == {
        "ro,idmap=none",
        "ro,idmap=user",
        "ro,idmap=file",
    }
    assert complete("netfs completion z") == {"zsh"}


def test_fish_names_each_word() -> None:
    text = completion.fish()
    assert "link_timeout=\t" in text
    assert "-a umount" in text


def test_each_exit_code_has_a_meaning_and_mount_s_codes_are_few() -> None:
    assert set(exits.MEANING) == set(Exit)
    assert {exits.for_mount(code) for code in Exit} == {0, 1, 2, 8, 32}
