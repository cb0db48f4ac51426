"""The test kit's links: entries arrive in the next turn of the loop, packed and unpacked as a network would do it."""

import asyncio
import itertools
from typing import Any, Protocol

import msgpack

from handlers.errors import NotFound, Unavailable
from handlers.link import Done, Entry, Link
from handlers.node import Node

__all__ = ["MemoryLinks", "Net"]


class Net(Protocol):
    """What the links run through: the kit."""

    nodes: dict[str, Node]

    def joined(self, one: str, other: str) -> bool:
        """Tell whether the link between two servers is up."""


class MemoryLinks:
    """The links of one server of a kit (handlers.link.Links)."""

    def __init__(self, server_id: str, net: Net) -> None:
        self._server_id = server_id
        self._net = net
        self.by_peer: dict[str, _MemoryLink] = {}

    def to(self, server_id: str) -> "_MemoryLink":
        """Return the link to a server. Raises NotFound."""
        if server_id not in self._net.nodes:
            raise NotFound(f"there is no server {server_id!r}")
        if server_id not in self.by_peer:
            self.by_peer[server_id] = _MemoryLink(self._server_id, server_id, self._net)
        return self.by_peer[server_id]

    def up(self, server_id: str) -> bool:
        """Tell whether requests to this server would be taken now."""
        return server_id in self._net.nodes and self._net.joined(self._server_id, server_id)

    def in_flight(self, server_id: str) -> int:
        """Return how many requests to a server are not answered yet."""
        return self.by_peer[server_id].in_flight if server_id in self.by_peer else 0

    def renew(self, server_id: str) -> None:
        """Begin a link anew: what is still on its way on the old one does not arrive."""
        link = self.by_peer.pop(server_id, None)
        if link is not None:
            link.over = True

    def lose(self, server_id: str) -> None:
        """Answer 503 whatever the server was asked."""
        if server_id in self.by_peer:
            self.by_peer[server_id].fail()


class _MemoryLink:
    """A link whose entries arrive in the next turn of the loop, in order, as the copies that a network would make."""

    def __init__(self, own: str, peer: str, net: Net) -> None:
        self.peer = peer
        self.over = False
        self._own = own
        self._net = net
        self._pending: dict[int, tuple[Done, asyncio.TimerHandle]] = {}
        self._ids = itertools.count(1)

    def send(self, kind: int, fields: Entry, *, vital: bool = False) -> None:
        self._carry((kind, 0, *fields))

    def request(self, kind: int, fields: Entry, limit: float, done: Done) -> None:
        request_id = next(self._ids)
        self._carry((kind, request_id, *fields))
        timer = asyncio.get_running_loop().call_later(limit, self.settle, request_id, 504, b"timed out")
        self._pending[request_id] = done, timer

    def answer(self, request_id: int, code: int, payload: bytes) -> None:
        asyncio.get_running_loop().call_soon(self._answered, request_id, code, payload)

    def settle(self, request_id: int, code: int, payload: bytes) -> None:
        """Hand an answer to whoever asked, once."""
        done, timer = self._pending.pop(request_id, (None, None))
        if done is not None and timer is not None:
            timer.cancel()
            done(code, payload)

    @property
    def in_flight(self) -> int:
        return len(self._pending)

    def fail(self) -> None:
        """Answer 503 all that is under way."""
        for request_id in list(self._pending):
            self.settle(request_id, 503, f"{self.peer} is unavailable".encode())

    def _cut(self) -> bool:
        return self.over or not self._net.joined(self._own, self.peer)

    def _carry(self, entry: Entry) -> None:
        if self._cut():
            raise Unavailable(f"{self.peer} is unavailable")
        packed = msgpack.packb(entry)
        asyncio.get_running_loop().call_soon(self._arrive, packed)

    def _answered(self, request_id: int, code: int, payload: bytes) -> None:
        if not self._cut():
            back: Any = self._net.nodes[self.peer].links.to(self._own)
            back.settle(request_id, code, payload)

    def _arrive(self, packed: bytes) -> None:
        if self._cut():
            return
        peer = self._net.nodes[self.peer]
        back: Link = peer.links.to(self._own)
        peer.apply(back, msgpack.unpackb(packed, strict_map_key=False, use_list=False))
