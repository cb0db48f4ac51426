"""The route dictionary: routes that travel as two bytes."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping
from types import MappingProxyType

import msgspec

from gateway.errors import EncodeError

__all__ = ["RouteDictionary"]

MAX_ROUTES = 0xFFFF


class RouteDictionary:
    """Routes and their codes, numbered exactly as pomelo numbers them, since clients keep them by version.

    `handlers`, every route that a client may call, come first, sorted by UTF-16 code unit (JavaScript's order) and
    numbered from 1; `user`, routes of pushes mostly, continue in the order given. A route that `user` repeats takes
    its last number for sending, and all its numbers can be read: so does pomelo, and numbering it otherwise would
    change the codes of those behind it.

    Raises EncodeError for more than 65535 routes, which two bytes cannot number.
    """

    __slots__ = ("_codes", "_routes", "version")

    def __init__(self, handlers: Iterable[str], user: Iterable[str] = ()) -> None:
        routes = [*sorted(set(handlers), key=_code_units), *user]
        if len(routes) > MAX_ROUTES:
            raise EncodeError(f"{len(routes)} routes, a dictionary numbers at most {MAX_ROUTES}")
        self._routes = dict(enumerate(routes, 1))
        self._codes = {route: code for code, route in self._routes.items()}
        digest = hashlib.md5(msgspec.json.encode(self._codes), usedforsecurity=False).digest()
        #: Base64 of the MD5 of the compact JSON of `mapping`: what a client sends back as `dictVersion`.
        self.version = base64.b64encode(digest).decode()

    @property
    def mapping(self) -> Mapping[str, int]:
        """Route to code, in the order in which it is announced."""
        return MappingProxyType(self._codes)

    @property
    def routes(self) -> Mapping[int, str]:
        """Code to route, by rising code."""
        return MappingProxyType(self._routes)

    def code(self, route: str) -> int | None:
        """Return the code to send for a route; None if it has none."""
        return self._codes.get(route)

    def route(self, code: int) -> str | None:
        """Return the route of a code that was received; None if it has none."""
        return self._routes.get(code)

    def __len__(self) -> int:
        """Return the number of codes."""
        return len(self._routes)


def _code_units(text: str) -> bytes:
    return text.encode("utf-16-be", "surrogatepass")
