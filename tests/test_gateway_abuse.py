"""Clients that mean harm, over real sockets: each is closed, answered or ignored, and its neighbour notices nothing."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_gateway_kit import (
    ACK,
    HEARTBEAT,
    HELLO,
    Player,
    Raw,
    Served,
    client_frame,
    data_request,
    player,
    raw,
    run,
    serving,
    until,
)

from gateway import Limits, Message, MessageType, PackageType, encode_message, encode_package, encode_request

KINDS = pytest.mark.parametrize("kind", ["tcp", "websocket"])
SILENT = 500
QUICK = Limits(handshake_timeout=0.3, heartbeat=None)


@asynccontextmanager
async def beside(limits: Limits | None = None) -> AsyncIterator[tuple[Served, Player]]:
    """A gateway and a well-behaved client, which is still served at the end."""
    async with serving(limits=limits or Limits(heartbeat=None)) as served, player(served.port) as good:
        yield served, good
        await good.send(data_request(99, "a.b.c"))
        assert await good.data() == b"\x04\x63{}"


async def enter(someone: Raw, kind: str) -> None:
    """Come in as far as the first package."""
    if kind == "websocket":
        await someone.upgrade()


def wrapped(package: bytes, kind: str) -> bytes:
    return client_frame(package) if kind == "websocket" else package


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=400), st.sampled_from(["tcp", "websocket"]), st.booleans())
def test_garbage_harms_nobody(data: bytes, kind: str, in_frames: bool) -> None:
    async def main() -> None:
        async with beside() as (served, _), raw(served.port) as someone:
            await enter(someone, kind)
            someone.send(wrapped(HELLO, kind) + wrapped(ACK, kind))
            await until(lambda: len(served.acceptor.clients) == 2)
            someone.send(wrapped(data, kind) if in_frames else data)
            someone.writer.write_eof()
            await until(lambda: len(served.listener.clients) == 1)

    run(main())


@KINDS
def test_random_packages_of_every_type_in_every_state_harm_nobody(kind: str) -> None:
    chance = random.Random(3)

    async def main() -> None:
        async with beside() as (served, _):
            for _ in range(20):
                async with raw(served.port) as someone:
                    await enter(someone, kind)
                    for _ in range(chance.randrange(1, 8)):
                        package = chance.choice(
                            [
                                HELLO,
                                ACK,
                                HEARTBEAT,
                                data_request(1, "a.b.c"),
                                b"\x04\x00\x00\x01\xff",
                                b"\x04\x00\x00\x00",
                            ]
                        )
                        someone.send(wrapped(package, kind))
                    await someone.writer.drain()
            await until(lambda: len(served.listener.clients) == 1)

    run(main())


@KINDS
def test_a_second_handshake_and_data_before_the_ack_are_ignored(kind: str) -> None:
    async def main() -> None:
        async with beside() as (served, _), raw(served.port) as someone:
            await enter(someone, kind)
            for package in (data_request(1, "a.b.c"), HELLO, HELLO, data_request(2, "a.b.c"), ACK, HELLO):
                someone.send(wrapped(package, kind))
            someone.send(wrapped(data_request(3, "a.b.c"), kind))
            await until(lambda: [message.id for message in served.acceptor.messages] == [3])
            assert len(served.acceptor.requests) == 2

    run(main())


@KINDS
def test_a_conversation_that_trickles_byte_by_byte_is_understood(kind: str) -> None:
    async def main() -> None:
        async with beside() as (served, _), raw(served.port) as someone:
            await enter(someone, kind)
            for byte in b"".join(wrapped(package, kind) for package in (HELLO, ACK, data_request(7, "a.b.c"))):
                someone.send(bytes((byte,)))
                await asyncio.sleep(0)
            await until(lambda: served.acceptor.messages)

    run(main())


@KINDS
def test_a_handshake_that_trickles_without_end_is_cut_at_its_deadline(kind: str) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with beside(QUICK) as (served, _), raw(served.port) as someone:
            await enter(someone, kind)
            endless = iter(wrapped(b"\x01\x00\xff\xff" + b" " * 5000, kind))
            someone.send(bytes((next(endless),)))
            await until(lambda: len(served.listener.clients) == 2)
            start = loop.time()
            while len(served.listener.clients) == 2:
                someone.send(bytes((next(endless),)))
                await asyncio.sleep(0.005)
            assert loop.time() - start < 1

    run(main())


def test_many_connections_that_say_nothing_are_cut_and_keep_nobody_out() -> None:
    async def main() -> None:
        async with beside(QUICK) as (served, good):
            crowd = [await asyncio.open_connection("127.0.0.1", served.port) for _ in range(SILENT)]
            hub = served.listener._hub
            assert hub is not None
            await until(lambda: len(hub.guests) > SILENT // 2)
            await good.send(data_request(1, "a.b.c"))
            assert await good.data() == b"\x04\x01{}"
            await asyncio.gather(*(reader.read() for reader, _ in crowd), return_exceptions=True)
            assert not hub.guests
            assert len(hub.wheel) == 0
            for _, writer in crowd:
                writer.transport.abort()

    run(main())


@KINDS
@pytest.mark.parametrize("number", [1 << 31, 1 << 35, 1 << 53, (1 << 70) - 1])
def test_large_ids_are_answered_as_they_are(kind: str, number: int) -> None:
    async def main() -> None:
        async with beside() as (served, _), raw(served.port) as someone:
            await enter(someone, kind)
            for package in (HELLO, ACK, data_request(number, "a.b.c")):
                someone.send(wrapped(package, kind))
            answer = encode_message(Message(MessageType.RESPONSE, number, None, b"{}"))
            await asyncio.wait_for(someone.reader.readuntil(answer), 5)
            assert served.acceptor.messages[0].id == number

    run(main())


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (b"\x00" + b"\xff" * 11, []),  # an id without an end
        (b"\x00\x05\xffa.b.c", [(5, None)]),  # a route of 255 bytes that are not there
        (encode_request(5, "r" * 255, b""), [(5, "r" * 255)]),
        (b"\x00\x05\x03a.\xff{}", [(5, "a.\ufffd")]),
        (b"\x00\x05\x00", [(5, "")]),
        (b"\x0a\x05", []),  # an unknown type
        (b"\xff" * 20, []),
        (b"\x04\x05{}", []),  # a response
        (b"", []),
    ],
)
def test_messages_that_cannot_be_meant_are_answered_or_ignored(
    message: bytes, told: list[tuple[int, str | None]]
) -> None:
    async def main() -> None:
        async with beside() as (served, _), player(served.port) as someone:
            await someone.send(encode_package(PackageType.DATA, message))
            await someone.send(data_request(1, "still.in.here"))
            await until(lambda: served.acceptor.messages[-1:] and served.acceptor.messages[-1].id == 1)
            assert [(message.id, message.route) for message in served.acceptor.messages[:-1]] == told

    run(main())


def test_a_handshake_nested_100_000_deep_or_not_utf_8_is_refused() -> None:
    async def main() -> None:
        async with beside(Limits(message_size=1 << 20, heartbeat=None)) as (served, _):
            for body in (b"[" * 100_000, b'{"sys":' * 100_000, b'{"sys":{"a":"\xff"}}', b'{"sys":{},"user":1e999999}'):
                async with raw(served.port) as someone:
                    someone.send(encode_package(PackageType.HANDSHAKE, body))
                    assert (await someone.rest()).endswith(b'{"code":500}')

    run(main())
