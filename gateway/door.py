"""The door: a TCP connection from its accept until it is known where it comes from and what it speaks.

In this order, as the bytes stand on the wire: a header of the PROXY protocol, if the peer is a trusted proxy and sends
one; TLS, if the port has a certificate; and then either HTTP or packages, which the first bytes tell.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Self, cast

from gateway.errors import ProtocolError
from gateway.exchange import Exchange
from gateway.guest import Guest
from gateway.hub import Hub
from gateway.opening import Opening, read_opening
from gateway.proxy import read_proxy_header
from gateway.stream import Stream
from gateway.tls import Tls

__all__ = ["Door"]

logger = logging.getLogger(__name__)


class Door(Guest):
    """One fresh connection."""

    __slots__ = ("_proxied",)

    def __init__(self, hub: Hub) -> None:
        super().__init__(hub, ("", 0), hub.clock())
        self._proxied = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection, or drop it at once if not even a refusal is affordable, or due."""
        # uvloop's transports are no asyncio.Transport by class, only by what they do.
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        if peer:  # empty if the peer is gone already
            self._address = (peer[0], peer[1])
        if not self._admit():
            return
        if self._hub.crowded and not self._hub.make_room():
            self._transport.abort()
        else:
            self._stay()
            self._proxied = self._address[0] in self._hub.trusted
            if not self._proxied:
                self._secure()

    def data_received(self, data: bytes) -> None:
        """Collect the first bytes until they tell."""
        self._head += data
        if self._transport.is_closing():
            return
        try:
            if self._proxied:
                self._read_header()
            else:
                self._read_opening()
        except ProtocolError as error:
            self.abort(error.reason)

    def _admit(self) -> bool:
        """Return whether the address is not denied; drop the connection if it is."""
        if self._address[0] not in self._hub.denied:
            return True
        self.abort("denied")
        return False

    def _read_header(self) -> None:
        header = read_proxy_header(bytes(self._head))
        if header is None:
            return
        self._proxied = False
        if header.source is not None:
            self._address = header.source
        if not self._admit():
            return
        rest = bytes(self._head[header.size :])
        self._head.clear()
        reader = self._secure()
        if rest:
            reader.data_received(rest)

    def _secure(self) -> Tls | Self:
        """Put TLS in between, if the port has it; return whom the socket speaks to from now on."""
        if self._hub.tls is None:
            return self
        tls = Tls(self._transport, self, self._hub.tls)
        self._transport.set_protocol(tls)
        self._transport = tls
        return tls

    def _read_opening(self) -> None:
        opening = read_opening(bytes(self._head))
        if opening is None:
            return
        data = bytes(self._head)
        if opening is Opening.HTTP:
            self._hand_over(Exchange, data)
        elif not self._hub.admits():
            logger.info("%s: refuse %s:%s: %s", self._hub.name, *self._address, self._hub.refusal)
            self._transport.abort()
        else:
            self._hand_over(Stream, data)
            logger.debug("%s: open %s:%s", self._hub.name, *self._address)
