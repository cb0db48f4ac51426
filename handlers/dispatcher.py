"""The dispatcher: runs the requests of a server's own routes, those of one session one at a time and in order."""

import asyncio
import logging
import math
from collections import deque
from collections.abc import Collection, Coroutine, Mapping
from typing import Any

import msgspec

from handlers.app import App, Handler
from handlers.body import encode_body
from handlers.chain import Chain, build_chain
from handlers.errors import error_for, is_cancelled, pack_message
from handlers.link import Done
from handlers.request import Request
from handlers.server import Server

__all__ = ["Dispatcher"]

logger = logging.getLogger(__name__)

HELD_UP = 3.0
"""Seconds after which a request that keeps others of its session waiting is logged."""


class _Job(msgspec.Struct, eq=False):
    """A request with its handler, and whom to answer; nobody for a notify."""

    request: Request
    chain: Chain
    reply: Done | None


class _Queue:
    """The requests of one session: the one that runs and those that wait."""

    __slots__ = ("reported", "running", "since", "waiting")

    def __init__(self, first: _Job) -> None:
        self.waiting: deque[_Job] = deque()
        self.running = first
        self.since = math.inf  # it has not begun
        self.reported = False


class Dispatcher:
    """Runs handlers in real tasks: one for each session that has work, one for each concurrent request.

    ``waiting`` bounds the requests that wait for an earlier one of their session, and those that run concurrently; one
    more is answered 429. Answers go to the request's ``reply(code, payload)``, code 0 and the body, or the error's code
    and message.
    """

    def __init__(self, app: App, server: Server, *, waiting: int = 64) -> None:
        self._server = server
        self._limit = waiting
        self._routes: Mapping[str, tuple[Handler, Chain]] = {
            route: (handler, build_chain(app, handler, server))
            for route, handler in app.handlers.items()
            if handler.server_type == server.type
        }
        self._queues: dict[int, _Queue] = {}
        self._concurrent: dict[int, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._watch: asyncio.TimerHandle | None = None

    def submit(self, request: Request, reply: Done | None) -> None:
        """Take a request in. Never awaits; the order of the calls is the order of a session's requests."""
        found = self._routes.get(request.route)
        if found is None:
            if reply is not None:
                reply(404, b"no such route")
            return
        handler, chain = found
        job = _Job(request, chain, reply)
        if handler.concurrent:
            self._submit_concurrent(job)
            return
        session_id = request.session.id
        queue = self._queues.get(session_id)
        if queue is None:
            queue = self._queues[session_id] = _Queue(job)
            self._start(self._drain(session_id, queue))
        elif len(queue.waiting) >= self._limit:
            if reply is not None:
                reply(429, b"too many requests are waiting")
        else:
            queue.waiting.append(job)
            if self._watch is None:
                self._watch = asyncio.get_running_loop().call_later(HELD_UP / 3, self._watch_queues)

    def _submit_concurrent(self, job: _Job) -> None:
        session_id = job.request.session.id
        running = self._concurrent.get(session_id, 0)
        # As many as may wait for an earlier one, and that one: nothing a client sends is without bound.
        if running > self._limit:
            _answer(job, 429, b"too many requests are running")
            return
        self._concurrent[session_id] = running + 1
        self._start(self._run_concurrent(session_id, job))

    async def _run_concurrent(self, session_id: int, job: _Job) -> None:
        try:
            await self._run(_Queue(job))
        finally:
            self._concurrent[session_id] -= 1
            if not self._concurrent[session_id]:
                del self._concurrent[session_id]

    def session_closed(self, session_id: int) -> None:
        """Drop the session's requests that wait; one that runs finishes."""
        queue = self._queues.get(session_id)
        if queue is not None:
            self._drop(queue)

    def frontend_lost(self, frontend_id: str) -> None:
        """Drop the waiting requests of every session of a frontend."""
        for queue in self._queues.values():
            if queue.running.request.session.frontend_id == frontend_id:
                self._drop(queue)

    @property
    def running(self) -> int:
        """How many sessions and concurrent requests are being served now."""
        return len(self._tasks)

    @property
    def tasks(self) -> Collection[asyncio.Task[None]]:
        """What runs now."""
        return self._tasks

    async def stop(self, grace: float) -> None:
        """Wait up to ``grace`` seconds for what runs, then cancel it; the cancelled are answered 503."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    def _drop(self, queue: _Queue) -> None:
        waiting, queue.waiting = queue.waiting, deque()
        for job in waiting:
            _answer(job, 503, b"the session is closed")

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _drain(self, session_id: int, queue: _Queue) -> None:
        try:
            await self._run(queue)
        finally:
            for job in queue.waiting:
                _answer(job, 503, b"the server is stopping")
            del self._queues[session_id]

    async def _run(self, queue: _Queue) -> None:
        """Run one request after the other until none waits."""
        loop_time = asyncio.get_running_loop().time
        while True:
            job = queue.running
            queue.since, queue.reported = loop_time(), False
            try:
                payload, code = encode_body(await job.chain(job.request)), 0
            except asyncio.CancelledError as error:
                if is_cancelled():
                    _answer(job, 503, b"the server is stopping")
                    raise
                # Something that the handler waited for was cancelled, not its task: an error like any other.
                code, payload = self._failure(job, error)
            except Exception as error:  # noqa: BLE001 - the one place where a handler's exception becomes its answer
                code, payload = self._failure(job, error)
            if job.reply is not None:
                job.reply(code, payload)
            if not queue.waiting:
                return
            queue.running = queue.waiting.popleft()

    def _failure(self, job: _Job, error: BaseException) -> tuple[int, bytes]:
        code, message = error_for(error, f"{self._server.id}: {job.request!r}")
        return code, pack_message(message)

    def _watch_queues(self) -> None:
        """Log each request that has kept others of its session waiting for too long, once."""
        loop = asyncio.get_running_loop()
        self._watch = None
        waiting = [queue for queue in self._queues.values() if queue.waiting]
        for queue in waiting:
            if not queue.reported and loop.time() - queue.since >= HELD_UP:
                queue.reported = True
                logger.warning(
                    "%s: %s has run for %.1f s and holds up %s of %r",
                    self._server.id,
                    queue.running.request.route,
                    loop.time() - queue.since,
                    queue.waiting[0].request.route,
                    queue.running.request.session,
                )
        if waiting:
            self._watch = loop.call_later(HELD_UP / 3, self._watch_queues)


def _answer(job: _Job, code: int, payload: bytes) -> None:
    if job.reply is not None:
        job.reply(code, payload)
