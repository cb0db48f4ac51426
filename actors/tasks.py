"""The tasks of one object: kept while they run, told of when they fail, cancelled together. And what comes again."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

__all__ = ["Tasks", "every"]

logger = logging.getLogger(__name__)


class Tasks:
    """Runs coroutines on the running loop; ``failed(error)`` is told of each that raises."""

    def __init__(self, failed: Callable[[BaseException], None]) -> None:
        self._failed = failed
        self._tasks: set[asyncio.Task[None]] = set()

    def run(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a coroutine as a task."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    async def cancel(self) -> None:
        """Cancel all of them and wait for their end."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(error)


async def every(seconds: float, function: Callable[[], Awaitable[None]]) -> None:
    """Call a function ``seconds`` after its last end, for ever; what it raises is logged, and it is called again."""
    while True:
        await asyncio.sleep(seconds)
        try:
            await function()
        except Exception:
            logger.exception("%s failed; it is called again in %g s", function, seconds)
