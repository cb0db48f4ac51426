"""A client port: where all that the gateway is made of comes together."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from gateway.acceptor import Acceptor
from gateway.client import Client
from gateway.datagram import UdpPort
from gateway.dictionary import RouteDictionary
from gateway.frame import shared_frame
from gateway.http import Site
from gateway.hub import Hub
from gateway.limits import Limits
from gateway.message import encode_push
from gateway.networks import Networks
from gateway.port import Port, TcpPort
from gateway.values import Frame

__all__ = ["Listener"]

logger = logging.getLogger(__name__)

# Seconds for clients to read their KICK and leave. Longer than the closing handshake may take (2 s, a tick of at most
# 1 s, and a quarter of one).
CLOSE_TIMEOUT = 3.5
# Seconds for what is then cut to be gone.
ABORT_TIMEOUT = 1.0


class Listener:
    """Serves pomelo clients on one port.

    By default that is a TCP port: clients over WebSocket, clients over plain TCP, told apart by their first bytes, and
    `GET /healthz` and the files of `web` beside them. With `tls` it speaks TLS only, to all of them. With `udp` it is a
    UDP port, for which there is no `web`, `origins`, `tls` nor `trusted_proxies`.

    `acceptor` is told everything. `dictionary` None: routes are not compressed. `name`, the server's id, begins every
    log line. `origins`, where given, are the only values of the Origin header let in; None lets everybody in.
    `trusted_proxies` are the networks whose word is taken for a client's address, by the PROXY protocol or
    X-Forwarded-For; `denied` is the first list given to `deny`. Raises ValueError for what is no network. Made
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
        tls: ssl.SSLContext | None = None,
        trusted_proxies: Iterable[str] = (),
        denied: Iterable[str] = (),
        udp: bool = False,
    ) -> None:
        self._acceptor = acceptor
        self._limits = Limits() if limits is None else limits
        self._dictionary = dictionary
        self._site = Site(web)
        self._name = name
        # None among them: what is no browser sends no Origin, and is not what the list is against.
        self._origins = None if origins is None else [*origins, None]
        self._tls = tls
        self._trusted = Networks(trusted_proxies)
        self._denied = Networks(denied)
        self._port: Port = UdpPort() if udp else TcpPort()
        self._bound = False
        self._shut = False
        self._hub: Hub | None = None
        self._closing: asyncio.Task[None] | None = None

    @property
    def clients(self) -> Collection[Client]:
        """All connected clients, also those still in their handshake. A live view: copy it to await in a loop."""
        return () if self._hub is None else self._hub.clients

    @property
    def crowded_out(self) -> int:
        """How many connections were dropped before their handshake was finished, to make room for newer ones."""
        return 0 if self._hub is None else self._hub.crowded_out

    def bind(self, host: str, port: int) -> int:
        """Take the port, without accepting yet; return it, which for port 0 is any free one.

        Raises OSError if it is taken or the host is not ours, RuntimeError if a port is bound already. One that
        another process has bound but not opened is only found by `open`.
        """
        if self._bound:
            raise RuntimeError("the listener is bound already")
        taken = self._port.bind(host, port)
        self._bound = True
        return taken

    async def open(self) -> None:
        """Start accepting. Raises OSError if the port is taken after all, RuntimeError unless just bound."""
        if not self._bound or self._hub is not None:
            raise RuntimeError("the listener is open already" if self._bound else "the listener is not bound")
        hub = Hub(
            self._acceptor,
            limits=self._limits,
            dictionary=self._dictionary,
            site=self._site,
            name=self._name,
            origins=self._origins,
            tls=self._tls,
            trusted=self._trusted,
            denied=self._denied,
            idle=self._port.idle,
        )
        hub.shut = self._shut
        await self._port.open(hub)
        self._hub = hub

    def deny(self, networks: Iterable[str]) -> None:
        """Let nobody in from these networks any more, and from those denied before again.

        Each is an address or a network as in `10.0.0.0/8`; raises ValueError, naming it, for one that is neither, and
        changes nothing then. A denied client gets no answer, or 403 if a proxy's X-Forwarded-For told its address.
        Clients that are in stay.
        """
        self._denied = Networks(networks)
        if self._hub is not None:
            self._hub.denied = self._denied

    def shut(self) -> None:
        """Let nobody in any more; those who are in stay, and the port stays taken. Nothing opens it again.

        Who comes by WebSocket is answered 503, others are dropped; HTTP is served as before.
        """
        self._shut = True
        if self._hub is not None:
            self._hub.shut = True

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
        self._port.stop()
        hub = self._hub
        if hub is None:
            self._port.close()
            return
        logger.info("%s: closing %d clients: %s", self._name, len(hub.clients), reason)
        for client in list(hub.clients):
            client.end("server closed" if reason is None else f"kick: {reason}", notice=reason)
        hub.outbox.flush()
        for guest in list(hub.guests):
            guest.dismiss()
        if not await hub.drained(CLOSE_TIMEOUT):
            hub.abort("server closed")
            await hub.drained(ABORT_TIMEOUT)
        self._port.close()
        hub.wheel.close()
        for hook in list(hub.hooks):
            hook.cancel()
        if hub.hooks:
            await asyncio.wait(hub.hooks, timeout=ABORT_TIMEOUT)
        # What was put off to the end of a turn, `closed` above all, has run after one more.
        await asyncio.sleep(0)
