"""One timer for all clients of a listener.

Each entry sits in the bucket of its next deadline and in no other. Deadlines mostly move away (a client was heard, a
heartbeat was sent), so nothing is done when they do: the entry is looked at when its old bucket comes up, and says
itself when to look again. An idle client thus costs one look per heartbeat, and one `call_at` a tick serves ten
thousand of them. What comes up together is looked at in portions, over a quarter of a tick: thousands whose time is
over at once, a crowd that said nothing, do not keep everybody else waiting.
"""

from __future__ import annotations

import math
from collections import deque
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
        """Do what is due; return the next deadline, infinite for none. Must not raise."""


class TimerWheel:
    """A timer of coarse resolution for many entries.

    `tick` is the resolution in seconds: a deadline is seen at it or up to one tick later, a quarter more where many
    come up together, never earlier. `clock` and `call_at` are a loop's `time` and `call_at`, or a test's. The timer
    runs only while there are entries.
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
        # What came up and was not looked at yet, each with the bucket that it was in.
        self._due: deque[tuple[Timed, int]] = deque()
        self._handle: _Handle | None = None
        self._portion: _Handle | None = None
        self._size = PORTION

    def schedule(self, entry: Timed, deadline: float) -> None:
        """Look at the entry at `deadline`; replaces the time set before. Infinite: never."""
        if entry.bucket:
            self.cancel(entry)
        if deadline == math.inf:
            return
        if self._handle is None:
            # Asleep until now: the ticks in between had nothing in them.
            self._current = self._index(self._clock())
            self._arm()
        self._put(entry, deadline)

    def cancel(self, entry: Timed) -> None:
        """Forget the entry; harmless if it is not here."""
        bucket = self._buckets.get(entry.bucket)
        entry.bucket = 0
        if bucket is not None:
            bucket.discard(entry)

    def close(self) -> None:
        """Stop the timer and forget all entries."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        if self._portion is not None:
            self._portion.cancel()
            self._portion = None
        self._buckets.clear()
        self._due.clear()

    def __len__(self) -> int:
        """Return the number of entries."""
        waiting = sum(entry.bucket == bucket for entry, bucket in self._due)
        return waiting + sum(map(len, self._buckets.values()))

    def _index(self, time: float) -> int:
        return math.floor((time - self._start) / self._tick)

    def _put(self, entry: Timed, deadline: float) -> None:
        entry.bucket = max(self._index(deadline), self._current) + 1
        self._buckets.setdefault(entry.bucket, set()).add(entry)

    def _arm(self) -> None:
        self._handle = self._call_at(self._start + (self._current + 1) * self._tick, self._advance)

    def _advance(self) -> None:
        now = self._clock()
        # At least the tick that was armed: rounding may put `now` a hair before it.
        last = max(self._index(now), self._current + 1)
        while self._current < last:
            self._current += 1
            self._due += [(entry, self._current) for entry in self._buckets.pop(self._current, ())]
        self._size = max(PORTION, math.ceil(len(self._due) / PORTIONS))
        if self._portion is None:
            self._look()
        self._handle = None
        if self._buckets:
            self._arm()

    def _look(self) -> None:
        now = self._clock()
        for _ in range(self._size):
            if not self._due:
                break
            entry, bucket = self._due.popleft()
            if entry.bucket != bucket:  # it was cancelled, or put elsewhere, since it came up
                continue
            entry.bucket = 0
            deadline = entry.due(now)
            # `due` may have scheduled it by itself: closing does, and that is the later word.
            if deadline != math.inf and not entry.bucket:
                self._put(entry, deadline)
        self._portion = self._call_at(now + self._tick / (4 * PORTIONS), self._look) if self._due else None
        if self._handle is None and self._buckets:
            self._arm()
