"""The server that game code is handed: its name, its channels, its way to others, its tasks."""

import asyncio
import inspect
import logging
import random
from collections.abc import Callable, Coroutine, Iterable, Mapping
from datetime import datetime
from typing import Any, Self

from handlers import deadline
from handlers.channels import ChannelService
from handlers.cron import CronJob, run_cron
from handlers.errors import NotFound, TimedOut, Unavailable
from handlers.global_channels import GlobalChannels
from handlers.lag import LagProbe
from handlers.members import Member, Members
from handlers.rpc import Rpc
from handlers.sessions import Sessions
from handlers.users import Users

__all__ = ["Server"]

logger = logging.getLogger(__name__)

LOAD = 1.0
"""Seconds for a frontend to say how many sessions it has."""


class Server:
    """One server of the game, frontend or backend, as its handlers see it.

    ``state`` is the game's own object of this server, None until a start hook sets it; ``settings`` is what
    ``servers.yaml`` says for it. Made by the framework; everything on it is called from the server's own event loop.
    """

    def __init__(
        self,
        server_id: str,
        server_type: str,
        *,
        channels: ChannelService,
        sessions: Sessions,
        rpc: Rpc,
        users: Users,
        global_channels: GlobalChannels,
        members: Members,
        settings: Mapping[str, Any],
        now: Callable[[], datetime],
    ) -> None:
        self.id = server_id
        self.type = server_type
        self.channels = channels
        self.sessions = sessions
        self.rpc = rpc
        self.global_channels = global_channels
        self.settings = settings
        self.state: Any = None
        self._members = members
        self._users = users
        self._now = now
        self._tasks: set[asyncio.Task[Any]] = set()
        self._probe: LagProbe | None = None

    @property
    def lag(self) -> float:
        """Seconds by which the event loop is late; measured from the first time that somebody asks."""
        if self._probe is None:
            self._probe = LagProbe()
            self.spawn(self._probe.run(), name="lag probe")
        return self._probe.lag

    def members(self, server_type: str) -> list[Member]:
        """Return the game's servers of a type that take new work, in the order of their ids; a gate picks from them."""
        return self._members.of(server_type)

    async def least_loaded(self, server_type: str) -> Member:
        """Return the frontend of a type that has the fewest sessions, for a gate to hand out; of equals any one.

        All are asked at the same time. One that is down, does not answer within a second, or takes no clients, as it
        does not listen yet, is drained or stops, is left out.
        Raises Unavailable when none is left.
        """
        members = self.members(server_type)
        loads = await asyncio.gather(*(self._load(member.id) for member in members))
        known = [
            (load, random.random(), member) for load, member in zip(loads, members, strict=True) if load is not None
        ]
        if not known:
            raise Unavailable(f"no {server_type} is up")
        return min(known, key=lambda one: one[:2])[2]

    async def _load(self, frontend_id: str) -> int | None:
        try:
            async with asyncio.timeout(LOAD):
                return (await self.sessions.count(frontend_id))["sessions"]
        except (NotFound, TimedOut, Unavailable, TimeoutError):
            return None

    async def where(self, uid: str | int) -> list[str]:
        """Return the ids of the frontends at which a user has a session now, sorted; none when it is not online.

        This and the next three know of every frontend, and need the key ``directory`` in ``servers.yaml``: without it
        they raise NotConfigured, and Unavailable or TimedOut where the directory cannot be asked.
        """
        return await self._users.where(uid)

    async def is_online(self, uids: Iterable[str | int]) -> dict[str, bool]:
        """Return for each user whether it has a session somewhere; a frontend asks nobody about its own users."""
        return await self._users.is_online(uids)

    async def push_to_users(
        self, uids: Iterable[str | int], route: str, message: Any, *, options: Any = None
    ) -> list[str]:
        """Send a message to users wherever they are, on all their sessions; returns the uids that were not reached.

        Encoded once, one entry for each frontend. A uid is returned that has no session, or whose frontends did not
        confirm. Raises TypeError for a message that JSON cannot carry or options that msgpack cannot.
        """
        return await self._users.push_to(uids, route, message, options=options)

    async def kick(self, uid: str | int, reason: str = "kick") -> int:
        """Close every session of a user, wherever they are, after telling the clients why; returns how many."""
        return await self._users.kick(uid, reason)

    def spawn(self, coroutine: Coroutine[Any, Any, Any], *, name: str | None = None) -> asyncio.Task[Any]:
        """Run a coroutine beside the handlers; cancelled at stop. An exception is logged with its traceback.

        It has no deadline: where a remote starts it, it outlives the call.
        """
        name = name or getattr(coroutine, "__qualname__", None)
        task = asyncio.get_running_loop().create_task(coroutine, name=name, context=deadline.free_context())
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def every(self, seconds: float, function: Callable[[], Any]) -> asyncio.Task[Any]:
        """Call a plain or async function every so many seconds until the server stops or the task is cancelled.

        The first call is ``seconds`` from now. Calls never overlap: one that takes longer makes the missed ones be
        left out, not caught up. One that raises is logged and the next one still comes.
        """
        if seconds <= 0:
            raise ValueError(f"every takes a positive number of seconds: {seconds!r}")
        return self.spawn(self._every(seconds, function), name=getattr(function, "__qualname__", None))

    def cron(self, expression: str, function: Callable[[Self], Any], *, timezone: str = "UTC") -> asyncio.Task[None]:
        """Call a function of the server at certain times, as ``app.cron`` does, until the task is cancelled.

        For times that are known only when the game runs; pomelo's ``addCrons``. Begins at once, and ends at stop.
        Cancelling the task (pomelo's ``removeCrons``) cancels a call that is running, too. Raises AppError for a wrong
        expression or zone.
        """
        job = CronJob(expression, function, self.type, self.id, timezone)
        return self.spawn(run_cron(job, self, self._now), name=f"cron {expression}")

    async def stop_tasks(self) -> None:
        """Cancel what ``spawn`` and ``every`` started and wait for its end. The framework calls it at stop."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _every(self, seconds: float, function: Callable[[], Any]) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + seconds
        while True:
            await asyncio.sleep(due - loop.time())
            try:
                result = function()
                if inspect.isawaitable(result):
                    await result
            except Exception:
                logger.exception("%s: %r failed; it is called again in %g s", self.id, function, seconds)
            due += seconds * max(1, -(-(loop.time() - due) // seconds))

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("%s: the task %s failed", self.id, task.get_name(), exc_info=error)

    def __repr__(self) -> str:
        return f"{self.id} ({self.type})"
