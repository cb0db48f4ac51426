"""UDP over real sockets: a package a datagram, and nothing for strangers."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_gateway_kit import ACK, HEARTBEAT, HELLO, LOOPS, Recorder, Served, data_request, run, serving, until

from gateway import HandshakeReply, Limits, Listener, PackageType, datagram, encode_package
from gateway.datagram import UdpPort, _is_handshake
from gateway.hub import Entry
from gateway.lobby import Lobby

QUIET = Limits(heartbeat=None)
loops = pytest.mark.parametrize("loop", LOOPS, ids=["asyncio", "uvloop"])


class Gram:
    """A UDP client that sends what it is told."""

    def __init__(self, port: int) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.connect(("127.0.0.1", port))

    def send(self, *datagrams: bytes) -> None:
        for data in datagrams:
            self.socket.send(data)

    async def package(self) -> tuple[int, bytes]:
        loop = asyncio.get_running_loop()
        data = await asyncio.wait_for(loop.sock_recv(self.socket, 65536), 5)
        assert int.from_bytes(data[1:4], "big") == len(data) - 4, "one package a datagram"
        return data[0], data[4:]

    async def data(self) -> bytes:
        while True:
            kind, body = await self.package()
            if kind == PackageType.DATA:
                return body
            assert kind == PackageType.HEARTBEAT

    async def enter(self) -> None:
        self.send(HELLO)
        kind, body = await self.package()
        assert (kind, json.loads(body)["code"]) == (PackageType.HANDSHAKE, 200)
        self.send(ACK)

    async def silent(self) -> bool:
        """Return whether nothing has come, once everything sent before has been taken."""
        for _ in range(5):
            await asyncio.sleep(0.01)
        try:
            self.socket.recv(65536)
        except BlockingIOError:
            return True
        return False


@asynccontextmanager
async def gram(port: int, *, working: bool = True) -> AsyncIterator[Gram]:
    someone = Gram(port)
    try:
        if working:
            await someone.enter()
        yield someone
    finally:
        someone.socket.close()


def port_of(served: Served) -> UdpPort:
    port = served.listener._port
    assert isinstance(port, UdpPort)
    return port


def lobby_of(served: Served) -> Lobby[Entry]:
    assert served.listener._hub is not None
    return served.listener._hub.lobby


@loops
def test_a_udp_client_shakes_hands_asks_is_pushed_to_and_kicked(loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def main() -> None:
        async with serving(udp=True) as served, gram(served.port) as one, gram(served.port) as other:
            assert await one.package() == (PackageType.HEARTBEAT, b"")
            one.send(data_request(300, "a.b.c", b'{"a":1}'))
            assert await one.data() == bytes.fromhex("04ac02") + b'{"a":1}'
            one.send(HEARTBEAT)
            assert await one.package() == (PackageType.HEARTBEAT, b"")
            client = served.acceptor.clients[0]
            assert client.address == one.socket.getsockname()
            frame = served.listener.encode_push("onChat", b"{}")
            for someone in served.acceptor.clients:
                someone.send(frame)
            assert await one.data() == await other.data() == frame.package[4:]
            client.kick("bye")
            assert await one.package() == (PackageType.KICK, b'{"reason":"bye"}')
            await until(lambda: served.acceptor.reasons == ["kick: bye"])
            one.send(data_request(1, "a.b.c"))
            assert await one.silent()
            await one.enter()
            assert len(served.listener.clients) == 2

    run(main(), loop)


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (HEARTBEAT + HEARTBEAT, "bad package: a datagram holds one package"),
        (data_request(1, "a.b.c")[:-1], "bad package: a datagram holds one package"),
        (b"\x04", "bad package: a datagram holds one package"),
        (b"", "bad package: a datagram holds one package"),
        (b"\x07\x00\x00\x00", "bad package: unknown package type 7"),
        (encode_package(PackageType.KICK), "bad package: kick from a client"),
        (encode_package(PackageType.DATA, bytes(1001)), "message too large"),
        (bytes(20_000), "message too large"),
    ],
)
def test_a_datagram_that_is_no_single_package_disconnects(sent: bytes, reason: str) -> None:
    async def main() -> None:
        limits = Limits(message_size=1000, heartbeat=None)
        async with serving(udp=True, limits=limits) as served, gram(served.port) as someone, gram(served.port) as other:
            someone.send(sent)
            await until(lambda: served.acceptor.reasons == [reason])
            assert await someone.silent()
            other.send(encode_package(PackageType.DATA, b"\x00\x01\x05a.b.c" + bytes(992)))
            assert len(await other.data()) == 994

    run(main())


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"\x01",
        HELLO[:-1],
        HELLO + ACK,
        ACK,
        HEARTBEAT,
        data_request(1, "a.b.c"),
        encode_package(PackageType.HANDSHAKE, b"{}"),
        encode_package(PackageType.HANDSHAKE, b"nonsense"),
        encode_package(PackageType.HANDSHAKE, b'{"sys":{}}' + b" " * 2000),
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_a_stranger_without_a_readable_handshake_is_neither_answered_nor_kept(sent: bytes) -> None:
    async def main() -> None:
        limits = Limits(message_size=1000)
        async with serving(udp=True, limits=limits) as served, gram(served.port, working=False) as someone:
            someone.send(sent)
            assert await someone.silent()
            assert port_of(served).peers == {}
            assert served.acceptor.requests == []

    run(main())


@given(st.binary(max_size=100))
def test_no_bytes_but_a_handshakes_are_one(data: bytes) -> None:
    assert not _is_handshake(data)
    assert not _is_handshake(encode_package(PackageType.HANDSHAKE, data))


def test_a_handshake_without_an_ack_is_forgotten_at_its_deadline_and_may_be_made_again() -> None:
    async def main() -> None:
        limits = Limits(handshake_timeout=0.2, heartbeat=None)
        async with serving(udp=True, limits=limits) as served, gram(served.port, working=False) as someone:
            someone.send(HELLO, HELLO)
            await someone.package()
            assert await someone.silent()  # the second one is ignored, as in pomelo
            await until(lambda: not port_of(served).peers)
            assert not lobby_of(served)
            assert served.acceptor.reasons == []
            await someone.enter()

    run(main())


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Limits(heartbeat=0.2), "heartbeat timeout"),
        (Limits(heartbeat=None, handshake_timeout=0.3), "idle timeout"),
    ],
)
def test_silence_ends_a_peer_with_heartbeats_and_without(
    limits: Limits, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datagram, "IDLE_TIMEOUT", 0.4)

    async def main() -> None:
        async with serving(udp=True, limits=limits) as served, gram(served.port):
            await until(lambda: served.acceptor.reasons == [reason])
            assert port_of(served).peers == {}

    run(main())


def test_traffic_keeps_a_peer_without_heartbeats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datagram, "IDLE_TIMEOUT", 0.3)

    async def main() -> None:
        limits = Limits(heartbeat=None, handshake_timeout=0.2)
        async with serving(udp=True, limits=limits) as served, gram(served.port) as someone:
            for number in range(1, 8):
                someone.send(data_request(number, "a.b.c"))
                await someone.data()
                await asyncio.sleep(0.1)
            assert served.acceptor.reasons == []

    run(main())


def test_an_unproven_address_is_sent_at_most_three_times_what_it_sent(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        acceptor = Recorder()
        acceptor.answer = lambda _client, _request: HandshakeReply(user="x" * 400)
        async with serving(acceptor, udp=True, limits=QUIET) as served:
            async with gram(served.port, working=False) as forged:
                forged.send(HELLO)
                assert await forged.silent()
                assert len(port_of(served).peers) == 1
            async with gram(served.port, working=False) as honest:
                honest.send(encode_package(PackageType.HANDSHAKE, b'{"sys":{}}' + b" " * 150))
                assert len((await honest.package())[1]) > 400

    with caplog.at_level(logging.WARNING):
        run(main())
    (record,) = caplog.records
    assert "more than a peer on probation may be sent" in record.getMessage()


def test_peers_on_probation_are_bounded_and_keep_nobody_out() -> None:
    async def main() -> None:
        limits = Limits(heartbeat=None, handshakes=3)
        async with serving(udp=True, limits=limits) as served, gram(served.port) as good:
            crowd = [Gram(served.port) for _ in range(6)]
            for someone in crowd:
                someone.send(HELLO)
                await someone.package()
            assert len(lobby_of(served)) == 3
            assert len(port_of(served).peers) == 4
            assert served.listener.crowded_out == 3
            crowd[0].send(ACK)  # it was forgotten
            crowd[3].send(ACK)
            await until(lambda: len(lobby_of(served)) == 2)
            await crowd[0].enter()
            await until(lambda: len(served.acceptor.clients) == 3)
            assert served.acceptor.reasons == []
            good.send(data_request(1, "a.b.c"))
            await good.data()
            for someone in crowd:
                someone.socket.close()

    run(main())


def test_strangers_do_not_keep_others_out_where_connections_are_few() -> None:
    async def main() -> None:
        async with serving(udp=True, limits=Limits(heartbeat=None, connections=2)) as served:
            crowd = [Gram(served.port) for _ in range(2)]
            for someone in crowd:
                someone.send(HELLO)
                await someone.package()
            async with gram(served.port), gram(served.port, working=False) as late:
                assert len(port_of(served).peers) == 2
                served.listener.shut()
                late.send(HELLO)
                assert await late.silent()
            for someone in crowd:
                someone.socket.close()

    run(main())


def test_connections_are_bounded() -> None:
    async def main() -> None:
        limits = Limits(heartbeat=None, connections=1)
        async with (
            serving(udp=True, limits=limits) as served,
            gram(served.port) as someone,
            gram(served.port, working=False) as late,
        ):
            late.send(HELLO)
            assert await late.silent()
            someone.send(b"bye")
            await until(lambda: served.acceptor.reasons)
            await late.enter()

    run(main())


def test_a_denied_address_is_not_answered() -> None:
    async def main() -> None:
        async with serving(udp=True, denied=["127.0.0.0/8"]) as served, gram(served.port, working=False) as someone:
            someone.send(HELLO)
            assert await someone.silent()
            assert port_of(served).peers == {}
            served.listener.deny([])
            await someone.enter()

    run(main())


def test_a_refused_handshake_is_answered_and_forgotten() -> None:
    async def main() -> None:
        acceptor = Recorder()
        acceptor.answer = lambda _client, _request: HandshakeReply(501)
        async with serving(acceptor, udp=True) as served, gram(served.port, working=False) as someone:
            someone.send(HELLO)
            assert await someone.package() == (PackageType.HANDSHAKE, b'{"code":501}')
            assert port_of(served).peers == {}

    run(main())


def test_a_package_that_fits_no_datagram_is_lost_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with serving(udp=True, limits=QUIET) as served, gram(served.port) as someone:
            await until(lambda: served.acceptor.clients)
            (client,) = served.acceptor.clients
            for _ in range(3):
                client.send(served.listener.encode_push("onChat", bytes(66_000)))
            client.send(served.listener.encode_push("onChat", bytes(60_000)))
            assert len(await someone.data()) == 60_008
            assert not client.closed

    with caplog.at_level(logging.WARNING):
        run(main())
    assert len(caplog.records) == 1
    assert "does not fit a datagram" in caplog.text


def test_a_closing_listener_kicks_and_gives_the_port_back() -> None:
    async def main() -> None:
        async with serving(udp=True, limits=QUIET) as served, gram(served.port) as someone:
            await until(lambda: served.acceptor.clients)
            await served.listener.close("restart")
            assert await someone.package() == (PackageType.KICK, b'{"reason":"restart"}')
            assert served.acceptor.reasons == ["kick: restart"]
            async with serving(udp=True):
                again = Listener(Recorder(), udp=True)
                assert again.bind("127.0.0.1", served.port) == served.port
                with pytest.raises(OSError, match="in use"):
                    Listener(Recorder(), udp=True).bind("127.0.0.1", served.port)
                await again.close(None)

    run(main())


def test_a_flood_leaves_turns_to_everybody_else() -> None:
    async def main() -> None:
        async with (
            serving(udp=True, limits=QUIET) as served,
            gram(served.port) as someone,
            gram(served.port, working=False) as flood,
        ):
            for _ in range(50):
                flood.send(*[b"garbage"] * 40)
                await asyncio.sleep(0)
            someone.send(data_request(1, "a.b.c"))
            assert await someone.data() == b"\x04\x01{}"

    run(main())
