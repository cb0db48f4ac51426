"""A running game, for those who operate it: the tool commands' way to it, and code's.

    with operating(address="auto") as operator:
        await operator.restart("chat")

Everything goes to the game's master by a Ray call, so it takes being on the cluster: nothing here can be reached from a
client port.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from actors.config import reread
from actors.delivery import delivered
from actors.game import Game
from actors.loading import load_app
from actors.membership import MASTER
from actors.operations import RATE, OperationError
from actors.routes import describe_routes

__all__ = ["Operator", "OperatorError"]

Lines = list[str]
Descriptions = list[dict[str, Any]]

ANSWER = 5.0
"""Seconds for the master to answer what it can answer at once."""
STOP = 40.0
"""Seconds for the master to stop the servers."""


class OperatorError(Exception):
    """What was asked for is refused, or did not come to its end; the message is one line."""


class Operator:
    """What can be done to one running game. All methods are for an event loop of a process that has joined its cluster.

    ``name`` is the game's name and ``master`` its master's actor; ``Operator.of`` finds it. Each method raises
    OperatorError when the master does not answer, and for what it refuses.
    """

    def __init__(self, name: str, master: Any) -> None:
        self.name = name
        self._master = master

    @classmethod
    def of(cls, name: str) -> "Operator":
        """Return the operator of a game on the cluster that this process has joined. Raises OperatorError."""
        import ray  # noqa: PLC0415 - tool commands set Ray's environment before they import it

        try:
            return cls(name, ray.get_actor(MASTER, f"pummelo-{name}"))
        except ValueError as error:
            raise OperatorError(f"no game {name!r} runs on this cluster") from error

    @classmethod
    def here(cls) -> "Operator":
        """Return the operator of the game that this process is a server of. Raises OperatorError outside of one."""
        import ray  # noqa: PLC0415

        namespace = str(ray.get_runtime_context().namespace)
        return cls.of(namespace.removeprefix("pummelo-"))

    # -- looking

    async def game(self) -> Game:
        """Return the game's definition as of its start or latest restart."""
        game: Game = await self._ask("game")
        return game

    async def list(self) -> Descriptions:
        """Return the state of every server: what it says of itself, its node, and how its latest ended life ended.

        One that does not answer has the state "dead", "starting" or "unresponsive" and little else.
        """
        servers: Descriptions = await self._ask("describe")
        return servers

    async def inspect(self, server_id: str) -> dict[str, Any]:
        """Return a server's state, sessions, channels, links, mirrors, and its last 20 ends with their reasons."""
        found: dict[str, Any] = await self._ask("inspect", server_id)
        return found

    async def routes(self) -> Descriptions:
        """Return every handler and remote of the game, imported from its folder, which must be here too."""
        game = await self.game()
        return describe_routes(load_app(game.folder, game.app, game.server_types))

    # -- changing

    async def add(self, server_type: str, count: int = 1) -> Lines:
        """Start further servers of a type; returns a line for each.

        They have the settings of the type's entry in the game's file as of the start or latest restart. Their ids go
        on from the highest number that the type has had; a type with a port gives each the next one.
        """
        return await self._operation("add", server_type, count)

    async def remove(self, server_id: str, *, rate: float = RATE, force: bool = False) -> Lines:
        """Drain a server and end it for good; returns a line. ``force`` removes the last of its type too."""
        return await self._operation("remove", server_id, rate, force)

    async def drain(self, server_id: str, *, rate: float = RATE, force: bool = False) -> Lines:
        """Give a server no new work, send its clients away, ``rate`` a second, and leave it running; returns a line.

        ``restart`` makes it serve again, ``remove`` ends it.
        """
        return await self._operation("drain", server_id, rate, force)

    async def restart(
        self,
        target: str | None = None,
        *,
        file: Path | None = None,
        rate: float = RATE,
        check: Callable[[Game], object] | None = None,
    ) -> Lines:
        """Restart all servers, those of a type, or one, one after the other; returns a line for each.

        The game's file is read again, or another, and checked whole before anything is touched. Raises ConfigError
        for a mistake in it, and ClusterError when the game's folder, which is sent to the cluster anew, cannot be
        sent. Frontends send their clients away, ``rate`` a second. ``check`` is called with the new definition before
        it is sent, and may raise.
        """
        before = await self.game()
        game = reread(before, file)
        if check is not None:
            check(game)
        if before.parcel:
            game = delivered(game)
        return await self._operation("restart", game, target, rate)

    async def kick(self, uid: str, reason: str = "kicked") -> int:
        """Close every session of a uid on all frontends, after telling the clients why; returns how many."""
        return int(await self._ask("kick", uid, reason, within=2 * ANSWER))

    async def stop(self) -> None:
        """End the game: the servers, frontends first, and the master; by force what does not end within 40 s."""
        import ray  # noqa: PLC0415

        try:
            await asyncio.wait_for(self._master.stop.remote(), STOP)
        except (ray.exceptions.RayError, TimeoutError) as error:
            raise OperatorError(f"the master could not stop the servers ({type(error).__name__}): killed") from error
        finally:
            ray.kill(self._master, no_restart=True)
            self._kill_the_rest()

    def _kill_the_rest(self) -> None:
        """End the processes of servers that the master did not end; the others have no name any more."""
        import ray.util  # noqa: PLC0415

        namespace = f"pummelo-{self.name}"
        for actor in ray.util.list_named_actors(all_namespaces=True):
            if actor["namespace"] == namespace:
                try:
                    ray.kill(ray.get_actor(actor["name"], namespace), no_restart=True)
                except ValueError:  # ended meanwhile
                    continue

    async def _operation(self, method: str, *arguments: Any) -> Lines:
        # An operation takes as long as it takes; but one that cannot even be asked for is told at once.
        await self._ask("game")
        lines: Lines = await self._ask(method, *arguments, within=None)
        return lines

    async def _ask(self, method: str, *arguments: Any, within: float | None = ANSWER) -> Any:
        import ray  # noqa: PLC0415

        try:
            return await asyncio.wait_for(getattr(self._master, method).remote(*arguments), within)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, OperationError):
                raise OperatorError(str(error.cause)) from error
            raise
        except TimeoutError as error:
            raise OperatorError(f"the master of {self.name!r} does not answer within {within:g} s") from error
        except ray.exceptions.RayActorError as error:
            raise OperatorError(f"the master of {self.name!r} died; it comes back by itself, ask again") from error
