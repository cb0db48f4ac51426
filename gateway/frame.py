"""WebSocket frames (RFC 6455 section 5.2): ours are made here once and shared, plain ones of clients are read here.

What clients send is nearly always one unfragmented data frame. Those are read here, at a quarter of the cost of the
general parser; every other frame is cut out whole, unread, for the `websockets` library's core, which knows the rest
of the RFC.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from gateway.package import PackageType, encode_package
from gateway.values import Frame

try:
    from websockets.speedups import apply_mask
except ImportError:  # a platform without the compiled part
    from websockets.utils import apply_mask

__all__ = ["FrameReader", "shared_frame", "websocket_frame"]

_FIN_BINARY = 0x82
_FIN_TEXT = 0x81
_MASKED = 0x80
_PLAIN = (_FIN_BINARY, _FIN_TEXT)


def shared_frame(message: bytes) -> Frame:
    """Return the frame of one encoded message. Raises EncodeError as `encode_package`."""
    package = encode_package(PackageType.DATA, message)
    return Frame(package, websocket_frame(package))


def websocket_frame(payload: bytes) -> bytes:
    """Return an unmasked, final binary frame, as servers send them."""
    size = len(payload)
    if size < 126:
        return (_FIN_BINARY << 8 | size).to_bytes(2, "big") + payload
    if size < 0x10000:
        return b"\x82\x7e" + size.to_bytes(2, "big") + payload
    return b"\x82\x7f" + size.to_bytes(8, "big") + payload


class FrameReader:
    """Cuts what a client sends into frames, however it is split.

    `max_size` is the largest payload kept, in bytes. At most one unfinished frame is held between calls, and never
    more than has arrived.
    """

    __slots__ = ("_fragmented", "_max_size", "_need", "_tail")

    def __init__(self, max_size: int) -> None:
        self._max_size = max_size
        self._tail: bytearray | None = None
        self._need = 0
        self._fragmented = False

    def feed(self, data: bytes) -> Iterable[tuple[bool, bytes]]:
        """Take the next bytes; iterate the result, to its end, before feeding more.

        Each item is `(True, payload)`, the unmasked payload of a plain data frame (final, masked, not within a
        fragmented message, no reserved bit; text counts as bytes, as in pomelo), or `(False, bytes)`, bytes for the
        core: one whole frame, or one that the core refuses by its first bytes (not masked, too large), after which it
        is not asked again.
        """
        size = len(data) - 6
        if (
            self._tail is None
            and not self._fragmented
            and 0 <= size < 126
            and data[1] == _MASKED | size
            and data[0] in _PLAIN
            and size <= self._max_size
        ):
            return ((True, apply_mask(data[6:], data[2:6])),)
        return self._split(data)

    def _split(self, data: bytes) -> Iterator[tuple[bool, bytes]]:
        if self._tail is not None:
            self._tail += data
            if len(self._tail) < self._need:
                return
            data, self._tail = bytes(self._tail), None
        start, total = 0, len(data)
        while start < total:
            # Several small plain frames in one piece are what a busy client sends.
            end = start + 6 + (data[start + 1] & 0x7F) if start + 6 <= total else total + 1
            if (
                end <= total
                and _MASKED <= data[start + 1] < _MASKED | 126
                and data[start] in _PLAIN
                and not self._fragmented
                and end - start - 6 <= self._max_size
            ):
                yield True, apply_mask(data[start + 6 : end], data[start + 2 : start + 6])
                start = end
                continue
            mask, end = self._extent(data, start)
            if end > total:
                self._tail, self._need = bytearray(data[start:]), end - start
                return
            if self._plain(data[start]) and mask > start:
                yield True, apply_mask(data[mask + 4 : end], data[mask : mask + 4])
            else:
                yield False, data[start:end]
            start = end

    def _extent(self, data: bytes, start: int) -> tuple[int, int]:
        """Return where the mask of the frame at `start` stands and where the frame ends, so far as its header is there.

        A frame to be refused has its mask at `start`, and ends with the data.
        """
        total = len(data)
        if total < start + 2:
            return start, start + 2
        size = data[start + 1] & 0x7F
        wide = {126: 2, 127: 8}.get(size, 0)
        mask = start + 2 + wide
        if data[start + 1] < _MASKED:
            return start, total
        if total < mask:
            return start, mask
        if wide:
            size = int.from_bytes(data[start + 2 : mask], "big")
        if size > self._max_size:
            return start, total
        return mask, mask + 4 + size

    def _plain(self, first: int) -> bool:
        """Keep track of fragmented messages; return whether the frame that begins with this byte is plain."""
        opcode = first & 0x0F
        if opcode < 8 and not first & 0x80:
            self._fragmented = True
        elif opcode == 0:
            self._fragmented = False
        return first in _PLAIN and not self._fragmented
