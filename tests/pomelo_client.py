"""A pomelo client for tests, written from the protocol's description and sharing no code with the gateway."""

import asyncio
import contextlib
import itertools
import json
from collections import deque
from types import TracebackType
from typing import Any, Self

import websockets

HANDSHAKE, ACK, HEARTBEAT, DATA, KICK = 1, 2, 3, 4, 5


class Closed(Exception):
    """The server closed the connection."""


class PomeloClient:
    """One connection: handshake, requests, notifies, pushes, kicks. Heartbeats are answered."""

    def __init__(self, url: str, *, user: Any = None) -> None:
        self.url = url
        self.user = user
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
        self._socket = await websockets.connect(self.url, compression=None, max_size=None, ping_interval=None)
        await self._send(HANDSHAKE, json.dumps({"sys": {"version": "1", "type": "test"}, "user": self.user}).encode())
        kind, body = next(_packages(await self._socket.recv()))
        assert kind == HANDSHAKE
        self.welcome = json.loads(body)
        if self.welcome["code"] != 200:
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
        await self._socket.send(bytes([kind]) + len(body).to_bytes(3, "big") + body)

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
