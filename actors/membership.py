"""What the master knows of its servers, and what it decides from it. Pure."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final

from actors.config import Game, ServerSpec
from actors.ends import End
from handlers.members import RESTARTING, SERVING, Member

__all__ = ["DRAIN", "MASTER", "REMOVE", "RESTART", "Membership", "Notes", "Place", "Registration", "Report"]

MASTER: Final = "master"
"""The master's actor name in a game's namespace."""
KEPT = 30.0
"""Seconds for which a dead server keeps its place; after that its users go to others."""

DRAIN: Final = "drain"
RESTART: Final = "restart"
REMOVE: Final = "remove"
"""What an operator has in mind for a server whose state is not SERVING."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """What a server is told when it begins a life: its incarnation, the port to take, and who else is there.

    ``restarted`` says that it had an earlier life, which had booted: frontends may know members of its channels.
    """

    incarnation: int
    port: int
    members: tuple[Member, ...]
    restarted: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """Where a life of a server runs: Ray's id of its process, and its node's address."""

    worker: str = ""
    node: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notes:
    """What a master has to know when it begins anew. It gives them to every server with the table, and asks for them.

    ``plans`` are the states and purposes of servers that an operator has changed, ``highest`` the highest number that
    each type has had. Later ones have a greater ``version``.
    """

    version: int
    game: Game
    specs: tuple[ServerSpec, ...]
    members: tuple[Member, ...]
    plans: dict[str, tuple[str, str]]
    highest: dict[str, int]
    ends: dict[str, End]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a server tells a restarted master: itself (None while it boots), where it runs, and the last notes."""

    member: Member | None
    spec: ServerSpec
    place: Place
    notes: Notes | None


@dataclass(slots=True)
class _Record:
    spec: ServerSpec
    incarnation: int = 0
    port: int = 0
    member: Member | None = None
    lost_at: float | None = None
    place: Place = Place()
    booted: bool = False
    state: str = SERVING
    plan: str = ""
    planned_for: int = 0
    """The incarnation that the plan is about; a later one serves, where the plan was to restart."""


