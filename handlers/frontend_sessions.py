"""The sessions of a frontend, where they are real: one for each client connection. Pure.

pomelo's SessionService: a session may be bound to one uid, a uid may have several sessions, unless ``single_session``.
"""

import itertools
import math
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from typing import Any, Protocol

from handlers.errors import Conflict, NotFound
from handlers.session import pack_values, unpack_values

__all__ = ["Client", "FrontendSession", "SessionService"]


class Client(Protocol):
    """A client's connection, as its session needs it; the gateway's Client is one."""

    @property
    def address(self) -> tuple[str, int]:
        """Its host and port; those of the client also behind trusted proxies."""

    @property
    def waiting(self) -> int:
        """Bytes that it has not taken yet."""

    def send(self, frame: Any) -> None:
        """Queue a push that was encoded for many."""

    def respond(self, request_id: int, body: bytes) -> None:
        """Queue the answer to a request."""

    def kick(self, reason: str) -> None:
        """Tell the client why, then close."""


class FrontendSession:
    """One client's session: its uid, its values, and the connection to write to."""

    __slots__ = (
        "bound_at",
        "client",
        "closed",
        "id",
        "inbox",
        "leaving",
        "packed",
        "served",
        "since",
        "uid",
        "unanswered",
        "values",
    )

    def __init__(self, session_id: int, client: Client) -> None:
        self.id = session_id
        self.client = client
        self.uid: str | None = None
        self.since = time.time()
        """When it was opened, seconds since the epoch."""
        self.bound_at = 0.0
        """When it got its uid, seconds since the epoch."""
        self.values: dict[str, Any] = {}
        self.closed = False
        self.served: set[str] = set()
        """The ids of the servers that dealt with the session, to be told when it closes."""
        self.inbox: deque[Any] | None = None
        """Messages not yet routed, while an earlier one waits for a filter or route function; else None."""
        self.unanswered = 0
        """How many requests were taken and not answered yet."""
        self.leaving: str | None = None
        """The reason with which it is kicked once they are answered; None while it stays."""
        self.packed = b""
        """The values as they travel with every request."""

    def update(self, changed: dict[str, Any], removed: Collection[str] = ()) -> None:
        """Set values and remove others."""
        self.values.update(changed)
        for key in removed:
            self.values.pop(key, None)
        self.packed = pack_values(self.values)

    def replace(self, values: dict[str, Any]) -> None:
        """Set all values at once."""
        self.values = values
        self.packed = pack_values(values)


