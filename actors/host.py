"""A server's process: boots the node, its links and its listener, and ends them. Without Ray; its actor is thin."""

import asyncio
import dataclasses
import logging
import os
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from actors.affinity import only_cpu
from actors.edge import ClientEdge
from actors.game import Game, ServerSpec
from actors.inspection import counts, inspection, resident_bytes
from actors.links import Links
from actors.membership import Registration
from actors.memory import Trimming, spare_the_collector
from actors.monitor import Monitor, Sink
from actors.stores import app_for, store_for
from actors.way import Way
from gateway import grow_file_table, raise_open_file_limit
from handlers import AppError
from handlers.members import DRAINING, Member, Members
from handlers.node import Node

__all__ = ["Host", "MasterPort"]

logger = logging.getLogger(__name__)

RETRY = (0.5, 10.0)
"""Seconds between attempts to boot: the first pause, doubled up to the last."""
DRAIN = 30.0
"""Seconds for what runs to finish on a server that is drained."""
LAST_ENTRIES = 1.0
"""Seconds for what waits on links to be sent when the server stops."""
ANY_HOST = ("", "0.0.0.0", "::")


class MasterPort(Protocol):
    """The master, as a server sees it."""

    async def register(self, server_id: str) -> Registration:
        """Begin a life."""

    async def booted(self, member: Member) -> bool:
        """Tell that the server can be spoken to; returns whether the game is open, so that it opens too."""

    async def failed(self, server_id: str, reason: str) -> None:
        """Tell that a boot failed; another follows."""


def _live_on() -> None:
    """Leave the process as it is: for a server that is one of several in it."""


