"""Memory that is used again: never while anybody can see it."""

from __future__ import annotations

from netfs.buffers import Spares


def test_what_nobody_holds_is_used_again() -> None:
    spares = Spares(100, 4)
    first = spares.take()
    view = memoryview(first)[10:20]
    second = spares.take()
    assert second is not first
    assert (len(first), len(second)) == (100, 100)
    view.release()
    third = spares.take()
    assert third is first or third is second
    assert len(third) == 100


def test_a_view_of_a_view_holds_it_too() -> None:
    spares = Spares(100, 4)
    held = memoryview(spares.take())[1:]
    inner = held[2:3]
    held.release()
    inner[0] = 7
    others = [memoryview(spares.take()) for _ in range(20)]
    for other in others:
        other[:] = bytes(100)
    assert inner[0] == 7


def test_no_more_are_kept_than_allowed() -> None:
    spares = Spares(10, 4)
    held = [memoryview(spares.take()) for _ in range(9)]
    kept = {id(view.obj) for view in held[:4]}
    del held[:]
    again = [memoryview(spares.take()) for _ in range(4)]
    assert {id(view.obj) for view in again} == kept


def test_the_same_buffer_is_in_turn_while_one_at_a_time_is_lent() -> None:
    spares = Spares(10, 12)
    many = [memoryview(spares.take()) for _ in range(5)]
    for view in many:
        view.release()
    assert len({id(spares.take()) for _ in range(10)}) == 1
