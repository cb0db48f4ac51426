"""What a connection's first bytes say about it, without any I/O."""

from __future__ import annotations

from enum import Enum

from gateway.errors import ProtocolError

__all__ = ["Opening", "read_opening"]

# pomelo takes POST, PUT and HEAD for HTTP too. Only GET is served, so they are closed like anything else.
_METHOD = b"GET "
_PACKAGE_TYPES = (b"\x01", b"\x02", b"\x03", b"\x04", b"\x05")


class Opening(Enum):
    """What a connection speaks."""

    HTTP = "http"
    PACKAGES = "packages"


def read_opening(data: bytes) -> Opening | None:
    """Return what begins with these bytes, None while more are needed to tell; how they were split changes nothing.

    Raises ProtocolError for what is neither HTTP nor a package.
    """
    if data.startswith(_PACKAGE_TYPES):
        return Opening.PACKAGES
    if data.startswith(_METHOD):
        return Opening.HTTP
    if not _METHOD.startswith(data):
        raise ProtocolError("neither a GET request nor packages")
    return None
