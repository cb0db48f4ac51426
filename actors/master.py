"""The master: starts the servers, tells each who the others are, and notices who dies. An actor with a thin shell.

Nothing passes through it while the game runs: servers go on from their tables when it is away, and when Ray restarts
it, it asks the servers that live who they are.
"""

import asyncio
import logging
import time
import warnings
from collections.abc import Coroutine, Iterable
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors.carrier import one_line
from actors.config import Game, ServerSpec
from actors.membership import Membership, Registration
from actors.placement import Node, spread
from actors.server import BackendServer, FrontendServer, configure_logging
from handlers.life import BEFORE_STOP
from handlers.members import Member

__all__ = ["MASTER", "Master", "actor_options"]

logger = logging.getLogger(__name__)

MASTER = "master"
"""The master's actor name in the game's namespace."""
STOP = 12.0
"""Seconds for a server to stop by itself before its process is ended."""
BOOT = 60.0
"""Seconds for all servers to boot when a game starts."""
REPORT = 5.0
"""Seconds for a server to answer a restarted master."""
LOOK = 0.3
"""Seconds between looks at a server that died."""
TEND = 1.0
"""Seconds between looks at the table of servers."""

# Without it a peer's death is noticed after 1 to 2 s; with it in 10 to 20 ms.
_ENVIRONMENT = {"RAY_timeout_ms_task_wait_for_death_info": "0"}


def actor_options(name: str, namespace: str, num_cpus: float) -> dict[str, Any]:
    """Return the options of every actor of a game.

    Detached, since the children of an actor that dies would die with it, even when it is restarted.
    """
    return {
        "name": name,
        "namespace": namespace,
        "lifetime": "detached",
        "max_restarts": -1,
        "max_concurrency": 10_000,
        "num_cpus": num_cpus,
        "runtime_env": {"env_vars": _ENVIRONMENT},
    }


def server_options(spec: ServerSpec, game: Game, node_id: str) -> dict[str, Any]:
    """Return the options of a server's actor on a node: with the game's files if they travel, elsewhere if need be."""
    options = actor_options(spec.id, game.namespace, spec.num_cpus)
    if game.parcel:
        options["runtime_env"]["working_dir"] = game.parcel
    options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(node_id, soft=True)
    return options


def living_nodes() -> list[Node]:
    """Return the nodes that Ray believes to live."""
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return [Node(id=node["NodeID"], cpus=node["Resources"].get("CPU", 0.0)) for node in nodes if node["Alive"]]


