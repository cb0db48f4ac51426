"""The master: starts the servers, tells each who the others are, notices who dies, and does what operators ask for.

An actor with a thin shell: ``Membership`` and ``Operations`` decide, ``Supervisor`` acts. Nothing passes through it
while the game runs: servers go on from their tables when it is away, and when Ray restarts it, it asks the servers that
live who they are and what it knew.
"""

import asyncio
import logging
import time
import warnings
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import RayError

from actors.ends import Ends
from actors.fleet import Actors, actor_options, kill_own
from actors.game import Game
from actors.membership import KEPT, MASTER, Membership, Notes, Place, Registration, Report
from actors.operations import RATE, OperationError, Operations
from actors.server import configure_logging
from actors.supervisor import Supervisor
from handlers.members import Member

__all__ = ["Master", "actor_options"]

logger = logging.getLogger(__name__)

BOOT = 60.0
"""Seconds for all servers to boot when a game starts."""
LAST = 5.0
"""Seconds for the command that runs a game to hear from its master that it has been stopped."""
AGAIN = 0.3
"""Seconds before those are asked again that did not answer a master that begins anew."""


class Master:
    """Starts, watches and stops the servers of one game."""

    def __init__(self, game: Game) -> None:
        configure_logging(game.log_level)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._ends = Ends()
        self._actors = Actors(game.namespace)
        self._membership = Membership(game.servers, time.time)
        self._supervisor = Supervisor(self._membership, self._actors, self._ends, self._run, self._notes, self._settle)
        self._operations = Operations(game, self._membership, self._supervisor)
        self._name = game.name
        self._known = asyncio.Event()
        self._recovered = asyncio.Event()
        self._stopped = asyncio.Event()
        self._creating: asyncio.Task[None] | None = None
        if _restarted():
            self._run(self._recover())
        else:
            self._known.set()
            self._recovered.set()

    # -- for the command that runs the game

    async def launch(self) -> list[Member]:
        """Start every server, wait until all have booted, and open the game; returns the servers.

        Raises RuntimeError with one line for each server that could not boot, within a minute.
        """
        failed = self._supervisor.failed
        specs = self._membership.specs()
        failed |= await self._supervisor.too_large(specs)
        if not failed:
            self._creating = asyncio.get_running_loop().create_task(self._create())
            await self._creating
            try:
                async with asyncio.timeout(BOOT):
                    await self._supervisor.all_booted()
            except TimeoutError:
                for server_id in self._membership.missing():
                    failed.setdefault(server_id, f"did not boot within {BOOT:g} s")
        if failed:
            raise RuntimeError("\n".join(f"{server_id}: {reason}" for server_id, reason in failed.items()))
        self._membership.serving = True
        self._run(self._supervisor.tend())
        await self._supervisor.open()
        return self._membership.members()

    async def _create(self) -> None:
        game = self._operations.game
        await asyncio.gather(*(self._supervisor.start(spec, game) for spec in self._membership.specs()))

    async def stop(self) -> None:
        """Stop every server, frontends first, and end their processes; this actor's own follows some seconds later.

        Whoever asks ends it at once; but that may have been one of the servers.
        """
        await self._known.wait()
        if self._creating is not None:
            await asyncio.wait([self._creating])
        self._membership.serving = False
        for task in self._tasks:
            task.cancel()
        alive = self._membership.living()
        await asyncio.gather(*(self._actors.before_stop(server_id) for server_id in alive))
        for frontend in (True, False):
            ids = [spec.id for spec in self._membership.specs() if spec.frontend == frontend and spec.id in alive]
            await asyncio.gather(*(self._actors.stop(server_id) for server_id in ids))
        # Not before all have stopped: a process that ends under a server that still works looks like a death. A copy,
        # since a thread may be making a further one.
        for handle in list(self._actors.handles.values()):
            ray.kill(handle, no_restart=True)
        self._stopped.set()
        self._run(self._end_later())

    async def _end_later(self) -> None:
        await asyncio.sleep(LAST)
        try:
            # A thread may have made one that was not known above.
            await asyncio.to_thread(self._actors.kill_all)
        except Exception:
            logger.exception("what is left of the game could not be ended")
        finally:
            kill_own()

    async def ended(self) -> None:
        """Return when the game has been stopped, by whomever."""
        await self._stopped.wait()

    # -- for operators (actors.operator)

    async def game(self) -> Game:
        """Return the game's definition as of its start or latest restart."""
        await self._known.wait()
        return self._operations.game

    async def restart(self, game: Game, target: str | None, rate: float) -> list[str]:
        """Operations.restart."""
        return await self._operate(self._operations.restart, game, target, rate)

    async def add(self, server_type: str, count: int) -> list[str]:
        """Operations.add."""
        return await self._operate(self._operations.add, server_type, count)

    async def remove(self, server_id: str, rate: float, force: bool) -> list[str]:
        """Operations.remove."""
        return await self._operate(self._operations.remove, server_id, rate, force=force)

    async def drain(self, server_id: str, rate: float, force: bool) -> list[str]:
        """Operations.drain."""
        return await self._operate(self._operations.drain, server_id, rate, force=force)

    async def kick(self, uid: str, reason: str) -> int:
        """Close every session of a uid, on all frontends; returns how many there were."""
        await self._known.wait()
        frontends = [i for i in self._membership.living() if self._membership.spec(i).frontend]
        asked = (
            self._actors.tried(i, f"{uid} not kicked", self._actors.ask(i, "kick", uid, reason)) for i in frontends
        )
        return sum(count or 0 for count in await asyncio.gather(*asked))

    async def describe(self) -> list[dict[str, Any]]:
        """Return the state of every server, as far as it answers, and how its latest life before ended."""
        await self._known.wait()
        return list(await asyncio.gather(*(self._described(spec.id, "describe") for spec in self._membership.specs())))

    async def inspect(self, server_id: str) -> dict[str, Any]:
        """Return all there is to know of a server, its ends too. Raises OperationError for one that is not there."""
        await self._known.wait()
        if server_id not in self._membership:
            raise OperationError(f"there is no server {server_id!r}")
        return await self._described(server_id, "inspect") | {"ends": self._ends.of(server_id)}

    async def _described(self, server_id: str, method: str) -> dict[str, Any]:
        spec, dead = self._membership.spec(server_id), self._membership.dead(server_id)
        described: dict[str, Any] = {"id": server_id, "type": spec.type, "frontend": spec.frontend}
        described["node"] = self._membership.place(server_id).node
        try:
            described |= await self._actors.ask(server_id, method, within=3)
        except TimeoutError:
            described["state"] = "unresponsive"
        except (RayError, KeyError):
            described["state"] = "dead" if dead else "starting"
        latest = self._ends.of(server_id)[-1:]
        return described | {"last_end": latest[0] if latest else None}

    async def _operate(
        self, operation: Callable[..., Awaitable[list[str]]], *arguments: Any, **options: Any
    ) -> list[str]:
        async def admitted() -> list[str]:
            # What an earlier master began comes to its end first.
            await self._recovered.wait()
            return await operation(*arguments, **options)

        # Whoever asked may go away, the operation goes on.
        return list(await asyncio.shield(self._run(admitted())))

    # -- for servers

    async def register(self, server_id: str, place: Place) -> tuple[Registration, dict[str, Any]]:
        """Begin a life of a server."""
        await self._known.wait()
        await self._supervisor.may_begin(server_id)
        self._supervisor.note_successor(server_id, place)
        return self._membership.register(server_id, place), dict(self._actors.handles)

    async def booted(self, member: Member, place: Place) -> bool:
        """Take in a server that booted, and tell the others once the game is open; returns whether it is."""
        await self._known.wait()
        if not self._supervisor.note_booted(member, place):
            return False
        if self._membership.serving:
            self._supervisor.publish()
            self._supervisor.drain_again(member.id)
        return self._membership.serving

    async def failed(self, server_id: str, reason: str) -> None:
        """Note why a server could not boot."""
        self._supervisor.note_failed(server_id, reason)

    # -- its own

    def _notes(self, version: int) -> Notes:
        game = self._operations.game
        server_ids = tuple(spec.id for spec in self._membership.specs())
        return self._membership.notes(version, game, self._ends.latest(server_ids))

    def _settle(self) -> None:
        """Begin what is to be done about servers, if nothing is being done: it is looked for again every second."""
        if not self._recovered.is_set() or self._operations.running:
            return
        if self._operations.unfinished:
            self._run(self._operations.resume(RATE))
        elif (server_id := self._supervisor.revival.due()) is not None:
            if server_id in self._membership:
                self._run(self._operations.remake(server_id))
            else:
                self._supervisor.revival.forget(server_id)

    async def _recover(self) -> None:
        """Find the servers that live, after this actor was restarted, and bring to an end what was under way."""
        found, reports = await self._find()
        notes = _latest(reports)
        self._take_up(found, reports, notes)
        try:
            self._run(self._supervisor.tend())
            # What was changed last nobody may have been told.
            self._supervisor.publish()
            if notes is not None:
                await self._make_missing(found)
            await self._operations.resume(RATE)
        except OperationError as error:
            logger.error("not everything that was under way could be continued: %s", error)
        finally:
            # Operators are let in whatever became of it.
            self._recovered.set()

    async def _find(self) -> tuple[list[str], list[Report]]:
        """Return the ids of the servers that are there, and what they report, with what the earlier master knew.

        Waits until each has answered or is known from the notes of those that have, lest the others are told of a
        table in which it is missing; but no longer than a server keeps its place that does not answer.
        """
        until = time.monotonic() + KEPT
        reports: dict[str, Report] = {}
        while True:
            try:
                found = await self._found()
            except Exception:
                logger.exception("Ray does not tell which servers there are; it is asked again")
                await asyncio.sleep(AGAIN)
                continue
            silent = [server_id for server_id in found if server_id not in reports]
            answers = await asyncio.gather(*(self._supervisor.report(server_id) for server_id in silent))
            reports |= {report.spec.id: report for report in answers if report is not None}
            notes = _latest(reports.values())
            known = {spec.id for spec in notes.specs} if notes is not None else set()
            if set(found) <= known | set(reports) or time.monotonic() > until:
                return found, list(reports.values())
            await asyncio.sleep(AGAIN)

    async def _found(self) -> list[str]:
        named = [name for name in await asyncio.to_thread(self._actors.named) if name != MASTER]
        return [name for name in named if await asyncio.to_thread(self._actors.find, name)]

    def _take_up(self, found: list[str], reports: list[Report], notes: Notes | None) -> None:
        """Go on with the servers that are there from what the earlier master knew."""
        self._membership.resume(notes, reports)
        if notes is not None:
            self._operations.game = notes.game
            self._supervisor.version = notes.version
            for server_id, end in notes.ends.items():
                self._ends.note(server_id, end)
        self._membership.serving = True
        self._known.set()
        living = self._membership.living()
        logger.info("the master is back; it found %s", ", ".join(living))
        for server_id in found:
            if server_id in self._membership:
                self._supervisor.watch(server_id)

    async def _make_missing(self, found: list[str]) -> None:
        """Make the servers that were ended to be made anew, where the master died in between."""
        for server_id in [spec.id for spec in self._membership.specs() if spec.id not in found]:
            # If it fails, which is logged, it is tried again.
            self._supervisor.revival.gone(server_id)
            with suppress(OperationError):
                await self._operations.remake(server_id)

    def _run(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or (error := task.exception()) is None or isinstance(error, OperationError):
            return
        logger.error("the master's task failed", exc_info=error)

    def __repr__(self) -> str:
        return f"{MASTER} ({self._name})"


def _latest(reports: Iterable[Report]) -> Notes | None:
    every = [report.notes for report in reports if report.notes is not None]
    return max(every, key=lambda notes: notes.version, default=None)


def _restarted() -> bool:
    """Tell whether this process is a later life of its actor."""
    with warnings.catch_warnings():
        # Ray's property warns of another property that it reads itself.
        warnings.simplefilter("ignore", DeprecationWarning)
        return bool(ray.get_runtime_context().was_current_actor_reconstructed)
