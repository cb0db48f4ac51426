"""The order of what an operator's commands do, against servers that only take note."""

import asyncio
from collections.abc import Coroutine, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from actors import operations
from actors.game import Game, ServerSpec
from actors.held import HELD
from actors.membership import DRAIN, REMOVE, RESTART, Membership, Notes, Place, Report
from actors.operations import OperationError, Operations
from actors.placement import CannotPlace
from handlers.members import DRAINING, RESTARTING, SERVING, Member

SPECS = (
    ServerSpec(id="connector-1", type="connector", frontend=True, port=3050),
    ServerSpec(id="connector-2", type="connector", frontend=True, port=3051),
    ServerSpec(id="chat-1", type="chat"),
    ServerSpec(id="chat-2", type="chat"),
)
GAME = Game(name="test", app="app:app", folder=Path("/"), servers=SPECS)


class NotingFleet:
    """Does what a fleet does to the table, at once, and notes each step with the states that others were told."""

    def __init__(self, membership: Membership) -> None:
        self.steps: list[str] = []
        self.refuses_to_boot: dict[str, str] = {}
        self.cannot_start: dict[str, Exception] = {}
        self.cannot_end: dict[str, Exception] = {}
        self.large: dict[str, str] = {}
        self.late: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self._membership = membership

    async def too_large(self, specs: Iterable[ServerSpec]) -> dict[str, str]:
        return {spec.id: self.large[spec.id] for spec in specs if spec.id in self.large}

    async def tell(self) -> None:
        await self.gate.wait()
        away = [f"{member.id} {member.state}" for member in self._membership.members() if member.state != SERVING]
        self.steps.append(f"tell {', '.join(away) or 'all serve'}")

    async def quiet(self, server_id: str, limit: float) -> list[str]:
        self.steps.append(f"quiet {server_id} {limit:g}")
        return self.late

    async def drain(self, server_id: str, rate: float, reason: str) -> None:
        self.steps.append(f"drain {server_id} {rate:g}")

    async def end(self, server_id: str, reason: str) -> None:
        self.steps.append(f"end {server_id}")
        self._membership.lost(server_id)
        if (error := self.cannot_end.get(server_id)) is not None:
            raise error

    async def start(self, spec: ServerSpec, game: Game) -> None:
        self.steps.append(f"start {spec.id}")
        if (error := self.cannot_start.get(spec.id)) is not None:
            raise error

    async def booted(self, server_id: str, limit: float) -> str | None:
        if reason := self.refuses_to_boot.get(server_id):
            return reason
        boot(self._membership, server_id)
        return None


def boot(membership: Membership, server_id: str) -> Member:
    spec = membership.spec(server_id)
    incarnation = membership.register(server_id).incarnation
    member = Member(id=server_id, type=spec.type, incarnation=incarnation, frontend=spec.frontend, port=spec.port)
    assert membership.booted(member)
    return member


class Setup:
    def __init__(self) -> None:
        self.membership = Membership(SPECS, lambda: 1_000_000.0)
        for spec in SPECS:
            boot(self.membership, spec.id)
        self.membership.serving = True
        self.fleet = NotingFleet(self.membership)
        self.operations = Operations(GAME, self.membership, self.fleet)


def run(coroutine: Coroutine[Any, Any, list[str]]) -> list[str]:
    return asyncio.run(coroutine)


def test_a_backend_restarts_after_all_hold_what_is_meant_for_it_and_nothing_is_under_way() -> None:
    async def scenario() -> None:
        setup = Setup()
        before = setup.membership.incarnation("chat-1")
        (line,) = await setup.operations.restart(GAME, "chat-1", 10)
        assert line.startswith("chat-1 restarted in ")
        assert setup.fleet.steps == [
            "tell chat-1 restarting",
            "quiet chat-1 5",
            "end chat-1",
            "start chat-1",
            "tell all serve",
        ]
        assert setup.membership.incarnation("chat-1") > before

    asyncio.run(scenario())


def test_what_is_under_way_has_half_of_the_time_for_which_requests_are_held_so_that_the_boot_has_the_other() -> None:
    assert operations.QUIET <= HELD / 2


