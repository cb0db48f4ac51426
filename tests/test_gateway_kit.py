"""What the gateway's tests share: an acceptor that records, a server on a free port, a polite client and a raw one."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import uvloop
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from gateway import (
    Client,
    HandshakeReply,
    HandshakeRequest,
    Limits,
    Listener,
    Message,
    MessageType,
    PackageDecoder,
    PackageType,
    RouteDictionary,
    encode_package,
    encode_request,
)

VECTORS = Path(__file__).parent / "vectors"
HELLO = encode_package(PackageType.HANDSHAKE, b'{"sys":{"version":"1.1.1","type":"js"},"user":{"n":1}}')
ACK = encode_package(PackageType.HANDSHAKE_ACK)
HEARTBEAT = encode_package(PackageType.HEARTBEAT)
MASK = b"\x11\x22\x33\x44"
UPGRADE = (
    b"GET /any/path HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def vectors(name: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((VECTORS / name).read_bytes())
    return data


def run(main: Coroutine[Any, Any, None], loop: Callable[[], asyncio.AbstractEventLoop] | None = None) -> None:
    """Run a test's coroutine, on another loop than asyncio's if one is given; a test that hangs fails."""
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(asyncio.wait_for(main, 20))


LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]
"""Where sockets are at stake, both have to do."""


async def until(condition: Callable[[], object], within: float = 5.0) -> None:
    """Wait until the condition holds; fail if it does not within so many seconds."""
    deadline = asyncio.get_running_loop().time() + within
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "waited in vain"
        await asyncio.sleep(0.002)


def data_request(request_id: int, route: str, body: bytes = b"{}") -> bytes:
    return encode_package(PackageType.DATA, encode_request(request_id, route, body))


class Recorder:
    """An acceptor that lets everybody in, echoes requests, and writes down what it is told."""

    def __init__(self) -> None:
        self.answer: Callable[[Client, HandshakeRequest], HandshakeReply | Awaitable[HandshakeReply]] = (
            lambda _client, _request: HandshakeReply()
        )
        self.report: Mapping[str, Any] = {"ok": True}
        self.requests: list[HandshakeRequest] = []
        self.clients: list[Client] = []
        self.messages: list[Message] = []
        self.reasons: list[str] = []

    def handshake(self, client: Client, request: HandshakeRequest) -> HandshakeReply | Awaitable[HandshakeReply]:
        self.requests.append(request)
        return self.answer(client, request)

    def opened(self, client: Client) -> None:
        self.clients.append(client)

    def message(self, client: Client, message: Message) -> None:
        self.messages.append(message)
        if message.route == "test.crash":
            raise RuntimeError("crashed on purpose")
        if message.type is MessageType.REQUEST:
            client.respond(message.id, message.body)

    def closed(self, client: Client, reason: str) -> None:
        assert client.closed
        self.reasons.append(reason)

    def health(self) -> Mapping[str, Any]:
        return self.report


class Served:
    """A listener that runs, its port and its acceptor."""

    def __init__(self, listener: Listener, port: int, acceptor: Recorder) -> None:
        self.listener = listener
        self.port = port
        self.acceptor = acceptor


@asynccontextmanager
async def serving(
    acceptor: Recorder | None = None,
    *,
    limits: Limits | None = None,
    dictionary: RouteDictionary | None = None,
    web: Path | None = None,
    origins: list[str] | None = None,
    tls: ssl.SSLContext | None = None,
    trusted_proxies: Sequence[str] = (),
    denied: Sequence[str] = (),
    udp: bool = False,
) -> AsyncIterator[Served]:
    acceptor = acceptor or Recorder()
    listener = Listener(
        acceptor,
        limits=limits,
        dictionary=dictionary,
        web=web,
        name="connector-1",
        origins=origins,
        tls=tls,
        trusted_proxies=trusted_proxies,
        denied=denied,
        udp=udp,
    )
    port = listener.bind("127.0.0.1", 0)
    await listener.open()
    try:
        yield Served(listener, port, acceptor)
    finally:
        await listener.close(None)


class Player:
    """A pomelo client over the `websockets` library."""

    def __init__(self, websocket: ClientConnection) -> None:
        self.websocket = websocket
        self.decoder = PackageDecoder(0xFFFFFF)
        self.waiting: list[tuple[PackageType, bytes]] = []

    async def send(self, *packages: bytes) -> None:
        await self.websocket.send(b"".join(packages))

    async def package(self) -> tuple[PackageType, bytes]:
        while not self.waiting:
            frame = await self.websocket.recv()
            assert isinstance(frame, bytes)
            self.waiting.extend(self.decoder.feed(frame))
        return self.waiting.pop(0)

    async def data(self) -> bytes:
        """Return the next message; heartbeats are passed over."""
        while True:
            kind, body = await self.package()
            if kind is PackageType.DATA:
                return body
            assert kind is PackageType.HEARTBEAT

    async def shake_hands(self) -> dict[str, Any]:
        await self.send(HELLO)
        kind, body = await self.package()
        assert kind is PackageType.HANDSHAKE
        answer: dict[str, Any] = json.loads(body)
        return answer


@asynccontextmanager
async def player(port: int, *, working: bool = True) -> AsyncIterator[Player]:
    async with connect(f"ws://127.0.0.1:{port}/", compression=None, ping_interval=None) as websocket:
        someone = Player(websocket)
        if working:
            await someone.shake_hands()
            await someone.send(ACK)
        yield someone


async def closing(someone: Player) -> tuple[list[tuple[PackageType, bytes]], int | None]:
    """Read to the end; return the packages and the close code."""
    seen = []
    try:
        while True:
            seen.append(await someone.package())
    except ConnectionClosed as error:
        return seen, error.rcvd.code if error.rcvd else None


def client_frame(payload: bytes, first: int = 0x82) -> bytes:
    """Return a masked frame, as a client sends it."""
    size = len(payload)
    if size < 126:
        head = bytes((first, 0x80 | size))
    elif size < 0x10000:
        head = bytes((first, 0x80 | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((first, 0x80 | 127)) + size.to_bytes(8, "big")
    mask = (MASK * (size // 4 + 1))[:size]
    masked = (int.from_bytes(payload, "big") ^ int.from_bytes(mask, "big")).to_bytes(size, "big")
    return head + MASK + masked


class Raw:
    """A TCP connection that sends what it is told, byte for byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def upgrade(self) -> None:
        self.send(UPGRADE)
        head = await self.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")

    async def rest(self) -> bytes:
        """Return everything up to the end of the connection, be it a reset."""
        chunks = []
        try:
            while chunk := await self.reader.read(65536):
                chunks.append(chunk)
        except ConnectionError:
            chunks.append(b"")
        return b"".join(chunks)

    async def package(self) -> tuple[int, bytes]:
        """Return the next package of a plain stream of them."""
        head = await self.reader.readexactly(4)
        return head[0], await self.reader.readexactly(int.from_bytes(head[1:], "big"))

    async def data(self) -> bytes:
        """Return the next message of a plain stream of packages; heartbeats are passed over."""
        while True:
            kind, body = await self.package()
            if kind == PackageType.DATA:
                return body
            assert kind == PackageType.HEARTBEAT

    async def shake_hands(self) -> dict[str, Any]:
        """Do the handshake of a plain stream of packages, all but the ack."""
        self.send(HELLO)
        kind, body = await self.package()
        assert kind == PackageType.HANDSHAKE
        answer: dict[str, Any] = json.loads(body)
        return answer


@asynccontextmanager
async def raw(port: int, *, before: bytes = b"", tls: ssl.SSLContext | None = None) -> AsyncIterator[Raw]:
    """Connect; send `before`, and then begin TLS if there is a context for it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(before)
    if tls is not None:
        await writer.start_tls(tls, server_hostname="localhost")
    try:
        yield Raw(reader, writer)
    finally:
        if not writer.is_closing():  # Python 3.11.2 cannot abort TLS that was closed
            writer.transport.abort()
        await asyncio.sleep(0)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """Return the bytes in pieces, cut at any places."""
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]
