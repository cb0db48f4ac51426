"""What the master knows of its servers, and what it decides from it. Pure."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final

from actors.ends import End
from actors.game import Game, ServerSpec
from handlers.members import RESTARTING, SERVING, Member

__all__ = [
    "DRAIN",
    "KEPT",
    "MASTER",
    "REMOVE",
    "RESTART",
    "Membership",
    "Notes",
    "Place",
    "Plan",
    "Registration",
    "Report",
]

MASTER: Final = "master"
"""The master's actor name in a game's namespace."""
KEPT = 30.0
"""Seconds for which a dead server keeps its place; after that its users go to others."""

DRAIN: Final = "drain"
RESTART: Final = "restart"
REMOVE: Final = "remove"
"""What an operator has in mind for a server whose state is not SERVING (Plan.purpose)."""


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
    """Where a life of a server runs: Ray's id of its process, its node's address, and Ray's id of its node."""

    worker: str = ""
    node: str = ""
    node_id: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """What an operator wants of a server: the state in which others see it, and what for, "" where it just serves.

    ``before`` is known once a server that restarts has ended: a life with a greater incarnation is the one wanted.
    """

    state: str = SERVING
    purpose: str = ""
    before: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Notes:
    """What a master has to know when it begins anew. It gives them to every server with the table, and asks for them.

    ``plans`` are the servers that an operator has changed, ``highest`` the highest number that each type has had,
    ``places`` where each server ran last, and ``ends`` how its latest life that is over ended. Later notes have a
    greater ``version``.
    """

    version: int
    game: Game
    specs: tuple[ServerSpec, ...]
    members: tuple[Member, ...]
    plans: dict[str, Plan]
    highest: dict[str, int]
    places: dict[str, Place]
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
    plan: Plan = Plan()


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
        """Give a server that has ended another definition, for its next life: that is the one that was wanted."""
        record = self._records[spec.id]
        if spec.port != record.spec.port:
            record.port = 0
        record.spec = spec
        self.lost(spec.id)
        if record.plan.purpose == RESTART:
            record.plan = replace(record.plan, before=record.incarnation)

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

    def booted(self, member: Member, place: Place | None = None) -> bool:
        """Take in a server that is ready to be spoken to, and where it runs.

        Returns False when a later life of it has registered, or it was ended to have one.
        """
        record = self._records.get(member.id)
        if record is None or member.incarnation < record.incarnation:
            return False
        if record.plan.before is not None and member.incarnation <= record.plan.before:
            return False
        record.incarnation = member.incarnation
        record.place = place or record.place
        record.member = member
        record.port = member.port
        record.lost_at = None
        record.booted = True
        self._highest = max(self._highest, member.incarnation)
        self._fulfil(record)
        return True

    @staticmethod
    def _fulfil(record: _Record) -> None:
        """Have a server serve that was to restart, if this is its new life; it may have died by itself before that."""
        if record.plan.before is not None and record.incarnation > record.plan.before:
            record.plan = Plan()

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
            replace(record.member, state=record.plan.state)
            if record.member.state != record.plan.state
            else record.member
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

    def booting(self) -> list[str]:
        """Return the ids of the servers that have registered and have not booted since."""
        return [
            server_id
            for server_id, record in self._records.items()
            if record.incarnation > (record.member.incarnation if record.member is not None else 0)
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

    def running(self) -> dict[str, tuple[ServerSpec, str]]:
        """Return the servers of which it is known where they run, by id, each with Ray's id of its node."""
        records = self._records.items()
        return {server_id: (one.spec, one.place.node_id) for server_id, one in records if one.place.node_id}

    # -- what operators want

    def plan(self, server_id: str, state: str, purpose: str) -> None:
        """Set a server's state, and what for: DRAIN, RESTART, REMOVE, or "" with SERVING.

        With RESTART the life after ``renew`` serves again; with DRAIN it stays drained whatever happens to it.
        """
        self._records[server_id].plan = Plan(state, purpose)

    def state(self, server_id: str) -> str:
        """Return a server's state as others are told."""
        return self._records[server_id].plan.state

    def purpose(self, server_id: str) -> str:
        """Return what its state is for."""
        return self._records[server_id].plan.purpose

    def working(self, server_type: str) -> list[str]:
        """Return the ids of a type's servers that live and take new work."""
        return [
            server_id
            for server_id in self.living()
            if self._records[server_id].spec.type == server_type
            and self._records[server_id].plan.state in (SERVING, RESTARTING)
        ]

    # -- what outlives a master

    def notes(self, version: int, game: Game, ends: dict[str, End]) -> Notes:
        """Return what a later master has to know."""
        records = self._records.items()
        return Notes(
            version=version,
            game=game,
            specs=self.specs(),
            members=tuple(self.members()),
            plans={server_id: record.plan for server_id, record in records if record.plan.purpose},
            highest=dict(self._numbers),
            places={server_id: record.place for server_id, record in records if record.place.worker},
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
            for server_id, place in notes.places.items():
                self._records[server_id].place = place
            for server_id, plan in notes.plans.items():
                self._records[server_id].plan = plan
                self._highest = max(self._highest, plan.before or 0)
        for report in reports:
            if report.spec.id not in self._records:
                self.add(report.spec)
            if report.member is not None:
                self.booted(report.member, report.place)
