"""``netfs completion bash|zsh|fish``: shell completion, made from the tables."""

from __future__ import annotations

from collections.abc import Sequence

from netfs.cli import options
from netfs.cli.exits import Exit
from netfs.cli.help import COMMANDS
from netfs.cli.options import Section
from netfs.cli.parse import UsageError

_HIDDEN = (Section.ACCEPTED, Section.FSTAB)
_ON_MOUNT = ("umount", "abort", "status", "ps", "reconnect")


def main(words: Sequence[str]) -> int:
    """Print the script for one shell."""
    match list(words):
        case ["bash"]:
            print(bash())
        case ["zsh"]:
            # zsh runs bash's completions
            print("autoload -U +X bashcompinit && bashcompinit\n" + bash())
        case ["fish"]:
            print(fish())
        case _:
            raise UsageError("usage: netfs completion bash|zsh|fish")
    return Exit.OK


def _shown() -> list[options.Option]:
    return [option for option in options.OPTIONS if option.section not in _HIDDEN]


def _words() -> list[str]:
    """All words for -o; those of few values with their values, others ending in '='."""
    words = []
    for option in _shown():
        if option.kind is None:
            words.append(option.name)
        elif option.kind.words:
            words += [f"{option.name}={value}" for value in option.kind.words]
        else:
            words.append(f"{option.name}=")
    return words


def bash() -> str:
    """The function for bash."""
    return f"""\
# netfs completion; source it, or put it into /usr/share/bash-completion/completions/netfs
_netfs() {{
    local current previous list point
    COMPREPLY=()
    current=${{COMP_WORDS[COMP_CWORD]}}
    previous=${{COMP_WORDS[COMP_CWORD-1]}}
    # '=' and ':' split words; the list after -o is taken from the line itself
    list=${{COMP_LINE:0:COMP_POINT}}
    list=${{list##* }}
    if [[ ${{COMP_LINE:0:COMP_POINT}} =~ [[:space:]]-o[[:space:]]*[^[:space:]]*$ ]]; then
        list=${{list#-o}}
        local last=${{list##*,}} word
        local head=${{list%"$last"}}
        compopt -o nospace
        for word in {" ".join(_words())}; do
            [[ $word == "$last"* ]] || continue
            word=$head$word
            # readline replaces only what follows the last break
            COMPREPLY+=("${{word#"${{list%"$current"}}"}}")
        done
        return
    fi
    case ${{COMP_WORDS[1]}} in
        {"|".join(_ON_MOUNT)})
            point=$(netfs list 2>/dev/null | awk '{{print $(NF-1)}}')
            COMPREPLY=($(compgen -W "$point --json" -- "$current"))
            return ;;
        completion)
            COMPREPLY=($(compgen -W "bash zsh fish" -- "$current"))
            return ;;
    esac
    case $previous in
        -F) COMPREPLY=($(compgen -f -- "$current")); return ;;
    esac
    if [[ $COMP_CWORD == 1 ]]; then
        COMPREPLY=($(compgen -W "{" ".join(COMMANDS)}" -A hostname -S "" -- "$current"))
    elif [[ $current == -* ]]; then
        COMPREPLY=($(compgen -W "-o -p -F -C -f -d -v -h -V" -- "$current"))
    else
        COMPREPLY=($(compgen -d -- "$current"))
    fi
}}
complete -F _netfs netfs"""


def fish() -> str:
    """The commands for fish."""
    lines = ["# netfs completion; put it into ~/.config/fish/completions/netfs.fish"]
    names = " ".join(COMMANDS)
    for name, text in COMMANDS.items():
        lines.append(
            f"complete -c netfs -n 'not __fish_seen_subcommand_from {names}' -a {name} "
            f"-d {_quoted(text)}"
        )
    lines.append(
        f"complete -c netfs -n '__fish_seen_subcommand_from {' '.join(_ON_MOUNT)}' -f "
        "-a \"(netfs list | awk '{print $(NF-1)}')\""
    )
    lines.append("complete -c netfs -n '__fish_seen_subcommand_from completion' -a 'bash zsh fish'")
    for option in _shown():
        shown = option.name if option.kind is None else f"{option.name}="
        described = shown + "\t" + (option.help or "see ssh_config(5)")
        lines.append(f"complete -c netfs -s o -x -a {_quoted(described)}")
    return "\n".join(lines)


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
