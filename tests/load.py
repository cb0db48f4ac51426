"""Load on a game while a test does something to it: clients that ask again and again, each request accounted for."""

import asyncio
from collections import Counter
from types import TracebackType
from typing import Any, Self

from pomelo_client import PomeloClient

__all__ = ["DEADLINE", "Load"]

DEADLINE = 12.0
"""Seconds for a request to be answered, if only with what went wrong: the 10 s of a server's own deadline, and some."""
PACE = 0.005
"""Seconds between a client's answer and its next request."""


class Load:
    """Asks from clients for as long as the context; ``codes`` counts the answers by code, 200 for those without one.

    The context's end raises TimeoutError where a request was not answered, and whatever ended a client's connection.
    """

    def __init__(
        self,
        clients: list[PomeloClient],
        route: str,
        message: dict[str, Any] | None = None,
        *,
        deadline: float = DEADLINE,
    ) -> None:
        self.codes: Counter[int] = Counter()
        self._deadline = deadline
        self._clients = clients
        self._route = route
        self._message = message
        self._over = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._ask(client)) for client in self._clients]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        await asyncio.gather(*self._tasks)

    async def answered(self, number: int = 1) -> None:
        """Wait until as many further requests as that have been answered well."""
        wanted = self.codes[200] + number
        async with asyncio.timeout(60):
            while self.codes[200] < wanted:  # noqa: ASYNC110 - many count, and none knows of this
                await asyncio.sleep(PACE)

    async def _ask(self, client: PomeloClient) -> None:
        while not self._over.is_set():
            answer = await client.request(self._route, self._message, timeout=self._deadline)
            self.codes[answer.get("code", 200)] += 1
            await asyncio.sleep(PACE)
