"""What is pushed, to whom, in which order, and at what cost (pomelo's channelRemote, and channelService:
pushMessageByUids grouping, partial failures, broadcast)."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from support_handlers import LinkSpy, Stage, elapse, virtual

from handlers import Channel, NotFound, Server, Session
from handlers.body import encode_body
from handlers.kit import Kit, KitClient
from handlers.link import BROADCAST, PUSH, PUSH_TO
from handlers.settings import Settings


async def room_with(stage: Stage, kit: Kit, *members: tuple[str, str]) -> tuple[Channel, list[KitClient]]:
    """Return a room of chat-1 with bound members, each a uid and a frontend's id, and their clients."""
    clients = [await stage.bound(kit, frontend_id, uid) for uid, frontend_id in members]
    room = kit.server("chat-1").channels.create("tea")
    for uid, frontend_id in members:
        assert await room.add_confirmed(uid, frontend_id)
    return room, clients


@virtual
async def test_a_push_costs_one_entry_a_frontend_and_names_no_member() -> None:
    stage = Stage()
    async with stage.kit(connectors=3) as kit:
        members = [(f"u{n}", f"connector-{1 + n % 2}") for n in range(40)]
        room, clients = await room_with(stage, kit, *members)
        spy = LinkSpy(kit, "chat-1")
        room.push("onNews", {"n": 1})
        await kit.settle()
        assert sorted(spy.of(PUSH)) == [(f"connector-{number}", ("tea", "onNews", b'{"n":1}')) for number in (1, 2)]
        assert [client.pushes for client in clients] == [[("onNews", {"n": 1})]] * 40


