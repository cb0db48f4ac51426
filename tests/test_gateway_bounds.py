"""Each limit, crossed over a real socket: who crosses it is closed with a reason, and nobody else notices."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager

import pytest
from test_gateway_kit import (
    ACK,
    HEARTBEAT,
    HELLO,
    LOOPS,
    UPGRADE,
    Player,
    Raw,
    Recorder,
    Served,
    client_frame,
    closing,
    data_request,
    player,
    raw,
    run,
    serving,
    until,
)
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from gateway import HandshakeReply, Limits, PackageType, encode_package, encode_request
from gateway.tcp import TcpWire

QUICK = Limits(handshake_timeout=0.2, heartbeat=None)


async def still_served(someone: Player) -> None:
    await someone.send(data_request(99, "a.b.c"))
    assert await someone.data() == b"\x04\x63{}"


async def close_code(someone: Player) -> int | None:
    return (await closing(someone))[1]


def body_for(size: int) -> bytes:
    """Return the body with which a request's package is so large."""
    return bytes(size - len(encode_request(1, "a.b.c", b"")))


def test_a_message_at_the_limit_passes_and_a_byte_more_closes() -> None:
    async def main() -> None:
        limits = Limits(message_size=1000)
        async with (
            serving(limits=limits) as served,
            player(served.port) as someone,
            player(served.port) as bystander,
        ):
            await someone.send(data_request(1, "a.b.c", body_for(1000)))
            assert len(await someone.data()) == 2 + len(body_for(1000))
            await someone.send(data_request(1, "a.b.c", body_for(1001)))
            assert await close_code(someone) == 1009
            await until(lambda: served.acceptor.reasons == ["message too large"])
            await still_served(bystander)

    run(main())


def test_a_fragmented_message_over_the_limit_closes() -> None:
    async def main() -> None:
        async with serving(limits=Limits(message_size=1000)) as served, player(served.port) as someone:
            await someone.websocket.send([HEARTBEAT * 200, HEARTBEAT * 52])
            assert await close_code(someone) == 1009
            await until(lambda: served.acceptor.reasons == ["message too large"])

    run(main())


def test_an_announced_size_over_the_limit_closes_before_any_of_it_comes() -> None:
    async def main() -> None:
        async with serving() as served, player(served.port) as someone, player(served.port) as other:
            await someone.send(b"\x04\xff\xff\xff")
            assert await close_code(someone) == 1009
            await until(lambda: served.acceptor.reasons)
            expected = "message too large: package of 16777215 bytes, at most 65536 allowed"
            assert served.acceptor.reasons == [expected]
            await still_served(other)
        async with serving() as served, raw(served.port) as rough:
            await rough.upgrade()
            rough.send(b"\x82\xff" + (1 << 40).to_bytes(8, "big"))
            assert (await rough.rest())[2:4] == (1009).to_bytes(2, "big")

    run(main())


@pytest.mark.parametrize("sent", [b"", b"G", b"GET / HTTP/1.1\r\nHost: x\r\n"])
def test_a_request_that_trickles_is_cut_at_the_handshake_deadline(sent: bytes) -> None:
    async def main() -> None:
        async with serving(limits=QUICK) as served, raw(served.port) as someone:
            someone.send(sent)
            assert await someone.rest() == b""

    run(main())


@pytest.mark.parametrize("sent", [b"", client_frame(HELLO), client_frame(HELLO[:-3])])
def test_a_client_without_an_ack_is_closed_at_the_handshake_deadline(sent: bytes) -> None:
    async def main() -> None:
        async with serving(limits=QUICK) as served, raw(served.port) as someone:
            await someone.upgrade()
            start = asyncio.get_running_loop().time()
            someone.send(sent)
            await until(lambda: not served.listener.clients)
            assert asyncio.get_running_loop().time() - start < 1.0
            assert served.acceptor.reasons == []
            someone.writer.write_eof()
            assert (await someone.rest()).endswith(b"\x88\x02\x03\xe8")

    run(main())


def test_the_handshake_deadline_covers_an_acceptor_that_does_not_decide() -> None:
    async def main() -> None:
        async with serving(limits=QUICK) as served, player(served.port, working=False) as someone:
            served.acceptor.answer = lambda _client, _request: asyncio.get_running_loop().create_future()
            await someone.send(HELLO)
            assert await close_code(someone) == 1000

    run(main())


