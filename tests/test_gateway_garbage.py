"""A connection that is gone leaves nothing that only the garbage collector would find: it looks rarely, for speed."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator

import pytest
import trustme
from test_gateway_kit import ACK, HELLO, LOOPS, MASK, UPGRADE, Recorder, Served, client_frame, raw, run, serving, until

from gateway import Client, HandshakeReply, HandshakeRequest, Limits, Message, PackageType, encode_package

TIMES = 20
AUTHORITY = trustme.CA()
SERVING = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
AUTHORITY.issue_cert("localhost").configure_cert(SERVING)
TRUSTING = ssl.create_default_context()
AUTHORITY.configure_trust(TRUSTING)
Visit = Callable[[Served], Awaitable[None]]


class Holder(Recorder):
    """Keeps an owner for each client, which holds it, as sessions do, and no client after it is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.gone = 0

    def handshake(self, client: Client, request: HandshakeRequest) -> HandshakeReply | Awaitable[HandshakeReply]:
        return self.answer(client, request)

    def opened(self, client: Client) -> None:
        client.owner = [client]

    def closed(self, client: Client, reason: str) -> None:
        assert client.owner == [client]
        self.gone += 1

    def message(self, client: Client, message: Message) -> None:
        client.respond(message.id, message.body)
        client.kick("seen enough")


async def plain(served: Served) -> None:
    async with raw(served.port) as one:
        await one.shake_hands()
        one.send(ACK)


async def kicked(served: Served) -> None:
    async with raw(served.port) as one:
        await one.shake_hands()
        one.send(ACK + encode_package(PackageType.DATA, b"\x02\x01a{}"))
        assert b"seen enough" in await one.rest()


async def garbage(served: Served) -> None:
    async with raw(served.port) as one:
        one.send(HELLO + ACK + b"\xff" * 20)
        await one.rest()


async def silent(served: Served) -> None:
    async with raw(served.port):
        await until(lambda: served.listener._hub is not None and served.listener._hub.guests)


async def http(served: Served) -> None:
    async with raw(served.port) as one:
        one.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert b"200 OK" in await one.rest()


async def websocket_cut(served: Served) -> None:
    async with raw(served.port) as one:
        await one.upgrade()
        one.send(client_frame(HELLO) + client_frame(ACK))
        await one.reader.read(10)
        # A fragment, which takes the library's core, and no end of it.
        one.send(client_frame(b"x", first=0x02))
        await one.reader.read(0)


async def websocket_unusual(served: Served) -> None:
    async with raw(served.port) as one:
        one.send(UPGRADE.replace(b"\r\n\r\n", b"\r\nX-Name: \xe9\r\n\r\n"))  # read by the library's core
        assert b"101" in await one.reader.readuntil(b"\r\n\r\n")
        one.send(client_frame(HELLO) + client_frame(ACK))
        await one.reader.read(10)


async def http_that_cannot_be_read(served: Served) -> None:
    async with raw(served.port) as one:
        one.send(b"GET / HTTP/9\r\n\r\n")
        await one.rest()


async def websocket_broken(served: Served) -> None:
    async with raw(served.port) as one:
        await one.upgrade()
        one.send(client_frame(HELLO) + b"\xff" * 20)
        await one.reader.readuntil(b"\x88")


async def websocket_closed(served: Served) -> None:
    async with raw(served.port) as one:
        await one.upgrade()
        one.send(client_frame(HELLO) + client_frame(ACK) + bytes((0x88, 0x80)) + MASK)
        await one.rest()


async def refused(served: Served) -> None:
    served.acceptor.answer = lambda _client, _request: HandshakeReply(code=501)
    async with raw(served.port) as one:
        one.send(HELLO)
        await one.rest()


async def refused_later(served: Served) -> None:
    async def answer(_client: Client, _request: HandshakeRequest) -> HandshakeReply:
        await asyncio.sleep(0)
        return HandshakeReply(code=501)

    served.acceptor.answer = answer
    async with raw(served.port) as one:
        one.send(HELLO)
        await one.rest()


async def datagrams(served: Served) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.setblocking(False)
        one.connect(("127.0.0.1", served.port))
        one.send(HELLO)
        await asyncio.get_running_loop().sock_recv(one, 1000)
        one.send(ACK)
        one.send(encode_package(PackageType.DATA, b"\x02\x01a{}"))
        while b"seen enough" not in await asyncio.get_running_loop().sock_recv(one, 1000):
            pass


async def tls(served: Served) -> None:
    async with raw(served.port, tls=TRUSTING) as one:
        await one.shake_hands()
        one.send(ACK + encode_package(PackageType.DATA, b"\x02\x01a{}"))
        assert b"seen enough" in await one.rest()


async def tls_http(served: Served) -> None:
    async with raw(served.port, tls=TRUSTING) as one:
        one.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert b"200 OK" in await one.rest()


async def tls_half(served: Served) -> None:
    async with raw(served.port) as one:
        one.send(b"\x16\x03\x01")
        await until(lambda: served.listener._hub is not None and served.listener._hub.guests)


OVER_TLS = (tls, tls_http, tls_half)
VISITS = [
    *OVER_TLS,
    plain,
    kicked,
    garbage,
    silent,
    http,
    http_that_cannot_be_read,
    websocket_cut,
    websocket_broken,
    websocket_closed,
    websocket_unusual,
    refused,
    refused_later,
    datagrams,
]


@pytest.fixture
def uncollected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def left() -> Counter[str]:
    """Count the gateway's objects, by class."""
    kinds = (type(one) for one in gc.get_objects())
    return Counter(
        kind.__name__ for kind in kinds if str(kind.__module__).startswith(("gateway.", "websockets.", "ssl", "_ssl"))
    )


@pytest.mark.parametrize("visit", VISITS, ids=[visit.__name__ for visit in VISITS])
@pytest.mark.parametrize("loop", LOOPS, ids=["asyncio", "uvloop"])
@pytest.mark.usefixtures("uncollected")
def test_nothing_of_a_connection_is_left_to_the_garbage_collector(
    loop: Callable[[], asyncio.AbstractEventLoop], visit: Visit
) -> None:
    async def scenario() -> None:
        limits = Limits(handshake_timeout=5)
        context = SERVING if visit in OVER_TLS else None
        async with serving(Holder(), limits=limits, udp=visit is datagrams, tls=context) as served:
            hub = served.listener._hub
            assert hub is not None
            await visit(served)
            await until(lambda: not hub.wires and not hub.guests)
            before = left()
            for _ in range(TIMES):
                await visit(served)
            await until(lambda: not hub.wires and not hub.guests)
            await asyncio.sleep(0)  # `closed` is told a turn later
            more = left() - before
            assert max(more.values(), default=0) < TIMES // 2, more

    run(scenario(), loop)
