"""What docs/from-pomelo.md says beside pomelo's API, and no other test holds."""

from datetime import UTC, datetime
from typing import Any

import pytest
from support_handlers import Stage, elapse, virtual

from handlers import App, ChannelNotFound, Request, Server, Session
from handlers.cron import CronJob
from handlers.kit import Kit


def test_a_step_in_a_cron_expression_counts_from_its_beginning_and_not_modulo() -> None:
    job = CronJob("3/20 * * * *", print, None, None, "UTC")
    moment, minutes = datetime(2024, 1, 1, tzinfo=UTC), []
    for _ in range(4):
        moment = job.next_after(moment)
        minutes.append(moment.minute)
    assert minutes == [3, 23, 43, 3]


@virtual
async def test_a_body_that_is_an_array_stays_a_list_and_nothing_is_put_into_a_body() -> None:
    stage = Stage()
    async with stage.kit() as kit:
        client = await kit.connect("connector-1")
        for server_type in ("connector", "chat"):
            assert await client.request(f"{server_type}.stage.echo", [1, [2], {}]) == [1, [2], {}]
            assert await client.request(f"{server_type}.stage.echo", {"a": 1}) == {"a": 1}


@virtual
async def test_session_service_js_import_is_a_push_on_a_session_that_was_looked_up() -> None:
    stage = Stage()
    async with stage.kit() as kit:
        client = await kit.connect("connector-1")
        found = await kit.server("chat-1").sessions.get("connector-1", client.session.id)
        assert found is not None
        await found.bind(7)
        found["a"], found["b"] = 1, [2]
        await found.push("a")
        assert await stage.within(client, "chat", lambda session, server: (session.uid, dict(session))) == (
            "7",
            {"a": 1},
        )
        await found.push_all()
        del found["a"]
        await found.push("a")
        assert await stage.within(client, "connector", lambda session, server: dict(session)) == {"b": [2]}
        await found.unbind()
        assert client.session.uid is None


@virtual
async def test_channel_service_js_a_channel_is_destroyed_by_its_name() -> None:
    stage = Stage()
    async with stage.kit() as kit:
        channels = kit.server("chat-1").channels
        room = channels.create("tea")
        channels.destroy("tea")
        assert "tea" not in channels
        with pytest.raises(ChannelNotFound):
            room.push("onNews", {})


@virtual
async def test_channel_service_js_pushing_to_no_users_is_no_error() -> None:
    stage = Stage()
    async with stage.kit() as kit:
        channels = kit.server("chat-1").channels
        channels.push_to([], "onNews", {})
        assert await channels.push_to_confirmed([], "onNews", {}) == []


@virtual
async def test_an_error_handler_may_be_of_one_server_type() -> None:
    stage = Stage()
    stage.app.on_error("chat")(lambda error, request, server: {"code": 500, "sorry": server.id})
    async with stage.kit() as kit:
        client = await kit.connect("connector-1")
        assert await client.request("chat.stage.crash") == {"code": 500, "sorry": "chat-1"}
        assert await client.request("connector.stage.crash") == {"code": 500, "message": "internal error"}


@virtual
async def test_a_repeated_task_can_be_cancelled_as_a_cron_can_be_removed() -> None:
    calls: list[Any] = []
    async with Kit(App("crons"), frontends={"connector": 1}) as kit:
        server = kit.server("connector-1")
        task = server.every(60, lambda: calls.append(task.cancel()))
        await elapse(600)
    assert calls == [True]


@virtual
async def test_session_service_js_for_each_session_a_broadcast_filter_is_asked() -> None:
    stage = Stage()
    seen: list[tuple[str, str | None]] = []

    @stage.app.broadcast_filter("look")
    def look(session: Session, route: str, param: Any) -> bool:
        seen.append((session.frontend_id, session.uid))
        return False

    async with stage.kit(connectors=2) as kit:
        await stage.bound(kit, "connector-1", "ada")
        await kit.connect("connector-2")
        kit.server("chat-1").channels.broadcast("connector", "onNews", {}, everyone=True, filter="look")
        await kit.settle()
    assert sorted(seen, key=str) == [("connector-1", "ada"), ("connector-2", None)]


@virtual
async def test_the_server_of_a_room_is_picked_by_a_value_of_the_session() -> None:
    app = App("rooms")

    @app.route("default")
    def by_room(request: Request, servers: tuple[str, ...]) -> str:
        return servers[int(request.session.get("room", 0))]

    @app.handler("connector.entry.enter")
    async def enter(msg: int, session: Session) -> None:
        session["room"] = msg
        await session.push("room")

    @app.handler("chat.room.where")
    async def where(server: Server) -> str:
        return server.id

    async with Kit(app, frontends={"connector": 1}, backends={"chat": 3}) as kit:
        client = await kit.connect("connector-1")
        for number in (2, 0, 1):
            await client.request("connector.entry.enter", number)
            assert await client.request("chat.room.where") == f"chat-{number + 1}"
