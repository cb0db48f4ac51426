"""The embedded store, as the servers use it: directory servers, to which uids and channels are dealt by their names.

A fact is an entry on the link to its shard and rides in the link's batches. Whenever such a link comes up, or begins
anew, the frontend tells all that it has for that shard again: whichever of the two began a new life, or whatever was
lost between them, after that they agree.
"""

import asyncio
from collections.abc import Awaitable, Iterable
from typing import Any, Protocol

import msgpack

from handlers.errors import NotFound, Unavailable
from handlers.link import FIND, RETELL, TELL, Entry
from handlers.members import rendezvous
from handlers.store import Fact, Roster, Truth

__all__ = ["EmbeddedStore"]

CHUNK = 500
"""Facts in one entry, when all is told: some 30 KB where there is no metadata."""


class Port(Protocol):
    """What carries the store's words: the server that uses it."""

    def tell_if_up(self, server_id: str, kind: int, fields: Entry) -> None:
        """Queue an entry for a server, unless its link is down."""

    def ask_server(self, server_id: str, kind: int, fields: Entry) -> Awaitable[bytes]:
        """Send an entry and return its answer. Raises the answer's error, Unavailable or TimedOut."""


class EmbeddedStore:
    """The directory servers ``shards``, by their ids; they are always the same, so a key never moves (handlers.Store).

    While one is away its users and channels cannot be asked for, and are told again when it is back.
    """

    def __init__(self, port: Port, shards: tuple[str, ...]) -> None:
        self._port = port
        self._shards = shards
        self._truth: Truth | None = None

    async def start(self, truth: Truth | None) -> None:
        """Begin; links that are up before this are told nothing, as a frontend has no client yet."""
        self._truth = truth

    async def stop(self) -> None:
        """Tell no more. A shard forgets this frontend when the link to it ends."""
        self._truth = None

    def tell(self, fact: Fact) -> None:
        """Queue a fact for its shard."""
        self._port.tell_if_up(self.shard_of(fact[1]), TELL, fact)

    def came_up(self, server_id: str) -> None:
        """Tell a shard everything."""
        if self._truth is None or server_id not in self._shards:
            return
        facts = [fact for fact in self._truth.facts() if self.shard_of(fact[1]) == server_id]
        chunks = [facts[at : at + CHUNK] for at in range(0, len(facts), CHUNK)] or [[]]
        for number, chunk in enumerate(chunks, 1):
            self._port.tell_if_up(server_id, RETELL, (self._truth.single_session, chunk, number == len(chunks)))

    def went_down(self, server_id: str) -> None:
        """Do nothing: what a shard missed it is told when its link is up again."""

    async def where(self, uids: Iterable[str]) -> dict[str, list[str]]:
        """Ask each shard once for the users that are dealt to it."""
        by_shard: dict[str, list[str]] = {}
        for uid in uids:
            by_shard.setdefault(self.shard_of(uid), []).append(uid)
        found: dict[str, list[str]] = {}
        for part in await asyncio.gather(*(self._find(shard, "where", asked) for shard, asked in by_shard.items())):
            found |= part
        return found

    async def roster(self, channel: str) -> Roster:
        """Ask the channel's shard."""
        found: Roster = await self._find(self.shard_of(channel), "roster", channel)
        return found

    async def count(self, channel: str) -> int:
        """Ask the channel's shard."""
        return int(await self._find(self.shard_of(channel), "count", channel))

    def shard_of(self, key: str) -> str:
        """Return the id of the shard that a uid or channel is dealt to."""
        return self._shards[0] if len(self._shards) == 1 else rendezvous(key, self._shards)

    async def _find(self, shard: str, question: str, argument: Any) -> Any:
        try:
            answer = await self._port.ask_server(shard, FIND, (question, argument))
        except NotFound as error:
            # A shard that was away for long is out of the members' table; it comes back under the same id.
            raise Unavailable(f"the directory server {shard} is away") from error
        return msgpack.unpackb(answer, strict_map_key=False)
