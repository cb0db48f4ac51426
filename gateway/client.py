"""One client, as the acceptor sees it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from gateway.connection import Connection, Event, State
from gateway.errors import ProtocolError, TooLargeError
from gateway.handshake import HandshakeReply, HandshakeRequest
from gateway.hub import Hub
from gateway.message import encode_response
from gateway.package import PackageDecoder, PackageType, encode_package
from gateway.values import Disconnect, Frame, Message, Opened, Send

if TYPE_CHECKING:
    from gateway.tcp import TcpWire

__all__ = ["Client", "Wire"]

logger = logging.getLogger(__name__)

# RFC 6455 section 7.4.1. pomelo closes with 1000 whatever the cause, and so does this, but for the size limit it does
# not have.
NORMAL_CLOSURE = 1000
TOO_BIG = 1009

# Python 3.11 takes 0.1 us to find a member in its enum, so what every message asks for is found once.
_DATA = PackageType.DATA
_WORKING = State.WORKING

CRASH = "%s: acceptor.%s raised for %s:%s"


class Wire(Protocol):
    """A transport of packages: a WebSocket, a plain TCP stream, a UDP peer."""

    def send_package(self, package: bytes) -> None:
        """Queue one package."""

    def send_frame(self, frame: Frame) -> None:
        """Queue one package that many clients get."""

    @property
    def waiting(self) -> int:
        """Bytes queued that the socket has not taken."""

    def close(self, code: int) -> None:
        """Close in order, after all that was queued. `code` is a WebSocket close code, for those that have one."""

    def wake(self, deadline: float) -> None:
        """Look at the client's deadlines at this time, by calling `Client.tick`."""


class _Gone:
    """The wire of a client whose connection is gone: nothing reaches it any more."""

    def send_package(self, package: bytes) -> None:
        """Drop it."""

    def send_frame(self, frame: Frame) -> None:
        """Drop it."""

    @property
    def waiting(self) -> int:
        """Nothing waits."""
        return 0

    def close(self, code: int) -> None:
        """Nothing is left to close."""

    def wake(self, deadline: float) -> None:
        """Nothing is due."""


_GONE = _Gone()


