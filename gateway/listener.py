"""A client port: the one place where sockets are made."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Collection, Sequence
from pathlib import Path

from gateway.acceptor import Acceptor
from gateway.client import Client
from gateway.dictionary import RouteDictionary
from gateway.door import Door
from gateway.frame import Frame, shared_frame
from gateway.http import Site
from gateway.hub import Hub
from gateway.limits import Limits
from gateway.message import encode_push

__all__ = ["Listener"]

logger = logging.getLogger(__name__)

# Connections that may wait in the kernel for one turn of the loop: everybody of a restarted server at once.
BACKLOG = 4096
# Seconds for clients to read their KICK and leave. Longer than the closing handshake may take (2 s and a tick of at
# most 1 s).
CLOSE_TIMEOUT = 3.5
# Seconds for what is then cut to be gone.
ABORT_TIMEOUT = 1.0


class Listener:
    """Serves pomelo clients over WebSocket on one port, and `GET /healthz` and the files of `web` beside them.

    `acceptor` is told everything. `dictionary` None: routes are not compressed. `name`, the server's id, begins every
    log line. `origins`, where given, are the only values of the Origin header let in; None lets everybody in. Made
    anywhere; `open` and all that follows belong to one loop.
    """

    def __init__(
        self,
        acceptor: Acceptor,
        *,
        limits: Limits | None = None,
        dictionary: RouteDictionary | None = None,
        web: Path | None = None,
        name: str = "",
        origins: Sequence[str] | None = None,
    ) -> None:
        self._acceptor = acceptor
        self._limits = Limits() if limits is None else limits
        self._dictionary = dictionary
        self._site = Site(web)
        self._name = name
        self._origins = None if origins is None else list(origins)
        self._socket: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self._hub: Hub | None = None
        self._closing: asyncio.Task[None] | None = None

    @property
    def clients(self) -> Collection[Client]:
        """All connected clients, also those still in their handshake. A live view: copy it to await in a loop."""
        return () if self._hub is None else self._hub.clients

    def bind(self, host: str, port: int) -> int:
        """Take the port, without accepting yet; return it, which for port 0 is any free one.

        Raises OSError if it is taken or the host is not ours, RuntimeError if a port is bound already. One that
        another process has bound but not opened is only found by `open`.
        """
        if self._socket is not None:
            raise RuntimeError("the listener is bound already")
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # Accepted sockets inherit it: no call for each of them.
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            listening.setblocking(False)
            listening.bind(address)
        except OSError:
            listening.close()
            raise
        self._socket = listening
        return int(listening.getsockname()[1])

    async def open(self) -> None:
        """Start accepting. Raises OSError if the port is taken after all, RuntimeError unless just bound."""
        if self._socket is None or self._server is not None:
            raise RuntimeError("the listener is not bound" if self._socket is None else "the listener is open already")
        hub = Hub(
            self._acceptor,
            limits=self._limits,
            dictionary=self._dictionary,
            site=self._site,
            name=self._name,
            origins=self._origins,
        )
        self._server = await hub.loop.create_server(lambda: Door(hub), sock=self._socket, backlog=BACKLOG)
        self._hub = hub
        logger.debug("%s: listening on %s", self._name, self._socket.getsockname())

    async def close(self, reason: str | None) -> None:
        """Stop accepting, send every client a KICK with this reason (None: no KICK), and close them all.

        Returns once every connection is gone and every client's `closed` was called, at most 6 s later: clients that
        do not read are cut. Handshakes still being decided are cancelled. Calling it again waits for the first call.
        """
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close(reason))
        await asyncio.shield(self._closing)

    def encode_push(self, route: str, body: bytes) -> Frame:
        """Return a push, encoded once, to be given to `Client.send` of any number of clients.

        The route goes as its code if the dictionary has one. Raises EncodeError for a route over 255 bytes that has
        none, and for a body that does not fit a package.
        """
        code = None if self._dictionary is None else self._dictionary.code(route)
        return shared_frame(encode_push(route if code is None else code, body))

    async def _close(self, reason: str | None) -> None:
        if self._server is not None:
            self._server.close()
        elif self._socket is not None:
            self._socket.close()
        hub = self._hub
        if hub is None:
            return
        logger.info("%s: closing %d clients: %s", self._name, len(hub.clients), reason)
        for client in list(hub.clients):
            client.end("server closed" if reason is None else f"kick: {reason}", notice=reason)
        hub.outbox.flush()
        for door in list(hub.doors):
            door.dismiss()
        if not await hub.drained(CLOSE_TIMEOUT):
            hub.abort("server closed")
            await hub.drained(ABORT_TIMEOUT)
        hub.wheel.close()
        for hook in list(hub.hooks):
            hook.cancel()
        if hub.hooks:
            await asyncio.wait(hub.hooks, timeout=ABORT_TIMEOUT)
        # What was put off to the end of a turn, `closed` above all, has run after one more.
        await asyncio.sleep(0)