def test_a_client_that_has_acked_outlives_the_handshake_deadline() -> None:
    async def main() -> None:
        async with serving(limits=QUICK) as served, player(served.port) as someone, raw(served.port) as late:
            await still_served(someone)
            await late.upgrade()
            # Its deadline is later than the other's: when it is cut, the other's is past.
            await until(lambda: len(served.listener.clients) == 1)
            await still_served(someone)

    run(main())


def test_silence_of_two_heartbeats_closes_without_a_kick() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with serving(limits=Limits(heartbeat=0.2)) as served, player(served.port) as someone:
            start = loop.time()
            seen, code = await closing(someone)
            assert code == 1000
            assert {kind for kind, _ in seen} == {PackageType.HEARTBEAT}
            assert 0.35 < loop.time() - start < 1.5
            assert served.acceptor.reasons == ["heartbeat timeout"]

    run(main())


def test_a_client_that_only_sends_data_is_not_cut() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with serving(limits=Limits(heartbeat=0.1)) as served, player(served.port) as someone:
            end = loop.time() + 0.6
            while loop.time() < end:
                await still_served(someone)
                await asyncio.sleep(0.05)
            assert served.acceptor.reasons == []

    run(main())


def test_heartbeats_keep_a_silent_client() -> None:
    async def main() -> None:
        async with serving(limits=Limits(heartbeat=0.1)) as served, player(served.port) as someone:
            for _ in range(6):
                assert await someone.package() == (PackageType.HEARTBEAT, b"")
                await someone.send(HEARTBEAT)
            assert served.acceptor.reasons == []

    run(main())


def test_a_client_that_bounces_heartbeats_is_not_bounced_back() -> None:
    async def main() -> None:
        async with serving() as served, player(served.port) as someone:
            assert await someone.package() == (PackageType.HEARTBEAT, b"")
            for _ in range(20):
                await someone.send(HEARTBEAT)
            await someone.send(data_request(1, "a.b.c"))
            assert await someone.package() == (PackageType.HEARTBEAT, b"")
            assert await someone.package() == (PackageType.DATA, b"\x04\x01{}")

    run(main())


def is_reset(peer: socket.socket) -> bool:
    """Whether the other side has reset the connection, of which nothing was read."""
    return peer.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNRESET


def test_a_client_that_reads_nothing_is_cut_and_nobody_else_notices() -> None:
    async def main() -> None:
        limits = Limits(outgoing=256 * 1024, heartbeat=None)
        async with serving(limits=limits) as served, player(served.port) as other:
            await until(lambda: served.acceptor.clients)
            deaf = socket.create_connection(("127.0.0.1", served.port))
            with deaf:
                deaf.sendall(UPGRADE + client_frame(HELLO) + client_frame(ACK))
                await until(lambda: len(served.acceptor.clients) == 2)
                frame = served.listener.encode_push("onFlood", bytes(60_000))
                slow = served.acceptor.clients[1]
                pushes = 0
                while not slow.closed:
                    slow.send(frame)
                    pushes += 1
                    assert pushes < 2000
                    await asyncio.sleep(0)
                await until(lambda: served.acceptor.reasons == ["slow consumer"])
                await still_served(other)
                # The kernel keeps nothing for it either: the end overtakes what it was sent.
                await until(lambda: is_reset(deaf))
            await until(lambda: len(served.listener.clients) == 1)

    run(main())


def test_a_single_turn_far_beyond_any_limit_cuts_without_keeping_it_all() -> None:
    async def main() -> None:
        async with serving(limits=Limits(outgoing=10_000)) as served, player(served.port) as someone:
            await until(lambda: served.acceptor.clients)
            (client,) = served.acceptor.clients
            frame = served.listener.encode_push("onFlood", bytes(1 << 20))
            for _ in range(100):
                client.send(frame)
            assert not client.closed  # never in the middle of a sender's loop
            assert served.listener._hub is not None
            (websocket,) = served.listener._hub.wires
            assert isinstance(websocket, TcpWire)
            assert len(websocket.pending or ()) < 35
            await until(lambda: served.acceptor.reasons == ["slow consumer"])
            await close_code(someone)

    run(main())


def test_a_client_that_reads_gets_all_that_one_turn_made_for_it() -> None:
    async def main() -> None:
        async with serving(limits=Limits(outgoing=10_000)) as served, player(served.port) as someone:
            await until(lambda: served.acceptor.clients)
            (client,) = served.acceptor.clients
            frame = served.listener.encode_push("onMuch", bytes(1000))
            for _ in range(300):
                client.send(frame)
            received = 0
            async with asyncio.timeout(10):
                while received < 300 * 1000:
                    received += len(await someone.data())
            assert not client.closed

    run(main())


