"""Handles are foretold of a server that numbers them as OpenSSH does, and of no other."""

from __future__ import annotations

import struct
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netfs.sftp.foretold import PROOFS, Foretold


def handle(index: int) -> bytes:
    return struct.pack(">I", index)


class Server:
    """sftp-server's table: one request after the other, as they leave."""

    def __init__(self) -> None:
        self.free: list[int] = []
        self.size = 0
        self.live: set[bytes] = set()

    def open(self) -> bytes:
        if self.free:
            index = self.free.pop()
        else:
            index, self.size = self.size, self.size + 1
        self.live.add(handle(index))
        return handle(index)

    def close(self, which: bytes) -> None:
        self.live.remove(which)
        self.free.append(struct.unpack(">I", which)[0])


OPEN, REFUSED, CLOSE, ANSWER = "open", "refused", "close", "answer"


@given(
    st.lists(
        st.tuples(
            st.sampled_from((OPEN, OPEN, REFUSED, CLOSE, CLOSE, ANSWER, ANSWER, ANSWER)),
            st.integers(0, 5),
        ),
        max_size=200,
    )
)
def test_what_is_foretold_is_given_or_nobody_has_it(steps):
    server, foretold = Server(), Foretold()
    unanswered: deque[tuple[int, bytes | None]] = deque()
    known: list[bytes] = []  # handles whose openings are answered
    is_shifted = False  # an opening on its way is refused: what was foretold behind it is wrong
    for number, (step, which) in enumerate(steps):
        if step in (OPEN, REFUSED):
            told = foretold.opening(number)
            given_ = server.open() if step == OPEN else None
            if told is not None and not is_shifted and given_ is not None:
                assert told == given_
            if told != given_:
                assert told not in server.live - {given_}, "it is somebody else's"
            is_shifted |= given_ is None
            unanswered.append((number, given_))
        elif step == CLOSE and known:
            closed = known.pop(which % len(known))
            foretold.closing(number, closed)
            server.close(closed)
            unanswered.append((number, None))
        elif step == ANSWER and unanswered:
            request_id, given_ = unanswered.popleft()
            foretold.answered(request_id, given_)
            if given_ is not None:
                known.append(given_)
            is_shifted = is_shifted and bool(unanswered)
    for request_id, given_ in unanswered:
        foretold.answered(request_id, given_)
    for _ in range(PROOFS):
        told, given_ = foretold.opening(1000), server.open()
        foretold.answered(1000, given_)
    assert told is None or told == given_
    assert foretold.opening(1001) == server.open(), "it is still believed"


def proved() -> Foretold:
    """After as many handles as are wanted, of which the last is free."""
    foretold = Foretold()
    for index in range(PROOFS):
        assert foretold.opening(index) is None, "nothing is known yet"
        foretold.answered(index, handle(index))
    foretold.closing(50, handle(PROOFS - 1))
    foretold.answered(50, None)
    return foretold


def test_what_was_closed_last_comes_first_then_new_ones():
    foretold = proved()
    assert foretold.opening(60) == handle(PROOFS - 1)
    assert foretold.opening(61) == handle(PROOFS)
    assert foretold.opening(62) == handle(PROOFS + 1)


def test_a_close_on_its_way_counts():
    foretold = proved()
    foretold.closing(60, handle(0))
    assert foretold.opening(61) == handle(0)
    assert foretold.opening(62) == handle(PROOFS - 1)


def test_behind_a_refusal_it_is_foretold_anew():
    foretold = proved()
    assert foretold.opening(60) == handle(PROOFS - 1)
    assert foretold.opening(61) == handle(PROOFS), "if the one before is not refused"
    foretold.closing(62, handle(0))
    foretold.answered(60, None)
    assert foretold.opening(63) == handle(0)
    foretold.answered(61, handle(PROOFS - 1))
    foretold.answered(62, None)
    foretold.answered(63, handle(0))
    assert foretold.opening(64) == handle(PROOFS)


@pytest.mark.parametrize(
    "given_",
    [handle(7), handle(1 << 20), b"", b"abc", b"12345678", b"\0\0\0\0\0\0\0\2"],
)
def test_another_handle_than_foretold_ends_it(given_):
    foretold = proved()
    assert foretold.opening(60) is not None
    foretold.answered(60, given_)
    assert foretold.opening(61) is None
    foretold.answered(61, handle(PROOFS))
    assert foretold.opening(62) is None


@pytest.mark.parametrize("closed", [b"", b"x" * 9, handle(1 << 17)])
def test_closing_what_is_no_index_ends_it(closed):
    foretold = proved()
    foretold.closing(60, closed)
    foretold.answered(60, None)
    assert foretold.opening(61) is None


def test_answers_out_of_turn_end_it():
    foretold = proved()
    foretold.opening(60)
    foretold.opening(61)
    foretold.answered(61, handle(PROOFS))
    assert foretold.opening(62) is None
    foretold.answered(60, handle(PROOFS - 1))
    assert foretold.opening(63) is None


def test_numbers_that_are_not_used_again_end_it_at_the_first():
    foretold = proved()
    assert foretold.opening(60) == handle(PROOFS - 1)
    foretold.answered(60, handle(PROOFS))  # as servers do that count on
    assert foretold.opening(61) is None
