"""Where the gateway meets the logic: a listener's clients become the frontend's sessions."""

from collections.abc import Awaitable, Iterable, Mapping
from pathlib import Path
from typing import Any

from actors.game import ServerSpec
from gateway import (
    Client,
    Frame,
    Group,
    HandshakeReply,
    HandshakeRequest,
    Listener,
    Message,
    RouteDictionary,
    server_context,
)
from handlers import App, Handshake, Refused
from handlers.frontend import Frontend

__all__ = ["ClientEdge"]


class ClientEdge:
    """A frontend's clients' side: the gateway's Acceptor and the logic's Edge in one."""

    def __init__(self, spec: ServerSpec, app: App) -> None:
        dictionary = RouteDictionary(app.handlers, app.push_routes) if spec.dictionary else None
        self.listener = Listener(
            self,
            limits=spec.limits,
            dictionary=dictionary,
            web=spec.web,
            name=spec.id,
            origins=spec.origins,
            tls=server_context(Path(spec.tls.certificate), Path(spec.tls.key)) if spec.tls else None,
            trusted_proxies=spec.trusted_proxies,
            denied=spec.deny,
            udp=spec.transport == "udp",
        )
        self.frontend: Frontend
        self.draining = False
        """Whether ``GET /healthz`` is to say that no client should come here."""
        self._id = spec.id
        self._asks = app.handshake_hook is not None

    def encode_push(self, route: str, body: bytes) -> Frame:
        """Return a push as a frame for any number of clients."""
        return self.listener.encode_push(route, body)

    def group(self, clients: Iterable[Client]) -> Group:
        """Return clients as one that can be sent to."""
        return Group(clients)

    def handshake(self, client: Client, request: HandshakeRequest) -> HandshakeReply | Awaitable[HandshakeReply]:
        """Ask the app's hook, if it has one."""
        return self._asked(client, request) if self._asks else HandshakeReply()

    def opened(self, client: Client) -> None:
        """Open the client's session; the owner of a client is its uid until then, its session from then on."""
        client.owner = self.frontend.opened(client, client.owner)

    def message(self, client: Client, message: Message) -> None:
        """Hand a message on."""
        self.frontend.message(client.owner, message.id, message.route, message.body)

    def closed(self, client: Client, reason: str) -> None:
        """Close the client's session."""
        self.frontend.closed(client.owner, reason)

    def health(self) -> Mapping[str, Any]:
        """Return what ``GET /healthz`` tells."""
        return {"ok": not self.draining, "id": self._id, "connections": len(self.listener.clients)}

    async def _asked(self, client: Client, request: HandshakeRequest) -> HandshakeReply:
        handshake = Handshake(
            user=request.user,
            address=client.address,
            client_type=request.type,
            client_version=request.version,
        )
        try:
            accepted = await self.frontend.handshake(handshake)
        except Refused as refused:
            return HandshakeReply(code=refused.code, user=refused.user)
        client.owner = accepted.uid
        return HandshakeReply(user=accepted.user)
