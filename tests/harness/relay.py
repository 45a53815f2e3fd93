"""A TCP relay in a process of its own: delays, caps and breaks a link; cuts SFTP at exact points.

``Relay(port)`` starts it in front of ``127.0.0.1:port`` and commands it; run as a module it reads
commands, one line of JSON each, from standard input and answers each with a line of JSON.

Cut kinds: ``rst`` (both ends are reset), ``close`` (both ends see EOF), ``blackhole`` (nothing
passes, nobody is told), ``blackhole-up``/``blackhole-down`` (one direction only: requests are lost,
or replies are), ``refuse`` (``rst``, and new connections are refused). ``heal`` ends each; what a
black hole held back then passes, as TCP would send it again, or with ``reset=True`` is lost and the
old connections are reset, as after a NAT time-out.

Exact points need SFTP in the clear (``directport``): ``arm(type, point)`` waits for a request of
that SFTP type and acts *before* the server sees it, *half* through its bytes, or *after* the server
answered and before the client hears of it; ``hold`` keeps the request, ``hold_reply`` the answer,
until ``release``.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import select
import socket
import struct
import subprocess
import sys
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final

CHUNK: Final = 1 << 18  # bytes read at once
IN_FLIGHT: Final = 64 << 20  # bytes held per direction at most while only delaying
QUEUE_S: Final = 0.05  # a capped link's queue, in seconds at its rate: a router's buffer
SEGMENT: Final = 1448  # bytes; on a capped link the ends behave as over Ethernet


# --- the controlling side -----------------------------------------------------------------------


class Relay:
    """Controls one relay process; use it as a context manager.

    ``port`` is where clients connect to. Each method returns when the relay has done it.
    """

    def __init__(
        self, target: int, *, delay_ms: float = 0, rate_mbit: float = 0, port: int = 0
    ) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.harness.relay", str(target), str(port), str(rate_mbit)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            cwd=os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))),
            start_new_session=True,
        )
        self.port: int = self._answer()["port"]
        if delay_ms:
            self.delay(delay_ms)

    def __enter__(self) -> Relay:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End the relay and with it its connections."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(10)
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):  # nothing of ours is left in the buffer
                stream.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the relay ended with {self._process.wait(10)}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise RuntimeError(f"relay: {answer['error']}")
        return answer

    def _command(self, word: str, **arguments: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": word, **arguments}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def delay(self, milliseconds: float) -> None:
        """One-way delay of both directions from now on: RTT is twice this."""
        self._command("delay", milliseconds=milliseconds)

    def cut(self, kind: str = "blackhole") -> None:
        """Break the link (module docstring: kinds)."""
        self._command("cut", kind=kind)

    def heal(self, *, reset: bool = False) -> None:
        """End what :meth:`cut` began; with *reset* the old connections die first."""
        self._command("heal", reset=reset)

    def arm(self, type_: int, point: str, *, nth: int = 1, kind: str = "rst") -> None:
        """At the *nth* request of SFTP *type_*: act at *point* and cut with *kind*.

        Points: before, half, after, hold, hold_reply. Only one is armed at a time.
        """
        self._command("arm", type=type_, point=point, nth=nth, kind=kind)

    def fired(self) -> bool:
        """Whether what was armed has happened."""
        return bool(self._command("state")["fired"])

    def release(self) -> None:
        """Let pass what ``hold`` or ``hold_reply`` keeps."""
        self._command("release")

    def record(self, *, on: bool = True) -> None:
        """Start a fresh list of SFTP packets (clear-text links only), or stop."""
        self._command("record", on=on)

    def packets(self) -> list[tuple[str, int, int]]:
        """(up|down, type, request id) of each packet since :meth:`record`."""
        return [(way, kind, ident) for way, kind, ident in self._command("packets")["packets"]]

    def counts(self) -> dict[str, int]:
        """``connections`` accepted so far, ``open`` ones, bytes ``up`` and ``down``, turns."""
        return dict(self._command("state")["counts"])


# --- the relaying side --------------------------------------------------------------------------


@dataclass(eq=False)
class Way:
    """One direction of a connection."""

    name: str  # "up" to the server, "down" to the client
    source: socket.socket
    sink: socket.socket
    link: Link
    queue: collections.deque[tuple[float, memoryview]] = field(default_factory=collections.deque)
    queued: int = 0
    ended: bool = False  # source gave EOF
    shut: bool = False  # ... and sink was told
    partial: bytearray = field(default_factory=bytearray)  # an SFTP packet's beginning
    muted: bool = False  # swallow everything: the other end must not hear of it


@dataclass
class Link:
    """What all connections share in one direction."""

    rate: float  # bytes per second; 0: no cap
    blocked: bool = False
    free_at: float = 0.0  # when the last byte put on the wire has left it

    def limit(self) -> int:
        """Bytes that may wait in one direction."""
        return max(int(self.rate * QUEUE_S), 2 * SEGMENT) if self.rate else IN_FLIGHT

    def leaves_at(self, size: int, now: float) -> float:
        """When *size* bytes handed over *now* have gone through the bottleneck."""
        if not self.rate:
            return now
        self.free_at = max(self.free_at, now) + size / self.rate
        return self.free_at


@dataclass(eq=False)
class Connection:
    """A client and its connection to the server."""

    up: Way
    down: Way

    def ways(self) -> tuple[Way, Way]:
        return self.up, self.down


@dataclass
class Trap:
    """An armed point (see :meth:`Relay.arm`)."""

    type: int
    point: str
    nth: int
    kind: str
    ident: int | None = None  # the request that sprang it
    fired: bool = False


class Loop:
    """The relay process: one thread, select(2) for its microsecond time-outs."""

    def __init__(self, target: int, port: int, rate_mbit: float) -> None:
        self.target = target
        rate = rate_mbit * 1e6 / 8
        self.delay_s = 0.0
        self.links = {"up": Link(rate), "down": Link(rate)}
        self.connections: list[Connection] = []
        self.commands = bytearray()
        self.trap: Trap | None = None
        self.held: list[tuple[Way, memoryview]] = []
        self.recorded: list[tuple[str, int, int]] | None = None
        self.counts = {"connections": 0, "up": 0, "down": 0, "turns": 0}
        self.last_way = ""
        self.listener: socket.socket | None = None
        self.port = port
        self.listen()

    def listen(self) -> None:
        """Accept connections; the port stays the same after ``refuse``."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.tune(listener)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(128)
        self.port = listener.getsockname()[1]
        self.listener = listener

    def tune(self, sock: socket.socket) -> None:
        """A capped link: Ethernet segments and small buffers, so that no second queue hides."""
        if self.links["up"].rate:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 17)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)

    def run(self) -> None:
        """Serve until standard input ends."""
        say({"port": self.port})
        while True:
            readers: list[Any] = [0]
            if self.listener is not None:
                readers.append(self.listener)
            writers: dict[socket.socket, Way] = {}
            sources: dict[socket.socket, Way] = {}
            now = time.monotonic()
            due = None
            for connection in self.connections:
                for way in connection.ways():
                    if not way.ended and (way.muted or way.queued < way.link.limit()):
                        sources[way.source] = way
                    if way.queue and not way.link.blocked:
                        when = way.queue[0][0]
                        if when <= now:
                            writers[way.sink] = way
                        elif due is None or when < due:
                            due = when
            timeout = None if due is None else max(0.0, due - now)
            readable, writable, _ = select.select([*readers, *sources], list(writers), [], timeout)
            for sock in writable:
                self.send(writers[sock])
            for sock in readable:
                if sock == 0:
                    if not self.command():
                        return
                elif sock is self.listener:
                    self.accept()
                elif sock in sources:
                    self.receive(sources[sock])
            self.reap()

    def accept(self) -> None:
        assert self.listener is not None
        client, _ = self.listener.accept()
        server = socket.socket()
        self.tune(server)
        try:
            server.connect(("127.0.0.1", self.target))
        except OSError:
            reset(client)  # nobody listens there: the client sees it as a refusal after the fact
            server.close()
            return
        for sock in (client, server):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connections.append(
            Connection(
                Way("up", client, server, self.links["up"]),
                Way("down", server, client, self.links["down"]),
            )
        )
        self.counts["connections"] += 1

    def receive(self, way: Way) -> None:
        try:
            data = way.source.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            self.drop(way)
            return
        if not data:
            way.ended = True
            return
        self.counts[way.name] += len(data)
        if way.name != self.last_way:
            self.last_way = way.name
            self.counts["turns"] += 1
        if way.muted:
            if self.trap is not None and self.trap.point == "after":
                self.watch(way, data)
            return
        if self.trap is not None or self.recorded is not None or way.partial:
            self.watch(way, data)
        else:
            self.forward(way, memoryview(data))

    def forward(self, way: Way, data: memoryview) -> None:
        now = time.monotonic()
        way.queue.append((way.link.leaves_at(len(data), now) + self.delay_s, data))
        way.queued += len(data)
        if not self.delay_s and not way.link.rate and not way.link.blocked:
            self.send(way)

    def send(self, way: Way) -> None:
        now = time.monotonic()
        while way.queue and way.queue[0][0] <= now:
            when, data = way.queue[0]
            try:
                sent = way.sink.send(data)
            except BlockingIOError:
                return
            except OSError:
                self.drop(way)
                return
            way.queued -= sent
            if sent == len(data):
                way.queue.popleft()
            else:
                way.queue[0] = (when, data[sent:])
                return

    def reap(self) -> None:
        """Hand EOFs on in order, and forget connections that ended both ways."""
        for connection in list(self.connections):
            for way in connection.ways():
                if way.ended and not way.queue and not way.shut and not way.link.blocked:
                    way.shut = True
                    with contextlib.suppress(OSError):  # the sink is gone already
                        way.sink.shutdown(socket.SHUT_WR)
            if all(way.shut for way in connection.ways()):
                self.forget(connection, gently=True)

    def drop(self, way: Way) -> None:
        for connection in list(self.connections):
            if way in connection.ways():
                self.forget(connection, gently=False)

    def forget(self, connection: Connection, *, gently: bool) -> None:
        self.connections.remove(connection)
        for way in connection.ways():
            if gently:
                way.source.close()
            else:
                reset(way.source)

    # --- commands ---

    def command(self) -> bool:
        data = os.read(0, 65536)
        if not data:
            return False
        self.commands += data
        while b"\n" in self.commands:
            line, _, rest = bytes(self.commands).partition(b"\n")
            self.commands = bytearray(rest)
            message = json.loads(line)
            word = message.pop("do")
            try:
                answer = getattr(self, f"do_{word}")(**message)
            except (AttributeError, TypeError, ValueError) as error:
                answer = {"error": f"{word}: {error}"}
            say(answer or {})
        return True

    def do_delay(self, milliseconds: float) -> None:
        self.delay_s = milliseconds / 1000

    def do_cut(self, kind: str) -> None:
        if kind in ("rst", "refuse", "close"):
            for connection in list(self.connections):
                self.forget(connection, gently=kind == "close")
            if kind == "refuse" and self.listener is not None:
                self.listener.close()
                self.listener = None
        elif kind in ("blackhole", "blackhole-up", "blackhole-down"):
            for name, link in self.links.items():
                link.blocked = kind in ("blackhole", f"blackhole-{name}")
        else:
            raise ValueError(f"no such cut: {kind}")

    def do_heal(self, reset: bool) -> None:
        if reset:
            self.do_cut("rst")
        for link in self.links.values():
            link.blocked = False
        if self.listener is None:
            self.listen()

    def do_arm(self, type: int, point: str, nth: int, kind: str) -> None:
        if point not in ("before", "half", "after", "hold", "hold_reply"):
            raise ValueError(f"no such point: {point}")
        self.trap = Trap(type, point, nth, kind)

    def do_state(self) -> dict[str, Any]:
        counts = {**self.counts, "open": len(self.connections)}
        return {"fired": self.trap is not None and self.trap.fired, "counts": counts}

    def do_release(self) -> None:
        self.trap = None
        for way, data in self.held:
            self.forward(way, data)
        self.held = []

    def do_record(self, on: bool) -> None:
        self.recorded = [] if on else None

    def do_packets(self) -> dict[str, Any]:
        return {"packets": self.recorded or []}

    # --- SFTP in the clear ---

    def watch(self, way: Way, data: bytes) -> None:
        """Cut the stream into packets; each is recorded, tried on the trap and passed on."""
        way.partial += data
        offset = 0
        while len(way.partial) - offset >= 4:
            (length,) = struct.unpack_from(">I", way.partial, offset)
            if len(way.partial) - offset < 4 + length:
                break
            packet = bytes(way.partial[offset : offset + 4 + length])
            offset += 4 + length
            ident = struct.unpack_from(">I", packet, 5)[0] if length >= 5 else 0
            if self.recorded is not None:
                self.recorded.append((way.name, packet[4], ident))
            if not self.spring(way, packet, ident):
                return  # the connection is gone
        del way.partial[:offset]

    def spring(self, way: Way, packet: bytes, ident: int) -> bool:
        """Pass *packet* on or act on it; False when the link was cut here."""
        trap = self.trap
        if trap is None or (trap.fired and trap.point != "hold"):
            if not way.muted:
                self.forward(way, memoryview(packet))
            return True
        if way.name == "up":
            return self.spring_request(trap, way, packet, ident)
        if trap.ident is not None and ident == trap.ident and not trap.fired:
            trap.fired = True
            if trap.point == "hold_reply":
                self.held.append((way, memoryview(packet)))
                return True
            self.do_cut(trap.kind)
            return False
        if not way.muted:
            self.forward(way, memoryview(packet))
        return True

    def spring_request(self, trap: Trap, way: Way, packet: bytes, ident: int) -> bool:
        if trap.fired or trap.ident is not None or packet[4] != trap.type:
            self.forward(way, memoryview(packet))
            return True
        trap.nth -= 1
        if trap.nth:
            self.forward(way, memoryview(packet))
            return True
        trap.ident = ident
        if trap.point == "hold":
            trap.fired = True
            self.held.append((way, memoryview(packet)))
            return True
        if trap.point == "before":
            trap.fired = True
            self.do_cut(trap.kind)
            return trap.kind.startswith("blackhole")
        if trap.point == "half":
            trap.fired = True
            way.sink.setblocking(True)
            for _, data in way.queue:
                way.sink.sendall(data)
            way.queue.clear()
            way.sink.sendall(packet[: len(packet) // 2])
            way.sink.setblocking(False)
            self.do_cut(trap.kind)
            return False
        for connection in self.connections:  # after, hold_reply: wait for the server's answer
            if connection.up is way and trap.point == "after":
                connection.down.muted = True
        self.forward(way, memoryview(packet))
        return True


def reset(sock: socket.socket) -> None:
    """Close with RST."""
    with contextlib.suppress(OSError):  # already closed by the peer's own reset
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    Loop(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])).run()
