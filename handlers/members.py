"""Who is in the cluster, as one server knows it, and which server a request goes to. Pure."""

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from handlers.errors import NotFound

__all__ = ["DRAINING", "RESTARTING", "SERVING", "Member", "Members", "rendezvous"]

SERVING: Final = "serving"
DRAINING: Final = "draining"
"""It gets no new work: nothing is routed to it by its type. Whoever names it still reaches it."""
RESTARTING: Final = "restarting"
"""A new life of it is about to come, on purpose: it keeps its place, and what is meant for it waits. Backends only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One server of the game. ``host`` and ``port`` are where clients reach it; a backend's are empty and 0.

    ``scheme`` is what clients speak there: ``ws`` (and plain TCP), ``wss`` (both within TLS) or ``udp``. ``weight`` is
    its share where requests are dealt by weight. ``state`` is SERVING, DRAINING or RESTARTING, as the master says.
    """

    id: str
    type: str
    incarnation: int = 0
    frontend: bool = False
    host: str = ""
    port: int = 0
    scheme: str = "ws"
    weight: int = 1
    state: str = SERVING

    @property
    def url(self) -> str:
        """The address for clients, empty for a backend."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}" if self.frontend else ""


class Members:
    """The table of servers. It serves from what it was last told, so nothing stops while nobody can tell it more."""

    def __init__(self, members: Iterable[Member] = ()) -> None:
        self._by_id: dict[str, Member] = {}
        self._by_type: dict[str, tuple[str, ...]] = {}
        self._workers: dict[str, tuple[str, ...]] = {}
        self.replace(members)

    def replace(self, members: Iterable[Member]) -> set[str]:
        """Take over a whole table; returns the ids that are in it no more."""
        before = set(self._by_id)
        self._by_id = {member.id: member for member in members}
        self._by_type = _sorted_ids(self._by_id.values())
        self._workers = _sorted_ids(member for member in self._by_id.values() if member.state != DRAINING)
        return before - set(self._by_id)

    def ids(self, server_type: str) -> tuple[str, ...]:
        """Return the ids of a type's servers that take new work, by their numbers: all but those that are drained.

        Those that are down for a moment, or restarting, keep their place.
        """
        return self._workers.get(server_type, ())

    def all_ids(self, server_type: str) -> tuple[str, ...]:
        """Return the ids of all of a type's servers, by their numbers, those that are drained too: pushes go on."""
        return self._by_type.get(server_type, ())

    def of(self, server_type: str) -> list[Member]:
        """Return a type's servers that take new work, in the order of their ids."""
        return [self._by_id[server_id] for server_id in self.ids(server_type)]

    def get(self, server_id: str) -> Member:
        """Return a server by its id. Raises NotFound."""
        member = self._by_id.get(server_id)
        if member is None:
            raise NotFound(f"there is no server {server_id!r}")
        return member

    def __contains__(self, server_id: object) -> bool:
        return server_id in self._by_id

    def __iter__(self) -> Iterator[Member]:
        return iter(self._by_id.values())


def _sorted_ids(members: Iterable[Member]) -> dict[str, tuple[str, ...]]:
    types: dict[str, list[str]] = {}
    for member in members:
        types.setdefault(member.type, []).append(member.id)
    return {server_type: tuple(sorted(ids, key=_by_number)) for server_type, ids in types.items()}


def _by_number(server_id: str) -> list[tuple[str, int]]:
    """Have chat-2 before chat-10: policies that count places place as pomelo does, whose files list them that way."""
    parts = [(text, int(number or 0)) for text, number in re.findall(r"(\D*)(\d*)", server_id)]
    return [*parts, (server_id, 0)]  # of chat-2 and chat-02 one is always the first


def rendezvous(key: str, servers: tuple[str, ...]) -> str:
    """Return the one of ``servers`` that ``key`` belongs to, by highest random weight (Thaler and Ravishankar, 1998).

    When a server comes or goes only the keys that it wins or held move; pomelo's hash modulo count moves most of them.
    The same on every server and in every run. ``servers`` must not be empty.
    """
    # Clients may choose keys, so what is remembered of them is short.
    return _winner(key if len(key) <= 64 else hashlib.blake2b(key.encode(), digest_size=16).hexdigest(), servers)


@lru_cache(maxsize=1 << 14)
def _winner(key: str, servers: tuple[str, ...]) -> str:
    # A keyed cryptographic hash: crc32 is linear, which would deal the keys unevenly among ids of one length.
    return max(
        servers, key=lambda server: hashlib.blake2b(key.encode(), key=server.encode()[:64], digest_size=8).digest()
    )
