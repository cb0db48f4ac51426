"""The part of a frontend that the whole cluster reaches: what is so on it, for the store, and its global channels.

The frontend owns the truth. A member of a global channel is one where its session is; that frontend delivers pushes to
it from whatever server, takes it out when its last session closes, and tells the store of both.
"""

import asyncio
from collections.abc import Collection, Iterable, Iterator
from typing import Any, Protocol

import msgpack
import msgspec

from handlers.body import encode_body
from handlers.frontend_sessions import FrontendSession, SessionService
from handlers.groups import Group
from handlers.link import DISPLACED, Entry, Link
from handlers.shard import unpack_diff
from handlers.store import GREET, JOINED, OFFLINE, ONLINE, PARTED, UNWATCHED, WATCHED, Diff, Fact, Scope, Store

__all__ = ["ON_PRESENCE", "Residents"]

ON_PRESENCE = "onPresence"
"""The route of the pushes that tell who joined and left."""


Joined = tuple[bytes, float, str]
"""A member's metadata, when it was last added, by the loop's time, and the server that did it."""


class Port(Protocol):
    """The server that the frontend is part of."""

    def tell(self, server_id: str, kind: int, fields: Entry, *, vital: bool = False) -> None:
        """Queue an entry for a frontend. Raises Unavailable or NotFound."""


class Pushes(Protocol):
    """The frontend's way of a push to clients (handlers.push_remote.PushRemote)."""

    def group(self, uids: Iterable[str]) -> Group:
        """Return the clients of all sessions that users have here."""

    def deliver(self, clients: Group, route: str, body: bytes, options: bytes) -> None:
        """Push to clients, with packed options."""


