"""Ways between servers in one process, for tests of links."""

import asyncio
from abc import ABC, abstractmethod

from actors.way import Back


class TaskWay(ABC):
    """A way whose calls are coroutines, each run in a task."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[bytes]] = set()

    @abstractmethod
    async def carried(self, carrier: bytes) -> bytes:
        """Have the peer serve a carrier."""

    @abstractmethod
    async def ended(self) -> None:
        """As Way.ended."""

    def call(self, carrier: bytes, back: Back) -> None:
        """As Way.call."""
        task = asyncio.get_running_loop().create_task(self.carried(carrier))
        self._tasks.add(task)

        def done(task: asyncio.Task[bytes]) -> None:
            self._tasks.discard(task)
            if not task.cancelled():
                back(task.exception() or task.result())

        task.add_done_callback(done)
