"""What is passed around for each message, made by msgspec: not compiled, since mypyc drops what its classes ask for."""

from __future__ import annotations

from enum import IntEnum

import msgspec

__all__ = ["Disconnect", "Frame", "Message", "MessageType", "Opened", "Send"]


class MessageType(IntEnum):
    """What a message is; the value stands in bits 1-3 of its flag."""

    REQUEST = 0
    NOTIFY = 1
    RESPONSE = 2
    PUSH = 3


class Message(msgspec.Struct, frozen=True, gc=False):
    """One message.

    `id` is 0 for a notify or a push. `route` is None in a response, and where `code`, the dictionary code that was
    read from the wire, is not known. `gzip` is the flag's bit alone: the body is as it came, since pomelo never packs
    one and ignores the bit.
    """

    type: MessageType
    id: int
    route: str | None
    body: bytes
    code: int | None = None
    gzip: bool = False


class Frame(msgspec.Struct, frozen=True, gc=False):
    """A data package made once, to be sent to many clients: the same bytes objects go to all of them.

    `package` is for transports that are plain streams, `websocket` is the package in its frame.
    """

    package: bytes
    websocket: bytes


class Opened(msgspec.Struct, frozen=True):
    """The client's ack has come: it may be sent to. `greeting` is the package to send first, empty for none."""

    greeting: bytes


class Send(msgspec.Struct, frozen=True):
    """Send this package."""

    package: bytes


class Disconnect(msgspec.Struct, frozen=True):
    """Close, for this reason, after sending `last` unless it is empty. The state is CLOSED already."""

    reason: str
    last: bytes = b""
