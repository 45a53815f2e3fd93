"""The short way for channel data: the same bytes as asyncssh's own, whatever the boundaries."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncssh
import pytest
import uvloop
from asyncssh.crypto.cipher import GCMCipher
from asyncssh.encryption import GCMEncryption
from hypothesis import given, settings
from hypothesis import strategies as st

from netfs import sshfast
from netfs.buffers import MARGIN
from netfs.client.remote.channel import Link
from netfs.client.remote.errors import ConnectError
from netfs.sftp.framing import FrameSplitter
from netfs.sshfast import HIGH_WATER, FastPath, FastReader, FastWriter, send_no_ignores
from tests.harness.sshd import Sshd, running_sshd
from tests.unit.transport.support import INIT, Recorder, base_words, config_for, linked

KEY, IV = bytes(range(16)), bytes(12)


def gcm() -> GCMEncryption:
    return GCMEncryption(GCMCipher("aes128-gcm", KEY, IV))


class FakeChannel:
    """What the short way touches of a channel."""

    def __init__(self, window: int = 1 << 20, packet: int = 1000) -> None:
        self._recv_window = self._init_recv_window = 1 << 30
        self._recv_paused: bool | str = False
        self._recv_state = "open"
        self._send_chan: int | None = 7
        self._send_window = window
        self._send_pktsize = packet
        self._send_state = "open"
        self.received = bytearray()
        self.written: list[bytes] = []
        self.finished = 0

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def _accept_data(self, data: memoryview) -> None:
        self._recv_window -= len(data)
        self.received += data

    def _flush_send_buf(self) -> None:
        self.finished += 1


class FakeConnection:
    """What the short way touches of a connection; keeps what is handed to asyncssh."""

    def __init__(self) -> None:
        self._inpbuf = b""
        self._recv_handler: Any = self._recv_pkthdr
        self._recv_encryption: Any = gcm()
        self._send_encryption: Any = gcm()
        self._compressor = self._decompressor = None
        self._max_recv_pktlen = 300_000
        self._channels = {5: FakeChannel()}
        self._recv_seq = self._send_seq = 0
        self._kex_complete = True
        self._rekey_bytes, self._rekey_bytes_sent = 1 << 40, 0
        self._transport: Any = self
        self.handed: list[bytes] = []
        self.written = bytearray()
        self.sent: list[int] = []
        self.cipher: str | None = None

    def get_extra_info(self, name: str) -> str | None:
        assert name == "send_cipher"
        return self.cipher

    def _recv_pkthdr(self) -> None: ...

    def _send_deferred_packets(self) -> None: ...

    def data_received(self, data: bytes) -> None:
        self.handed.append(data)
        self._recv_encryption._cipher._update_iv()

    def write(self, packet: bytes) -> None:
        self.written += packet

    def writelines(self, packets: list[bytes]) -> None:
        self.written += b"".join(packets)

    def send_packet(self, kind: int, *args: bytes) -> None:
        self.sent.append(kind)


def seal(encryption: GCMEncryption, payload: bytes) -> bytes:
    padding = -(1 + len(payload)) % 16 or 16
    padding += 16 if padding < 4 else 0
    plain = bytes([padding]) + payload + bytes(padding)
    data, tag = encryption.encrypt_packet(0, len(plain).to_bytes(4, "big"), plain)
    return data + tag


def channel_data(data: bytes, channel: int = 5) -> bytes:
    return bytes([94]) + channel.to_bytes(4, "big") + len(data).to_bytes(4, "big") + data


def reader() -> tuple[FastReader, FakeConnection]:
    connection = FakeConnection()
    return FastReader(connection, FastPath(connection)), connection


def feed(fast: FastReader, data: bytes) -> None:
    while data:
        room = fast.get_buffer(-1)
        count = min(len(room), len(data))
        room[:count] = data[:count]
        fast.buffer_updated(count)
        data = data[count:]


@given(
    sizes=st.lists(st.one_of(st.integers(1, 100), st.just(32768)), max_size=12),
    control_at=st.integers(0, 12),
    cuts=st.lists(st.integers(0, 400_000), max_size=8),
)
@settings(max_examples=60, deadline=None)
def test_any_cut_of_the_stream_gives_the_same_data(
    sizes: list[int], control_at: int, cuts: list[int]
) -> None:
    fast, connection = reader()
    server, stream, expected = gcm(), b"", b""
    for number, size in enumerate(sizes):
        if number == control_at:
            stream += seal(server, b"\x50control")
        data = bytes([number + 1]) * size
        expected += data
        stream += seal(server, channel_data(data))
    bounds = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    for begin, end in itertools.pairwise(bounds):
        feed(fast, stream[begin:end])
    assert connection._channels[5].received == expected
    assert len(connection.handed) == (control_at < len(sizes))
    assert connection._recv_seq == len(sizes)  # asyncssh counts what it is handed


@pytest.mark.parametrize(
    "payload",
    [
        b"\x50\0\0\0\x05",  # another type
        channel_data(b"x", channel=9),  # no such channel
        channel_data(b""),
        channel_data(b"x") + b"more",
        channel_data(b"xyz")[:-1],
        bytes([94, 0, 0]),
        b"",
    ],
)
def test_what_is_no_plain_channel_data_is_handed_over_unopened(payload: bytes) -> None:
    fast, connection = reader()
    packet = seal(gcm(), payload)
    feed(fast, packet)
    assert connection.handed == [packet]
    assert not connection._channels[5].received


def test_a_wider_window_is_used_at_once() -> None:
    fast, connection = reader()
    channel = connection._channels[5]
    channel._send_window = 0
    writing = FastWriter(FastPath(connection), connection, channel, None)
    writing.write([b"data"])
    assert not connection.written
    feed(fast, seal(gcm(), bytes([93, 0, 0, 0, 5, 0, 0, 0, 100])))
    assert opened(bytes(connection.written)) == [b"data"]
    assert channel._send_window == 96
    assert connection.handed == []
    assert connection._recv_seq == 1


def test_what_arrives_together_is_one_turn_of_its_receiver() -> None:
    connection = FakeConnection()
    path = FastPath(connection)
    fast, server = FastReader(connection, path), gcm()
    seen: list[str] = []

    class Turn:
        depth = 0

        def end(self) -> None:
            seen.append(f"end of {self.depth}")
            self.depth -= 1

    def receive(data: memoryview) -> None:
        seen.append(bytes(data).decode())
        if data == b"bad":
            raise ValueError

    FastWriter(path, connection, connection._channels[5], None).deliver_to(receive, Turn())
    feed(fast, seal(server, channel_data(b"one")) + seal(server, channel_data(b"two")))
    assert seen == ["one", "two", "end of 1"]
    with pytest.raises(ValueError):
        feed(fast, seal(server, channel_data(b"bad")))
    assert seen[3:] == ["bad", "end of 1"]


def test_windows_that_are_widened_at_once_are_used_together() -> None:
    connection = FakeConnection()
    path = FastPath(connection)
    fast, server = FastReader(connection, path), gcm()
    channel, other = connection._channels[5], FakeChannel()
    connection._channels[6] = other  # asyncssh itself sends there
    writing = FastWriter(path, connection, channel, None)
    writing.deliver_to(lambda data: None)
    channel._send_window = 0
    writing.write([b"d" * 250])
    wider = [bytes([93, 0, 0, 0, number, 0, 0, 0, 100]) for number in (5, 6, 5, 5)]
    feed(fast, b"".join(seal(server, payload) for payload in wider))
    assert opened(bytes(connection.written)) == [b"d" * 250]
    assert channel._send_window == 50
    assert other.finished == 1


def test_a_receiver_gets_what_asyncssh_would_deliver_at_once() -> None:
    connection = FakeConnection()
    path = FastPath(connection)
    fast, channel, server = FastReader(connection, path), connection._channels[5], gcm()
    writing = FastWriter(path, connection, channel, None)
    got: list[bytes] = []
    writing.deliver_to(lambda data: got.append(bytes(data)))
    before = channel._recv_window

    def send(data: bytes) -> None:
        feed(fast, seal(server, channel_data(data)))

    send(b"first")
    assert (got, channel._recv_window) == ([b"first"], before - 5)
    channel._recv_paused = True
    send(b"paused,")
    channel._recv_paused, channel._send_state = False, "closed"
    send(b"closed,")
    channel._send_state, channel._recv_window = "open", before // 2 + 1
    send(b"x")  # half of the window is left: asyncssh widens it when it is less
    send(b"widen")
    channel._recv_window = before
    writing.close()
    send(b",gone")
    assert got == [b"first", b"x"]
    assert channel.received == b"paused,closed,widen,gone"
    assert connection.handed == []
    assert connection._recv_seq == 6


class Lander:
    """A receiver whose large packets land; keeps what came, in order."""

    def __init__(self) -> None:
        self.frames = FrameSplitter(1 << 20)
        self.landing = self.frames.landing
        self.packets: list[bytes] = []
        self.landed_bytes = 0

    def receive(self, data: memoryview) -> None:
        self.packets += map(bytes, self.frames.feed(data))

    def landed(self, count: int) -> None:
        self.landed_bytes += count
        packet = self.frames.landed(count)
        if packet is not None:
            self.packets.append(bytes(packet))


def landing() -> tuple[FastReader, FakeConnection, Lander]:
    connection = FakeConnection()
    path = FastPath(connection)
    lander = Lander()
    writing = FastWriter(path, connection, connection._channels[5], None)
    writing.deliver_to(lander.receive, None, lander.landing, lander.landed)
    connection._channels[6] = FakeChannel()
    return FastReader(connection, path), connection, lander


def framed(*sizes: int) -> tuple[list[bytes], bytes]:
    packets = [os.urandom(size) for size in sizes]
    return packets, b"".join(len(item).to_bytes(4, "big") + item for item in packets)


@given(
    sizes=st.lists(st.sampled_from((20, 40_000, 140_000, 261_133)), min_size=1, max_size=4),
    pieces=st.lists(st.sampled_from((1, 7, 16_384, 32_759, 32_768)), min_size=1, max_size=9),
    others=st.lists(st.sampled_from(("control", "channel", "window", "")), min_size=1, max_size=7),
    cuts=st.lists(st.integers(1, 100_000), min_size=1, max_size=9),
)
@settings(max_examples=60, deadline=None)
def test_what_lands_is_what_was_sent_whatever_comes_between(
    sizes: list[int], pieces: list[int], others: list[str], cuts: list[int]
) -> None:
    fast, connection, lander = landing()
    packets, data = framed(*sizes)
    server, stream, expected = gcm(), b"", {"control": 0, "channel": 0, "window": 0, "": 0}
    at = number = 0
    while at < len(data):
        piece = data[at : at + max(pieces[number % len(pieces)], len(data) // 50)]
        at += len(piece)
        stream += seal(server, channel_data(piece))
        other = others[number % len(others)]
        number += 1
        expected[other] += 1
        if other == "control":
            stream += seal(server, b"\x50" + bytes(4000))
        elif other == "channel":
            stream += seal(server, channel_data(b"elsewhere", 6))
        elif other == "window":
            stream += seal(server, bytes([93, 0, 0, 0, 5, 0, 0, 0, 1]))
    at = turn = 0
    while at < len(stream):
        cut = max(cuts[turn % len(cuts)], len(stream) // 100)
        turn += 1
        feed(fast, stream[at : at + cut])
        at += cut
    assert lander.packets == packets
    assert len(connection.handed) == expected["control"]
    assert connection._channels[6].received == b"elsewhere" * expected["channel"]
    assert connection._channels[5]._send_window == (1 << 20) + expected["window"]


def test_most_of_a_large_packet_lands_without_a_copy() -> None:
    fast, _, lander = landing()
    packets, data = framed(261_133, 261_133)
    server = gcm()
    for at in range(0, len(data), 32_768):
        feed(fast, seal(server, channel_data(data[at : at + 32_768])))
    assert lander.packets == packets
    assert lander.landed_bytes > 12 * 32_768


def test_a_forged_packet_leaves_what_landed_and_is_handed_over() -> None:
    fast, connection, lander = landing()
    packets, data = framed(240_000)
    server = gcm()
    feed(fast, seal(server, channel_data(data[:100_000])))
    forged = bytearray(seal(server, channel_data(data[100_000:])))
    forged[-1] ^= 1
    block, at = lander.landing.block, lander.landing.at
    feed(fast, bytes(forged))
    assert connection.handed == [bytes(forged)]
    assert block[at - 99_000 : at] == packets[0][: at - MARGIN][-99_000:]
    assert lander.packets == []


def test_what_asyncssh_is_to_deliver_does_not_land() -> None:
    fast, connection, lander = landing()
    channel, server = connection._channels[5], gcm()
    packets, data = framed(240_000)
    feed(fast, seal(server, channel_data(data[:50_000])))
    channel._recv_paused = True
    feed(fast, seal(server, channel_data(data[50_000:60_000])))
    assert channel.received == data[50_000:60_000]
    lander.receive(memoryview(bytes(channel.received)))  # as asyncssh does when it goes on
    channel._recv_paused = False
    feed(fast, seal(server, channel_data(data[60_000:])))
    assert lander.packets == packets


def test_what_the_answers_of_one_read_ask_for_leaves_in_one_write() -> None:
    connection = FakeConnection()
    path = FastPath(connection)
    fast, channel, server = FastReader(connection, path), connection._channels[5], gcm()
    writing = FastWriter(path, connection, channel, None)
    channel._send_pktsize = 32768
    writes: list[int] = []

    def answer(data: memoryview) -> None:
        writing.write([b"next " + bytes(data)])
        writes.append(len(connection.written))

    writing.deliver_to(answer)
    feed(fast, b"".join(seal(server, channel_data(b"%d" % number)) for number in range(3)))
    assert writes[:2] == [0, 0]
    assert opened(bytes(connection.written)) == [b"next 0next 1next 2"]
    feed(fast, seal(server, channel_data(b"3")) + b"\0")
    assert opened(bytes(connection.written))[1:] == [b"next 3"]


def test_the_counter_of_the_nonce_wraps_and_leaves_the_fixed_part() -> None:
    end = b"\1\2\3\4" + b"\xff" * 8
    connection = FakeConnection()
    path = FastPath(connection)
    channel, server = connection._channels[5], gcm()
    for encryption in (connection._recv_encryption, connection._send_encryption, server):
        encryption._cipher._iv = end
    fast = FastReader(connection, path)
    for data in (b"one", b"two"):
        feed(fast, seal(server, channel_data(data)))
    assert channel.received == b"onetwo"
    writing = FastWriter(path, connection, channel, None)
    writing.write([b"data"])
    for encryption, count in ((connection._recv_encryption, 1), (connection._send_encryption, 0)):
        assert encryption._cipher._iv == end[:4] + count.to_bytes(8, "big")


def test_a_cipher_that_counts_otherwise_is_not_known() -> None:
    encryption = gcm()
    assert sshfast._is_known(encryption)

    class Other(GCMCipher):
        def _update_iv(self) -> None:
            self._iv = self._iv[::-1]

    assert not sshfast._is_known(GCMEncryption(Other("aes128-gcm", KEY, bytes(range(12)))))


def test_a_malformed_wider_window_is_handed_over() -> None:
    fast, connection = reader()
    feed(fast, seal(gcm(), bytes([93, 0, 0, 0, 5, 0, 0, 0, 100, 1])))
    assert len(connection.handed) == 1
    assert connection._channels[5]._send_window == 1 << 20


def test_more_than_the_window_and_data_for_a_closed_channel_are_handed_over() -> None:
    fast, connection = reader()
    channel, server = connection._channels[5], gcm()
    channel._recv_window = 2
    feed(fast, seal(server, channel_data(b"xyz")))
    channel._recv_window, channel._recv_state = 1000, "eof"
    feed(fast, seal(server, channel_data(b"xyz")))
    assert len(connection.handed) == 2
    assert not channel.received


def test_a_forged_packet_is_handed_over_to_be_refused() -> None:
    fast, connection = reader()
    packet = bytearray(seal(gcm(), channel_data(b"data")))
    packet[-1] ^= 1
    feed(fast, bytes(packet))
    assert connection.handed == [bytes(packet)]


def test_an_absurd_length_is_handed_over_at_once() -> None:
    fast, connection = reader()
    feed(fast, b"\xff\xff\xff\xff")
    assert connection.handed == [b"\xff\xff\xff\xff"]


@pytest.mark.parametrize("state", ["between", "buffered", "compressed", "other cipher"])
def test_while_asyncssh_is_in_another_state_it_gets_everything(state: str) -> None:
    fast, connection = reader()
    if state == "between":
        connection._recv_handler = lambda: False
    elif state == "buffered":
        connection._inpbuf = b"x"
    elif state == "compressed":
        connection._decompressor = object()  # type: ignore[assignment]  # any will do
    else:
        connection._recv_encryption = type(
            "Other", (), {"_cipher": GCMCipher("aes128-gcm", KEY, IV)}
        )()
    packet = seal(gcm(), channel_data(b"data"))
    feed(fast, packet)
    assert connection.handed == [packet]


def writer(window: int = 1 << 20) -> tuple[FastWriter, FakeConnection, FakeChannel, Any]:
    connection, channel = FakeConnection(), FakeChannel(window)

    class Session:
        calls: list[str] = []  # noqa: RUF012 # one per test

        def pause_writing(self) -> None:
            self.calls.append("pause")

        def resume_writing(self) -> None:
            self.calls.append("resume")

    session = Session()
    session.calls = []
    return (
        FastWriter(FastPath(connection), connection, channel, session),
        connection,
        channel,
        session,
    )


def opened(stream: bytes) -> list[bytes]:
    """The data of each CHANNEL_DATA in *stream*, checked."""
    server, found = gcm(), []
    while stream:
        length = int.from_bytes(stream[:4], "big")
        assert length % 16 == 0
        plain = server.decrypt_packet(
            0, stream[:4], stream[4 : 4 + length], 4, stream[4 + length : 20 + length]
        )
        assert plain is not None
        assert 4 <= plain[0] < 20
        assert plain[1:6] == bytes([94, 0, 0, 0, 7])
        size = int.from_bytes(plain[6:10], "big")
        assert len(plain) == 10 + size + plain[0]
        found.append(plain[10 : 10 + size])
        stream = stream[20 + length :]
    return found


@given(
    st.lists(st.one_of(st.integers(0, 3000), st.just(530_000)), max_size=3),
    st.integers(1, 5000),
)
@settings(max_examples=60, deadline=None)
def test_what_is_written_arrives_in_packets_of_the_servers_size(
    sizes: list[int], window: int
) -> None:
    fast, connection, channel, _ = writer(window)
    buffers = [bytes([number + 1]) * size for number, size in enumerate(sizes)]
    fast.write(buffers)
    expected = b"".join(buffers)
    first = opened(bytes(connection.written))
    assert b"".join(first) == expected[:window]
    assert all(len(data) <= 1000 for data in first)
    assert fast.waiting() == max(0, len(expected) - window)
    channel._send_window += 1 << 30
    channel._flush_send_buf()
    assert b"".join(opened(bytes(connection.written))) == expected
    assert fast.waiting() == 0
    assert channel.finished
    assert connection._send_seq == len(opened(bytes(connection.written)))


def test_nothing_is_written_during_a_key_exchange_and_all_of_it_after() -> None:
    fast, connection, channel, _ = writer()
    connection._kex_complete = False
    fast.write([b"data"])
    assert not connection.written
    assert not channel.finished
    connection._kex_complete = True
    connection._send_deferred_packets()
    assert opened(bytes(connection.written)) == [b"data"]


def test_the_limit_of_a_key_asks_asyncssh_for_the_next_one() -> None:
    fast, connection, _, _ = writer()
    connection._rekey_bytes = 1000
    fast.write([bytes(900)])
    assert connection.sent == []
    fast.write([bytes(900)])
    assert connection.sent == [2]


def test_a_full_socket_holds_the_queue_and_the_writer_is_paused_and_resumed() -> None:
    fast, connection, _, session = writer(1 << 30)
    fast._path.pause()
    fast.write([bytes(HIGH_WATER)])
    assert session.calls == []
    fast.write([b"x"])
    assert session.calls == ["pause"]
    assert not connection.written
    fast._path.resume()
    assert session.calls == ["pause", "resume"]
    assert sum(map(len, opened(bytes(connection.written)))) == HIGH_WATER + 1


def test_another_cipher_or_compression_leaves_the_data_to_asyncssh() -> None:
    fast, connection, channel, _ = writer()
    connection._compressor = object()  # type: ignore[assignment]  # any will do
    fast.write([b"da", b"ta"])
    assert channel.written == [b"data"]
    assert fast.waiting() == 0


def test_a_closed_writer_drops_its_queue() -> None:
    fast, connection, _, _ = writer()
    fast._path.pause()
    fast.write([b"data"])
    fast.close()
    fast._path.resume()
    assert not connection.written


@pytest.mark.parametrize("name", sshfast._CONNECTION_NAMES)
def test_an_asyncssh_that_lacks_a_name_is_left_alone(name: str) -> None:
    connection = FakeConnection()
    names = {n: None for n in sshfast._CONNECTION_NAMES if n != name}
    bare: Any = type("Bare", (), names)()
    assert sshfast.install(bare) is None
    assert connection.written == b""


# --- on a real connection ------------------------------------------------------------------------


def string(value: bytes) -> bytes:
    return len(value).to_bytes(4, "big") + value


def packet(kind: int, number: int, body: bytes) -> bytes:
    body = bytes([kind]) + number.to_bytes(4, "big") + body
    return string(body)


BLOCK = 200_000


async def copy_through(link: Link, path: Path, data: bytes) -> bytes:
    """Write *data* to *path* with pipelined WRITEs, and read it again with pipelined READs."""
    recorder = Recorder()
    channel = await link.open_channel(recorder)
    channel.write([INIT])
    at = await take(recorder, 0)
    flags = (0x1 | 0x2 | 0x8 | 0x10).to_bytes(4, "big") + bytes(4)
    channel.write([packet(3, 1, string(os.fsencode(path)) + flags)])
    at = await take(recorder, at)
    handle = string(bytes(4))
    offsets = range(0, len(data), BLOCK)
    for offset in offsets:
        block = data[offset : offset + BLOCK]
        head = handle + offset.to_bytes(8, "big") + len(block).to_bytes(4, "big")
        channel.write([packet(6, 2, head + block)[: -len(block)], block])
    for _ in offsets:
        at = await take(recorder, at)
    for offset in offsets:
        channel.write([packet(5, 3, handle + offset.to_bytes(8, "big") + BLOCK.to_bytes(4, "big"))])
    read = b""
    for _ in offsets:
        begin = at
        at = await take(recorder, at)
        assert recorder.data[begin + 4] == 103
        read += recorder.data[begin + 13 : at]
    channel.close()
    await recorder.reason()
    return read


async def take(recorder: Recorder, at: int) -> int:
    """The end of the packet that begins at *at*, when it has arrived."""
    await recorder.at_least(at + 4)
    end = at + 4 + int.from_bytes(recorder.data[at : at + 4], "big")
    await recorder.at_least(end)
    return end


@pytest.fixture(scope="module")
def rekeying(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """A server that wants new keys after each megabyte."""
    directory = tmp_path_factory.mktemp("rekeying")
    with running_sshd(directory, extra=["RekeyLimit 1M none"]) as server:
        yield server


@pytest.mark.sshd
@pytest.mark.parametrize(
    ("loop_factory", "words"),
    [
        (asyncio.new_event_loop, {}),
        (asyncio.new_event_loop, {"RekeyLimit": "1M"}),
        (asyncio.new_event_loop, {"Ciphers": "chacha20-poly1305@openssh.com"}),
        (uvloop.new_event_loop, {"RekeyLimit": "1M"}),
        (uvloop.new_event_loop, {"Ciphers": "aes256-gcm@openssh.com"}),
        (uvloop.new_event_loop, {"Ciphers": "aes128-ctr", "RekeyLimit": "1M"}),
        (uvloop.new_event_loop, {"Compression": "yes"}),
    ],
)
def test_bulk_data_arrives_unchanged_through_rekeying(
    sshd: Sshd, rekeying: Sshd, tmp_path: Path, words: dict[str, str], loop_factory: Any
) -> None:
    data = os.urandom(4096) * 700

    async def run(server: Sshd) -> None:
        async with linked(
            config_for(server.port, {**base_words(server.directory), **words})
        ) as link:
            async with asyncio.timeout(60):
                copies = await asyncio.gather(
                    *(copy_through(link, tmp_path / f"copy{n}", data) for n in range(2))
                )
            assert copies == [data, data]

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        for server in (sshd, rekeying):
            runner.run(run(server))


@pytest.mark.sshd
async def test_the_short_way_is_taken_with_the_installed_asyncssh(sshd: Sshd) -> None:
    async with linked(config_for(sshd.port, base_words(sshd.directory))) as link:
        assert link._path is not None, asyncssh.__version__  # type: ignore[attr-defined]  # SshLink
        recorder = Recorder()
        channel = await link.open_channel(recorder)
        assert channel._writer is not None  # type: ignore[attr-defined]  # SshChannel


@pytest.mark.parametrize("cipher", ["aes128-ctr", "chacha20-poly1305@openssh.com"])
def test_an_empty_packet_is_sent_only_where_a_new_key_is_due(cipher: str) -> None:
    connection = FakeConnection()
    connection.cipher = cipher
    send_no_ignores(connection)  # type: ignore[arg-type]  # FakeConnection
    for kind in (2, 94, 2):
        connection.send_packet(kind, b"")
    assert connection.sent == [94]
    connection._rekey_bytes_sent = connection._rekey_bytes
    connection.send_packet(2, b"")
    assert connection.sent == [94, 2]


@pytest.mark.parametrize("cipher", ["aes128-cbc", None])
def test_a_cipher_that_needs_them_has_its_empty_packets(cipher: str | None) -> None:
    connection = FakeConnection()
    connection.cipher = cipher
    send_no_ignores(connection)  # type: ignore[arg-type]  # FakeConnection
    connection.send_packet(2, b"")
    assert connection.sent == [2]


@pytest.mark.sshd
@pytest.mark.parametrize(
    "cipher", ["aes128-ctr", "chacha20-poly1305@openssh.com", "aes128-gcm@openssh.com"]
)
async def test_a_request_is_one_packet_with_the_installed_asyncssh(sshd: Sshd, cipher: str) -> None:
    words = {**base_words(sshd.directory), "Ciphers": cipher}
    async with linked(config_for(sshd.port, words)) as link:
        recorder = Recorder()
        channel = await link.open_channel(recorder)
        connection = link._connection  # type: ignore[attr-defined]  # SshLink
        before = connection._send_seq
        channel.write([INIT])
        await take(recorder, 0)
        assert connection._send_seq == before + 1


@pytest.mark.sshd
async def test_what_was_written_before_close_reaches_the_server(sshd: Sshd, tmp_path: Path) -> None:
    target = tmp_path / "file"
    async with linked(config_for(sshd.port, base_words(sshd.directory))) as link:
        recorder = Recorder()
        channel = await link.open_channel(recorder)
        channel.write([INIT])
        at = await take(recorder, 0)
        flags = (0x2 | 0x8).to_bytes(4, "big") + bytes(4)
        channel.write([packet(3, 1, string(os.fsencode(target)) + flags)])
        await take(recorder, at)
        size = 20 * BLOCK
        for offset in range(0, size, BLOCK):
            head = string(bytes(4)) + offset.to_bytes(8, "big") + BLOCK.to_bytes(4, "big")
            channel.write([packet(6, 2, head + bytes(BLOCK))])
        assert channel.write_buffer_size() > 0
        channel.close()
        assert await recorder.reason() is None
        async with asyncio.timeout(10):
            while not target.exists() or target.stat().st_size < size:
                await asyncio.sleep(0.01)


@pytest.mark.sshd
async def test_a_connection_that_breaks_while_data_waits_ends_its_channels(own_sshd: Sshd) -> None:
    async with linked(config_for(own_sshd.port, base_words(own_sshd.directory))) as link:
        recorder = Recorder()
        channel = await link.open_channel(recorder)
        channel.write([INIT])
        await recorder.at_least(9)
        own_sshd.pause()
        channel.write([bytes(20_000_000)])
        own_sshd.kill_sessions()
        assert isinstance(await recorder.reason(), ConnectError)
        channel.write([b"dropped"])
        own_sshd.resume()
