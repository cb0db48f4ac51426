"""Several push schedulers, chosen by a function from a push's route and options."""

import asyncio
from typing import Any

import pytest
from support_handlers import LinkSpy, Stage, elapse, virtual

from handlers import App, AppError
from handlers.kit import Kit, KitClient
from handlers.link import BROADCAST, PUSH, PUSH_TO
from handlers.settings import Settings


def chosen_stage(asked: list[Any]) -> Stage:
    stage = Stage()
    stage.app.scheduler("slow", interval=0.5)
    stage.app.scheduler("now")

    @stage.app.pick_scheduler
    def pick(route: str, options: Any) -> str | None:
        asked.append((route, options))
        if options == "broken":
            raise RuntimeError("a broken choice")
        return options.get("by") if isinstance(options, dict) else None

    return stage


async def heard_at(client: KitClient, route: str) -> float:
    await client.pushed(route)
    return round(asyncio.get_running_loop().time(), 6)


async def room_of(kit: Kit, uid: str) -> Any:
    room = kit.server("chat-1").channels.create("tea")
    assert await room.add_confirmed(uid, "connector-1")
    return room


@virtual
async def test_a_push_goes_by_the_scheduler_that_is_picked_from_its_route_and_options() -> None:
    asked: list[Any] = []
    stage = chosen_stage(asked)
    async with stage.kit(settings=Settings(push_interval=0.1)) as kit:
        ada = await stage.bound(kit, "connector-1", "ada")
        room = await room_of(kit, "ada")
        began = asyncio.get_running_loop().time()
        room.push("onSlow", 1, options={"by": "slow"})
        room.push("onNow", 2, options={"by": "now"})
        room.push("onDefault", 3)
        times = [await heard_at(ada, route) - began for route in ("onNow", "onDefault", "onSlow")]
        assert times == pytest.approx([0, 0.1, 0.5])
        assert asked == [("onSlow", {"by": "slow"}), ("onNow", {"by": "now"}), ("onDefault", None)]
        # As in pomelo the order of two schedulers is nobody's: what was pushed first came last.
        assert [route for route, _ in ada.pushes] == ["onNow", "onDefault", "onSlow"]


@virtual
async def test_options_travel_with_every_kind_of_push_and_broadcast() -> None:
    asked: list[Any] = []
    stage = chosen_stage(asked)
    async with stage.kit() as kit:
        await stage.bound(kit, "connector-1", "ada")
        room = await room_of(kit, "ada")
        channels = kit.server("chat-1").channels
        members = [("ada", "connector-1")]
        await room.push_confirmed("a", 1, options=1)
        channels.push_to(members, "b", 1, options=[2])
        await channels.push_to_confirmed(members, "c", 1, options={"n": 3})
        channels.broadcast("connector", "d", 1, options="4")
        await channels.broadcast_confirmed("connector", "e", 1, everyone=True, options=5)
        assert asked == [("a", 1), ("b", [2]), ("c", {"n": 3}), ("d", "4"), ("e", 5)]


@virtual
async def test_one_scheduler_keeps_the_order_for_each_client() -> None:
    stage = chosen_stage([])
    async with stage.kit() as kit:
        ada = await stage.bound(kit, "connector-1", "ada")
        room = await room_of(kit, "ada")
        for number in range(20):
            room.push("onSlow", number, options={"by": "slow"})
        await elapse(1)
        assert [body for _, body in ada.pushes] == list(range(20))


@pytest.mark.parametrize(("options", "said"), [({"by": "moon"}, "no push scheduler 'moon'"), ("broken", "a broken")])
@virtual
async def test_a_choice_that_is_none_is_logged_and_the_push_goes_by_default(
    options: Any, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    stage = chosen_stage([])
    async with stage.kit() as kit:
        ada = await stage.bound(kit, "connector-1", "ada")
        (await room_of(kit, "ada")).push("onNews", 1, options=options)
        assert await ada.pushed("onNews") == 1
    assert said in caplog.text


@virtual
async def test_what_is_kept_for_a_client_that_is_gone_is_dropped_and_the_rest_handed_over_at_the_stop() -> None:
    stage = chosen_stage([])
    async with stage.kit() as kit:
        gone, stays = [await stage.bound(kit, "connector-1", uid) for uid in ("gone", "stays")]
        kit.server("chat-1").channels.broadcast("connector", "onNews", 1, options={"by": "slow"})
        await kit.settle()
        gone.close()
        frontend = kit.nodes["connector-1"].frontend
        assert frontend is not None
        frontend.close()
        assert (gone.pushes, stays.pushes) == ([], [("onNews", 1)])


@virtual
async def test_options_that_cannot_travel_are_a_type_error_and_none_cost_nothing() -> None:
    stage = Stage()
    async with stage.kit() as kit:
        await stage.bound(kit, "connector-1", "ada")
        room = await room_of(kit, "ada")
        channels, spy = kit.server("chat-1").channels, LinkSpy(kit, "chat-1")
        with pytest.raises(TypeError, match="cannot"):
            room.push("onNews", 1, options=object())
        room.push("onNews", 1)
        channels.push_to([("ada", "connector-1")], "onNews", 1)
        channels.broadcast("connector", "onNews", 1)
        assert [len(spy.of(kind)[0][1]) for kind in (PUSH, PUSH_TO, BROADCAST)] == [3, 3, 3]


def test_schedulers_are_declared_once_and_default_is_always_there() -> None:
    app = App("test")
    app.scheduler("slow", interval=1)
    app.pick_scheduler(lambda route, options: "slow")
    for name, interval in (("slow", 1.0), ("default", 1.0), ("other", -1.0)):
        with pytest.raises(AppError, match="is declared twice, or its interval is negative"):
            app.scheduler(name, interval=interval)
    with pytest.raises(AppError, match="the function that picks a push scheduler is declared twice"):
        app.pick_scheduler(lambda route, options: "slow")


@virtual
async def test_a_client_that_is_kicked_gets_what_was_pushed_to_it_before() -> None:
    stage = chosen_stage([])
    async with stage.kit(settings=Settings(push_interval=10)) as kit:
        ada = await stage.bound(kit, "connector-1", "ada")
        room = await room_of(kit, "ada")
        room.push("onSlow", 1, options={"by": "slow"})
        room.push("onDefault", 2)
        await kit.server("chat-1").sessions.kick_by_uid("connector-1", "ada", "enough")
        assert ada.kicked == "enough"
        assert sorted(ada.pushes) == [("onDefault", 2), ("onSlow", 1)]


@virtual
async def test_a_login_that_ends_an_earlier_one_leaves_it_what_was_pushed_to_it_before() -> None:
    stage = Stage()
    async with stage.kit(settings=Settings(push_interval=10, single_session=True)) as kit:
        first = await stage.bound(kit, "connector-1", "ada")
        room = await room_of(kit, "ada")
        room.push("onWord", 1)
        await stage.bound(kit, "connector-1", "ada")
        assert first.kicked == "logged in elsewhere"
        assert first.pushes == [("onWord", 1)]
