"""The demonstration that script/demo runs: netfs's own server, a mount over a slow link, a cut.

Each step checks what it shows; the exit status is 0 only if all of them held.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import asyncssh

PROJECT: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))

from tests.harness.relay import Relay  # noqa: E402  (the project is not always installed)

NETFS: Final = (sys.executable, "-m", "netfs")
RTT_MS: Final = 20
BIG_MIB: Final = 48


def main() -> int:
    base = Path(tempfile.mkdtemp(prefix="netfs-demo-"))
    os.environ["XDG_RUNTIME_DIR"] = str(base)  # the control socket goes with the rest
    try:
        with contextlib.ExitStack() as stack:
            show(base, stack)
    except (Failed, subprocess.TimeoutExpired, OSError) as error:
        print(f"\nThe demonstration failed: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(base, ignore_errors=True)  # a failed step may have left a busy directory
    print("\nDone: nothing is left mounted or running.")
    return 0


class Failed(Exception):
    """A step did not show what it should."""


def title(text: str) -> None:
    print(f"\n== {text}")


def shown(*command: str, timeout_s: float = 60, echo: bool = True) -> str:
    """Print and run a command; its output is printed and returned."""
    if echo:
        print("$ " + " ".join(command).replace(" ".join(NETFS), "netfs"))
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    text = (done.stdout + done.stderr).rstrip()
    if text:
        print("\n".join("  " + line for line in text.splitlines()[:24]))
    if done.returncode:
        raise Failed(f"{command[0]} ended with {done.returncode}")
    return done.stdout


def check(holds: bool, claim: str) -> None:
    if not holds:
        raise Failed(f"not so: {claim}")
    print(f"  ok: {claim}")


def make_files(root: Path) -> None:
    """What is exported: a small tree of sources and one big file."""
    rng = random.Random(1)
    for number in range(20):
        place = root / "src" / f"part{number}"
        place.mkdir(parents=True)
        for name in range(10):
            (place / f"file{name}.txt").write_text(f"{rng.random()}\n" * rng.randint(10, 400))
    (root / "readme.txt").write_text("Hello from the other side.\n")
    with (root / "big.bin").open("wb") as file:
        for _ in range(BIG_MIB):
            file.write(os.urandom(1 << 20))


@contextlib.contextmanager
def server(base: Path, root: Path) -> Iterator[int]:
    """``netfs serve`` with throw-away keys; yields its port."""
    key = asyncssh.generate_private_key("ssh-ed25519", comment="netfs-demo")
    key.write_private_key(str(base / "user_key"))
    (base / "user_key").chmod(0o600)
    key.write_public_key(str(base / "authorized_keys"))
    log = base / "server.log"
    command = [*NETFS, "serve", "--root", str(root), "--listen", "127.0.0.1:0"]
    command += ["--host-key", str(base / "host_key")]
    command += ["--authorized-keys", str(base / "authorized_keys")]
    print("$ " + " ".join(command).replace(" ".join(NETFS), "netfs"))
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=PROJECT
        )
    try:
        deadline = time.monotonic() + 20
        while not (found := re.search(r"listening .*port=(\d+)", log.read_text())):
            if process.poll() is not None or time.monotonic() > deadline:
                raise Failed(f"the server did not start:\n{log.read_text()}")
            time.sleep(0.02)
        yield int(found[1])
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def mount(base: Path, port: int) -> Iterator[Path]:
    """``netfs`` in the background, as a user would type it."""
    place = base / "mnt"
    place.mkdir()
    options = f"IdentityFile={base}/user_key,UserKnownHostsFile={base}/known_hosts"
    options += f",StrictHostKeyChecking=accept-new,log_file={base}/netfs.log"
    started = time.monotonic()
    try:
        shown(*NETFS, "demo@127.0.0.1:/", str(place), "-p", str(port), "-o", options)
        print(f"  mounted and answering after {time.monotonic() - started:.2f} s")
        yield place
    finally:
        if is_mounted(place):  # only after a failure: the last step unmounts
            with contextlib.suppress(subprocess.TimeoutExpired):
                subprocess.run(
                    [*NETFS, "umount", "--lazy", str(place)], capture_output=True, timeout=20
                )


def is_mounted(place: Path) -> bool:
    return f" {place} " in Path("/proc/self/mountinfo").read_text()


def timed(claim: str, *command: str) -> float:
    started = time.monotonic()
    subprocess.run(command, stdout=subprocess.DEVNULL, timeout=120, check=True)
    took = time.monotonic() - started
    print(f"  {claim:<48} {took:8.2f} s")
    return took


def show(base: Path, stack: contextlib.ExitStack) -> None:
    exported = base / "exported"
    exported.mkdir()
    make_files(exported)

    title("A directory is exported by netfs's own server, with keys made just now")
    port = stack.enter_context(server(base, exported))

    title(f"It is mounted over a link with a round trip of {RTT_MS} ms")
    relay = stack.enter_context(Relay(port, delay_ms=RTT_MS / 2))
    place = stack.enter_context(mount(base, relay.port))

    title("Files are there, and what is written arrives")
    shown("ls", "-l", str(place))
    shown("cat", str(place / "readme.txt"))
    (place / "note.txt").write_text("written through the mount\n")
    there = (exported / "note.txt").read_text()
    check(there == "written through the mount\n", "the server has it when close() returns")

    title("It is fast, although each question takes 20 ms")
    timed("find through 221 names", "find", str(place / "src"), "-ls")
    timed("grep through 200 files, the first time", "grep", "-rc", "0.5", str(place / "src"))
    timed("grep through 200 files, again", "grep", "-rc", "0.5", str(place / "src"))
    took = timed(f"read {BIG_MIB} MiB", "cat", str(place / "big.bin"))
    alone = BIG_MIB * 32 * RTT_MS / 1000
    print(f"  {BIG_MIB / took:.0f} MiB/s; asked 32 KiB at a time it would take {alone:.0f} s")

    title("The link breaks: what is known is still served, nothing hangs, nothing is lost")
    relay.cut("blackhole")
    cut_at = time.monotonic()
    timed("df while the link is down", "df", str(place))
    timed("stat of the mount while the link is down", "stat", str(place))
    written = threading.Thread(target=write_during_cut, args=(place / "during.txt",))
    written.start()
    written.join(3)
    check(written.is_alive(), "a program that needs the server waits")
    shown(*NETFS, "status", str(place), timeout_s=5)
    print(f"  the link comes back after {time.monotonic() - cut_at:.1f} s")
    relay.heal(reset=True)
    written.join(30)
    check(not written.is_alive(), "the program goes on by itself")
    there = (exported / "during.txt").read_text()
    check(there == "written while the link was down\n" * 1000, "every byte is on the server")

    title("It ends cleanly")
    shown(*NETFS, "umount", str(place))
    check(not is_mounted(place), "the mount is gone")
    check((exported / "during.txt").stat().st_size == 32_000, "and the data is where it belongs")


def write_during_cut(path: Path) -> None:
    """A program that knows nothing of links: it writes a file and closes it."""
    path.write_text("written while the link was down\n" * 1000)


if __name__ == "__main__":
    sys.exit(main())
