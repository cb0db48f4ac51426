"""The servers as Ray actors: a thin shell around Host."""

import asyncio
import logging
import os
import sys
from pathlib import Path
from typing import Any

import ray
import ray.util

from actors.affinity import keep_on
from actors.carrier import Handles
from actors.game import Game, ServerSpec
from actors.host import Host
from actors.membership import Notes, Place, Registration, Report
from actors.metrics import RayMetrics
from actors.parcel import unpacked
from handlers.members import Member

__all__ = ["BackendServer", "FrontendServer", "LineFormat", "configure_logging"]


ADVERTISE = "PUMMELO_ADVERTISE"
"""The environment variable of a node that tells the host by which clients reach it, where Ray's own address of the node
is not what they can reach. A server's ``advertise`` comes before it."""


class _Server:
    """What every server actor offers to the master and to other servers."""

    def __init__(self, spec: ServerSpec, game: Game, master: Any) -> None:
        # A constructor that raises on a restart would leave the actor dead for ever: everything else is in boot.
        configure_logging(game.log_level, spec.id)
        if spec.cpu is not None:
            keep_on(spec.cpu)
        game, spec = unpacked(game, spec, Path.cwd())
        self._label = f"{spec.id} ({spec.type} of {game.name})"
        self._notes: Notes | None = None
        self._handles = Handles()
        self._version = 0
        self._host = Host(
            spec,
            game,
            _RayMaster(master, self._handles),
            self._handles.connect,
            node_host=os.environ.get(ADVERTISE) or ray.util.get_node_ip_address(),  # type: ignore[no-untyped-call]
            end=_end_process,
            metrics=RayMetrics(game.name, spec.id, spec.type),
        )
        self._host.boot()

    @ray.method(enable_task_events=False)
    async def carry(self, carrier: bytes) -> bytes:
        """Take a link's call; for other servers.

        Ray keeps no record of these calls: hundreds a second would push those of all else out of its table of tasks.
        """
        return await self._host.serve(carrier)

    async def update(self, members: list[Member], handles: dict[str, Any], version: int, notes: Notes) -> None:
        """Take over the table of servers, unless a later one came first, and keep the notes; for the master."""
        if version > self._version:
            self._version = version
            self._notes = notes
            self._handles.replace(handles)
            await self._host.update(members)

    async def open(self) -> None:
        """Let clients in; for the master, once every server has booted."""
        await self._host.open()

    async def before_stop(self) -> None:
        """Run the before-stop hooks, while all still serve; for the master."""
        await self._host.before_stop()

    async def quiet(self, server_id: str, limit: float) -> bool:
        """Wait until nothing from here to a server is under way; for the master, before it ends that server."""
        return await self._host.quiet(server_id, limit)

    async def drain(self, rate: float, reason: str) -> None:
        """Send the clients away and let what runs finish; for the master."""
        await self._host.drain(rate, reason)

    async def kick(self, uid: str, reason: str) -> int:
        """Close every session of a uid here; returns how many there were. For operators."""
        return self._host.kick(uid, reason)

    async def stop(self) -> None:
        """End the server's work, not its process; for the master."""
        await self._host.stop()

    async def ended(self) -> None:
        """Return when the server has stopped on purpose; while the call is under way the process lives."""
        await self._host.ended()

    async def ping(self) -> None:
        """Return at once, which a server whose loop stands still does not; for the master."""

    async def report(self) -> Report:
        """Return the server as others should know it, and the master's notes; for a restarted master."""
        return Report(member=self._host.report(), spec=self._host.spec, place=_place(), notes=self._notes)

    async def describe(self) -> dict[str, Any]:
        """Return the server's state in numbers, for operators."""
        return self._host.describe()

    async def inspect(self) -> dict[str, Any]:
        """Return the server's state and what is inside, for operators."""
        return self._host.inspect()

    def __repr__(self) -> str:
        return self._label


class FrontendServer(_Server):
    """A server that holds client connections."""


class BackendServer(_Server):
    """A server that clients reach through frontends only."""


class _RayMaster:
    """The master's actor as a server's MasterPort; a call that fails is tried again until the master is back."""

    def __init__(self, handle: Any, handles: Handles) -> None:
        self._handle = handle
        self._handles = handles

    async def register(self, server_id: str) -> Registration:
        registration, handles = await self._try("register", server_id, _place())
        self._handles.replace(handles)
        return registration  # type: ignore[no-any-return]

    async def booted(self, member: Member) -> bool:
        return bool(await self._try("booted", member, _place()))

    async def failed(self, server_id: str, reason: str) -> None:
        await self._try("failed", server_id, reason)

    async def _try(self, method: str, *arguments: Any) -> Any:
        while True:
            try:
                return await getattr(self._handle, method).remote(*arguments)
            except ray.exceptions.RayActorError:
                await asyncio.sleep(0.2)


def _place() -> Place:
    context = ray.get_runtime_context()
    address = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    return Place(context.get_worker_id(), address, context.get_node_id())


def _end_process() -> None:
    """End this process at once.

    Not by way of Ray: an actor that Ray has restarted elsewhere is none of its own any more, and must just end. Where
    it is Ray's after all, Ray starts it again, which is what a server needs that believes itself to be an old life.
    """
    logging.shutdown()
    os._exit(1)


class LineFormat(logging.Formatter):
    """Log lines of which each begins with ``who``, the id of the server: the game's own lines too."""

    def __init__(self, who: str = "") -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
        self._begin = f"{who}: " if who else ""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Return the line without what follows it, a traceback."""
        if not record.message.startswith(self._begin):
            record.message = self._begin + record.message
        return super().formatMessage(record)


def configure_logging(level: str, who: str = "") -> None:
    """Send this process's log to its standard error, which Ray keeps in the actor's log and shows to the driver."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormat(who))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
