"""What a link stands between: the way to the peer, its only dependence on Ray, and the server's logic."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

from handlers.link import Entry, Link

__all__ = ["CallFailed", "Logic", "Way"]


class CallFailed(Exception):
    """The call did not get through, or the peer died before it returned."""


class Way(Protocol):
    """The way to one peer."""

    async def call(self, carrier: bytes) -> bytes:
        """Have the peer serve a carrier and return what goes back. Raises CallFailed."""

    async def ended(self) -> None:
        """Return when the peer stops; stays under way while it lives. Raises CallFailed the moment it dies."""


class Logic(NamedTuple):
    """What a server's logic is told by its links."""

    apply: Callable[[Link, Entry], None]
    """Called with every entry of a peer, in order."""
    lost: Callable[[str], None]
    """Called with a peer's id whenever what was under way to and from it is gone."""
    greeted: Callable[[str, int], None]
    """Called with a peer's id and incarnation when a conversation with it begins, before anything in it is applied."""
    outlived: Callable[[], None]
    """Called when a peer knows a later life of this server."""
