"""The tables of operations are total."""

from __future__ import annotations

import inspect

import pytest

from netfs.client.interrupts import INTERRUPTION
from netfs.client.operations import HANDLERS, REFUSED
from netfs.fuse.abi import Opcode
from netfs.fuse.requests import SERVED

DISPATCHERS_OWN = {Opcode.INIT, Opcode.INTERRUPT, Opcode.DESTROY, Opcode.NOTIFY_REPLY}


@pytest.mark.parametrize("opcode", list(Opcode))
def test_every_opcode_is_in_exactly_one_table(opcode: Opcode) -> None:
    assert (opcode in HANDLERS) + (opcode in REFUSED) + (opcode in DISPATCHERS_OWN) == 1


def test_what_is_handled_can_be_decoded_and_interrupted_or_not() -> None:
    assert set(HANDLERS) == set(INTERRUPTION)
    assert set(HANDLERS) | DISPATCHERS_OWN == set(SERVED)


def test_every_refusal_has_an_errno_the_kernel_takes_and_a_reason() -> None:
    for refusal in REFUSED.values():
        assert 0 < refusal.errno < 512
        assert refusal.reason


@pytest.mark.parametrize("handler", sorted(set(HANDLERS.values()), key=lambda row: row.__name__))
def test_a_handler_takes_a_context_and_a_request(handler: object) -> None:
    assert callable(handler)
    assert list(inspect.signature(handler).parameters) == ["ctx", "request"]