@virtual
async def test_a_push_is_encoded_once_and_framed_once_a_frontend(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage()
    async with stage.kit(connectors=2) as kit:
        members = [(f"u{n}", f"connector-{1 + n % 2}") for n in range(20)]
        room, _ = await room_with(stage, kit, *members)
        encoded: list[Any] = []
        framed: list[str] = []

        def encode(value: Any) -> bytes:
            encoded.append(value)
            return encode_body(value)

        def frame(route: str, body: bytes) -> tuple[str, bytes]:
            framed.append(route)
            return route, body

        monkeypatch.setattr("handlers.channels.encode_body", encode)
        for number in (1, 2):
            frontend: Any = kit.nodes[f"connector-{number}"].frontend
            monkeypatch.setattr(frontend.pushes._edge, "encode_push", frame)
        room.push("onNews", {})
        await room.push_confirmed("onNews", {})
        kit.server("chat-1").channels.push_to(members, "onNews", {})
        kit.server("chat-1").channels.broadcast("connector", "onNews", {})
        await kit.settle()
        assert len(encoded) == 4
        assert len(framed) == 8


@pytest.mark.parametrize("interval", [0.0, 0.02])
@virtual
async def test_pushes_arrive_in_the_order_in_which_they_were_made_and_before_the_answer(interval: float) -> None:
    stage = Stage()
    async with stage.kit(settings=Settings(push_interval=interval)) as kit:
        room, (alice,) = await room_with(stage, kit, ("alice", "connector-1"))
        order: list[Any] = []
        alice.send = lambda frame: order.append(frame[1])  # type: ignore[method-assign]
        alice.respond = lambda request_id, body: order.append("answer")  # type: ignore[method-assign]

        async def talk(session: Session, server: Server) -> None:
            room.push("onNews", 1)
            server.channels.push_to([("alice", "connector-1")], "onNews", 2)
            server.channels.broadcast("connector", "onNews", 3)
            await room.push_confirmed("onNews", 4)
            room.push("onNews", 5)

        stage.send(alice, "chat", talk)
        room.push("onNews", 0)
        await elapse(1)
        assert order == [b"0", b"1", b"2", b"3", b"4", b"5", "answer"]


@virtual
async def test_a_push_right_after_the_add_reaches_the_new_member() -> None:
    stage = Stage()
    async with stage.kit() as kit:
        alice = await stage.bound(kit, "connector-1", "alice")
        room = kit.server("chat-1").channels.create("tea")
        room.push("onNews", "before")
        room.add("alice", "connector-1")
        room.push("onNews", "after")
        room.leave("alice")
        room.push("onNews", "too late")
        await kit.settle()
        assert alice.pushes == [("onNews", "after")]


@virtual
async def test_a_message_that_cannot_be_encoded_raises_and_reaches_nobody() -> None:
    stage = Stage()
    async with stage.kit() as kit:
        room, (alice,) = await room_with(stage, kit, ("alice", "connector-1"))
        service = kit.server("chat-1").channels
        refusals: list[Callable[[], None]] = [
            lambda: room.push("onNews", object()),
            lambda: room.push("onNews", "\ud800"),
            lambda: service.push_to([("alice", "connector-1")], "onNews", object()),
            lambda: service.broadcast("connector", "onNews", object()),
        ]
        for refused in refusals:
            with pytest.raises(TypeError):
                refused()
        with pytest.raises(TypeError):
            await room.push_confirmed("onNews", object())
        room.push("onNews", None)
        assert await alice.pushed("onNews") == {}
        assert len(alice.pushes) == 1


@virtual
async def test_a_confirmed_push_reports_whom_it_did_not_reach() -> None:
    stage = Stage()
    async with stage.kit(connectors=3) as kit:
        members = [("a", "connector-1"), ("b", "connector-1"), ("c", "connector-2"), ("d", "connector-3")]
        room, clients = await room_with(stage, kit, *members)
        assert await room.push_confirmed("onNews", {}) == []
        clients[1].close()  # and this server has not heard of it
        assert await room.push_confirmed("onNews", {}) == ["b"]
        kit.lost.add("connector-2")
        assert await room.push_confirmed("onNews", {}) == ["c"]
        kit.lose("connector-2")
        assert await room.push_confirmed("onNews", {}) == []
        assert [len(client.pushes) for client in clients] == [4, 1, 2, 4]


@virtual
async def test_a_frontend_lost_while_a_push_is_under_way_is_reported_with_all_its_members() -> None:

    stage = Stage()
    async with stage.kit(connectors=2) as kit:
        room, _ = await room_with(stage, kit, ("a", "connector-1"), ("b", "connector-2"), ("c", "connector-2"))
        to = [("a", "connector-1"), ("b", "connector-2"), ("c", "connector-2")]
        pushes = [
            asyncio.ensure_future(room.push_confirmed("onNews", {})),
            asyncio.ensure_future(kit.server("chat-1").channels.push_to_confirmed(to, "onNews", {})),
        ]
        await asyncio.sleep(0)
        kit.lose("connector-2")
        for push in pushes:
            assert sorted(await push) == ["b", "c"]


@virtual
async def test_users_are_pushed_to_grouped_by_frontend_and_each_once() -> None:
    stage = Stage()
    async with stage.kit(connectors=3) as kit:
        clients = [await stage.bound(kit, f"connector-{1 + n % 2}", str(n)) for n in range(4)]
        spy = LinkSpy(kit, "chat-1")
        members = [(n, f"connector-{1 + n % 2}") for n in range(4)]
        kit.server("chat-1").channels.push_to([*members, ("0", "connector-1")], "onNews", {"n": 1})
        await kit.settle()
        assert [(peer, fields[0]) for peer, fields in spy.of(PUSH_TO)] == [
            ("connector-1", ["0", "2"]),
            ("connector-2", ["1", "3"]),
        ]
        assert [client.pushes for client in clients] == [[("onNews", {"n": 1})]] * 4


@virtual
async def test_a_confirmed_push_to_users_reports_those_without_a_session_and_those_at_a_lost_frontend() -> None:
    stage = Stage()
    async with stage.kit(connectors=2) as kit:
        alice = await stage.bound(kit, "connector-1", "alice")
        await stage.bound(kit, "connector-2", "bob")
        kit.lose("connector-2")
        service = kit.server("chat-1").channels
        members = [("alice", "connector-1"), ("nobody", "connector-1"), ("bob", "connector-2"), ("x", "connector-9")]
        assert await service.push_to_confirmed(members, "onNews", {}) == ["nobody", "bob", "x"]
        assert await service.push_to_confirmed([], "onNews", {}) == []
        assert len(alice.pushes) == 1


@virtual
async def test_where_one_frontend_cannot_take_a_push_the_others_still_get_it() -> None:
    stage = Stage()
    async with stage.kit(connectors=2) as kit:
        alice = await stage.bound(kit, "connector-1", "alice")
        with pytest.raises(NotFound, match="connector-9"):
            kit.server("chat-1").channels.push_to([("x", "connector-9"), ("alice", "connector-1")], "onNews", {})
        assert await alice.pushed("onNews") == {}


@pytest.mark.parametrize("server_id", ["chat-1", "connector-1"])
@virtual
async def test_a_broadcast_goes_to_every_bound_session_once_or_to_everyone(server_id: str) -> None:
    stage = Stage()
    async with stage.kit(connectors=2) as kit:
        bound = [await stage.bound(kit, f"connector-{number}", "alice") for number in (1, 1, 2)]
        strangers = [await kit.connect(f"connector-{number}") for number in (1, 2)]
        spy = LinkSpy(kit, server_id)
        service = kit.server(server_id).channels
        service.broadcast("connector", "onNews", {"n": 1})
        await kit.settle()
        assert [client.pushes for client in bound] == [[("onNews", {"n": 1})]] * 3
        assert [client.pushes for client in strangers] == [[]] * 2
        service.broadcast("connector", "onNews", {"n": 2}, everyone=True)
        await kit.settle()
        assert [client.pushes[-1] for client in (*bound, *strangers)] == [("onNews", {"n": 2})] * 5
        assert [peer for peer, _ in spy.of(BROADCAST)] == ["connector-1", "connector-2"] * 2


@pytest.mark.parametrize("server_id", ["chat-1", "connector-1"])
@virtual
async def test_whatever_is_true_for_everyone_reaches_everyone(server_id: str) -> None:
    async with Stage().kit() as kit:
        stranger = await kit.connect("connector-1")
        said: Any = 1
        kit.server(server_id).channels.broadcast("connector", "onNews", {}, everyone=said)
        assert await stranger.pushed("onNews") == {}


@virtual
async def test_a_broadcast_to_a_type_without_servers_is_no_error() -> None:
    async with Stage().kit() as kit:
        kit.server("chat-1").channels.broadcast("gate", "onNews", {})


@virtual
async def test_a_client_that_is_closed_by_what_it_is_sent_harms_no_other() -> None:
    stage = Stage()
    async with stage.kit() as kit:
        room, clients = await room_with(stage, kit, *[(f"u{n}", "connector-1") for n in range(3)])
        clients[0].send = lambda frame: clients[0].close("does not read")  # type: ignore[method-assign]
        clients[1].send = lambda frame: clients[2].close("strange")  # type: ignore[method-assign]
        room.push("onNews", {})
        kit.server("chat-1").channels.broadcast("connector", "onNews", {})
        await kit.settle()
        assert room.members() == ["u1"]
