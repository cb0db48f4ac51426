"""The servers' actors as the master handles them: made, spoken to, ended. Thin; others decide what is to be done."""

import asyncio
import contextlib
import logging
import os
import threading
from collections.abc import Coroutine, Iterable, Mapping
from typing import Any

import ray
from ray.exceptions import ActorAlreadyExistsError, RayActorError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors.carrier import one_line
from actors.game import Game, ServerSpec
from actors.membership import MASTER
from actors.placement import Node, place, too_large
from actors.server import BackendServer, FrontendServer
from handlers.life import BEFORE_STOP

__all__ = ["Actors", "actor_options", "kill_own"]

logger = logging.getLogger(__name__)

STOP = 12.0
"""Seconds for a server to stop by itself before its process is ended."""
ACK = 5.0
"""Seconds for a server to answer what it can answer at once."""
NAME = 10.0
"""Seconds for Ray to give an ended actor's name free; it takes milliseconds."""

_ENVIRONMENT = {
    # Without it a peer's death is noticed after 1 to 2 s; with it in 10 to 20 ms.
    "RAY_timeout_ms_task_wait_for_death_info": "0",
    # Ray has its workers step back behind every other process, at niceness 15: right for batches, not for a server.
    "RAY_worker_niceness": "0",
    # glibc has an arena for each of Ray's threads, up to eight a CPU, and each keeps some of what was freed: that took
    # 2 MiB more of a frontend in its first five minutes.
    "MALLOC_ARENA_MAX": os.environ.get("MALLOC_ARENA_MAX", "4"),
}


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


class Actors:
    """The actors of a game's servers, by id. ``handles`` is what servers are told of each other."""

    def __init__(self, namespace: str) -> None:
        self.handles: dict[str, Any] = {}
        self._namespace = namespace
        self._chosen: dict[str, tuple[ServerSpec, str]] = {}
        self._choosing = threading.Lock()

    def too_large(self, specs: Iterable[ServerSpec]) -> dict[str, str]:
        """Return why no node can take a server, by id, for those for which it is so."""
        return too_large(specs, _nodes())

    def create(self, spec: ServerSpec, game: Game, running: Mapping[str, tuple[ServerSpec, str]]) -> None:
        """Create a server's actor, with the game's files if they travel. Blocks while Ray takes it.

        ``running`` are the servers whose nodes are known, by id, each with its node's id. Raises CannotPlace.
        """
        options = actor_options(spec.id, self._namespace, spec.num_cpus)
        if game.parcel:
            options["runtime_env"]["working_dir"] = game.parcel
        with self._choosing:
            # Those that were created and have not yet said where they are count by the node chosen for them.
            node_id = place(spec, _nodes(), self._chosen | dict(running))
            self._chosen[spec.id] = (spec, node_id)
        options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(node_id, soft=True)
        actor = FrontendServer if spec.frontend else BackendServer
        own = ray.get_runtime_context().current_actor
        try:
            self.handles[spec.id] = ray.remote(actor).options(**options).remote(spec, game, own)
        except ActorAlreadyExistsError:
            # The name is another actor's, which nobody here knows: the next attempt has it.
            self._kill_named(spec.id)
            raise

    def named(self) -> list[str]:
        """Return the names of the game's actors, as Ray has them."""
        every = ray.util.list_named_actors(all_namespaces=True)
        return [actor["name"] for actor in every if actor["namespace"] == self._namespace]

    def find(self, server_id: str) -> bool:
        """Take up an actor that an earlier master made; tell whether it is there."""
        try:
            self.handles[server_id] = ray.get_actor(server_id, self._namespace)
        except ValueError:
            return False
        return True

    def given_up(self, server_id: str) -> bool:
        """Tell whether Ray has no actor of this name any more, and so starts no further life of it. Blocks."""
        try:
            ray.get_actor(server_id, self._namespace)
        except ValueError:
            return True
        except (RayError, RuntimeError) as error:
            logger.debug("%s: Ray does not tell whether it is there: %s", server_id, one_line(error))
        return False

    async def ask(self, server_id: str, method: str, *arguments: Any, within: float = ACK) -> Any:
        """Call a server. Raises RayError, and TimeoutError when it does not answer in time."""
        return await asyncio.wait_for(getattr(self.handles[server_id], method).remote(*arguments), within)

    async def answers(self, server_id: str) -> bool:
        """Tell whether a server does anything at all. One that has died is said to: its death is noticed elsewhere."""
        try:
            await self.ask(server_id, "ping")
        except TimeoutError:
            return False
        except (RayError, KeyError) as error:
            logger.debug("%s: not asked whether it is there: %s", server_id, one_line(error))
        return True

    async def tried(self, server_id: str, what: str, call: Coroutine[Any, Any, Any]) -> Any:
        """Await a call of a server; where it fails, or there is no server, say what did not happen, and return None."""
        try:
            return await call
        except (RayError, TimeoutError, KeyError) as error:
            logger.warning("%s: %s: %s", server_id, what, one_line(error))
            return None

    async def before_stop(self, server_id: str) -> None:
        """Have a server run its before-stop hooks."""
        call = self.ask(server_id, "before_stop", within=BEFORE_STOP)
        await self.tried(server_id, "its before-stop hooks did not run to their end", call)

    async def stop(self, server_id: str) -> None:
        """Have a server stop by itself; its process goes on."""
        await self.tried(server_id, "did not stop by itself", self.ask(server_id, "stop", within=STOP))

    async def kill(self, server_id: str) -> None:
        """End a server's process for good, and return when its name is free."""
        self.handles.pop(server_id, None)
        self._chosen.pop(server_id, None)
        async with asyncio.timeout(NAME):
            # Ray tells nobody when a name is free; it is after some milliseconds.
            while server_id in await asyncio.to_thread(self.named):
                await asyncio.to_thread(self._kill_named, server_id)
                await asyncio.sleep(0.01)

    def kill_all(self) -> None:
        """End the process of every actor of the game but this one, for good. Blocks; for the master.

        Does nothing once another master has the name: the game was started anew.
        """
        own = ray.get_runtime_context().get_actor_id()
        for name in self.named():
            if ray.get_actor(MASTER, self._namespace)._actor_id.hex() != own:  # noqa: SLF001 - it has no other
                return
            if name != MASTER:
                self._kill_named(name)

    def _kill_named(self, server_id: str) -> None:
        """End whatever actor has a server's name; there may be none any more."""
        with contextlib.suppress(ValueError, RayActorError):
            ray.kill(ray.get_actor(server_id, self._namespace), no_restart=True)


def kill_own() -> None:
    """End the process of the actor that calls this, for good."""
    ray.kill(ray.get_runtime_context().current_actor, no_restart=True)


def _nodes() -> list[Node]:
    """Return the nodes that Ray believes to live."""
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return [Node(id=node["NodeID"], cpus=node["Resources"].get("CPU", 0.0)) for node in nodes if node["Alive"]]
