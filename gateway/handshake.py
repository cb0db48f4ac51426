"""The handshake: what a client says about itself, and the answer.

Answers are pomelo's, member for member: `code`, `sys` (`heartbeat`, `dict`, `routeToCode`, `codeToRoute`,
`dictVersion`, `useDict`), `user`. A client that already holds this dictionary gets `heartbeat` and `useDict` alone.
"""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.dictionary import RouteDictionary
from gateway.errors import HandshakeError
from gateway.package import PackageType, encode_package

__all__ = ["HandshakeReply", "HandshakeRequest", "HandshakeResponder", "parse_handshake"]


class HandshakeRequest(msgspec.Struct, frozen=True):
    """What a client sent: its library's `type` and `version`, versions it has cached, and the game's own `user`."""

    version: str = ""
    type: str = ""
    dict_version: str | None = None
    proto_version: str | None = None
    user: Any = None


class HandshakeReply(msgspec.Struct, frozen=True):
    """What the acceptor answers. `user` is any JSON value, left out when None. A code other than 200 closes."""

    code: int = 200
    user: Any = None


def parse_handshake(body: bytes) -> HandshakeRequest:
    """Read the body of a handshake package.

    Raises HandshakeError if it is not a JSON object with an object `sys`. Members of another type than expected count
    as absent, as they do in pomelo.
    """
    try:
        data = msgspec.json.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise HandshakeError(f"handshake is not JSON: {error}") from None
    system = data.get("sys") if isinstance(data, dict) else None
    if not isinstance(system, dict):
        raise HandshakeError("handshake has no sys")
    return HandshakeRequest(
        version=_text(system.get("version")) or "",
        type=_text(system.get("type")) or "",
        dict_version=_text(system.get("dictVersion")),
        proto_version=_text(system.get("protoVersion")),
        user=data.get("user"),
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


class HandshakeResponder:
    """Makes handshake packages. What does not depend on the client is encoded once: a dictionary can be tens of KiB.

    `heartbeat` in seconds, announced as a whole number where it is one; None or 0 announces none. `dictionary` None:
    no `useDict`.
    """

    __slots__ = ("_full", "_known", "_version")

    def __init__(self, heartbeat: float | None, dictionary: RouteDictionary | None) -> None:
        self._version = None if dictionary is None else dictionary.version
        self._full = _Answer(_system(heartbeat, dictionary, known=False))
        self._known = _Answer(_system(heartbeat, dictionary, known=True))

    def accept(self, request: HandshakeRequest, user: Any = None) -> bytes:
        """Return the package that welcomes the client.

        Raises TypeError if `user` is not JSON, EncodeError if it is too large.
        """
        known = self._version is not None and request.dict_version == self._version
        return (self._known if known else self._full).package(user)

    def refuse(self, code: int, user: Any = None) -> bytes:
        """Return the package that turns the client away, to be closed after it. Raises as `accept`."""
        answer = {"code": code} if user is None else {"code": code, "user": user}
        return encode_package(PackageType.HANDSHAKE, msgspec.json.encode(answer))


class _Answer:
    """One welcome, complete for those who get no `user`, ready to be completed for the others."""

    __slots__ = ("_complete", "_open")

    def __init__(self, system: dict[str, Any]) -> None:
        body = msgspec.json.encode({"code": 200, "sys": system})
        self._open = body[:-1] + b',"user":'
        self._complete = encode_package(PackageType.HANDSHAKE, body)

    def package(self, user: Any) -> bytes:
        if user is None:
            return self._complete
        return encode_package(PackageType.HANDSHAKE, self._open + msgspec.json.encode(user) + b"}")


def _system(heartbeat: float | None, dictionary: RouteDictionary | None, *, known: bool) -> dict[str, Any]:
    system: dict[str, Any] = {}
    if heartbeat:
        system["heartbeat"] = int(heartbeat) if heartbeat == int(heartbeat) else heartbeat
    if dictionary is None:
        return system
    if not known:
        # All three or none: libpomelo2 asserts that they come together. The browser client reads `dict` alone.
        codes = dict(dictionary.mapping)
        system["dict"] = codes
        system["routeToCode"] = codes
        system["codeToRoute"] = dict(dictionary.routes)
        system["dictVersion"] = dictionary.version
    system["useDict"] = True
    return system