class Residents:
    """What a frontend tells a store, and does for servers anywhere; also the store's Truth about it.

    Everything here runs on the server's loop and never waits. ``interval``: seconds for which those who begin to watch
    a channel are gathered, before they are told who is in it.
    """

    def __init__(self, port: Port, sessions: SessionService, pushes: Pushes, store: Store, *, interval: float) -> None:
        self.single_session = sessions.single_session
        self._port = port
        self._sessions = sessions
        self._pushes = pushes
        self._store = store
        self._interval = interval
        self._members: dict[str, dict[str, Joined]] = {}
        self._channels: dict[str, set[str]] = {}
        self._groups: dict[str, Group] = {}  # by channel, as long as its members and their sessions stay the same
        self._watchers: dict[str, set[str]] = {}
        self._new_watchers: dict[str, set[str]] = {}
        self._timer: asyncio.TimerHandle | None = None

    # -- what the frontend tells

    @property
    def uids(self) -> Collection[str]:
        """The users that have a session here."""
        return self._sessions.by_uid.keys()

    def bound(self, session: FrontendSession) -> None:
        """Take note that a session got a uid. The store hears of the first; where sessions are single, of each."""
        uid = session.uid
        if uid is not None and (self.single_session or len(self._sessions.by_uid[uid]) == 1):
            self._store.tell((ONLINE, uid, session.bound_at))

    def sessions_changed(self, uid: str) -> None:
        """Take note that a user has other sessions here than before."""
        for channel in self._channels.get(uid, ()):
            self._groups.pop(channel, None)

    def user_gone(self, uid: str) -> None:
        """Take a user without sessions here out of every global channel."""
        for channel in list(self._channels.get(uid, ())):
            self._part(channel, uid)
        self._store.tell((OFFLINE, uid))

    def close(self) -> None:
        """End the timer."""
        if self._timer is not None:
            self._timer.cancel()

    # -- what other servers ask

    def join(self, link: Link, request_id: int, channel: str, uid: str, metadata: bytes, watch: bool) -> None:
        """Make a user a member, if it has a session here; the answer says so. Again: its new metadata."""
        present = uid in self._sessions.by_uid
        if present:
            self._join(channel, uid, metadata, link.peer)
            if watch:
                self._watch(channel, uid)
            else:
                self._unwatch(channel, uid)
        if request_id:
            link.answer(request_id, 0, msgpack.packb(present))

    def leave(self, link: Link, request_id: int, channel: str, uid: str, age: float = 0.0) -> None:
        """Take a user out; the answer says whether it was a member here.

        ``age``: seconds since the leave was asked for; whom another server added since then stays.
        """
        present = self._joined_before(link.peer, channel, uid, age)
        if present:
            self._part(channel, uid)
        if request_id:
            link.answer(request_id, 0, msgpack.packb(present))

    def destroy(self, link: Link, request_id: int, channel: str, age: float = 0.0, but: Collection[str] = ()) -> None:
        """Take every member here out, but those that another server added since it was asked for, and ``but``."""
        kept = frozenset(but)
        for uid in list(self._members.get(channel, ())):
            if uid not in kept and self._joined_before(link.peer, channel, uid, age):
                self._part(channel, uid)
        if request_id:
            link.answer(request_id, 0, b"")

    def push(self, link: Link, request_id: int, channel: str, route: str, body: bytes, options: bytes = b"") -> None:
        """Push to the members here; for none of them it costs nothing."""
        members = self._members.get(channel)
        if members is not None:
            group = self._groups.get(channel)
            if group is None:
                group = self._groups[channel] = self._pushes.group(members)
            self._pushes.deliver(group, route, body, options)
        if request_id:
            link.answer(request_id, 0, b"")

    def displaced_entry(self, link: Link, request_id: int, uid: str, until: float) -> None:
        """End a user's sessions here that another login came after."""
        self.displaced(uid, until)

    def presence(self, link: Link, request_id: int, channel: str, *fields: Any) -> None:
        """Take what a directory server tells of a watched channel."""
        self.changed(channel, unpack_diff(fields))

    # -- Truth

    def facts(self) -> Iterator[Fact]:
        """Return all that is so here."""
        for uid, sessions in self._sessions.by_uid.items():
            yield ONLINE, uid, sessions[-1].bound_at
        for channel, group in self._members.items():
            for uid, (metadata, _, _) in group.items():
                yield JOINED, channel, uid, metadata
        for channel in self._watchers:
            yield WATCHED, channel

    def displaced(self, uid: str, until: float) -> None:
        """Kick a user's sessions that were bound at ``until`` or before; only where sessions are single."""
        if self.single_session:
            for session in list(self._sessions.by_uid.get(uid, ())):
                if session.bound_at <= until:
                    self._sessions.end(session, "logged in elsewhere")

    def displace(self, frontend_id: str, uid: str, until: float) -> None:
        """Have another frontend do so. Raises Unavailable or NotFound."""
        self._port.tell(frontend_id, DISPLACED, (uid, until), vital=True)

    def changed(self, channel: str, diff: Diff) -> None:
        """Push a diff to those who watch the channel here; those who began to are told everybody first."""
        watchers = self._watchers.get(channel, set())
        to = _hearers(watchers, self._new_watchers.get(channel, set()), diff.scope)
        if diff.scope is not Scope.CHANGE:
            self._new_watchers.pop(channel, None)
        if to:
            self._pushes.deliver(self._pushes.group(to), ON_PRESENCE, presence_body(channel, diff), b"")

    # -- members

    def _join(self, channel: str, uid: str, metadata: bytes, by: str) -> None:
        group = self._members.setdefault(channel, {})
        before = group.get(uid)
        group[uid] = metadata, asyncio.get_running_loop().time(), by
        if before is None:
            self._groups.pop(channel, None)
            self._channels.setdefault(uid, set()).add(channel)
        if before is None or before[0] != metadata:
            self._store.tell((JOINED, channel, uid, metadata))

    def _joined_before(self, server_id: str, channel: str, uid: str, age: float) -> bool:
        """Tell whether a user is a member that a server which asked ``age`` seconds ago meant.

        Its own add came before: of a later one it would not ask any more.
        """
        member = self._members.get(channel, {}).get(uid)
        if member is None:
            return False
        _, moment, by = member
        return by == server_id or moment <= asyncio.get_running_loop().time() - age

    def _part(self, channel: str, uid: str) -> None:
        self._unwatch(channel, uid)
        group, channels = self._members[channel], self._channels[uid]
        del group[uid]
        self._groups.pop(channel, None)
        channels.discard(channel)
        if not group:
            del self._members[channel]
        if not channels:
            del self._channels[uid]
        self._store.tell((PARTED, channel, uid))

    # -- watchers

    def _watch(self, channel: str, uid: str) -> None:
        watchers = self._watchers.get(channel)
        if watchers is None:
            watchers = self._watchers[channel] = set()
            self._store.tell((WATCHED, channel))
        if uid not in watchers:
            watchers.add(uid)
            self._new_watchers.setdefault(channel, set()).add(uid)
            self._greet_later()

    def _unwatch(self, channel: str, uid: str) -> None:
        watchers = self._watchers.get(channel, set())
        if uid not in watchers:
            return
        watchers.discard(uid)
        if not watchers:
            del self._watchers[channel]
            self._new_watchers.pop(channel, None)
            self._store.tell((UNWATCHED, channel))
        if (news := self._new_watchers.get(channel)) is not None:
            news.discard(uid)

    def _greet_later(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._interval, self._greet)

    def _greet(self) -> None:
        """Have those who began to watch told who is there: once an interval and channel, however many they are."""
        self._timer = None
        for channel in self._new_watchers:
            self._store.tell((GREET, channel))


def _hearers(watchers: set[str], new: set[str], scope: Scope) -> set[str]:
    match scope:
        case Scope.CHANGE:
            return watchers - new
        case Scope.GREETING:
            return watchers & new
        case Scope.RESET:
            return watchers


def presence_body(channel: str, diff: Diff) -> bytes:
    """Return the body of a presence push, ``{channel, joined: [{uid, meta}], left: [uid], count}``.

    It has ``reset: true`` where ``joined`` is everybody.
    """
    body = {
        "channel": channel,
        "joined": [{"uid": uid, "meta": msgspec.Raw(one or b"null")} for uid, one in diff.joined.items()],
        "left": list(diff.left),
        "count": diff.count,
    }
    return encode_body(body if diff.scope is Scope.CHANGE else body | {"reset": True})
