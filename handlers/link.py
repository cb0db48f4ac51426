"""What two servers say to each other: the entries, and the link that carries them, as the logic sees it.

An entry is a tuple that msgpack can pack: its kind, the id under which it wants an answer (0 for none), and the fields
of its kind. Entries from one server to another are applied in the order in which they were sent. How a link carries
them is not known here: ``actors`` does it with calls of Ray actors, the test kit in memory.
"""

from collections.abc import Callable
from typing import Any, Final, Protocol

__all__ = [
    "BROADCAST",
    "CLOSED",
    "DESTROY",
    "DISPLACED",
    "FIND",
    "FORWARD",
    "GLOBAL_DESTROY",
    "GLOBAL_JOIN",
    "GLOBAL_LEAVE",
    "GLOBAL_PUSH",
    "JOIN",
    "LEAVE",
    "LEFT",
    "MIRROR",
    "MIRRORED",
    "PRESENCE",
    "PUSH",
    "PUSH_TO",
    "RETELL",
    "RPC",
    "SESSION",
    "TELL",
    "Done",
    "Entry",
    "Link",
    "Links",
    "LoopbackLink",
    "WithLoopback",
]

Entry = tuple[Any, ...]
Done = Callable[[int, bytes], Any]
"""Called once with an answer: code 0 and the packed outcome, or an error's code and its message as UTF-8."""

# kind: fields after the id                                         from, to
FORWARD: Final = 1  # route, session id, uid, packed values, body   frontend to backend (pomelo's MsgRemote)
RPC: Final = 2  # route, packed arguments, milliseconds left        any to any
SESSION: Final = 3  # operation, session id, argument               any to the session's frontend (SessionRemote)
JOIN: Final = 4  # channel, uid, token                              the channel's server to a frontend (ChannelRemote)
LEAVE: Final = 5  # channel, uid
DESTROY: Final = 6  # channel
PUSH: Final = 7  # channel, route, body[, packed options]
PUSH_TO: Final = 8  # uids, route, body[, packed options]
BROADCAST: Final = 9  # route, body, everyone[, packed filter name and parameter, packed options]
LEFT: Final = 10  # uid, [[channel, token], ...]                    a frontend to a channel's server: members gone
CLOSED: Final = 11  # session id, uid, packed values, reason        a frontend to those that dealt with the session
MIRROR: Final = 12  # channel, [[uid, token], ...]                  a frontend to a later life of the channel's server
MIRRORED: Final = 13  #                                             the same: that was all, the answer says it is known

# What reaches over the whole cluster (handlers.reach, handlers.shard):
GLOBAL_JOIN: Final = 20  # channel, uid, metadata, watch            any to a frontend
GLOBAL_LEAVE: Final = 21  # channel, uid, seconds since it was asked for
GLOBAL_DESTROY: Final = 22  # channel, the same, uids that the sender added since
GLOBAL_PUSH: Final = 23  # channel, route, body[, packed options]
TELL: Final = 24  # a fact: its kind, key, fields (handlers.store)  a frontend to a directory server
RETELL: Final = 25  # single sessions, facts, whether they are the last ones: all that is so on the frontend
FIND: Final = 26  # question, argument                              any to a directory server
DISPLACED: Final = 27  # uid, until when bound                      to the frontend where sessions are to be ended
PRESENCE: Final = 28  # channel, joined, left, count, scope         a directory server to a frontend that watches


class Link(Protocol):
    """The way to one other server."""

    peer: str

    def send(self, kind: int, fields: Entry, *, vital: bool = False) -> None:
        """Queue an entry that wants no answer.

        ``vital`` ones (the state of sessions and channels) may use the queue's reserve. Raises Unavailable when the
        link is down or its queue full.
        """

    def request(self, kind: int, fields: Entry, limit: float, done: Done) -> None:
        """Queue an entry and have ``done`` called once with its answer, or with an error's within ``limit`` seconds.

        Raises Unavailable, and does not call ``done``, when the peer is down, does not respond, or the queue is full.
        """

    def answer(self, request_id: int, code: int, payload: bytes) -> None:
        """Queue the answer to the peer's request. Does nothing when the link it came by is gone."""


class Links(Protocol):
    """The ways to all other servers."""

    def to(self, server_id: str) -> Link:
        """Return the link to a server of the members' table. Raises NotFound for another id."""

    def up(self, server_id: str) -> bool:
        """Tell whether requests to this server would be taken now."""

    def in_flight(self, server_id: str) -> int:
        """Return how many requests to a server are not answered yet."""


class LoopbackLink:
    """A server's link to itself: entries are applied at once."""

    def __init__(self, peer: str, apply: Callable[[Link, Entry], None]) -> None:
        self.peer = peer
        self._apply = apply
        self._pending: dict[int, Done] = {}
        self._last_id = 0

    @property
    def in_flight(self) -> int:
        """How many requests are not answered yet."""
        return len(self._pending)

    def send(self, kind: int, fields: Entry, *, vital: bool = False) -> None:
        """Apply the entry."""
        self._apply(self, (kind, 0, *fields))

    def request(self, kind: int, fields: Entry, limit: float, done: Done) -> None:
        """Apply the entry; the limit is its caller's, who waits in this process."""
        self._last_id += 1
        self._pending[self._last_id] = done
        self._apply(self, (kind, self._last_id, *fields))

    def answer(self, request_id: int, code: int, payload: bytes) -> None:
        """Hand the answer to whoever asked."""
        self._pending.pop(request_id)(code, payload)


class WithLoopback:
    """The links to other servers and a server's own to itself (Links)."""

    def __init__(self, links: Links, own: LoopbackLink) -> None:
        self._links = links
        self._own = own

    def to(self, server_id: str) -> Link:
        """Return the link to a server, or to itself. Raises NotFound."""
        return self._own if server_id == self._own.peer else self._links.to(server_id)

    def up(self, server_id: str) -> bool:
        """Tell whether requests to this server would be taken now."""
        return server_id == self._own.peer or self._links.up(server_id)

    def in_flight(self, server_id: str) -> int:
        """Return how many requests to a server are not answered yet."""
        return self._own.in_flight if server_id == self._own.peer else self._links.in_flight(server_id)
