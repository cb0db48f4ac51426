"""Bodies: bytes to typed values and back. JSON now; another serializer is another pair of these functions."""

import functools
from collections.abc import Callable
from typing import Any

import msgspec

from handlers.errors import BadRequest

__all__ = ["body_decoder", "encode_body", "encode_error"]

_encoder = msgspec.json.Encoder()
EMPTY = b"{}"
LARGEST = 0xFFFFFF - 1024
"""Bytes of a body: what a package can announce, less the head of its message (a route of 255 bytes at most)."""


@functools.cache
def body_decoder(schema: Any) -> Callable[[bytes], Any]:
    """Return a function from a body's bytes to a value of ``schema``, any type that msgspec knows.

    An empty body and ``null`` read as ``{}``, as pomelo reads them. The function raises BadRequest, naming the field,
    for bytes that are no JSON or do not fit.
    """
    try:
        decode = msgspec.json.Decoder(schema).decode
    except TypeError as error:
        raise TypeError(f"{schema!r} cannot be the type of a message: {error}") from error

    def decoded(body: bytes) -> Any:
        if not body.startswith(b"{") and body.strip() in (b"", b"null"):
            body = EMPTY
        try:
            return decode(body)
        except msgspec.ValidationError as error:
            raise BadRequest(str(error)) from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadRequest(f"the body is not JSON: {error}") from None
        except RecursionError:
            raise BadRequest("the body is nested too deeply") from None

    return decoded


def encode_body(value: Any) -> bytes:
    """Return the body that carries ``value``; None is ``{}``, since no client takes an empty or null body.

    Raises TypeError for a value that JSON cannot carry, or whose JSON is larger than a package (16 MiB).
    """
    try:
        body = EMPTY if value is None else _encoder.encode(value)
    except (ValueError, OverflowError, RecursionError) as error:
        raise TypeError(f"JSON cannot carry the value: {error}") from error
    if len(body) > LARGEST:
        raise TypeError(f"a body of {len(body)} bytes is more than a package holds")
    return body


def encode_error(code: int, message: str) -> bytes:
    """Return the body of an error answer, ``{"code": N, "message": text}``."""
    return _encoder.encode({"code": code, "message": message})
