"""The request for a WebSocket (RFC 6455 section 4.1) as nearly every client sends it, read at a tenth of the cost.

What is unusual in any way is left to the `websockets` library's core, which also words the refusals.
"""

from __future__ import annotations

import re
from base64 import b64decode
from binascii import Error as Base64Error

from websockets.utils import accept_key

__all__ = ["upgrade_answer"]

# The core allows lines of 8 KiB and 128 of them; below both there is nothing to count.
_MOST_BYTES = 4096
_MOST_LINES = 100
_HEAD = re.compile(
    rb"GET [!-~]+ HTTP/1\.1\r\n"
    rb"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t -~]*\r\n)+"
    rb"\r\n"
)
_TELLING = re.compile(
    rb"\r\n(upgrade|connection|sec-websocket-key|sec-websocket-version|content-length|transfer-encoding):"
    rb"[\t ]*([\t -~]*?)[\t ]*(?=\r\n)",
    re.IGNORECASE,
)
_ANSWER = (
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n\r\n"
)


def upgrade_answer(head: bytes) -> bytes | None:
    """Return what accepts the request in `head`, which ends with its empty line; None unless it is a plain upgrade.

    Plain means: well-formed, ASCII, without a body, each header that tells something there once and with its usual
    value. Origins and forwarded addresses are not looked at.
    """
    if len(head) > _MOST_BYTES or head.count(b"\n") > _MOST_LINES or _HEAD.fullmatch(head) is None:
        return None
    found = _TELLING.findall(head)
    told = {name.lower(): value for name, value in found}
    if len(found) != 4 or len(told) != 4:
        return None
    key = told.get(b"sec-websocket-key", b"")
    plain = (
        told.get(b"upgrade", b"").lower() == b"websocket"
        and b"upgrade" in [option.strip() for option in told.get(b"connection", b"").lower().split(b",")]
        and told.get(b"sec-websocket-version") == b"13"
        and len(key) == 24
    )
    if not plain:
        return None
    try:
        if len(b64decode(key, validate=True)) != 16:
            return None
    except Base64Error:
        return None
    return _ANSWER.format(accept_key(key.decode())).encode()
