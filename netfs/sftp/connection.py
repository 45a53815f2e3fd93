"""One SFTP conversation, both halves, without I/O: handshake, ids, what is pending, abandoning.

Bytes go in by ``receive_data``, buffers to write come out of ``send``.  No clock, no loop, no
decision about what to ask or answer.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar

from netfs.buffers import Landing
from netfs.sftp.codes import VERSION, PacketType, Status
from netfs.sftp.errors import LocalProtocolError, RemoteProtocolError
from netfs.sftp.foretold import Foretold
from netfs.sftp.framing import FrameSplitter
from netfs.sftp.requests import (
    REQUESTS,
    Close,
    Open,
    Opendir,
    Read,
    Readdir,
    Request,
    decode_request,
    encode_request,
)
from netfs.sftp.responses import (
    Data,
    Handle,
    Name,
    Response,
    StatusResponse,
    decode_response,
    decode_usual,
    encode_response,
)
from netfs.wire import Buffer, Reader, Truncated, string


class Waiter(Protocol):
    """What a caller keeps per request: a future, or the like."""

    def done(self) -> bool:
        """Whether nobody waits any more: the request is abandoned."""
        ...


W = TypeVar("W", bound=Waiter)

CLIENT_MAX_PACKET: Final = 1024 * 1024
"""Bytes of a response at most.  OpenSSH sends 256 KiB at most; some servers pack more names into
one NAME.  Bounds what a hostile server makes us hold for one conversation."""

_BLOCKS: Final = 16
"""Large answers whose memory is used again, 4 MiB: what is under way to a reader on a fast link."""

SERVER_MAX_PACKET: Final = 256 * 1024 + 1024
"""Bytes of a request at most: a WRITE of 256 KiB with its head and handle."""

_MAX_EXTENSIONS: Final = 256
"""Pairs in a VERSION; OpenSSH has a dozen."""

_U32: Final = struct.Struct(">I")
_HEAD: Final = struct.Struct(">BI")
_HEAD_SIZE: Final = _HEAD.size
_RESPONSES: Final = {cls: row.response for cls, row in REQUESTS.items()}
_CHECKED: Final = frozenset((Data, Name))
"""Of the right type they may still be too much or too little."""

_OF_HANDLES: Final = frozenset((Open, Opendir, Close))

_new = tuple.__new__  # a NamedTuple, without the call of its own constructor


class Version(NamedTuple):
    """The server's half of the handshake.  Source: draft-ietf-secsh-filexfer-02 §4."""

    version: int
    extensions: Mapping[bytes, bytes]  # name: data (for OpenSSH's: its version in digits)


class Answer(NamedTuple, Generic[W]):
    """A response to a request that is waited for."""

    waiter: W
    request: Request
    response: Response


class Reaped(NamedTuple, Generic[W]):
    """A response to an abandoned request.  A handle in it must be closed by somebody."""

    waiter: W
    orphan: bytes | None