def test_connections_over_the_limit_are_answered_503_until_one_leaves() -> None:
    async def main() -> None:
        async with serving(limits=Limits(connections=2)) as served, player(served.port) as staying:
            async with player(served.port):
                with pytest.raises(InvalidStatus, match="503"):
                    await connect(f"ws://127.0.0.1:{served.port}/")
                await still_served(staying)
                async with raw(served.port) as prober:
                    prober.send(b"GET /healthz HTTP/1.1\r\n\r\n")
                    assert (await prober.rest()).startswith(b"HTTP/1.1 200 ")
            await until(lambda: len(served.listener.clients) == 1)
            async with player(served.port) as someone:
                await still_served(someone)

    run(main())


@asynccontextmanager
async def arrivals(served: Served, count: int, sent: bytes) -> AsyncIterator[list[Raw]]:
    """So many strangers who came in one after the other and sent this."""
    hub = served.listener._hub
    assert hub is not None
    before = len(hub.lobby) + served.listener.crowded_out
    crowd = []
    try:
        for _ in range(count):
            crowd.append(Raw(*await asyncio.open_connection("127.0.0.1", served.port)))
            crowd[-1].send(sent)
            await until(lambda: len(hub.lobby) + served.listener.crowded_out == before + len(crowd))
        yield crowd
    finally:
        for stranger in crowd:
            stranger.writer.transport.abort()


def test_a_crowd_at_the_door_makes_room_as_soon_as_not_even_an_answer_is_affordable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.hub.SPARE_CONNECTIONS", 1)

    async def main() -> None:
        limits = Limits(connections=3, heartbeat=None)
        async with (
            serving(limits=limits) as served,
            player(served.port) as good,
            player(served.port),
        ):
            await until(lambda: len(served.acceptor.clients) == 2)
            async with arrivals(served, 4, b"") as crowd:
                assert served.listener.crowded_out == 2
                assert [await gone.rest() for gone in crowd[:2]] == [b"", b""]
                async with player(served.port) as late:
                    await still_served(late)
            await still_served(good)

    run(main())


def test_a_newcomer_is_dropped_at_once_if_nobody_is_there_to_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.hub.SPARE_CONNECTIONS", 0)

    async def main() -> None:
        async with serving(limits=Limits(connections=1)) as served, player(served.port) as good:
            await until(lambda: served.acceptor.clients)
            async with raw(served.port) as late:
                assert await late.rest() == b""
            await still_served(good)
            assert served.listener.crowded_out == 0

    run(main())


STRANGERS = pytest.mark.parametrize(
    "sent",
    [b"", b"G", b"GET / HTTP/1.1\r\nHost: x\r\n", UPGRADE, UPGRADE + client_frame(HELLO), HELLO[:-1], HELLO],
    ids=["nothing", "a byte", "half a head", "no hello", "no ack", "half a hello", "no ack over TCP"],
)


