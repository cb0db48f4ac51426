"""A later life of a server, before it serves: what it waits for, and what waits for it.

The members of its channels are known to the frontends at which they are. Each frontend tells them as soon as its link
to the new life is up, and then that it has told all (MIRROR and MIRRORED of ``handlers.link``). Until then what the
server is to work on waits here, in order, so that no request meets a channel that is not whole.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable

from handlers.errors import Unavailable
from handlers.link import CLOSED, FORWARD, RPC, Entry, Link
from handlers.settings import LINK_QUEUE

__all__ = ["WAITING_KINDS", "Rebuild"]

logger = logging.getLogger(__name__)

WAITING_KINDS = (FORWARD, RPC, CLOSED)
"""What waits: clients' messages, calls, and the ends of the sessions that the messages are of."""
LIMIT = 5.0
"""Seconds after which it serves with the members that it knows by then; others are taken in when they are told."""
GRACE = 1.0
"""Seconds that a frontend whose link is down has to come back; longer than a link that only broke takes."""


class Rebuild:
    """Holds entries until every living frontend has told what it knows; ``apply`` takes them then.

    ``room``: bytes that may wait, as many as on one link.
    """

    def __init__(self, server_id: str, apply: Callable[[Link, Entry], None], *, room: int = LINK_QUEUE) -> None:
        self._server_id = server_id
        self._room = room
        self._apply = apply
        self._waiting: list[tuple[Link, Entry]] = []
        self._bytes = 0
        self._told: set[str] = set()
        self._expected: set[str] = set()
        self._missing: set[str] = set()
        self._complete = asyncio.Event()

    def hold(self, link: Link, entry: Entry) -> None:
        """Keep an entry of another server. Raises Unavailable when there is no room."""
        size = sum(len(field) for field in entry if isinstance(field, bytes))
        if self._bytes + size > self._room and self._waiting:
            raise Unavailable(f"{self._server_id} is busy")
        self._bytes += size
        self._waiting.append((link, entry))

    def told(self, frontend_id: str) -> None:
        """Note that a frontend has told all that it knows."""
        self._told.add(frontend_id)
        self._drop(frontend_id)

    def lost(self, server_id: str) -> None:
        """Forget what a server sent whose link went down; a frontend need not tell unless it is back in a second."""
        self._waiting = [(link, entry) for link, entry in self._waiting if link.peer != server_id]
        self._told.discard(server_id)
        if server_id in self._expected:
            self._missing.add(server_id)
            asyncio.get_running_loop().call_later(GRACE, self._drop, server_id)

    async def complete(self, frontend_ids: Iterable[str], up: Callable[[str], bool]) -> None:
        """Return when each of the frontends has told all or is down, after 5 s at most; ``up`` tells of links."""
        self._expected = set(frontend_ids)
        self._missing = self._expected - self._told
        self._complete.clear()
        for frontend_id in self._missing:
            if not up(frontend_id):
                asyncio.get_running_loop().call_later(GRACE, self._drop, frontend_id)
        if not self._missing:
            return
        try:
            await asyncio.wait_for(self._complete.wait(), LIMIT)
        except TimeoutError:
            names = ", ".join(sorted(self._missing))
            logger.warning("%s: serves without the channel members at %s: not told of them", self._server_id, names)

    def release(self) -> None:
        """Apply what waits, in order."""
        waiting, self._waiting = self._waiting, []
        for link, entry in waiting:
            self._apply(link, entry)

    def fail(self) -> None:
        """Answer 503 what waits: the server stops before it served."""
        waiting, self._waiting = self._waiting, []
        for link, entry in waiting:
            if entry[1]:
                link.answer(entry[1], 503, b"the server is stopping")

    def _drop(self, frontend_id: str) -> None:
        self._missing.discard(frontend_id)
        if not self._missing:
            self._complete.set()
