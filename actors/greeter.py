"""Saying hello to a peer that is not there, again and again until it is."""

import asyncio
from collections.abc import Callable

from actors.tasks import Tasks

__all__ = ["RETRY", "Greeter"]

RETRY = (0.1, 2.0)
"""Seconds between hellos: the first pause, doubled up to the last."""


class Greeter:
    """Calls ``hello`` at once and after growing pauses, from ``begin`` to ``end``, in one of ``tasks``."""

    def __init__(self, hello: Callable[[], None], tasks: Tasks) -> None:
        self._hello = hello
        self._tasks = tasks
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Say hello from now on; when that is being done already it goes on as it is."""
        if self._task is None or self._task.done():
            self._task = self._tasks.run(self._greet())

    def end(self) -> None:
        """Say it no more."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _greet(self) -> None:
        pause, longest = RETRY
        while True:
            self._hello()
            await asyncio.sleep(pause)
            pause = min(pause * 2, longest)
