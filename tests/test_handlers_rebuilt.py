"""The channels of a server's later life are rebuilt from the frontends' mirrors, with no member lost or doubled."""

import asyncio
import contextlib
import logging
import random
from typing import Any

import pytest

from handlers import App, Server, Session
from handlers.channels import Channel
from handlers.errors import HandlerError
from handlers.kit import Kit, KitClient, run
from handlers.link import FORWARD, MIRROR, MIRRORED
from handlers.rebuild import GRACE, LIMIT
from handlers.settings import Settings


class Stage:
    """An app whose chat servers keep rooms, and its kit."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, dict[str, list[str]]]] = []
        self.app = app = App("rebuilt", routes=["onSaid"])

        @app.handler("connector.entry.enter")
        async def enter(msg: dict[str, str], session: Session) -> None:
            await session.bind(msg["uid"])

        @app.handler("chat.room.join")
        async def join(msg: dict[str, str], session: Session, server: Server) -> dict[str, bool]:
            assert session.uid is not None
            channel = server.channels.create(msg["room"])
            return {"present": await channel.add_confirmed(session.uid, session.frontend_id)}

        @app.handler("chat.room.members")
        async def members(msg: dict[str, str], server: Server) -> list[str]:
            return sorted(server.channels.create(msg["room"]).members())

        @app.remote("chat.room.count")
        async def count(server: Server, room: str) -> int:
            return len(server.channels.get(room))

        @app.on_rebuilt("chat")
        async def rebuilt(server: Server) -> None:
            names = server.channels.names()
            self.seen.append((server.id, {name: sorted(server.channels.get(name).members()) for name in names}))

    def kit(self, settings: Settings | None = None) -> Kit:
        return Kit(self.app, frontends={"connector": 2}, backends={"chat": 1}, settings=settings)


async def entered(kit: Kit, number: int, uid: str) -> KitClient:
    """Return a client of connector ``number`` that is bound to ``uid``."""
    client = await kit.connect(f"connector-{number}")
    await client.request("connector.entry.enter", {"uid": uid})
    return client


async def room_of(kit: Kit, clients: list[KitClient], name: str = "tea") -> None:
    for client in clients:
        assert await client.request("chat.room.join", {"room": name}) == {"present": True}


async def heard(kit: Kit, name: str, clients: list[KitClient]) -> list[int]:
    """Push to a room; returns how often each client hears it."""
    for client in clients:
        client.pushes.clear()
    kit.server("chat-1").channels.get(name).push("onSaid", {})
    await kit.settle()
    return [len(client.pushes) for client in clients]


def test_a_later_life_knows_its_channels_members_and_tells_the_game() -> None:
    async def scenario() -> None:
        stage = Stage()
        async with stage.kit() as kit:
            ann, bob, eve = [await entered(kit, n, uid) for n, uid in ((1, "ann"), (2, "bob"), (2, "eve"))]
            await room_of(kit, [ann, bob, eve])
            await room_of(kit, [bob], "cake")
            kit.lose("chat-1")
            assert stage.seen == []
            eve.close()
            await kit.revive("chat-1")
            assert stage.seen == [("chat-1", {"tea": ["ann", "bob"], "cake": ["bob"]})]
            assert await heard(kit, "tea", [ann, bob]) == [1, 1]
            tea = kit.server("chat-1").channels.get("tea")
            assert tea.frontends("bob") == ["connector-2"]
            # What follows goes as if nothing had been.
            await room_of(kit, [ann])
            assert sorted(tea.members()) == ["ann", "bob"]
            assert tea.leave("ann")
            assert await heard(kit, "tea", [ann, bob]) == [0, 1]
            bob.close()
            await kit.settle()
            assert tea.members() == []
            assert kit.server("chat-1").channels.get("cake").members() == []

    run(scenario())


def test_it_may_die_again_and_again() -> None:
    async def scenario() -> None:
        stage = Stage()
        async with stage.kit() as kit:
            clients = [await entered(kit, n % 2 + 1, f"u{n}") for n in range(4)]
            await room_of(kit, clients)
            for _ in range(3):
                kit.lose("chat-1")
                await kit.revive("chat-1")
            assert await heard(kit, "tea", clients) == [1, 1, 1, 1]

    run(scenario())


def test_a_first_life_waits_for_nobody_and_runs_no_rebuilt_hook() -> None:
    async def scenario() -> None:
        stage = Stage()
        async with stage.kit() as kit:
            await kit.nodes["chat-1"].rebuilt()
            assert stage.seen == []
            assert asyncio.get_running_loop().time() == 0

    run(scenario())


def test_a_link_that_only_broke_takes_the_members_out_on_both_sides() -> None:
    async def scenario() -> None:
        stage = Stage()
        async with stage.kit() as kit:
            ann, bob = await entered(kit, 1, "ann"), await entered(kit, 2, "bob")
            await room_of(kit, [ann, bob])
            kit.cut("connector-1", "chat-1")
            kit.mend("connector-1", "chat-1")
            await kit.settle()
            assert kit.server("chat-1").channels.get("tea").members() == ["bob"]
            assert agreed(kit)
            # And they are not told to its next life.
            kit.lose("chat-1")
            await kit.revive("chat-1")
            assert stage.seen[-1][1] == {"tea": ["bob"]}

    run(scenario())


def test_many_members_are_told_in_parts_that_a_carrier_takes() -> None:
    async def scenario() -> None:
        stage = Stage()
        async with stage.kit() as kit:
            clients = [await entered(kit, 1, f"user-{number}") for number in range(1200)]
            channel = kit.server("chat-1").channels.create("crowd")
            for number in range(1200):
                channel.add(f"user-{number}", "connector-1")
            await kit.settle()
            kit.lose("chat-1")
            told: list[int] = []
            mirror = frontend_of(kit).remote.mirror
            for name, members in mirror.told("chat-1"):
                assert name == "crowd"
                told.append(len(members))
            assert told == [500, 500, 200]
            await kit.revive("chat-1")
            assert sum(await heard(kit, "crowd", clients)) == 1200

    run(scenario())


def frontend_of(kit: Kit, number: int = 1) -> Any:
    return kit.nodes[f"connector-{number}"].frontend


def silent(kit: Kit, number: int) -> None:
    """Have a connector say nothing of its mirror when links come up."""
    frontend_of(kit, number).remote.came_up = lambda server_id, incarnation: None


def test_requests_and_calls_wait_until_every_frontend_has_told_and_then_come_in_order(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        stage = Stage()
        async with stage.kit() as kit:
            ann, bob = await entered(kit, 1, "ann"), await entered(kit, 2, "bob")
            await room_of(kit, [ann, bob])
            kit.lose("chat-1")
            silent(kit, 2)
            revived = asyncio.create_task(kit.revive("chat-1"))
            await kit.settle()
            answers = [ann.send_request("chat.room.members", {"room": "tea"}) for _ in range(2)]
            call = asyncio.create_task(kit.server("connector-2").rpc.to("chat-1").call("chat.room.count", "tea"))
            await kit.settle()
            assert not any(answer.done() for answer in answers)
            link = kit.nodes["connector-2"].links.to("chat-1")
            link.send(MIRROR, ("tea", [("bob", 1)]))
            await kit.settle()
            assert not revived.done()
            link.request(MIRRORED, (), 10, lambda code, payload: None)
            assert await asyncio.gather(*answers) == [["ann", "bob"]] * 2
            assert await call == 2
            assert stage.seen == [("chat-1", {"tea": ["ann", "bob"]})]
            assert asyncio.get_running_loop().time() == 0

    run(scenario())
    assert "serves without" not in caplog.text


def test_a_frontend_that_lives_and_does_not_tell_is_waited_for_five_seconds_and_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        stage = Stage()
        async with stage.kit() as kit:
            ann = await entered(kit, 1, "ann")
            await room_of(kit, [ann])
            kit.lose("chat-1")
            silent(kit, 2)
            revived = asyncio.create_task(kit.revive("chat-1"))
            await kit.settle()
            answer = ann.send_request("chat.room.members", {"room": "tea"})
            assert await answer == ["ann"]
            assert asyncio.get_running_loop().time() == LIMIT
            await revived

    with caplog.at_level(logging.WARNING):
        run(scenario())
    assert "chat-1: serves without the channel members at connector-2: not told of them" in caplog.text


def test_a_frontend_that_is_down_is_not_waited_for_and_one_that_tells_late_is_heard() -> None:
    async def scenario() -> None:
        stage = Stage()
        async with stage.kit() as kit:
            ann, bob = await entered(kit, 1, "ann"), await entered(kit, 2, "bob")
            await room_of(kit, [ann, bob])
            kit.lose("chat-1")
            kit.apart.add(frozenset(("connector-2", "chat-1")))
            told = frontend_of(kit, 2).remote.came_up
            silent(kit, 2)
            await kit.revive("chat-1")
            assert asyncio.get_running_loop().time() == GRACE
            assert kit.server("chat-1").channels.get("tea").members() == ["ann"]
            frontend_of(kit, 2).remote.came_up = told
            kit.mend("connector-2", "chat-1")
            await kit.settle()
            assert await heard(kit, "tea", [ann, bob]) == [1, 1]
            assert agreed(kit)

    run(scenario())


@pytest.mark.parametrize("turns", range(12))
def test_a_link_that_breaks_before_the_answer_came_has_all_told_again(turns: int) -> None:
    """How many turns of the loop pass until it breaks tells what was on its way."""

    async def scenario() -> None:
        stage = Stage()
        async with stage.kit() as kit:
            ann, bob = await entered(kit, 1, "ann"), await entered(kit, 2, "bob")
            await room_of(kit, [ann, bob])
            kit.lose("chat-1")
            revived = asyncio.create_task(kit.revive("chat-1"))
            mirror = frontend_of(kit).remote.mirror
            before = mirror.life("chat-1")
            for _ in range(turns):
                await asyncio.sleep(0)
            told = mirror.life("chat-1") > before
            if "chat-1" not in kit.lost:
                kit.cut("connector-1", "chat-1")
                kit.mend("connector-1", "chat-1")
            await revived
            await kit.settle()
            # Once it is known the new life has taken them out as any life does when a link breaks.
            assert await heard(kit, "tea", [ann, bob]) == [not told, 1]
            assert agreed(kit)

    run(scenario())


def test_a_frontend_that_dies_while_a_server_is_rebuilt_has_no_member_there() -> None:
    async def scenario() -> None:
        stage = Stage()
        async with stage.kit() as kit:
            ann, bob = await entered(kit, 1, "ann"), await entered(kit, 2, "bob")
            await room_of(kit, [ann, bob])
            kit.lose("chat-1")
            silent(kit, 1)
            revived = asyncio.create_task(kit.revive("chat-1"))
            await kit.settle()
            answer = ann.send_request("chat.room.members", {"room": "tea"})
            kit.lose("connector-2")
            kit.lose("connector-1")
            await revived
            assert asyncio.get_running_loop().time() == GRACE
            assert kit.server("chat-1").channels.get("tea").members() == []
            assert answer.done()

    run(scenario())


@pytest.mark.parametrize(("first", "refused"), [(1000, 1), (1001, 2)])  # the first is taken, whatever its size
def test_what_waits_is_bounded_and_answered_when_the_server_stops_before_it_serves(first: int, refused: int) -> None:
    async def scenario() -> None:
        stage = Stage()
        async with stage.kit(Settings(link_queue=1000)) as kit:
            kit.lose("chat-1")
            silent(kit, 2)
            revived = asyncio.create_task(kit.revive("chat-1"))
            await kit.settle()
            answers: list[int] = []
            link = kit.nodes["connector-1"].links.to("chat-1")
            for body in (b"x" * first, b"x", b""):
                fields = ("chat.room.members", 7, "ann", b"", body)
                link.request(FORWARD, fields, 30, lambda code, payload: answers.append(code))
            await kit.settle()
            assert answers == [503] * refused
            await kit.nodes["chat-1"].stop(0)
            await kit.settle()
            assert answers == [503, 503, 503]
            revived.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await revived

    run(scenario())


def test_a_session_that_closes_while_its_message_waits_is_told_of_after_it() -> None:
    async def scenario() -> None:
        stage = Stage()
        closed: list[str] = []

        @stage.app.on_close("chat")
        def on_close(session: Session, reason: str, server: Server) -> None:
            closed.append(reason)

        async with stage.kit() as kit:
            ann = await entered(kit, 1, "ann")
            kit.lose("chat-1")
            silent(kit, 2)
            revived = asyncio.create_task(kit.revive("chat-1"))
            await kit.settle()
            ann.send_request("chat.room.members", {"room": "tea"})
            ann.close()
            await revived
            await kit.settle()
            assert closed == ["client closed"]
            # Nothing of it is kept: the frontend's end tells nobody of it again.
            kit.lose("connector-1")
            await kit.settle()
            assert closed == ["client closed"]

    run(scenario())


def agreed(kit: Kit) -> bool:
    """Tell whether the channels' server and each frontend's mirror hold the same members."""
    channels = kit.server("chat-1").channels
    for number in (1, 2):
        frontend_id = f"connector-{number}"
        mirror = frontend_of(kit, number).remote.mirror
        there = {name: set(mirror.members("chat-1", name)) for name in ("tea", "cake")}
        here = {name: _group(channels.get(name), frontend_id) if name in channels else set() for name in there}
        if here != there:
            return False
    return True


def _group(channel: Channel, frontend_id: str) -> set[str]:
    return {uid for uid in channel.members() if frontend_id in channel.frontends(uid)}


@pytest.mark.parametrize("seed", range(150))
def test_both_sides_agree_in_the_end_whatever_broke_died_joined_and_left(seed: int) -> None:
    async def scenario() -> None:
        chance = random.Random(seed)
        stage = Stage()
        async with stage.kit() as kit:
            clients = {uid: await entered(kit, n % 2 + 1, uid) for n, uid in enumerate("abcdef")}
            for _ in range(60):
                await _step(chance, kit, clients)
                for _ in range(chance.choice([0, 0, 1, 2, 5])):
                    await asyncio.sleep(0)
            await _mended(kit)
            assert agreed(kit)
            connected = {uid for uid, client in clients.items() if not client.closed}
            for name in kit.server("chat-1").channels.names():
                members = kit.server("chat-1").channels.get(name).members()
                assert len(set(members)) == len(members)
                assert set(members) <= connected
                times = await heard(kit, name, [client for client in clients.values() if not client.closed])
                assert times == [int(uid in members) for uid in clients if uid in connected]

    run(scenario())


async def _step(chance: random.Random, kit: Kit, clients: dict[str, KitClient]) -> None:
    """Do something at random, without waiting for what comes of it."""
    channels, name = kit.server("chat-1").channels, chance.choice(["tea", "cake"])
    uid = chance.choice("abcdef")
    place = kit.nodes[f"connector-{'abcdef'.index(uid) % 2 + 1}"].id
    match chance.choice(["join"] * 6 + ["leave", "destroy", "close", "return", "break", "mend", "die", "live"]):
        case "join" if "chat-1" not in kit.lost:
            with contextlib.suppress(HandlerError):
                channels.create(name).add(uid, place)
        case "leave" if name in channels:
            channels.get(name).leave(uid)
        case "destroy" if name in channels:
            channels.get(name).destroy()
        case "close":
            clients[uid].close()
        case "return" if clients[uid].closed:
            clients[uid] = await entered(kit, int(place[-1]), uid)
        case "break" if kit.joined(place, "chat-1"):
            kit.cut(place, "chat-1")
        case "mend" if frozenset((place, "chat-1")) in kit.apart and "chat-1" not in kit.lost:
            kit.mend(place, "chat-1")
        case "die" if "chat-1" not in kit.lost:
            kit.lose("chat-1")
        case "live" if "chat-1" in kit.lost:
            await kit.revive("chat-1")


async def _mended(kit: Kit) -> None:
    if "chat-1" in kit.lost:
        await kit.revive("chat-1")
    for number in (1, 2):
        if frozenset((f"connector-{number}", "chat-1")) in kit.apart:
            kit.mend(f"connector-{number}", "chat-1")
    await kit.settle()


@pytest.mark.parametrize("seed", range(40))
def test_no_member_is_lost_or_doubled_by_deaths_however_often_they_come(seed: int) -> None:
    async def scenario() -> None:
        chance = random.Random(seed)
        stage = Stage()
        async with stage.kit() as kit:
            clients = {uid: await entered(kit, n % 2 + 1, uid) for n, uid in enumerate("abcdef")}
            expected: set[str] = set()
            for _ in range(30):
                uid = chance.choice("abcdef")
                match chance.choice(["join", "join", "leave", "close", "return", "die"]):
                    case "join" if not clients[uid].closed:
                        await room_of(kit, [clients[uid]])
                        expected.add(uid)
                    case "leave" if expected:
                        kit.server("chat-1").channels.get("tea").leave(uid)
                        expected.discard(uid)
                    case "close":
                        clients[uid].close()
                        expected.discard(uid)
                    case "return" if clients[uid].closed:
                        clients[uid] = await entered(kit, "abcdef".index(uid) % 2 + 1, uid)
                    case "die":
                        # What a server said last and nobody heard dies with it.
                        await kit.settle()
                        kit.lose("chat-1")
                        if chance.random() < 0.5:
                            clients[gone := chance.choice("abcdef")].close()
                            expected.discard(gone)
                        await kit.revive("chat-1")
                if chance.random() < 0.5:
                    await kit.settle()
            await kit.settle()
            channel = kit.server("chat-1").channels.create("tea")
            assert sorted(channel.members()) == sorted(expected)
            assert await heard(kit, "tea", [clients[uid] for uid in sorted(expected)]) == [1] * len(expected)

    run(scenario())
