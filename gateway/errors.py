"""Errors of the gateway, split by whose fault they are.

GatewayError
├── ProtocolError        the peer's: the stream of packages cannot be read any further; the connection ends
│   ├── TooLargeError    the peer's: a package announces more than the limit; the connection ends
│   └── MessageError     the peer's: one data package holds no readable message; the connection lives
├── HandshakeError       the peer's: the handshake body says nothing usable; answered with code 500, then closed
└── EncodeError          ours: something that the wire cannot express was to be sent

A connection that ends is no error here: the acceptor is told a reason, as text.
"""

from __future__ import annotations

__all__ = ["EncodeError", "GatewayError", "HandshakeError", "MessageError", "ProtocolError", "TooLargeError"]


class GatewayError(Exception):
    """Root of all errors that the gateway raises by itself."""


class ProtocolError(GatewayError):
    """The peer broke the protocol.

    `reason` is a short text without anything secret, fit for a log line and for a close reason.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class TooLargeError(ProtocolError):
    """The peer announced a package beyond the limit. Raised at its header: nothing has been allocated for it."""


class MessageError(ProtocolError):
    """A data package whose message cannot be read.

    `request_id` is the id of the request that can be answered with an error; 0 where none could be read.
    """

    def __init__(self, reason: str, request_id: int = 0) -> None:
        super().__init__(reason)
        self.request_id = request_id


class HandshakeError(GatewayError):
    """The handshake body is not JSON, is empty, or has no `sys` object."""


class EncodeError(GatewayError, ValueError):
    """What was to be sent does not fit the wire: a route over 255 bytes, a body over 2^24 - 1, too many routes."""
