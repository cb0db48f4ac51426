"""Channels: groups of users that are pushed to together. Each belongs to the server that made it.

The server holds who is a member; each frontend mirrors the members that are connected to it, so a push names the
channel and no member, and costs one entry per frontend. Every ``add`` carries a token: when a frontend reports that a
member is gone it returns the token, so a report that crossed a newer ``add`` is known to be old and changes nothing.
"""

import asyncio
from collections.abc import Awaitable, Collection, Iterable
from typing import Any, Protocol

import msgpack

from handlers.body import encode_body
from handlers.errors import ChannelNotFound, HandlerError, PummeloError, Unavailable
from handlers.link import BROADCAST, DESTROY, JOIN, LEAVE, PUSH, PUSH_TO, Entry
from handlers.session import uid_text

__all__ = ["Channel", "ChannelPort", "ChannelService"]


class ChannelPort(Protocol):
    """What carries a channel's wishes to frontends: the server that made it."""

    id: str

    def tell(self, server_id: str, kind: int, fields: Entry, *, vital: bool = False) -> None:
        """Queue an entry for a frontend. Raises Unavailable or NotFound."""

    def tell_if_up(self, server_id: str, kind: int, fields: Entry) -> None:
        """Queue an entry that a frontend whose link is down needs not hear: it forgot what it is about."""

    def ask(self, server_id: str, kind: int, fields: Entry) -> Awaitable[bytes]:
        """Send an entry and return its answer. Raises the answer's error, Unavailable, NotFound or TimedOut."""

    def server_ids(self, server_type: str) -> tuple[str, ...]:
        """Return the ids of a type's servers."""


