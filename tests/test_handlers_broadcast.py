"""Broadcasts that choose, and that are confirmed (channelService.js: broadcast; channelConfig.broadcastFilter)."""

from typing import Any

import pytest
from support_handlers import LinkSpy, Stage, virtual

from handlers import App, AppError, Server, Session, Unavailable
from handlers.link import BROADCAST


def stage_with_filters() -> Stage:
    stage = Stage()

    @stage.app.broadcast_filter("team")
    def team(session: Session, route: str, param: Any) -> bool:
        return bool(session.get("team") == param)

    @stage.app.broadcast_filter("picky")
    def picky(session: Session, route: str, param: Any) -> bool:
        if session.uid == "bob":
            raise RuntimeError("a broken filter")
        return route == "onNews" and param == {"min": 2}

    return stage


async def in_team(stage: Stage, kit: Any, frontend_id: str, uid: str, team: str) -> Any:
    client = await stage.bound(kit, frontend_id, uid)

    async def join(session: Session, server: Server) -> None:
        session["team"] = team
        await session.push("team")

    await stage.within(client, "connector", join)
    return client


@pytest.mark.parametrize("server_id", ["chat-1", "connector-1"])
@virtual
async def test_a_broadcast_filter_is_asked_on_each_frontend_about_each_session(server_id: str) -> None:
    stage = stage_with_filters()
    async with stage.kit(connectors=2) as kit:
        red = [await in_team(stage, kit, f"connector-{n}", f"r{n}", "red") for n in (1, 2)]
        blue = await in_team(stage, kit, "connector-1", "b1", "blue")
        unbound = await kit.connect("connector-2")
        channels = kit.server(server_id).channels
        channels.broadcast("connector", "onNews", {"n": 1}, filter="team", param="red")
        channels.broadcast("connector", "onNews", {"n": 2}, filter="team", param=None, everyone=True)
        await kit.settle()
        assert [client.pushes for client in (*red, blue)] == [[("onNews", {"n": 1})]] * 2 + [[]]
        assert unbound.pushes == [("onNews", {"n": 2})]


@virtual
async def test_a_filter_that_raises_is_logged_and_leaves_that_session_out(caplog: pytest.LogCaptureFixture) -> None:
    stage = stage_with_filters()
    async with stage.kit() as kit:
        ada, bob = [await stage.bound(kit, "connector-1", uid) for uid in ("ada", "bob")]
        kit.server("chat-1").channels.broadcast("connector", "onNews", 1, filter="picky", param={"min": 2})
        await kit.settle()
        assert (ada.pushes, bob.pushes) == ([("onNews", 1)], [])
    assert "RuntimeError: a broken filter" in caplog.text


@virtual
async def test_a_filter_that_was_not_declared_or_a_parameter_that_cannot_travel_is_told_at_the_call() -> None:
    stage = stage_with_filters()
    async with stage.kit() as kit:
        channels = kit.server("chat-1").channels
        with pytest.raises(ValueError, match="the app declares no broadcast filter 'nobody'"):
            channels.broadcast("connector", "onNews", 1, filter="nobody")
        with pytest.raises(TypeError, match="cannot"):
            channels.broadcast("connector", "onNews", 1, filter="team", param=object())


def test_a_broadcast_filter_is_declared_once_and_plain() -> None:
    app = App("test")
    app.broadcast_filter("a")(lambda session, route, param: True)
    with pytest.raises(AppError, match="'a' is declared twice, or async"):
        app.broadcast_filter("a")(lambda session, route, param: True)

    async def later(session: Session, route: str, param: Any) -> bool:
        return True

    with pytest.raises(AppError, match="'b' is declared twice, or async"):
        app.broadcast_filter("b")(later)


@virtual
async def test_a_plain_broadcast_carries_no_more_than_before() -> None:
    stage = stage_with_filters()
    async with stage.kit() as kit:
        spy = LinkSpy(kit, "chat-1")
        kit.server("chat-1").channels.broadcast("connector", "onNews", 1)
        assert spy.of(BROADCAST) == [("connector-1", ("onNews", b"1", False))]


@virtual
async def test_channel_service_js_a_confirmed_broadcast_names_frontends_that_failed_and_raises_when_all_did() -> None:
    stage = stage_with_filters()
    async with stage.kit(connectors=2) as kit:
        ada, bob = await stage.bound(kit, "connector-1", "ada"), await stage.bound(kit, "connector-2", "bob")
        channels = kit.server("chat-1").channels
        assert await channels.broadcast_confirmed("connector", "onNews", 1) == []
        assert ada.pushes == bob.pushes == [("onNews", 1)]
        kit.lose("connector-2")
        assert await channels.broadcast_confirmed("connector", "onNews", 2) == ["connector-2"]
        assert ada.pushes[1:] == [("onNews", 2)]
        kit.lose("connector-1")
        with pytest.raises(Unavailable, match="the broadcast of onNews failed on every connector server"):
            await channels.broadcast_confirmed("connector", "onNews", 3)


@virtual
async def test_channel_service_js_a_confirmed_broadcast_to_no_frontends_is_success() -> None:
    async with Stage().kit() as kit:
        assert await kit.server("chat-1").channels.broadcast_confirmed("gate", "onNews", 1) == []


@virtual
async def test_a_confirmed_broadcast_takes_filters_too() -> None:
    stage = stage_with_filters()
    async with stage.kit() as kit:
        red = await in_team(stage, kit, "connector-1", "r", "red")
        blue = await in_team(stage, kit, "connector-1", "b", "blue")
        channels = kit.server("chat-1").channels
        assert await channels.broadcast_confirmed("connector", "onNews", 1, filter="team", param="blue") == []
        assert (red.pushes, blue.pushes) == ([], [("onNews", 1)])
