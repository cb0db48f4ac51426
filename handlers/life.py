"""A server's life, as the app's hooks see it, and the cron jobs that run while it lasts.

| here | pomelo | when | if it raises |
| --- | --- | --- | --- |
| ``before_start`` | ``beforeStartup`` | before the server can be reached or reach others | the start is tried again |
| ``on_start`` | ``afterStartup`` | it can reach others, and serves nobody yet | the start is tried again |
| ``on_rebuilt`` | none | a later life knows its channels' members again, and serves nobody yet | logged |
| ``on_all_started`` | ``afterStartAll`` | all servers have started, clients are let in | logged |
| ``before_stop`` | ``beforeShutdown`` | it is to stop, its clients are still connected | logged |
| ``on_stop`` | components' ``stop`` | its clients are gone, its requests are done | logged |
"""

import asyncio
import inspect
import logging
from collections.abc import Callable, Iterable
from typing import Any

from handlers.app import App
from handlers.hooks import run_logged
from handlers.server import Server

__all__ = ["Life"]

logger = logging.getLogger(__name__)

BEFORE_STOP = 5.0
"""Seconds that all before-stop hooks have; a server that is told to stop is ended after 12 s."""


class Life:
    """Runs the hooks of one server."""

    def __init__(self, app: App, server: Server) -> None:
        self._app = app
        self._server = server
        self._serving = False
        self._stopping = False

    async def before_start(self) -> None:
        """Run the before-start hooks. Raises what the first failing one raises."""
        self._app.freeze()
        await self._run(self._app.before_start.functions(self._server.type))

    async def start(self) -> None:
        """Run the start hooks. Raises what the first failing one raises."""
        self._app.freeze()
        await self._run(self._app.on_start.functions(self._server.type))

    async def rebuilt(self) -> None:
        """Run the rebuilt hooks."""
        await self._run_logged(self._app.on_rebuilt.functions(self._server.type))

    def all_started(self) -> asyncio.Task[None] | None:
        """Begin the cron jobs, and the all-started hooks, whose task is returned if there are any. Twice is once."""
        if self._serving:
            return None
        self._serving = True
        for job in self._app.cron_jobs:
            if job.runs_on(self._server):
                self._server.cron(job.expression, job.function, timezone=job.timezone)
        hooks = self._app.on_all_started.functions(self._server.type)
        return self._server.spawn(self._run_logged(hooks), name="all-started hooks") if hooks else None

    async def before_stop(self) -> None:
        """Run the before-stop hooks, for 5 s at most; none where the server never served. Twice is once."""
        if not self._serving or self._stopping:
            return
        self._stopping = True
        hooks = self._app.before_stop.functions(self._server.type)
        try:
            async with asyncio.timeout(BEFORE_STOP):
                await self._run_logged(hooks)
        except TimeoutError:
            logger.warning("%s: the before-stop hooks are not done after %g s", self._server.id, BEFORE_STOP)

    async def stop(self) -> None:
        """Run the stop hooks, in reverse."""
        await self._run_logged(reversed(self._app.on_stop.functions(self._server.type)))

    async def _run(self, hooks: Iterable[Callable[..., Any]]) -> None:
        for hook in hooks:
            result = hook(self._server)
            if inspect.isawaitable(result):
                await result

    async def _run_logged(self, hooks: Iterable[Callable[..., Any]]) -> None:
        await run_logged(hooks, self._server.id, self._server)
