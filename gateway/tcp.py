"""A client's TCP connection under asyncio: what WebSockets and plain streams of packages have in common."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import struct
from abc import ABC, abstractmethod
from socket import SO_LINGER, SOL_SOCKET

from gateway.client import Client
from gateway.connection import State
from gateway.group import TURN, Batch
from gateway.hub import Hub
from gateway.values import Frame

__all__ = ["TcpWire"]

logger = logging.getLogger(__name__)

# Seconds that a client gets to close after us. Closing at once would reset the connection under whatever it is
# sending, and the reset may overtake the KICK.
CLOSE_TIMEOUT = 2.0
# What closing does with bytes that the peer has not taken: linger for no time, so drop them and reset (socket(7)).
RESET = struct.pack("ii", 1, 0)


class TcpWire(asyncio.Protocol, ABC):
    """Moves bytes between one socket and one Client. Counts in `hub.wires` until the socket is gone.

    `accepted` is when the TCP connection was accepted, by the loop's clock. What subclasses say is how packages stand
    in the stream of bytes: `data_received`, and the `Wire` that the client writes to.
    """

    __slots__ = (
        "_closing_until",
        "_hastened",
        "_hub",
        "_size",
        "_transport",
        "batch",
        "bucket",
        "client",
        "pending",
        "queued",
    )

    def __init__(self, hub: Hub, transport: asyncio.Transport, address: tuple[str, int], accepted: float) -> None:
        self._hub = hub
        self._transport = transport
        self._closing_until = 0.0
        self._size = 0
        self._hastened = False
        self.queued = False
        self.bucket = 0
        self.pending: list[bytes] | None = None
        #: What it shares `pending` with, None for nobody.
        self.batch: Batch | None = None
        self.client = Client(hub, self, address, accepted, stream_wire=self)
        hub.wires.add(self)
        hub.wheel.schedule(self, self.client.deadline)
        hub.wait(self)

    # asyncio's side.

    def eof_received(self) -> None:
        """Note that the client has ended its side; a client that leaves without a word."""
        self.client.lost("client closed")
        self._hang_up()

    def connection_lost(self, error: Exception | None) -> None:
        """Note that the socket is gone."""
        self._take_pending()
        self._hub.leave(self)
        self.client.lost("client closed" if error is None else f"connection lost: {error}")
        self.client.detach()

    # The client's side: see `gateway.client.Wire`.

    @abstractmethod
    def send_package(self, package: bytes) -> None:
        """Queue one package."""

    @staticmethod
    @abstractmethod
    def chunk_of(frame: Frame) -> bytes:
        """Return a frame's bytes as they stand in the stream."""

    @abstractmethod
    def send_frame(self, frame: Frame) -> None:
        """Queue a frame that many clients get."""

    @property
    def waiting(self) -> int:
        """Bytes queued that the socket has not taken."""
        pending = self._size if self.batch is None else self.batch.size
        return self._transport.get_write_buffer_size() + pending

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

    def share(self, batch: Batch) -> None:
        """Have what the batch holds pending from now on; it begins with what was pending before."""
        if self.batch is not None:
            self.batch.leave(self.client)
        elif self.pending is None:
            self._hub.outbox.add(self)
        self.pending, self.batch = batch.chunks, batch
        batch.members += 1

    def stand_apart(self) -> None:
        """Leave the batch, if any, with what is pending."""
        batch = self.batch
        if batch is not None:
            self.pending, self._size, self.batch = batch.chunks.copy(), batch.size, None
            batch.leave(self.client)

    def write(self, data: bytes) -> None:
        """Hand what was pending to the socket, unless its client does not read and has too many waiting.

        One that has read everything gets what was made for it, though that alone be more than may wait.
        """
        if self.batch is None:
            size = self._size
        else:
            size = self.batch.size
            self.batch.end()
            self.batch = None
        self._size, self._hastened = 0, False
        transport = self._transport
        waiting = transport.get_write_buffer_size()
        if size > TURN or (waiting and waiting + len(data) > self._hub.limits.outgoing):
            self.abort("slow consumer")
        else:
            transport.write(data)

    def abort(self, reason: str) -> None:
        """Drop the connection at once, with all that is queued, here and in the kernel.

        Without the reset the kernel would keep what it has yet to send, up to 4 MB, for minutes after the connection is
        gone here.
        """
        if not self._transport.is_closing():
            # Strangers could fill a log.
            if self.client.state is State.WORKING:
                logger.info("%s: abort %s:%s: %s", self._hub.name, *self.client.address, reason)
            # Not later: the number of a closed socket may be another's. macOS refuses it where the peer has reset.
            if (socket := self._transport.get_extra_info("socket")) is not None:
                with contextlib.suppress(OSError):
                    socket.setsockopt(SOL_SOCKET, SO_LINGER, RESET)
        self._take_pending()
        self._transport.abort()
        self.client.lost(reason)

    def _send_first(self, chunk: bytes) -> None:
        """Queue what the client waits for, and with it all that is queued before."""
        if not self._hastened:
            self._hastened = True
            self._hub.outbox.hasten(self)
        self._send(chunk)

    def _send(self, chunk: bytes) -> None:
        if self.batch is not None:
            self.stand_apart()
        if self.pending is None:
            self.pending = [chunk]
            if not self._hastened:
                self._hub.outbox.add(self)
        elif self._size <= TURN:
            self.pending.append(chunk)
        # What is over that is not even kept; `write` will find it so and abort.
        self._size += len(chunk)

    def _take_pending(self) -> list[bytes]:
        """Return what is queued, and forget it."""
        chunks = self.pending or []
        if self.batch is not None:
            self.batch.leave(self.client)
        self.pending = self.batch = None
        self._size, self._hastened = 0, False
        return chunks

    def _linger(self) -> None:
        """Give the client a while to close after us."""
        self._closing_until = self._hub.clock() + CLOSE_TIMEOUT
        self._hub.wheel.schedule(self, self._closing_until)

    def _write_pending(self) -> None:
        """Hand over what is queued now, since the end of our side is to follow it."""
        if chunks := self._take_pending():
            self._transport.write(b"".join(chunks))

    def _hang_up(self) -> None:
        """Close the TCP connection once everything is sent; if the peer reads nothing, by force after a while."""
        if not self._closing_until:
            self._linger()
        self._write_pending()
        self._transport.close()