class Membership:
    """The table of servers: who lives, under which incarnation, who has lost its place, and what operators want.

    ``clock`` gives the time in seconds since the epoch.
    """

    def __init__(self, specs: Iterable[ServerSpec], clock: Callable[[], float]) -> None:
        self._records: dict[str, _Record] = {}
        self._numbers: dict[str, int] = {}
        self._clock = clock
        self._highest = 0
        self.serving = False
        self.recovered = False
        """Whether this master is not the first: then every server may have had an earlier life."""
        for spec in specs:
            self.add(spec)

    # -- which servers there are

    def add(self, spec: ServerSpec) -> None:
        """Have a further server, which is missing until it has booted."""
        self._records[spec.id] = _Record(spec)
        _, _, number = spec.id.rpartition("-")
        self._numbers[spec.type] = max(self._numbers.get(spec.type, 0), int(number) if number.isdigit() else 0)

    def remove(self, server_id: str) -> None:
        """Have a server no more; its number is not given again."""
        del self._records[server_id]

    def renew(self, spec: ServerSpec) -> None:
        """Give a server another definition, for its next life."""
        record = self._records[spec.id]
        if spec.port != record.spec.port:
            record.port = 0
        record.spec = spec

    def next_number(self, server_type: str) -> int:
        """Return the number of the next server of a type: above every one it has had."""
        return self._numbers.get(server_type, 0) + 1

    def specs(self) -> tuple[ServerSpec, ...]:
        """Return the definitions of all servers, in the order of the game's file, added ones last."""
        return tuple(record.spec for record in self._records.values())

    def spec(self, server_id: str) -> ServerSpec:
        """Return the definition of a server that is there."""
        return self._records[server_id].spec

    def __contains__(self, server_id: object) -> bool:
        return server_id in self._records

    # -- their lives

    def register(self, server_id: str, place: Place | None = None) -> Registration:
        """Begin a new life of a server.

        Incarnations grow over all servers and lives, and start from the time, so that they go on growing when a master
        has forgotten the last one.
        """
        record = self._records[server_id]
        self._highest = max(self._highest + 1, int(self._clock()))
        record.incarnation = self._highest
        record.place = place or Place()
        return Registration(
            incarnation=record.incarnation,
            port=record.port or record.spec.port,
            members=tuple(self.members()),
            restarted=record.booted or self.recovered,
        )

    def booted(self, member: Member) -> bool:
        """Take in a server that is ready to be spoken to; returns False when a later life of it has registered."""
        record = self._records.get(member.id)
        if record is None or member.incarnation < record.incarnation:
            return False
        record.incarnation = member.incarnation
        record.member = member
        record.port = member.port
        record.lost_at = None
        record.booted = True
        self._highest = max(self._highest, member.incarnation)
        if record.plan == RESTART and member.incarnation > record.planned_for:
            # However the earlier life ended, this is the one that was wanted.
            self.plan(member.id, SERVING, "")
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
        """Return the servers that have a place, in the order of the game's file, with their states."""
        return [
            replace(record.member, state=record.state) if record.member.state != record.state else record.member
            for record in self._records.values()
            if record.member is not None
        ]

    def living(self) -> list[str]:
        """Return the ids of the servers that have booted and are not known to be dead."""
        return [
            server_id
            for server_id, record in self._records.items()
            if record.member is not None and record.lost_at is None
        ]

    def dead(self, server_id: str) -> bool:
        """Tell whether a server booted once and is dead now."""
        return self._records[server_id].lost_at is not None

    def missing(self) -> list[str]:
        """Return the ids of the servers that are not there, or dead."""
        living = set(self.living())
        return [server_id for server_id in self._records if server_id not in living]

    def incarnation(self, server_id: str) -> int:
        """Return the incarnation of a server's latest life, 0 before the first."""
        return self._records[server_id].incarnation

    def place(self, server_id: str) -> Place:
        """Return where a server's latest life runs."""
        return self._records[server_id].place

    # -- what operators want

    def plan(self, server_id: str, state: str, purpose: str) -> None:
        """Set a server's state, and what for: DRAIN, RESTART, REMOVE, or "" with SERVING.

        With RESTART its next life serves again; with DRAIN it stays drained whatever happens to it.
        """
        record = self._records[server_id]
        record.state, record.plan, record.planned_for = state, purpose, record.incarnation

    def state(self, server_id: str) -> str:
        """Return a server's state as others are told."""
        return self._records[server_id].state

    def purpose(self, server_id: str) -> str:
        """Return what its state is for."""
        return self._records[server_id].plan

    def working(self, server_type: str) -> list[str]:
        """Return the ids of a type's servers that live and take new work."""
        return [
            server_id
            for server_id in self.living()
            if self._records[server_id].spec.type == server_type
            and self._records[server_id].state in (SERVING, RESTARTING)
        ]

    # -- what outlives a master

    def notes(self, version: int, game: Game, ends: dict[str, End]) -> Notes:
        """Return what a later master has to know."""
        plans = {i: (record.state, record.plan) for i, record in self._records.items() if record.plan}
        return Notes(
            version=version,
            game=game,
            specs=self.specs(),
            members=tuple(self.members()),
            plans=plans,
            highest=dict(self._numbers),
            ends=ends,
        )

    def resume(self, notes: Notes | None, reports: Iterable[Report]) -> None:
        """Begin from what an earlier master noted, and the servers that answered.

        A server that is in the notes and did not answer is taken for dead: it keeps its place for a while.
        """
        self.recovered = True
        if notes is not None:
            self._records.clear()
            for spec in notes.specs:
                self.add(spec)
            for server_type, number in notes.highest.items():
                self._numbers[server_type] = max(self._numbers.get(server_type, 0), number)
            for member in notes.members:
                self.booted(member)
                self.lost(member.id)
        for report in reports:
            if report.spec.id not in self._records:
                self.add(report.spec)
            self._records[report.spec.id].place = report.place
            if report.member is not None:
                self.booted(report.member)
        if notes is not None:
            self._resume_plans(notes)

    def _resume_plans(self, notes: Notes) -> None:
        noted = {member.id: member.incarnation for member in notes.members}
        for server_id, (state, purpose) in notes.plans.items():
            served_again = purpose == RESTART and self._records[server_id].incarnation > noted.get(server_id, 0)
            if not served_again:
                self.plan(server_id, state, purpose)
