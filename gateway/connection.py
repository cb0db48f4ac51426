"""One client's conversation, without any I/O.

Theory of operation. Packages go in one at a time, with the time; at most one event comes out for each, and whoever
owns the socket carries it out. Time is an argument, so heartbeats are tested without a clock. What a package may do
in which state is the table below; a package that the table does not name is ignored, as pomelo ignores it: an early
ack, data before the ack, a second handshake.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import IntEnum

import msgspec

from gateway.dictionary import RouteDictionary
from gateway.errors import HandshakeError, MessageError
from gateway.handshake import HandshakeReply, HandshakeRequest, HandshakeResponder, parse_handshake
from gateway.limits import Limits
from gateway.message import decode_message
from gateway.package import PackageType, encode_package
from gateway.values import Disconnect, Message, MessageType, Opened, Send

__all__ = ["TRANSITIONS", "Connection", "Event", "Signal", "State", "Terms"]

HEARTBEAT = encode_package(PackageType.HEARTBEAT)
# A client that answers every heartbeat at once would otherwise bounce them with us without end.
ANSWER_INTERVAL = 1.0
NEVER = -math.inf
# Python 3.11 takes 0.1 us to find a member in its enum, so what every message asks for is found once.
_DATA = PackageType.DATA
_REQUEST = MessageType.REQUEST


class State(IntEnum):
    """Where a conversation stands."""

    INITED = 0  # nothing said yet
    HANDSHAKING = 1  # the acceptor has the handshake
    WAIT_ACK = 2  # the answer is sent
    WORKING = 3
    CLOSED = 4


class Signal(IntEnum):
    """What moves the state: the five packages, by their numbers on the wire, and two acts of our own."""

    HANDSHAKE = 1
    ACK = 2
    HEARTBEAT = 3
    DATA = 4
    KICK = 5
    REPLY = 6
    CLOSE = 7


#: The whole state machine. Looked up with a PackageType too: the first five signals are equal to those.
TRANSITIONS: Mapping[State, Mapping[int, State]] = {
    State.INITED: {
        Signal.HANDSHAKE: State.HANDSHAKING,
        Signal.KICK: State.CLOSED,
        Signal.CLOSE: State.CLOSED,
    },
    State.HANDSHAKING: {
        Signal.REPLY: State.WAIT_ACK,
        Signal.KICK: State.CLOSED,
        Signal.CLOSE: State.CLOSED,
    },
    State.WAIT_ACK: {
        Signal.ACK: State.WORKING,
        Signal.KICK: State.CLOSED,
        Signal.CLOSE: State.CLOSED,
    },
    State.WORKING: {
        Signal.HEARTBEAT: State.WORKING,
        Signal.DATA: State.WORKING,
        Signal.KICK: State.CLOSED,
        Signal.CLOSE: State.CLOSED,
    },
    State.CLOSED: {},
}


Event = Message | HandshakeRequest | Opened | Send | Disconnect


class Terms:
    """What all connections of a listener have in common; one object for all of them.

    `idle` is how many seconds of silence end a connection where no heartbeats are configured.
    """

    __slots__ = ("handshake_timeout", "heartbeat", "responder", "routes", "silence")

    def __init__(self, limits: Limits, dictionary: RouteDictionary | None, idle: float = math.inf) -> None:
        self.heartbeat = limits.heartbeat or 0.0
        self.silence = 2 * self.heartbeat or idle
        self.handshake_timeout = limits.handshake_timeout
        self.responder = HandshakeResponder(limits.heartbeat, dictionary)
        self.routes: Mapping[int, str] = {} if dictionary is None else dict(dictionary.routes)


class Connection:
    """The state of one client's conversation.

    `accepted` is when it began, in seconds of the clock that all `now` arguments come from.
    `heard` is when anything at all last came from the client: whoever owns the socket sets it at each read, since any
    traffic counts as life (in pomelo only a heartbeat does, and clients that are busy sending get cut).
    """

    __slots__ = ("_accepted", "_answered", "_sent", "_terms", "heard", "state")

    def __init__(self, terms: Terms, accepted: float) -> None:
        self._terms = terms
        self._accepted = accepted
        self._answered = NEVER
        self._sent = accepted
        self.heard = accepted
        self.state = State.INITED

    def receive(self, kind: PackageType, body: bytes, now: float) -> Event | None:
        """Take one package from the client; return what is to be done about it.

        A HandshakeRequest wants `reply` to be called, now or later. A Message is always of type REQUEST with an id,
        or NOTIFY.
        """
        state = TRANSITIONS[self.state].get(kind)
        if state is None:
            return None
        self.state = state
        if kind is _DATA:
            return self._message(body)
        if kind is PackageType.HEARTBEAT:
            return self._answer(now)
        if kind is PackageType.HANDSHAKE:
            return self._handshake(body)
        if kind is PackageType.HANDSHAKE_ACK:
            self._sent = self.heard = now
            return Opened(HEARTBEAT if self._terms.heartbeat else b"")
        return Disconnect("bad package: kick from a client")

    def reply(self, request: HandshakeRequest, reply: HandshakeReply) -> Send | Disconnect | None:
        """Answer the handshake; None if the connection closed meanwhile.

        Raises TypeError if `reply.user` is not JSON and EncodeError if it is too large; nothing has changed then.
        """
        if Signal.REPLY not in TRANSITIONS[self.state]:
            return None
        if reply.code == 200:
            package = self._terms.responder.accept(request, reply.user)
            self.state = TRANSITIONS[self.state][Signal.REPLY]
            return Send(package)
        last = self._terms.responder.refuse(reply.code, reply.user)
        self.state = State.CLOSED
        return Disconnect(f"handshake refused: {reply.code}", last)

    def close(self) -> bool:
        """Move to CLOSED; return whether that is news."""
        state = TRANSITIONS[self.state].get(Signal.CLOSE)
        if state is None:
            return False
        self.state = state
        return True

    def tick(self, now: float) -> Send | Disconnect | None:
        """Look at the deadlines, to be called at `deadline` or any time later; return what is due."""
        if now < self.deadline:
            return None
        if self.state is not State.WORKING:
            return self._expire("handshake timeout")
        if now >= self.heard + self._terms.silence:
            return self._expire("heartbeat timeout" if self._terms.heartbeat else "idle timeout")
        self._sent = now
        return Send(HEARTBEAT)

    @property
    def deadline(self) -> float:
        """When `tick` has something to do next, as things stand; infinite for never."""
        if self.state is State.WORKING:
            heartbeat, silent = self._terms.heartbeat, self.heard + self._terms.silence
            return min(self._sent + heartbeat, silent) if heartbeat else silent
        return math.inf if self.state is State.CLOSED else self._accepted + self._terms.handshake_timeout

    def _expire(self, reason: str) -> Disconnect:
        self.state = State.CLOSED
        return Disconnect(reason)

    def _handshake(self, body: bytes) -> HandshakeRequest | Disconnect:
        try:
            return parse_handshake(body)
        except HandshakeError as error:
            self.state = State.CLOSED
            return Disconnect(f"bad handshake: {error}", self._terms.responder.refuse(500))

    def _answer(self, now: float) -> Send | None:
        """Answer a heartbeat at once, but not twice within a second: then the timer's next one is the answer."""
        if not self._terms.heartbeat or now < self._answered + ANSWER_INTERVAL:
            return None
        self._answered = self._sent = now
        return Send(HEARTBEAT)

    def _message(self, body: bytes) -> Message | None:
        try:
            message = decode_message(body, self._terms.routes)
        except MessageError as error:
            # Without a route it is answered as any request of an unknown one; pomelo would leave its sender waiting.
            return Message(MessageType.REQUEST, error.request_id, None, b"") if error.request_id else None
        if message.type is _REQUEST and message.id:
            return message
        return _as_notify(message)


def _as_notify(message: Message) -> Message | None:
    """Return what pomelo makes of the rest: with a route and without an id a notify, without a route nothing."""
    if message.type is MessageType.NOTIFY:
        return message
    if message.type is MessageType.RESPONSE:
        return None
    return msgspec.structs.replace(message, type=MessageType.NOTIFY)
