"""What a link stands between: the way to the peer, its only dependence on Ray, and the server's logic."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

from handlers.link import Entry, Link

__all__ = ["STOPPED", "Back", "CallFailed", "Logic", "Way", "end_of"]

STOPPED = "it stopped"
"""The reason of a peer's end that is none to worry about."""


class CallFailed(Exception):
    """The call did not get through, or the peer died before it returned."""


Back = Callable[[bytes | BaseException], None]
"""Takes what a call came to: what goes back with it, or why nothing does, CallFailed or what nobody expected."""


class Way(Protocol):
    """The way to one peer."""

    def call(self, carrier: bytes, back: Back) -> None:
        """Have the peer serve a carrier; ``back`` is called once with what comes of it, on this loop, but not yet now.

        Raises nothing. Not a coroutine: a task that waits would have what came back a turn of the loop later, and the
        turns of a busy loop take as long as the call.
        """

    async def ended(self) -> None:
        """Return when the peer stops; stays under way while it lives. Raises CallFailed the moment it dies."""


async def end_of(way: Way) -> str:
    """Return, when the peer's life ends, why it did."""
    try:
        await way.ended()
    except CallFailed as error:
        return str(error)
    return STOPPED


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
