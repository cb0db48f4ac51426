"""The way of a push from a server to clients of a frontend: to a channel, to users, to all (pomelo's ChannelRemote)."""

import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import msgpack

from handlers.frontend_sessions import FrontendSession, SessionService
from handlers.groups import Group
from handlers.link import Link
from handlers.mirror import Mirror
from handlers.scheduler import PushScheduler, Schedulers
from handlers.session import Session

if TYPE_CHECKING:
    from handlers.node import Node

__all__ = ["Edge", "PushRemote"]

logger = logging.getLogger(__name__)


class Edge(Protocol):
    """What a frontend needs of its listener."""

    def encode_push(self, route: str, body: bytes) -> Any:
        """Return a push as a frame that any client's ``send`` takes."""

    def group(self, clients: Iterable[Any]) -> Group:
        """Return clients of this listener as a group, each once."""


class PushRemote:
    """The part of a frontend that pushes: it finds the clients that are meant and has their frame sent to them.

    ``mirror`` tells a channel's members here.
    """

    def __init__(
        self,
        node: "Node",
        edge: Edge,
        sessions: SessionService,
        mirror: Mirror,
        scheduler: PushScheduler,
        schedulers: Schedulers | None,
    ) -> None:
        self._node = node
        self._edge = edge
        self._sessions = sessions
        self._mirror = mirror
        self._scheduler = scheduler
        self._schedulers = schedulers

    def push(self, link: Link, request_id: int, channel: str, route: str, body: bytes, options: bytes = b"") -> None:
        """Push to a channel's members here."""
        place = (link.peer, channel)
        group = self._mirror.groups.get(place)
        if group is None:
            group = self.group(self._mirror.members(*place))
            if group:
                self._mirror.groups[place] = group
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

    # -- what all pushes take, those of global channels too (handlers.residents)

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
