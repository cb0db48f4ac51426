"""A drained frontend sends its clients away in batches, each after the answers to what it asked."""

import asyncio
from typing import Any

import pytest
from support_handlers import elapse

from handlers import App, Server, Session
from handlers.frontend import Frontend
from handlers.kit import Kit, KitClient, run
from handlers.members import DRAINING, Member
from handlers.settings import Settings

REASON = "server restarting, please reconnect"


def app() -> App:
    declared = App("drained")

    @declared.handler("chat.test.nap")
    async def nap(msg: dict[str, float]) -> dict[str, float]:
        await elapse(msg["seconds"])
        return msg

    @declared.handler("connector.entry.enter")
    async def enter(msg: dict[str, str], session: Session) -> None:
        await session.bind(msg["uid"])

    @declared.route("lobby")
    def choose(request: Any, servers: tuple[str, ...]) -> str:
        return "lobby-2"

    @declared.handler("lobby.test.where")
    async def where(server: Server) -> dict[str, str]:
        return {"server": server.id}

    return declared


def kit_of(settings: Settings | None = None) -> Kit:
    return Kit(app(), frontends={"connector": 1}, backends={"chat": 1, "lobby": 2}, settings=settings)


def frontend_of(kit: Kit) -> Frontend:
    frontend = kit.nodes["connector-1"].frontend
    assert frontend is not None
    return frontend


async def connected(kit: Kit, number: int) -> list[KitClient]:
    return [await kit.connect("connector-1") for _ in range(number)]


def test_clients_are_sent_away_at_the_rate_and_with_the_reason() -> None:
    async def scenario() -> None:
        async with kit_of() as kit:
            clients = await connected(kit, 50)
            drain = asyncio.create_task(frontend_of(kit).drain(20, REASON))
            await elapse(0.95)
            assert 18 <= sum(client.closed for client in clients) <= 22
            await drain
            assert {client.kicked for client in clients} == {REASON}
            assert 2.4 <= asyncio.get_running_loop().time() < 2.7

    run(scenario())


def test_those_who_come_while_it_drains_are_sent_away_too() -> None:
    async def scenario() -> None:
        async with kit_of() as kit:
            await connected(kit, 10)
            drain = asyncio.create_task(frontend_of(kit).drain(10, REASON))
            await elapse(0.5)
            (late,) = await connected(kit, 1)
            await drain
            assert late.kicked == REASON

    run(scenario())


@pytest.mark.parametrize("interval", [0.0, 0.02])
def test_a_client_gets_the_answers_to_what_it_asked_before_it_is_kicked(interval: float) -> None:
    async def scenario() -> None:
        async with kit_of(Settings(push_interval=interval)) as kit:
            busy, slow, idle = await connected(kit, 3)
            answers = [busy.send_request("chat.test.nap", {"seconds": 0.4}) for _ in range(3)]
            lost = slow.send_request("chat.test.nap", {"seconds": 5})
            await kit.settle()
            drain = asyncio.create_task(frontend_of(kit).drain(1000, REASON))
            await elapse(0.1)
            assert idle.kicked == REASON
            refused = await busy.request("chat.test.nap", {"seconds": 0})
            assert refused == {"code": 503, "message": "the server is restarting"}
            assert not busy.closed
            assert await asyncio.gather(*answers) == [{"seconds": 0.4}] * 3
            assert busy.kicked == REASON
            assert asyncio.get_running_loop().time() < 1.3
            await drain
            # What takes too long does not hold the server up.
            assert slow.kicked == REASON
            with pytest.raises(ConnectionError):
                await lost
            assert asyncio.get_running_loop().time() < 2.5

    run(scenario())


def test_every_request_is_counted_down_however_it_is_answered() -> None:
    async def scenario() -> None:
        async with kit_of() as kit:
            (client,) = await connected(kit, 1)
            assert (await client.request("chat.no.route"))["code"] == 404
            assert (await client.request("moon.no.route"))["code"] == 404
            await client.request("connector.entry.enter", {"uid": "u"})
            assert (await client.request("chat.test.nap", {"seconds": "x"}))["code"] == 400
            kit.lose("chat-1")
            assert (await client.request("chat.test.nap", {"seconds": 0}))["code"] == 503
            client.notify("chat.test.nap", {"seconds": 0})
            await kit.settle()
            assert client.session.unanswered == 0

    run(scenario())


def test_a_server_that_is_drained_gets_no_new_work_but_from_those_who_name_it() -> None:
    async def scenario() -> None:
        async with kit_of() as kit:
            (client,) = await connected(kit, 1)
            members = kit.nodes["connector-1"].members
            changed = [
                Member(
                    id=m.id,
                    type=m.type,
                    frontend=m.frontend,
                    state=DRAINING if m.id in ("lobby-2", "chat-1") else m.state,
                )
                for m in members
            ]
            members.replace(changed)
            assert await client.request("lobby.test.where") == {"server": "lobby-2"}
            assert kit.server("connector-1").members("lobby") == [members.get("lobby-1")]
            answer = await client.request("chat.test.nap", {"seconds": 0})
            assert answer == {"code": 503, "message": "there is no chat server"}

    run(scenario())


def test_a_backend_is_finished_when_nothing_runs_on_it() -> None:
    async def scenario() -> None:
        async with kit_of() as kit:
            (client,) = await connected(kit, 1)
            node = kit.nodes["chat-1"]
            assert await node.finish(1)
            answer = client.send_request("chat.test.nap", {"seconds": 3})
            await kit.settle()
            assert not await node.finish(1)
            assert await node.finish(30)
            await kit.settle()
            assert answer.done()
            assert asyncio.get_running_loop().time() == pytest.approx(3, abs=0.1)

    run(scenario())


def test_kicking_a_uid_tells_how_many_sessions_it_had() -> None:
    async def scenario() -> None:
        async with kit_of() as kit:
            clients = await connected(kit, 2)
            for client in clients:
                await client.request("connector.entry.enter", {"uid": "u"})
            assert frontend_of(kit).sessions.kick_uid("nobody", "x") == 0
            assert frontend_of(kit).sessions.kick_uid("u", "x") == 2

    run(scenario())
