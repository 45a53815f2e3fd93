"""``netfs serve``: its arguments become a ServerConfig, its failures one line.

What the server does is in ``netfs.server``.
"""

from __future__ import annotations

import argparse
import getpass
import logging
import logging.handlers
import os
import sys
from typing import Final

from netfs.server.config import LimitsConfig, ServerConfig

_DESCRIPTION: Final = """\
Export a directory over SFTP.  Any SFTP client works with it, and no client gets outside the
directory.  Set-ups to copy: docs/server.md.
"""

DEFAULT_LISTEN: Final = "127.0.0.1:2022"


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("netfs serve", description=_DESCRIPTION, allow_abbrev=False)
    limits = LimitsConfig()
    add = parser.add_argument_group("what is exported").add_argument
    add("--root", metavar="DIR", help="the directory")
    add("--read-only", action="store_true", help="refuse all that changes something")
    add("--one-file-system", action="store_true", help="do not enter mounts below the root")
    add("--umask", type=_octal, metavar="OCTAL", help="of files and directories that are made")
    add("--user", metavar="USER[:GROUP]", help="become this user once the sockets are bound")
    add = parser.add_argument_group("how it is reached").add_argument
    add(
        "--stdio",
        action="store_true",
        help="one session on stdin and stdout: an sshd's Subsystem, sshfs's sftp_server=",
    )
    add(
        "--listen",
        action="append",
        type=_address,
        metavar="[ADDR]:PORT",
        help=f"listen there (may be given often; default {DEFAULT_LISTEN}; without an address on"
        " all); sockets that systemd passes are used instead",
    )
    add(
        "--host-key",
        action="append",
        metavar="FILE",
        help="the server's private key, made if it is not there (default: host_key in"
        " /var/lib/netfs or ~/.local/state/netfs)",
    )
    add = parser.add_argument_group("who may log in").add_argument
    add(
        "--authorized-keys",
        action="append",
        metavar="FILE",
        help='public keys with options, as sshd\'s; also root="DIR" and read-only (default:'
        " ~/.ssh/authorized_keys if none of these options is given)",
    )
    add(
        "--user-ca",
        action="append",
        metavar="FILE",
        help="public keys whose user certificates are taken",
    )
    add("--passwords", metavar="FILE", help="lines of user:hash")
    add(
        "--hash-password",
        action="store_true",
        help="read a password, print its hash for the file, and end",
    )
    add = parser.add_argument_group("limits").add_argument
    add(
        "--max-handles",
        type=_positive,
        default=limits.max_handles,
        metavar="N",
        help="open files and directories of a session (default %(default)s)",
    )
    add(
        "--max-sessions",
        type=_positive,
        default=limits.max_sessions,
        metavar="N",
        help="sessions altogether (default %(default)s)",
    )
    add(
        "--max-sessions-per-key",
        type=_positive,
        default=limits.max_sessions_per_user,
        metavar="N",
        help="sessions of one key, authority or password (default %(default)s)",
    )
    add(
        "--max-logins",
        type=_positive,
        default=limits.max_logins,
        metavar="N",
        help="connections that are not logged in yet (default %(default)s)",
    )
    add(
        "--max-failures",
        type=_positive,
        default=limits.max_failures,
        metavar="N",
        help="refused keys and passwords of a connection (default %(default)s)",
    )
    add(
        "--login-timeout",
        type=_positive,
        default=int(limits.login_s),
        metavar="SECONDS",
        help="to log in (default %(default)s)",
    )
    add(
        "--keepalive",
        type=_positive,
        default=int(limits.keepalive_s),
        metavar="SECONDS",
        help="ask a silent client so often; three questions without an answer end its connection"
        " (default %(default)s)",
    )
    add(
        "--stall-timeout",
        type=_positive,
        default=int(limits.stall_s),
        metavar="SECONDS",
        help="disconnect a client that does not take its answers (default %(default)s)",
    )
    add = parser.add_argument_group("log").add_argument
    add("--log-requests", action="store_true", help="log each request (no contents)")
    add(
        "--log-file",
        metavar="FILE",
        help="append there (default: stderr; with --stdio the system log)",
    )
    return parser  # fmt: skip


