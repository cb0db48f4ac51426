"""The session that game code holds: a proxy of a client's connection, made for one request.

The rules are pomelo's (BackendSession): what is set stays with the request until it is pushed; bind,
unbind, push and kick are carried out by the frontend that holds the connection, addressed by its id, and are
confirmed when they return.
"""

from collections.abc import Callable, Iterator, MutableMapping
from typing import Any, Protocol

import msgpack

__all__ = ["Closed", "Session", "SessionPort", "pack_values", "unpack_values"]

Closed = Callable[["Session", str], Any]
"""Called with the session and the reason when a connection closed."""


class SessionPort(Protocol):
    """What carries out a session's wishes: the server that made the proxy."""

    async def session_call(self, frontend_id: str, operation: str, session_id: int, argument: Any) -> Any:
        """Have ``frontend_id`` do ``operation`` on its session and return the outcome."""

    def watch_closed(self, session: "Session", callback: Closed) -> None:
        """Call ``callback`` once when the session closes."""


def pack_values(values: dict[str, Any]) -> bytes:
    """Return a session's values as they travel. Raises TypeError for one that cannot."""
    try:
        packed: bytes = msgpack.packb(values)
    except (ValueError, OverflowError) as error:
        raise TypeError(f"a session's value cannot travel: {error}") from error
    return packed


def unpack_values(packed: bytes) -> dict[str, Any]:
    """Return the values that ``pack_values`` packed."""
    values: dict[str, Any] = msgpack.unpackb(packed, strict_map_key=False)
    return values


class Session(MutableMapping[str, Any]):
    """A client's session as one request sees it: the frontend's state at the moment the request was taken.

    A mapping of text to values that msgpack can pack. Changes stay with this request until ``push`` or ``push_all``;
    a value that cannot travel raises TypeError when it is set. ``local`` is for what never travels (a timer, say).
    """

    __slots__ = ("_changed", "_local", "_packed", "_port", "_values", "frontend_id", "id", "uid")

    def __init__(self, session_id: int, frontend_id: str, uid: str | None, packed: bytes, port: SessionPort) -> None:
        self.id = session_id
        self.frontend_id = frontend_id
        self.uid = uid
        self._packed = packed
        self._values: dict[str, Any] | None = None
        self._changed = False
        self._local: dict[str, Any] | None = None
        self._port = port

    @property
    def local(self) -> dict[str, Any]:
        """Values of this request alone, of any kind; never packed, never pushed."""
        if self._local is None:
            self._local = {}
        return self._local

    @property
    def packed(self) -> bytes:
        """The values as they travel, with what this request changed."""
        return pack_values(self._mapping()) if self._changed else self._packed

    async def bind(self, uid: str | int) -> None:
        """Give the session its user; returns when the frontend has done so. Integers are converted to text.

        With ``single_session`` the frontend kicks the user's earlier session. Raises NotFound when the session is
        closed, Conflict when it is bound to another uid, ValueError for an empty uid.
        """
        name = uid_text(uid)
        await self._call("bind", name)
        self.uid = name

    async def unbind(self) -> None:
        """Take the user off the session. Raises NotFound when it is closed or has no user."""
        await self._call("unbind", self.uid)
        self.uid = None

    async def push(self, *keys: str) -> None:
        """Send these keys' values, or their absence, to the frontend, for every later request to see.

        Concurrent pushes of one key: the last one wins (pomelo's rule). Raises NotFound when the session is closed.
        """
        values = self._mapping()
        changed = {key: values[key] for key in keys if key in values}
        # Packed here: on the own frontend too, what changes afterwards stays with this request.
        await self._call("push", [pack_values(changed), [key for key in keys if key not in values]])

    async def push_all(self) -> None:
        """Send every value to the frontend, for every later request to see; what was deleted here goes there too."""
        await self._call("push_all", pack_values(self._mapping()))

    async def kick(self, reason: str = "kick") -> None:
        """Close the client's connection after telling it ``reason``. A session already gone is success."""
        await self._call("kick", reason)

    def on_closed(self, callback: Closed) -> None:
        """Call ``callback(session, reason)`` once when the connection closes; plain or async, on this server.

        Where it closed already the callback comes soon. Raises Unavailable when the frontend cannot be asked.

        The reasons, of this and of the app's ``on_close``, are texts, where pomelo's are texts or WebSocket codes:
        "client closed", "connection lost: ...", "heartbeat timeout", "idle timeout", "slow consumer" (it does not
        read), "message too large ...", "bad package ...", "bad frame ...", "server closed"; "kick: " with the reason
        given to a kick, with "logged in elsewhere" (``single_session``), "too many messages" (``rate``) or "server
        stopping"; "frontend lost" where its server died, "closed before" where it was closed when asked for.
        """
        self._port.watch_closed(self, callback)

    async def _call(self, operation: str, argument: Any) -> Any:
        return await self._port.session_call(self.frontend_id, operation, self.id, argument)

    def _mapping(self) -> dict[str, Any]:
        if self._values is None:
            self._values = unpack_values(self._packed) if self._packed else {}
        return self._values

    def get(self, key: str, default: Any = None) -> Any:
        """Return a value, or ``default`` where the session has none of that key."""
        return self._mapping().get(key, default)

    def __getitem__(self, key: str) -> Any:
        return self._mapping()[key]

    def __setitem__(self, key: str, value: Any) -> None:
        pack_values({key: value})
        self._changed = True
        self._mapping()[key] = value

    def __delitem__(self, key: str) -> None:
        del self._mapping()[key]
        self._changed = True

    def __iter__(self) -> Iterator[str]:
        return iter(self._mapping())

    def __len__(self) -> int:
        return len(self._mapping())

    # A session is itself, not its values: two users with equal values are not equal, and an empty one is not false.
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"<Session {self.id} uid={self.uid!r} on {self.frontend_id}>"


def uid_text(uid: str | int) -> str:
    """Return a uid as the text it is everywhere else.

    Raises ValueError when it is empty, no text or integer, or text that UTF-8 does not have (half of a surrogate pair).
    """
    if isinstance(uid, bool) or not isinstance(uid, (str, int)) or uid == "":
        raise ValueError(f"a uid is text or an integer, and not empty: {uid!r}")
    text = str(uid)
    if not text.isascii():
        text.encode()  # UnicodeEncodeError is a ValueError; nothing that travels could carry it
    return text
