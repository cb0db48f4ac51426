"""Noticing servers whose process is there and does nothing: an endless loop, a stopped process."""

import asyncio
import logging

from actors.fleet import Actors
from actors.membership import Membership

__all__ = ["LISTEN", "SILENT", "Liveness"]

logger = logging.getLogger(__name__)

LISTEN = 2.0
"""Seconds between questions whether servers are there."""
SILENT = 3
"""How often in turn a server does not answer, for 5 s each time, until it is taken for dead."""


class Liveness:
    """Takes those for dead who do not answer. They may answer again; who seeks the missing finds them."""

    def __init__(self, membership: Membership, actors: Actors) -> None:
        self._membership = membership
        self._actors = actors
        self._silent: dict[str, int] = {}
        """How often in turn servers did not answer."""

    async def look(self) -> None:
        """Ask every living server once, for 5 s at most; to be called again every ``LISTEN`` seconds."""
        living = self._membership.living()
        answers = await asyncio.gather(*(self._actors.answers(server_id) for server_id in living))
        silent = {server_id for server_id, answer in zip(living, answers, strict=True) if not answer}
        self._silent = {i: self._silent.get(i, 0) + 1 for i in silent.intersection(self._membership.living())}
        for server_id, times in self._silent.items():
            if times == SILENT:
                logger.error("%s: does not answer; if it goes on so, users go to others", server_id)
                self._membership.lost(server_id)