class SessionService:
    """All sessions of a frontend, by id and by uid.

    Ids hold the frontend's incarnation, so that nothing meant for an earlier life's session reaches another client.
    ``sessions_changed(uid)`` is called when a uid has one more session here, or one less but still some,
    ``user_gone(uid)`` when it has lost its last, ``was_bound(session)`` when a session got a
    uid, and ``was_unbound(session, uid)`` when one was unbound, not when it closed. ``finish(client)`` hands over what
    is scheduled for a client, before it is kicked.
    """

    def __init__(
        self,
        incarnation: int,
        *,
        single_session: bool,
        sessions_changed: Callable[[str], None],
        user_gone: Callable[[str], None],
        was_bound: Callable[[FrontendSession], None],
        was_unbound: Callable[[FrontendSession, str], None],
        finish: Callable[[Client], None],
    ) -> None:
        self.single_session = single_session
        self._ids = itertools.count((incarnation << 32) + 1)
        self._by_id: dict[int, FrontendSession] = {}
        self.by_uid: dict[str, list[FrontendSession]] = {}
        self._sessions_changed = sessions_changed
        self._user_gone = user_gone
        self._was_bound = was_bound
        self._was_unbound = was_unbound
        self._finish = finish
        self._last_moment = 0.0

    def open(self, client: Client) -> FrontendSession:
        """Return a new session for a connection."""
        session = FrontendSession(next(self._ids), client)
        self._by_id[session.id] = session
        return session

    def close(self, session: FrontendSession) -> None:
        """Forget a session whose connection is gone."""
        session.closed = True
        if self._by_id.pop(session.id, None) is not None:
            self._unbind(session)

    def find(self, session_id: int) -> FrontendSession | None:
        """Return a session, None when it is closed or never was."""
        return self._by_id.get(session_id)

    def get(self, session_id: int) -> FrontendSession:
        """Return a session. Raises NotFound when it is closed or never was."""
        session = self._by_id.get(session_id)
        if session is None:
            raise NotFound("the session is closed")
        return session

    def bind(self, session_id: int, uid: str) -> None:
        """Bind a session to a uid; again to the same is success. Raises NotFound, or Conflict when bound to another.

        With ``single_session`` the uid's earlier sessions here are kicked (pomelo refuses the new one instead).
        """
        session = self.get(session_id)
        if session.uid == uid:
            return
        if session.uid is not None:
            raise Conflict("the session is bound to another uid")
        earlier = self.by_uid.get(uid, ())
        session.uid = uid
        session.bound_at = self._moment()
        self.by_uid[uid] = [*earlier, session]
        self._sessions_changed(uid)
        self._was_bound(session)
        if self.single_session:
            for other in earlier:
                self.end(other, "logged in elsewhere")

    def unbind(self, session_id: int, uid: str | None) -> None:
        """Take the uid off a session. Raises NotFound when it is closed or not bound to that uid."""
        session = self.get(session_id)
        if uid is None or session.uid != uid:
            raise NotFound("the session is not bound to that uid")
        self._unbind(session)
        self._was_unbound(session, uid)

    def end(self, session: FrontendSession, reason: str) -> None:
        """Kick a session's client, after all that was made for it before; one already gone is no matter."""
        if not session.closed:
            self._finish(session.client)
            session.client.kick(reason)

    def kick(self, session_id: int, reason: str) -> None:
        """Close a session after telling its client; one already gone is success."""
        session = self._by_id.get(session_id)
        if session is not None:
            self.end(session, reason)

    def kick_uid(self, uid: str, reason: str) -> int:
        """Close every session of a uid on this frontend after telling the clients; returns how many there were."""
        kicked = list(self.by_uid.get(uid, ()))
        for session in kicked:
            self.end(session, reason)
        return len(kicked)

    def bound(self) -> Iterator[FrontendSession]:
        """Iterate over the sessions that have a uid."""
        return itertools.chain.from_iterable(self.by_uid.values())

    @property
    def logged_in(self) -> int:
        """How many sessions have a uid (pomelo's connectionService counts logins up and down instead)."""
        return sum(len(sessions) for sessions in self.by_uid.values())

    def logins(self) -> list[tuple[str, int, float]]:
        """Return each session that has a uid: the uid, the session's id, and since when, seconds since the epoch."""
        return [(uid, one.id, one.bound_at) for uid, sessions in self.by_uid.items() for one in sessions]

    def __iter__(self) -> Iterator[FrontendSession]:
        return iter(self._by_id.values())

    def __len__(self) -> int:
        return len(self._by_id)

    def operate(self, operation: str, session_id: int, argument: Any) -> Any:
        """Carry out what a Session, or ``server.sessions``, asked of this frontend; returns what to answer."""
        match operation:
            case "bind":
                self.bind(session_id, argument)
            case "unbind":
                self.unbind(session_id, argument)
            case "push":
                packed, removed = argument
                self.get(session_id).update(unpack_values(packed), removed)
            case "push_all":
                self.get(session_id).replace(unpack_values(argument))
            case "kick":
                self.kick(session_id, argument)
            case "kick_uid":
                return self.kick_uid(*argument)
            case _:
                return self._ask(operation, session_id, argument)
        return None

    def _ask(self, operation: str, session_id: int, argument: Any) -> Any:
        """Answer an operation that changes nothing."""
        session = self._by_id.get(session_id)
        match operation:
            case "watch":
                return session is not None
            case "get":
                return None if session is None else _exported(session)
            case "get_by_uid":
                return [_exported(session) for session in self.by_uid.get(argument, ())]
            case "address":
                return None if session is None else session.client.address
            case "count":
                return {"sessions": len(self), "logged_in": self.logged_in}
        raise NotFound(f"no session operation {operation!r}")

    def _moment(self) -> float:
        """Return the time, later than at any call before: who was bound when also says in which order."""
        self._last_moment = max(time.time(), math.nextafter(self._last_moment, math.inf))
        return self._last_moment

    def _unbind(self, session: FrontendSession) -> None:
        uid, session.uid = session.uid, None
        if uid is None:
            return
        left = [other for other in self.by_uid[uid] if other is not session]
        if left:
            self.by_uid[uid] = left
            self._sessions_changed(uid)
        else:
            del self.by_uid[uid]
            self._user_gone(uid)


def _exported(session: FrontendSession) -> tuple[int, str | None, bytes]:
    return session.id, session.uid, session.packed
