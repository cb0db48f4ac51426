"""The ports that a listener takes: TCP here, UDP in `gateway.datagram`."""

from __future__ import annotations

import asyncio
import socket
from typing import Protocol

from gateway.door import Door
from gateway.hub import Hub

__all__ = ["Port", "TcpPort", "bound_socket"]

# Connections that may wait in the kernel for one turn of the loop: everybody of a restarted server at once.
BACKLOG = 4096


class Port(Protocol):
    """A port, from being taken to being given back. `idle` is what the hub's terms are to say."""

    idle: float

    def bind(self, host: str, port: int) -> int:
        """Take the port and return it. Raises OSError."""

    async def open(self, hub: Hub) -> None:
        """Let clients of this hub in. Raises OSError."""

    def stop(self) -> None:
        """Let nobody in any more; those who are in can still be sent to."""

    def close(self) -> None:
        """Give the port back."""


def bound_socket(kind: socket.SocketKind, host: str, port: int) -> socket.socket:
    """Return a socket of a kind that is bound to the first address of the host. Raises OSError."""
    family, _, protocol, _, address = socket.getaddrinfo(host, port, type=kind, flags=socket.AI_PASSIVE)[0]
    bound = socket.socket(family, kind, protocol)
    try:
        if kind is socket.SOCK_STREAM:  # for UDP it would let two listeners have one port
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setblocking(False)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound


class TcpPort:
    """WebSockets, plain streams of packages and HTTP on one TCP port."""

    idle = float("inf")

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._server: asyncio.Server | None = None

    def bind(self, host: str, port: int) -> int:
        """Take the port; one that another process has bound but not opened is only found by `open`."""
        self._socket = bound_socket(socket.SOCK_STREAM, host, port)
        # Accepted sockets inherit it: no call for each of them.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return int(self._socket.getsockname()[1])

    async def open(self, hub: Hub) -> None:
        """Start accepting."""
        assert self._socket is not None
        self._server = await hub.loop.create_server(lambda: Door(hub), sock=self._socket, backlog=BACKLOG)

    def stop(self) -> None:
        """Stop accepting, and give the port back: connections do not need it."""
        if self._server is not None:
            self._server.close()
        elif self._socket is not None:
            self._socket.close()

    def close(self) -> None:
        """Do nothing more."""
