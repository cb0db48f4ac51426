"""Noticing that a peer does not respond."""

import asyncio
from collections.abc import Callable

__all__ = ["RESPONSIVE", "Patience"]

RESPONSIVE = 5.0
"""Seconds in which one of the calls under way has to come back, else the peer is unresponsive."""


class Patience:
    """Calls ``late(token)`` once nothing has come back for too long. Made and used on the running loop."""

    def __init__(self, late: Callable[[int], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._late = late
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, token: int) -> None:
        """Wait from now on, for what went under this token; what was waited for before is not any more."""
        self.end()
        self._timer = self._loop.call_later(RESPONSIVE, self._late, token)

    def end(self) -> None:
        """Wait for nothing."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
