"""Watches the servers of a game and carries out what operations decide: the master's eyes and hands on Ray."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from ray.exceptions import ActorUnavailableError, RayError

from actors import liveness
from actors.carrier import one_line
from actors.deaths import exit_of
from actors.ends import End, Ends, reason_of
from actors.fleet import ACK, Actors
from actors.game import Game, ServerSpec
from actors.liveness import Liveness
from actors.membership import DRAIN, Membership, Notes, Place, Report
from actors.operations import LEAVE, RATE
from actors.revival import Revival
from actors.tasks import every
from handlers.members import Member

__all__ = ["Supervisor"]

logger = logging.getLogger(__name__)

LOOK = 0.3
"""Seconds between looks at a server that died."""
TEND = 1.0
"""Seconds between looks at the table of servers."""
DRAIN_SPARE = 60.0
"""Seconds that a drain may take beside sending the clients away at the rate."""


class Supervisor:
    """Tells servers of each other and notices who dies (operations.Fleet).

    ``spawn`` runs a coroutine as a task of the master's; ``notes`` returns what a later master has to know, with a
    version; ``settle`` is called every second once the game is open, to begin what is to be done about its servers.
    """

    def __init__(
        self,
        membership: Membership,
        actors: Actors,
        ends: Ends,
        spawn: Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]],
        notes: Callable[[int], Notes],
        settle: Callable[[], None],
    ) -> None:
        self.failed: dict[str, str] = {}
        """Why servers did not boot."""
        self.version = 0
        """That of the latest table. Each is later than all before, also where the clock goes back."""
        self.revival = Revival(time.monotonic)
        self._membership = membership
        self._actors = actors
        self._ends = ends
        self._spawn = spawn
        self._notes = notes
        self._settle = settle
        self._changed = asyncio.Event()
        self._starting: dict[str, asyncio.Event] = {}
        self._liveness = Liveness(membership, actors)
        self._sought: set[str] = set()
        """Missing servers that are being asked whether they are there."""
        self._ending: set[str] = set()
        """Servers that are being ended on purpose."""
        self._watches: dict[str, asyncio.Task[Any]] = {}

    # -- the table

    def publish(self) -> None:
        """Begin to tell every server who the servers are."""
        self._spawn(self.tell())

    async def tell(self) -> None:
        """Tell every living server the table; return when each has taken it over, or has not within 5 s.

        Those that boot are told too, since they may be greeting others already, but nobody waits for them.
        """
        await self._told(self._membership.living(), also=self._membership.booting())

    async def open(self) -> None:
        """Tell every server the table and let clients in; one that died meanwhile opens when it has booted again."""
        members = self._membership.living()
        await self._told(members)
        opening = (
            self._actors.tried(member, "not opened", self._actors.ask(member, "open", within=60)) for member in members
        )
        await asyncio.gather(*opening)

    async def _told(self, server_ids: Iterable[str], *, also: Iterable[str] = ()) -> None:
        """Tell servers the table of now; return when each has taken it over, but for those told ``also``."""
        version = self.version = max(self.version + 1, time.time_ns())
        table = self._membership.members(), dict(self._actors.handles), version, self._notes(version)
        for server_id in also:
            self._spawn(self._told_one(server_id, *table))
        await asyncio.gather(*(self._told_one(server_id, *table) for server_id in server_ids))

    async def _told_one(
        self, server_id: str, members: list[Member], handles: dict[str, Any], version: int, notes: Notes
    ) -> None:
        try:
            await self._actors.ask(server_id, "update", members, handles, version, notes)
        except TimeoutError:
            logger.warning("%s: did not take over the table of servers within %g s", server_id, ACK)
        except (RayError, KeyError) as error:
            logger.debug("%s: not told of the servers, for it died: %s", server_id, one_line(error))

    # -- lives

    def note_booted(self, member: Member, place: Place) -> bool:
        """Take in a server that booted; returns False when a later life of it has registered."""
        # One without a handle is of an actor that was given up for ended: the next attempt to make it ends it.
        if member.id not in self._actors.handles or not self._membership.booted(member, place):
            return False
        # It may have been taken for dead when a connection broke.
        self._ends.forget(member.id, member.incarnation)
        self.failed.pop(member.id, None)
        self.revival.forget(member.id)
        logger.info("%s: booted as incarnation %d", member.id, member.incarnation)
        self._changed.set()
        return True

    def note_failed(self, server_id: str, reason: str) -> None:
        """Note why a server could not boot."""
        self.failed[server_id] = reason
        self._changed.set()

    async def all_booted(self) -> None:
        """Return when no server is missing, or one has failed."""
        while self._membership.missing() and not self.failed:
            await self._change()
        if self.failed:
            # Others may be about to say the same, and are told together.
            await asyncio.sleep(LOOK)

    async def booted(self, server_id: str, limit: float) -> str | None:
        """Wait until a server has booted; return None, or why it has not."""
        try:
            async with asyncio.timeout(limit):
                while server_id not in self._membership.living():
                    if server_id in self.failed:
                        return self.failed[server_id]
                    await self._change()
        except TimeoutError:
            return f"it did not boot within {limit:g} s"
        return None

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def watch(self, server_id: str) -> None:
        """Notice a server's death from now on."""
        self.unwatch(server_id)
        self._watches[server_id] = self._spawn(self._watch(server_id))

    def unwatch(self, server_id: str) -> None:
        """Notice a server's death no more: it is ended on purpose."""
        if (watch := self._watches.pop(server_id, None)) is not None:
            watch.cancel()

    async def _watch(self, server_id: str) -> None:
        """Notice a server's death: the one call to it that stays under way fails."""
        handle = self._actors.handles[server_id]
        while True:
            try:
                await handle.ended.remote()
                return
            except RayError as error:
                self._died(server_id, one_line(error))
                coming = isinstance(error, ActorUnavailableError)
                if not coming and await asyncio.to_thread(self._actors.given_up, server_id):
                    self._given_up(server_id, one_line(error))
                    return
            await asyncio.sleep(LOOK)

    def _given_up(self, server_id: str, error: str) -> None:
        """Have a server made anew whose actor Ray starts no more: a kill by hand, or files that cannot be fetched."""
        pause = self.revival.gone(server_id)
        logger.error("%s: Ray has given it up, it is made anew in %g s: %s", server_id, pause, error)
        self.note_failed(server_id, error)

    def _died(self, server_id: str, error: str) -> None:
        if server_id in self._membership.missing():
            if not self._membership.dead(server_id):
                self.note_failed(server_id, f"its process died while it booted: {error}")
        else:
            logger.warning("%s: died: %s", server_id, error)
            self._membership.lost(server_id)
        self._note_end(server_id, error)

    def note_successor(self, server_id: str, place: Place) -> None:
        """Note that the life before has ended of a server that registers from another process.

        Ray may have made the next life before anybody noticed, or while the master was away.
        """
        if place.worker != self._membership.place(server_id).worker and self._membership.incarnation(server_id):
            self._note_end(server_id, "another life of it began")

    def _note_end(self, server_id: str, error: str) -> None:
        incarnation = self._membership.incarnation(server_id)
        if self._ends.knows(server_id, incarnation):
            return  # the call fails again and again until Ray has made the next life
        self._ends.note(server_id, End(time.time(), incarnation, error))
        self._spawn(self._explain(server_id, incarnation, error, self._membership.place(server_id)))

    async def _explain(self, server_id: str, incarnation: int, error: str, place: Place) -> None:
        """Find out why a server died; the call that failed says only that it is not there."""
        reason = reason_of(error, *await exit_of(place.worker, place.node_id))
        if reason != error and self._ends.explain(server_id, incarnation, reason):
            logger.warning("%s: incarnation %d ended: %s", server_id, incarnation, reason)
            # A later master is to know it too.
            self.publish()

    async def tend(self) -> None:
        """Take their place from the dead, notice who stands still, and look for those who did not answer; for ever."""
        await asyncio.gather(every(TEND, self._look_after), every(liveness.LISTEN, self._liveness.look))

    async def _look_after(self) -> None:
        if gone := self._membership.expire():
            logger.warning("%s: gone; users go to others", ", ".join(gone))
            self.publish()
        if self._membership.serving:
            for server_id in self._membership.missing():
                if server_id in self._actors.handles and server_id not in self._sought:
                    self._sought.add(server_id)
                    self._spawn(self._seek(server_id))
            for server_id in self._membership.living():
                watch = self._watches.get(server_id)
                if (watch is None or watch.done()) and server_id not in self._ending:
                    self.watch(server_id)
            self._settle()

    async def _seek(self, server_id: str) -> None:
        """Take in a missing server if it answers: it was silent when the master asked, or was taken for dead."""
        try:
            report = await self.report(server_id)
        finally:
            self._sought.discard(server_id)
        # It may have booted meanwhile, or a later life of it.
        if report is None or report.member is None or server_id not in self._membership.missing():
            return
        if self.note_booted(report.member, report.place):
            self.publish()
            self.drain_again(server_id)

    def drain_again(self, server_id: str) -> None:
        """Drain a server that is there again, if it is to be drained: an accident does not undo what is wanted."""
        if self._membership.purpose(server_id) == DRAIN:
            self._spawn(self.drain(server_id, RATE, LEAVE))

    async def report(self, server_id: str) -> Report | None:
        """Ask a server who it is; None when it does not answer."""
        try:
            answer: Report = await self._actors.ask(server_id, "report")
        except (RayError, TimeoutError, KeyError) as error:
            logger.debug("%s: does not answer: %s", server_id, one_line(error))
            return None
        return answer

    # -- what operations do

    async def too_large(self, specs: Iterable[ServerSpec]) -> dict[str, str]:
        """Return why no node can take a server, by id, for those for which it is so."""
        return await asyncio.to_thread(self._actors.too_large, specs)

    async def quiet(self, server_id: str, limit: float) -> list[str]:
        """Wait until nothing of the others is under way to a server; return the ids of those that are not done."""

        async def one(other: str) -> bool:
            try:
                return bool(await self._actors.ask(other, "quiet", server_id, limit, within=limit + ACK))
            except TimeoutError:
                return False
            except (RayError, KeyError):
                # What dies has nothing under way any more.
                return True

        others = [other for other in self._membership.living() if other != server_id]
        done = await asyncio.gather(*(one(other) for other in others))
        return [other for other, quiet in zip(others, done, strict=True) if not quiet]

    async def drain(self, server_id: str, rate: float, reason: str) -> None:
        """Have a server send its clients away, ``rate`` a second, and finish what it does."""
        if server_id not in self._membership.living():
            return
        described = await self._actors.tried(server_id, "not described", self._actors.ask(server_id, "describe"))
        clients = described["connections"] if described is not None else 0
        call = self._actors.ask(server_id, "drain", rate, reason, within=DRAIN_SPARE + clients / rate)
        await self._actors.tried(server_id, "not drained", call)

    async def end(self, server_id: str, reason: str) -> None:
        """Stop a server, end its process, and return when another can have its name."""
        self.unwatch(server_id)
        self._ending.add(server_id)
        try:
            await self._end(server_id, reason)
        finally:
            self._ending.discard(server_id)
        self.revival.forget(server_id)
        logger.info("%s: ended: %s", server_id, reason)

    async def _end(self, server_id: str, reason: str) -> None:
        if server_id in self._membership.living():
            await self._actors.stop(server_id)
        incarnation = self._membership.incarnation(server_id)
        # Of one that was dead before it is known, or being found out, why.
        if not self._ends.knows(server_id, incarnation):
            self._ends.note(server_id, End(time.time(), incarnation, reason, planned=True))
        # Before its handle is taken away: nobody is to ask it any more.
        self._membership.lost(server_id)
        try:
            await self._actors.kill(server_id)
        except Exception:
            # It is nobody's now, and comes to the end that is wanted by being made anew, or removed.
            self.revival.gone(server_id)
            raise

    async def start(self, spec: ServerSpec, game: Game) -> None:
        """Create a server's actor, watch it, and tell the others of it; only then its life may begin."""
        self.failed.pop(spec.id, None)
        told = self._starting[spec.id] = asyncio.Event()
        try:
            await self._create(spec, game)
            await self.tell()
        finally:
            told.set()
            if self._starting.get(spec.id) is told:
                del self._starting[spec.id]

    async def _create(self, spec: ServerSpec, game: Game) -> None:
        try:
            await asyncio.to_thread(self._actors.create, spec, game, self._membership.running())
        except Exception:
            self.revival.gone(spec.id)
            raise
        self.revival.created(spec.id)
        self.watch(spec.id)
        logger.info("%s: started", spec.id)

    async def may_begin(self, server_id: str) -> None:
        """Return once the others know the actor of a server that was started: whom it greets must be able to call it.

        Else they would call the actor of its life before, and take the new one for dead.
        """
        if (told := self._starting.get(server_id)) is not None:
            await told.wait()
