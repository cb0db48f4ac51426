"""Global channels: groups of users that any server adds to and pushes to. They belong to no server.

A member's frontend holds it (``handlers.reach``) and tells the store, which is asked only for who is in. A push goes to
every frontend once, by itself, so no store is on its way and none is needed for it.
"""

import functools
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, Protocol

import msgpack
import msgspec

from handlers.body import encode_body
from handlers.errors import PummeloError, Unavailable
from handlers.fanout import outcomes, pack_options
from handlers.link import GLOBAL_DESTROY, GLOBAL_JOIN, GLOBAL_LEAVE, GLOBAL_PUSH, Entry
from handlers.session import uid_text
from handlers.store import Roster, Store, no_directory

__all__ = ["GlobalChannel", "GlobalChannels", "Presence"]

METADATA = 1024
"""Bytes of a member's metadata as JSON; it is kept by the store for every member."""


class Port(Protocol):
    """The server that uses the channels."""

    def tell(self, server_id: str, kind: int, fields: Entry, *, vital: bool = False) -> None:
        """Queue an entry for a frontend. Raises Unavailable or NotFound."""

    def ask_surely(self, server_id: str, kind: int, fields: Entry) -> Awaitable[bytes]:
        """Tell a frontend now, and again until it has answered or that life of it is over.

        Returns the first attempt's answer, whose error may be left alone.
        """

    def ask(self, server_id: str, kind: int, fields: Entry) -> Awaitable[bytes]:
        """Send an entry and return its answer. Raises the answer's error, Unavailable, NotFound or TimedOut."""

    def frontend_ids(self) -> list[str]:
        """Return the ids of all frontends."""

    def responds(self, server_id: str) -> bool:
        """Tell whether the link to a server is up and the server responds."""


@dataclass(frozen=True, slots=True)
class Presence:
    """A member of a global channel: its metadata, that at the first of the frontends where it is a member, by id."""

    uid: str
    metadata: Any
    frontends: tuple[str, ...]


