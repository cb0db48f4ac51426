"""One numbered stream each way between two servers: order, batches, bounds, and new beginnings. Pure.

Each side gives its half a *token*, which grows with every beginning and starts from the server's incarnation. All
that passes between two servers travels in *carriers*: the arguments of one side's actor calls and the returns of the
other's. A carrier holds the sender's token, the receiver's token as the sender knows it (0 while it does not: a hello),
a number, and a batch of entries. A call's return may overtake the next call, so carriers are applied strictly in the
order of their numbers, whichever way they came. Carriers without entries have number 0 and no place in the order.

Where a carrier is lost, the peer begins anew, or this side gives up, all that was under way is lost together: both
sides take new tokens, and nothing of the old beginning is ever applied in the new one.
"""

from collections import deque
from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple

import msgpack

from handlers.link import Entry
from handlers.settings import LINK_QUEUE

__all__ = ["BATCH", "LIFE", "RESERVE", "Carrier", "QueueFull", "Stream", "Verdict", "pack_entry"]

BATCH = 90_000
"""Bytes of entries after which a carrier is full: up to 100 KB go with a Ray call, more by way of its object store."""
LIFE = 24
"""Bits of a token below the incarnation: the beginnings of one life."""
RESERVE = 8 << 20
"""Bytes beyond the bound for answers and the state of sessions and channels, which cannot be refused."""
_packer = msgpack.Packer(autoreset=True)
_FIVE = _packer.pack_array_header(5)


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
    OUTLIVED = "of an earlier life of the peer, which is to learn that it is one"


class Carrier(NamedTuple):
    """What one call or return carries."""

    sender: str
    token: int
    peer_token: int
    number: int
    entries: tuple[Entry, ...]

    @classmethod
    def unpack(cls, data: bytes) -> "Carrier":
        """Return the carrier that ``Stream.take`` packed."""
        return cls._make(msgpack.unpackb(data, strict_map_key=False, use_list=False))


def pack_entry(entry: Entry) -> bytes:
    """Return an entry as it travels. Raises TypeError for one that msgpack cannot pack."""
    try:
        packed: bytes = _packer.pack(entry)
    except (TypeError, ValueError, OverflowError) as error:
        _packer.reset()
        raise TypeError(f"{entry!r:.200} cannot travel between servers: {error}") from error
    return packed


class Stream:
    """A server's half of its conversation with one peer. It does no I/O and knows no time but what it is told.

    ``tokens`` gives the next token of this server; it is shared by all of the server's streams, so that none that is
    made anew for a peer begins where an earlier one began. ``queue``: bytes of entries that may wait for the peer;
    ``reserve``: those beyond for what cannot be refused.
    """

    def __init__(self, own: str, tokens: Iterator[int], *, queue: int = LINK_QUEUE, reserve: int = RESERVE) -> None:
        self.token = next(tokens)
        self._tokens = tokens
        self.peer_token = 0
        self.oldest = 0
        """The lowest token that the peer's latest life known here can have."""
        self.queued = 0
        """Bytes of entries that wait."""
        self.carriers = 0
        """How many carriers with entries were taken, in all beginnings."""
        self.entries = 0
        """How many entries they held."""
        self.gap_since: float | None = None
        """When the first carrier came whose predecessor is missing; None while none is."""
        self._own = msgpack.packb(own)
        self.queue = queue
        self._reserve = reserve
        self._waiting: deque[bytes] = deque()
        self._sent = 0
        self._applied = 0
        self._early: dict[int, tuple[Entry, ...]] = {}

    # -- out

    def put(self, entry: Entry, *, vital: bool = False) -> None:
        """Queue an entry. Raises QueueFull, and TypeError for an entry that msgpack cannot pack."""
        packed = pack_entry(entry)
        queued = self.queued + len(packed)
        room = self.queue + (self._reserve if vital else 0)
        if queued > room and (vital or self.queued):
            raise QueueFull(vital=vital)
        self.queued = queued
        self._waiting.append(packed)

    def put_packed(self, packed: bytes) -> None:
        """Queue what ``pack_entry`` packed, whatever the bounds: for what was bounded where it waited before."""
        self.queued += len(packed)
        self._waiting.append(packed)

    @property
    def waiting(self) -> int:
        """How many entries wait."""
        return len(self._waiting)

    def take(self) -> bytes:
        """Return the next carrier, packed: as many waiting entries as it may hold, in order, at least one if any waits.

        While the peer's token is not known it is a hello, which carries none.
        """
        entries: list[bytes] = []
        if self.peer_token:
            waiting, size = self._waiting, 0
            while waiting and (not entries or size + len(waiting[0]) <= BATCH):
                size += len(waiting[0])
                entries.append(waiting.popleft())
            self.queued -= size
        if entries:
            self._sent += 1
            self.carriers += 1
            self.entries += len(entries)
        number = self._sent if entries else 0
        head = (_FIVE, self._own, *map(_packer.pack, (self.token, self.peer_token, number)))
        return b"".join((*head, _packer.pack_array_header(len(entries)), *entries))

    # -- in

    def judge(self, carrier: Carrier) -> Verdict:
        """Tell what to do with a carrier by its tokens."""
        if carrier.token < self.oldest:
            return Verdict.OUTLIVED
        if carrier.peer_token not in (0, self.token) or carrier.token < self.peer_token:
            return Verdict.STALE
        return Verdict.NEW if carrier.token > self.peer_token else Verdict.SAME

    def adopt(self, peer_token: int) -> None:
        """Take the peer's token for this beginning; what waits may go now."""
        self.peer_token = peer_token
        self.learn(peer_token >> LIFE)

    def learn(self, incarnation: int) -> None:
        """Take note of a life of the peer: what comes of earlier ones is to be dropped."""
        self.oldest = max(self.oldest, incarnation << LIFE)

    def sequence(self, carrier: Carrier, now: float) -> tuple[Entry, ...]:
        """Return the entries that are to be applied now: this carrier's and those it made way for, in order.

        One that came early is kept until its predecessor comes, and ``gap_since`` says since when. ``now`` is in
        seconds.
        """
        if carrier.number == 0:
            return ()
        if carrier.number != self._applied + 1:
            if carrier.number > self._applied:
                self._early[carrier.number] = carrier.entries
                self.gap_since = now if self.gap_since is None else self.gap_since
            return ()
        self._applied += 1
        entries = carrier.entries
        while self._early and (following := self._early.pop(self._applied + 1, None)) is not None:
            self._applied += 1
            entries = (*entries, *following)
        self.gap_since = now if self._early else None
        return entries

    # -- a new beginning

    @property
    def used(self) -> bool:
        """Whether anything was carried in this beginning; while nothing was, a peer that begins anew can be joined."""
        return bool(self._sent or self._applied or self._early)

    def renew(self) -> None:
        """Begin anew under the next token, the peer unknown; what waited and what came early is dropped."""
        self.token = next(self._tokens)
        self.peer_token = 0
        self.queued = 0
        self.gap_since = None
        self._waiting.clear()
        self._early.clear()
        self._sent = self._applied = 0
