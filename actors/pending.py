"""The requests of one link that are not answered yet. Pure."""

import logging

from handlers.errors import Unavailable
from handlers.link import Done

__all__ = ["Pending"]

logger = logging.getLogger(__name__)


class Pending(dict[int, tuple[Done, float]]):
    """By a request's id: whom to hand its answer, and the loop's time by which it must have come.

    ``own`` and ``peer`` are the servers' ids. Whoever fails on an answer fails alone.
    """

    def __init__(self, own: str, peer: str) -> None:
        super().__init__()
        self.unavailable = f"{peer} is unavailable".encode()
        """What says that the peer is not there."""
        self.peer = peer
        self.refused = 0
        """How many entries found no room on their way to the peer."""
        self._own = own

    def busy(self) -> Unavailable:
        """Count an entry that finds no room, and return the error that says so."""
        self.refused += 1
        return Unavailable(f"{self.peer} is busy")

    def settle(self, request_id: int, code: int, payload: bytes) -> None:
        """Hand an answer over; one that nobody waits for any more is dropped."""
        pending = self.pop(request_id, None)
        if pending is not None:
            self.hand_over(pending[0], code, payload)

    def expire(self, now: float) -> None:
        """Answer 504 what is past its deadline."""
        for request_id in [request_id for request_id, (_, deadline) in self.items() if deadline <= now]:
            self.settle(request_id, 504, b"timed out")

    def fail(self) -> None:
        """Answer all of them 503."""
        failed = [done for done, _ in self.values()]
        self.clear()
        for done in failed:
            self.hand_over(done, 503, self.unavailable)

    def hand_over(self, done: Done, code: int, payload: bytes) -> None:
        """Call whoever waits for an answer."""
        try:
            done(code, payload)
        except Exception:
            logger.exception("%s: an answer of %s could not be handed over", self._own, self.peer)
