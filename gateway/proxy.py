"""The PROXY protocol's header, versions 1 and 2: whom a proxy that passes bytes on speaks for.

By HAProxy's proxy-protocol.txt: one header, before the connection's first own byte, TLS included. Nothing here asks
whether the peer may be believed; that is the door's to know.
"""

from __future__ import annotations

import ipaddress
import struct
from typing import NamedTuple

from gateway.errors import ProtocolError

__all__ = ["ProxyHeader", "read_proxy_header"]

_TEXT = b"PROXY "
_BINARY = b"\r\n\r\n\x00\r\nQUIT\n"
# Section 2.1: "a 108-byte buffer is always enough", line end and its NUL included.
_MAX_LINE = 107
# Version 2 announces up to 64 KiB, for extensions that are skipped here; proxies send some hundred bytes.
_MAX_BINARY = 4096
_FAMILIES = {0x11: (ipaddress.IPv4Address, 4), 0x21: (ipaddress.IPv6Address, 16)}


class ProxyHeader(NamedTuple):
    """A header of `size` bytes. `source` is the client's host and port; None says that the peer itself is meant."""

    size: int
    source: tuple[str, int] | None


def read_proxy_header(data: bytes) -> ProxyHeader | None:
    """Return the header that a connection's first bytes are, None while more of them are needed to tell.

    Size 0: there is no header. Raises ProtocolError for one that cannot be read.
    """
    if data.startswith(_TEXT):
        return _read_text(data)
    if data.startswith(_BINARY):
        return _read_binary(data)
    return None if _TEXT.startswith(data) or _BINARY.startswith(data) else ProxyHeader(0, None)


def _read_text(data: bytes) -> ProxyHeader | None:
    end = data.find(b"\r\n", 0, _MAX_LINE)
    if end < 0:
        if len(data) >= _MAX_LINE:
            raise ProtocolError("PROXY line without an end")
        return None
    words = data[:end].decode("ascii", "replace").split(" ")
    if words[1] == "UNKNOWN":
        return ProxyHeader(end + 2, None)
    try:
        family, source, destination, port, other = words[1:]
        parse = {"TCP4": ipaddress.IPv4Address, "TCP6": ipaddress.IPv6Address}[family]
        host = str(parse(source))
        parse(destination)
        return ProxyHeader(end + 2, (host, _port(port)) if _port(other) >= 0 else None)
    except (ValueError, KeyError):
        raise ProtocolError("PROXY line that cannot be read") from None


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= 0xFFFF):
        raise ValueError(text)
    return int(text)


def _read_binary(data: bytes) -> ProxyHeader | None:
    if len(data) < 16:
        return None
    command, family, length = struct.unpack_from("!BBH", data, 12)
    if command not in (0x20, 0x21):  # version 2, LOCAL or PROXY
        raise ProtocolError("PROXY header of an unknown version or command")
    if length > _MAX_BINARY:
        raise ProtocolError(f"PROXY header of {length} bytes, at most {_MAX_BINARY} are read")
    if len(data) < 16 + length:
        return None
    # LOCAL is the proxy's own health check; of other families (UNSPEC, UNIX) the address is to be ignored.
    if command == 0x20 or family not in _FAMILIES:
        return ProxyHeader(16 + length, None)
    parse, size = _FAMILIES[family]
    if length < 2 * size + 4:
        raise ProtocolError("PROXY header without its addresses")
    host = str(parse(data[16 : 16 + size]))
    (port,) = struct.unpack_from("!H", data, 16 + 2 * size)
    return ProxyHeader(16 + length, (host, port))
