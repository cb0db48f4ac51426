"""The WebSocket of one client, under asyncio.

Plain data frames are read by `FrameReader`; the rest, control frames and fragments, by the I/O-free core of the
`websockets` library, which is only made when the first such frame comes: most clients send their first one when they
leave.
"""

from __future__ import annotations

import asyncio
import logging
import math

from websockets.frames import Frame as WebSocketFrame
from websockets.frames import Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

from gateway.client import TOO_BIG, Client
from gateway.frame import Frame, FrameReader, websocket_frame
from gateway.hub import Hub
from gateway.package import HEADER_SIZE

__all__ = ["WebSocket", "core_logger"]

logger = logging.getLogger(__name__)

# The core has a line or more for every frame; what it says is said by us, once a connection. Its errors still come
# through.
core_logger = logging.getLogger(f"{__name__}.core")
core_logger.setLevel(logging.ERROR)

# Seconds that a client gets to answer our close frame. Closing at once would reset the connection under whatever it
# is sending, and the reset may overtake the KICK.
CLOSE_TIMEOUT = 2.0

_DATA_FRAMES = (Opcode.TEXT, Opcode.BINARY, Opcode.CONT)


class WebSocket(asyncio.Protocol):
    """Moves bytes between one socket and one Client, by RFC 6455. Counts in `hub.sockets` until the socket is gone.

    `accepted` is when the TCP connection was accepted, by the loop's clock.
    """

    __slots__ = ("_closing_until", "_core", "_hub", "_reader", "_size", "_transport", "bucket", "client", "pending")

    def __init__(self, hub: Hub, transport: asyncio.Transport, address: tuple[str, int], accepted: float) -> None:
        self._hub = hub
        self._transport = transport
        self._core: ServerProtocol | None = None
        self._reader = FrameReader(hub.limits.message_size + HEADER_SIZE)
        self._closing_until = 0.0
        self._size = 0
        self.bucket = 0
        self.pending: list[bytes] | None = None
        self.client = Client(hub, self, address, accepted)
        hub.sockets.add(self)
        hub.wheel.schedule(self, self.client.deadline)

    # asyncio's side.

    def data_received(self, data: bytes) -> None:
        """Take what came from the socket."""
        now = self._hub.clock()
        client = self.client
        client.heard(now)
        for plain, chunk in self._reader.feed(data):
            if plain:
                client.receive(chunk, now)
            elif not self._transport.is_closing():
                self._receive_unusual(chunk, now)

    def eof_received(self) -> None:
        """Note that the client has ended its side; a client that leaves without a closing handshake."""
        self.client.lost("client closed")
        self._hang_up()

    def connection_lost(self, error: Exception | None) -> None:
        """Note that the socket is gone."""
        self.pending = None
        self._hub.leave(self)
        self.client.lost("client closed" if error is None else f"connection lost: {error}")

    # The client's side: see `gateway.client.Wire`.

    def send_package(self, package: bytes) -> None:
        """Queue one package, in a frame of its own."""
        self._send(websocket_frame(package))

    def send_frame(self, frame: Frame) -> None:
        """Queue a frame that many clients get."""
        self._send(frame.websocket)

    def close(self, code: int) -> None:
        """Start the closing handshake (RFC 6455 section 7.1.2) behind everything that is queued."""
        if self._closing_until or self._transport.is_closing():
            return
        core = self._get_core()
        core.send_close(code)
        self._closing_until = self._hub.clock() + CLOSE_TIMEOUT
        self._hub.wheel.schedule(self, self._closing_until)
        self._send_from(core)

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
        """Hand the bytes of this turn to the socket, unless its client has too many waiting already."""
        self._size = 0
        transport = self._transport
        if transport.get_write_buffer_size() + len(data) > self._hub.limits.outgoing:
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
        elif self._size <= self._hub.limits.outgoing:
            self.pending.append(chunk)
        # What is over the limit within one turn is not even kept; `write` will find it so and abort.
        self._size += len(chunk)

    def _get_core(self) -> ServerProtocol:
        core = self._core
        if core is None:
            limit = self._hub.limits.message_size + HEADER_SIZE
            core = self._core = ServerProtocol(state=State.OPEN, max_size=limit, logger=core_logger)
        return core

    def _receive_unusual(self, data: bytes, now: float) -> None:
        core = self._get_core()
        core.receive_data(data)
        for event in core.events_received():
            assert isinstance(event, WebSocketFrame)
            if event.opcode in _DATA_FRAMES:
                self.client.receive(bytes(event.data), now)
            elif event.opcode is Opcode.CLOSE:
                self.client.lost("client closed")
        if core.parser_exc is not None:
            sent = core.close_sent
            too_big = sent is not None and sent.code == TOO_BIG
            self.client.lost("message too large" if too_big else f"bad frame: {core.parser_exc}")
        self._send_from(core)

    def _send_from(self, core: ServerProtocol) -> None:
        """Queue what the core wants to say; an empty piece means that the TCP connection is to be closed after it."""
        for piece in core.data_to_send():
            if piece:
                self._send(piece)
            else:
                self._hang_up()

    def _hang_up(self) -> None:
        """Close the TCP connection once everything is sent; if the peer reads nothing, by force after a while."""
        self._closing_until = self._hub.clock() + CLOSE_TIMEOUT
        self._hub.wheel.schedule(self, self._closing_until)
        chunks, self.pending = self.pending, None
        if chunks is not None:
            self._transport.write(b"".join(chunks))
        self._transport.close()
