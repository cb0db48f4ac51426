"""What servers say to a frontend's users: channel members, pushes, broadcasts (pomelo's ChannelRemote)."""

import logging
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import msgpack

from handlers.errors import NotFound, Unavailable
from handlers.frontend_sessions import FrontendSession, SessionService
from handlers.groups import Group
from handlers.link import LEFT, MIRROR, MIRRORED, Link
from handlers.mirror import Mirror
from handlers.rpc import DEFAULT_TIMEOUT
from handlers.scheduler import PushScheduler, Schedulers
from handlers.session import Session

if TYPE_CHECKING:
    from handlers.node import Node

__all__ = ["ChannelRemote", "Edge"]

logger = logging.getLogger(__name__)


class Edge(Protocol):
    """What a frontend needs of its listener."""

    def encode_push(self, route: str, body: bytes) -> Any:
        """Return a push as a frame that any client's ``send`` takes."""

    def group(self, clients: Iterable[Any]) -> Group:
        """Return clients of this listener as a group, each once."""


class ChannelRemote:
    """The half of a frontend that pushes: the mirror of channels, and the way of a push to clients."""

    def __init__(
        self,
        node: "Node",
        edge: Edge,
        sessions: SessionService,
        scheduler: PushScheduler,
        schedulers: Schedulers | None,
    ) -> None:
        self.mirror = Mirror()
        self._node = node
        self._edge = edge
        self._sessions = sessions
        self._scheduler = scheduler
        self._schedulers = schedulers

    def join(self, link: Link, request_id: int, channel: str, uid: str, token: int) -> None:
        """Mirror a member; one without a session here is reported gone."""
        present = uid in self._sessions.by_uid
        if present:
            self.mirror.join(link.peer, channel, uid, token)
        else:
            link.send(LEFT, (uid, [(channel, token)]), vital=True)
        if request_id:
            link.answer(request_id, 0, msgpack.packb(present))

    def leave(self, link: Link, request_id: int, channel: str, uid: str) -> None:
        """Take a member out of the mirror."""
        self.mirror.leave(link.peer, channel, uid)

    def destroy(self, link: Link, request_id: int, channel: str) -> None:
        """Forget a channel's mirror."""
        self.mirror.destroy(link.peer, channel)

    def push(self, link: Link, request_id: int, channel: str, route: str, body: bytes, options: bytes = b"") -> None:
        """Push to a channel's members here."""
        place = (link.peer, channel)
        group = self.mirror.groups.get(place)
        if group is None:
            group = self.group(self.mirror.members(*place))
            if group:
                self.mirror.groups[place] = group
        self.deliver(group, route, body, options)
        if request_id:
            link.answer(request_id, 0, b"")

    def push_to(
        self, link: Link, request_id: int, uids: Sequence[str], route: str, body: bytes, options: bytes = b""
    ) -> None:
        """Push to users here; the answer names those without a session."""
        self.deliver(self.group(uids), route, body, options)
        if request_id:
            missing = [uid for uid in uids if uid not in self._sessions.by_uid]
            link.answer(request_id, 0, msgpack.packb(missing))

    def broadcast(
        self,
        link: Link,
        request_id: int,
        route: str,
        body: bytes,
        everyone: bool,
        chosen: bytes = b"",
        options: bytes = b"",
    ) -> None:
        """Push to every bound session here, or to every session, that the broadcast filter in ``chosen`` keeps."""
        sessions: Iterable[FrontendSession] = self._sessions if everyone else self._sessions.bound()
        if chosen:
            sessions = self._kept(sessions, route, *msgpack.unpackb(chosen, strict_map_key=False))
        self.deliver(self._edge.group(session.client for session in sessions), route, body, options)
        if request_id:
            link.answer(request_id, 0, b"")

    def user_gone(self, uid: str) -> None:
        """Take a user without sessions here out of every channel, and tell the channels' servers."""
        for server_id, places in self.mirror.forget_user(uid).items():
            self._node.tell_if_up(server_id, LEFT, (uid, places))

    def came_up(self, server_id: str, incarnation: int) -> None:
        """Tell a server's new life which members its channels have here; forget them where it is the life they are of.

        That one took them out when the link went down. What is told counts as known when the answer comes: until then
        it is told again to whatever life comes.
        """
        if incarnation <= self.mirror.life(server_id):
            self.mirror.forget_server(server_id)
            return
        try:
            link = self._node.links.to(server_id)
            for channel, members in self.mirror.told(server_id):
                link.send(MIRROR, (channel, members), vital=True)
            link.request(MIRRORED, (), DEFAULT_TIMEOUT, partial(self._known, server_id, incarnation))
        except (Unavailable, NotFound) as error:
            logger.warning("%s: %s is not told of its channels: %s", self._node.id, server_id, error)

    def _known(self, server_id: str, incarnation: int, code: int, payload: bytes) -> None:
        if not code:
            self.mirror.known_to(server_id, incarnation)

    # -- pushes

    def group(self, uids: Iterable[str]) -> Group:
        """Return the clients of all sessions that users have here."""
        by_uid = self._sessions.by_uid
        return self._edge.group(session.client for uid in uids if uid in by_uid for session in by_uid[uid])

    def deliver(self, clients: Group, route: str, body: bytes, options: bytes) -> None:
        """Push to clients, through the scheduler that the app picks."""
        frame = self._edge.encode_push(route, body)
        self._node.meters.pushes += len(clients)
        if self._schedulers is None:
            self._scheduler.push(clients, frame)
        else:
            given = msgpack.unpackb(options, strict_map_key=False) if options else None
            self._schedulers.push(clients, frame, route, given)

    def _kept(
        self, sessions: Iterable[FrontendSession], route: str, name: str, param: Any
    ) -> Iterable[FrontendSession]:
        """Return the sessions that a broadcast filter of the app keeps; one that raises keeps nobody it raised for."""
        keep = self._node.app.broadcast_filters.get(name)
        if keep is None:
            logger.error("%s: there is no broadcast filter %r: %s reaches nobody here", self._node.id, name, route)
            return []
        kept = []
        for session in list(sessions):
            try:
                if keep(Session(session.id, self._node.id, session.uid, session.packed, self._node), route, param):
                    kept.append(session)
            except Exception:
                logger.exception("%s: the broadcast filter %r failed for session %d", self._node.id, name, session.id)
        return kept