class Channel:
    """A named group of users, each at the frontend where its session is. Made by ``server.channels``.

    A uid connected to two frontends may be a member at both; one with two sessions on one frontend is pushed to on
    both. When the last session of a uid on a frontend closes, or the frontend is lost, it leaves by itself.
    """

    def __init__(self, name: str, service: "ChannelService") -> None:
        self.name = name
        self.destroyed = False
        self._service = service
        self._port = service.port
        self._groups: dict[str, dict[str, int]] = {}

    # -- members

    def add(self, uid: str | int, frontend_id: str) -> None:
        """Make a user a member at a frontend. Twice is once.

        It is queued: pushes that follow reach the user. A uid with no session there is taken out again when the
        frontend says so; ``add_confirmed`` waits for that word. Raises NotFound for a frontend that does not exist,
        Unavailable for one that is down, and ChannelNotFound when the channel was destroyed.
        """
        member, token = self._taken_in(uid, frontend_id)
        try:
            self._port.tell(frontend_id, JOIN, (self.name, member, token), vital=True)
        except HandlerError:
            self._dropped(frontend_id, member, token)
            raise

    async def add_confirmed(self, uid: str | int, frontend_id: str) -> bool:
        """Make a user a member at a frontend; returns whether it has a session there. Raises as ``add`` does."""
        member, token = self._taken_in(uid, frontend_id)
        try:
            present: bool = msgpack.unpackb(await self._port.ask(frontend_id, JOIN, (self.name, member, token)))
        except HandlerError:
            # Where no answer came in time the frontend may have taken the member in all the same.
            if self._dropped(frontend_id, member, token):
                self._port.tell_if_up(frontend_id, LEAVE, (self.name, member))
            raise
        return present

    def leave(self, uid: str | int, frontend_id: str | None = None) -> bool:
        """Take a user out, at one frontend or at all; returns whether it was a member."""
        member = uid_text(uid)
        places = [frontend_id] if frontend_id is not None else list(self._groups)
        found = [place for place in places if member in self._groups.get(place, ())]
        for place in found:
            self._drop(place, member)
            self._port.tell_if_up(place, LEAVE, (self.name, member))
        return bool(found)

    def members(self) -> list[str]:
        """Return the members' uids, each once."""
        return list(dict.fromkeys(uid for group in self._groups.values() for uid in group))

    def frontends(self, uid: str | int) -> list[str]:
        """Return the ids of the frontends at which a user is a member."""
        member = uid_text(uid)
        return [frontend_id for frontend_id, group in self._groups.items() if member in group]

    @property
    def places(self) -> int:
        """How many members there are, one at two frontends counted twice."""
        return sum(map(len, self._groups.values()))

    def counts(self) -> dict[str, int]:
        """Return how many members there are at each frontend."""
        return {frontend_id: len(group) for frontend_id, group in self._groups.items()}

    def __len__(self) -> int:
        if len(self._groups) == 1:
            return len(next(iter(self._groups.values())))
        return len(self.members())

    def __bool__(self) -> bool:
        return True

    def __contains__(self, uid: object) -> bool:
        return any(str(uid) in group for group in self._groups.values())

    def destroy(self) -> None:
        """End the channel; its members are told nothing. Twice is once. Whoever still holds it gets ChannelNotFound."""
        if self.destroyed:
            return
        self.destroyed = True
        self._service.forget(self.name)
        groups, self._groups = self._groups, {}
        for frontend_id in groups:
            self._port.tell_if_up(frontend_id, DESTROY, (self.name,))

    # -- pushes

    def push(self, route: str, message: Any, *, options: Any = None) -> None:
        """Send a message to every member; queued, in the order of the calls, with what this server answers them.

        Encoded once. ``options`` go with it to the app's ``pick_scheduler``. Raises TypeError for a message that JSON
        cannot carry or options that msgpack cannot, ChannelNotFound when destroyed, and Unavailable when a frontend's
        queue is full: its members do not get the message, the others do.
        """
        self._alive()
        fields = (self.name, route, encode_body(message), *_packed(options))
        _tell_all(self._port, self._groups, PUSH, fields)

    async def push_confirmed(self, route: str, message: Any, *, options: Any = None) -> list[str]:
        """Send a message to every member; returns the uids that could not be reached at some frontend of theirs.

        Raises TypeError and ChannelNotFound as ``push`` does.
        """
        self._alive()
        fields = (self.name, route, encode_body(message), *_packed(options))
        before = {frontend_id: dict(group) for frontend_id, group in self._groups.items()}
        asks = [self._port.ask(frontend_id, PUSH, fields) for frontend_id in before]
        failed: dict[str, None] = {}
        for (frontend_id, group), outcome in zip(before.items(), await _outcomes(asks), strict=True):
            # Reports of members gone come before the answer in the stream: who is still here was reached.
            now = {} if isinstance(outcome, HandlerError) else self._groups.get(frontend_id, {})
            failed.update((uid, None) for uid, token in group.items() if now.get(uid) != token)
        return list(failed)

    # -- for the service

    def gone(self, frontend_id: str, uid: str, token: int) -> None:
        """Take out a member that its frontend reported gone, unless it was added again since."""
        self._dropped(frontend_id, uid, token)

    def restore(self, frontend_id: str, members: Iterable[tuple[str, int]]) -> None:
        """Take in members of an earlier life of this server, unless they were added in this one."""
        group = self._groups.setdefault(frontend_id, {})
        for uid, token in members:
            group[uid] = max(token, group.get(uid, 0))

    def frontend_lost(self, frontend_id: str) -> None:
        """Take out every member at a frontend."""
        self._groups.pop(frontend_id, None)

    def _taken_in(self, uid: str | int, frontend_id: str) -> tuple[str, int]:
        self._alive()
        member, token = uid_text(uid), self._service.next_token()
        self._groups.setdefault(frontend_id, {})[member] = token
        return member, token

    def _dropped(self, frontend_id: str, uid: str, token: int) -> bool:
        current = self._groups.get(frontend_id, {}).get(uid) == token
        if current:
            self._drop(frontend_id, uid)
        return current

    def _drop(self, frontend_id: str, uid: str) -> None:
        group = self._groups[frontend_id]
        del group[uid]
        if not group:
            del self._groups[frontend_id]

    def _alive(self) -> None:
        if self.destroyed:
            raise ChannelNotFound(f"the channel {self.name!r} was destroyed")

    def __repr__(self) -> str:
        return f"<Channel {self.name!r} of {self._port.id}>"


