"""What stands behind a listener: the side that knows sessions and games."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from gateway.handshake import HandshakeReply, HandshakeRequest
from gateway.values import Message

if TYPE_CHECKING:
    from gateway.client import Client

__all__ = ["Acceptor"]


class Acceptor(Protocol):
    """Takes what a listener's clients say. All methods are called on the loop, one at a time, and must return quickly.

    For one client: `handshake` once, then perhaps `opened` once, then `message` any number of times, then `closed`
    once. None of them is ever called from within a call of a method of `Client` or `Listener`. Whatever one raises is
    logged with its traceback.
    """

    def handshake(self, client: Client, request: HandshakeRequest) -> HandshakeReply | Awaitable[HandshakeReply]:
        """Let the client in, or turn it away with another code than 200.

        An awaitable is run as a task, within the handshake timeout; if the connection closes meanwhile it runs to its
        end and its result is dropped. Raising, or a `user` that is not JSON: the client gets `{"code":500}` and is
        closed.
        """

    def opened(self, client: Client) -> None:
        """Note that the client has acknowledged and may be sent to. If this raises, the connection lives."""

    def message(self, client: Client, message: Message) -> None:
        """Take one request or notify, in the order in which they came.

        `message.type` is REQUEST (with an id that wants an answer) or NOTIFY. `message.route` is None if the client
        used a code that is not in the dictionary, or sent a request that cannot be read. If this raises, the
        connection lives.
        """

    def closed(self, client: Client, reason: str) -> None:
        """Note that the client is gone: once for each one that was `opened`, at most a turn of the loop later."""

    def health(self) -> Mapping[str, Any]:
        """Return what `GET /healthz` answers, as JSON values; a member `ok` that is False makes it a 503."""
