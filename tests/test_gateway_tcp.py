"""Plain TCP beside WebSocket on one port, TLS under both, and clients behind proxies: over real sockets."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Self

import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st
from test_gateway_kit import (
    ACK,
    HEARTBEAT,
    HELLO,
    LOOPS,
    UPGRADE,
    Player,
    Raw,
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
from test_gateway_opening import HEADERS, binary
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from gateway import (
    HandshakeReply,
    Limits,
    Message,
    MessageType,
    PackageDecoder,
    PackageType,
    RouteDictionary,
    encode_package,
    encode_request,
    server_context,
)
from gateway.tcp import TcpWire
from gateway.tls import Tls

Loop = Callable[[], asyncio.AbstractEventLoop]
LOCAL = ["127.0.0.0/8"]
LINE = b"PROXY TCP4 192.0.2.7 10.0.0.1 4242 3050\r\n"
BINARY = binary(0x21, 0x11, bytes((192, 0, 2, 7, 10, 0, 0, 1)) + (4242).to_bytes(2, "big") + (3050).to_bytes(2, "big"))

loops = pytest.mark.parametrize("loop", LOOPS, ids=["asyncio", "uvloop"])


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def server(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    return context


@pytest.fixture(scope="module")
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


async def to_the_end(someone: Raw) -> list[tuple[int, bytes]]:
    """Return all packages up to an orderly end."""
    data = await someone.reader.read()
    decoder = PackageDecoder(0xFFFFFF)
    packages: list[tuple[int, bytes]] = list(decoder.feed(data))
    assert sum(4 + len(body) for _, body in packages) == len(data)
    return packages


# -- plain TCP


@loops
def test_a_plain_client_shakes_hands_asks_is_pushed_to_and_kicked(loop: Loop) -> None:
    async def main() -> None:
        dictionary = RouteDictionary(["a.b.c"], ["onChat"])
        async with serving(dictionary=dictionary) as served, raw(served.port) as someone:
            answer = await someone.shake_hands()
            assert answer["sys"]["dict"] == {"a.b.c": 1, "onChat": 2}
            someone.send(ACK)
            assert await someone.package() == (PackageType.HEARTBEAT, b"")
            someone.send(encode_package(PackageType.DATA, encode_request(300, 1, b'{"a":1}')))
            assert await someone.package() == (PackageType.DATA, bytes.fromhex("04ac02") + b'{"a":1}')
            assert served.acceptor.messages == [Message(MessageType.REQUEST, 300, "a.b.c", b'{"a":1}', 1)]
            (client,) = served.acceptor.clients
            assert client.address == someone.writer.get_extra_info("sockname")
            client.send(served.listener.encode_push("onChat", b"{}"))
            client.kick("bye")
            assert await to_the_end(someone) == [
                (PackageType.DATA, b"\x07\x00\x02{}"),
                (PackageType.KICK, b'{"reason":"bye"}'),
            ]
            someone.writer.close()
            await until(lambda: not served.listener._hub or not served.listener._hub.wires)
            assert served.acceptor.reasons == ["kick: bye"]

    run(main(), loop)


def test_both_kinds_share_a_port_the_frames_and_the_limits() -> None:
    async def main() -> None:
        limits = Limits(heartbeat=None, connections=2)
        async with (
            serving(limits=limits) as served,
            player(served.port) as browser,
            raw(served.port) as native,
            raw(served.port) as third,
        ):
            await native.shake_hands()
            native.send(ACK)
            await until(lambda: len(served.acceptor.clients) == 2)
            frame = served.listener.encode_push("onChat", b"{}")
            for client in served.acceptor.clients:
                client.send(frame)
            assert await browser.data() == await native.data() == frame.package[4:]
            third.send(HELLO)
            assert await third.rest() == b""
            with pytest.raises(InvalidStatus, match="503"):
                await connect(f"ws://127.0.0.1:{served.port}/")

    run(main())


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0), max_size=10))
def test_any_split_of_a_plain_stream_is_understood(places: list[int]) -> None:
    stream = HELLO + ACK + data_request(1, "a.b.c") + HEARTBEAT + data_request(2, "a.b.c", bytes(200))

    async def main() -> None:
        async with serving() as served, raw(served.port) as someone:
            for piece in cut(stream, places):
                someone.send(piece)
                await asyncio.sleep(0)
            await until(lambda: len(served.acceptor.messages) == 2)
            assert [message.id for message in served.acceptor.messages] == [1, 2]

    run(main())


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.integers(0), max_size=8), st.sampled_from(["tcp", "websocket"]), st.sampled_from([b"", LINE, BINARY])
)
def test_any_split_of_the_first_bytes_gives_the_same_client(places: list[int], kind: str, header: bytes) -> None:
    stream = HELLO + ACK if kind == "tcp" else UPGRADE + client_frame(HELLO) + client_frame(ACK)

    async def main() -> None:
        async with serving(trusted_proxies=LOCAL) as served, raw(served.port) as someone:
            for piece in cut(header + stream, [place % 60 for place in places]):
                someone.send(piece)
                await asyncio.sleep(0)
            await until(lambda: served.acceptor.clients)
            (client,) = served.acceptor.clients
            assert type(client._wire).__name__ == {"tcp": "Stream", "websocket": "WebSocket"}[kind]
            assert (client.address == ("192.0.2.7", 4242)) == bool(header)

    run(main())


@pytest.mark.parametrize("first", [b"\x00", b"\x06", b"\x16\x03\x01", b"{", b"POST / HTTP/1.1\r\n\r\n", LINE, BINARY])
def test_a_first_byte_that_is_neither_http_nor_a_package_closes(first: bytes) -> None:
    async def main() -> None:
        async with serving() as served, raw(served.port) as someone:
            someone.send(first + HELLO)
            assert await someone.rest() == b""
            assert served.acceptor.requests == []

    run(main())


def test_a_later_byte_that_is_no_package_type_closes() -> None:
    async def main() -> None:
        async with serving(limits=Limits(heartbeat=None)) as served, raw(served.port) as someone:
            await someone.shake_hands()
            someone.send(ACK + data_request(1, "a.b.c") + b"\x07\x00\x00\x00")
            assert await to_the_end(someone) == [(PackageType.DATA, b"\x04\x01{}")]
            await until(lambda: served.acceptor.reasons == ["bad package: unknown package type 7"])

    run(main())


@pytest.mark.parametrize("sent", [HELLO[:7], HELLO, HELLO + ACK[:2]])
def test_half_a_conversation_is_cut_at_the_handshake_deadline(sent: bytes) -> None:
    async def main() -> None:
        limits = Limits(handshake_timeout=0.2, heartbeat=None)
        async with serving(limits=limits) as served, raw(served.port) as someone:
            someone.send(sent)
            await someone.rest()
            someone.writer.close()
            await until(lambda: not served.listener.clients)
            assert served.acceptor.reasons == []

    run(main())


def test_half_a_package_and_then_silence_is_cut_by_the_heartbeat() -> None:
    async def main() -> None:
        async with serving(limits=Limits(heartbeat=0.1)) as served, raw(served.port) as someone:
            await someone.shake_hands()
            someone.send(ACK + data_request(1, "a.b.c")[:-1])
            assert {kind for kind, _ in await to_the_end(someone)} == {PackageType.HEARTBEAT}
            assert served.acceptor.reasons == ["heartbeat timeout"]

    run(main())


def test_a_package_over_the_limit_closes_at_its_header() -> None:
    async def main() -> None:
        async with serving(limits=Limits(message_size=1000)) as served, raw(served.port) as someone:
            await someone.shake_hands()
            someone.send(ACK + b"\x04\x00\x03\xe9")
            await to_the_end(someone)
            expected = "message too large: package of 1001 bytes, at most 1000 allowed"
            await until(lambda: served.acceptor.reasons == [expected])

    run(main())


@loops
def test_a_plain_client_that_reads_nothing_is_cut(loop: Loop) -> None:
    async def main() -> None:
        limits = Limits(outgoing=256 * 1024, heartbeat=None)
        async with serving(limits=limits) as served:
            deaf = socket.create_connection(("127.0.0.1", served.port))
            with deaf:
                deaf.sendall(HELLO + ACK)
                await until(lambda: served.acceptor.clients)
                (client,) = served.acceptor.clients
                frame = served.listener.encode_push("onFlood", bytes(60_000))
                while not client.closed:
                    client.send(frame)
                    await asyncio.sleep(0)
                await until(lambda: served.acceptor.reasons == ["slow consumer"])

    run(main(), loop)


def test_a_client_that_does_not_close_after_us_is_dropped() -> None:
    async def main() -> None:
        async with serving(limits=Limits(heartbeat=0.2)) as served, raw(served.port) as someone:
            await someone.shake_hands()
            someone.send(ACK)
            await until(lambda: served.acceptor.clients)
            served.acceptor.clients[0].kick("bye")
            someone.send(data_request(1, "a.b.c"))
            assert (await to_the_end(someone))[-1] == (PackageType.KICK, b'{"reason":"bye"}')
            assert served.acceptor.messages == []
            await until(lambda: not served.listener._hub or not served.listener._hub.wires)

    run(main())


@pytest.mark.parametrize("code", [501, 503])
def test_a_refused_handshake_is_answered_with_its_code_then_closed(code: int) -> None:
    async def main() -> None:
        acceptor = Recorder()
        acceptor.answer = lambda _client, request: HandshakeReply(code if request.version == "1.1.1" else 200)
        async with serving(acceptor) as served, raw(served.port) as someone:
            someone.send(HELLO + ACK)
            assert await to_the_end(someone) == [(PackageType.HANDSHAKE, b'{"code":%d}' % code)]
            assert acceptor.clients == []

    run(main())


def test_closing_the_listener_kicks_plain_clients() -> None:
    async def main() -> None:
        async with serving(limits=Limits(heartbeat=None)) as served, raw(served.port) as someone, raw(served.port):
            await someone.shake_hands()
            someone.send(ACK)
            await until(lambda: served.acceptor.clients)
            ending = asyncio.ensure_future(served.listener.close("restart"))
            assert await to_the_end(someone) == [(PackageType.KICK, b'{"reason":"restart"}')]
            someone.writer.close()
            await ending

    run(main())


# -- TLS


@loops
def test_tls_serves_both_kinds_and_http(server: ssl.SSLContext, trusting: ssl.SSLContext, loop: Loop) -> None:
    async def main() -> None:
        async with serving(tls=server) as served, raw(served.port, tls=trusting) as native:
            url = f"wss://localhost:{served.port}/"
            async with connect(url, ssl=trusting, compression=None, ping_interval=None) as websocket:
                browser = Player(websocket)
                await browser.shake_hands()
                await browser.send(ACK, data_request(1, "a.b.c", bytes(40_000)))
                assert await browser.data() == b"\x04\x01" + bytes(40_000)
                await native.shake_hands()
                native.send(ACK + data_request(2, "a.b.c", bytes(60_000)))
                assert await native.data() == b"\x04\x02" + bytes(60_000)
                for client in served.acceptor.clients:
                    client.kick("bye")
                assert await to_the_end(native) == [(PackageType.KICK, b'{"reason":"bye"}')]
                assert (await closing(browser))[1] == 1000
            native.writer.close()
            async with raw(served.port, tls=trusting) as prober:
                prober.send(b"GET /healthz HTTP/1.1\r\n\r\n")
                assert (await prober.rest()).endswith(b'{"ok":true}')

    run(main(), loop)


BROKEN = b"\x17\x03\x03\x00\x20" + bytes(32)
"""A record that nobody made."""


class TlsClient:
    """A TLS client without a socket, whose bytes are sent in pieces."""

    def __init__(self, someone: Raw, trusting: ssl.SSLContext, places: list[int]) -> None:
        self.someone = someone
        self.places = places
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.core = trusting.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")

    @classmethod
    async def shaken(cls, someone: Raw, trusting: ssl.SSLContext, places: list[int]) -> Self:
        """Return one that has shaken hands."""
        client = cls(someone, trusting, places)
        while True:
            try:
                client.core.do_handshake()
                return client
            except ssl.SSLWantReadError:
                await client.send()
                client.incoming.write(await someone.reader.read(65536))

    async def send(self, after: bytes = b"") -> None:
        """Send what was encrypted, and something after it."""
        for piece in cut(self.outgoing.read() + after, self.places):
            self.someone.send(piece)
            await asyncio.sleep(0)


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(0, 3000), max_size=12))
def test_any_split_of_tls_bytes_is_understood_and_what_breaks_after_them_takes_none_along(places: list[int]) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)

    async def main() -> None:
        async with serving(tls=context) as served, raw(served.port) as someone:
            client = await TlsClient.shaken(someone, trusting, places)
            client.core.write(HELLO + ACK + data_request(1, "a.b.c"))
            await client.send(BROKEN)
            await until(lambda: served.acceptor.messages)
            await someone.rest()
            await until(lambda: served.acceptor.reasons == ["client closed"])

    run(main())


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "page.html").write_text("a page")
    return tmp_path


@loops
def test_a_request_over_tls_whose_client_ends_its_side_after_it_is_answered(
    server: ssl.SSLContext, trusting: ssl.SSLContext, loop: Loop, site: Path
) -> None:
    async def main() -> None:
        async with serving(tls=server, web=site) as served, raw(served.port) as someone:
            client = await TlsClient.shaken(someone, trusting, [])
            client.core.write(b"GET /page.html HTTP/1.1\r\n\r\n")
            with pytest.raises(ssl.SSLWantReadError):
                client.core.unwrap()
            await client.send()
            someone.writer.write_eof()
            client.incoming.write(await someone.rest())
            assert client.core.read(65536).endswith(b"a page")

    run(main(), loop)


@pytest.mark.parametrize("asked", [b"GET / HTTP/1.1\r\n", b"GET /page.html HTTP/1.1\r\n\r\n"])
def test_a_request_over_tls_that_breaks_is_not_answered(
    server: ssl.SSLContext, trusting: ssl.SSLContext, asked: bytes, site: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with serving(tls=server, web=site) as served, raw(served.port) as someone:
            client = await TlsClient.shaken(someone, trusting, [])
            client.core.write(asked)
            await client.send(BROKEN)
            client.incoming.write(await someone.rest())
            with pytest.raises(ssl.SSLError):
                client.core.read(65536)
            assert served.listener._hub is not None
            await until(lambda: not served.listener._hub or not served.listener._hub.guests)

    with caplog.at_level(logging.WARNING):
        run(main())
    assert caplog.records == []


def test_with_tls_nothing_else_is_spoken(server: ssl.SSLContext) -> None:
    async def main() -> None:
        async with serving(tls=server, limits=Limits(handshake_timeout=0.3)) as served:
            for sent in (b"GET /healthz HTTP/1.1\r\n\r\n", HELLO + ACK, b"\x16\x03\x01\x00\x05hello", b"\x16\x03"):
                async with raw(served.port) as someone:
                    someone.send(sent)
                    assert not (await someone.rest()).startswith((b"HTTP", b"\x01"))
            assert served.acceptor.requests == []
            assert served.listener._hub is not None
            await until(lambda: not served.listener._hub or not served.listener._hub.guests)

    run(main())


def test_a_tls_client_that_ends_its_side_or_goes_is_closed(server: ssl.SSLContext, trusting: ssl.SSLContext) -> None:
    async def main() -> None:
        async with serving(tls=server) as served:
            for ending in ("close", "abort"):
                async with raw(served.port, tls=trusting) as someone:
                    await someone.shake_hands()
                    someone.send(ACK)
                    await someone.package()
                    getattr(someone.writer.transport, ending)()
                    await until(lambda: not served.listener._hub or not served.listener._hub.wires)
            assert len(served.acceptor.reasons) == 2

    run(main())


def test_a_tls_client_that_reads_nothing_is_cut(server: ssl.SSLContext, trusting: ssl.SSLContext) -> None:
    async def main() -> None:
        limits = Limits(outgoing=256 * 1024, heartbeat=None)
        async with serving(tls=server, limits=limits) as served, raw(served.port, tls=trusting) as someone:
            await someone.shake_hands()
            someone.send(ACK)
            someone.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await until(lambda: served.acceptor.clients)
            frame = served.listener.encode_push("onFlood", bytes(60_000))
            while not served.acceptor.clients[0].closed:
                served.acceptor.clients[0].send(frame)
                await asyncio.sleep(0)
            await until(lambda: served.acceptor.reasons == ["slow consumer"])

    run(main())


@loops
def test_a_tls_client_that_breaks_its_stream_and_reads_nothing_does_not_stay(
    server: ssl.SSLContext, trusting: ssl.SSLContext, loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        limits = Limits(outgoing=1 << 24, heartbeat=None)
        async with serving(tls=server, limits=limits) as served, raw(served.port, tls=trusting) as someone:
            await someone.shake_hands()
            someone.send(ACK)
            someone.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await until(lambda: served.acceptor.clients)
            (client,) = served.acceptor.clients
            client.send(served.listener.encode_push("onFlood", bytes(8_000_000)))
            await until(lambda: client.waiting > 1_000_000)
            assert served.listener._hub is not None
            (wire,) = served.listener._hub.wires
            assert isinstance(wire, TcpWire)
            assert isinstance(wire._transport, Tls)
            # In one turn: what was queued is to be written to a stream that has broken meanwhile.
            client.send(served.listener.encode_push("onFlood", b"late"))
            wire._transport.data_received(BROKEN)
            assert client.closed
            await until(lambda: not served.listener._hub or not served.listener._hub.wires)

    with caplog.at_level(logging.WARNING):
        run(main(), loop)
    assert caplog.records == []


@pytest.fixture
def files(tmp_path: Path, authority: trustme.CA) -> Path:
    issued = authority.issue_cert("localhost")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    authority.issue_cert("localhost").private_key_pem.write_to_path(tmp_path / "other.pem")
    (tmp_path / "garbage.pem").write_text("no certificate")
    (tmp_path / "locked.pem").write_text(
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIGjMF8GCSqGSIb3DQEFDTBSMDEGCSqGSIb3DQEFDDAkBBA=\n"
        "-----END ENCRYPTED PRIVATE KEY-----\n"
    )
    return tmp_path


@pytest.mark.parametrize(
    ("certificate", "key", "told"),
    [
        ("none.pem", "key.pem", "cannot read .*none.pem: No such file or directory"),
        ("cert.pem", "none.pem", "cannot read .*none.pem: No such file or directory"),
        (".", "key.pem", "Is a directory"),
        ("cert.pem", "other.pem", "other.pem does not belong to the certificate .*cert.pem"),
        ("garbage.pem", "key.pem", "garbage.pem and .*key.pem are no certificate and its key without a password"),
        ("cert.pem", "garbage.pem", "cert.pem and .*garbage.pem are no certificate and its key without a password"),
        ("cert.pem", "locked.pem", "cert.pem and .*locked.pem are no certificate and its key without a password"),
    ],
)
def test_files_that_do_not_do_are_told_in_one_line(files: Path, certificate: str, key: str, told: str) -> None:
    with pytest.raises(ValueError, match=told) as error:
        server_context(files / certificate, files / key)
    assert "\n" not in str(error.value)


def test_files_that_do_are_taken(files: Path) -> None:
    assert server_context(files / "cert.pem", files / "key.pem").minimum_version == ssl.TLSVersion.TLSv1_2


# -- behind proxies


@loops
@pytest.mark.parametrize("header", HEADERS, ids=repr)
def test_a_trusted_proxys_header_tells_the_clients_address(header: bytes, loop: Loop) -> None:
    async def main() -> None:
        async with serving(trusted_proxies=LOCAL) as served, raw(served.port, before=header) as someone:
            someone.send(HELLO + ACK)
            await until(lambda: served.acceptor.clients)
            own = someone.writer.get_extra_info("sockname")
            assert served.acceptor.clients[0].address == (HEADERS[header] or own)

    run(main(), loop)


@loops
@pytest.mark.parametrize("header", [b"", LINE, BINARY], ids=["none", "v1", "v2"])
def test_a_proxys_header_stands_before_tls(
    header: bytes, server: ssl.SSLContext, trusting: ssl.SSLContext, loop: Loop
) -> None:
    async def main() -> None:
        async with (
            serving(trusted_proxies=LOCAL, tls=server) as served,
            raw(served.port, before=header, tls=trusting) as someone,
        ):
            await someone.shake_hands()
            someone.send(ACK)
            await until(lambda: served.acceptor.clients)
            assert (served.acceptor.clients[0].address == ("192.0.2.7", 4242)) == bool(header)

    run(main(), loop)


def test_a_broken_proxy_header_or_two_of_them_close() -> None:
    async def main() -> None:
        async with serving(trusted_proxies=LOCAL) as served:
            for sent in (b"PROXY TCP4 nonsense\r\n", LINE + LINE, LINE + BINARY, LINE + b"\x16\x03\x01"):
                async with raw(served.port) as someone:
                    someone.send(sent + HELLO)
                    assert await someone.rest() == b""
            assert served.acceptor.requests == []

    run(main())


def test_half_a_proxy_header_is_cut_at_the_handshake_deadline() -> None:
    async def main() -> None:
        limits = Limits(handshake_timeout=0.2)
        async with serving(trusted_proxies=LOCAL, limits=limits) as served, raw(served.port) as someone:
            someone.send(LINE[:20])
            assert await someone.rest() == b""

    run(main())


@pytest.mark.parametrize(
    ("trusted", "before", "header", "expected"),
    [
        (LOCAL, b"", b"192.0.2.7", "192.0.2.7"),
        (LOCAL, b"", b"1.1.1.1, 192.0.2.7", "192.0.2.7"),
        ([*LOCAL, "192.0.2.0/24"], b"", b"1.1.1.1, 192.0.2.7", "1.1.1.1"),
        ([], b"", b"192.0.2.7", "127.0.0.1"),
        (["10.0.0.0/8"], b"", b"192.0.2.7", "127.0.0.1"),
        (LOCAL, LINE, b"1.1.1.1", "192.0.2.7"),
        ([*LOCAL, "192.0.2.0/24"], LINE, b"1.1.1.1", "1.1.1.1"),
    ],
)
def test_x_forwarded_for_is_believed_from_trusted_proxies_only(
    trusted: list[str], before: bytes, header: bytes, expected: str
) -> None:
    async def main() -> None:
        async with serving(trusted_proxies=trusted) as served, raw(served.port, before=before) as someone:
            someone.send(UPGRADE[:-2] + b"X-Forwarded-For: " + header + b"\r\n\r\n")
            someone.send(client_frame(HELLO) + client_frame(ACK))
            await until(lambda: served.acceptor.clients)
            assert served.acceptor.clients[0].address[0] == expected

    run(main())


# -- the deny list


def test_a_denied_address_is_disconnected_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with serving(denied=LOCAL) as served:
            for sent in (HELLO, UPGRADE, b"GET /healthz HTTP/1.1\r\n\r\n"):
                async with raw(served.port) as someone:
                    someone.send(sent)
                    assert await someone.rest() == b""
            assert served.listener._hub is not None
            assert not served.listener._hub.guests

    with caplog.at_level(logging.DEBUG, logger="gateway"):
        run(main())
    assert "connector-1: drop 127.0.0.1:" in caplog.text
    assert all(record.levelno <= logging.INFO for record in caplog.records)


def test_the_deny_list_is_replaced_at_run_time_and_those_who_are_in_stay() -> None:
    async def main() -> None:
        async with serving(denied=["192.0.2.7"]) as served, player(served.port) as staying:
            served.listener.deny(["127.0.0.1", "::/0"])
            async with raw(served.port) as someone:
                someone.send(HELLO)
                assert await someone.rest() == b""
            await staying.send(data_request(1, "a.b.c"))
            assert await staying.data() == b"\x04\x01{}"
            with pytest.raises(ValueError, match="nowhere"):
                served.listener.deny(["nowhere"])
            served.listener.deny([])
            async with raw(served.port) as someone:
                await someone.shake_hands()

    run(main())


def test_the_address_behind_a_proxy_is_what_is_denied() -> None:
    async def main() -> None:
        async with serving(trusted_proxies=LOCAL, denied=["192.0.2.0/24"]) as served:
            for header in (LINE, BINARY):
                async with raw(served.port, before=header) as someone:
                    someone.send(HELLO)
                    assert await someone.rest() == b""
            for request in (UPGRADE, b"GET /healthz HTTP/1.1\r\n\r\n"):
                async with raw(served.port) as someone:
                    someone.send(request[:-2] + b"X-Forwarded-For: 192.0.2.7\r\n\r\n")
                    assert (await someone.rest()).startswith(b"HTTP/1.1 403 ")
            async with raw(served.port) as someone:
                await someone.shake_hands()

    run(main())