class ChannelService:
    """The channels of one server, ``server.channels``, and pushes that need none.

    ``filters``: the names of the app's broadcast filters. Tokens start from the server's ``incarnation``, so that those
    of a later life are greater.
    """

    def __init__(self, port: ChannelPort, filters: Collection[str] = (), *, incarnation: int = 0) -> None:
        self.port = port
        self._filters = filters
        self._channels: dict[str, Channel] = {}
        self._token = incarnation << 32

    def create(self, name: str) -> Channel:
        """Return the channel of that name, made now if there is none."""
        channel = self._channels.get(name)
        if channel is None:
            if not name:
                raise ValueError("a channel's name is not empty")
            channel = self._channels[name] = Channel(name, self)
        return channel

    def get(self, name: str) -> Channel:
        """Return a channel made before. Raises ChannelNotFound, saying on which server it was looked for."""
        channel = self._channels.get(name)
        if channel is None:
            raise ChannelNotFound(
                f"no such channel here: {name!r} on {self.port.id}; a channel lives on the server that made it"
            )
        return channel

    def destroy(self, name: str) -> None:
        """End a channel. Raises ChannelNotFound."""
        self.get(name).destroy()

    def __contains__(self, name: object) -> bool:
        return name in self._channels

    def __len__(self) -> int:
        return len(self._channels)

    @property
    def places(self) -> int:
        """How many members all channels have, one at two frontends counted twice."""
        return sum(channel.places for channel in self._channels.values())

    def names(self) -> list[str]:
        """Return the channels' names."""
        return list(self._channels)

    def push_to(
        self, members: Iterable[tuple[str | int, str]], route: str, message: Any, *, options: Any = None
    ) -> None:
        """Send a message to users, each a uid and the id of its frontend; queued. Raises as ``Channel.push`` does."""
        body = encode_body(message)
        fields = (route, body, *_packed(options))
        _tell_each(self.port, PUSH_TO, ((f, (uids, *fields)) for f, uids in _grouped(members).items()))

    async def push_to_confirmed(
        self, members: Iterable[tuple[str | int, str]], route: str, message: Any, *, options: Any = None
    ) -> list[str]:
        """Send a message to users, each a uid and the id of its frontend; returns the uids that were not reached."""
        body = encode_body(message)
        fields = (route, body, *_packed(options))
        groups = _grouped(members)
        asks = [self.port.ask(f, PUSH_TO, (uids, *fields)) for f, uids in groups.items()]
        failed: dict[str, None] = {}
        for uids, outcome in zip(groups.values(), await _outcomes(asks), strict=True):
            missing = uids if isinstance(outcome, HandlerError) else msgpack.unpackb(outcome)
            failed.update(dict.fromkeys(missing))
        return list(failed)

    def broadcast(
        self,
        frontend_type: str,
        route: str,
        message: Any,
        *,
        everyone: bool = False,
        filter: str | None = None,  # noqa: A002 - the word of the declaration
        param: Any = None,
        options: Any = None,
    ) -> None:
        """Send a message to every bound session on the frontends of a type; ``everyone`` takes the unbound in too.

        ``filter`` names a broadcast filter of the app, which each frontend asks about each session, with ``param``.
        Queued. Raises as ``Channel.push`` does, and ValueError for a filter that was not declared.
        """
        fields = self._broadcast(route, message, everyone, filter, param, options)
        _tell_all(self.port, self.port.server_ids(frontend_type), BROADCAST, fields)

    async def broadcast_confirmed(
        self,
        frontend_type: str,
        route: str,
        message: Any,
        *,
        everyone: bool = False,
        filter: str | None = None,  # noqa: A002
        param: Any = None,
        options: Any = None,
    ) -> list[str]:
        """Send a message as ``broadcast`` does; returns the ids of the frontends that did not confirm it.

        Raises Unavailable when there are frontends and none of them did (pomelo's rule).
        """
        fields = self._broadcast(route, message, everyone, filter, param, options)
        server_ids = self.port.server_ids(frontend_type)
        asks = [self.port.ask(server_id, BROADCAST, fields) for server_id in server_ids]
        outcomes = zip(server_ids, await _outcomes(asks), strict=True)
        failed = [server_id for server_id, outcome in outcomes if isinstance(outcome, HandlerError)]
        if failed and len(failed) == len(server_ids):
            raise Unavailable(f"the broadcast of {route} failed on every {frontend_type} server")
        return failed

    def _broadcast(
        self, route: str, message: Any, everyone: bool, chosen: str | None, param: Any, options: Any
    ) -> Entry:
        """Return the fields of a broadcast's entry; what is not used does not travel."""
        if chosen is not None and chosen not in self._filters:
            raise ValueError(f"the app declares no broadcast filter {chosen!r}")
        more = (b"" if chosen is None else _pack([chosen, param]), *_packed(options))
        return (route, encode_body(message), bool(everyone), *(more if any(more) else ()))

    # -- for channels and the server

    def next_token(self) -> int:
        """Return a number that no ``add`` of this server has carried, in whatever life."""
        self._token += 1
        return self._token

    def forget(self, name: str) -> None:
        """Drop a destroyed channel."""
        self._channels.pop(name, None)

    def gone(self, frontend_id: str, uid: str, places: Iterable[tuple[str, int]]) -> None:
        """Take a user out of the channels in which a frontend reports it gone; each with its token."""
        for name, token in places:
            if (channel := self._channels.get(name)) is not None:
                channel.gone(frontend_id, uid, token)

    def restore(self, frontend_id: str, name: str, members: Iterable[tuple[str, int]]) -> None:
        """Take in the members that a frontend knows of a channel of an earlier life of this server."""
        self.create(name).restore(frontend_id, members)

    def frontend_lost(self, frontend_id: str) -> None:
        """Take every member at a frontend out of every channel."""
        for channel in self._channels.values():
            channel.frontend_lost(frontend_id)


