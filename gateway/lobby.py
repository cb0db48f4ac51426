"""Those who have come in and have not finished their handshake, without any I/O.

Theory of operation. A connection costs memory from its first moment, and who opens ten thousand and says nothing pays
for none of it. Turning newcomers away once there are too many would let such a crowd keep everybody out, so the one
makes room that has got no further for longest, as TCP recycles half-open connections (RFC 4987 section 3.4): a client
that means to play is through within a few round trips and hardly ever comes to be that one. What counts is getting
further, not sending bytes, which a trickle does as well; who waits for us, while the app takes its time over a
handshake, is not here meanwhile. Everything takes constant time.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar, cast

__all__ = ["Lobby"]

T = TypeVar("T")


class Lobby(Generic[T]):
    """At most so many entries, in the order in which they last got further."""

    __slots__ = ("_entries", "_most", "crowded_out")

    def __init__(self, most: int) -> None:
        self._most = most
        # Not a dict: looking for the first key of one passes over all that were taken out before it.
        self._entries: OrderedDict[object, None] = OrderedDict()
        #: How many had to make room.
        self.crowded_out = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, entry: object) -> bool:
        return entry in self._entries

    def enter(self, entry: T) -> T | None:
        """Take in who is not here yet; return who is to be dropped for it, and is here no more."""
        self._entries[entry] = None
        return self.first_out() if len(self._entries) > self._most else None

    def advance(self, entry: object) -> None:
        """Note that an entry got further; harmless if it is not here."""
        if entry in self._entries:
            self._entries.move_to_end(entry)

    def leave(self, entry: object) -> None:
        """Note that an entry is through, or gone; harmless if it is not here."""
        self._entries.pop(entry, None)
        if not self._entries:
            self._entries.clear()  # which gives back the table of its fullest time

    def first_out(self) -> T | None:
        """Take out who has got no further for longest and return it, to be dropped; None if nobody is here."""
        if not self._entries:
            return None
        self.crowded_out += 1
        return cast("T", self._entries.popitem(last=False)[0])