class GlobalChannel:
    """A named group of users over the whole cluster, the same from every server. Made by ``server.global_channels``.

    It is there as long as it has members. When the last session of a uid on a frontend closes, or the frontend is
    lost, it leaves by itself.
    """

    def __init__(self, name: str, port: Port, store: Store) -> None:
        self.name = name
        self._port = port
        self._store = store

    # -- members

    def add(self, uid: str | int, frontend_id: str, metadata: Any = None, *, watch: bool = False) -> None:
        """Make a user a member at a frontend; again, with new metadata, replaces the old.

        It is queued: pushes of this server that follow reach the user; those of others reach it once the frontend has
        heard of it. A uid with no session there does not become one; ``add_confirmed`` tells. ``metadata`` is what JSON
        can carry in 1024 bytes. A member that ``watch``es is pushed ``onPresence``, see ``docs/reach.md``. Raises
        NotFound for a frontend that does not exist, Unavailable for one that is down, TypeError or ValueError for wrong
        metadata.
        """
        self._port.tell(frontend_id, GLOBAL_JOIN, self._joining(uid, metadata, watch), vital=True)

    async def add_confirmed(
        self, uid: str | int, frontend_id: str, metadata: Any = None, *, watch: bool = False
    ) -> bool:
        """Make a user a member at a frontend; returns whether it has a session there. Raises as ``add`` does."""
        answer = await self._port.ask(frontend_id, GLOBAL_JOIN, self._joining(uid, metadata, watch))
        return bool(msgpack.unpackb(answer))

    def leave(self, uid: str | int, frontend_id: str | None = None) -> None:
        """Take a user out, at one frontend or at all; queued. One that is no member is no error.

        A frontend is told again until it has answered, whatever becomes of the link; an ``add`` by this server ends
        that, and whom another server added meanwhile stays.
        """
        fields = (self.name, uid_text(uid))
        for place in self._port.frontend_ids() if frontend_id is None else [frontend_id]:
            self._port.ask_surely(place, GLOBAL_LEAVE, fields)

    async def leave_confirmed(self, uid: str | int, frontend_id: str | None = None) -> bool:
        """Take a user out, at one frontend or at all; returns whether it was a member at one that confirmed it.

        A frontend that did not is told again, as for ``leave``.
        """
        fields = (self.name, uid_text(uid))
        places = self._port.frontend_ids() if frontend_id is None else [frontend_id]
        answers = await outcomes([self._port.ask_surely(place, GLOBAL_LEAVE, fields) for place in places])
        return any(msgpack.unpackb(answer) for answer in answers if not isinstance(answer, PummeloError))

    async def members(self) -> list[str]:
        """Return the members' uids, each once. Raises Unavailable or TimedOut, as all that asks the store."""
        return list(dict.fromkeys(uid for _, group in await self._roster() for uid in group))

    async def frontends(self, uid: str | int) -> list[str]:
        """Return the ids of the frontends at which a user is a member."""
        member = uid_text(uid)
        return [frontend_id for frontend_id, group in await self._roster() if member in group]

    async def presence(self) -> list[Presence]:
        """Return the members with their metadata."""
        places: dict[str, list[str]] = {}
        metadata: dict[str, bytes] = {}
        for frontend_id, group in await self._roster():
            for uid, one in group.items():
                places.setdefault(uid, []).append(frontend_id)
                metadata.setdefault(uid, one)
        return [Presence(uid, _unpacked(metadata[uid]), tuple(where)) for uid, where in places.items()]

    async def count(self) -> int:
        """Return how many uids are members, without listing them."""
        return await self._store.count(self.name)

    def destroy(self) -> None:
        """Take every member out; they are told nothing. Who is added afterwards is a member again.

        A frontend is told again until it has answered, as for ``leave``.
        """
        for frontend_id in self._port.frontend_ids():
            self._port.ask_surely(frontend_id, GLOBAL_DESTROY, (self.name,))

    # -- pushes

    def push(self, route: str, message: Any, *, options: Any = None) -> None:
        """Send a message to every member; queued, in the order of the calls, with what this server answers them.

        Encoded once; one entry for each frontend. Members at a frontend that is down are not reached. Raises TypeError
        for a message that JSON cannot carry or options that msgpack cannot, and Unavailable when the queue of a
        frontend is full that responds: its members do not get the message, the others do.
        """
        fields = (self.name, route, encode_body(message), *pack_options(options))
        failed: Unavailable | None = None
        for frontend_id in self._port.frontend_ids():
            try:
                self._port.tell(frontend_id, GLOBAL_PUSH, fields)
            except Unavailable as error:
                # The members at a frontend that is down have left, or are about to; at one that is full they have not.
                failed = error if self._port.responds(frontend_id) else failed
        if failed is not None:
            raise failed

    async def push_confirmed(self, route: str, message: Any, *, options: Any = None) -> list[str]:
        """Send a message to every member; returns the uids that may not have been reached at some frontend of theirs.

        These are the members at frontends that did not confirm it, as far as the store still has them. Raises
        TypeError as ``push`` does, and as ``members`` does where a frontend failed.
        """
        fields = (self.name, route, encode_body(message), *pack_options(options))
        places = self._port.frontend_ids()
        answers = await outcomes([self._port.ask(place, GLOBAL_PUSH, fields) for place in places])
        failed = {p for p, answer in zip(places, answers, strict=True) if isinstance(answer, PummeloError)}
        if not failed:
            return []
        return list(dict.fromkeys(uid for place, group in await self._roster() if place in failed for uid in group))

    # -- its own

    def _joining(self, uid: str | int, metadata: Any, watch: bool) -> Entry:
        packed = b"" if metadata is None else encode_body(metadata)
        if len(packed) > METADATA:
            raise ValueError(f"a member's metadata is {len(packed)} bytes as JSON, more than {METADATA}")
        return self.name, uid_text(uid), packed, watch

    async def _roster(self) -> list[tuple[str, dict[str, bytes]]]:
        roster: Roster = await self._store.roster(self.name)
        return sorted(roster.items())

    def __repr__(self) -> str:
        return f"<GlobalChannel {self.name!r}>"


class GlobalChannels:
    """The global channels, ``server.global_channels``. Raises NotConfigured where the game has no directory."""

    def __init__(self, port: Port, store: Store, *, configured: bool) -> None:
        self._configured = configured
        self._made = functools.lru_cache(1024)(lambda name: GlobalChannel(name, port, store))

    @property
    def available(self) -> bool:
        """Whether the game has a directory."""
        return self._configured

    def create(self, name: str) -> GlobalChannel:
        """Return the channel of that name. It needs no making, so this is ``get``, named as in ``server.channels``."""
        return self.get(name)

    def get(self, name: str) -> GlobalChannel:
        """Return the channel of that name, which may have no member; nobody is asked."""
        if not self._configured:
            raise no_directory()
        if not name:
            raise ValueError("a channel's name is not empty")
        name.encode()  # what UTF-8 does not have, half of a surrogate pair, could not travel; a ValueError
        return self._made(name)


def _unpacked(metadata: bytes) -> Any:
    return msgspec.json.decode(metadata) if metadata else None
