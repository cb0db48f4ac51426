from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wheel import PORTION, PORTIONS, TimerWheel

NEVER = float("inf")


class FakeLoop:
    """A clock that moves when told, and `call_at` on it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.calls: list[tuple[float, int, Callable[[], Any], list[bool]]] = []
        self.count = 0

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], Any]) -> FakeHandle:
        alive = [True]
        self.count += 1
        heapq.heappush(self.calls, (when, self.count, callback, alive))
        return FakeHandle(alive)

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while self.calls and self.calls[0][0] <= end:
            when, _, callback, alive = heapq.heappop(self.calls)
            self.now = max(self.now, when)
            if alive[0]:
                callback()
        self.now = end


class FakeHandle:
    def __init__(self, alive: list[bool]) -> None:
        self.alive = alive

    def cancel(self) -> None:
        self.alive[0] = False


class Entry:
    def __init__(self, loop: FakeLoop, next_deadline: Callable[[float], float] = lambda _now: NEVER) -> None:
        self.bucket = 0
        self.loop = loop
        self.next_deadline = next_deadline
        self.looks: list[float] = []

    def due(self, now: float) -> float:
        self.looks.append(now)
        return self.next_deadline(now)


def make(tick: float = 1.0) -> tuple[FakeLoop, TimerWheel]:
    loop = FakeLoop()
    return loop, TimerWheel(tick, loop.time, loop.call_at)


@given(st.floats(0, 100), st.floats(0.01, 2.0), st.floats(0, 50))
def test_an_entry_is_seen_at_its_deadline_or_a_tick_later_never_before(delay: float, tick: float, idle: float) -> None:
    loop, wheel = make(tick)
    loop.advance(idle)
    entry = Entry(loop)
    deadline = loop.now + delay
    wheel.schedule(entry, deadline)
    loop.advance(delay + 2 * tick)
    (seen,) = entry.looks
    assert deadline - 1e-6 <= seen <= deadline + tick + 1e-6


def test_an_entry_is_seen_again_at_the_deadline_that_it_returns() -> None:
    loop, wheel = make()
    entry = Entry(loop, lambda now: now + 10)
    wheel.schedule(entry, loop.now + 10)
    loop.advance(45)
    assert len(entry.looks) == 4


def test_an_idle_entry_costs_one_look_a_deadline_and_one_timer_serves_all() -> None:
    loop, wheel = make()
    entries = [Entry(loop, lambda now: now + 30) for _ in range(1000)]
    for entry in entries:
        wheel.schedule(entry, loop.now + 30)
    loop.advance(60)
    assert sum(len(entry.looks) for entry in entries) == 1000
    assert loop.count <= 61 + 1000 // PORTION


def test_a_cancelled_entry_is_not_seen() -> None:
    loop, wheel = make()
    entry = Entry(loop)
    wheel.schedule(entry, loop.now + 5)
    wheel.cancel(entry)
    wheel.cancel(entry)
    loop.advance(20)
    assert entry.looks == []
    assert len(wheel) == 0


def test_scheduling_again_replaces_the_deadline() -> None:
    loop, wheel = make()
    entry = Entry(loop)
    wheel.schedule(entry, loop.now + 50)
    wheel.schedule(entry, loop.now + 5)
    loop.advance(100)
    assert len(entry.looks) == 1
    wheel.schedule(entry, loop.now + 5)
    wheel.schedule(entry, NEVER)
    loop.advance(100)
    assert len(entry.looks) == 1


def test_what_an_entry_schedules_while_it_is_seen_holds() -> None:
    loop, wheel = make()
    entry = Entry(loop)

    def close_soon(now: float) -> float:
        if len(entry.looks) == 1:
            wheel.schedule(entry, now + 2)
        return NEVER

    entry.next_deadline = close_soon
    wheel.schedule(entry, loop.now + 5)
    loop.advance(20)
    assert len(entry.looks) == 2


def test_the_timer_sleeps_while_there_is_nothing_to_wait_for() -> None:
    loop, wheel = make()
    wheel.schedule(Entry(loop), loop.now + 1)
    loop.advance(10)
    assert loop.calls == []
    loop.advance(1e6)
    late = Entry(loop)
    wheel.schedule(late, loop.now + 3)
    loop.advance(5)
    assert len(late.looks) == 1


def test_the_timer_sleeps_once_all_that_it_waited_for_was_cancelled() -> None:
    loop, wheel = make()
    entry = Entry(loop)
    wheel.schedule(entry, loop.now + 1000)
    wheel.cancel(entry)
    loop.advance(1)
    assert loop.calls == []


def test_a_loop_that_was_blocked_catches_up() -> None:
    loop, wheel = make()
    entries = [Entry(loop) for _ in range(5)]
    for index, entry in enumerate(entries):
        wheel.schedule(entry, loop.now + 1 + index)
    loop.now += 100
    loop.advance(1)
    assert all(len(entry.looks) == 1 for entry in entries)


def test_a_closed_wheel_is_silent() -> None:
    loop, wheel = make()
    entry, late = Entry(loop), Entry(loop)
    wheel.schedule(entry, loop.now + 1)
    wheel.close()
    wheel.close()
    wheel.schedule(late, loop.now + 1)
    loop.advance(10)
    assert (entry.looks, late.looks, len(wheel)) == ([], [], 0)


@pytest.mark.parametrize("portions", [1, 5, PORTIONS, 10 * PORTIONS])
def test_what_comes_up_together_is_looked_at_in_portions_over_a_quarter_of_a_tick(portions: int) -> None:
    loop, wheel = make()
    entries = [Entry(loop) for _ in range(portions * PORTION)]
    for entry in entries:
        wheel.schedule(entry, loop.now + 3)
    came_up = loop.now + 4
    loop.advance(10)
    looks = Counter(look for entry in entries for look in entry.looks)
    assert looks.total() == len(entries)
    assert max(looks.values()) == max(PORTION, len(entries) // PORTIONS)
    assert came_up <= min(looks) <= max(looks) <= came_up + 0.25
    assert len(wheel) == 0


def test_what_comes_up_while_much_is_due_is_looked_at_too() -> None:
    """The loop is so slow that a tick passes between two portions."""
    loop, wheel = make()

    def slow(_: float) -> float:
        loop.now += 0.1
        return NEVER

    entries = [Entry(loop, slow) for _ in range(4 * PORTION)]
    for entry in entries:
        wheel.schedule(entry, loop.now + 3)
    later = [Entry(loop) for _ in range(2 * PORTION)]
    for entry in later:
        wheel.schedule(entry, loop.now + 4)
    loop.advance(30)
    assert {len(entry.looks) for entry in entries + later} == {1}
    assert (len(wheel), loop.calls) == (0, [])


@given(st.lists(st.floats(0.0001, 3.0), min_size=1, max_size=3 * PORTION), st.floats(0, 0.1))
def test_none_is_lost_though_a_look_takes_time_and_nothing_else_was_waited_for(
    deadlines: list[float], cost: float
) -> None:
    loop, wheel = make()
    entries = []

    def put_off(seconds: float) -> Callable[[float], float]:
        again = iter([seconds])

        def due(now: float) -> float:
            loop.now += cost
            return now + next(again, NEVER)

        return due

    for seconds in deadlines:
        entries.append(Entry(loop, put_off(seconds)))
        wheel.schedule(entries[-1], loop.now + 1)
    loop.advance(100)
    assert {len(entry.looks) for entry in entries} == {2}
    assert (len(wheel), loop.calls) == (0, [])


def test_an_entry_that_raises_stops_neither_those_of_its_portion_nor_the_timer() -> None:
    loop, wheel = make()
    entries = [Entry(loop) for _ in range(3 * PORTION)]

    def fail(_: float) -> float:
        raise RuntimeError

    for entry in entries:
        entry.next_deadline = fail
        wheel.schedule(entry, loop.now + 3)
    for _ in entries:
        with pytest.raises(RuntimeError):
            loop.advance(10)
    assert len(wheel) == 0
    late = Entry(loop)
    wheel.schedule(late, loop.now + 3)
    loop.advance(5)
    assert len(late.looks) == 1


def test_what_is_put_off_or_cancelled_between_portions_is_not_looked_at_then() -> None:
    loop = FakeLoop()
    wheel = TimerWheel(1.0, loop.time, loop.call_at)
    entries = [Entry(loop) for _ in range(3 * PORTION)]
    meddled: list[Entry] = []

    def meddle(_: float) -> float:
        if not meddled:
            meddled.extend([entry for entry in entries if not entry.looks][-2:])
            wheel.schedule(meddled[0], loop.now + 5)
            wheel.cancel(meddled[1])
        return NEVER

    for entry in entries:
        entry.next_deadline = meddle
        wheel.schedule(entry, loop.now + 3)
    loop.advance(5)
    off, gone = meddled
    assert (off.looks, gone.looks, len(wheel)) == ([], [], 1)
    assert all(entry.looks for entry in entries if entry not in meddled)
    loop.advance(5)
    assert len(off.looks) == 1
    assert gone.looks == []


def test_a_wheel_that_is_closed_while_much_is_due_looks_at_nothing_more() -> None:
    loop = FakeLoop()
    wheel = TimerWheel(1.0, loop.time, loop.call_at)
    entries = [Entry(loop) for _ in range(3 * PORTION)]

    def close(now: float) -> float:
        wheel.close()
        return now + 1

    for entry in entries:
        entry.next_deadline = close
        wheel.schedule(entry, loop.now + 3)
    loop.advance(10)
    assert sum(len(entry.looks) for entry in entries) == 1
    assert len(wheel) == 0
