"""The users of the whole cluster, from any server, without knowing frontends (pomelo's status plugin)."""

from collections.abc import Awaitable, Collection, Iterable
from typing import Any, Protocol

import msgpack

from handlers.body import encode_body
from handlers.errors import NotFound, PummeloError
from handlers.fanout import outcomes, pack_options
from handlers.link import PUSH_TO, Entry
from handlers.session import uid_text
from handlers.store import Store

__all__ = ["Users"]


class Port(Protocol):
    """The server that asks."""

    @property
    def id(self) -> str:
        """Its id."""

    def ask(self, server_id: str, kind: int, fields: Entry) -> Awaitable[bytes]:
        """Send an entry to a frontend and return its answer. Raises its error, Unavailable, NotFound or TimedOut."""

    async def session_call(self, frontend_id: str, operation: str, session_id: int, argument: Any) -> Any:
        """Have a frontend carry out an operation on its sessions. Raises as ``ask`` does."""

    def own_users(self) -> tuple[Collection[str], bool]:
        """Return the users connected to this server, and whether none of them is connected to another, too."""


class Users:
    """Finds users, pushes to them and kicks them, wherever they are connected. Behind the methods of ``Server``."""

    def __init__(self, port: Port, store: Store) -> None:
        self._port = port
        self._store = store

    async def where(self, uid: str | int) -> list[str]:
        """Return the ids of the frontends at which a user has a session, sorted."""
        name = uid_text(uid)
        return (await self._places([name])).get(name, [])

    async def is_online(self, uids: Iterable[str | int]) -> dict[str, bool]:
        """Return for each user whether it has a session somewhere; the directory is asked about strangers only."""
        names = _names(uids)
        own, _ = self._port.own_users()
        strangers = [name for name in names if name not in own]
        found = await self._store.where(strangers) if strangers else {}
        return {name: name in own or name in found for name in names}

    async def push_to(self, uids: Iterable[str | int], route: str, message: Any, *, options: Any = None) -> list[str]:
        """Send a message to users on all their frontends; returns those of them that were reached at none."""
        body, more = encode_body(message), pack_options(options)
        names = _names(uids)
        groups: dict[str, list[str]] = {}
        for name, places in (await self._places(names)).items():
            for frontend_id in places:
                groups.setdefault(frontend_id, []).append(name)
        asks = [self._port.ask(f, PUSH_TO, (group, route, body, *more)) for f, group in groups.items()]
        reached: set[str] = set()
        for group, outcome in zip(groups.values(), await outcomes(asks), strict=True):
            if not isinstance(outcome, PummeloError):
                reached.update(set(group) - set(msgpack.unpackb(outcome)))
        return [name for name in names if name not in reached]

    async def kick(self, uid: str | int, reason: str) -> int:
        """Close every session of a user; returns how many there were."""
        name = uid_text(uid)
        places = (await self._places([name])).get(name, [])
        asks = [self._port.session_call(frontend_id, "kick_uid", 0, [name, reason]) for frontend_id in places]
        kicked = 0
        for outcome in await outcomes(asks):
            if not isinstance(outcome, PummeloError):
                kicked += outcome
            elif not isinstance(outcome, NotFound):  # a frontend that is no more has no session
                raise outcome
        return kicked

    async def _places(self, names: list[str]) -> dict[str, list[str]]:
        """Return where users are; where sessions are single, those of this server are asked of nobody."""
        own, alone = self._port.own_users()
        known = {name: [self._port.id] for name in names if name in own} if alone else {}
        asked = [name for name in names if name not in known]
        return known | (await self._store.where(asked) if asked else {})


def _names(uids: Iterable[str | int]) -> list[str]:
    """Return uids as text, each once."""
    if isinstance(uids, str):
        raise TypeError(f"a list of uids is expected, not the text {uids!r}")
    return list(dict.fromkeys(map(uid_text, uids)))
