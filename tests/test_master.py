"""The master and its supervisor, with actors that are objects of this process."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray

import actors.master
from actors.config import Game, ServerSpec
from actors.fleet import Actors
from actors.master import Master
from actors.membership import Notes, Place, Report
from handlers.members import Member

SPECS = (
    ServerSpec(id="connector-1", type="connector", frontend=True, port=3050),
    ServerSpec(id="chat-1", type="chat"),
    ServerSpec(id="chat-2", type="chat"),
)
GAME = Game(name="test", app="app:app", folder=Path("/"), servers=SPECS)


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

    def remote(self) -> asyncio.Future[None]:
        return asyncio.get_running_loop().create_future()

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

    async def ask(self, server_id: str, method: str, *arguments: Any, within: float = 5.0) -> Any:
        life = self.handles[server_id]
        await self.reachable.wait()
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


async def boot(master: Master, local: LocalActors, server_id: str) -> Member:
    """Have the life of a server that was made register and boot, as its host does."""
    life = local.handles[server_id]
    registration, _ = await master.register(server_id, Place("w", "n", "i"))
    spec = life.spec
    member = Member(
        id=server_id, type=spec.type, incarnation=registration.incarnation, frontend=spec.frontend, port=spec.port
    )
    life.member = member
    await master.booted(member)
    return member


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
