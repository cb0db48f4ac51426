"""The gateway over real sockets: what a client sees, and what the acceptor is told."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_gateway_kit import (
    ACK,
    HEARTBEAT,
    HELLO,
    UPGRADE,
    Recorder,
    client_frame,
    closing,
    cut,
    data_request,
    player,
    raw,
    run,
    serving,
    until,
)
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from gateway import (
    Client,
    EncodeError,
    HandshakeReply,
    HandshakeRequest,
    Limits,
    Listener,
    Message,
    MessageType,
    PackageType,
    RouteDictionary,
    State,
    encode_package,
    encode_request,
)
from gateway.tcp import TcpWire

DICTIONARY = RouteDictionary(["chat.chatHandler.send"], ["onChat"])


def test_a_client_shakes_hands_asks_and_is_answered() -> None:
    async def main() -> None:
        async with serving(dictionary=DICTIONARY) as served, player(served.port, working=False) as someone:
            answer = await someone.shake_hands()
            assert list(answer) == ["code", "sys"]
            assert answer["sys"]["dict"] == {"chat.chatHandler.send": 1, "onChat": 2}
            await someone.send(ACK)
            assert await someone.package() == (PackageType.HEARTBEAT, b"")
            await someone.send(encode_package(PackageType.DATA, encode_request(300, 1, b'{"a":1}')))
            assert await someone.package() == (PackageType.DATA, bytes.fromhex("04ac02") + b'{"a":1}')
            message = Message(MessageType.REQUEST, 300, "chat.chatHandler.send", b'{"a":1}', 1)
            assert served.acceptor.messages == [message]
            (client,) = served.acceptor.clients
            assert client.handshake == HandshakeRequest("1.1.1", "js", user={"n": 1})
            assert client.address == ("127.0.0.1", someone.websocket.local_address[1])
            assert client.owner is None
            assert not client.closed
            assert list(served.listener.clients) == [client]
        await until(lambda: served.acceptor.reasons == ["client closed"])
        assert len(served.listener.clients) == 0

    run(main())


def test_an_unknown_code_reaches_the_acceptor_without_a_route() -> None:
    async def main() -> None:
        async with serving(dictionary=DICTIONARY) as served, player(served.port) as someone:
            await someone.send(encode_package(PackageType.DATA, encode_request(7, 999, b"{}")))
            assert await someone.data() == b"\x04\x07{}"
            assert served.acceptor.messages[0].route is None

    run(main())


def test_several_packages_in_one_frame_are_all_taken() -> None:
    async def main() -> None:
        async with serving() as served, player(served.port, working=False) as someone:
            await someone.send(HELLO, ACK, data_request(1, "a.b.c"), HEARTBEAT, data_request(2, "a.b.c"))
            kinds = [(await someone.package())[0] for _ in range(5)]
            assert kinds == [1, 3, 4, 3, 4]

    run(main())


def test_a_package_may_be_split_over_frames() -> None:
    async def main() -> None:
        async with serving() as served, player(served.port) as someone:
            package = data_request(1, "a.b.c", b'{"long":true}')
            for piece in (package[:2], package[2:9], package[9:]):
                await someone.send(piece)
            assert await someone.data() == b'\x04\x01{"long":true}'

    run(main())


def test_fragmented_and_text_frames_are_read_as_bytes() -> None:
    async def main() -> None:
        async with serving() as served, player(served.port) as someone:
            package = data_request(1, "a.b.c")
            await someone.websocket.send([package[:3], package[3:5], package[5:]])
            assert await someone.data() == b"\x04\x01{}"
            await someone.websocket.send(package.decode())
            assert await someone.data() == b"\x04\x01{}"

    run(main())


def test_pings_are_answered_also_within_a_fragmented_message() -> None:
    async def main() -> None:
        async with serving() as served, raw(served.port) as someone:
            await someone.upgrade()
            someone.send(client_frame(HELLO[:5], 0x02) + client_frame(b"hi", 0x89) + client_frame(HELLO[5:], 0x80))
            assert await someone.reader.readexactly(4) == b"\x8a\x02hi"
            assert (await someone.reader.readexactly(6))[2:3] == b"\x01"

    run(main())


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0), max_size=8))
def test_any_split_of_the_bytes_on_the_socket_is_understood(places: list[int]) -> None:
    stream = b"".join(
        [
            client_frame(HELLO),
            client_frame(ACK),
            client_frame(data_request(1, "a.b.c")[:4], 0x02),
            client_frame(data_request(1, "a.b.c")[4:], 0x80),
            client_frame(data_request(2, "a.b.c", bytes(200)) + data_request(3, "a.b.c"), 0x81),
        ]
    )

    async def main() -> None:
        async with serving() as served, raw(served.port) as someone:
            await someone.upgrade()
            for piece in cut(stream, places):
                someone.send(piece)
                await asyncio.sleep(0)
            await until(lambda: len(served.acceptor.messages) == 3)
            assert [message.id for message in served.acceptor.messages] == [1, 2, 3]
            assert served.acceptor.messages[1].body == bytes(200)

    run(main())


def test_a_whole_conversation_may_come_in_one_segment_with_the_upgrade() -> None:
    async def main() -> None:
        async with serving() as served, raw(served.port) as someone:
            someone.send(UPGRADE + client_frame(HELLO) + client_frame(ACK + data_request(9, "a.b.c")))
            await until(lambda: served.acceptor.messages)
            assert served.acceptor.messages[0].id == 9

    run(main())


@pytest.mark.parametrize("body", [b"", b"nonsense", b"{}"])
def test_a_bad_handshake_is_answered_500_then_closed(body: bytes) -> None:
    async def main() -> None:
        async with serving() as served, player(served.port, working=False) as someone:
            await someone.send(encode_package(PackageType.HANDSHAKE, body))
            assert await closing(someone) == ([(PackageType.HANDSHAKE, b'{"code":500}')], 1000)
            assert served.acceptor.requests == []
        assert served.acceptor.reasons == []

    run(main())


async def later(reply: Any) -> HandshakeReply:
    await asyncio.sleep(0)
    if isinstance(reply, Exception):
        raise reply
    assert isinstance(reply, HandshakeReply)
    return reply


def failing(_client: Client, _request: HandshakeRequest) -> HandshakeReply:
    raise RuntimeError("secret detail")


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (lambda _c, _r: HandshakeReply(501), b'{"code":501}'),
        (lambda _c, _r: later(HandshakeReply(503, {"wait": 5})), b'{"code":503,"user":{"wait":5}}'),
        (failing, b'{"code":500}'),
        (lambda _c, _r: later(RuntimeError("secret detail")), b'{"code":500}'),
        (lambda _c, _r: HandshakeReply(user=object()), b'{"code":500}'),
        (lambda _c, _r: later(HandshakeReply(user=object())), b'{"code":500}'),
    ],
)
def test_a_handshake_refused_or_failed_is_answered_then_closed(
    answer: Any, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        acceptor = Recorder()
        acceptor.answer = answer
        async with serving(acceptor) as served, player(served.port, working=False) as someone:
            await someone.send(HELLO)
            assert await closing(someone) == ([(PackageType.HANDSHAKE, body)], 1000)
        assert acceptor.clients == []
        assert acceptor.reasons == []

    run(main())
    crashed = [record for record in caplog.records if record.exc_info]
    assert len(crashed) == (1 if b"500" in body else 0)


def test_an_awaited_handshake_answers_with_user_data_and_ignores_packages_meanwhile() -> None:
    async def main() -> None:
        acceptor = Recorder()
        decided = asyncio.Event()

        async def decide() -> HandshakeReply:
            await decided.wait()
            return HandshakeReply(user={"hello": "é"})

        acceptor.answer = lambda _client, _request: decide()
        async with serving(acceptor) as served, player(served.port, working=False) as someone:
            await someone.send(HELLO, HELLO, ACK, HEARTBEAT, data_request(1, "a.b.c"))
            await until(lambda: acceptor.requests)
            decided.set()
            _, body = await someone.package()
            assert json.loads(body)["user"] == {"hello": "é"}
            assert acceptor.messages == []
            assert acceptor.clients == []
            await someone.send(ACK, data_request(2, "a.b.c"))
            assert await someone.data() == b"\x04\x02{}"
            assert len(acceptor.requests) == 1

    run(main())


def test_the_result_of_a_handshake_is_dropped_if_the_client_left_meanwhile() -> None:
    async def main() -> None:
        acceptor = Recorder()
        decided, finished = asyncio.Event(), asyncio.Event()

        async def decide() -> HandshakeReply:
            await decided.wait()
            finished.set()
            return HandshakeReply()

        acceptor.answer = lambda _client, _request: decide()
        async with serving(acceptor) as served:
            async with player(served.port, working=False) as someone:
                await someone.send(HELLO)
                await until(lambda: acceptor.requests)
            await until(lambda: not served.listener.clients)
            decided.set()
            await finished.wait()
        assert acceptor.clients == []
        assert acceptor.reasons == []

    run(main())


def test_packages_in_the_wrong_state_are_ignored() -> None:
    async def main() -> None:
        async with serving() as served, player(served.port, working=False) as someone:
            await someone.send(ACK, HEARTBEAT, data_request(1, "a.b.c"))
            await someone.shake_hands()
            await someone.send(HELLO, HEARTBEAT, data_request(2, "a.b.c"), ACK, ACK, HELLO, data_request(3, "a.b.c"))
            assert await someone.data() == b"\x04\x03{}"
            assert [message.id for message in served.acceptor.messages] == [3]

    run(main())


@pytest.mark.parametrize(
    ("package", "reason"),
    [
        (encode_package(PackageType.KICK, b"{}"), "bad package: kick from a client"),
        (b"\x00\x00\x00\x00", "bad package: unknown package type 0"),
        (b"hello", "bad package: unknown package type 104"),
    ],
)
def test_packages_that_break_the_protocol_close_with_1000_as_pomelo_does(package: bytes, reason: str) -> None:
    async def main() -> None:
        async with serving(limits=Limits(heartbeat=None)) as served, player(served.port) as someone:
            await someone.send(package)
            assert await closing(someone) == ([], 1000)
            await until(lambda: served.acceptor.reasons == [reason])

    run(main())


def test_an_unmasked_frame_closes() -> None:
    async def main() -> None:
        async with serving() as served, raw(served.port) as someone:
            await someone.upgrade()
            someone.send(client_frame(HELLO) + client_frame(ACK))
            await until(lambda: served.acceptor.clients)
            someone.send(b"\x82\x04" + HEARTBEAT)
            assert b"\x88" in await someone.rest()
            await until(lambda: served.acceptor.reasons == ["bad frame: incorrect masking"])

    run(main())


def test_a_client_that_goes_without_a_word_is_closed() -> None:
    async def main() -> None:
        async with serving() as served:
            async with raw(served.port) as someone:
                await someone.upgrade()
                someone.send(client_frame(HELLO) + client_frame(ACK))
                await until(lambda: served.acceptor.clients)
                someone.writer.write_eof()
                await until(lambda: served.acceptor.reasons == ["client closed"])
            assert len(served.listener.clients) == 0

    run(main())


def test_a_kick_is_told_then_closed_with_everything_sent_before_it() -> None:
    async def main() -> None:
        async with serving(limits=Limits(heartbeat=None)) as served, raw(served.port) as someone:
            await someone.upgrade()
            someone.send(client_frame(HELLO) + client_frame(ACK))
            await until(lambda: served.acceptor.clients)
            (client,) = served.acceptor.clients
            client.send(served.listener.encode_push("onBye", b"{}"))
            client.kick("bye")
            assert client.state is State.CLOSED
            assert served.acceptor.reasons == []  # told later, never from within a call of the acceptor's
            client.kick("again")
            client.close("again")
            client.send(served.listener.encode_push("onBye", b"{}"))
            client.respond(1, b"{}")
            await someone.reader.readuntil(b'{"code":200,"sys":{}}')
            expected = "820d0400000906056f6e4279657b7d" + "8214050000107b22726561736f6e223a22627965227d" + "880203e8"
            assert (await someone.reader.readexactly(len(expected) // 2)).hex() == expected
            assert served.acceptor.reasons == ["kick: bye"]
            someone.send(client_frame(b"\x03\xe8", 0x88))
            assert await someone.rest() == b""

    run(main())


def test_closing_tells_the_client_nothing() -> None:
    async def main() -> None:
        async with serving() as served, player(served.port) as someone:
            await someone.package()
            served.acceptor.clients[0].close("no reason to give")
            assert await closing(someone) == ([], 1000)
            assert served.acceptor.reasons == ["no reason to give"]

    run(main())


def test_before_the_ack_nothing_is_sent_not_even_a_kick() -> None:
    async def main() -> None:
        async with serving() as served, player(served.port, working=False) as someone:
            await someone.shake_hands()
            (client,) = served.listener.clients
            client.send(served.listener.encode_push("onChat", b"{}"))
            client.respond(1, b"{}")
            client.kick("bye")
            assert await closing(someone) == ([], 1000)

    run(main())


def test_messages_of_a_frame_behind_a_kick_are_dropped() -> None:
    class Kicking(Recorder):
        def message(self, client: Client, message: Message) -> None:
            super().message(client, message)
            client.kick("enough")

    async def main() -> None:
        async with serving(Kicking()) as served, player(served.port) as someone:
            await someone.send(data_request(1, "a.b.c"), data_request(2, "a.b.c"), b"\x00")
            await closing(someone)
            assert [message.id for message in served.acceptor.messages] == [1]
            assert served.acceptor.reasons == ["kick: enough"]

    run(main())


@pytest.mark.parametrize(
    ("dictionary", "package"),
    [(None, "0400000a06066f6e436861747b7d"), (DICTIONARY, "040000050700027b7d")],
)
def test_a_push_is_encoded_once_and_the_same_bytes_go_to_everybody(
    dictionary: RouteDictionary | None, package: str
) -> None:
    async def main() -> None:
        async with (
            serving(dictionary=dictionary, limits=Limits(heartbeat=None)) as served,
            player(served.port) as one,
            player(served.port) as other,
        ):
            await until(lambda: len(served.acceptor.clients) == 2)
            frame = served.listener.encode_push("onChat", b"{}")
            assert frame.package.hex() == package
            for client in served.acceptor.clients:
                client.send(frame)
            for someone in (one, other):
                assert await someone.websocket.recv() == frame.package

    run(main())


def test_what_one_turn_sends_keeps_its_order() -> None:
    async def main() -> None:
        async with serving(limits=Limits(heartbeat=None)) as served, player(served.port) as someone:
            await until(lambda: served.acceptor.clients)
            (client,) = served.acceptor.clients
            for number in range(50):
                if number % 2:
                    client.respond(number, b"r")
                else:
                    client.send(served.listener.encode_push("p", bytes((number,))))
            got = [(await someone.package())[1] for _ in range(50)]
            assert got == [b"\x04%cr" % n if n % 2 else b"\x06\x01p%c" % n for n in range(50)]

    run(main())


def test_large_answers_arrive_whole() -> None:
    async def main() -> None:
        async with serving(limits=Limits(heartbeat=None)) as served, player(served.port) as someone:
            for size in (125, 126, 60_000):
                await someone.send(data_request(1, "a.b.c", bytes(size)))
                assert await someone.data() == b"\x04\x01" + bytes(size)
            served.acceptor.clients[0].respond(2, bytes(300_000))
            assert await someone.data() == b"\x04\x02" + bytes(300_000)

    run(main())


def test_an_acceptor_that_raises_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    class Crashing(Recorder):
        def opened(self, client: Client) -> None:
            super().opened(client)
            raise RuntimeError("opened")

        def closed(self, client: Client, reason: str) -> None:
            super().closed(client, reason)
            raise RuntimeError("closed")

    async def main() -> None:
        async with serving(Crashing()) as served:
            async with player(served.port) as someone:
                await someone.send(data_request(1, "test.crash"), data_request(2, "a.b.c"))
                assert await someone.data() == b"\x04\x02{}"
            await until(lambda: served.acceptor.reasons)

    run(main())
    crashes = [record for record in caplog.records if record.exc_info]
    assert [record.getMessage().split(" raised")[0] for record in crashes] == [
        f"connector-1: acceptor.{method}" for method in ("opened", "message", "closed")
    ]


def test_each_connection_is_logged_at_debug_and_kicks_at_info(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with serving() as served, player(served.port) as someone:
            await someone.package()
            served.acceptor.clients[0].kick("enough")
            await closing(someone)

    with caplog.at_level(logging.DEBUG, "gateway"):
        run(main())
    lines = [(record.levelno, record.getMessage()) for record in caplog.records if record.name.startswith("gateway")]
    assert any(level == logging.DEBUG and line.startswith("connector-1: open 127.0.0.1:") for level, line in lines)
    assert any(level == logging.INFO and line.endswith(": enough") for level, line in lines)
    assert any(level == logging.DEBUG and line.endswith(": kick: enough") for level, line in lines)


def test_closing_the_listener_kicks_everybody_and_stops_accepting() -> None:
    async def main() -> None:
        async with serving() as served, player(served.port) as one, player(served.port, working=False) as other:
            await one.package()
            ends = [asyncio.ensure_future(closing(someone)) for someone in (one, other)]
            await asyncio.gather(served.listener.close("restart"), served.listener.close("twice"))
            assert served.acceptor.reasons == ["kick: restart"]
            assert len(served.listener.clients) == 0
            assert await ends[0] == ([(PackageType.KICK, b'{"reason":"restart"}')], 1000)
            assert await ends[1] == ([], 1000)
            with pytest.raises(OSError, match="Connect call failed"):
                await asyncio.open_connection("127.0.0.1", served.port)

    run(main())


def test_closing_the_listener_without_a_reason_sends_no_kick() -> None:
    async def main() -> None:
        async with serving() as served, player(served.port) as someone:
            await someone.package()
            end = asyncio.ensure_future(closing(someone))
            await served.listener.close(None)
            assert served.acceptor.reasons == ["server closed"]
            assert await end == ([], 1000)

    run(main())


def test_closing_the_listener_does_not_wait_for_clients_that_never_answer() -> None:
    async def main() -> None:
        async with serving() as served, raw(served.port) as silent, raw(served.port) as unborn:
            await silent.upgrade()
            unborn.send(b"GET /")
            loop = asyncio.get_running_loop()
            start = loop.time()
            await served.listener.close("bye")
            assert loop.time() - start < 6
            assert await unborn.rest() == b""

    run(main())


def test_closing_the_listener_cancels_handshakes_being_decided() -> None:
    async def main() -> None:
        acceptor = Recorder()
        cancelled: list[bool] = []

        async def decide() -> HandshakeReply:
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.append(True)
            return HandshakeReply()

        acceptor.answer = lambda _client, _request: decide()
        async with serving(acceptor) as served, player(served.port, working=False) as someone:
            await someone.send(HELLO)
            await until(lambda: acceptor.requests)
            end = asyncio.ensure_future(closing(someone))
            await served.listener.close("bye")
            await end
            assert cancelled == [True]

    run(main())


def test_a_port_is_bound_before_it_is_opened_and_a_taken_one_is_an_error() -> None:
    async def main() -> None:
        listener = Listener(Recorder())
        with pytest.raises(RuntimeError, match="not bound"):
            await listener.open()
        port = listener.bind("127.0.0.1", 0)
        assert port > 0
        with pytest.raises(RuntimeError, match="bound already"):
            listener.bind("127.0.0.1", 0)
        with pytest.raises(OSError, match="Connect call failed"):
            await asyncio.open_connection("127.0.0.1", port)
        await listener.open()
        with pytest.raises(RuntimeError, match="open already"):
            await listener.open()
        with pytest.raises(OSError, match="in use"):
            Listener(Recorder()).bind("127.0.0.1", port)
        await listener.close(None)
        again = Listener(Recorder())
        assert again.bind("127.0.0.1", port) == port
        await again.close(None)
        await Listener(Recorder()).close("never bound")

    run(main())


def test_accepted_sockets_do_not_wait_to_gather() -> None:
    async def main() -> None:
        async with serving() as served, player(served.port) as someone:
            await someone.package()
            assert served.listener._hub is not None
            (websocket,) = served.listener._hub.wires
            assert isinstance(websocket, TcpWire)
            accepted = websocket._transport.get_extra_info("socket")
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1

    run(main())


def test_origins_are_checked_if_a_list_is_given() -> None:
    async def main() -> None:
        async with serving(origins=["https://game.example"]) as served:
            url = f"ws://127.0.0.1:{served.port}/"
            async with connect(url, origin="https://game.example"):  # type: ignore[arg-type]
                pass
            with pytest.raises(InvalidStatus, match="403"):
                await connect(url, origin="https://evil.example")  # type: ignore[arg-type]

    run(main())


def test_a_push_that_does_not_fit_the_wire_is_an_error_of_its_sender() -> None:
    listener = Listener(Recorder())
    with pytest.raises(EncodeError):
        listener.encode_push("r" * 256, b"")
    with pytest.raises(EncodeError):
        listener.encode_push("r", bytes(1 << 24))


def test_uvloop_serves_the_same() -> None:
    uvloop = pytest.importorskip("uvloop")

    async def main() -> None:
        async with serving() as served, player(served.port) as someone:
            await someone.send(data_request(1, "a.b.c"))
            assert await someone.data() == b"\x04\x01{}"
            end = asyncio.ensure_future(closing(someone))
            await served.listener.close("bye")
            assert (PackageType.KICK, b'{"reason":"bye"}') in (await end)[0]
            assert served.acceptor.reasons == ["kick: bye"]

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(main(), 20))
