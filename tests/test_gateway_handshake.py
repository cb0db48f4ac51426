from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import HandshakeError, HandshakeRequest, PackageDecoder, PackageType, RouteDictionary, parse_handshake
from gateway.handshake import HandshakeResponder

DICTIONARY = RouteDictionary(["chat.chatHandler.send"], ["onChat"])
CODES = '{"chat.chatHandler.send":1,"onChat":2}'
FULL = (
    f'{{"code":200,"sys":{{"heartbeat":30,"dict":{CODES},"routeToCode":{CODES},'
    f'"codeToRoute":{{"1":"chat.chatHandler.send","2":"onChat"}},"dictVersion":"{DICTIONARY.version}","useDict":true}}'
)


def body_of(package: bytes) -> str:
    ((kind, body),) = PackageDecoder(0xFFFFFF).feed(package)
    assert kind is PackageType.HANDSHAKE
    return body.decode()


def test_a_request_is_read_in_full() -> None:
    body = b'{"sys":{"version":"0.3.0","type":"js","dictVersion":"d","protoVersion":"p","rsa":{}},"user":{"a":[1]}}'
    assert parse_handshake(body) == HandshakeRequest("0.3.0", "js", "d", "p", {"a": [1]})


def test_what_a_request_leaves_out_or_gets_wrong_is_empty() -> None:
    assert parse_handshake(b'{"sys":{}}') == HandshakeRequest()
    assert parse_handshake(b'{"sys":{"version":3,"type":null,"dictVersion":0}}') == HandshakeRequest()


@pytest.mark.parametrize(
    "body",
    [b"", b"x", b"{", b"[]", b"null", b"{}", b'{"sys":null}', b'{"sys":1}', b'{"user":1}', b"\xff", b"[" * 60_000],
)
def test_a_body_without_sys_is_refused(body: bytes) -> None:
    with pytest.raises(HandshakeError):
        parse_handshake(body)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_request_or_a_handshake_error(body: bytes) -> None:
    with suppress(HandshakeError):
        parse_handshake(body)


@pytest.mark.parametrize(
    ("heartbeat", "dictionary", "known", "user", "answer"),
    [
        (30.0, DICTIONARY, None, None, FULL + "}"),
        (30.0, DICTIONARY, "other", None, FULL + "}"),
        (30.0, DICTIONARY, DICTIONARY.version, None, '{"code":200,"sys":{"heartbeat":30,"useDict":true}}'),
        (30.0, DICTIONARY, None, {"name": "é"}, FULL + ',"user":{"name":"é"}}'),
        (3, None, None, None, '{"code":200,"sys":{"heartbeat":3}}'),
        (0.5, None, "any", None, '{"code":200,"sys":{"heartbeat":0.5}}'),
        (None, None, None, 0, '{"code":200,"sys":{},"user":0}'),
        (0, None, None, False, '{"code":200,"sys":{},"user":false}'),
    ],
)
def test_the_answer_has_pomelos_members_in_pomelos_order(
    heartbeat: float | None, dictionary: RouteDictionary | None, known: str | None, user: Any, answer: str
) -> None:
    responder = HandshakeResponder(heartbeat, dictionary)
    assert body_of(responder.accept(HandshakeRequest(dict_version=known), user)) == answer


def test_a_refusal_is_its_code_and_perhaps_user_data() -> None:
    responder = HandshakeResponder(30, DICTIONARY)
    assert responder.refuse(500) == b'\x01\x00\x00\x0c{"code":500}'
    assert body_of(responder.refuse(501, {"update": "2.0"})) == '{"code":501,"user":{"update":"2.0"}}'


def test_the_answer_without_user_data_is_one_shared_object() -> None:
    responder = HandshakeResponder(30, DICTIONARY)
    assert responder.accept(HandshakeRequest()) is responder.accept(HandshakeRequest(version="2"))


@given(st.recursive(st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(), st.lists, max_leaves=5))
def test_user_data_arrives(user: Any) -> None:
    answer = json.loads(body_of(HandshakeResponder(30, None).accept(HandshakeRequest(), user)))
    assert answer.get("user") == user