def _grouped(members: Iterable[tuple[str | int, str]]) -> dict[str, list[str]]:
    groups: dict[str, dict[str, None]] = {}
    for uid, frontend_id in members:
        groups.setdefault(frontend_id, {})[uid_text(uid)] = None
    return {frontend_id: list(uids) for frontend_id, uids in groups.items()}


def _packed(options: Any) -> tuple[bytes, ...]:
    """Return a push's options as the last field of its entry, none when there are none."""
    return () if options is None else (_pack(options),)


def _pack(value: Any) -> bytes:
    try:
        packed: bytes = msgpack.packb(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise TypeError(f"a push's options or parameter cannot travel: {error}") from error
    return packed


def _tell_all(port: ChannelPort, server_ids: Iterable[str], kind: int, fields: Entry) -> None:
    _tell_each(port, kind, ((server_id, fields) for server_id in server_ids))


def _tell_each(port: ChannelPort, kind: int, entries: Iterable[tuple[str, Entry]]) -> None:
    """Send each frontend its entry; when some cannot be sent the rest still are, then the first error is raised."""
    failed: HandlerError | None = None
    for server_id, fields in list(entries):
        try:
            port.tell(server_id, kind, fields)
        except HandlerError as error:
            failed = failed or error
    if failed is not None:
        raise failed


async def _outcomes(asks: list[Awaitable[bytes]]) -> list[Any]:
    """Wait for all answers; returns each, or its HandlerError. Any other exception is raised."""
    outcomes = await asyncio.gather(*asks, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException) and not isinstance(outcome, PummeloError):
            raise outcome
    return outcomes
