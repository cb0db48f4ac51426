"""The outer layer of the wire: packages.

`type (1 byte) | length (3 bytes, big endian) | body`, as pomelo defines it. A WebSocket frame carries one or several;
over a plain stream they simply follow each other. The decoder does not care: it takes any split.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import IntEnum

from gateway.errors import EncodeError, ProtocolError, TooLargeError

__all__ = ["HEADER_SIZE", "MAX_BODY", "PackageDecoder", "PackageType", "encode_package"]

HEADER_SIZE = 4
MAX_BODY = 0xFFFFFF


class PackageType(IntEnum):
    """What a package is for; the value is its first byte on the wire."""

    HANDSHAKE = 1
    HANDSHAKE_ACK = 2
    HEARTBEAT = 3
    DATA = 4
    KICK = 5


# By first byte: calling the enum costs four times as much as this look-up, and shifting one of its members as well.
_TYPES: tuple[PackageType, ...] = (PackageType.HANDSHAKE, *PackageType)
_HEADERS = tuple(int(kind) << 24 for kind in (0, *PackageType))


def encode_package(kind: PackageType, body: bytes = b"") -> bytes:
    """Return the bytes of one package.

    Raises EncodeError for a body of more than 2^24 - 1 bytes, which the three length bytes cannot say.
    """
    size = len(body)
    if size > MAX_BODY:
        raise EncodeError(f"a package carries at most {MAX_BODY} bytes, not {size}")
    return (_HEADERS[kind] | size).to_bytes(4, "big") + body


class PackageDecoder:
    """Cuts a stream of bytes into packages, however the stream is split.

    `max_body` is the largest body accepted, in bytes. What is kept between two calls is at most one unfinished
    package, and never more than has really arrived: the announced length allocates nothing (pomelo allocates it at
    once).
    """

    __slots__ = ("_max_body", "_need", "_tail")

    def __init__(self, max_body: int) -> None:
        self._max_body = max_body
        self._tail: bytearray | None = None
        self._need = 0

    def feed(self, data: bytes) -> Iterable[tuple[PackageType, bytes]]:
        """Take the next bytes of the stream; iterate the result, to its end, before feeding more.

        Each item is the type and the body of a finished package. The iteration raises ProtocolError at a first byte
        that is not 1..5 and TooLargeError at a length beyond the limit, both after the packages before it were given
        out; nothing may be fed after that.
        """
        # One whole package in one piece is what WebSocket clients send: no generator, no tail for it.
        size = len(data) - HEADER_SIZE
        if (
            self._tail is None
            and 0 <= size <= self._max_body
            and 1 <= data[0] <= 5
            and data[1:4] == size.to_bytes(3, "big")
        ):
            return ((_TYPES[data[0]], data[4:]),)
        return self._split(data)

    def _split(self, data: bytes) -> Iterator[tuple[PackageType, bytes]]:
        if self._tail is not None:
            self._tail += data
            if len(self._tail) < self._need:
                return
            data, self._tail = bytes(self._tail), None
        start, size = 0, len(data)
        while start < size:
            end = self._end(data, start)
            if end > size:
                self._tail, self._need = bytearray(data[start:]), end - start
                return
            yield _TYPES[data[start]], data[start + HEADER_SIZE : end]
            start = end

    def _end(self, data: bytes, start: int) -> int:
        """Return where the package that begins at `start` ends, or its header while that is not complete."""
        kind = data[start]
        if not 1 <= kind <= 5:
            raise ProtocolError(f"unknown package type {kind}")
        body = start + HEADER_SIZE
        if len(data) < body:
            return body
        length = int.from_bytes(data[start + 1 : body], "big")
        if length > self._max_body:
            raise TooLargeError(f"package of {length} bytes, at most {self._max_body} allowed")
        return body + length