class ClientConnection(Generic[W]):
    """The client's half.

    A request is pending from ``send`` until its response.  One whose waiter is done before that
    is abandoned: its response is only reported as come, with the handle that it may carry.
    """

    __slots__ = (
        "_foretold",
        "_frames",
        "_next_id",
        "_pending",
        "extended_attrs",
        "foretold",
        "version",
    )

    def __init__(self, max_packet: int = CLIENT_MAX_PACKET) -> None:
        self._frames = FrameSplitter(max_packet, _BLOCKS)
        self._next_id = 0
        self._pending: dict[int, tuple[Request, W]] = {}  # by id
        self.version: Version | None = None  # None before the server's VERSION
        self.extended_attrs = False  # the server said yes to attrs@netfs
        self._foretold = Foretold()
        self.foretold: bytes | None = None
        """The handle that the OPEN or OPENDIR sent last will get, if that is known."""

    def __repr__(self) -> str:
        state = "new" if self.version is None else "open"
        return f"<ClientConnection {state} pending={len(self._pending)}>"

    @property
    def pending(self) -> int:
        """Requests without a response, abandoned ones too."""
        return len(self._pending)

    def hello(self) -> bytes:
        """INIT, the first packet."""
        return _U32.pack(5) + bytes((PacketType.INIT,)) + _U32.pack(VERSION)

    def send(self, request: Request, waiter: W) -> tuple[int, tuple[Buffer, ...]]:
        """The request's id and the buffers to write.

        Raises:
            LocalProtocolError: a value that the protocol can't say.
        """
        request_id = self._next_id
        while request_id in self._pending:  # only after 2**32 requests with one still pending
            request_id = (request_id + 1) & 0xFFFF_FFFF
        buffers = encode_request(request_id, request, extended_attrs=self.extended_attrs)
        self._next_id = (request_id + 1) & 0xFFFF_FFFF
        self._pending[request_id] = (request, waiter)
        kind = type(request)
        if kind in _OF_HANDLES:
            if type(request) is Close:
                self._foretold.closing(request_id, request.handle)
            else:
                self.foretold = self._foretold.opening(request_id)
        return request_id, buffers

    def waiting(self) -> Iterator[tuple[Request, W]]:
        """What is pending, abandoned or not, oldest first."""
        yield from self._pending.values()

    def lose(self) -> list[tuple[Request, W]]:
        """The conversation is over: what was pending, oldest first.  Nothing is any more."""
        lost = list(self._pending.values())
        self._pending.clear()
        return lost

    def receive_data(
        self, piece: Buffer, events: list[Version | Answer[W] | Reaped[W]], landed: int = 0
    ) -> None:
        """Append to *events* what the bytes mean, in the order they came: those of *piece*, or
        else the *landed* ones, that were put where ``landing`` says.

        A request whose answer can't be accepted stays pending.

        Raises:
            RemoteProtocolError: the server broke the protocol; the conversation is over.  What
                came before that is in *events*.
        """
        packets: Sequence[memoryview]
        if landed:
            packet = self._frames.landed(landed)
            packets = () if packet is None else (packet,)
        else:
            try:
                packets = self._frames.feed(piece)
            except RemoteProtocolError as exc:
                if self.version is None:
                    raise RemoteProtocolError(
                        f"the server sent something else than SFTP: {bytes(piece[:120])!r} "
                        "(does a shell start-up file print?)"
                    ) from exc
                raise
        pending = self._pending
        for packet in packets:
            if self.version is None:
                self.version = _decode_version(packet)
                events.append(self.version)
                continue
            if len(packet) < _HEAD_SIZE:
                raise RemoteProtocolError("a response ends inside its head")
            packet_type, request_id = _HEAD.unpack_from(packet)
            entry = pending.get(request_id)
            if entry is None:
                raise RemoteProtocolError(f"a response to request {request_id}, never sent")
            request, waiter = entry
            response = decode_usual(packet_type, packet) or _decode(packet_type, packet)
            kind, asked = type(response), type(request)
            if kind is not _RESPONSES[asked] or kind in _CHECKED:
                response = _matched(request, response)
            del pending[request_id]
            if asked in _OF_HANDLES:
                handle = response.handle if type(response) is Handle else None
                self._foretold.answered(request_id, handle)
            if not waiter.done():
                events.append(_new(Answer, (waiter, request, response)))
            else:
                events.append(Reaped(waiter, response.handle if type(response) is Handle else None))

    @property
    def landing(self) -> Landing:
        """Where the next bytes may be put, instead of giving them to ``receive_data``."""
        return self._frames.landing

    def receive_eof(self) -> None:
        """The stream ended.

        Raises:
            RemoteProtocolError: in the middle of a packet.
        """
        if self._frames.is_inside_packet():
            raise RemoteProtocolError("the stream ended inside a packet")


def _decode(packet_type: int, packet: memoryview) -> Response:
    try:
        return decode_response(packet_type, Reader(packet[_HEAD_SIZE:]))
    except Truncated as exc:
        raise RemoteProtocolError(f"a response ends inside a value ({exc})") from exc


def _matched(request: Request, response: Response) -> Response:
    """*response* as one to *request*: OK without the value that was asked for is a failure.

    Some servers say so of what they can't do (Go's pkg/sftp of a READ of a file that is written).

    Raises:
        RemoteProtocolError: an answer to something else, or more than was asked for.
    """
    expected = _RESPONSES[type(request)]
    got = type(response)
    if got is not expected and got is not StatusResponse:
        raise RemoteProtocolError(f"{type(request).__name__} answered by {got.__name__}")
    if got is StatusResponse:
        if expected is not StatusResponse and response[0] == 0:
            return StatusResponse(Status.FAILURE, b"OK without a value")
    elif type(request) is Read and type(response) is Data:
        if len(response.data) > request.length:
            raise RemoteProtocolError(f"{len(response.data)} bytes for {request.length} asked")
    elif got is Name and not response[0] and type(request) is not Readdir:
        raise RemoteProtocolError(f"{type(request).__name__} answered by no name")
    return response


