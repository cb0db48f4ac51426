"""One timer for all clients of a listener.

Each entry sits in the bucket of its next deadline and in no other. Deadlines mostly move away (a client was heard, a
heartbeat was sent), so nothing is done when they do: the entry is looked at when its old bucket comes up, and says
itself when to look again. An idle client thus costs one look per heartbeat, and one `call_at` a tick serves ten
thousand of them. What comes up together is looked at in portions, over a quarter of a tick: thousands whose time is
over at once, a crowd that said nothing, do not keep everybody else waiting.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Protocol

__all__ = ["Timed", "TimerWheel"]


PORTION = 16
"""Entries that are looked at in one turn of the loop, or more where there are too many of them. To drop a connection
takes some 60 us."""
PORTIONS = 64
"""Of how many portions there is time in a quarter of a tick."""


class _Handle(Protocol):
    def cancel(self) -> None: ...


class Timed(Protocol):
    """What the wheel looks at. `bucket` belongs to the wheel; it starts as 0."""

    bucket: int

    def due(self, now: float) -> float:
        """Do what is due; return the next deadline, infinite for none, as if it raises."""


class TimerWheel:
    """A timer of coarse resolution for many entries.

    `tick` is the resolution in seconds: a deadline is seen at it or up to one tick later, never earlier; where many
    come up together a quarter of a tick later than that, or when the loop comes to them. `clock` and `call_at` are a
    loop's `time` and `call_at`, or a test's. The timer runs only while there are entries.
    """

    def __init__(
        self, tick: float, clock: Callable[[], float], call_at: Callable[[float, Callable[[], Any]], _Handle]
    ) -> None:
        self._tick = tick
        self._clock = clock
        self._call_at = call_at
        self._start = clock()
        self._current = 0
        self._buckets: dict[int, set[Timed]] = {}
        # What came up and was not looked at yet, in this order.
        self._due: OrderedDict[Timed, None] = OrderedDict()
        self._size = PORTION
        self._advancing: _Handle | None = None
        self._looking: _Handle | None = None
        self._closed = False

    def schedule(self, entry: Timed, deadline: float) -> None:
        """Look at the entry at `deadline`; replaces the time set before. Infinite, or once it is closed: never."""
        if entry.bucket:
            self.cancel(entry)
        if deadline == math.inf or self._closed:
            return
        if self._advancing is None:
            # Asleep until now: the ticks in between had nothing in them. Not back, though: a loop may be early by a
            # rounding.
            self._current = max(self._index(self._clock()), self._current)
            self._arm()
        entry.bucket = max(self._index(deadline), self._current) + 1
        self._buckets.setdefault(entry.bucket, set()).add(entry)

    def cancel(self, entry: Timed) -> None:
        """Forget the entry; harmless if it is not here."""
        number, entry.bucket = entry.bucket, 0
        bucket = self._buckets.get(number)
        if bucket is None:
            self._due.pop(entry, None)
            return
        bucket.discard(entry)
        if not bucket:
            del self._buckets[number]

    def close(self) -> None:
        """Stop the timer and forget all entries, for good."""
        self._closed = True
        for handle in (self._advancing, self._looking):
            if handle is not None:
                handle.cancel()
        self._advancing = self._looking = None
        self._buckets.clear()
        self._due.clear()

    def __len__(self) -> int:
        """Return the number of entries."""
        return len(self._due) + sum(map(len, self._buckets.values()))

    def _index(self, time: float) -> int:
        return math.floor((time - self._start) / self._tick)

    def _arm(self) -> None:
        self._advancing = self._call_at(self._start + (self._current + 1) * self._tick, self._advance)

    def _advance(self) -> None:
        self._advancing = None
        # At least the tick that was armed: rounding may put the clock a hair before it.
        last = max(self._index(self._clock()), self._current + 1)
        while self._current < last:
            self._current += 1
            if bucket := self._buckets.pop(self._current, None):
                self._due.update(dict.fromkeys(bucket))
        if self._buckets:
            self._arm()
        self._size = max(self._size, math.ceil(len(self._due) / PORTIONS))
        if self._looking is None:
            self._look()

    def _look(self) -> None:
        self._looking = None
        now = self._clock()
        due = self._due
        try:
            for _ in range(self._size):
                if not due:
                    break
                entry = due.popitem(last=False)[0]
                entry.bucket = 0
                deadline = entry.due(now)
                # `due` may have scheduled it by itself: closing does, and that is the later word.
                if not entry.bucket:
                    self.schedule(entry, deadline)
        finally:
            if due:
                self._looking = self._call_at(now + self._tick / (4 * PORTIONS), self._look)
            else:
                self._size = PORTION