def test_a_frontend_restarts_after_its_clients_were_sent_away() -> None:
    async def scenario() -> None:
        setup = Setup()
        await setup.operations.restart(GAME, "connector-2", 10)
        assert setup.fleet.steps == [
            "tell connector-2 draining",
            "drain connector-2 10",
            "end connector-2",
            "start connector-2",
            "tell all serve",
        ]

    asyncio.run(scenario())


def test_a_restart_of_all_goes_one_by_one_backends_first() -> None:
    async def scenario() -> None:
        setup = Setup()
        lines = await setup.operations.restart(GAME, None, 10)
        assert [line.split()[0] for line in lines] == ["chat-1", "chat-2", "connector-1", "connector-2"]
        ended = [step for step in setup.fleet.steps if step.startswith(("end", "tell all"))]
        assert ended[:4] == ["end chat-1", "tell all serve", "end chat-2", "tell all serve"]

    asyncio.run(scenario())


def test_a_server_that_does_not_boot_ends_the_restart_and_the_others_stay_as_they_are() -> None:
    async def scenario() -> None:
        setup = Setup()
        setup.fleet.refuses_to_boot["chat-1"] = "app: no module"
        with pytest.raises(OperationError, match=r"chat-1 does not boot, and goes on trying.*app: no module"):
            await setup.operations.restart(GAME, "chat", 10)
        assert "end chat-2" not in setup.fleet.steps
        # It goes on trying by itself, and serves once it boots.
        boot(setup.membership, "chat-1")
        assert setup.membership.state("chat-1") == SERVING

    asyncio.run(scenario())


def test_a_new_definition_is_taken_over_and_a_type_that_is_gone_is_refused_before_anything_is_touched() -> None:
    async def scenario() -> None:
        setup = Setup()
        heavier = replace(GAME, servers=(*SPECS[:2], *(replace(spec, weight=7) for spec in SPECS[2:])))
        await setup.operations.restart(heavier, "chat-2", 10)
        assert setup.membership.spec("chat-2").weight == 7
        assert setup.membership.spec("chat-1").weight == 1
        assert setup.operations.game == heavier
        setup.fleet.steps.clear()
        with pytest.raises(OperationError, match="the file has no server type 'chat' any more"):
            await setup.operations.restart(replace(GAME, servers=SPECS[:2]), None, 10)
        turned = replace(GAME, servers=tuple(replace(spec, frontend=True) for spec in SPECS))
        with pytest.raises(OperationError, match="chat-1 cannot become a frontend by a restart"):
            await setup.operations.restart(turned, "chat", 10)
        assert setup.fleet.steps == []

    asyncio.run(scenario())


def test_added_servers_are_numbered_on_and_a_removed_number_is_not_given_again() -> None:
    async def scenario() -> None:
        setup = Setup()
        lines = await setup.operations.add("chat", 2)
        assert [line.split()[0] for line in lines] == ["chat-3", "chat-4"]
        await setup.operations.remove("chat-4", 10)
        (line,) = await setup.operations.add("chat", 1)
        assert line.startswith("chat-5 added")
        await setup.operations.add("connector", 1)
        assert setup.membership.spec("connector-3").port == 3052

    asyncio.run(scenario())


def test_a_server_that_was_added_and_does_not_boot_is_taken_away_again() -> None:
    async def scenario() -> None:
        setup = Setup()
        setup.fleet.refuses_to_boot["connector-3"] = "cannot listen on 127.0.0.1:3052: Address already in use"
        with pytest.raises(OperationError, match=r"connector-3 was not added: cannot listen on 127.0.0.1:3052"):
            await setup.operations.add("connector", 1)
        assert setup.fleet.steps[-2:] == ["end connector-3", "tell all serve"]
        assert "connector-3" not in setup.membership

    asyncio.run(scenario())


def test_a_server_that_no_node_can_take_is_refused_before_anything_is_touched() -> None:
    async def scenario() -> None:
        setup = Setup()
        setup.fleet.large = dict.fromkeys(("chat-2", "chat-3"), "num_cpus 64 is more than any node has (2)")
        heavier = replace(GAME, servers=(*SPECS[:2], *(replace(spec, num_cpus=64) for spec in SPECS[2:])))
        with pytest.raises(OperationError, match=r"^chat-2: num_cpus 64 is more than any node has \(2\)$"):
            await setup.operations.restart(heavier, "chat", 10)
        with pytest.raises(OperationError, match=r"^chat-3: num_cpus 64 is more"):
            await setup.operations.add("chat", 1)
        assert setup.fleet.steps == []
        assert setup.operations.game == GAME
        assert "chat-3" not in setup.membership

    asyncio.run(scenario())