def _octal(text: str) -> int:
    value = int(text, 8)
    if not 0 <= value <= 0o777:
        raise ValueError
    return value


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def _address(text: str) -> tuple[str, int]:
    """``ADDR:PORT``, ``:PORT``, ``[V6]:PORT`` or ``PORT``."""
    host, _, port = text.rpartition(":")
    number = int(port)
    if not 0 <= number <= 65535 or (":" in host and not host.startswith("[")):
        raise ValueError
    return host.removeprefix("[").removesuffix("]"), number


def make_config(arguments: argparse.Namespace) -> ServerConfig:
    """The configuration that *arguments* describe."""
    keys = tuple(arguments.authorized_keys or ())
    if not keys and not arguments.user_ca and arguments.passwords is None:
        own = os.path.expanduser("~/.ssh/authorized_keys")
        keys = (own,) if os.path.exists(own) else ()
    return ServerConfig(
        root=arguments.root,
        read_only=arguments.read_only,
        one_file_system=arguments.one_file_system,
        stdio=arguments.stdio,
        listen=tuple(arguments.listen or (_address(DEFAULT_LISTEN),)),
        host_keys=tuple(arguments.host_key or (_default_host_key(),)),
        authorized_keys=keys,
        user_ca=tuple(arguments.user_ca or ()),
        passwords=arguments.passwords,
        user=arguments.user,
        umask=arguments.umask,
        log_requests=arguments.log_requests,
        limits=LimitsConfig(
            max_handles=arguments.max_handles,
            max_sessions=arguments.max_sessions,
            max_sessions_per_user=arguments.max_sessions_per_key,
            max_logins=arguments.max_logins,
            max_failures=arguments.max_failures,
            login_s=arguments.login_timeout,
            keepalive_s=arguments.keepalive,
            stall_s=arguments.stall_timeout,
        ),
    )


def _default_host_key() -> str:
    # systemd's StateDirectory= says where a service may write.
    state = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    if not state and os.geteuid() == 0:
        state = "/var/lib/netfs"
    if not state:
        base = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
        state = os.path.join(base, "netfs")
    return os.path.join(state, "host_key")


def _start_log(arguments: argparse.Namespace) -> None:
    handler: logging.Handler
    if arguments.log_file is not None:
        handler = logging.FileHandler(arguments.log_file)
    elif not arguments.stdio:
        handler = logging.StreamHandler()
    elif os.path.exists("/dev/log"):
        # stderr belongs to the client there.
        handler = logging.handlers.SysLogHandler("/dev/log")
        handler.ident = f"netfs-serve[{os.getpid()}]: "
    else:
        handler = logging.NullHandler()
    if not isinstance(handler, logging.handlers.SysLogHandler):
        handler.setFormatter(
            logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S%z")
        )
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    # The SSH library tells each step of each connection at INFO.
    logging.getLogger("asyncssh").setLevel(logging.ERROR)


def _hash_password() -> int:
    from netfs.server import authorized

    if sys.stdin.isatty():
        password = getpass.getpass("Password: ")
        if getpass.getpass("Again: ") != password:
            print("netfs serve: the two are not the same", file=sys.stderr)
            return 1
    else:
        password = sys.stdin.readline().removesuffix("\n")
    if not password:
        print("netfs serve: an empty password would let everybody in", file=sys.stderr)
        return 1
    print(authorized.hash_password(password))
    return 0


def main(argv: list[str]) -> int:
    """``netfs serve`` with *argv* after its name; the exit status (2 for wrong arguments)."""
    parser = make_parser()
    arguments = parser.parse_args(argv)
    if arguments.hash_password:
        return _hash_password()
    if arguments.root is None:
        parser.error("--root DIR is needed")
    try:
        _start_log(arguments)
    except OSError as error:
        print(f"netfs serve: {arguments.log_file}: {error.strerror}", file=sys.stderr)
        return 1
    from netfs.server import run

    try:
        return run.serve(make_config(arguments))
    except run.StartError as error:
        logging.getLogger(__name__).error("cannot-start reason=%r", str(error))
        if arguments.stdio or arguments.log_file is not None:
            print(f"netfs serve: {error}", file=sys.stderr)
        return 1