class Client:
    """One connected client. Made by the gateway; its methods may be called at any time, on the loop.

    `address` is its host and port, also behind trusted proxies; the port is 0 where they do not tell it. `handshake` is
    what it said of itself, None before it has. `owner` is the acceptor's to use, for its session; None again once
    `closed` was told.
    """

    __slots__ = ("_connection", "_decoder", "_hub", "_opened", "_wire", "address", "handshake", "owner", "stream_wire")

    def __init__(
        self,
        hub: Hub,
        wire: Wire,
        address: tuple[str, int],
        accepted: float,
        *,
        stream_wire: TcpWire | None = None,
    ) -> None:
        self._hub = hub
        self._wire: Wire = wire
        #: The wire again, for `Group`, if it is one that takes part in batches.
        self.stream_wire = stream_wire
        self._connection = Connection(hub.terms, accepted)
        self._decoder = PackageDecoder(hub.limits.message_size)
        self._opened = False
        self.address = address
        self.handshake: HandshakeRequest | None = None
        self.owner: Any = None
        hub.clients.add(self)

    def __repr__(self) -> str:
        return f"<Client {self.address[0]}:{self.address[1]} {self.state.name}>"

    # For the acceptor.

    @property
    def state(self) -> State:
        """Where the conversation stands; messages reach the client while it is WORKING."""
        return self._connection.state

    @property
    def closed(self) -> bool:
        """Whether the client is gone, or going: nothing sent now can reach it."""
        return self._connection.state is State.CLOSED

    @property
    def waiting(self) -> int:
        """Bytes queued for the client that it has not taken yet."""
        return self._wire.waiting

    def send(self, frame: Frame) -> None:
        """Send a push made by `Listener.encode_push`; dropped unless the client is WORKING, as in pomelo."""
        if self._connection.state is _WORKING:
            self._wire.send_frame(frame)

    def respond(self, request_id: int, body: bytes) -> None:
        """Answer the request of that id; dropped unless the client is WORKING.

        Raises EncodeError for an id that is negative and for a body that is too large for a package.
        """
        if self._connection.state is _WORKING:
            self._wire.send_package(encode_package(_DATA, encode_response(request_id, body)))

    def kick(self, reason: str) -> None:
        """Tell the client why, then close it; everything sent before still goes out. Harmless if it is closed.

        Before the ack it is closed without being told, as in pomelo.
        """
        if not self.closed:
            logger.info("%s: kick %s:%s: %s", self._hub.name, *self.address, reason)
            self.end(f"kick: {reason}", notice=reason)

    def close(self, reason: str) -> None:
        """Close the client, telling it nothing; everything sent before still goes out. Harmless if it is closed."""
        self.end(reason)

    # For the gateway.

    def end(self, reason: str, *, notice: str | None = None, last: bytes = b"", code: int = NORMAL_CLOSURE) -> None:
        """Close for `reason`, after a KICK package with `notice`, or the package `last`."""
        if notice is not None and self._connection.state is State.WORKING:
            # Before anything is closed: a notice that is no text raises here, and the client is as it was.
            last = encode_package(PackageType.KICK, msgspec.json.encode({"reason": notice}))
        if not self._connection.close():
            return
        self._finish(reason, last, code)

    def lost(self, reason: str) -> None:
        """Note that the wire is gone, or about to go by itself."""
        if self._connection.close():
            self._ended(reason)

    def detach(self) -> None:
        """Let go of the wire, whose connection is gone: else only the garbage collector would part the two."""
        self._wire = _GONE
        self.stream_wire = None

    def heard(self, now: float) -> None:
        """Note that something came from the client, be it half a package."""
        self._connection.heard = now

    def receive(self, data: bytes, now: float) -> None:
        """Take the next bytes of the client's stream of packages."""
        receive = self._connection.receive
        try:
            for kind, body in self._decoder.feed(data):
                event = receive(kind, body, now)
                if event is not None:
                    self._apply(event)
        except TooLargeError as error:
            self.end(f"message too large: {error}", code=TOO_BIG)
        except ProtocolError as error:
            self.end(f"bad package: {error}")

    def tick(self, now: float) -> float:
        """Do what is due; return when to look again."""
        event = self._connection.tick(now)
        if event is not None:
            self._apply(event)
        return self._connection.deadline

    @property
    def deadline(self) -> float:
        """When `tick` is to be called, as things stand."""
        return self._connection.deadline

    def _apply(self, event: Event) -> None:
        if type(event) is Message:
            try:
                self._hub.acceptor.message(self, event)
            except Exception:
                logger.exception(CRASH, self._hub.name, "message", *self.address)
        elif type(event) is Send:
            self._wire.send_package(event.package)
        elif type(event) is Opened:
            self._open(event.greeting)
        elif type(event) is HandshakeRequest:
            self._shake_hands(event)
        elif type(event) is Disconnect:
            self._finish(event.reason, event.last, NORMAL_CLOSURE)

    def _open(self, greeting: bytes) -> None:
        if greeting:
            self._wire.send_package(greeting)
        self._hub.through(self._wire)
        self._wire.wake(self._connection.deadline)
        self._opened = True
        try:
            self._hub.acceptor.opened(self)
        except Exception:
            logger.exception(CRASH, self._hub.name, "opened", *self.address)

    def _shake_hands(self, request: HandshakeRequest) -> None:
        self.handshake = request
        self._hub.advance(self._wire)
        try:
            reply = self._hub.acceptor.handshake(self, request)
            if not isinstance(reply, HandshakeReply):
                if self.stream_wire is not None:
                    # It is not the client that gets no further now. Over UDP it has proved nothing yet.
                    self._hub.through(self._wire)
                # The only task that a client ever has, and only if the acceptor asks for one.
                hook = self._hub.loop.create_task(self._await_reply(request, reply))
                self._hub.hooks.add(hook)
                hook.add_done_callback(self._hub.hooks.discard)
                return
            event = self._connection.reply(request, reply)
        except Exception:
            logger.exception(CRASH, self._hub.name, "handshake", *self.address)
            self._refuse()
            return
        if event is not None:
            self._apply(event)

    async def _await_reply(self, request: HandshakeRequest, coming: Awaitable[HandshakeReply]) -> None:
        try:
            try:
                reply = await coming
            finally:
                if self.stream_wire is not None and not self.closed:
                    self._hub.wait(self.stream_wire)
            event = self._connection.reply(request, reply)
        except Exception:
            logger.exception(CRASH, self._hub.name, "handshake", *self.address)
            self._refuse()
            return
        if event is not None:
            self._apply(event)

    def _refuse(self) -> None:
        self.end("handshake failed", last=self._hub.terms.responder.refuse(500))

    def _finish(self, reason: str, last: bytes, code: int) -> None:
        if last:
            self._wire.send_package(last)
        self._wire.close(code)
        self._ended(reason)

    def _ended(self, reason: str) -> None:
        hub = self._hub
        logger.debug("%s: closed %s:%s: %s", hub.name, *self.address, reason)
        hub.clients.discard(self)
        if self.stream_wire is not None:
            self.stream_wire.stand_apart()  # what its groups are sent from now on is not for it
        if self._opened:
            # Later, since whoever kicks or sends may be in the middle of its own sessions.
            hub.loop.call_soon(self._tell_closed, reason)

    def _tell_closed(self, reason: str) -> None:
        try:
            self._hub.acceptor.closed(self, reason)
        except Exception:
            logger.exception(CRASH, self._hub.name, "closed", *self.address)
        self.owner = None  # which holds this client, as a rule