@pytest.mark.parametrize("step", ["end", "start"])
def test_a_restart_that_cannot_end_or_start_a_server_says_so_and_the_next_one_makes_it_anew(step: str) -> None:
    async def scenario() -> None:
        setup = Setup()
        failing = {"end": setup.fleet.cannot_end, "start": setup.fleet.cannot_start}[step]
        failing["chat-1"] = CannotPlace("num_cpus 64 is more than any node has (2)")
        said = r"chat-1 was ended and could not be started again.*CannotPlace: num_cpus 64 is more than any node has"
        with pytest.raises(OperationError, match=said):
            await setup.operations.restart(GAME, "chat", 10)
        assert "end chat-2" not in setup.fleet.steps
        failing.clear()
        await setup.operations.restart(GAME, "chat-1", 10)
        assert "chat-1" in setup.membership.living()
        assert setup.membership.state("chat-1") == SERVING

    asyncio.run(scenario())


@pytest.mark.parametrize("also_no_end", [False, True])
def test_an_added_server_that_cannot_be_started_leaves_nothing_behind_or_is_to_go(also_no_end: bool) -> None:
    async def scenario() -> None:
        setup = Setup()
        setup.fleet.cannot_start["chat-3"] = RuntimeError("no worker\nto be had")
        if also_no_end:
            setup.fleet.cannot_end["chat-3"] = TimeoutError()
        with pytest.raises(OperationError, match=r"^chat-3 was not added: RuntimeError: no worker to be had$"):
            await setup.operations.add("chat", 1)
        assert setup.fleet.steps[-2:] == ["end chat-3", "tell all serve"]
        if also_no_end:
            setup.fleet.cannot_end.clear()
            await setup.operations.remake("chat-3")
        assert "chat-3" not in setup.membership
        await setup.operations.add("chat", 1)

    asyncio.run(scenario())


def test_what_was_done_before_a_failure_is_named_with_it() -> None:
    async def scenario() -> None:
        setup = Setup()
        setup.fleet.refuses_to_boot = {"connector-1": "app: no module", "chat-5": "app: no module"}
        done = r"app: no module \(done before: chat-1 restarted in \d\.\d s, chat-2 restarted in \d\.\d s\)$"
        with pytest.raises(OperationError, match=done):
            await setup.operations.restart(GAME, None, 10)
        done = r"^chat-5 was not added: app: no module \(done before: chat-3 added in .* s, chat-4 added in .* s\)$"
        with pytest.raises(OperationError, match=done):
            await setup.operations.add("chat", 4)
        with pytest.raises(OperationError, match=r"app: no module$"):
            await setup.operations.restart(GAME, "connector-1", 10)

    asyncio.run(scenario())


def test_a_number_whose_port_another_server_has_is_left_out() -> None:
    async def scenario() -> None:
        setup = Setup()
        setup.membership.add(ServerSpec(id="gate-1", type="gate", frontend=True, port=3052))
        await setup.operations.add("connector", 1)
        assert setup.membership.spec("connector-4").port == 3053
        assert "connector-3" not in setup.membership

    asyncio.run(scenario())


def test_a_type_that_has_no_port_left_or_is_not_there_is_refused() -> None:
    async def scenario() -> None:
        setup = Setup()
        setup.operations.game = replace(GAME, servers=(replace(SPECS[0], port=65535), *SPECS[2:]))
        with pytest.raises(OperationError, match="there is no port left for a further connector"):
            await setup.operations.add("connector", 1)
        with pytest.raises(OperationError, match="no server type 'moon'; there are chat, connector"):
            await setup.operations.add("moon", 1)
        assert setup.fleet.steps == []

    asyncio.run(scenario())


def test_a_removed_server_gets_no_new_work_first_and_is_forgotten_last() -> None:
    async def scenario() -> None:
        setup = Setup()
        await setup.operations.remove("chat-2", 10)
        assert setup.fleet.steps == [
            "tell chat-2 draining",
            "quiet chat-2 30",
            "drain chat-2 10",
            "end chat-2",
            "tell all serve",
        ]
        assert "chat-2" not in setup.membership

    asyncio.run(scenario())


