"""What reaching the cluster costs, counted in entries: each rides in a batch of its link, none is a call of its own.

And what is told until it is answered, on the same small game.
"""

import asyncio
import gc
from typing import Any

import pytest
from support_handlers import LinkSpy, elapse, virtual

from handlers import App, Unavailable
from handlers.kit import Kit, KitClient
from handlers.link import FIND, GLOBAL_LEAVE, GLOBAL_PUSH, PUSH_TO, TELL
from handlers.owed import OWED
from handlers.settings import Settings
from handlers.store import JOINED, OFFLINE, ONLINE, PARTED, DirectorySettings


def kit(*, single: bool = False, shards: int = 1) -> Kit:
    return Kit(
        App("cost"),
        frontends={"c": 3},
        backends={"b": 2},
        settings=Settings(single_session=single),
        directory=DirectorySettings(shards=shards, single_sessions=single),
    )


async def login(game: Kit, uid: str, connector: str) -> KitClient:
    client = await game.connect(connector)
    frontend = game.nodes[connector].frontend
    assert frontend is not None
    frontend.sessions.bind(client.session.id, uid)
    await game.settle()
    return client


@virtual
async def test_a_login_a_join_and_a_leave_are_one_entry_each() -> None:
    async with kit() as game:
        spy = LinkSpy(game, "c-1")
        first, second = await login(game, "u", "c-1"), await login(game, "u", "c-1")
        assert [fields[:2] for _, fields in spy.of(TELL)] == [(ONLINE, "u")]
        game.server("b-1").global_channels.get("room").add("u", "c-1")
        game.server("b-1").global_channels.get("room").add("u", "c-1")
        await game.settle()
        assert [fields[:3] for _, fields in spy.of(TELL)[1:]] == [(JOINED, "room", "u")]
        first.close()
        second.close()
        await game.settle()
        assert [fields for _, fields in spy.of(TELL)[2:]] == [(PARTED, "room", "u"), (OFFLINE, "u")]
        assert {peer for peer, _ in spy.of(TELL)} == {"directory-1"}


@virtual
async def test_a_frontend_asks_nobody_whether_its_own_user_is_online() -> None:
    async with kit() as game:
        await login(game, "u", "c-1")
        spy = LinkSpy(game, "c-1")
        assert await game.server("c-1").is_online(["u"]) == {"u": True}
        assert spy.entries == []


@virtual
async def test_where_all_sessions_are_single_a_frontend_finds_and_reaches_its_own_users_by_itself() -> None:
    async with kit(single=True) as game:
        client = await login(game, "u", "c-1")
        spy = LinkSpy(game, "c-1")
        server = game.server("c-1")
        assert await server.where("u") == ["c-1"]
        assert await server.push_to_users(["u"], "on", 1) == []
        assert await server.kick("u", "enough") == 1
        assert {peer for peer, _, _ in spy.entries if peer != "c-1"} <= {"directory-1"}
        assert spy.of(FIND) == []
        assert client.pushes == [("on", 1)]


@virtual
async def test_a_directory_server_that_is_no_more_in_the_table_is_unavailable_and_no_missing_route() -> None:
    async with kit() as game:
        store = game.nodes["b-1"].reach.store
        del game.nodes["directory-1"]
        with pytest.raises(Unavailable, match="directory-1 is away"):
            await store.where(["u"])
        with pytest.raises(Unavailable):
            await game.server("b-1").global_channels.get("room").count()


@virtual
async def test_a_push_to_many_users_is_a_question_a_shard_and_an_entry_a_frontend() -> None:
    async with kit(shards=2) as game:
        for number in range(30):
            await login(game, f"u{number}", f"c-{1 + number % 2}")
        spy = LinkSpy(game, "b-1")
        assert await game.server("b-1").push_to_users([f"u{n}" for n in range(30)], "on", 1) == []
        assert sorted(peer for peer, _ in spy.of(FIND)) == ["directory-1", "directory-2"]
        assert sorted(peer for peer, _ in spy.of(PUSH_TO)) == ["c-1", "c-2"]


@virtual
async def test_a_global_push_is_an_entry_a_frontend_and_asks_no_store() -> None:
    async with kit() as game:
        for number in range(30):
            await login(game, f"u{number}", f"c-{1 + number % 2}")
            game.server("b-1").global_channels.get("room").add(f"u{number}", f"c-{1 + number % 2}")
        spy = LinkSpy(game, "b-1")
        game.server("b-1").global_channels.get("room").push("on", {"a": 1})
        assert [(peer, kind) for peer, kind, _ in spy.entries] == [(f"c-{n}", GLOBAL_PUSH) for n in (1, 2, 3)]
        bodies = {id(fields[2]) for _, fields in spy.of(GLOBAL_PUSH)}
        assert len(bodies) == 1


