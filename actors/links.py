"""All links of a server."""

import asyncio
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from actors.link import Link
from actors.stream import LIFE, Carrier, Stream
from actors.way import Logic, Way
from handlers.link import Entry
from handlers.link import Link as LinkInterface
from handlers.members import RESTARTING, Members
from handlers.settings import LINK_QUEUE

__all__ = ["Links"]

CHECK = 0.25
"""Seconds between looks at deadlines and gaps."""


def _no_matter(*_: object) -> None:
    """Take note of nothing."""


class Links:
    """A server's links by the peer's id, made when first needed (handlers.link.Links).

    ``connect(peer)`` returns the way to a peer. ``begin`` says who this server is in this life, before which
    calls of peers are turned away. ``queue``: bytes that may wait for one peer.
    """

    def __init__(self, members: Members, connect: Callable[[str], Way], *, queue: int = LINK_QUEUE) -> None:
        self._members = members
        self._connect = connect
        self._queue = queue
        self._links: dict[str, Link] = {}
        self._own = ""
        self._tokens: Iterator[int]
        self._ids: Iterator[int]
        self._logic: Logic
        self._timer: asyncio.TimerHandle | None = None

    def begin(
        self,
        own: str,
        incarnation: int,
        *,
        apply: Callable[[LinkInterface, Entry], None],
        lost: Callable[[str], None],
        greeted: Callable[[str, int], None] = _no_matter,
        outlived: Callable[[], None] = _no_matter,
    ) -> None:
        """Take up conversations under an id and incarnation; the callbacks are those of Logic."""
        self._own, self._logic = own, Logic(apply, lost, greeted, outlived)
        self._tokens = itertools.count(incarnation << LIFE)
        self._ids = itertools.count((incarnation << 32) + 1)
        self._timer = asyncio.get_running_loop().call_later(CHECK, self._check)

    def to(self, server_id: str) -> Link:
        """Return the link to a server. Raises NotFound for an id that is not in the members' table."""
        link = self._links.get(server_id)
        if link is None:
            self._members.get(server_id)
            link = self._made(server_id)
            link.connect()
        return link

    def up(self, server_id: str) -> bool:
        """Tell whether a request to a server would be taken now. One never spoken to is thought to be up."""
        link = self._links.get(server_id)
        return link.up if link is not None else server_id in self._members

    def in_flight(self, server_id: str) -> int:
        """Return how many requests to a server are not answered yet."""
        link = self._links.get(server_id)
        return link.in_flight if link is not None else 0

    def greet(self, server_ids: Iterable[str]) -> None:
        """Say hello to servers, so that what they knew of an earlier life of this one is ended."""
        for server_id in server_ids:
            if server_id != self._own:
                self.to(server_id)

    async def serve(self, data: bytes) -> bytes:
        """Take a call of a peer; returns what goes back to it. Empty before ``begin``, and for what is out of date."""
        if self._timer is None:
            return b""
        carrier = Carrier.unpack(data)
        link = self._links.get(carrier.sender)
        if link is None:
            # A peer may know of this server before this server is told of the peer.
            link = self._made(carrier.sender)
        return await link.serve(carrier)

    def update(self) -> None:
        """Take note of what the members' table says now of the peers' lives, and of those that are restarted.

        What is meant for one that is RESTARTING is held; the table's next word lets it go.
        """
        for member in self._members:
            if member.state == RESTARTING and self._timer is not None and member.id != self._own:
                self.to(member.id).hold(member.incarnation)
            elif (link := self._links.get(member.id)) is not None:
                link.resume(member.incarnation)

    async def quiet(self, server_id: str, limit: float) -> bool:
        """Wait up to ``limit`` seconds until nothing to a server is under way (Link.quiet); tell whether it is so."""
        link = self._links.get(server_id)
        if link is None:
            return True
        try:
            await asyncio.wait_for(link.quiet.wait(), limit)
        except TimeoutError:
            return False
        return True

    async def all_quiet(self, limit: float) -> bool:
        """Wait as ``quiet`` does, for all servers."""
        return all(await asyncio.gather(*(self.quiet(server_id, limit) for server_id in self._links)))

    def forget(self, server_ids: Iterable[str]) -> list[Link]:
        """Take out the links to servers that are no more; the caller closes them."""
        return [self._links.pop(server_id) for server_id in list(server_ids) if server_id in self._links]

    async def close(self) -> None:
        """End every link."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        await asyncio.gather(*(link.close() for link in self._links.values()))

    def describe(self) -> list[dict[str, Any]]:
        """Return what an operator wants to know of each link."""
        return [link.describe() for link in self._links.values()]

    def _made(self, peer: str) -> Link:
        link = Link(
            self._own,
            peer,
            self._connect(peer),
            stream=Stream(self._own, self._tokens, queue=self._queue),
            ids=self._ids,
            logic=self._logic,
        )
        if peer in self._members:
            link.stream.learn(self._members.get(peer).incarnation)
        self._links[peer] = link
        return link

    def _check(self) -> None:
        loop = asyncio.get_running_loop()
        for link in list(self._links.values()):
            link.check(loop.time())
        self._timer = loop.call_later(CHECK, self._check)