class Host:
    """One server from boot to stop.

    ``connect(peer)`` returns the way to a peer; ``node_host`` is this machine's address for clients when the
    listener is bound to every address and nothing is advertised. ``end`` ends the process; it is called when a later
    life of this server turns out to be there. ``metrics`` publishes what the server counts.
    """

    def __init__(
        self,
        spec: ServerSpec,
        game: Game,
        master: MasterPort,
        connect: Callable[[str], Way],
        *,
        node_host: str = "127.0.0.1",
        end: Callable[[], None] = _live_on,
        metrics: Sink | None = None,
    ) -> None:
        self.spec = spec
        self._game = game
        self._master = master
        self._connect = connect
        self._node_host = node_host
        self._end = end
        self._ending: asyncio.Task[None] | None = None
        self._metrics = metrics
        self._monitor: Monitor | None = None
        self._members = Members()
        self._links = Links(self._members, connect, queue=spec.settings.link_queue)
        self._node: Node | None = None
        self._edge: ClientEdge | None = None
        self._member: Member | None = None
        self._open = False
        self._trimming = Trimming()
        self._stopped = asyncio.Event()
        self._boot_task: asyncio.Task[None] | None = None
        self._drain_task: asyncio.Task[None] | None = None
        self._stop_task: asyncio.Task[None] | None = None
        self._since = time.time()

    # -- life

    def boot(self) -> None:
        """Start booting, again and again until it succeeds. Called once, from the actor's constructor."""
        self._boot_task = asyncio.get_running_loop().create_task(self._booted())

    async def open(self) -> None:
        """Greet the other servers and let clients in; does nothing before the boot, or when it is open.

        Raises OSError when the port was taken in the meantime.
        """
        if self._member is None or self._open:
            return
        self._open = True
        self._links.greet(member.id for member in self._members)
        if self._node is not None:
            await self._node.rebuilt()
        if self._edge is not None:
            await self._edge.listener.open()
            self._edge.frontend.takes_clients = self._drain_task is None
        if self._node is not None:
            self._node.life.all_started()
        logger.info("%s: serving%s", self.spec.id, f" {self._member.url}" if self._member and self._edge else "")

    async def before_stop(self) -> None:
        """Run the before-stop hooks, while this server and the others still serve. ``stop`` does so by itself."""
        if self._node is not None:
            await self._node.life.before_stop()

    async def drain(self, rate: float, reason: str) -> None:
        """Let no client in any more, kick those who are in, ``rate`` a second, and let what runs finish.

        A client is kicked after the answers to what it asked, for which it waits 2 s at most; see Frontend.drain. What
        runs on a server has 30 s. Twice is once: another call waits for the first. Raises ValueError for a rate that
        is not positive.
        """
        if not rate > 0:
            raise ValueError(f"the rate is clients a second, more than 0: {rate!r}")
        if self._drain_task is None:
            self._drain_task = asyncio.get_running_loop().create_task(self._drain(rate, reason))
        await asyncio.shield(self._drain_task)

    async def _drain(self, rate: float, reason: str) -> None:
        logger.info("%s: draining, %g clients a second: %s", self.spec.id, rate, reason)
        if self._edge is not None:
            self._edge.draining = True
            self._edge.listener.shut()
        if self._node is None:
            return
        if self._node.frontend is not None:
            await self._node.frontend.drain(rate, reason)
        if not await self._node.finish(DRAIN):
            logger.warning("%s: not everything was done %g s after the drain", self.spec.id, DRAIN)

    async def stop(self, reason: str = "server stopping") -> None:
        """Run the before-stop hooks, kick the clients with a reason, let requests finish, run the stop hooks.

        Twice is once: a restarted master asks again for what an earlier one had asked for.
        """
        if self._stop_task is None:
            self._stop_task = asyncio.get_running_loop().create_task(self._stop(reason))
        await asyncio.shield(self._stop_task)

    async def _stop(self, reason: str) -> None:
        logger.info("%s: stopping", self.spec.id)
        if self._boot_task is not None:
            self._boot_task.cancel()
        await self.before_stop()
        if self._edge is not None:
            if self._node is not None and self._node.frontend is not None:
                self._node.frontend.takes_clients = False
            await self._edge.listener.close(reason)
        if self._monitor is not None:
            await self._monitor.stop()
        if self._node is not None:
            await self._node.stop()
        # What was pushed last is on its way before the links end.
        await self._links.all_quiet(LAST_ENTRIES)
        await self._links.close()
        self._trimming.stop()
        self._stopped.set()

    def _outlived(self) -> None:
        """End this life: a later one of this server has taken its place while this one was cut off, or stood still."""
        if self._ending is None:
            self._ending = asyncio.get_running_loop().create_task(self._end_outlived())

    async def _end_outlived(self) -> None:
        logger.error("%s: a later life of this server is there; this one ends", self.spec.id)
        try:
            if self._boot_task is not None:
                self._boot_task.cancel()
            if self._edge is not None:
                await self._edge.listener.close("server restarted, please reconnect")
            # No stop hooks: what they would save is older than what the later life has.
            await self._links.close()
        finally:
            self._end()

    async def ended(self) -> None:
        """Return when the server has stopped on purpose."""
        await self._stopped.wait()

    # -- what others call

    async def serve(self, carrier: bytes) -> bytes:
        """Take a link's call of another server."""
        return await self._links.serve(carrier)

    async def update(self, members: Iterable[Member]) -> None:
        """Take over the master's table of servers."""
        gone = self._members.replace(members)
        own = self._member
        if own is not None and own.id in self._members and self._members.get(own.id).incarnation > own.incarnation:
            self._outlived()
        self._links.update()
        for link in self._links.forget(gone):
            await link.close()
        if self._node is not None:
            for server_id in gone:
                self._node.gone(server_id)

    async def quiet(self, server_id: str, limit: float) -> bool:
        """Wait up to ``limit`` seconds until nothing from here to a server is under way; tell whether it is so.

        Nothing: no request unanswered, but for those that are held, and no entry that waits or is being carried.
        """
        return await self._links.quiet(server_id, limit)

    def kick(self, uid: str, reason: str) -> int:
        """Close every session of a uid here after telling the clients; returns how many there were."""
        frontend = self._node.frontend if self._node is not None else None
        return frontend.sessions.kick_uid(uid, reason) if frontend is not None else 0

    def report(self) -> Member | None:
        """Return this server as others should know it, None while it boots; a restarted master asks."""
        return self._member

    def describe(self) -> dict[str, Any]:
        """Return what an operator wants to know of this server."""
        node = self._node
        return {
            "id": self.spec.id,
            "type": self.spec.type,
            "pid": os.getpid(),
            "cpu": only_cpu(),
            "incarnation": self._member.incarnation if self._member else 0,
            "state": self._state(),
            "uptime": time.time() - self._since,
            "rss": resident_bytes(),
            "lag": node.server.lag if node else 0.0,
            "url": self._member.url if self._member else "",
            "connections": len(self._edge.listener.clients) if self._edge else 0,
            **counts(node.frontend if node else None),
            "channels": len(node.server.channels) if node else 0,
            "links": self._links.describe(),
            **(self._monitor.describe() if self._monitor else {}),
        }

    def inspect(self) -> dict[str, Any]:
        """Return what ``describe`` does, and the sessions, channels and mirrors: 1000 of each, with a count of all."""
        return self.describe() | (inspection(self._node) if self._node is not None else {})

    def _state(self) -> str:
        if self._stopped.is_set():
            return "stopped"
        if self._member is None:
            return "booting"
        if self._drain_task is not None:
            return DRAINING
        # The table has it from the master; before the game opens nobody is in it.
        return self._members.get(self.spec.id).state if self.spec.id in self._members else self._member.state

    # -- boot

    async def _booted(self) -> None:
        pause, longest = RETRY
        while True:
            try:
                await self._boot()
            except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever it is, another attempt follows
                await self._boot_failed(error)
            else:
                spare_the_collector()
                self._trimming.start()
                return
            await asyncio.sleep(pause)
            pause = min(pause * 2, longest)

    async def _boot_failed(self, error: BaseException) -> None:
        reason = _line(error)
        if isinstance(error, (AppError, _PortTaken)):
            logger.error("%s: %s", self.spec.id, reason)
        else:
            logger.error("%s: the boot failed", self.spec.id, exc_info=error)
        try:
            await self._undo()
            await self._master.failed(self.spec.id, reason)
        except Exception:
            logger.exception("%s: what the failed boot had begun could not be ended", self.spec.id)

    async def _boot(self) -> None:
        app = app_for(self.spec, self._game)
        registration = await self._master.register(self.spec.id)
        self._members.replace(registration.members)
        port = 0
        if self.spec.frontend:
            limits = self.spec.limits
            limits = dataclasses.replace(limits, connections=raise_open_file_limit(limits.connections))
            grow_file_table(limits.connections)
            self._edge = ClientEdge(dataclasses.replace(self.spec, limits=limits), app)
            port = self._bound(registration.port)
        member = Member(
            id=self.spec.id,
            type=self.spec.type,
            incarnation=registration.incarnation,
            frontend=self.spec.frontend,
            scheme=self.spec.scheme,
            host=self._client_host() if self.spec.frontend else "",
            port=port,
            weight=self.spec.weight,
        )
        self._node = node = Node(
            app,
            member,
            self._members,
            self._links,
            settings=self.spec.settings,
            game_settings=self.spec.game_settings,
            edge=self._edge,
            directory=self._game.directory,
            store=store_for(member, self._game),
            restarted=registration.restarted,
        )
        if self._edge is not None and node.frontend is not None:
            self._edge.frontend = node.frontend
            node.frontend.takes_clients = False
        await node.life.before_start()
        self._links.begin(
            member.id,
            member.incarnation,
            apply=node.apply,
            lost=node.lost,
            greeted=node.came_up,
            outlived=self._outlived,
        )
        await node.start()
        self._monitor = self._watched(node, member)
        # Only now is there a server for others, and for a restarted master.
        self._member = member
        if await self._master.booted(member):
            await self.open()

    def _watched(self, node: Node, member: Member) -> Monitor:
        edge = self._edge
        monitor = Monitor(
            node,
            member,
            connections=lambda: len(edge.listener.clients) if edge is not None else 0,
            crowded_out=lambda: edge.listener.crowded_out if edge is not None else 0,
            links=self._links.describe,
            sink=self._metrics,
        )
        monitor.start()
        return monitor

    def _bound(self, port: int) -> int:
        assert self._edge is not None
        try:
            return self._edge.listener.bind(self.spec.host, port)
        except OSError as error:
            raise _PortTaken(f"cannot listen on {self.spec.host}:{port}: {error.strerror or error}") from error

    async def _undo(self) -> None:
        """End what a failed boot began, so that the next one begins with nothing."""
        if self._drain_task is not None:
            self._drain_task.cancel()
            self._drain_task = None
        if self._monitor is not None:
            await self._monitor.stop()
        if self._edge is not None:
            await self._edge.listener.close(None)
        if self._node is not None:
            await self._node.stop(0)
        await self._links.close()
        self._node = self._edge = self._member = self._monitor = None
        self._open = False
        self._links = Links(self._members, self._connect, queue=self.spec.settings.link_queue)

    def _client_host(self) -> str:
        if self.spec.advertise:
            return self.spec.advertise
        return self._node_host if self.spec.host in ANY_HOST else self.spec.host


class _PortTaken(Exception):
    """The listener's port cannot be had."""


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, (AppError, _PortTaken)) else f"{type(error).__name__}: {text}"