@virtual
async def test_a_push_to_the_members_here_is_one_frame_for_all_of_them() -> None:
    async with kit() as game:
        clients = [await login(game, f"u{number}", "c-1") for number in range(5)]
        for number in range(5):
            game.server("b-1").global_channels.get("room").add(f"u{number}", "c-1")
        frontend = game.nodes["c-1"].frontend
        assert frontend is not None
        frames: list[str] = []
        encode = frontend.pushes._edge.encode_push
        frontend.pushes._edge.encode_push = lambda route, body: frames.append(route) or encode(route, body)  # type: ignore[method-assign, func-returns-value]
        assert await game.server("b-1").global_channels.get("room").push_confirmed("on", 1) == []
        assert frames == ["on"]
        assert all(client.pushes == [("on", 1)] for client in clients)


@virtual
async def test_a_frontend_that_takes_no_request_is_told_of_a_leave_now_and_again_until_it_answers() -> None:
    async with kit() as game:
        client = await login(game, "u", "c-1")
        room = game.server("b-1").global_channels.get("room")
        await room.add_confirmed("u", "c-1")
        link: Any = game.nodes["b-1"].links.to("c-1")
        request, link.request = link.request, unresponsive
        spy = LinkSpy(game, "b-1")
        room.leave("u", "c-1")
        await game.settle()
        # It is queued all the same, so that it keeps its place before pushes.
        assert await game.server("b-2").global_channels.get("room").push_confirmed("on", 1) == []
        assert client.pushes == []
        await elapse(5)
        attempts = len(spy.of(GLOBAL_LEAVE))
        assert 5 <= attempts <= 8
        link.request = request
        await elapse(5)
        assert not game.nodes["b-1"].reach._owed._debts
        assert len(spy.of(GLOBAL_LEAVE)) == attempts


def unresponsive(*_: Any) -> None:
    raise Unavailable("c-1 is unavailable")


@virtual
async def test_of_too_many_leaves_that_a_frontend_has_not_answered_the_oldest_are_given_up_with_one_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with kit() as game:
        for uid in ("old", "new"):
            await login(game, uid, "c-1")
            assert await game.server("b-1").global_channels.get("room").add_confirmed(uid, "c-1")
        game.cut("b-1", "c-1")
        room = game.server("b-1").global_channels.get("room")
        room.leave("old", "c-1")
        for number in range(OWED + 5):
            room.leave(f"nobody-{number}", "c-1")
        room.leave("new", "c-1")
        game.mend("b-1", "c-1")
        await game.settle()
        residents = game.nodes["c-1"].reach.residents
        assert residents is not None
        assert list(residents._members["room"]) == ["old"]
        assert [record.message for record in caplog.records].count(
            f"b-1: c-1 has not answered {OWED} leaves: the oldest are not told again"
        ) == 1


@virtual
async def test_a_leave_that_waits_for_one_frontend_does_not_undo_a_later_add_at_another() -> None:
    async with kit() as game:
        await login(game, "u", "c-1")
        room = game.server("b-1").global_channels.get("room")
        await room.add_confirmed("u", "c-1")
        game.cut("b-1", "c-1")
        hanging: Any = game.nodes["b-1"].links.to("c-2")
        hanging._arrive = lambda packed: None
        leaving = asyncio.create_task(room.leave_confirmed("u"))
        await game.settle()
        game.mend("b-1", "c-1")
        await game.settle()
        residents = game.nodes["c-1"].reach.residents
        assert residents is not None
        assert "room" not in residents._members
        assert await room.add_confirmed("u", "c-1")
        assert not await leaving
        await game.settle()
        assert list(residents._members["room"]) == ["u"]


@virtual
async def test_a_leave_at_a_frontend_that_does_not_exist_is_no_error_and_owed_to_nobody() -> None:
    async with kit() as game:
        failed: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: failed.append(context))
        room = game.server("b-1").global_channels.get("room")
        for place in ("c-9", "b-2"):
            room.leave("u", place)
            assert not await room.leave_confirmed("u", place)
        await game.settle()
        gc.collect()
        assert failed == []
        assert not game.nodes["b-1"].reach._owed._debts


@virtual
async def test_a_leave_whose_caller_gave_up_waiting_is_told_all_the_same() -> None:
    async with kit() as game:
        await login(game, "u", "c-1")
        room = game.server("b-1").global_channels.get("room")
        await room.add_confirmed("u", "c-1")
        hanging: Any = game.nodes["b-1"].links.to("c-1")
        hanging._arrive = lambda packed: None
        leaving = asyncio.create_task(room.leave_confirmed("u"))
        await game.settle()
        leaving.cancel()
        game.cut("b-1", "c-1")
        game.mend("b-1", "c-1")
        await elapse(2)
        residents = game.nodes["c-1"].reach.residents
        assert residents is not None
        assert "room" not in residents._members
        assert not game.nodes["b-1"].reach._owed._debts
