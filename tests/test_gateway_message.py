from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_gateway_kit import vectors

from gateway import (
    EncodeError,
    Message,
    MessageError,
    MessageType,
    decode_message,
    encode_message,
    encode_notify,
    encode_push,
    encode_request,
    encode_response,
)

REQUEST, NOTIFY, RESPONSE, PUSH = MessageType
VECTORS = vectors("protocol.json")["messages"]
# The reference's table; every body is {}.
TABLE = [
    (Message(REQUEST, 1, "a.b.c", b"{}"), "000105612e622e637b7d"),
    (Message(REQUEST, 127, "a.b.c", b"{}"), "007f05612e622e637b7d"),
    (Message(REQUEST, 128, "a.b.c", b"{}"), "00800105612e622e637b7d"),
    (Message(REQUEST, 300, "a.b.c", b"{}"), "00ac0205612e622e637b7d"),
    (Message(REQUEST, 2**21, "a.b.c", b"{}"), "008080800105612e622e637b7d"),
    (Message(REQUEST, 5, None, b"{}", 258), "010501027b7d"),
    (Message(NOTIFY, 0, "a.b.c", b"{}"), "0205612e622e637b7d"),
    (Message(NOTIFY, 0, None, b"{}", 3), "0300037b7d"),
    (Message(RESPONSE, 5, None, b"{}"), "04057b7d"),
    (Message(PUSH, 0, "onChat", b"{}"), "06066f6e436861747b7d"),
    (Message(PUSH, 0, None, b"{}", 17), "0700117b7d"),
    (Message(REQUEST, 5, "a.b.c", b"{}", None, True), "100505612e622e637b7d"),
    (Message(REQUEST, 5, "", b"{}"), "0005007b7d"),
]
ids = st.integers(0, 2**70 - 1)
routes = st.text(max_size=63)
codes = st.integers(0, 0xFFFF)
bodies = st.binary(max_size=60)


def from_vector(vector: dict[str, Any]) -> Message:
    route, body = vector["route"], bytes.fromhex(vector["body"])
    kind = MessageType(vector["type"])
    if vector["compressed"] and kind is not RESPONSE:
        return Message(kind, vector["id"], None, body, route)
    return Message(kind, vector["id"], route, body)


@pytest.mark.parametrize("vector", VECTORS)
def test_messages_are_those_of_the_reference_codec(vector: dict[str, Any]) -> None:
    message = from_vector(vector)
    assert decode_message(bytes.fromhex(vector["encoded"])) == message
    assert encode_message(message).hex() == vector["encoded"]


@pytest.mark.parametrize(("message", "encoded"), TABLE)
def test_messages_are_those_of_the_reference_table(message: Message, encoded: str) -> None:
    assert decode_message(bytes.fromhex(encoded)) == message
    assert encode_message(message).hex() == encoded


def test_each_kind_has_its_own_encoder() -> None:
    assert encode_request(5, 258, b"{}").hex() == "010501027b7d"
    assert encode_request(1, "a.b.c", b"{}").hex() == "000105612e622e637b7d"
    assert encode_notify("a.b.c", b"{}").hex() == "0205612e622e637b7d"
    assert encode_notify(3, b"{}").hex() == "0300037b7d"
    assert encode_response(5, b"{}").hex() == "04057b7d"
    assert encode_push("onChat", b"{}").hex() == "06066f6e436861747b7d"
    assert encode_push(17, b"{}").hex() == "0700117b7d"


@given(st.sampled_from([REQUEST, NOTIFY, PUSH]), ids, st.one_of(routes, codes), bodies, st.booleans())
def test_routed_messages_come_back_as_they_were(
    kind: MessageType, request_id: int, route: str | int, body: bytes, gzip: bool
) -> None:
    text, code = (route, None) if isinstance(route, str) else (None, route)
    message = Message(kind, request_id if kind is REQUEST else 0, text, body, code, gzip)
    assert decode_message(encode_message(message)) == message


@given(ids, bodies)
def test_responses_come_back_as_they_were(request_id: int, body: bytes) -> None:
    assert decode_message(encode_response(request_id, body)) == Message(RESPONSE, request_id, None, body)


@pytest.mark.parametrize("request_id", [1, 127, 128, 2**14 - 1, 2**14, 2**21 - 1, 2**21, 2**28])
def test_ids_are_written_in_groups_of_seven_bits_the_lowest_first(request_id: int) -> None:
    written = encode_request(request_id, "r", b"")[1:-2]
    assert sum((byte & 127) << 7 * place for place, byte in enumerate(written)) == request_id
    assert [byte >> 7 for byte in written] == [1] * (len(written) - 1) + [0]
    assert len(written) == -(-request_id.bit_length() // 7)


@pytest.mark.parametrize("request_id", [2**31 - 1, 2**31, 2**32 - 1, 2**53, 2**64 - 1])
def test_ids_beyond_32_bits_are_read_correctly(request_id: int) -> None:
    assert decode_message(encode_request(request_id, "r", b"")).id == request_id


def test_codes_are_looked_up_in_the_dictionary() -> None:
    routes_by_code = {258: "chat.chatHandler.send"}
    assert decode_message(bytes.fromhex("010501027b7d"), routes_by_code).route == "chat.chatHandler.send"
    assert decode_message(bytes.fromhex("010501037b7d"), routes_by_code).route is None


@given(st.binary(max_size=40))
def test_any_bytes_are_a_message_or_a_message_error(data: bytes) -> None:
    with suppress(MessageError):
        decode_message(data)


@pytest.mark.parametrize(
    ("encoded", "reason", "request_id"),
    [
        ("", "ends too early", 0),
        ("00", "ends too early", 0),
        ("0080", "ends too early", 0),
        ("0005", "ends too early", 5),
        ("00ac02", "ends too early", 300),
        ("000505612e62", "ends within its route", 5),
        ("010501", "ends too early", 5),
        ("02", "ends too early", 0),
        ("0300", "ends too early", 0),
        ("08", "unknown message type 4", 0),
        ("0e0161", "unknown message type 7", 0),
        ("00" + "80" * 10 + "01", "longer than ten bytes", 0),
    ],
)
def test_malformed_messages_say_what_is_wrong_and_which_request_it_was(
    encoded: str, reason: str, request_id: int
) -> None:
    with pytest.raises(MessageError, match=reason) as caught:
        decode_message(bytes.fromhex(encoded))
    assert caught.value.request_id == request_id


def test_a_route_that_is_not_utf8_is_read_all_the_same() -> None:
    assert decode_message(b"\x00\x05\x02\xff\xfe{}").route == "\ufffd\ufffd"


def test_a_route_holds_255_bytes() -> None:
    assert decode_message(encode_push("é" * 127 + "x", b"")).route == "é" * 127 + "x"
    with pytest.raises(EncodeError, match="route of 256 bytes"):
        encode_push("é" * 128, b"")


@pytest.mark.parametrize("code", [-1, 0x10000])
def test_a_code_holds_two_bytes(code: int) -> None:
    with pytest.raises(EncodeError, match="two bytes"):
        encode_push(code, b"")


@pytest.mark.parametrize("request_id", [-1, 2**70])
def test_an_id_that_cannot_be_written_is_refused(request_id: int) -> None:
    with pytest.raises(EncodeError, match="cannot be written"):
        encode_response(request_id, b"")
