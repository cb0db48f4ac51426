"""The inner layer of the wire: messages, the bodies of data packages.

`flag (1) | id (varint; requests and responses) | route (requests, notifies and pushes) | body`. In the flag bit 0
says that the route is a dictionary code, bits 1-3 the type, bit 4 gzip. This module says what is written; what a
server makes of it (a request with id 0, a push that comes from a client) is decided in `gateway.connection`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from gateway.errors import EncodeError, MessageError
from gateway.values import Message, MessageType

__all__ = [
    "decode_message",
    "encode_message",
    "encode_notify",
    "encode_push",
    "encode_request",
    "encode_response",
]

MAX_ROUTE = 255
# 64 bits in groups of seven. pomelo's own decoder has no bound and wraps at 32 bits; ids beyond are read correctly
# here.
MAX_VARINT = 10

_COMPRESSED = 0x01
_WITHOUT_ID = 0x02
_GZIP = 0x10
_NO_ROUTES: Mapping[int, str] = MappingProxyType({})


_TYPES: tuple[MessageType, ...] = tuple(MessageType)
_REQUEST, _NOTIFY, _RESPONSE, _PUSH = _TYPES


def decode_message(data: bytes, routes: Mapping[int, str] = _NO_ROUTES) -> Message:
    """Read the body of a data package.

    `routes` is the dictionary, from code to route. Raises MessageError when the bytes end too early, when the type is
    none of the four, or when the id is longer than ten bytes; an unknown code raises nothing (`route` is None then).
    A route that is not UTF-8 is read with replacement characters: it will match nothing, and its request gets an
    answer.
    """
    request_id = 0
    try:
        flag = data[0]
        kind = _TYPES[flag >> 1 & 7]
        start = 1
        if not flag & _WITHOUT_ID:
            request_id, start = (data[1], 2) if data[1] < 128 else _read_varint(data)
        if kind is _RESPONSE:
            return Message(kind, request_id, None, data[start:], None, flag & _GZIP != 0)
        if flag & _COMPRESSED:
            code = data[start] << 8 | data[start + 1]
            return Message(kind, request_id, routes.get(code), data[start + 2 :], code, flag & _GZIP != 0)
        start += 1
        end = start + data[start - 1]
    except IndexError:
        raise MessageError(_fault(data), request_id) from None
    if end > len(data):
        raise MessageError("message ends within its route", request_id)
    return Message(kind, request_id, str(data[start:end], "utf-8", "replace"), data[end:], None, flag & _GZIP != 0)


def _read_varint(data: bytes) -> tuple[int, int]:
    """Read the id, base-128 groups, lowest first, from offset 1; return it and the offset behind it."""
    value = 0
    for index in range(MAX_VARINT):
        byte = data[1 + index]
        value |= (byte & 127) << 7 * index
        if byte < 128:
            return value, index + 2
    raise MessageError("message id is longer than ten bytes")


def _fault(data: bytes) -> str:
    if data and data[0] >> 1 & 7 >= len(_TYPES):
        return f"unknown message type {data[0] >> 1 & 7}"
    return "message ends too early"


def encode_message(message: Message) -> bytes:
    """Return the bytes of any message, client's or server's; the route is written as its code where `code` is not None.

    Raises EncodeError for what the wire cannot express (see the other encoders).
    """
    route = message.route if message.code is None else message.code
    kind = message.type
    flag = kind << 1 | (_GZIP if message.gzip else 0)
    head = b"" if flag & _WITHOUT_ID else _varint(message.id)
    if kind is _RESPONSE:
        return bytes((flag,)) + head + message.body
    if isinstance(route, int):
        flag |= _COMPRESSED
    return bytes((flag,)) + head + _route("" if route is None else route) + message.body


def encode_request(request_id: int, route: str | int, body: bytes) -> bytes:
    """Return a request, as a client sends it. `route` as for `encode_push`; a negative id raises EncodeError."""
    return _flag(_REQUEST, route) + _varint(request_id) + _route(route) + body


def encode_notify(route: str | int, body: bytes) -> bytes:
    """Return a notify, as a client sends it. `route` as for `encode_push`."""
    return _flag(_NOTIFY, route) + _route(route) + body


def encode_response(request_id: int, body: bytes) -> bytes:
    """Return the response to the request of that id. A negative id raises EncodeError."""
    return b"\x04" + _varint(request_id) + body


def encode_push(route: str | int, body: bytes) -> bytes:
    """Return a push. `route` is text, or its dictionary code, which is written in two bytes.

    Raises EncodeError for a text of more than 255 bytes in UTF-8 and for a code outside 0..65535.
    """
    return _flag(_PUSH, route) + _route(route) + body


def _flag(kind: MessageType, route: str | int) -> bytes:
    return bytes((kind << 1 | isinstance(route, int),))


def _route(route: str | int) -> bytes:
    if isinstance(route, int):
        if not 0 <= route <= 0xFFFF:
            raise EncodeError(f"route code {route} does not fit two bytes")
        return route.to_bytes(2, "big")
    text = route.encode()
    if len(text) > MAX_ROUTE:
        raise EncodeError(f"route of {len(text)} bytes, at most {MAX_ROUTE} fit: {route[:40]}...")
    return bytes((len(text),)) + text


def _varint(value: int) -> bytes:
    if 0 <= value < 128:
        return value.to_bytes(1, "big")
    if 128 <= value < 0x4000:
        return (value << 8 & 0x7F00 | 0x8000 | value >> 7).to_bytes(2, "big")
    if 0x4000 <= value < 0x200000:
        return bytes((value & 127 | 128, value >> 7 & 127 | 128, value >> 14))
    if value < 0 or value.bit_length() > 7 * MAX_VARINT:
        raise EncodeError(f"message id {value} cannot be written")
    groups = bytearray()
    while value > 127:
        groups.append(value & 127 | 128)
        value >>= 7
    groups.append(value)
    return bytes(groups)
