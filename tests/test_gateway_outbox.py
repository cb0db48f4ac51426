from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from gateway.outbox import FIRST_PORTION, PORTION, Outbox


class Writer:
    def __init__(self) -> None:
        self.pending: list[bytes] | None = None
        self.queued = False
        self.written: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def send(self, outbox: Outbox, chunk: bytes) -> None:
        if self.pending is None:
            self.pending = [chunk]
            outbox.add(self)
        else:
            self.pending.append(chunk)


def make() -> tuple[Outbox, list[Callable[[], Any]]]:
    calls: list[Callable[[], Any]] = []
    return Outbox(calls.append), calls


def test_a_turn_is_one_write_in_order() -> None:
    outbox, calls = make()
    writer = Writer()
    for chunk in (b"a", b"b", b"c"):
        writer.send(outbox, chunk)
    assert writer.written == []
    assert len(calls) == 1
    calls[0]()
    assert writer.written == [b"abc"]
    assert writer.pending is None


def test_one_call_serves_all_writers() -> None:
    outbox, calls = make()
    writers = [Writer() for _ in range(10)]
    for writer in writers:
        writer.send(outbox, b"x")
    assert len(calls) == 1
    outbox.flush()
    assert [writer.written for writer in writers] == [[b"x"]] * 10


def test_writers_with_the_same_chunks_share_one_bytes_object() -> None:
    outbox, _ = make()
    chunks = [bytes((value,)) * 100 for value in range(5)]
    writers = [Writer() for _ in range(3)]
    for chunk in chunks:
        for writer in writers:
            writer.send(outbox, chunk)
    outbox.flush()
    assert writers[0].written == [b"".join(chunks)]
    assert writers[0].written[0] is writers[1].written[0] is writers[2].written[0]


def test_a_single_chunk_is_written_as_it_is() -> None:
    outbox, _ = make()
    chunk, writer = bytes(300), Writer()
    writer.send(outbox, chunk)
    outbox.flush()
    assert writer.written[0] is chunk


def test_what_a_write_causes_goes_out_in_the_next_turn() -> None:
    outbox, calls = make()

    class Answering(Writer):
        def write(self, data: bytes) -> None:
            super().write(data)
            if data == b"first":
                self.send(outbox, b"second")

    writer = Answering()
    writer.send(outbox, b"first")
    calls.pop()()
    calls.pop()()
    assert writer.written == [b"first", b"second"]


def test_a_writer_whose_pending_was_taken_away_is_passed_over() -> None:
    outbox, _ = make()
    writer = Writer()
    writer.send(outbox, b"x")
    writer.pending = None
    outbox.flush()
    assert writer.written == []


def test_a_crowd_is_written_to_in_portions_and_who_is_in_haste_first() -> None:
    outbox, calls = make()
    writers = [Writer() for _ in range(3 * PORTION)]
    for writer in writers:
        writer.send(outbox, b"push")
    outbox.hasten(writers[-1])
    calls.pop()()
    assert writers[-1].written == [b"push"]
    assert [len(writer.written) for writer in writers].count(1) == FIRST_PORTION + 1
    writers[-2].send(outbox, b" and more")
    while calls:
        calls.pop()()
    assert writers[-2].written == [b"push and more"]
    assert all(len(writer.written) == 1 for writer in writers)


def test_the_portions_of_a_crowd_grow_until_somebody_is_in_haste_again() -> None:
    outbox, calls = make()
    writers = [Writer() for _ in range(5 * PORTION)]
    for writer in writers:
        writer.send(outbox, b"push")

    def turn() -> int:
        before = sum(bool(writer.written) for writer in writers)
        calls.pop()()
        return sum(bool(writer.written) for writer in writers) - before

    assert turn() == PORTION
    outbox.hasten(Writer())
    assert [turn() for _ in range(5)] == [8, 16, 32, 64, 64]
    outbox.hasten(Writer())
    assert turn() == FIRST_PORTION == 8


def test_a_crowd_does_not_wait_for_small_portions_where_somebody_is_in_haste_in_every_turn() -> None:
    outbox, calls = make()
    writers = [Writer() for _ in range(4 * PORTION)]
    for writer in writers:
        writer.send(outbox, b"push")
    turns = 0
    while not all(writer.written for writer in writers):
        outbox.hasten(Writer())
        calls.pop()()
        turns += 1
    assert turns == 7


def test_pauses_for_other_threads_are_the_farther_apart_the_longer_they_take(monkeypatch: pytest.MonkeyPatch) -> None:
    now, pauses = 100.0, []

    def sleep(seconds: float) -> None:
        nonlocal now
        pauses.append(now)
        now += 0.005

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    outbox, calls = make()
    for _ in range(200 * PORTION):
        Writer().send(outbox, b"push")
    while calls:
        calls.pop()()
        now += 0.0005
    assert pauses == pytest.approx([100, 100.04], abs=0.0006)


def test_those_that_were_written_to_in_haste_do_not_pile_up() -> None:
    outbox, calls = make()
    writers = [Writer() for _ in range(2 * PORTION)]
    for _ in range(10):
        for writer in writers:
            writer.send(outbox, b"x")
            outbox.hasten(writer)
        calls.pop()()
        assert len(outbox._others) <= len(writers)
    assert all(writer.written == [b"x"] * 10 for writer in writers)
    while calls:
        calls.pop()()
    assert all(len(writer.written) == 10 for writer in writers)