def test_a_removal_whose_process_cannot_be_ended_says_so_and_can_be_asked_for_again() -> None:
    async def scenario() -> None:
        setup = Setup()
        setup.fleet.cannot_end["chat-2"] = TimeoutError()
        with pytest.raises(OperationError, match=r"^remove chat-2: TimeoutError$"):
            await setup.operations.remove("chat-2", 10)
        assert setup.membership.state("chat-2") == DRAINING
        setup.fleet.cannot_end.clear()
        await setup.operations.remove("chat-2", 10)
        assert "chat-2" not in setup.membership

    asyncio.run(scenario())


def test_the_last_server_of_a_type_leaves_only_by_force() -> None:
    async def scenario() -> None:
        setup = Setup()
        await setup.operations.drain("chat-1", 10)
        for leave in (setup.operations.drain, setup.operations.remove):
            with pytest.raises(OperationError, match="chat-2 is the last chat that serves; --force"):
                await leave("chat-2", 10)
        await setup.operations.remove("chat-1", 10)
        await setup.operations.remove("chat-2", 10, force=True)
        with pytest.raises(OperationError, match="there is no server 'chat-2'"):
            await setup.operations.drain("chat-2", 10)

    asyncio.run(scenario())


def test_a_drained_server_stays_so_even_if_it_dies_until_it_is_restarted() -> None:
    async def scenario() -> None:
        setup = Setup()
        await setup.operations.drain("connector-1", 10)
        setup.membership.lost("connector-1")
        boot(setup.membership, "connector-1")
        assert setup.membership.state("connector-1") == DRAINING
        assert setup.membership.purpose("connector-1") == DRAIN
        await setup.operations.restart(GAME, "connector-1", 10)
        assert setup.membership.state("connector-1") == SERVING

    asyncio.run(scenario())


@pytest.mark.parametrize("rate", [0, -1, float("nan")])
def test_a_rate_that_sends_nobody_away_is_refused_before_anything_is_touched(rate: float) -> None:
    async def scenario() -> None:
        setup = Setup()
        for operation in (
            setup.operations.restart(GAME, None, rate),
            setup.operations.remove("chat-1", rate),
            setup.operations.drain("chat-1", rate),
        ):
            with pytest.raises(OperationError, match="the rate is clients a second, more than 0"):
                await operation
        assert setup.fleet.steps == []
        assert setup.membership.state("chat-1") == SERVING

    asyncio.run(scenario())


def test_one_operation_at_a_time_and_the_second_is_told_which_one_runs() -> None:
    async def scenario() -> None:
        setup = Setup()
        setup.fleet.gate.clear()
        first = asyncio.create_task(setup.operations.restart(GAME, "chat", 10))
        await asyncio.sleep(0)
        with pytest.raises(OperationError, match="another operation is under way: restart chat"):
            await setup.operations.add("chat", 1)
        setup.fleet.gate.set()
        await first
        await setup.operations.add("chat", 1)

    asyncio.run(scenario())


def test_an_operation_waits_for_what_the_master_does_of_its_own_and_is_not_refused() -> None:
    async def scenario() -> None:
        setup = Setup()
        setup.membership.plan("chat-1", RESTARTING, RESTART)
        setup.fleet.gate.clear()
        own = asyncio.create_task(setup.operations.resume(10))
        await asyncio.sleep(0)
        add = asyncio.create_task(setup.operations.add("chat", 1))
        await asyncio.sleep(0)
        assert not add.done()
        setup.fleet.gate.set()
        await own
        await add
        assert setup.fleet.steps[-3:] == ["tell all serve", "start chat-3", "tell all serve"]

    asyncio.run(scenario())


def test_nothing_can_be_done_to_a_game_that_is_still_starting() -> None:
    async def scenario() -> None:
        setup = Setup()
        setup.membership.serving = False
        with pytest.raises(OperationError, match="the game is starting, or stopping"):
            await setup.operations.restart(GAME, None, 10)

    asyncio.run(scenario())


