from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_gateway_kit import Recorder, raw, run, serving

from gateway.http import MAX_FILE, Site, encode_answer

SECRET = b"not for the public"


@pytest.fixture
def web(tmp_path: Path) -> Path:
    root = tmp_path / "web"
    (root / "lib").mkdir(parents=True)
    (root / "index.html").write_bytes(b"<p>front</p>")
    (root / "lib" / "index.html").write_bytes(b"<p>lib</p>")
    (root / "lib" / "client.js").write_bytes(b"let a")
    (root / "a b.txt").write_bytes(b"spaced")
    (root / ".hidden").write_bytes(SECRET)
    (tmp_path / "secret.txt").write_bytes(SECRET)
    (tmp_path / "website").mkdir()
    (tmp_path / "website" / "x").write_bytes(SECRET)
    (root / "out").symlink_to(tmp_path / "secret.txt")
    (root / "up").symlink_to(tmp_path)
    (root / "circle").symlink_to(root / "circle")
    (root / "inside.js").symlink_to(root / "lib" / "client.js")
    return root


async def get(port: int, request: bytes) -> bytes:
    async with raw(port) as someone:
        someone.send(request)
        return await someone.rest()


@pytest.mark.parametrize(
    ("target", "content_type", "body"),
    [
        ("/", "text/html; charset=utf-8", b"<p>front</p>"),
        ("/index.html", "text/html; charset=utf-8", b"<p>front</p>"),
        ("/?room=1#top", "text/html; charset=utf-8", b"<p>front</p>"),
        ("/lib/", "text/html; charset=utf-8", b"<p>lib</p>"),
        ("/lib/client.js", "text/javascript; charset=utf-8", b"let a"),
        ("/lib/client.js?v=1", "text/javascript; charset=utf-8", b"let a"),
        ("/inside.js", "text/javascript; charset=utf-8", b"let a"),
        ("/a%20b.txt", "text/plain; charset=utf-8", b"spaced"),
    ],
)
def test_files_are_served_with_their_type(web: Path, target: str, content_type: str, body: bytes) -> None:
    assert Site(web).answer(target) == encode_answer(HTTPStatus.OK, body, content_type)


@pytest.mark.parametrize(
    "target",
    [
        "/nothing",
        "/lib",
        "/../secret.txt",
        "/lib/../../secret.txt",
        "/%2e%2e/secret.txt",
        "/..%2fsecret.txt",
        "/%2e%2e%2fsecret.txt",
        "/%252e%252e/secret.txt",
        "/..%5csecret.txt",
        "/..\\secret.txt",
        "//secret.txt",
        "/../website/x",
        "/out",
        "/up/secret.txt",
        "/circle",
        "/.hidden",
        "/%00",
        "/index.html%00.js",
        "/" + "a" * 5000,
        "/%ff",
    ],
)
def test_nothing_else_is_served(web: Path, target: str) -> None:
    answer = Site(web).answer(target)
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert SECRET not in answer


def test_absolute_paths_of_the_machine_are_not_served(web: Path) -> None:
    secret = web.parent / "secret.txt"
    for target in (str(secret), f"/{secret}", f"//{secret}", f"file://{secret}"):
        assert Site(web).answer(target).startswith(b"HTTP/1.1 404 ")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.sampled_from(["/", "..", ".", "%2e", "%2f", "%5c", "up", "out", "secret.txt", "website", "x", "\\"]))
)
def test_no_path_leads_out(web: Path, parts: list[str]) -> None:
    assert SECRET not in Site(web).answer("/" + "".join(parts))


def test_a_file_that_is_too_large_is_not_served(web: Path) -> None:
    with (web / "big.bin").open("wb") as file:
        file.truncate(MAX_FILE + 1)
    assert Site(web).answer("/big.bin").startswith(b"HTTP/1.1 404 ")


def test_without_a_folder_there_are_no_files() -> None:
    assert Site(None).answer("/").startswith(b"HTTP/1.1 404 ")


def test_files_come_over_the_socket_with_safe_headers(web: Path) -> None:
    async def main() -> None:
        async with serving(web=web) as served:
            answer = await get(served.port, b"GET /lib/client.js HTTP/1.1\r\nHost: x\r\n\r\n")
            head, _, body = answer.partition(b"\r\n\r\n")
            assert body == b"let a"
            assert head.split(b"\r\n") == [
                b"HTTP/1.1 200 OK",
                b"Content-Type: text/javascript; charset=utf-8",
                b"Content-Length: 5",
                b"Cache-Control: no-cache",
                b"X-Content-Type-Options: nosniff",
                b"Connection: close",
            ]
            missing = await get(served.port, b"GET /%2e%2e/secret.txt HTTP/1.1\r\n\r\n")
            assert missing.startswith(b"HTTP/1.1 404 Not Found\r\n")
            assert served.listener._hub is not None
            assert served.listener._hub.answers == 0

    run(main())


@pytest.mark.parametrize(
    ("report", "status", "body"),
    [
        ({"ok": True, "clients": 3}, b"200 OK", b'{"ok":true,"clients":3}'),
        ({}, b"200 OK", b"{}"),
        ({"ok": False}, b"503 Service Unavailable", b'{"ok":false}'),
        ({"ok": object()}, b"503 Service Unavailable", b"503 Service Unavailable\n"),
    ],
)
def test_health_is_reported_as_json(report: Mapping[str, Any], status: bytes, body: bytes) -> None:
    async def main() -> None:
        acceptor = Recorder()
        acceptor.report = report
        async with serving(acceptor) as served:
            for target in (b"/healthz", b"/healthz?verbose"):
                answer = await get(served.port, b"GET " + target + b" HTTP/1.1\r\n\r\n")
                assert answer.startswith(b"HTTP/1.1 " + status)
                assert answer.endswith(b"\r\n\r\n" + body)

    run(main())


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi",
        b"HEAD / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
        b"\x00\x00\x00\x02{}",
        b"GET\r\n\r\n",
        b"GET / HTTP/9\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
    ],
)
def test_what_is_no_plain_get_request_is_closed_without_a_word(request_bytes: bytes) -> None:
    async def main() -> None:
        async with serving() as served:
            assert await get(served.port, request_bytes) == b""

    run(main())


def test_a_broken_upgrade_is_refused() -> None:
    async def main() -> None:
        async with serving() as served:
            answer = await get(served.port, b"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 400 ")
            assert len(served.listener.clients) == 0

    run(main())


def test_a_client_may_end_its_side_before_the_answer(web: Path) -> None:
    async def main() -> None:
        async with serving(web=web) as served, raw(served.port) as someone:
            someone.send(b"GET / HTTP/1.1\r\n\r\n")
            someone.writer.write_eof()
            assert (await someone.rest()).endswith(b"<p>front</p>")

    run(main())


def test_answers_under_way_are_bounded(web: Path) -> None:
    async def main() -> None:
        async with serving(web=web) as served:
            assert served.listener._hub is not None
            served.listener._hub.answers += 64
            answer = await get(served.port, b"GET / HTTP/1.1\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 503 ")
            served.listener._hub.answers -= 64
            assert served.listener._hub.answers == 0

    run(main())