def _decode_version(packet: memoryview) -> Version:
    reader = Reader(packet)
    extensions: dict[bytes, bytes] = {}
    try:
        packet_type = reader.u8()
        if packet_type != PacketType.VERSION:
            raise RemoteProtocolError(f"packet type {packet_type} where VERSION must come")
        version = reader.u32()
        while len(reader):
            name = reader.string()  # apart: an assignment evaluates its right side first
            extensions[name] = reader.string()
            if len(extensions) > _MAX_EXTENSIONS:
                raise RemoteProtocolError("VERSION with too many extensions")
    except Truncated as exc:
        raise RemoteProtocolError("VERSION ends inside a value") from exc
    if version != VERSION:
        raise RemoteProtocolError(f"the server speaks SFTP {version}, not {VERSION}")
    return Version(version, extensions)


class Init(NamedTuple):
    """The client's half of the handshake; answered by ``send_version``."""

    version: int


class Asked(NamedTuple):
    """A request to be answered under its id."""

    request_id: int
    request: Request


class Malformed(NamedTuple):
    """A request that can't be understood but has an id: answer BAD_MESSAGE."""

    request_id: int
    reason: str


class Unknown(NamedTuple):
    """A packet type that v3 doesn't have: answer OP_UNSUPPORTED."""

    request_id: int
    packet_type: int


class ServerConnection:
    """The server's half.  Which ids are in flight is the caller's to know (it answers each)."""

    __slots__ = ("_frames", "_greeted", "extended_attrs")

    def __init__(self, max_packet: int = SERVER_MAX_PACKET) -> None:
        self._frames = FrameSplitter(max_packet)
        self._greeted = False
        self.extended_attrs = False  # set by the caller when it says yes to attrs@netfs

    def receive_data(self, piece: Buffer) -> list[Init | Asked | Malformed | Unknown]:
        """What the bytes mean, in the order they came.

        Raises:
            RemoteProtocolError: the client broke the protocol; the conversation is over.
        """
        events: list[Init | Asked | Malformed | Unknown] = []
        for packet in self._frames.feed(piece):
            if self._greeted:
                events.append(_decode_asked(packet))
            else:
                events.append(_decode_init(packet))
                self._greeted = True
        return events

    def receive_eof(self) -> None:
        """The stream ended.

        Raises:
            RemoteProtocolError: in the middle of a packet.
        """
        if self._frames.is_inside_packet():
            raise RemoteProtocolError("the stream ended inside a packet")

    def send_version(self, extensions: Mapping[bytes, bytes]) -> bytes:
        """VERSION, the answer to Init."""
        body = b"".join(string(name) + string(data) for name, data in extensions.items())
        return _U32.pack(5 + len(body)) + bytes((PacketType.VERSION,)) + _U32.pack(VERSION) + body

    def send(self, request_id: int, response: Response) -> tuple[Buffer, ...]:
        """The buffers to write.

        Raises:
            LocalProtocolError: a value that the protocol can't say.
        """
        try:
            return encode_response(request_id, response, extended_attrs=self.extended_attrs)
        except struct.error as exc:
            raise LocalProtocolError(f"{type(response).__name__} can't be sent: {exc}") from exc


def _decode_init(packet: memoryview) -> Init:
    """INIT; what follows the version (extension pairs) is not for us."""
    reader = Reader(packet)
    try:
        packet_type = reader.u8()
        if packet_type != PacketType.INIT:
            raise RemoteProtocolError(f"packet type {packet_type} where INIT must come")
        return Init(reader.u32())
    except Truncated as exc:
        raise RemoteProtocolError("INIT ends inside its version") from exc


def _decode_asked(packet: memoryview) -> Asked | Malformed | Unknown:
    reader = Reader(packet)
    try:
        packet_type, request_id = reader.unpack(_HEAD)
    except Truncated as exc:
        raise RemoteProtocolError("a request without an id") from exc
    try:
        request: Any = decode_request(packet_type, reader)
    except (Truncated, RemoteProtocolError) as exc:
        return Malformed(request_id, f"malformed packet of type {packet_type}: {exc}")
    if request is None:
        return Unknown(request_id, packet_type)
    return Asked(request_id, request)
