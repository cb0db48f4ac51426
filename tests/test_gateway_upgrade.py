"""The request for a WebSocket: ours must accept nothing that the library refuses, and answer as it does."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from gateway.upgrade import upgrade_answer

CHROME = (
    b"GET /?a=b HTTP/1.1\r\nHost: game.example:3050\r\nConnection: Upgrade\r\nPragma: no-cache\r\n"
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\nUpgrade: websocket\r\nOrigin: http://game.example\r\n"
    b"Sec-WebSocket-Version: 13\r\nAccept-Encoding: gzip, deflate, br\r\nCookie: a=1; b=2\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n"
)
FIREFOX = CHROME.replace(b"Connection: Upgrade", b"Connection: keep-alive, Upgrade")
HEADERS = (
    b"Host: h",
    b"Upgrade: websocket",
    b"upgrade:WebSocket \t",
    b"Upgrade: h2c",
    b"Connection: Upgrade",
    b"Connection: keep-alive , upgrade",
    b"Connection: close",
    b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Version: 8",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZR==",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ",
    b"Sec-WebSocket-Key: !",
    b"Sec-WebSocket-Protocol: pomelo",
    b"Content-Length: 0",
    b"Content-Length: 5",
    b"Transfer-Encoding: chunked",
    b"X: \xff",
    b"X",
    b": x",
    b"X : x",
    b" folded",
    b"X: a\x00b",
    b"",
)


def answer_of_the_core(head: bytes) -> bytes | None:
    """Return the accept header's value in the library's answer, None if it refuses."""
    core = ServerProtocol(origins=None, max_size=None)
    core.receive_data(head)
    requests = core.events_received()
    if not requests or not isinstance(requests[0], Request):
        return None
    response = core.accept(requests[0])
    core.send_response(response)
    return response.headers["Sec-WebSocket-Accept"].encode() if core.state is State.OPEN else None


def accept_of(answer: bytes | None) -> bytes | None:
    if answer is None:
        return None
    lines = answer.split(b"\r\n")
    assert lines[0] == b"HTTP/1.1 101 Switching Protocols"
    assert b"Upgrade: websocket" in lines
    assert b"Connection: Upgrade" in lines
    assert answer.endswith(b"\r\n\r\n")
    return next(line for line in lines if line.startswith(b"Sec-WebSocket-Accept: ")).partition(b": ")[2]


def test_the_requests_of_browsers_are_plain_ones() -> None:
    # The key and its answer are those of RFC 6455 section 1.3.
    for head in (CHROME, FIREFOX):
        assert accept_of(upgrade_answer(head)) == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" == answer_of_the_core(head)


def test_what_is_too_long_is_left_to_the_library() -> None:
    assert upgrade_answer(CHROME[:-2] + b"X: " + b"x" * 4096 + b"\r\n\r\n") is None
    assert upgrade_answer(CHROME[:-2] + b"X: x\r\n" * 120 + b"\r\n") is None


@given(
    st.sampled_from(
        [b"GET / HTTP/1.1", b"GET  / HTTP/1.1", b"POST / HTTP/1.1", b"GET / HTTP/1.0", b"GET /\xff HTTP/1.1"]
    ),
    st.lists(st.sampled_from(HEADERS), max_size=9),
)
@example(b"GET / HTTP/1.1", [HEADERS[0], HEADERS[1], HEADERS[4], HEADERS[7], HEADERS[9]])
@example(b"GET / HTTP/1.1", [HEADERS[2], HEADERS[5], HEADERS[7], HEADERS[10]])
def test_what_is_accepted_here_the_library_accepts_with_the_same_answer(line: bytes, headers: list[bytes]) -> None:
    head = b"\r\n".join((line, *headers)) + b"\r\n\r\n"
    head = head[: head.index(b"\r\n\r\n") + 4]
    accepted = accept_of(upgrade_answer(head))
    if accepted is not None:
        assert accepted == answer_of_the_core(head)


@given(st.integers(0, len(CHROME) - 1), st.binary(max_size=3))
def test_a_request_damaged_anywhere_is_accepted_only_where_the_library_accepts_it(at: int, put: bytes) -> None:
    head = CHROME[:at] + put + CHROME[at + 1 :]
    end = head.find(b"\r\n\r\n")
    if end >= 0 and (accepted := accept_of(upgrade_answer(head[: end + 4]))) is not None:
        assert accepted == answer_of_the_core(head[: end + 4])