class Master:
    """Starts, watches and stops the servers of one game."""

    def __init__(self, game: Game) -> None:
        configure_logging(game.log_level)
        self._game = game
        self._membership = Membership(game.servers, time.time)
        self._handles: dict[str, Any] = {}
        self._failed: dict[str, str] = {}
        self._changed = asyncio.Event()
        self._known = asyncio.Event()
        self._creating: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._stopping = False
        if _restarted():
            self._run(self._recover())
        else:
            self._known.set()

    # -- for the command line

    async def launch(self) -> list[Member]:
        """Start every server, wait until all have booted, and open the game; returns the servers.

        Raises RuntimeError with one line for each server that could not boot, within a minute.
        """
        self._creating = asyncio.get_running_loop().create_task(asyncio.to_thread(self._create))
        await self._creating
        self._tend_to(self._handles)
        try:
            async with asyncio.timeout(BOOT):
                await self._all_booted()
        except TimeoutError:
            for server_id in self._membership.missing():
                self._failed.setdefault(server_id, f"did not boot within {BOOT:g} s")
        if self._failed:
            raise RuntimeError("\n".join(f"{server_id}: {reason}" for server_id, reason in self._failed.items()))
        self._membership.serving = True
        members = self._membership.members()
        await asyncio.gather(*(self._opened(member.id, members) for member in members))
        return members

    async def stop(self) -> None:
        """Stop every server, frontends first, and end their processes. The game is over then but for this actor."""
        self._stopping = True
        await self._known.wait()
        if self._creating is not None:
            await asyncio.wait([self._creating])
        for task in self._tasks:
            task.cancel()
        alive = [member.id for member in self._membership.members() if not self._membership.dead(member.id)]
        await asyncio.gather(*(self._before_stop(server_id) for server_id in alive))
        for frontend in (True, False):
            ids = [spec.id for spec in self._game.servers if spec.frontend == frontend and spec.id in self._handles]
            await asyncio.gather(*(self._stop_server(server_id) for server_id in ids))
        # Not before all have stopped: a process that ends under a server that still works looks like a death.
        for handle in self._handles.values():
            ray.kill(handle, no_restart=True)

    async def describe(self) -> list[dict[str, Any]]:
        """Return the state of every server, as far as it answers."""

        async def one(server_id: str) -> dict[str, Any]:
            try:
                described: dict[str, Any] = await asyncio.wait_for(self._handles[server_id].describe.remote(), 5)
            except (RayError, TimeoutError) as error:
                return {"id": server_id, "error": type(error).__name__}
            return described

        return list(await asyncio.gather(*(one(server_id) for server_id in self._handles)))

    # -- for servers

    async def register(self, server_id: str) -> tuple[Registration, dict[str, Any]]:
        """Begin a life of a server."""
        await self._known.wait()
        return self._membership.register(server_id), self._handles

    async def booted(self, member: Member) -> bool:
        """Take in a server that booted, and tell the others once the game is open; returns whether it is."""
        await self._known.wait()
        if not self._membership.booted(member):
            return False
        self._failed.pop(member.id, None)
        logger.info("%s: booted as incarnation %d", member.id, member.incarnation)
        self._changed.set()
        if self._membership.serving:
            self._publish()
        return self._membership.serving

    async def failed(self, server_id: str, reason: str) -> None:
        """Note why a server could not boot."""
        self._failed[server_id] = reason
        self._changed.set()

    # -- its own

    def _create(self) -> None:
        chosen, refused = spread(self._game.servers, living_nodes())
        self._failed.update(refused)
        if self._failed:
            return
        own = ray.get_runtime_context().current_actor
        for spec in self._game.servers:
            options = server_options(spec, self._game, chosen[spec.id])
            self._handles[spec.id] = ray.remote(_actor_class(spec)).options(**options).remote(spec, self._game, own)

    async def _all_booted(self) -> None:
        while self._membership.missing() and not self._failed:
            self._changed.clear()
            await self._changed.wait()
        if self._failed:
            # Others may be about to say the same, and are told together.
            await asyncio.sleep(LOOK)

    async def _opened(self, server_id: str, members: list[Member]) -> None:
        """Tell a server of the others and open it; one that died meanwhile opens by itself when it has booted again."""
        try:
            await self._handles[server_id].update.remote(members, self._handles, time.time_ns())
            await self._handles[server_id].open.remote()
        except RayActorError as error:
            logger.warning("%s: died before the game opened: %s", server_id, one_line(error))

    def _tend_to(self, server_ids: Iterable[str]) -> None:
        for server_id in server_ids:
            self._run(self._watch(server_id))
        self._run(self._tend())

    async def _watch(self, server_id: str) -> None:
        """Notice a server's death: the one call to it that stays under way fails."""
        while not self._stopping:
            try:
                await self._handles[server_id].ended.remote()
            except RayError as error:
                self._died(server_id, one_line(error))
            await asyncio.sleep(LOOK)

    def _died(self, server_id: str, reason: str) -> None:
        if server_id in self._membership.missing():
            if not self._membership.serving and not self._membership.dead(server_id):
                self._failed[server_id] = f"its process died while it booted: {reason}"
                self._changed.set()
            return
        logger.warning("%s: died: %s", server_id, reason)
        self._membership.lost(server_id)

    async def _tend(self) -> None:
        """Take their place from the dead, and look again for those that did not answer after a restart."""
        while not self._stopping:
            await asyncio.sleep(TEND)
            if gone := self._membership.expire():
                logger.warning("%s: gone; users go to others", ", ".join(gone))
                self._publish()
            unknown = [server_id for server_id in self._membership.missing() if not self._membership.dead(server_id)]
            if self._membership.serving and unknown:
                await asyncio.gather(*(self._find(server_id) for server_id in unknown))

    def _publish(self) -> None:
        """Tell every server who the servers are."""
        members = self._membership.members()
        for member in members:
            self._run(self._told(member.id, members, time.time_ns()))

    async def _told(self, server_id: str, members: list[Member], version: int) -> None:
        try:
            await self._handles[server_id].update.remote(members, self._handles, version)
        except RayError as error:
            logger.debug("%s: not told of the servers: %s", server_id, one_line(error))

    async def _recover(self) -> None:
        """Find the servers that live, after this actor was restarted."""
        await asyncio.gather(*(self._find(spec.id) for spec in self._game.servers))
        self._membership.serving = True
        self._known.set()
        logger.info("the master is back; it found %s", ", ".join(m.id for m in self._membership.members()))
        self._tend_to(self._handles)
        # Nobody is told of a view in which one that lives may be missing: those who boot or die later change it.

    async def _find(self, server_id: str) -> None:
        try:
            if server_id not in self._handles:
                self._handles[server_id] = await asyncio.to_thread(ray.get_actor, server_id, self._game.namespace)
            report: Member | None = await asyncio.wait_for(self._handles[server_id].report.remote(), REPORT)
        except (RayError, ValueError, TimeoutError) as error:
            logger.warning("%s: not found: %s", server_id, one_line(error))
            return
        if report is not None and self._membership.booted(report) and self._known.is_set():
            self._publish()

    async def _before_stop(self, server_id: str) -> None:
        try:
            await asyncio.wait_for(self._handles[server_id].before_stop.remote(), BEFORE_STOP)
        except (RayError, TimeoutError) as error:
            logger.warning("%s: its before-stop hooks did not run to their end: %s", server_id, one_line(error))

    async def _stop_server(self, server_id: str) -> None:
        handle = self._handles[server_id]
        booted = any(member.id == server_id for member in self._membership.members())
        try:
            # One that never booted has nothing to end.
            if booted and not self._membership.dead(server_id):
                await asyncio.wait_for(handle.stop.remote(), STOP)
        except (RayError, TimeoutError) as error:
            logger.warning("%s: did not stop by itself: %s", server_id, one_line(error))

    def _run(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("the master's task failed", exc_info=error)

    def __repr__(self) -> str:
        return f"{MASTER} ({self._game.name})"


def _restarted() -> bool:
    """Tell whether this process is a later life of its actor."""
    with warnings.catch_warnings():
        # Ray's property warns of another property that it reads itself.
        warnings.simplefilter("ignore", DeprecationWarning)
        return bool(ray.get_runtime_context().was_current_actor_reconstructed)


def _actor_class(spec: ServerSpec) -> type:
    return FrontendServer if spec.frontend else BackendServer
