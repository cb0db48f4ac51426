"""The master and its supervisor, with actors that are objects of this process."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayError, RuntimeEnvSetupError

import actors.liveness
import actors.master
import actors.membership
import actors.revival
import actors.supervisor
from actors.fleet import Actors
from actors.game import Game, ServerSpec
from actors.master import Master
from actors.membership import REMOVE, RESTART, Membership, Notes, Place, Plan, Report
from actors.operations import OperationError
from actors.placement import CannotPlace
from handlers.members import DRAINING, RESTARTING, SERVING, Member

SPECS = (
    ServerSpec(id="connector-1", type="connector", frontend=True, port=3050),
    ServerSpec(id="chat-1", type="chat"),
    ServerSpec(id="chat-2", type="chat"),
)
GAME = Game(name="test", app="app:app", folder=Path("/"), servers=SPECS)
HERE = Place("w", "n", "i")


class Life:
    """A server's actor and its handle: answers the master at once, and notes what it is told."""

    def __init__(self, spec: ServerSpec, member: Member | None = None, notes: Notes | None = None) -> None:
        self.spec = spec
        self.member = member
        self.notes = notes
        self.told: list[list[str]] = []
        self.versions: list[int] = []
        self.calls: list[tuple[Any, ...]] = []
        self.ended = self
        self.failure: Exception | None = None
        """What calls that stay under way fail with; None while it lives."""
        self.watches: list[asyncio.Future[None]] = []

    def remote(self) -> asyncio.Future[None]:
        watch: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.watches.append(watch)
        if self.failure is not None:
            watch.set_exception(self.failure)
        return watch

    def die(self, failure: Exception) -> None:
        """Have the calls that are under way, and all further ones, fail."""
        self.failure = failure
        for watch in self.watches:
            if not watch.done():
                watch.set_exception(failure)

    def called(self, method: str, *arguments: Any) -> Any:
        self.calls.append((method, *arguments))
        match method:
            case "report":
                return Report(member=self.member, spec=self.spec, place=Place("w", "n", "i"), notes=self.notes)
            case "update":
                members, _, version, notes = arguments
                self.told.append([f"{member.id} {member.state}" for member in members])
                self.versions.append(version)
                self.notes = notes
            case "quiet":
                return True
            case "kick":
                return 1
            case "describe":
                return {"connections": 0}
        return None


class LocalActors(Actors):
    """Actors of this process; the ones in ``there`` are found by a master that begins anew."""

    def __init__(self) -> None:
        super().__init__("test")
        self.there: dict[str, Life] = {}
        self.steps: list[str] = []
        self.refused: dict[str, Exception] = {}
        self.made: dict[str, tuple[ServerSpec, Game]] = {}
        self.killing: Callable[[str], None] = lambda server_id: None
        self.silent: set[str] = set()
        self.asked: list[str] = []
        self.lost: set[str] = set()
        """Those of which Ray says that it starts them no more."""
        self.reachable = asyncio.Event()
        self.reachable.set()

    def too_large(self, specs: Any) -> dict[str, str]:
        return {}

    def create(self, spec: ServerSpec, game: Game, running: Any) -> None:
        self.steps.append(f"create {spec.id}")
        if (error := self.refused.get(spec.id)) is not None:
            raise error
        self.made[spec.id] = (spec, game)
        self.handles[spec.id] = Life(spec)

    def named(self) -> list[str]:
        return [*self.there, "master"]

    def find(self, server_id: str) -> bool:
        self.handles[server_id] = self.there[server_id]
        return True

    def made_more_than(self, server_id: str, times: int) -> bool:
        return self.steps.count(f"create {server_id}") > times

    def given_up(self, server_id: str) -> bool:
        return server_id in self.lost

    async def ask(self, server_id: str, method: str, *arguments: Any, within: float = 5.0) -> Any:
        life = self.handles[server_id]
        self.asked.append(server_id)
        await self.reachable.wait()
        if server_id in self.silent:
            raise TimeoutError
        if life.failure is not None:
            raise life.failure
        return life.called(method, *arguments)

    async def kill(self, server_id: str) -> None:
        self.steps.append(f"end {server_id}")
        self.handles.pop(server_id, None)
        self.killing(server_id)


