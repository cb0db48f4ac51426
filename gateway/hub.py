"""What the connections of one listener share."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from gateway.acceptor import Acceptor
from gateway.connection import Terms
from gateway.dictionary import RouteDictionary
from gateway.limits import Limits
from gateway.outbox import Outbox
from gateway.wheel import TimerWheel

if TYPE_CHECKING:
    from gateway.client import Client
    from gateway.door import Door
    from gateway.http import Site
    from gateway.websocket import WebSocket

__all__ = ["Hub"]

# Connections beyond the limit that may stand at the door at a time, to be answered 503 or with a health report.
SPARE_CONNECTIONS = 64


class Hub:
    """One object for a whole listener, so that a connection holds one reference instead of ten.

    `doors` are connections that have not said yet what they want, or that get an HTTP answer; `sockets` are
    WebSockets until their TCP connection is gone; `clients` are those of them that are not closed. Must be made on
    the running loop.
    """

    def __init__(
        self,
        acceptor: Acceptor,
        *,
        limits: Limits,
        dictionary: RouteDictionary | None,
        site: Site,
        name: str,
        origins: list[str] | None,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.clock = self.loop.time
        self.acceptor = acceptor
        self.limits = limits
        self.terms = Terms(limits, dictionary)
        self.site = site
        self.name = name
        self.origins = origins
        self.wheel = TimerWheel(limits.tick, self.clock, self.loop.call_at)
        self.outbox = Outbox(self.loop.call_soon)
        self.clients: set[Client] = set()
        self.doors: set[Door] = set()
        self.sockets: set[WebSocket] = set()
        self.hooks: set[asyncio.Task[Any]] = set()
        #: HTTP answers being read from disk or still on their way.
        self.answers = 0
        self._drained: asyncio.Future[None] | None = None

    @property
    def full(self) -> bool:
        """Whether no further client may come in."""
        return len(self.sockets) >= self.limits.connections

    @property
    def crowded(self) -> bool:
        """Whether not even an HTTP answer is affordable."""
        return len(self.sockets) + len(self.doors) >= self.limits.connections + SPARE_CONNECTIONS

    def leave(self, protocol: Door | WebSocket) -> None:
        """Forget a connection whose TCP connection is gone, or that has become something else."""
        self.wheel.cancel(protocol)
        self.doors.discard(protocol)
        self.sockets.discard(protocol)
        if self._drained is not None and not self.sockets and not self.doors and not self._drained.done():
            self._drained.set_result(None)

    def abort(self, reason: str) -> None:
        """Drop every connection at once."""
        for door in list(self.doors):
            door.abort(reason)
        for websocket in list(self.sockets):
            websocket.abort(reason)

    async def drained(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds until every connection is gone; return whether that is so."""
        if not self.sockets and not self.doors:
            return True
        self._drained = self.loop.create_future()
        done, _ = await asyncio.wait((self._drained,), timeout=timeout)
        return bool(done)
