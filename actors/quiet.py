"""Waiting until nothing is under way, without looking again and again."""

import asyncio
from collections.abc import Callable

__all__ = ["Quiet"]


class Quiet:
    """Wakes those who wait for ``is_quiet()``; whoever ends something under way calls ``look``."""

    def __init__(self, is_quiet: Callable[[], bool]) -> None:
        self._is_quiet = is_quiet
        self._coming: asyncio.Future[None] | None = None

    async def wait(self) -> None:
        """Return once it is quiet, be it for a moment."""
        if self._is_quiet():
            return
        if self._coming is None:
            self._coming = asyncio.get_running_loop().create_future()
        # Shielded, since others may wait for the same and go on when this one gives up.
        await asyncio.shield(self._coming)

    def look(self) -> None:
        """Wake those who wait, if it is quiet now. Costs nothing while nobody does."""
        if self._coming is not None and self._is_quiet():
            self._coming.set_result(None)
            self._coming = None
