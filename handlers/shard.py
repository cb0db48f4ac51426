"""A directory server: a shard of the embedded store. What it does with the entries of frontends and of who asks.

A frontend whose link went down is given a moment to come back and tell the whole again, so that a broken link makes
nobody leave; then what it told is forgotten. A shard that begins a later life answers nobody until the frontends that
it knows of have told it all.
"""

import asyncio
import logging
from collections.abc import Iterable
from typing import Any, Protocol

import msgpack

from handlers.directory import Directory, Loser
from handlers.errors import NotFound
from handlers.link import DISPLACED, PRESENCE, Entry, Link
from handlers.store import GREET, Diff, Fact, Scope

__all__ = ["Shard", "ShardPort", "pack_diff", "unpack_diff"]

logger = logging.getLogger(__name__)

GRACE = 0.5
"""Seconds for a frontend to come back whose link went down; hellos are tried after 0.1 and 0.3 s."""
SETTLE = 2.0
"""Seconds for which a shard waits at most for frontends to tell it all."""


class ShardPort(Protocol):
    """What carries a shard's words: its server."""

    id: str

    def tell_if_up(self, server_id: str, kind: int, fields: Entry) -> None:
        """Queue an entry for a server, unless its link is down."""


class Shard:
    """The work of a directory server. Everything here runs on the server's loop."""

    def __init__(self, port: ShardPort, presence_interval: float) -> None:
        self.directory = Directory(self._touched)
        self._port = port
        self._interval = presence_interval
        self._telling: dict[str, list[Fact]] = {}
        self._leaving: dict[str, asyncio.TimerHandle] = {}
        self._dirty: set[str] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._awaited: set[str] = set()
        self._held: list[tuple[Link, int, str, Any]] = []
        self._settling: asyncio.TimerHandle | None = None

    # -- life

    def start(self, frontend_ids: set[str]) -> None:
        """Begin; questions wait until these frontends have told all, at most ``SETTLE`` seconds."""
        self._awaited = set(frontend_ids)
        self._settling = asyncio.get_running_loop().call_later(SETTLE, self._settled)
        self._heard_all()

    def stop(self) -> None:
        """End every timer."""
        for timer in (self._timer, self._settling, *self._leaving.values()):
            if timer is not None:
                timer.cancel()

    def went_down(self, server_id: str) -> None:
        """Give a frontend whose link went down a moment to come back."""
        self._telling.pop(server_id, None)
        if server_id not in self._leaving:
            self._leaving[server_id] = asyncio.get_running_loop().call_later(GRACE, self._gone, server_id)

    def _gone(self, server_id: str) -> None:
        del self._leaving[server_id]
        self.directory.drop(server_id)
        self._awaited.discard(server_id)
        self._heard_all()

    # -- entries

    def told(self, link: Link, request_id: int, *fact: Any) -> None:
        """Take in a fact of a frontend."""
        if fact[0] != GREET:
            self._displace(self.directory.tell(link.peer, fact))
        elif self._settling is None:
            self._tell_everybody(link.peer, fact[1], Scope.GREETING)

    def retold(self, link: Link, request_id: int, single: bool, facts: Iterable[Fact], last: bool) -> None:
        """Take in a part of all that is so on a frontend; with the ``last`` one it counts."""
        telling = self._telling.setdefault(link.peer, [])
        telling += facts
        if not last:
            return
        del self._telling[link.peer]
        if (timer := self._leaving.pop(link.peer, None)) is not None:
            timer.cancel()
        self._displace(self.directory.retell(link.peer, single, telling))
        if self._settling is None:
            # What was told while its link was down it has not heard.
            for channel in self.directory.watched(link.peer):
                self._tell_everybody(link.peer, channel, Scope.RESET)
        self._awaited.discard(link.peer)
        self._heard_all()

    def find(self, link: Link, request_id: int, question: str, argument: Any) -> None:
        """Answer a question, once all has been told."""
        if self._settling is not None:
            self._held.append((link, request_id, question, argument))
        else:
            link.answer(request_id, 0, msgpack.packb(self._answer(question, argument)))

    def _answer(self, question: str, argument: Any) -> Any:
        match question:
            case "where":
                return self.directory.where(argument)
            case "roster":
                return self.directory.roster(argument)
            case "count":
                return self.directory.count(argument)
        raise NotFound(f"no question {question!r} to a directory")

    def _displace(self, losers: list[Loser]) -> None:
        for frontend_id, uid, until in losers:
            self._port.tell_if_up(frontend_id, DISPLACED, (uid, until))

    # -- the beginning

    def _heard_all(self) -> None:
        if not self._awaited and self._settling is not None:
            self._settled()

    def _settled(self) -> None:
        if self._settling is not None:
            self._settling.cancel()
            self._settling = None
        if self._awaited:
            logger.warning(
                "%s: these have not told who is on them: %s", self._port.id, ", ".join(sorted(self._awaited))
            )
        held, self._held = self._held, []
        for question in held:
            self.find(*question)
        # What an earlier life had gathered is lost: who watches is told everybody.
        for channel in self.directory.watched():
            self.directory.diff(channel)
            for frontend_id in self.directory.watchers(channel):
                self._tell_everybody(frontend_id, channel, Scope.RESET)

    # -- presence

    def _touched(self, channel: str) -> None:
        self._dirty.add(channel)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._interval, self._flush)

    def _flush(self) -> None:
        self._timer = None
        if self._settling is not None:
            self._dirty.clear()
            return
        dirty, self._dirty = self._dirty, set()
        for channel in dirty:
            diff = self.directory.diff(channel)
            if diff is not None:
                for frontend_id in self.directory.watchers(channel):
                    self._port.tell_if_up(frontend_id, PRESENCE, (channel, *pack_diff(diff)))

    def _tell_everybody(self, frontend_id: str, channel: str, scope: Scope) -> None:
        diff = self.directory.everybody(channel, scope)
        self._port.tell_if_up(frontend_id, PRESENCE, (channel, *pack_diff(diff)))

    def describe(self) -> dict[str, Any]:
        """Return what an operator wants to know of the shard."""
        return {"online": self.directory.online, "channels": len(self.directory.channels())}


def pack_diff(diff: Diff) -> Entry:
    """Return a diff as fields of an entry."""
    return dict(diff.joined), list(diff.left), diff.count, int(diff.scope)


def unpack_diff(fields: tuple[Any, ...]) -> Diff:
    """Return the diff that ``pack_diff`` packed."""
    joined, left, count, scope = fields
    return Diff(joined, left, count, Scope(scope))