class Stage:
    """A master, the first or one that begins anew, and its actors."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.actors = LocalActors()
        self._monkeypatch = monkeypatch
        monkeypatch.setattr(actors.master, "configure_logging", lambda level: None)
        monkeypatch.setattr(actors.master, "Actors", lambda namespace: self.actors)
        monkeypatch.setattr(actors.supervisor, "exit_of", self.exit_of)
        monkeypatch.setattr(actors.supervisor, "TEND", 0.01)
        monkeypatch.setattr(actors.liveness, "LISTEN", 0.01)
        monkeypatch.setattr(actors.revival, "PAUSE", 0.01)
        self.exits: dict[tuple[str, str], tuple[str, str]] = {}
        """What Ray tells of the processes of worker and node, as deaths.exit_of returns it."""

    async def exit_of(self, worker: str, node_id: str) -> tuple[str, str]:
        return self.exits.get((worker, node_id), ("", ""))

    def master(self, *, restarted: bool = False) -> Master:
        self._monkeypatch.setattr(actors.master, "_restarted", lambda: restarted)
        return Master(GAME)

    async def running(self) -> Master:
        """Return a master whose servers have booted, and which is open."""
        master = self.master()
        await master._create()
        for spec in SPECS:
            await boot(master, self.actors, spec.id)
        master._membership.serving = True
        return master


async def boot(master: Master, local: LocalActors, server_id: str, place: Place = HERE) -> Member:
    """Have the life of a server that was made register and boot, as its host does."""
    life = local.handles.get(server_id) or local.there[server_id]
    registration, _ = await master.register(server_id, place)
    spec = life.spec
    member = Member(
        id=server_id, type=spec.type, incarnation=registration.incarnation, frontend=spec.frontend, port=spec.port
    )
    life.member = member
    await master.booted(member, place)
    return member


async def ended(master: Master) -> None:
    """Have a master do nothing any more."""
    for task in master._tasks:
        task.cancel()
    await asyncio.gather(*master._tasks, return_exceptions=True)


def test_a_server_that_is_ended_is_asked_nothing_any_more_while_its_process_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario() -> None:
        stage = Stage(monkeypatch)
        master = await stage.running()
        living: list[list[str]] = []
        stage.actors.killing = lambda server_id: living.append(master._membership.living())
        await master._supervisor.end("chat-1", "a test")
        assert living == [["connector-1", "chat-2"]]

    asyncio.run(scenario())


def test_a_call_of_a_server_whose_actor_was_taken_away_meanwhile_is_one_that_failed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        local = Actors("test")
        assert await local.tried("chat-1", "not kicked", local.ask("chat-1", "kick", "alice", "bye")) is None

    asyncio.run(scenario())
    assert "chat-1: not kicked: KeyError: 'chat-1'" in caplog.text


def test_a_stop_ends_all_processes_while_a_further_one_is_being_made(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        stage = Stage(monkeypatch)
        master = await stage.running()
        killed: list[str] = []

        def kill(life: Life, *, no_restart: bool) -> None:
            killed.append(life.spec.id)
            stage.actors.handles[f"chat-{len(killed) + 2}"] = life

        monkeypatch.setattr(ray, "kill", kill)
        await master.stop()
        assert killed == [spec.id for spec in SPECS]

    asyncio.run(scenario())


# -- deaths


@pytest.mark.parametrize("error", [ActorDiedError(), RuntimeEnvSetupError("no such package")], ids=["died", "files"])
def test_a_server_whose_actor_ray_has_given_up_is_made_anew_with_growing_pauses_until_it_boots(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: RayError
) -> None:
    async def scenario() -> None:
        stage = Stage(monkeypatch)
        master = await stage.running()
        master._run(master._supervisor.tend())
        for _ in range(3):
            life = stage.actors.handles["chat-1"]
            stage.actors.lost.add("chat-1")
            life.die(error)
            made = stage.actors.steps.count("create chat-1")
            await until(partial(stage.actors.made_more_than, "chat-1", made))
            stage.actors.lost.clear()
        await boot(master, stage.actors, "chat-1", Place("w2", "n", "i"))
        assert "chat-1" in master._membership.living()
        assert master._supervisor.revival.gone("chat-1") == actors.revival.PAUSE
        await ended(master)

    asyncio.run(scenario())
    pauses = [float(line.partition("made anew in ")[2].split()[0]) for line in caplog.messages if "given it up" in line]
    assert pauses == [0.01, 0.02, 0.04]


def test_the_next_life_of_a_server_that_ray_restarts_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        stage = Stage(monkeypatch)
        master = await stage.running()
        made = stage.actors.steps.count("create chat-1")
        stage.actors.handles["chat-1"].die(ActorUnavailableError("restarting", None))
        await until(lambda: "chat-1" not in master._membership.living())
        await boot(master, stage.actors, "chat-1", Place("w2", "n", "i"))
        assert stage.actors.steps.count("create chat-1") == made
        await ended(master)

    asyncio.run(scenario())


def test_a_master_that_begins_anew_says_how_a_life_ended_whose_next_one_began_in_its_absence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario() -> None:
        stage = Stage(monkeypatch)
        left_by_an_earlier_one(stage)
        stage.actors.there["chat-1"].member = None  # the next life, which boots
        stage.exits["w-chat-1", "i"] = ("NODE_DIED", "Ray has lost 127.0.0.3")
        master = stage.master(restarted=True)
        await boot(master, stage.actors, "chat-1", Place("w2", "n", "i2"))
        await until(
            lambda: [end["reason"] for end in master._ends.of("chat-1")] == ["its node died: Ray has lost 127.0.0.3"]
        )
        assert master._ends.of("chat-2") == []
        await ended(master)

    asyncio.run(scenario())


def test_a_boot_that_is_tried_again_in_the_same_process_is_no_end_of_a_life(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        stage = Stage(monkeypatch)
        master = await stage.running()
        await master.register("chat-1", Place("w", "n", "i"))
        assert master._ends.of("chat-1") == []
        await ended(master)

    asyncio.run(scenario())


def test_a_server_that_was_dead_before_it_was_ended_keeps_the_reason_of_its_death(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario() -> None:
        stage = Stage(monkeypatch)
        stage.exits["w", "i"] = ("NODE_DIED", "Ray has lost 127.0.0.3")
        master = await stage.running()
        stage.actors.handles["chat-1"].die(ActorUnavailableError("restarting", None))
        await until(lambda: master._ends.of("chat-1"))
        for server_id in ("chat-1", "chat-2"):
            await master._supervisor.end(server_id, "restarted by an operator")
        await until(lambda: "its node died" in master._ends.of("chat-1")[0]["reason"])
        assert [end["planned"] for end in master._ends.of("chat-1")] == [False]
        assert [end["reason"] for end in master._ends.of("chat-2")] == ["restarted by an operator"]
        await ended(master)

    asyncio.run(scenario())


def test_a_server_that_was_taken_for_dead_and_lives_has_not_ended_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        stage = Stage(monkeypatch)
        master = await stage.running()
        life = stage.actors.handles["chat-1"]
        life.die(ActorUnavailableError("the connection broke", None))
        await until(lambda: master._ends.of("chat-1"))
        life.failure = None
        master._run(master._supervisor.tend())
        await until(lambda: "chat-1" in master._membership.living())
        assert master._ends.of("chat-1") == []
        await until(lambda: life.failure is None and len(life.watches) > 1)
        life.die(ActorUnavailableError("dead indeed", None))
        await until(lambda: [end["reason"] for end in master._ends.of("chat-1")] != [])
        await ended(master)

    asyncio.run(scenario())


def test_a_living_server_that_nobody_watches_is_watched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        stage = Stage(monkeypatch)
        master = await stage.running()
        life = stage.actors.handles["chat-1"]
        master._supervisor.unwatch("chat-1")
        watches = len(life.watches)
        master._run(master._supervisor.tend())
        await until(lambda: len(life.watches) > watches)
        life.die(ActorUnavailableError("killed", None))
        await until(lambda: master._ends.of("chat-1"))
        await ended(master)

    asyncio.run(scenario())


def test_a_life_of_an_actor_that_is_not_known_is_not_taken_in(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        stage = Stage(monkeypatch)
        master = await stage.running()
        master._membership.lost("chat-1")
        registration, _ = await master.register("chat-1", Place("w2", "n", "i"))
        del stage.actors.handles["chat-1"]
        member = Member(id="chat-1", type="chat", incarnation=registration.incarnation)
        assert not await master.booted(member, Place("w2", "n", "i"))
        assert "chat-1" not in master._membership.living()
        await ended(master)

    asyncio.run(scenario())


def test_a_server_whose_process_stands_still_loses_its_place_and_has_it_again_when_it_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        stage = Stage(monkeypatch)
        master = await stage.running()
        monkeypatch.setattr(actors.membership, "KEPT", -1.0)
        stage.actors.silent.add("chat-1")
        master._run(master._supervisor.tend())
        await until(lambda: "chat-1" not in [member.id for member in master._membership.members()])
        stage.actors.silent.clear()
        await until(lambda: "chat-1" in master._membership.living())
        await ended(master)

    asyncio.run(scenario())
    assert "chat-1: does not answer; if it goes on so, users go to others" in caplog.messages


def test_a_server_that_cannot_be_ended_comes_to_the_end_that_was_wanted_by_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario() -> None:
        stage = Stage(monkeypatch)
        master = await stage.running()
        failures = iter([TimeoutError(), TimeoutError()])

        def fails_twice(server_id: str) -> None:
            for failure in failures:
                raise failure

        stage.actors.killing = fails_twice
        with pytest.raises(OperationError, match="chat-1 was ended and could not be started again"):
            await master.restart(GAME, "chat-1", 10)
        with pytest.raises(OperationError):
            await master.remove("chat-2", 10, force=True)
        master._run(master._supervisor.tend())
        await until(lambda: "chat-2" not in master._membership)
        await until(lambda: "chat-1" in stage.actors.handles)
        await boot(master, stage.actors, "chat-1", Place("w2", "n", "i"))
        assert master._membership.state("chat-1") == SERVING
        await ended(master)

    asyncio.run(scenario())


# -- a master that begins anew


def left_by_an_earlier_one(
    stage: Stage, *gone: str, version: int = 1, game: Game = GAME, plans: dict[str, Plan] | None = None
) -> None:
    """Have servers be there that an earlier master made, all but some, with what it noted last."""
    membership = Membership(SPECS, lambda: 1_000_000.0)
    for spec in SPECS:
        incarnation = membership.register(spec.id, Place(f"w-{spec.id}", "n", "i")).incarnation
        member = Member(id=spec.id, type=spec.type, incarnation=incarnation, frontend=spec.frontend, port=spec.port)
        membership.booted(member)
    for server_id, plan in (plans or {}).items():
        membership.plan(server_id, plan.state, plan.purpose)
    notes = membership.notes(version, game, {})
    members = {member.id: member for member in membership.members()}
    stage.actors.there = {spec.id: Life(spec, members[spec.id], notes) for spec in SPECS if spec.id not in gone}


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - threads make the actors
            await asyncio.sleep(0.001)


def test_a_master_that_begins_anew_answers_nobody_before_it_knows_who_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        stage = Stage(monkeypatch)
        later = replace(GAME, log_level="debug")
        left_by_an_earlier_one(stage, game=later)
        stage.actors.reachable.clear()
        master = stage.master(restarted=True)
        asked = [asyncio.create_task(master.game()), asyncio.create_task(master.kick("alice", "bye"))]
        await asyncio.wait(asked, timeout=0.05)
        assert not any(task.done() for task in asked)
        stage.actors.reachable.set()
        assert await asyncio.gather(*asked) == [later, 1]
        await ended(master)

    asyncio.run(scenario())


def test_no_table_is_told_while_a_server_is_silent_that_nobody_elses_notes_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario() -> None:
        stage = Stage(monkeypatch)
        left_by_an_earlier_one(stage)
        boots = stage.actors.there["chat-1"]
        boots.member = boots.notes = None
        for server_id in ("connector-1", "chat-2"):
            stage.actors.silent.add(server_id)
        master = stage.master(restarted=True)
        booted = asyncio.create_task(boot(master, stage.actors, "chat-1", Place("w2", "n", "i")))
        await until(lambda: stage.actors.asked.count("chat-2") > 1)
        assert not booted.done()
        stage.actors.silent.discard("chat-2")
        await booted
        assert [member.id for member in master._membership.members()] == ["connector-1", "chat-1", "chat-2"]
        await ended(master)

    asyncio.run(scenario())


def test_a_master_that_begins_anew_asks_ray_again_which_servers_there_are(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        stage = Stage(monkeypatch)
        left_by_an_earlier_one(stage)
        named, answers = stage.actors.named, iter([RuntimeError("no answer from the head service")])

        def refuses_once() -> list[str]:
            for error in answers:
                raise error
            return named()

        monkeypatch.setattr(stage.actors, "named", refuses_once)
        master = stage.master(restarted=True)
        assert await master.kick("alice", "bye") == 1
        await ended(master)

    asyncio.run(scenario())
    assert "no answer from the head service" in caplog.text


def test_a_server_that_was_to_restart_and_answers_late_is_restarted_then(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        stage = Stage(monkeypatch)
        left_by_an_earlier_one(stage, plans={"chat-1": Plan(RESTARTING, RESTART)})
        stage.actors.silent.add("chat-1")
        master = stage.master(restarted=True)
        await master._recovered.wait()
        assert "chat-1" not in stage.actors.made
        stage.actors.silent.clear()
        await until(lambda: "chat-1" in stage.actors.made)
        await boot(master, stage.actors, "chat-1", Place("w2", "n", "i"))
        assert master._membership.state("chat-1") == SERVING
        await ended(master)

    asyncio.run(scenario())


def test_operations_wait_until_what_an_earlier_master_began_has_come_to_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario() -> None:
        stage = Stage(monkeypatch)
        left_by_an_earlier_one(stage, plans={"chat-1": Plan(RESTARTING, RESTART)})
        master = stage.master(restarted=True)
        add = asyncio.create_task(master.add("chat", 1))
        await until(lambda: "chat-1" in stage.actors.made)
        assert "chat-3" not in stage.actors.made
        await boot(master, stage.actors, "chat-1")
        await until(lambda: "chat-3" in stage.actors.made)
        await boot(master, stage.actors, "chat-3")
        (line,) = await add
        assert line.startswith("chat-3 added")
        await ended(master)

    asyncio.run(scenario())


def test_a_server_that_is_missing_is_made_and_every_table_has_all_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        stage = Stage(monkeypatch)
        left_by_an_earlier_one(stage, "chat-1", version=2**62)
        others = list(stage.actors.there.values())
        master = stage.master(restarted=True)
        await until(lambda: "chat-1" in stage.actors.made)
        await boot(master, stage.actors, "chat-1")
        # Before the new life goes on: whom it greets has to know its actor.
        for other in others:
            assert {tuple(told) for told in other.told} == {
                ("connector-1 serving", "chat-1 serving", "chat-2 serving"),
            }
            assert other.versions[0] == 2**62 + 1
            assert stage.actors.handles["chat-1"] is not None
        await ended(master)

    asyncio.run(scenario())


def test_a_missing_server_that_cannot_be_made_does_not_end_the_recovery(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        stage = Stage(monkeypatch)
        left_by_an_earlier_one(stage, "chat-1", "chat-2")
        stage.actors.refused["chat-1"] = CannotPlace("num_cpus 64 is more than any node has (2)")
        master = stage.master(restarted=True)
        await master._recovered.wait()
        await until(lambda: stage.actors.steps.count("create chat-1") > 1)
        assert list(stage.actors.made) == ["chat-2"]
        stage.actors.refused.clear()
        await until(lambda: "chat-1" in stage.actors.made)
        await boot(master, stage.actors, "chat-1")
        assert "chat-1" in master._membership.living()
        await ended(master)

    asyncio.run(scenario())
    assert "num_cpus 64 is more than any node has (2)" in caplog.text


def test_a_missing_server_begins_with_the_new_definition_if_it_was_to_restart_and_not_at_all_if_it_was_to_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario() -> None:
        stage = Stage(monkeypatch)
        game = replace(GAME, servers=tuple(replace(spec, weight=7) for spec in SPECS))
        plans = {"chat-1": Plan(RESTARTING, RESTART), "chat-2": Plan(DRAINING, REMOVE)}
        left_by_an_earlier_one(stage, "chat-1", "chat-2", game=game, plans=plans)
        master = stage.master(restarted=True)
        await until(lambda: stage.actors.made and "chat-2" not in master._membership)
        assert {server_id: spec.weight for server_id, (spec, _) in stage.actors.made.items()} == {"chat-1": 7}
        await ended(master)

    asyncio.run(scenario())


def test_tables_have_growing_versions_where_the_clock_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        stage = Stage(monkeypatch)
        master = await stage.running()
        life = stage.actors.handles["chat-2"]
        life.versions.clear()
        for now in (10**20, 10**18, 10**20 + 1, 10**20 + 9):
            monkeypatch.setattr(time, "time_ns", lambda now=now: now)
            await master._supervisor.tell()
        assert life.versions == [10**20, 10**20 + 1, 10**20 + 2, 10**20 + 9]
        await ended(master)

    asyncio.run(scenario())
