"""What leaves: all that is made for a client before its turn comes goes out in one write.

Whoever waits for something, an answer, a handshake or a heartbeat, is written to at the end of the turn of the loop
that made it. Those who only get pushes follow, a few in a turn: between two portions of a crowd the loop reads what
came in, sends on what the first of them asked next, and at times lets other threads run. What is pushed meanwhile to
those that still wait goes out in the same write, so the busier a room is the fewer writes a push takes.

Clients of one room mostly get the same frames: their chunks are the same objects, so the bytes joined for the one
before serve the next as well.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

__all__ = ["Outbox", "Writer"]

# Writes in one turn to those who only get pushes: about 0.2 ms, several times what a turn costs by itself.
PORTION = 64
# In a turn in which somebody is answered they are so few, and twice as many in each that follows: what is asked next
# should not wait for a crowd. Not where somebody was answered in the last turn with writes too: nothing would grow.
FIRST_PORTION = 8
# After a pause for other threads there is none for this many times as long as it took.
PAUSES = 7
# Turns after which most of a large crowd is through.
TURNS = 32


class Writer(Protocol):
    """One client's end. `pending` is None, or the chunks waiting, in order; the outbox takes them away.

    `queued` is the outbox's own: whether the writer stands among those that were added.
    """

    pending: list[bytes] | None
    queued: bool

    def write(self, data: bytes) -> None:
        """Hand bytes to the socket. Must not raise."""


class Outbox:
    """The clients of a listener that have something pending. `call_soon` is the loop's, or a test's."""

    __slots__ = ("_call_soon", "_first", "_hasty", "_next_pause", "_others", "_portion", "_scheduled")

    def __init__(self, call_soon: Callable[[Callable[[], Any]], Any]) -> None:
        self._call_soon = call_soon
        self._first: list[Writer] = []
        self._others: deque[Writer] = deque()
        self._portion = PORTION
        self._hasty = False  # whether somebody was answered in the last turn in which anything was written
        self._next_pause = 0.0
        self._scheduled = False

    def add(self, writer: Writer) -> None:
        """Have what is `pending` written when it is the writer's turn; to be called when it stops being None."""
        if not writer.queued:
            writer.queued = True
            self._others.append(writer)
            self._schedule()

    def hasten(self, writer: Writer) -> None:
        """Have what is `pending`, or about to be, written at the end of this turn, added or not."""
        self._first.append(writer)
        self._schedule()

    def flush(self) -> None:
        """Write everything now."""
        self._write_first()
        self._write_others(len(self._others))

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._call_soon(self._go_on)

    def _go_on(self) -> None:
        self._scheduled = False
        begins = self._first and not self._hasty
        self._portion = FIRST_PORTION if begins else min(2 * self._portion, PORTION)
        self._hasty = bool(self._first)
        self._write_first()
        # At least a share of them, so that a large crowd is not kept waiting by turns that take long.
        self._write_others(max(self._portion, len(self._others) // TURNS))
        if self._others:
            self._schedule()
            self._pause()

    def _pause(self) -> None:
        """Let other threads have the interpreter for a moment, for an eighth of the time at most.

        Python takes it from a busy thread after 5 ms only: the one that brings what another server sent, the next push
        perhaps, would wait for most of a crowd. A thread that computes keeps it for those 5 ms too, so the
        next pause is the farther the longer this one was.
        """
        begin = time.perf_counter()
        if begin >= self._next_pause:
            time.sleep(0)
            end = time.perf_counter()
            self._next_pause = end + PAUSES * (end - begin)

    def _write_first(self) -> None:
        first, self._first = self._first, []
        _write(first)

    def _write_others(self, most: int) -> None:
        portion: list[Writer] = []
        while self._others and len(portion) < most:
            writer = self._others.popleft()
            writer.queued = False
            if writer.pending is not None:  # else it was written in haste, or is gone
                portion.append(writer)
        _write(portion)


def _write(writers: list[Writer]) -> None:
    """Write for those who have something pending."""
    last: list[bytes] = []
    data = b""
    for writer in writers:
        chunks = writer.pending
        if chunks is None:
            continue
        writer.pending = None
        if chunks is not last and chunks != last:
            data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
            last = chunks
        writer.write(data)
