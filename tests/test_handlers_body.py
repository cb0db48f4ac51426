"""Bodies: what clients may send, what they are told when it does not fit, and what handlers may answer."""

import contextlib
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support_handlers import Stage, virtual

from handlers import App, BadRequest, Session
from handlers.body import body_decoder, encode_body, encode_error
from handlers.kit import Kit

DEEP = 100_000


class Move(msgspec.Struct):
    x: int
    y: int = 0
    name: Annotated[str, msgspec.Meta(max_length=3)] = ""


@given(st.recursive(st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(), st.lists))
def test_what_is_encoded_is_decoded_again(value: Any) -> None:
    assert body_decoder(Any)(encode_body({"value": value})) == {"value": value}


@pytest.mark.parametrize("body", [b"", b"null", b" null\n", b"  "])
@pytest.mark.parametrize("schema", [Any, dict, dict[str, int]])
def test_an_empty_body_and_null_read_as_an_empty_object(body: bytes, schema: Any) -> None:
    assert body_decoder(schema)(body) == {}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"x": "one"}', "Expected `int`, got `str` - at `$.x`"),
        (b"{}", "missing required field `x`"),
        (b'{"x": 1, "name": "long"}', "length <= 3 - at `$.name`"),
        (b"", "missing required field `x`"),
        (b"[1]", "Expected `object`, got `array`"),
    ],
)
def test_a_body_that_does_not_fit_is_refused_with_the_fields_name(body: bytes, said: str) -> None:
    with pytest.raises(BadRequest) as caught:
        body_decoder(Move)(body)
    assert caught.value.code == 400
    assert said in caught.value.message


@pytest.mark.parametrize(
    "body",
    [
        b"nul",
        b"{",
        b'{"x": 1}}',
        b"{'x': 1}",
        b"\xff\xfe",
        b'{"name": "\xff"}',
        b'{"name": "\\ud800"}',
        b'{"x": NaN}',
        b"\xef\xbb\xbf{}",
        b"\x00",
    ],
)
@pytest.mark.parametrize("schema", [Any, Move])
def test_what_is_not_json_in_utf_8_is_a_bad_request(body: bytes, schema: Any) -> None:
    with pytest.raises(BadRequest):
        body_decoder(schema)(body)


@pytest.mark.parametrize(
    "body", [b"[" * DEEP, b"[" * DEEP + b"]" * DEEP, b'{"a":' * DEEP, b'{"a":' * DEEP + b"1" * DEEP]
)
@pytest.mark.parametrize("schema", [Any, dict])
def test_a_body_of_a_hundred_thousand_levels_is_a_bad_request(body: bytes, schema: Any) -> None:
    with pytest.raises(BadRequest):
        body_decoder(schema)(body)


@pytest.mark.parametrize("number", [b"1e400", b"-1e999", b"9" * 5000])
def test_a_number_out_of_every_range_is_a_bad_request(number: bytes) -> None:
    with pytest.raises(BadRequest, match="out of range"):
        body_decoder(Any)(b'{"x": ' + number + b"}")


@given(st.binary(max_size=64))
def test_any_bytes_are_decoded_or_a_bad_request(body: bytes) -> None:
    for schema in (Any, Move):
        with contextlib.suppress(BadRequest):
            body_decoder(schema)(body)


class Other(msgspec.Struct):
    x: int


def _nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("value", [object(), {(1, 2): 3}, "\ud800", lambda: 1, {"deep": [{1: print}]}])
def test_a_value_that_json_cannot_carry_is_a_type_error(value: Any) -> None:
    with pytest.raises(TypeError):
        encode_body(value)


def test_a_value_nested_too_deeply_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="recursion"):
        encode_body(_nested(DEEP))


def test_none_is_an_empty_object_since_no_client_takes_an_empty_body() -> None:
    assert encode_body(None) == b"{}"
    assert encode_body({}) == b"{}"
    assert encode_body([]) == b"[]"


def test_an_error_is_a_code_and_a_message() -> None:
    assert encode_error(404, "no such route: ü") == '{"code":404,"message":"no such route: ü"}'.encode()


def test_a_type_that_cannot_be_decoded_is_named() -> None:
    with pytest.raises(TypeError, match="cannot be the type of a message"):
        body_decoder(Move | Other)


@virtual
async def test_a_typed_message_arrives_as_its_struct() -> None:
    app = App("test")

    @app.handler("chat.map.move")
    async def move(msg: Move, session: Session) -> dict[str, Any]:
        assert isinstance(msg, Move)
        return {"to": [msg.x, msg.y], "name": msg.name}

    @app.handler("chat.map.only")
    async def only(msg: Move) -> int:
        return msg.x

    async with Kit(app, frontends={"connector": 1}, backends={"chat": 1}) as kit:
        client = await kit.connect("connector-1")
        assert await client.request("chat.map.move", {"x": 1, "y": 2, "name": "a"}) == {"to": [1, 2], "name": "a"}
        assert await client.request("chat.map.only", {"x": 7}) == 7
        answer = await client.request("chat.map.move", {"x": 1, "y": "two"})
        assert answer == {"code": 400, "message": "Expected `int`, got `str` - at `$.y`"}


@pytest.mark.parametrize("server_type", ["connector", "chat"])
@virtual
async def test_a_handler_that_returns_none_answers_an_empty_object(server_type: str) -> None:
    stage = Stage()
    async with stage.kit() as kit:
        client = await kit.connect("connector-1")
        assert await client.request(f"{server_type}.stage.echo", None) == {}
        assert await client.request(f"{server_type}.stage.echo", [1, None]) == [1, None]
        assert await client.request(f"{server_type}.stage.echo", 0) == 0


@pytest.mark.parametrize("server_type", ["connector", "chat"])
@virtual
async def test_an_answer_that_cannot_be_encoded_is_500_and_logged(
    server_type: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = App("test")

    @app.handler(f"{server_type}.t.unencodable")
    async def unencodable() -> object:
        return object()

    async with Kit(app, frontends={"connector": 1}, backends={"chat": 1}) as kit:
        client = await kit.connect("connector-1")
        answer = await client.request(f"{server_type}.t.unencodable")
    assert answer == {"code": 500, "message": "internal error"}
    assert "Encoding objects of type object is unsupported" in caplog.text
    assert "Traceback" in caplog.text
