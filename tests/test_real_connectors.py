"""Every way into a frontend, over real sockets, Ray and processes: plain TCP, WebSocket, TLS under both, UDP."""

import asyncio
import shutil
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from pomelo_client import Closed, PomeloClient
from running import ROOT, RunningGame
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin

pytestmark = pytest.mark.real

SERVERS = """
app: edge_app:app
servers:
  connector:
    frontend: true
    dictionary: true
    trusted_proxies: [127.0.0.0/8]
    deny: [192.0.2.0/24]
    origins: [https://game.example]
  secure: {frontend: true, advertise: localhost, tls: {certificate: cert.pem, key: key.pem}}
  fast: {frontend: true, transport: udp}
  area: {}
"""
EDGE_APP = """
from app import app
from handlers import Accepted, Refused

@app.handshake
async def check(handshake, server):
    if handshake.client_type == "ancient":
        raise Refused(501)
    return Accepted(user=handshake.address[0])

for route in ("secure.entry.login", "fast.entry.login"):
    @app.handler(route)
    async def login(msg: dict, session):
        await session.bind(msg["uid"])
"""


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture(scope="module")
def edges(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGame]:
    """A game with a frontend of each kind."""
    folder: Path = tmp_path_factory.mktemp("edges")
    shutil.copy(ROOT / "tests" / "game" / "app.py", folder)
    (folder / "edge_app.py").write_text(EDGE_APP)
    (folder / "servers.yaml").write_text(SERVERS)
    issued = authority.issue_cert("127.0.0.1", "localhost")
    issued.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    with RunningGame(folder / "servers.yaml") as running:
        yield running


def plain(url: str) -> str:
    """Return the URL of the plain stream beside a WebSocket."""
    return url.replace("ws", "tcp", 1)


def test_each_frontend_prints_how_it_is_reached(edges: RunningGame) -> None:
    reached = {server_id: url.rpartition(":")[0] for server_id, url in edges.urls.items()}
    assert reached == {"connector-1": "ws://127.0.0.1", "secure-1": "wss://localhost", "fast-1": "udp://127.0.0.1"}


def test_all_kinds_of_clients_chat_in_one_room(edges: RunningGame, trusting: ssl.SSLContext) -> None:
    async def scenario() -> None:
        connector, secure, fast = (edges.urls[f"{kind}-1"] for kind in ("connector", "secure", "fast"))
        async with (
            PomeloClient(connector) as web,
            PomeloClient(plain(connector)) as native,
            PomeloClient(secure, tls=trusting) as secure_web,
            PomeloClient(secure.replace("wss", "tcps"), tls=trusting) as secure_native,
            PomeloClient(fast) as udp,
        ):
            assert native.welcome["sys"]["dict"] == web.welcome["sys"]["dict"]
            everybody = {"web": web, "native": native, "secure-web": secure_web, "secure-native": secure_native}
            for uid, client in (everybody | {"udp": udp}).items():
                kind = "fast" if uid == "udp" else "secure" if uid.startswith("secure") else "connector"
                assert await client.request(f"{kind}.entry.login", {"uid": uid}) == {}
                assert (await client.request("area.room.join", {"room": "all"}))["present"]
            for uid, client in (everybody | {"udp": udp}).items():
                assert await client.request("area.room.say", {"room": "all", "text": "hi"}) == {"failed": []}
                for other in (*everybody.values(), udp):
                    assert await other.pushed("onSaid") == {"text": "hi", "from": uid}

    asyncio.run(scenario())


def test_the_apps_refusal_of_a_client_type_reaches_it_as_501(edges: RunningGame, trusting: ssl.SSLContext) -> None:
    async def scenario() -> None:
        for server_id, url in edges.urls.items():
            tls = trusting if server_id == "secure-1" else None
            with pytest.raises(Closed, match="501"):
                async with PomeloClient(url, client_type="ancient", tls=tls):
                    pass

    asyncio.run(scenario())


def test_a_browser_is_let_in_from_the_origins_that_are_allowed_and_from_no_other(edges: RunningGame) -> None:
    async def scenario() -> None:
        url = edges.urls["connector-1"]
        async with connect(url, origin=Origin("https://game.example")) as allowed:
            await allowed.send(b'\x01\x00\x00\x0a{"sys":{}}')
            answer = await asyncio.wait_for(allowed.recv(), 10)
            assert isinstance(answer, bytes)
            assert b'"code":200' in answer
        for origin in ("https://evil.example", "https://game.example.evil.example", "http://game.example", "null"):
            with pytest.raises(InvalidStatus, match="403"):
                await connect(url, origin=Origin(origin))

    asyncio.run(scenario())


def test_an_address_behind_a_proxy_is_known_to_the_app_and_may_be_denied(edges: RunningGame) -> None:
    port = edges.port("connector-1")
    for source, told in (("198.51.100.7", b'"user":"198.51.100.7"}'), ("192.0.2.7", b"")):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as proxy:
            proxy.sendall(f"PROXY TCP4 {source} 10.0.0.1 4242 {port}\r\n".encode())
            try:
                proxy.sendall(b'\x01\x00\x00\x0a{"sys":{}}')
                assert proxy.recv(65536).endswith(told)
            except (ConnectionResetError, BrokenPipeError):
                assert not told
