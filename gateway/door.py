"""The door: a TCP connection from its accept until it is known what it wants.

An upgrade on any path becomes a WebSocket, another GET is answered from `gateway.http` and closed, and anything else
is closed at once. The first bytes decide, so this is also where a plain TCP stream of packages would turn off: its
first byte is 1..5.
"""

from __future__ import annotations

import asyncio
import logging
import math
from http import HTTPStatus
from typing import cast

from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from gateway.http import HEALTH_PATH, error_answer, health_answer
from gateway.hub import Hub
from gateway.websocket import WebSocket, core_logger

__all__ = ["Door"]

logger = logging.getLogger(__name__)

METHOD = b"GET "
END_OF_HEAD = b"\r\n\r\n"
# Bytes of request line and headers: browsers send 1 KiB, with large cookies 8.
MAX_HEAD = 16 * 1024
# Seconds for an HTTP answer to be fetched, and how many may be under way: each holds a file in memory.
ANSWER_TIMEOUT = 60.0
MAX_ANSWERS = 64


class Door(asyncio.Protocol):
    """One fresh connection. Counts in `hub.doors` until it becomes a WebSocket or is gone."""

    __slots__ = ("_accepted", "_address", "_answering", "_deadline", "_head", "_hub", "_transport", "bucket")

    _transport: asyncio.Transport

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._head = bytearray()
        self._answering = False
        self._address = ("", 0)
        self._accepted = hub.clock()
        self._deadline = self._accepted + hub.limits.handshake_timeout
        self.bucket = 0

    # asyncio's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection, or drop it at once if not even a refusal is affordable."""
        # uvloop's transports are no asyncio.Transport by class, only by what they do.
        self._transport = transport = cast("asyncio.Transport", transport)
        if self._hub.crowded:
            transport.abort()
            return
        peer = transport.get_extra_info("peername")
        if peer:  # empty if the peer is gone already
            self._address = (peer[0], peer[1])
        self._hub.doors.add(self)
        self._hub.wheel.schedule(self, self._deadline)

    def data_received(self, data: bytes) -> None:
        """Collect the head of the request."""
        if self._answering:
            return
        head = self._head
        head += data
        if not head.startswith(METHOD[: len(head)]):
            self.abort("not a GET request")
            return
        end = head.find(END_OF_HEAD)
        if end >= 0:
            end += len(END_OF_HEAD)
            self._decide(bytes(head[:end]), bytes(head[end:]))
        elif len(head) > MAX_HEAD:
            self._answer(error_answer(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE))

    def eof_received(self) -> bool:
        """Keep the connection while it is being answered: a client may end its side after a request."""
        return self._answering

    def connection_lost(self, error: Exception | None) -> None:
        """Note that the socket is gone."""
        self._leave()

    # The wheel's side.

    def due(self, now: float) -> float:
        """Do what is due; see `gateway.wheel.Timed`."""
        if now < self._deadline:
            return self._deadline
        self.abort("answer timeout" if self._answering else "handshake timeout")
        return math.inf

    def abort(self, reason: str) -> None:
        """Drop the connection at once."""
        logger.debug("%s: drop %s:%s: %s", self._hub.name, *self._address, reason)
        self._transport.abort()

    def dismiss(self) -> None:
        """Drop the connection unless it is being answered, since nothing new is served any more."""
        if not self._answering:
            self.abort("server closed")

    def _decide(self, head: bytes, rest: bytes) -> None:
        core = ServerProtocol(
            origins=self._hub.origins,  # type: ignore[arg-type]
            max_size=None,
            logger=core_logger,
        )
        core.receive_data(head)
        requests = core.events_received()
        request = requests[0] if requests else None
        if not isinstance(request, Request):
            self._refuse(core)
        elif "Upgrade" in request.headers:
            self._upgrade(core, request, rest)
        elif self._hub.answers >= MAX_ANSWERS:
            self._answer(error_answer(HTTPStatus.SERVICE_UNAVAILABLE))
        elif request.path.partition("?")[0] == HEALTH_PATH:
            self._answer(self._health())
        else:
            self._await_answer()
            reading = self._hub.loop.run_in_executor(None, self._hub.site.answer, request.path)
            reading.add_done_callback(self._send_answer)

    def _refuse(self, core: ServerProtocol) -> None:
        """Send what the core has to say to a head that it could not read, if anything."""
        self._answer(b"".join(core.data_to_send()))

    def _upgrade(self, core: ServerProtocol, request: Request, rest: bytes) -> None:
        if self._hub.full:
            logger.info("%s: refuse %s:%s: too many connections", self._hub.name, *self._address)
            self._answer(error_answer(HTTPStatus.SERVICE_UNAVAILABLE))
            return
        core.send_response(core.accept(request))
        if core.state is not State.OPEN:
            self._refuse(core)
            return
        self._transport.write(b"".join(core.data_to_send()))
        self._leave()
        websocket = WebSocket(self._hub, self._transport, self._address, self._accepted)
        self._transport.set_protocol(websocket)
        logger.debug("%s: open %s:%s", self._hub.name, *self._address)
        if rest:
            websocket.data_received(rest)

    def _health(self) -> bytes:
        try:
            return health_answer(self._hub.acceptor.health())
        except Exception:
            logger.exception("%s: acceptor.health raised", self._hub.name)
            return error_answer(HTTPStatus.SERVICE_UNAVAILABLE)

    def _await_answer(self) -> None:
        """Turn from reading to answering."""
        self._answering = True
        self._head.clear()
        self._hub.answers += 1
        self._deadline = self._hub.clock() + ANSWER_TIMEOUT
        self._hub.wheel.schedule(self, self._deadline)

    def _send_answer(self, reading: asyncio.Future[bytes]) -> None:
        if reading.cancelled():
            self.abort("server closed")
            return
        error = reading.exception()
        if error is not None:
            logger.error("%s: reading a file failed", self._hub.name, exc_info=error)
        self._transport.write(error_answer(HTTPStatus.INTERNAL_SERVER_ERROR) if error else reading.result())
        self._transport.close()

    def _answer(self, data: bytes) -> None:
        self._await_answer()
        self._transport.write(data)
        self._transport.close()

    def _leave(self) -> None:
        if self._answering:
            self._answering = False
            self._hub.answers -= 1
        self._hub.leave(self)