@STRANGERS
@pytest.mark.parametrize("loop", LOOPS)
def test_strangers_over_the_limit_push_out_the_oldest_of_them_and_nobody_else(
    sent: bytes, loop: Callable[[], asyncio.AbstractEventLoop], caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        limits = Limits(handshakes=3, heartbeat=None)
        async with serving(limits=limits) as served, player(served.port) as good:
            await until(lambda: served.acceptor.clients)
            hub = served.listener._hub
            assert hub is not None
            async with arrivals(served, 5, sent) as crowd:
                for gone in crowd[:2]:
                    await gone.rest()
                await still_served(good)
                async with player(served.port) as late:
                    await still_served(late)
                    await until(lambda: len(hub.guests) + len(hub.wires) == 4)
                    assert served.listener.crowded_out == 3
            await until(lambda: not hub.lobby)
            await still_served(good)
            assert set(served.acceptor.reasons) == {"client closed"}

    with caplog.at_level(logging.DEBUG, logger="gateway"):
        run(main(), loop)
    told = [record for record in caplog.records if record.getMessage().endswith(": crowded out")]
    assert [record.levelno for record in told] == [logging.DEBUG] * 3


@pytest.mark.parametrize("loop", LOOPS)
def test_as_many_clients_at_once_as_may_be_in_their_handshake_all_get_in(
    loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def main() -> None:
        async with serving(limits=Limits(handshakes=300, heartbeat=None)) as served:
            with ExitStack() as crowd:
                for _ in range(300):  # without a turn of the loop in between
                    someone = crowd.enter_context(socket.create_connection(("127.0.0.1", served.port)))
                    someone.sendall(UPGRADE + client_frame(HELLO) + client_frame(ACK))
                await until(lambda: len(served.acceptor.clients) == 300)
                assert served.listener.crowded_out == 0

    run(main(), loop)


def test_a_stranger_that_trickles_gets_no_further_and_makes_room() -> None:
    async def main() -> None:
        async with serving(limits=Limits(handshakes=2, heartbeat=None)) as served:
            async with arrivals(served, 2, HELLO[:4]) as (slow, quick):
                quick.send(HELLO[4:])
                await until(lambda: served.acceptor.requests)
                slow.send(HELLO[4:-1])
                async with arrivals(served, 1, b""):
                    assert await slow.rest() == b""
                    quick.send(ACK)
                    await until(lambda: served.acceptor.clients)
            assert served.listener.crowded_out == 1

    run(main())


def test_no_more_strangers_are_kept_than_there_may_be_connections() -> None:
    async def main() -> None:
        async with serving(limits=Limits(connections=2, heartbeat=None)) as served, player(served.port) as good:
            await until(lambda: served.acceptor.clients)
            async with arrivals(served, 1, UPGRADE), arrivals(served, 1, b""):
                async with player(served.port) as late:
                    await still_served(late)
                await still_served(good)

    run(main())


@pytest.mark.parametrize("sent", [UPGRADE, HELLO, HELLO[:-1]], ids=["upgraded", "no ack over TCP", "half a hello"])
def test_strangers_who_hold_all_connections_lose_them_to_clients_and_clients_never_lose_theirs(sent: bytes) -> None:
    async def main() -> None:
        async with serving(limits=Limits(connections=3, heartbeat=None)) as served, player(served.port) as good:
            await until(lambda: served.acceptor.clients)
            async with arrivals(served, 2, sent), player(served.port) as second, player(served.port) as third:
                for one in (second, third, good):
                    await still_served(one)
                # All places are clients' now: nobody makes room for one more, and whoever is at the door stays.
                async with arrivals(served, 1, b"") as (silent,), raw(served.port) as late:
                    late.send(UPGRADE)
                    assert (await late.rest()).startswith(b"HTTP/1.1 503 ")
                    silent.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
                    assert (await silent.rest()).startswith(b"HTTP/1.1 200 ")
                await still_served(good)

    run(main())


def test_a_client_for_whose_handshake_the_app_takes_its_time_makes_no_room() -> None:
    async def main() -> None:
        acceptor = Recorder()
        decided = asyncio.Event()

        async def decide() -> HandshakeReply:
            await decided.wait()
            return HandshakeReply()

        acceptor.answer = lambda _client, _request: decide()
        limits = Limits(handshakes=1, heartbeat=None)
        async with serving(acceptor, limits=limits) as served, player(served.port, working=False) as patient:
            await patient.send(HELLO)
            await until(lambda: acceptor.requests)
            async with arrivals(served, 3, b""):
                decided.set()
                await patient.package()
                await patient.send(ACK)
                await still_served(patient)

    run(main())


def test_a_head_without_end_is_refused() -> None:
    async def main() -> None:
        async with serving() as served, raw(served.port) as someone:
            someone.send(b"GET / HTTP/1.1\r\nX: " + b"x" * 20_000)
            assert (await someone.rest()).startswith(b"HTTP/1.1 431 ")

    run(main())


def test_a_half_closed_client_that_reads_nothing_does_not_stay(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        limits = Limits(heartbeat=0.4, outgoing=1 << 24)
        async with serving(limits=limits) as served:
            deaf = socket.create_connection(("127.0.0.1", served.port))
            with deaf:
                deaf.sendall(UPGRADE + client_frame(HELLO) + client_frame(ACK))
                await until(lambda: served.acceptor.clients)
                served.acceptor.clients[0].send(served.listener.encode_push("p", bytes(8_000_000)))
                await asyncio.sleep(0)
                deaf.shutdown(socket.SHUT_WR)
                await until(lambda: served.acceptor.reasons == ["client closed"])
                assert served.listener._hub is not None
                await until(lambda: not served.listener._hub or not served.listener._hub.wires)

    with caplog.at_level(logging.WARNING):
        run(main())
    assert caplog.records == []


def test_encoding_a_request_package_is_what_the_tests_measure() -> None:
    assert encode_package(PackageType.DATA, encode_request(1, "a.b.c", body_for(1000)))[:4] == b"\x04\x00\x03\xe8"
