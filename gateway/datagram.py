"""Clients over UDP: one package a datagram, a connection for each address and port that says hello.

Theory of operation. Anybody can write anybody's address on a datagram, so a stranger costs nothing until it has sent a
whole, readable handshake; anything else is dropped without an answer. From then on until its ack it is on probation:
it stands in the hub's lobby, where whoever came first makes room for newcomers, and is sent at most three times the
bytes that it sent (as in RFC 9000 section 8.1), so that nobody can have somebody else flooded from here. An answer that
is larger than that, because the app's `user` is or a dictionary is in it, needs a handshake padded with blanks.
pomelo's protocol has no token that would prove more. What is lost stays lost, as in pomelo: a client whose handshake
was not answered begins anew from another port, or after the handshake timeout.
"""

from __future__ import annotations

import logging
import socket

from gateway.client import Client
from gateway.connection import State
from gateway.errors import HandshakeError
from gateway.handshake import parse_handshake
from gateway.hub import Hub
from gateway.package import HEADER_SIZE, PackageType
from gateway.port import bound_socket
from gateway.values import Frame

__all__ = ["Peer", "UdpPort"]

logger = logging.getLogger(__name__)

# Seconds of silence that end a peer where no heartbeats are configured: nothing else tells that it is gone.
IDLE_TIMEOUT = 60.0
# How many times the bytes of a peer on probation it may be sent, and what each datagram weighs besides (IPv4 and UDP).
AMPLIFICATION = 3
DATAGRAM_HEADER = 28
# Datagrams taken in one turn of the loop: a flood must leave time for everybody else.
BATCH = 64
# As long as an IP packet can be (65,535 bytes) without its own and UDP's headers.
MAX_DATAGRAM = 65_507

_Address = tuple[str, int] | tuple[str, int, int, int]


class UdpPort:
    """One UDP socket and its peers."""

    def __init__(self) -> None:
        self.idle = IDLE_TIMEOUT
        self.peers: dict[_Address, Peer] = {}
        self._socket: socket.socket | None = None
        self._hub: Hub
        self._buffer = bytearray()
        self._told: set[str] = set()

    def bind(self, host: str, port: int) -> int:
        """Take the port."""
        self._socket = bound_socket(socket.SOCK_DGRAM, host, port)
        return int(self._socket.getsockname()[1])

    async def open(self, hub: Hub) -> None:
        """Start reading."""
        assert self._socket is not None
        self._hub = hub
        # One byte more than is allowed, to see that a datagram is larger than that.
        self._buffer = bytearray(hub.limits.message_size + HEADER_SIZE + 1)
        hub.loop.add_reader(self._socket, self._read, self._socket)

    def stop(self) -> None:
        """Stop reading."""
        if self._socket is not None and self._buffer:
            self._hub.loop.remove_reader(self._socket)

    def close(self) -> None:
        """Give the port back."""
        if self._socket is not None:
            self._socket.close()

    def send(self, data: bytes, address: _Address) -> None:
        """Send one datagram, or lose it if the socket's buffer is full, as any router may."""
        assert self._socket is not None
        try:
            self._socket.sendto(data, address)
        except OSError as error:  # BlockingIOError among them
            logger.debug("%s: lose %d bytes to %s:%s: %s", self._hub.name, len(data), *address[:2], error)

    def lose(self, data: bytes, address: _Address, why: str) -> None:
        """Do not send, and say why; once for each reason, since strangers can bring it about."""
        level = logging.DEBUG if why in self._told else logging.WARNING
        self._told.add(why)
        logger.log(level, "%s: lose %d bytes to %s:%s: %s", self._hub.name, len(data), *address[:2], why)

    def forget(self, peer: Peer) -> None:
        """Keep nothing of a peer any more."""
        if self.peers.get(peer.address) is peer:
            del self.peers[peer.address]
        self._hub.leave(peer)
        peer.client.detach()

    def _read(self, readable: socket.socket) -> None:
        now = self._hub.clock()
        buffer = self._buffer
        for _ in range(BATCH):
            try:
                size, address = readable.recvfrom_into(buffer)
            except BlockingIOError:
                return
            except OSError as error:
                logger.debug("%s: reading datagrams: %s", self._hub.name, error)
                return
            peer = self.peers.get(address)
            if peer is not None:
                peer.receive(bytes(memoryview(buffer)[:size]), now)
            else:
                self._welcome(bytes(memoryview(buffer)[:size]), address, now)

    def _welcome(self, data: bytes, address: _Address, now: float) -> None:
        """Make a peer of a stranger who greets readably, if there is room for one."""
        hub = self._hub
        if not _is_handshake(data) or len(data) >= len(self._buffer) or address[0] in hub.denied:
            return
        if not hub.admits():
            logger.debug("%s: refuse %s:%s: too many connections", hub.name, *address[:2])
            return
        peer = self.peers[address] = Peer(hub, self, address, now)
        logger.debug("%s: open %s:%s", hub.name, *address[:2])
        peer.receive(data, now)


