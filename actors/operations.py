"""What an operator does to a game that runs, step by step: restart, add, remove, drain. Pure but for its port.

One server at a time, so that at no moment more than one is away; and one operation at a time. The order of the steps is
what makes that no request is lost, where handlers take less than QUIET and a server is back in as long again:

- A backend that restarts: all others are told that it does, and hold what is meant for it from then on. What was under
  way to it is finished (QUIET). It stops, its process ends, and only then a new life begins. Once that has booted, all
  send it what they held.
- A frontend, or a server that goes for good: it is taken out of the choice first, by clients at the gate and by
  servers, then it finishes what it has, and only then it ends.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Protocol

from actors.game import Game, ServerSpec
from actors.membership import DRAIN, REMOVE, RESTART, Membership
from handlers.members import DRAINING, RESTARTING, SERVING
from handlers.store import DIRECTORY

__all__ = ["LEAVE", "RATE", "Fleet", "OperationError", "Operations"]

logger = logging.getLogger(__name__)

RATE = 200.0
"""Clients a second that are sent away, where nobody says another rate."""
BOOT = 60.0
"""Seconds for a server to boot."""
QUIET = 5.0
"""Seconds for what is under way to a server that restarts to be finished. What is meant for it meanwhile is held for
``HELD`` seconds (actors.held): with what its boot takes this has to be less."""
DRAIN_QUIET = 30.0
"""Seconds for what is under way to a server that is drained to be finished: nothing is held for that one."""
PATIENCE = 60.0
"""Seconds for which an operation waits until the master has done what it does of its own."""
RECONNECT = "server restarting, please reconnect"
LEAVE = "server going away, please reconnect"


class OperationError(Exception):
    """The operation is refused, or ended before it was complete; the message is one line that says which, and why."""


class Fleet(Protocol):
    """What the operations do to servers. None of it raises because a server died; that is told in the result."""

    async def too_large(self, specs: Iterable[ServerSpec]) -> dict[str, str]:
        """Return why no node can take a server, by id, for those for which it is so."""

    async def tell(self) -> None:
        """Tell every living server the table; return when each has taken it over, or has not within 5 s."""

    async def quiet(self, server_id: str, limit: float) -> list[str]:
        """Wait until nothing of the others is under way to a server; return the ids of those that are not done."""

    async def drain(self, server_id: str, rate: float, reason: str) -> None:
        """Have a server send its clients away, ``rate`` a second, and finish what it does."""

    async def end(self, server_id: str, reason: str) -> None:
        """Stop a server, end its process, and return when another can have its name. Raises when it cannot be had."""

    async def start(self, spec: ServerSpec, game: Game) -> None:
        """Create a server's actor. Raises whatever keeps it from being created."""

    async def booted(self, server_id: str, limit: float) -> str | None:
        """Wait until a server has booted; return None, or why it has not."""