def test_a_server_that_dies_by_itself_while_it_is_restarted_is_not_taken_for_its_next_life() -> None:
    async def scenario() -> None:
        setup = Setup()
        setup.fleet.gate.clear()
        restart = asyncio.create_task(setup.operations.restart(GAME, "chat-1", 10))
        await asyncio.sleep(0)
        setup.membership.lost("chat-1")
        boot(setup.membership, "chat-1")
        assert setup.membership.state("chat-1") == RESTARTING
        setup.fleet.gate.set()
        await restart
        assert [step for step in setup.fleet.steps if not step.startswith("quiet")] == [
            "tell chat-1 restarting",
            "end chat-1",
            "start chat-1",
            "tell all serve",
        ]

    asyncio.run(scenario())


def test_a_server_that_is_no_more_is_made_again_from_the_latest_definition_or_goes_if_it_was_to_go() -> None:
    async def scenario() -> None:
        setup = Setup()
        setup.membership.plan("chat-1", RESTARTING, RESTART)
        setup.membership.plan("chat-2", DRAINING, REMOVE)
        for server_id in ("chat-1", "chat-2"):
            setup.membership.lost(server_id)
        setup.operations.game = replace(GAME, servers=tuple(replace(spec, weight=7) for spec in SPECS))
        for spec in SPECS:
            await setup.operations.remake(spec.id)
        assert setup.fleet.steps == ["start chat-1", "end chat-2", "tell chat-1 restarting"]
        assert setup.membership.spec("chat-1").weight == 7
        assert "chat-2" not in setup.membership

    asyncio.run(scenario())


# -- a master that begins anew


def resumed(setup: Setup, *silent: str) -> Setup:
    """Return what a restarted master has, whose servers answer but for some."""
    notes = setup.membership.notes(1, setup.operations.game, {})
    later = Setup()
    later.membership = Membership(SPECS, lambda: 1_000_100.0)
    members = {member.id: member for member in setup.membership.members()}
    later.membership.resume(
        notes,
        [
            Report(member=members[spec.id], spec=spec, place=Place("w", "n"), notes=notes)
            for spec in notes.specs
            if spec.id not in silent
        ],
    )
    later.membership.serving = True
    later.fleet = NotingFleet(later.membership)
    later.operations = Operations(notes.game, later.membership, later.fleet)
    return later


def test_a_restarted_master_knows_added_and_removed_servers_and_the_numbers_that_were_given() -> None:
    async def scenario() -> None:
        setup = Setup()
        await setup.operations.add("chat", 2)
        await setup.operations.remove("chat-1", 10)
        await setup.operations.remove("chat-4", 10)
        later = resumed(setup).membership
        assert [spec.id for spec in later.specs()] == ["connector-1", "connector-2", "chat-2", "chat-3"]
        assert later.next_number("chat") == 5
        assert later.members() == setup.membership.members()
        assert later.register("chat-3").restarted

    asyncio.run(scenario())


def test_a_restarted_master_takes_nobody_out_who_does_not_answer_at_once() -> None:
    setup = Setup()
    later = resumed(setup, "chat-1", "connector-2").membership
    assert later.members() == setup.membership.members()
    assert later.missing() == ["connector-2", "chat-1"]


def test_a_restarted_master_finishes_the_server_that_was_being_restarted_and_no_more() -> None:
    async def scenario() -> None:
        setup = Setup()
        setup.membership.plan("chat-1", RESTARTING, RESTART)
        later = resumed(setup)
        await later.operations.resume(10)
        assert [step for step in later.fleet.steps if step.startswith("start")] == ["start chat-1"]
        assert later.membership.state("chat-1") == SERVING

    asyncio.run(scenario())


def test_a_server_that_had_ended_when_the_master_died_serves_with_its_next_life() -> None:
    async def scenario() -> None:
        setup = Setup()
        setup.membership.plan("connector-1", DRAINING, RESTART)
        setup.membership.renew(SPECS[0])
        later = resumed(setup, "connector-1")
        await later.operations.resume(10)
        assert later.fleet.steps == []
        boot(later.membership, "connector-1")
        assert later.membership.state("connector-1") == SERVING

    asyncio.run(scenario())


def test_a_restart_that_was_over_but_for_the_notes_is_not_done_again() -> None:
    setup = Setup()
    setup.membership.plan("chat-1", RESTARTING, RESTART)
    setup.membership.renew(SPECS[2])
    notes = setup.membership.notes(1, GAME, {})
    boot(setup.membership, "chat-1")
    (again,) = [member for member in setup.membership.members() if member.id == "chat-1"]
    later = Membership(SPECS, lambda: 1_000_100.0)
    later.resume(notes, [Report(member=again, spec=SPECS[2], place=Place(), notes=notes)])
    assert later.purpose("chat-1") == ""
    assert later.state("chat-1") == SERVING


