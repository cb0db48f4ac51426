"""What waits for the next life of a peer that is restarted on purpose. Pure."""

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from actors.pending import Pending
from actors.stream import Stream, pack_entry
from handlers.link import FIND, FORWARD, RPC, Done, Entry
from handlers.settings import LINK_QUEUE

__all__ = ["HELD", "HELD_KINDS", "Held", "HeldEntry"]

HELD = 10.0
"""Seconds that an entry waits; longer than a server takes to stop and to start again, as a rule."""
HELD_KINDS = frozenset({FORWARD, RPC, FIND})
"""Clients' messages, calls and questions to a directory: what the peer would have to work on."""


class HeldEntry(NamedTuple):
    """An entry as it will travel: its request's id, 0 for a notify, the request's deadline, and whom to answer."""

    packed: bytes
    request_id: int
    session_id: int
    until: float
    deadline: float
    done: Done | None


class Held:
    """Entries in the order in which they came, at most ``room`` bytes of them.

    ``pending`` takes the requests among them when they are sent. Times are the loop's, in seconds.
    """

    def __init__(self, pending: Pending, *, room: int = LINK_QUEUE) -> None:
        self.awaited = 0
        """The incarnation of the peer from which on they may go."""
        self.bytes = 0
        self._pending = pending
        self._room = room
        self._entries: deque[HeldEntry] = deque()

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, entry: Entry, deadline: float, done: Done | None, now: float) -> None:
        """Keep an entry until its deadline, 10 s at most.

        Raises Unavailable when there is no room, and TypeError for an entry that msgpack cannot pack.
        """
        packed = pack_entry(entry)
        if self.bytes + len(packed) > self._room and self._entries:
            raise self._pending.busy()
        self.bytes += len(packed)
        session_id = entry[3] if entry[0] == FORWARD else 0
        until = min(now + HELD, deadline)
        self._entries.append(HeldEntry(packed, entry[1], session_id, until, deadline, done))

    def release(self, stream: Stream) -> None:
        """Send all that is held, in order; it was bounded here, and is not bounded again."""
        for entry in self._take():
            stream.put_packed(entry.packed)
            if entry.done is not None:
                self._pending[entry.request_id] = entry.done, entry.deadline

    def expire(self, now: float) -> int:
        """Answer what has waited too long 503, or 504 at its own deadline, and drop such notifies; returns how many."""
        if not any(entry.until <= now for entry in self._entries):
            return 0
        late = self._keep(lambda entry: entry.until > now)
        for entry in late:
            if entry.done is not None:
                code, text = (504, b"timed out") if entry.deadline <= now else (503, self._pending.unavailable)
                self._pending.hand_over(entry.done, code, text)
        return len(late)

    def session_closed(self, session_id: int) -> None:
        """Drop the messages of a session that closed: nobody else would tell the next life that it did."""
        for entry in self._keep(lambda entry: entry.session_id != session_id):
            if entry.done is not None:
                self._pending.hand_over(entry.done, 503, b"the session is closed")

    def fail(self) -> None:
        """Answer all of it 503."""
        for entry in self._take():
            if entry.done is not None:
                self._pending.hand_over(entry.done, 503, self._pending.unavailable)

    def _take(self) -> list[HeldEntry]:
        taken, self._entries, self.bytes = list(self._entries), deque(), 0
        return taken

    def _keep(self, wanted: Callable[[HeldEntry], bool]) -> list[HeldEntry]:
        """Keep those wanted; returns the others."""
        entries = self._take()
        self._entries.extend(entry for entry in entries if wanted(entry))
        self.bytes = sum(len(entry.packed) for entry in self._entries)
        return [entry for entry in entries if not wanted(entry)]