class Operations:
    """The operations on one game; ``game`` is its definition, which a restart may change."""

    def __init__(self, game: Game, membership: Membership, fleet: Fleet) -> None:
        self.game = game
        self.running = ""
        """What is being done, "" for nothing."""
        self._own: asyncio.Event | None = None
        """Set when what is being done is over, where no operator asked for it."""
        self._membership = membership
        self._fleet = fleet

    async def restart(self, game: Game, target: str | None, rate: float) -> list[str]:
        """Restart all servers, those of a type, or one, with ``game``'s definition; returns a line for each.

        Backends go first. Where a server does not boot the restart ends: the others go on as they are, and that one
        goes on trying. Raises OperationError, which names those that were restarted before.
        """
        async with self._alone(f"restart {target}" if target else "restart"):
            _refuse_rate(rate)
            if game.directory != self.game.directory:
                raise OperationError("the key directory changed, which takes a stop and a start of the game")
            server_ids = self._targets(target)
            specs = {server_id: self._definition(game, server_id) for server_id in server_ids}
            await self._refuse_too_large(specs.values())
            self.game = game
            return await _one_by_one([partial(self._restarted, spec, rate) for spec in specs.values()])

    async def add(self, server_type: str, count: int) -> list[str]:
        """Start further servers of a type, numbered on from the highest that it has had; returns a line for each.

        Raises OperationError, which names those that were added before; one that does not boot is taken away again.
        """
        async with self._alone(f"add {server_type}"):
            if count < 1:
                raise OperationError(f"{count} servers cannot be added")
            _refuse_directory(server_type)
            return await _one_by_one([partial(self._added, server_type)] * count)

    async def remove(self, server_id: str, rate: float, *, force: bool = False) -> list[str]:
        """Drain a server and end it for good. Raises OperationError for the last of its type, unless ``force``."""
        async with self._alone(f"remove {server_id}"):
            _refuse_rate(rate)
            self._may_leave(server_id, force)
            began = time.monotonic()
            await self._removed(server_id, rate)
            return [f"{server_id} removed in {time.monotonic() - began:.1f} s"]

    async def drain(self, server_id: str, rate: float, *, force: bool = False) -> list[str]:
        """Give a server no new work, and have it finish what it has; it goes on running, without work.

        ``restart`` makes it serve again, ``remove`` ends it. Raises OperationError as ``remove`` does.
        """
        async with self._alone(f"drain {server_id}"):
            _refuse_rate(rate)
            self._may_leave(server_id, force)
            began = time.monotonic()
            await self._drained(server_id, DRAIN, rate, LEAVE)
            return [f"{server_id} drained in {time.monotonic() - began:.1f} s"]

    async def resume(self, rate: float) -> None:
        """Bring to an end what was begun with a server by an earlier master; what would have come after it is left.

        One that was to restart is restarted, one that was to go goes, and one that was to be drained is. One that has
        ended and has not booted yet needs nothing: its next life serves, or is drained. Raises OperationError, once all
        have had their turn.
        """
        purposes = {spec.id: self._membership.purpose(spec.id) for spec in self._membership.specs()}
        failures: list[str] = []
        async with self._alone("what was begun and not finished", own=True):
            for server_id, purpose in purposes.items():
                try:
                    await self._continued(server_id, purpose, rate)
                except OperationError as error:
                    failures.append(str(error))
                except Exception as error:
                    logger.exception("%s: what was begun with it could not be finished", server_id)
                    failures.append(f"{server_id}: {_why(error)}")
            if failures:
                raise OperationError("; ".join(failures))

    @property
    def unfinished(self) -> bool:
        """Whether a server lives that was to restart or to go, and nobody is at it: ``resume`` is."""
        living, purpose = self._membership.living(), self._membership.purpose
        return not self.running and any(purpose(server_id) in (RESTART, REMOVE) for server_id in living)

    async def remake(self, server_id: str) -> None:
        """Make a server again whose actor is no more, or could not be created or ended. Raises OperationError.

        One that was to go goes.
        """
        async with self._alone(f"make {server_id} again", own=True):
            if server_id not in self._membership or server_id in self._membership.living():
                return
            spec = self._next_life(server_id)
            if spec is not None:
                await self._fleet.start(spec, self.game)
            else:
                await self._gone(server_id)

    async def _continued(self, server_id: str, purpose: str, rate: float) -> None:
        living = server_id in self._membership.living()
        if purpose == RESTART and living:
            logger.warning("%s: its restart was begun and not finished; this is continued, no more", server_id)
            await self._restarted(await self._still_possible(server_id), rate)
        elif purpose == REMOVE:
            logger.warning("%s: its removal was begun and not finished; this is continued", server_id)
            await self._removed(server_id, rate)
        elif purpose == DRAIN and living:
            # Whether its clients were sent away nobody knows; one that was drained takes it for done.
            await self._drained(server_id, DRAIN, rate, LEAVE)

    async def _still_possible(self, server_id: str) -> ServerSpec:
        """Return the definition for a restart; where there is none any more, the server goes on as it is."""
        try:
            spec = self._definition(self.game, server_id)
            await self._refuse_too_large([spec])
        except OperationError:
            self._membership.plan(server_id, SERVING, "")
            await self._fleet.tell()
            raise
        return spec

    def _next_life(self, server_id: str) -> ServerSpec | None:
        """Return the definition with which a server that is not there is made, None for one that was to go.

        One that was to restart has that of the game's latest definition from then on. Raises OperationError where
        there is none.
        """
        purpose = self._membership.purpose(server_id)
        if purpose == RESTART:
            self._membership.renew(self._definition(self.game, server_id))
        return None if purpose == REMOVE else self._membership.spec(server_id)

    # -- the steps

    async def _restarted(self, spec: ServerSpec, rate: float) -> str:
        began = time.monotonic()
        logger.info("%s: restarting", spec.id)
        if spec.frontend:
            await self._drained(spec.id, RESTART, rate, RECONNECT)
        else:
            self._membership.plan(spec.id, RESTARTING, RESTART)
            await self._fleet.tell()
            await self._quiet(spec.id, QUIET)
        try:
            await self._fleet.end(spec.id, "restarted by an operator")
            self._membership.renew(spec)
            await self._fleet.start(spec, self.game)
        except Exception as error:
            logger.warning("%s: could not be started", spec.id, exc_info=error)
            raise OperationError(
                f"{spec.id} was ended and could not be started again; the restart ends here, another one of {spec.id} "
                f"tries it anew: {_why(error)}"
            ) from error
        reason = await self._fleet.booted(spec.id, BOOT)
        if reason is not None:
            raise OperationError(f"{spec.id} does not boot, and goes on trying; the restart ends here: {reason}")
        await self._fleet.tell()
        took = time.monotonic() - began
        logger.info("%s: restarted in %.1f s", spec.id, took)
        return f"{spec.id} restarted in {took:.1f} s"

    async def _added(self, server_type: str) -> str:
        began = time.monotonic()
        spec = self._next(server_type)
        await self._refuse_too_large([spec])
        self._membership.add(spec)
        try:
            await self._fleet.tell()
            await self._fleet.start(spec, self.game)
            reason = await self._fleet.booted(spec.id, BOOT)
        except Exception as error:
            logger.warning("%s: could not be started", spec.id, exc_info=error)
            await self._taken_away(spec.id)
            raise OperationError(f"{spec.id} was not added: {_why(error)}") from error
        if reason is not None:
            await self._taken_away(spec.id)
            raise OperationError(f"{spec.id} was not added: {reason}")
        await self._fleet.tell()
        return f"{spec.id} added in {time.monotonic() - began:.1f} s"

    def _next(self, server_type: str) -> ServerSpec:
        """Return the definition of the next server of a type; a number whose port another server has is left out."""
        taken = {(spec.transport, spec.host, spec.port) for spec in self._membership.specs() if spec.port}
        number = self._membership.next_number(server_type)
        while (spec := self.game.spec(server_type, number)) is not None:
            if (spec.transport, spec.host, spec.port) not in taken:
                return spec
            number += 1
        if server_type in self.game.server_types:
            raise OperationError(f"there is no port left for a further {server_type}")
        there_are = ", ".join(sorted(self.game.server_types))
        raise OperationError(f"the game has no server type {server_type!r}; there are {there_are}")

    async def _taken_away(self, server_id: str) -> None:
        try:
            await self._fleet.end(server_id, "it did not boot")
        except Exception:
            logger.exception("%s: its process could not be ended; that is tried again", server_id)
            self._membership.plan(server_id, DRAINING, REMOVE)
        else:
            self._membership.remove(server_id)
        await self._fleet.tell()

    async def _removed(self, server_id: str, rate: float) -> None:
        await self._drained(server_id, REMOVE, rate, LEAVE)
        await self._gone(server_id)

    async def _gone(self, server_id: str) -> None:
        await self._fleet.end(server_id, "removed by an operator")
        self._membership.remove(server_id)
        await self._fleet.tell()
        logger.info("%s: removed", server_id)

    async def _drained(self, server_id: str, purpose: str, rate: float, reason: str) -> None:
        self._membership.plan(server_id, DRAINING, purpose)
        await self._fleet.tell()
        if not self._membership.spec(server_id).frontend:
            # Frontends go on answering their clients while these are sent away, so nobody waits for them.
            await self._quiet(server_id, DRAIN_QUIET)
        await self._fleet.drain(server_id, rate, reason)

    async def _quiet(self, server_id: str, limit: float) -> None:
        if late := await self._fleet.quiet(server_id, limit):
            logger.warning("%s: after %g s %s still wait for it", server_id, limit, ", ".join(late))

    # -- what is refused

    @asynccontextmanager
    async def _alone(self, what: str, *, own: bool = False) -> AsyncIterator[None]:
        """Have nothing else be done meanwhile. What nobody asked for (``own``) is waited for, all else is refused."""
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while self._own is not None:
                    logger.info("%s: waits, for the master does of its own: %s", what, self.running)
                    await self._own.wait()
        if self.running:
            raise OperationError(f"another operation is under way: {self.running}")
        if not self._membership.serving:
            raise OperationError("the game is starting, or stopping")
        self.running = what
        ended = asyncio.Event()
        self._own = ended if own else None
        logger.info("operation: %s", what)
        try:
            yield
        except OperationError as error:
            logger.error("operation: %s: %s", what, error)
            raise
        except asyncio.CancelledError:
            logger.warning("operation: %s: called off", what)
            raise
        except Exception as error:
            logger.exception("operation: %s", what)
            raise OperationError(f"{what}: {_why(error)}") from error
        finally:
            self.running = ""
            self._own = None
            ended.set()

    async def _refuse_too_large(self, specs: Iterable[ServerSpec]) -> None:
        if refused := await self._fleet.too_large(specs):
            raise OperationError("; ".join(f"{server_id}: {reason}" for server_id, reason in refused.items()))

    def _targets(self, target: str | None) -> list[str]:
        specs = sorted(self._membership.specs(), key=lambda spec: spec.frontend)
        found = [spec.id for spec in specs if target is None or target in (spec.type, spec.id)]
        if not found:
            raise OperationError(f"there is no server and no server type {target!r}")
        return found

    def _definition(self, game: Game, server_id: str) -> ServerSpec:
        before = self._membership.spec(server_id)
        number = server_id.rpartition("-")[2]
        spec = game.spec(before.type, int(number)) if number.isdigit() else None
        if spec is None:
            raise OperationError(f"the file has no server type {before.type!r} any more; remove its servers first")
        if spec.frontend != before.frontend:
            raise OperationError(
                f"{server_id} cannot become a {'frontend' if spec.frontend else 'backend'} by a restart"
            )
        return spec

    def _may_leave(self, server_id: str, force: bool) -> None:
        if server_id not in self._membership:
            raise OperationError(f"there is no server {server_id!r}")
        server_type = self._membership.spec(server_id).type
        _refuse_directory(server_type)
        if not force and not set(self._membership.working(server_type)) - {server_id}:
            raise OperationError(f"{server_id} is the last {server_type} that serves; --force does it all the same")


async def _one_by_one(steps: Iterable[Callable[[], Awaitable[str]]]) -> list[str]:
    """Take steps one after the other; returns each one's line. An OperationError names what was done before it."""
    lines: list[str] = []
    for step in steps:
        try:
            lines.append(await step())
        except OperationError as error:
            if lines:
                raise OperationError(f"{error} (done before: {', '.join(lines)})") from error
            raise
    return lines


def _refuse_rate(rate: float) -> None:
    if not rate > 0:
        raise OperationError(f"the rate is clients a second, more than 0: {rate!r}")


def _why(error: Exception) -> str:
    """Return what went wrong, in one line; the whole of it is the error's cause."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")


def _refuse_directory(server_type: str) -> None:
    """Refuse to change how many directory servers there are: every server deals the keys to those of the file."""
    if server_type == DIRECTORY:
        raise OperationError("there are as many directory servers as servers.yaml says (directory.shards)")
