"""The WebSocket of one client, under asyncio.

Plain data frames are read by `FrameReader`; the rest, control frames and fragments, by the I/O-free core of the
`websockets` library, which is only made when the first such frame comes: most clients send their first one when they
leave.
"""

from __future__ import annotations

import asyncio
import logging

from websockets.frames import Frame as WebSocketFrame
from websockets.frames import Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

from gateway.client import TOO_BIG
from gateway.frame import FrameReader, websocket_frame
from gateway.hub import Hub
from gateway.package import HEADER_SIZE
from gateway.tcp import TcpWire
from gateway.values import Frame

__all__ = ["WebSocket", "core_logger", "dissolve"]

# The core has a line or more for every frame; what it says is said by us, once a connection. Its errors still come
# through.
core_logger = logging.getLogger(f"{__name__}.core")
core_logger.setLevel(logging.ERROR)

_DATA_FRAMES = (Opcode.TEXT, Opcode.BINARY, Opcode.CONT)


def dissolve(core: ServerProtocol) -> None:
    """Let go of what a core that is done with holds of itself: its generator does, and the errors that this met."""
    core.parser.close()
    core.handshake_exc = core.parser_exc = None


class WebSocket(TcpWire):
    """The packages of one client in messages of RFC 6455; each may hold several, or a part of one."""

    __slots__ = ("_core", "_reader")

    def __init__(self, hub: Hub, transport: asyncio.Transport, address: tuple[str, int], accepted: float) -> None:
        super().__init__(hub, transport, address, accepted)
        self._core: ServerProtocol | None = None
        self._reader = FrameReader(hub.limits.message_size + HEADER_SIZE)

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

    def connection_lost(self, error: Exception | None) -> None:
        """Note that the socket is gone."""
        super().connection_lost(error)
        if self._core is not None:
            dissolve(self._core)
            self._core = None

    def send_package(self, package: bytes) -> None:
        """Queue one package, in a frame of its own."""
        self._send_first(websocket_frame(package))

    @staticmethod
    def chunk_of(frame: Frame) -> bytes:
        """Return a frame's bytes as they stand in the stream."""
        return frame.websocket

    def send_frame(self, frame: Frame) -> None:
        """Queue a frame that many clients get."""
        self._send(frame.websocket)

    def close(self, code: int) -> None:
        """Start the closing handshake (RFC 6455 section 7.1.2) behind everything that is queued."""
        if self._closing_until or self._transport.is_closing():
            return
        core = self._get_core()
        core.send_close(code)
        self._linger()
        self._send_from(core)

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
                self._send_first(piece)
            else:
                self._hang_up()
