"""A pomelo client for tests, written from the protocol's description and sharing no code with the gateway."""

import asyncio
import contextlib
import itertools
import json
import ssl
from collections import deque
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import websockets

HANDSHAKE, ACK, HEARTBEAT, DATA, KICK = 1, 2, 3, 4, 5


class Closed(Exception):
    """The server closed the connection."""


class TcpSocket:
    """A plain TCP stream, read a package at a time; what of a WebSocket's methods PomeloClient uses."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def recv(self) -> bytes:
        head = await self._reader.readexactly(4)
        return head + await self._reader.readexactly(int.from_bytes(head[1:], "big"))

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                yield await self.recv()

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await self._writer.wait_closed()


class UdpSocket(asyncio.DatagramProtocol):
    """Datagrams to and from one server."""

    def __init__(self) -> None:
        self._came: asyncio.Queue[bytes | None] = asyncio.Queue()

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._came.put_nowait(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._came.put_nowait(None)

    async def send(self, data: bytes) -> None:
        self._transport.sendto(data)

    async def recv(self) -> bytes:
        data = await self._came.get()
        assert data is not None
        return data

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (data := await self._came.get()) is not None:
            yield data

    async def close(self) -> None:
        self._transport.close()
        await asyncio.sleep(0)


async def connect(url: str, tls: ssl.SSLContext | None) -> Any:
    """Connect by the URL's scheme: ws, wss, tcp, tcps, udp."""
    scheme, host, port = (place := urlsplit(url)).scheme, place.hostname, place.port
    if scheme in ("ws", "wss"):
        return await websockets.connect(url, ssl=tls, compression=None, max_size=None, ping_interval=None)
    if scheme == "udp":
        assert host
        assert port
        _, udp = await asyncio.get_running_loop().create_datagram_endpoint(UdpSocket, remote_addr=(host, port))
        return udp
    return TcpSocket(*await asyncio.open_connection(host, port, ssl=tls))


class PomeloClient:
    """One connection: handshake, requests, notifies, pushes, kicks. Heartbeats are answered."""

    def __init__(
        self, url: str, *, user: Any = None, client_type: str = "test", tls: ssl.SSLContext | None = None
    ) -> None:
        self.url = url
        self.user = user
        self.client_type = client_type
        self.tls = tls
        self.welcome: dict[str, Any] = {}
        self.pushes: list[tuple[str, Any]] = []
        self.kicked: str | None = None
        self._unread: dict[str, deque[Any]] = {}
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._ids = itertools.count(1)
        self._changed = asyncio.Condition()
        self._reader: asyncio.Task[None] | None = None
        self.closed = False

    async def __aenter__(self) -> Self:
        self._socket = await connect(self.url, self.tls)
        system = {"version": "1", "type": self.client_type}
        await self._send(HANDSHAKE, json.dumps({"sys": system, "user": self.user}).encode())
        kind, body = next(_packages(await self._socket.recv()))
        assert kind == HANDSHAKE
        self.welcome = json.loads(body)
        if self.welcome["code"] != 200:
            await self._socket.close()
            raise Closed(self.welcome["code"])
        self._codes = self.welcome["sys"].get("dict", {})
        self._routes = {code: route for route, code in self._codes.items()}
        await self._send(ACK)
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        if self._reader is not None:
            await self._socket.close()
            await self._reader

    async def request(self, route: str, message: Any = None, *, timeout: float = 20.0) -> Any:
        return await asyncio.wait_for(await self.send_request(route, message), timeout)

    async def send_request(self, route: str, message: Any = None) -> asyncio.Future[Any]:
        request_id = next(self._ids)
        answer = self._answers[request_id] = asyncio.get_running_loop().create_future()
        head = bytes([0 | (route in self._codes)]) + _varint(request_id)
        await self._send(DATA, head + self._route(route) + json.dumps(message or {}).encode())
        return answer

    async def notify(self, route: str, message: Any = None) -> None:
        head = bytes([2 | (route in self._codes)])
        await self._send(DATA, head + self._route(route) + json.dumps(message or {}).encode())

    async def pushed(self, route: str, *, timeout: float = 10.0) -> Any:
        async with asyncio.timeout(timeout), self._changed:
            await self._changed.wait_for(lambda: self._unread.get(route) or self.closed)
        if not self._unread.get(route):
            raise Closed
        return self._unread[route].popleft()

    async def until_closed(self, *, timeout: float = 10.0) -> None:
        async with asyncio.timeout(timeout), self._changed:
            await self._changed.wait_for(lambda: self.closed)

    def _route(self, route: str) -> bytes:
        if route in self._codes:
            return int(self._codes[route]).to_bytes(2, "big")
        return bytes([len(route.encode())]) + route.encode()

    async def _send(self, kind: int, body: bytes = b"") -> None:
        try:
            await self._socket.send(bytes([kind]) + len(body).to_bytes(3, "big") + body)
        except websockets.ConnectionClosed as error:
            raise Closed("the connection closed") from error

    async def _read(self) -> None:
        with contextlib.suppress(websockets.ConnectionClosed):
            async for frame in self._socket:
                for kind, body in _packages(frame):
                    await self._package(kind, body)
        self.closed = True
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(Closed("the connection closed"))
                answer.exception()
        async with self._changed:
            self._changed.notify_all()

    async def _package(self, kind: int, body: bytes) -> None:
        if kind == HEARTBEAT:
            return
        if kind == KICK:
            self.kicked = json.loads(body)["reason"]
            return
        flag, rest = body[0], body[1:]
        if flag >> 1 == 2:
            request_id, rest = _read_varint(rest)
            answer = self._answers.pop(request_id)
            if not answer.done():
                answer.set_result(json.loads(rest))
            return
        if flag & 1:
            route, rest = self._routes[int.from_bytes(rest[:2], "big")], rest[2:]
        else:
            route, rest = rest[1 : 1 + rest[0]].decode(), rest[1 + rest[0] :]
        async with self._changed:
            self.pushes.append((route, json.loads(rest)))
            self._unread.setdefault(route, deque()).append(self.pushes[-1][1])
            self._changed.notify_all()


def _packages(frame: Any) -> Any:
    while frame:
        length = int.from_bytes(frame[1:4], "big")
        yield frame[0], frame[4 : 4 + length]
        frame = frame[4 + length :]


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def _read_varint(data: bytes) -> tuple[int, bytes]:
    number = 0
    for index, byte in enumerate(data):
        number |= (byte & 127) << 7 * index
        if byte < 128:
            return number, data[index + 1 :]
    raise ValueError("an id without an end")
