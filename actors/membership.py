"""What the master knows of its servers, and what it decides from it. Pure."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from actors.config import ServerSpec
from handlers.members import Member

__all__ = ["Membership", "Registration"]

KEPT = 30.0
"""Seconds for which a dead server keeps its place; after that its users go to others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """What a server is told when it begins a life: its incarnation, the port to take, and who else is there.

    ``restarted`` says that it had an earlier life, which had booted: frontends may know members of its channels.
    """

    incarnation: int
    port: int
    members: tuple[Member, ...]
    restarted: bool = False


@dataclass(slots=True)
class _Record:
    spec: ServerSpec
    incarnation: int = 0
    port: int = 0
    member: Member | None = None
    lost_at: float | None = None


class Membership:
    """The table of servers: who lives, under which incarnation, and who has lost its place.

    ``clock`` gives the time in seconds since the epoch.
    """

    def __init__(self, specs: Iterable[ServerSpec], clock: Callable[[], float]) -> None:
        self._records = {spec.id: _Record(spec) for spec in specs}
        self._clock = clock
        self._highest = 0
        self.serving = False

    def register(self, server_id: str) -> Registration:
        """Begin a new life of a server.

        Incarnations grow over all servers and lives, and start from the time, so that they go on growing when a master
        has forgotten the last one.
        """
        record = self._records[server_id]
        self._highest = max(self._highest + 1, int(self._clock()))
        record.incarnation = self._highest
        return Registration(
            incarnation=record.incarnation,
            port=record.port or record.spec.port,
            members=tuple(self.members()),
            restarted=record.member is not None,
        )

    def booted(self, member: Member) -> bool:
        """Take in a server that is ready to be spoken to; returns False when a later life of it has registered."""
        record = self._records[member.id]
        if member.incarnation < record.incarnation:
            return False
        record.incarnation = member.incarnation
        record.member = member
        record.port = member.port
        record.lost_at = None
        self._highest = max(self._highest, member.incarnation)
        return True

    def lost(self, server_id: str) -> None:
        """Note that a server died; one that had booted keeps its place for a while."""
        record = self._records[server_id]
        if record.member is not None and record.lost_at is None:
            record.lost_at = self._clock()

    def expire(self) -> list[str]:
        """Take their place from servers that have been dead for too long; returns their ids."""
        now = self._clock()
        gone = [
            server_id
            for server_id, record in self._records.items()
            if record.member is not None and record.lost_at is not None and now - record.lost_at > KEPT
        ]
        for server_id in gone:
            self._records[server_id].member = None
        return gone

    def members(self) -> list[Member]:
        """Return the servers that have a place, in the order of the game's file."""
        return [record.member for record in self._records.values() if record.member is not None]

    def dead(self, server_id: str) -> bool:
        """Tell whether a server booted once and is dead now."""
        return self._records[server_id].lost_at is not None

    def missing(self) -> list[str]:
        """Return the ids of the servers that are not there, or dead."""
        return [
            server_id
            for server_id, record in self._records.items()
            if record.member is None or record.lost_at is not None
        ]
