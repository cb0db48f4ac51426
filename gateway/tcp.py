"""A client's TCP connection under asyncio: what WebSockets and plain streams of packages have in common."""

from __future__ import annotations

import asyncio
import logging
import math
from abc import ABC, abstractmethod

from gateway.client import Client
from gateway.frame import Frame
from gateway.hub import Hub

__all__ = ["TcpWire"]

logger = logging.getLogger(__name__)

# Seconds that a client gets to close after us. Closing at once would reset the connection under whatever it is
# sending, and the reset may overtake the KICK.
CLOSE_TIMEOUT = 2.0
# Bytes that one turn of the loop may make for one client that has read everything before: two of the largest packages.
TURN = 32 << 20


class TcpWire(asyncio.Protocol, ABC):
    """Moves bytes between one socket and one Client. Counts in `hub.wires` until the socket is gone.

    `accepted` is when the TCP connection was accepted, by the loop's clock. What subclasses say is how packages stand
    in the stream of bytes: `data_received`, and the `Wire` that the client writes to.
    """

    __slots__ = ("_closing_until", "_hub", "_size", "_transport", "bucket", "client", "pending")

    def __init__(self, hub: Hub, transport: asyncio.Transport, address: tuple[str, int], accepted: float) -> None:
        self._hub = hub
        self._transport = transport
        self._closing_until = 0.0
        self._size = 0
        self.bucket = 0
        self.pending: list[bytes] | None = None
        self.client = Client(hub, self, address, accepted)
        hub.wires.add(self)
        hub.wheel.schedule(self, self.client.deadline)

    # asyncio's side.

    def eof_received(self) -> None:
        """Note that the client has ended its side; a client that leaves without a word."""
        self.client.lost("client closed")
        self._hang_up()

    def connection_lost(self, error: Exception | None) -> None:
        """Note that the socket is gone."""
        self.pending = None
        self._hub.leave(self)
        self.client.lost("client closed" if error is None else f"connection lost: {error}")

    # The client's side: see `gateway.client.Wire`.

    @abstractmethod
    def send_package(self, package: bytes) -> None:
        """Queue one package."""

    @abstractmethod
    def send_frame(self, frame: Frame) -> None:
        """Queue a frame that many clients get."""

    @property
    def waiting(self) -> int:
        """Bytes queued that the socket has not taken."""
        return self._transport.get_write_buffer_size() + (self._size if self.pending is not None else 0)

    @abstractmethod
    def close(self, code: int) -> None:
        """Close in order."""

    def wake(self, deadline: float) -> None:
        """Look at the client's deadlines at this time."""
        self._hub.wheel.schedule(self, deadline)

    # The wheel's and the outbox's side.

    def due(self, now: float) -> float:
        """Do what is due; see `gateway.wheel.Timed`."""
        if not self._closing_until:
            return self.client.tick(now)
        if now < self._closing_until:
            return self._closing_until
        self._transport.abort()
        return math.inf

    def write(self, data: bytes) -> None:
        """Hand the bytes of this turn to the socket, unless its client does not read and has too many waiting.

        One that has read everything gets what a turn made for it, though that alone be more than may wait.
        """
        size, self._size = self._size, 0
        transport = self._transport
        waiting = transport.get_write_buffer_size()
        if size > TURN or (waiting and waiting + len(data) > self._hub.limits.outgoing):
            self.abort("slow consumer")
        else:
            transport.write(data)

    def abort(self, reason: str) -> None:
        """Drop the connection at once, with all that is queued."""
        if not self._transport.is_closing():
            logger.info("%s: abort %s:%s: %s", self._hub.name, *self.client.address, reason)
        self.pending = None
        self._transport.abort()
        self.client.lost(reason)

    def _send(self, chunk: bytes) -> None:
        if self.pending is None:
            self.pending = [chunk]
            self._hub.outbox.add(self)
        elif self._size <= TURN:
            self.pending.append(chunk)
        # What is over that within one turn is not even kept; `write` will find it so and abort.
        self._size += len(chunk)

    def _linger(self) -> None:
        """Give the client a while to close after us."""
        self._closing_until = self._hub.clock() + CLOSE_TIMEOUT
        self._hub.wheel.schedule(self, self._closing_until)

    def _write_pending(self) -> None:
        """Hand over what is queued now, since the end of our side is to follow it."""
        chunks, self.pending = self.pending, None
        if chunks is not None:
            self._transport.write(b"".join(chunks))

    def _hang_up(self) -> None:
        """Close the TCP connection once everything is sent; if the peer reads nothing, by force after a while."""
        self._linger()
        self._write_pending()
        self._transport.close()
