"""One HTTP request on a client port: an upgrade on any path becomes a WebSocket, another GET is answered and closed."""

from __future__ import annotations

import asyncio
import logging
import math
from http import HTTPStatus

from websockets.datastructures import Headers
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from gateway.guest import Guest
from gateway.http import HEALTH_PATH, error_answer, health_answer
from gateway.hub import Hub
from gateway.networks import forwarded_address
from gateway.upgrade import upgrade_answer
from gateway.websocket import WebSocket, core_logger, dissolve

__all__ = ["Exchange"]

logger = logging.getLogger(__name__)

END_OF_HEAD = b"\r\n\r\n"
# Bytes of request line and headers: browsers send 1 KiB, with large cookies 8.
MAX_HEAD = 16 * 1024
# Seconds for an HTTP answer to be fetched, and how many may be under way: each holds a file in memory.
ANSWER_TIMEOUT = 60.0
MAX_ANSWERS = 64


class Exchange(Guest):
    """A connection that speaks HTTP, from the first byte of its request to the last of its answer."""

    __slots__ = ("_answering",)

    def __init__(self, hub: Hub, transport: asyncio.Transport, address: tuple[str, int], accepted: float) -> None:
        super().__init__(hub, address, accepted)
        self._transport = transport
        self._answering = False
        self._stay()

    # asyncio's side.

    def data_received(self, data: bytes) -> None:
        """Collect the head of the request."""
        if self._answering:
            return
        head = self._head
        head += data
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
        if self._answering:
            self._answering = False
            self._hub.answers -= 1
        super().connection_lost(error)

    # The wheel's and the listener's side.

    def due(self, now: float) -> float:
        """Do what is due; see `gateway.wheel.Timed`."""
        if self._answering and now >= self._deadline:
            self.abort("answer timeout")
            return math.inf
        return super().due(now)

    def dismiss(self) -> None:
        """Drop the connection unless it is being answered, since nothing new is served any more."""
        if not self._answering:
            super().dismiss()

    def _decide(self, head: bytes, rest: bytes) -> None:
        hub = self._hub
        if hub.origins is None and self._address[0] not in hub.trusted and (answer := upgrade_answer(head)) is not None:
            self._upgrade(answer, rest)
            return
        core = ServerProtocol(
            origins=self._hub.origins,  # type: ignore[arg-type]
            max_size=None,
            logger=core_logger,
        )
        try:
            self._consult(core, head, rest)
        finally:
            dissolve(core)

    def _consult(self, core: ServerProtocol, head: bytes, rest: bytes) -> None:
        """Have the core read the request, and do what it asks for."""
        core.receive_data(head)
        requests = core.events_received()
        request = requests[0] if requests else None
        if not isinstance(request, Request):
            self._refuse(core)
        elif not self._admit(request.headers):
            self._answer(error_answer(HTTPStatus.FORBIDDEN))
        elif "Upgrade" in request.headers:
            self._ask(core, request, rest)
        elif self._hub.answers >= MAX_ANSWERS:
            self._answer(error_answer(HTTPStatus.SERVICE_UNAVAILABLE))
        elif request.path.partition("?")[0] == HEALTH_PATH:
            self._answer(self._health())
        else:
            self._await_answer()
            reading = self._hub.loop.run_in_executor(None, self._hub.site.answer, request.path)
            reading.add_done_callback(self._send_answer)

    def _admit(self, headers: Headers) -> bool:
        """Find out whom a trusted proxy speaks for; return whether that address is not denied."""
        if self._address[0] in self._hub.trusted:
            self._address = forwarded_address(self._address, headers.get_all("X-Forwarded-For"), self._hub.trusted)
        return self._address[0] not in self._hub.denied

    def _refuse(self, core: ServerProtocol) -> None:
        """Send what the core has to say to a head that it could not read, if anything."""
        self._answer(b"".join(core.data_to_send()))

    def _ask(self, core: ServerProtocol, request: Request, rest: bytes) -> None:
        """Have the core decide about an upgrade."""
        core.send_response(core.accept(request))
        if core.state is State.OPEN:
            self._upgrade(b"".join(core.data_to_send()), rest)
        else:
            self._refuse(core)

    def _upgrade(self, answer: bytes, rest: bytes) -> None:
        """Accept an upgrade with `answer`, unless there are too many connections."""
        if not self._hub.admits():
            logger.info("%s: refuse %s:%s: %s", self._hub.name, *self._address, self._hub.refusal)
            self._answer(error_answer(HTTPStatus.SERVICE_UNAVAILABLE))
            return
        self._transport.write(answer)
        logger.debug("%s: open %s:%s", self._hub.name, *self._address)
        self._hand_over(WebSocket, rest)

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
        self._hub.through(self)
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
        if not self._transport.is_closing():
            self._transport.write(error_answer(HTTPStatus.INTERNAL_SERVER_ERROR) if error else reading.result())
            self._transport.close()

    def _answer(self, data: bytes) -> None:
        self._await_answer()
        self._transport.write(data)
        self._transport.close()
