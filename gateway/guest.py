"""A TCP connection that is no client yet."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable

from gateway.hub import Hub

__all__ = ["Guest"]

logger = logging.getLogger(__name__)


class Guest(asyncio.Protocol):
    """Who is in the house without having been let in. Counts in `hub.guests`, and is dropped at its deadline.

    `accepted` is when the TCP connection was accepted, by the loop's clock.
    """

    __slots__ = ("_accepted", "_address", "_deadline", "_head", "_hub", "_transport", "bucket")

    _transport: asyncio.Transport

    def __init__(self, hub: Hub, address: tuple[str, int], accepted: float) -> None:
        self._hub = hub
        self._address = address
        self._accepted = accepted
        self._deadline = accepted + hub.limits.handshake_timeout
        self._head = bytearray()
        self.bucket = 0

    def connection_lost(self, error: Exception | None) -> None:
        """Note that the socket is gone."""
        self._hub.leave(self)

    def due(self, now: float) -> float:
        """Do what is due; see `gateway.wheel.Timed`."""
        if now < self._deadline:
            return self._deadline
        self.abort("handshake timeout")
        return math.inf

    def abort(self, reason: str) -> None:
        """Drop the connection at once."""
        logger.debug("%s: drop %s:%s: %s", self._hub.name, *self._address, reason)
        self._transport.abort()

    def dismiss(self) -> None:
        """Drop the connection, since nothing new is served any more."""
        self.abort("server closed")

    def _stay(self) -> None:
        """Count as a guest from now on."""
        self._hub.guests.add(self)
        self._hub.wheel.schedule(self, self._deadline)
        self._hub.wait(self)

    def _hand_over(self, kind: Callable[..., asyncio.Protocol], data: bytes) -> None:
        """Leave the connection to a protocol of another kind, with what came so far."""
        self._hub.through(self)  # before the other enters: it is one connection
        protocol = kind(self._hub, self._transport, self._address, self._accepted)
        self._hub.leave(self)
        self._transport.set_protocol(protocol)
        if data:
            protocol.data_received(data)