def test_a_server_that_was_being_restarted_and_answers_late_is_found_unfinished_and_restarted() -> None:
    async def scenario() -> None:
        setup = Setup()
        setup.membership.plan("chat-1", RESTARTING, RESTART)
        (member,) = [member for member in setup.membership.members() if member.id == "chat-1"]
        later = resumed(setup, "chat-1")
        await later.operations.resume(10)
        assert not later.operations.unfinished
        later.membership.booted(member)
        assert later.operations.unfinished
        await later.operations.resume(10)
        assert later.membership.state("chat-1") == SERVING
        assert not later.operations.unfinished

    asyncio.run(scenario())


def test_a_server_whose_restart_cannot_be_continued_serves_on_as_it_is() -> None:
    async def scenario() -> None:
        setup = Setup()
        setup.membership.plan("chat-1", RESTARTING, RESTART)
        later = resumed(setup)
        later.fleet.large["chat-1"] = "num_cpus 64 is more than any node has (2)"
        with pytest.raises(OperationError, match="num_cpus 64"):
            await later.operations.resume(10)
        assert later.fleet.steps == ["tell all serve"]
        assert not later.operations.unfinished

    asyncio.run(scenario())


def test_a_restarted_master_finishes_a_removal_and_leaves_drained_what_was_drained() -> None:
    async def scenario() -> None:
        setup = Setup()
        setup.membership.plan("chat-1", DRAINING, REMOVE)
        await setup.operations.drain("connector-1", 10)
        later = resumed(setup)
        await later.operations.resume(10)
        assert "chat-1" not in later.membership
        assert later.membership.state("connector-1") == DRAINING

    asyncio.run(scenario())


def test_a_restarted_master_goes_on_with_a_drain_of_a_server_that_lives() -> None:
    async def scenario() -> None:
        setup = Setup()
        for server_id in ("connector-1", "connector-2", "chat-1"):
            setup.membership.plan(server_id, DRAINING, DRAIN)
        later = resumed(setup, "connector-2")
        await later.operations.resume(10)
        assert [step for step in later.fleet.steps if not step.startswith("tell")] == [
            "drain connector-1 10",
            "quiet chat-1 30",
            "drain chat-1 10",
        ]
        assert later.membership.purpose("connector-1") == DRAIN

    asyncio.run(scenario())


def test_one_that_cannot_be_finished_does_not_keep_a_restarted_master_from_the_others() -> None:
    async def scenario() -> None:
        setup = Setup()
        setup.membership.plan("chat-1", RESTARTING, RESTART)
        setup.membership.plan("connector-1", DRAINING, REMOVE)
        setup.membership.plan("chat-2", DRAINING, REMOVE)
        later = resumed(setup)
        later.fleet.refuses_to_boot["chat-1"] = "app: no module"
        later.fleet.cannot_end["connector-1"] = TimeoutError()
        with pytest.raises(OperationError, match=r"^connector-1: TimeoutError; chat-1 does not boot"):
            await later.operations.resume(10)
        assert "chat-2" not in later.membership

    asyncio.run(scenario())


def test_a_master_that_finds_no_notes_goes_on_with_the_games_file_and_who_answers() -> None:
    setup = Setup()
    members = setup.membership.members()
    extra = ServerSpec(id="chat-3", type="chat")
    member = Member(id="chat-3", type="chat", incarnation=5)
    later = Membership(SPECS, lambda: 1_000_100.0)
    later.resume(
        None,
        [
            Report(member=member, spec=extra, place=Place(), notes=None),
            Report(member=members[0], spec=SPECS[0], place=Place(), notes=None),
        ],
    )
    assert [spec.id for spec in later.specs()] == [*(spec.id for spec in SPECS), "chat-3"]
    assert later.living() == ["connector-1", "chat-3"]


def test_notes_say_how_lives_ended_and_are_not_mixed_up_by_age() -> None:
    setup = Setup()
    notes = setup.membership.notes(7, GAME, {})
    assert isinstance(notes, Notes)
    assert notes.version == 7
    assert notes.highest == {"connector": 2, "chat": 2}
