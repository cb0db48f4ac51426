"""What leaves: everything that one turn of the loop makes for a client goes out in one write.

Clients with something to send stand on one list, and one `call_soon` empties it. Clients of one room mostly get the
same frames in the same turn: their chunks are the same objects, so the bytes joined for the one before serve the next
as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

__all__ = ["Outbox", "Writer"]


class Writer(Protocol):
    """One client's end. `pending` is None, or the chunks waiting, in order; the outbox takes them away."""

    pending: list[bytes] | None

    def write(self, data: bytes) -> None:
        """Hand bytes to the socket. Must not raise."""


class Outbox:
    """The clients of a listener that have something pending. `call_soon` is the loop's, or a test's."""

    __slots__ = ("_call_soon", "_dirty")

    def __init__(self, call_soon: Callable[[Callable[[], Any]], Any]) -> None:
        self._call_soon = call_soon
        self._dirty: list[Writer] = []

    def add(self, writer: Writer) -> None:
        """Have the writer's `pending` written at the end of this turn; to be called when it stops being None."""
        if not self._dirty:
            self._call_soon(self.flush)
        self._dirty.append(writer)

    def flush(self) -> None:
        """Write everything now."""
        dirty, self._dirty = self._dirty, []
        last: list[bytes] = []
        data = b""
        for writer in dirty:
            chunks = writer.pending
            if chunks is None:
                continue
            writer.pending = None
            if chunks != last:
                data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
                last = chunks
            writer.write(data)
