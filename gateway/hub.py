"""What the connections of one listener share."""

from __future__ import annotations

import asyncio
import math
import ssl
from typing import TYPE_CHECKING, Any, Protocol

from gateway.acceptor import Acceptor
from gateway.connection import Terms
from gateway.dictionary import RouteDictionary
from gateway.limits import Limits
from gateway.lobby import Lobby
from gateway.networks import Networks
from gateway.outbox import Outbox
from gateway.wheel import Timed, TimerWheel

if TYPE_CHECKING:
    from gateway.client import Client
    from gateway.guest import Guest
    from gateway.http import Site

__all__ = ["Entry", "Hub"]

# Connections beyond the limit that may stand at the door at a time, to be answered 503 or with a health report.
SPARE_CONNECTIONS = 64
CROWDED_OUT = "crowded out"


class Entry(Timed, Protocol):
    """A connection, as the hub keeps it."""

    def abort(self, reason: str) -> None:
        """Drop the connection at once."""


class Hub:
    """One object for a whole listener, so that a connection holds one reference instead of ten.

    `guests` are TCP connections that have not said yet what they want, or that get an HTTP answer; `wires` are those of
    clients until they are gone, and UDP peers; `clients` are those of them that are not closed. All whose handshake is
    not finished, guests and wires, stand in the `lobby` too. `idle` as for `Terms`.
    Must be made on the running loop.
    """

    def __init__(
        self,
        acceptor: Acceptor,
        *,
        limits: Limits,
        dictionary: RouteDictionary | None,
        site: Site,
        name: str,
        origins: list[str | None] | None,
        trusted: Networks,
        denied: Networks,
        tls: ssl.SSLContext | None = None,
        idle: float = math.inf,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.clock = self.loop.time
        self.acceptor = acceptor
        self.limits = limits
        self.terms = Terms(limits, dictionary, idle)
        self.site = site
        self.name = name
        self.origins = origins
        self.tls = tls
        self.trusted = trusted
        self.denied = denied
        self.wheel = TimerWheel(limits.tick, self.clock, self.loop.call_at)
        self.outbox = Outbox(self.loop.call_soon)
        self.clients: set[Client] = set()
        self.guests: set[Guest] = set()
        self.wires: set[Entry] = set()
        # More than there may be connections would let a crowd of strangers keep everybody out.
        most = min(limits.handshakes, limits.connections)
        self.lobby: Lobby[Entry] = Lobby(most)
        #: Those in the lobby that are wires, and so count as connections. One more, for it enters here first.
        self.unready: Lobby[Entry] = Lobby(most + 1)
        #: Whether nobody may come in any more.
        self.shut = False
        self.hooks: set[asyncio.Task[Any]] = set()
        #: HTTP answers being read from disk or still on their way.
        self.answers = 0
        self._drained: asyncio.Future[None] | None = None

    @property
    def crowded_out(self) -> int:
        """How many had to make room for others before their handshake was finished."""
        return self.lobby.crowded_out + self.unready.crowded_out

    @property
    def refusal(self) -> str:
        """Why no further client may come in, for the log."""
        return "the server is drained" if self.shut else "too many connections"

    @property
    def crowded(self) -> bool:
        """Whether not even an HTTP answer is affordable."""
        return len(self.wires) + len(self.guests) >= self.limits.connections + SPARE_CONNECTIONS

    def admits(self) -> bool:
        """Tell whether one more client may come in; where all places are taken a stranger loses its own."""
        return not self.shut and (len(self.wires) < self.limits.connections or self._drop(self.unready.first_out()))

    def wait(self, entry: Entry) -> None:
        """Count a connection among those whose handshake is not finished; drop another if they are too many."""
        if entry in self.wires:
            self.unready.enter(entry)
        self._drop(self.lobby.enter(entry))

    def advance(self, entry: object) -> None:
        """Note that a connection got further in its handshake."""
        self.lobby.advance(entry)
        self.unready.advance(entry)

    def through(self, entry: object) -> None:
        """Note that a connection does not wait any more: its handshake is finished, or it is for us to go on."""
        self.lobby.leave(entry)
        self.unready.leave(entry)

    def make_room(self) -> bool:
        """Drop the connection whose handshake has got no further for longest; return whether there is one."""
        return self._drop(self.lobby.first_out())

    def leave(self, entry: Entry) -> None:
        """Forget a connection that is gone, or that has become something else."""
        self.wheel.cancel(entry)
        self.through(entry)
        self.guests.discard(entry)
        self.wires.discard(entry)
        if not self.guests:
            # A set that emptied keeps the table of its fullest time until it is told.
            self.guests.clear()
        if self._drained is not None and not self.wires and not self.guests and not self._drained.done():
            self._drained.set_result(None)

    def abort(self, reason: str) -> None:
        """Drop every connection at once."""
        for entry in (*self.guests, *self.wires):
            entry.abort(reason)

    async def drained(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds until every connection is gone; return whether that is so."""
        if not self.wires and not self.guests:
            return True
        self._drained = self.loop.create_future()
        done, _ = await asyncio.wait((self._drained,), timeout=timeout)
        return bool(done)

    def _drop(self, entry: Entry | None) -> bool:
        if entry is None:
            return False
        entry.abort(CROWDED_OUT)
        return True