class Peer:
    """Moves datagrams between one address and one Client: a `gateway.client.Wire`."""

    __slots__ = ("_credit", "_hub", "_port", "address", "bucket", "client")

    def __init__(self, hub: Hub, port: UdpPort, address: _Address, now: float) -> None:
        self._hub = hub
        self._port = port
        self._credit = 0
        self.address = address
        self.bucket = 0
        self.client = Client(hub, self, (address[0], address[1]), now)
        hub.wires.add(self)
        hub.wheel.schedule(self, self.client.deadline)
        hub.wait(self)

    def receive(self, data: bytes, now: float) -> None:
        """Take one datagram."""
        client = self.client
        if self in self._hub.lobby:
            self._credit += AMPLIFICATION * (len(data) + DATAGRAM_HEADER)
        if len(data) > self._hub.limits.message_size + HEADER_SIZE:
            client.end("message too large")
        elif not _is_package(data):
            client.end("bad package: a datagram holds one package")
        else:
            client.heard(now)
            client.receive(data, now)

    def send_package(self, package: bytes) -> None:
        """Send one package; it is lost, with a warning, if it does not fit a datagram or is more than is allowed."""
        if len(package) > MAX_DATAGRAM:
            self._port.lose(package, self.address, "does not fit a datagram")
            return
        if self.client.state is not State.WORKING and self in self._hub.lobby:
            self._credit -= len(package) + DATAGRAM_HEADER
            if self._credit < 0:
                self._port.lose(package, self.address, "more than a peer on probation may be sent")
                return
        self._port.send(package, self.address)

    def send_frame(self, frame: Frame) -> None:
        """Send a package that many clients get."""
        self.send_package(frame.package)

    @property
    def waiting(self) -> int:
        """Always 0: what the socket does not take is lost."""
        return 0

    def close(self, code: int) -> None:
        """Forget the peer; UDP has no farewell."""
        self._port.forget(self)

    def wake(self, deadline: float) -> None:
        """Look at the client's deadlines at this time."""
        self._hub.wheel.schedule(self, deadline)

    def due(self, now: float) -> float:
        """Do what is due; see `gateway.wheel.Timed`."""
        return self.client.tick(now)

    def abort(self, reason: str) -> None:
        """Forget the peer at once."""
        self._port.forget(self)
        self.client.lost(reason)


def _is_package(data: bytes) -> bool:
    return len(data) >= HEADER_SIZE and int.from_bytes(data[1:HEADER_SIZE], "big") == len(data) - HEADER_SIZE


def _is_handshake(data: bytes) -> bool:
    if not _is_package(data) or data[0] != PackageType.HANDSHAKE:
        return False
    try:
        parse_handshake(data[HEADER_SIZE:])
    except HandshakeError:
        return False
    return True
