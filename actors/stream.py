"""One numbered stream each way between two servers: order, batches, bounds, and new beginnings. Pure.

Each side gives its half a *token*, which grows with every beginning and starts with the server's incarnation. All
that passes between two servers travels in *carriers*: the arguments of one side's actor calls and the returns of the
other's. A carrier holds the sender's token, the receiver's token as the sender knows it (0 while it does not: a hello),
a number, and a batch of entries. A call's return may overtake the next call, so carriers are applied strictly in the
order of their numbers, whichever way they came. Carriers without entries have number 0 and no place in the order.

Where a carrier is lost, the peer begins anew, or this side gives up, all that was under way is lost together: both
sides take new tokens, and nothing of the old beginning is ever applied in the new one.
"""

from collections import deque
from enum import Enum
from typing import NamedTuple

import msgpack

from handlers.link import Entry

__all__ = ["BATCH", "QUEUE", "RESERVE", "Carrier", "QueueFull", "Stream", "Verdict"]

BATCH = 90_000
"""Bytes of entries after which a carrier is full: up to 100 KB go with a Ray call, more by way of its object store."""
QUEUE = 64 << 20
"""Bytes of entries that may wait for the peer."""
RESERVE = 8 << 20
"""Bytes beyond ``QUEUE`` for answers and the state of sessions and channels, which cannot be refused."""
OVERHEAD = 48
"""Bytes counted for an entry beside its payload: its kind, ids and short texts."""


class QueueFull(Exception):
    """No room is left for an entry; ``vital`` says whether the reserve is used up too."""

    def __init__(self, *, vital: bool) -> None:
        super().__init__("the link's queue is full")
        self.vital = vital


class Verdict(Enum):
    """What a carrier's tokens say of it."""

    SAME = "of this beginning"
    NEW = "the peer began anew"
    STALE = "of an earlier beginning, to be dropped"


class Carrier(NamedTuple):
    """What one call or return carries."""

    sender: str
    token: int
    peer_token: int
    number: int
    entries: list[list[object]]

    @classmethod
    def unpack(cls, data: bytes) -> "Carrier":
        """Return the carrier that ``Stream.take`` packed."""
        return cls._make(msgpack.unpackb(data, strict_map_key=False))


class Stream:
    """A server's half of its conversation with one peer. It does no I/O and knows no time but what it is told."""

    def __init__(self, own: str, incarnation: int, *, queue: int = QUEUE, reserve: int = RESERVE) -> None:
        self.token = incarnation << 24
        self.peer_token = 0
        self.queued = 0
        """Bytes of entries that wait."""
        self.gap_since: float | None = None
        """When the first carrier came whose predecessor is missing; None while none is."""
        self._own = own
        self._queue = queue
        self._reserve = reserve
        self._waiting: deque[tuple[int, Entry]] = deque()
        self._sent = 0
        self._applied = 0
        self._early: dict[int, list[list[object]]] = {}

    # -- out

    def put(self, entry: Entry, size: int, *, vital: bool = False) -> None:
        """Queue an entry of about ``size`` payload bytes. Raises QueueFull."""
        cost = size + OVERHEAD
        if self.queued + cost > self._queue + (self._reserve if vital else 0) and (vital or self.queued):
            raise QueueFull(vital=vital)
        self.queued += cost
        self._waiting.append((cost, entry))

    @property
    def waiting(self) -> int:
        """How many entries wait."""
        return len(self._waiting)

    def take(self) -> bytes:
        """Return the next carrier, packed: as many waiting entries as it may hold, in order, at least one if any waits.

        While the peer's token is not known it is a hello, which carries none.
        """
        entries: list[Entry] = []
        if self.peer_token:
            waiting, room = self._waiting, BATCH
            while waiting and (waiting[0][0] <= room or not entries):
                cost, entry = waiting.popleft()
                room -= cost
                entries.append(entry)
            self.queued -= BATCH - room
        if entries:
            self._sent += 1
        number = self._sent if entries else 0
        packed: bytes = msgpack.packb((self._own, self.token, self.peer_token, number, entries))
        return packed

    # -- in

    def judge(self, carrier: Carrier) -> Verdict:
        """Tell what to do with a carrier by its tokens."""
        if carrier.peer_token not in (0, self.token) or carrier.token < self.peer_token:
            return Verdict.STALE
        return Verdict.NEW if carrier.token > self.peer_token else Verdict.SAME

    def adopt(self, peer_token: int) -> None:
        """Take the peer's token for this beginning; what waits may go now."""
        self.peer_token = peer_token

    def sequence(self, carrier: Carrier, now: float) -> list[list[object]]:
        """Return the entries that are to be applied now: this carrier's and those it made way for, in order.

        One that came early is kept until its predecessor comes, and ``gap_since`` says since when. ``now`` is in
        seconds.
        """
        if carrier.number == 0:
            return []
        if carrier.number != self._applied + 1:
            if carrier.number > self._applied:
                self._early[carrier.number] = carrier.entries
                self.gap_since = now if self.gap_since is None else self.gap_since
            return []
        self._applied += 1
        entries = carrier.entries
        while self._early and (following := self._early.pop(self._applied + 1, None)) is not None:
            self._applied += 1
            entries = entries + following
        self.gap_since = now if self._early else None
        return entries

    # -- a new beginning

    def renew(self) -> None:
        """Begin anew under the next token, the peer unknown; what waited and what came early is dropped."""
        self.token += 1
        self.peer_token = 0
        self.queued = 0
        self.gap_since = None
        self._waiting.clear()
        self._early.clear()
        self._sent = self._applied = 0
