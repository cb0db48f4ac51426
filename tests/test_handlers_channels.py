"""Channels and their members (pomelo's channel and channelService tests: create, get, destroy, add, leave, members)."""

from collections.abc import Callable
from typing import Any

import pytest
from support_handlers import LinkSpy, Stage, virtual

from handlers import Channel, ChannelNotFound, NotFound, Unavailable
from handlers.frontend import Frontend
from handlers.kit import Kit, KitClient
from handlers.link import JOIN, LEAVE, LEFT


def room_of(kit: Kit, name: str = "tea") -> Channel:
    return kit.server("chat-1").channels.create(name)


def frontend_of(kit: Kit, frontend_id: str = "connector-1") -> Frontend:
    frontend = kit.nodes[frontend_id].frontend
    assert frontend is not None
    return frontend


async def heard(kit: Kit, *clients: KitClient) -> list[int]:
    """Push to the room and return how often each client heard it."""
    before = [len(client.pushes) for client in clients]
    room_of(kit).push("onNews", {})
    await kit.settle()
    return [len(client.pushes) - count for client, count in zip(clients, before, strict=True)]


@virtual
async def test_a_channel_is_made_once_and_found_by_its_name() -> None:
    async with Stage().kit(chats=2) as kit:
        channels = kit.server("chat-1").channels
        room = channels.create("tea")
        assert channels.create("tea") is room
        assert channels.get("tea") is room
        assert "tea" in channels
        assert len(channels) == 1
        assert channels.names() == ["tea"]
        assert repr(room) == "<Channel 'tea' of chat-1>"
        assert "tea" not in kit.server("chat-2").channels
        with pytest.raises(ValueError, match="not empty"):
            channels.create("")


@virtual
async def test_a_channel_of_another_server_is_not_found_and_the_error_names_this_one() -> None:
    async with Stage().kit(chats=2) as kit:
        room_of(kit)
        with pytest.raises(
            ChannelNotFound, match="no such channel here: 'tea' on chat-2; a channel lives on the server"
        ):
            kit.server("chat-2").channels.get("tea")
        with pytest.raises(ChannelNotFound):
            kit.server("chat-2").channels.destroy("tea")


@virtual
async def test_a_user_added_twice_hears_once() -> None:
    stage = Stage()
    async with stage.kit() as kit:
        alice = await stage.bound(kit, "connector-1", "alice")
        room = room_of(kit)
        room.add("alice", "connector-1")
        room.add("alice", "connector-1")
        assert await room.add_confirmed("alice", "connector-1") is True
        assert room.members() == ["alice"]
        assert len(room) == 1
        assert await heard(kit, alice) == [1]


@virtual
async def test_every_device_of_a_member_hears_one_bound_later_too() -> None:
    stage = Stage()
    async with stage.kit() as kit:
        first = await stage.bound(kit, "connector-1", "alice")
        room_of(kit).add("alice", "connector-1")
        second = await stage.bound(kit, "connector-1", "alice")
        assert await heard(kit, first, second) == [1, 1]
        first.close()
        assert await heard(kit, second) == [1]
        assert "alice" in room_of(kit)


@virtual
async def test_a_user_may_be_a_member_at_two_frontends_and_leave_one_or_all() -> None:
    stage = Stage()
    async with stage.kit(connectors=2) as kit:
        devices = [await stage.bound(kit, f"connector-{number}", "7") for number in (1, 2)]
        bob = await stage.bound(kit, "connector-2", "bob")
        room = room_of(kit)
        room.add(7, "connector-1")
        room.add("7", "connector-2")
        room.add("bob", "connector-2")
        assert room.members() == ["7", "bob"]
        assert len(room) == 2
        assert 7 in room
        assert room.frontends("7") == ["connector-1", "connector-2"]
        assert await heard(kit, *devices, bob) == [1, 1, 1]
        assert room.leave(7, "connector-1") is True
        assert room.frontends(7) == ["connector-2"]
        assert await heard(kit, *devices, bob) == [0, 1, 1]
        room.add("7", "connector-1")
        assert room.leave("7") is True
        assert "7" not in room
        assert await heard(kit, *devices, bob) == [0, 0, 1]


@virtual
async def test_leaving_where_one_is_no_member_is_told_and_says_nothing_to_anybody() -> None:
    stage = Stage()
    async with stage.kit(connectors=2) as kit:
        await stage.bound(kit, "connector-1", "alice")
        room = room_of(kit)
        room.add("alice", "connector-1")
        spy = LinkSpy(kit, "chat-1")
        assert room.leave("bob") is False
        assert room.leave("alice", "connector-2") is False
        assert room.leave("alice", "connector-9") is False
        assert spy.of(LEAVE) == []
        assert room.leave("alice") is True
        assert room.leave("alice") is False
        assert spy.of(LEAVE) == [("connector-1", ("tea", "alice"))]


@virtual
async def test_an_empty_channel_is_true_and_pushing_to_it_is_no_error() -> None:
    async with Stage().kit() as kit:
        room = room_of(kit)
        assert bool(room)
        assert len(room) == 0
        room.push("onNews", {})
        assert await room.push_confirmed("onNews", {}) == []


@virtual
async def test_a_member_needs_a_frontend_that_exists_and_is_up_and_a_uid() -> None:
    async with Stage().kit(connectors=2) as kit:
        room = room_of(kit)
        kit.lose("connector-2")
        for frontend_id, error in (("connector-9", NotFound), ("connector-2", Unavailable)):
            with pytest.raises(error):
                room.add("alice", frontend_id)
            with pytest.raises(error):
                await room.add_confirmed("alice", frontend_id)
        with pytest.raises(ValueError, match="a uid is text"):
            room.add("", "connector-1")
        assert room.members() == []


@virtual
async def test_a_uid_without_a_session_at_the_frontend_is_not_added_and_reported() -> None:
    stage = Stage()
    async with stage.kit(connectors=2) as kit:
        await stage.bound(kit, "connector-1", "alice")
        room = room_of(kit)
        assert await room.add_confirmed("alice", "connector-1") is True
        assert await room.add_confirmed("alice", "connector-2") is False
        assert await room.add_confirmed("bob", "connector-1") is False
        room.add("carol", "connector-1")
        assert "carol" in room
        await kit.settle()
        assert room.members() == ["alice"]
        assert room.frontends("alice") == ["connector-1"]


@virtual
async def test_a_server_that_is_a_frontend_has_channels_of_its_own_clients_and_others() -> None:
    stage = Stage()
    async with stage.kit(connectors=2) as kit:
        here, there = [await stage.bound(kit, f"connector-{n}", f"u{n}") for n in (1, 2)]
        room = kit.server("connector-1").channels.create("lobby")
        room.add("u1", "connector-1")
        assert await room.add_confirmed("u2", "connector-2") is True
        assert await room.add_confirmed("nobody", "connector-1") is False
        room.push("onNews", {"n": 1})
        assert [await here.pushed("onNews"), await there.pushed("onNews")] == [{"n": 1}, {"n": 1}]
        here.close()
        assert room.members() == ["u2"]


# -- members that go by themselves


@virtual
async def test_a_member_whose_last_session_closes_leaves_every_channel_by_itself() -> None:
    stage = Stage()
    async with stage.kit(chats=2) as kit:
        alice = await stage.bound(kit, "connector-1", "alice")
        await stage.bound(kit, "connector-1", "bob")
        rooms = [kit.server(f"chat-{number}").channels.create(name) for number in (1, 2) for name in ("a", "b")]
        for room in rooms:
            room.add("alice", "connector-1")
            room.add("bob", "connector-1")
        await kit.settle()
        spy = LinkSpy(kit, "connector-1")
        alice.close()
        await kit.settle()
        assert [room.members() for room in rooms] == [["bob"]] * 4
        assert sorted(peer for peer, _ in spy.of(LEFT)) == ["chat-1", "chat-2"]


@virtual
async def test_a_member_that_is_unbound_leaves_by_itself() -> None:
    stage = Stage()
    async with stage.kit() as kit:
        alice = await stage.bound(kit, "connector-1", "alice")
        room_of(kit).add("alice", "connector-1")
        await stage.within(alice, "chat", lambda session, server: session.unbind())
        await kit.settle()
        assert room_of(kit).members() == []
        assert await heard(kit, alice) == [0]


@virtual
async def test_the_members_at_a_lost_frontend_have_left() -> None:
    stage = Stage()
    async with stage.kit(connectors=2) as kit:
        room = room_of(kit)
        for number in (1, 2):
            await stage.bound(kit, f"connector-{number}", "alice")
            room.add("alice", f"connector-{number}")
        await stage.bound(kit, "connector-1", "bob")
        room.add("bob", "connector-1")
        await kit.settle()
        kit.lose("connector-1")
        assert room.members() == ["alice"]
        assert room.frontends("alice") == ["connector-2"]


@virtual
async def test_a_frontend_forgets_the_channels_of_a_server_that_is_no_more() -> None:
    stage = Stage()
    async with stage.kit(chats=2) as kit:
        await stage.bound(kit, "connector-1", "alice")
        for number in (1, 2):
            kit.server(f"chat-{number}").channels.create("tea").add("alice", "connector-1")
        await kit.settle()
        mirror = frontend_of(kit).remote.mirror
        assert len(mirror) == 2
        kit.lose("chat-2")
        assert len(mirror) == 2
        kit.nodes["connector-1"].gone("chat-2")
        assert len(mirror) == 1
        assert list(mirror.members("chat-1", "tea")) == ["alice"]
        assert list(mirror.members("chat-2", "tea")) == []


@virtual
async def test_a_member_added_again_before_the_report_of_its_going_arrives_is_still_a_member() -> None:
    stage = Stage()
    async with stage.kit() as kit:
        alice = await stage.bound(kit, "connector-1", "alice")
        room = room_of(kit)
        room.add("alice", "connector-1")
        await kit.settle()
        again = await kit.connect("connector-1")
        spy = LinkSpy(kit, "connector-1")
        # All in one turn of the loop: nothing has arrived anywhere yet.
        alice.close()
        frontend_of(kit).sessions.bind(again.session.id, "alice")
        room.add("alice", "connector-1")
        assert len(spy.of(LEFT)) == 1
        await kit.settle()
        assert room.members() == ["alice"]
        assert await heard(kit, again) == [1]


@virtual
async def test_a_member_that_goes_while_it_is_added_is_none_in_the_end() -> None:
    stage = Stage()
    async with stage.kit() as kit:
        alice = await stage.bound(kit, "connector-1", "alice")
        room = room_of(kit)
        room.add("alice", "connector-1")
        await kit.settle()
        alice.close()
        room.add("alice", "connector-1")
        await kit.settle()
        assert room.members() == []
        assert len(frontend_of(kit).remote.mirror) == 0


@virtual
async def test_an_unconfirmed_member_is_taken_out_of_the_mirror_again() -> None:
    stage = Stage()
    async with stage.kit() as kit:
        alice = await stage.bound(kit, "connector-1", "alice")
        link: Any = kit.nodes["connector-1"].links.to("chat-1")
        link.answer = lambda *answer: None
        room = room_of(kit)
        with pytest.raises(Exception, match="no answer within 10 s"):
            await room.add_confirmed("alice", "connector-1")
        assert room.members() == []
        assert await heard(kit, alice) == [0]
        await kit.settle()
        assert len(frontend_of(kit).remote.mirror) == 0


# -- the end of a channel


@virtual
async def test_a_destroyed_channel_takes_no_members_and_no_pushes() -> None:
    stage = Stage()
    async with stage.kit() as kit:
        alice = await stage.bound(kit, "connector-1", "alice")
        room = room_of(kit)
        room.add("alice", "connector-1")
        room.destroy()
        room.destroy()
        assert room.destroyed
        assert room.members() == []
        assert room.leave("alice") is False
        refusals: list[Callable[[], None]] = [
            lambda: room.add("bob", "connector-1"),
            lambda: room.push("onNews", {}),
        ]
        for refused in refusals:
            with pytest.raises(ChannelNotFound, match="the channel 'tea' was destroyed"):
                refused()
        for pending in (room.add_confirmed("bob", "connector-1"), room.push_confirmed("onNews", {})):
            with pytest.raises(ChannelNotFound):
                await pending
        await kit.settle()
        assert "tea" not in kit.server("chat-1").channels
        assert len(frontend_of(kit).remote.mirror) == 0
        assert alice.pushes == []


@virtual
async def test_a_channel_made_again_under_the_old_name_is_another_one() -> None:
    stage = Stage()
    async with stage.kit() as kit:
        alice = await stage.bound(kit, "connector-1", "alice")
        old = room_of(kit)
        old.add("alice", "connector-1")
        kit.server("chat-1").channels.destroy("tea")
        new = room_of(kit)
        assert new is not old
        assert await heard(kit, alice) == [0]
        old.destroy()
        assert room_of(kit) is new


@virtual
async def test_leaving_and_destroying_ask_nothing_of_a_frontend_that_is_going_down() -> None:
    stage = Stage()
    async with stage.kit(connectors=2) as kit:
        for number in (1, 2):
            await stage.bound(kit, f"connector-{number}", "alice")
        rooms = [room_of(kit, name) for name in ("tea", "milk")]
        for room in rooms:
            room.add("alice", "connector-1")
            room.add("alice", "connector-2")
        spy = LinkSpy(kit, "chat-1")
        kit.lost.add("connector-1")  # down, and this server has not been told yet
        assert rooms[0].leave("alice") is True
        rooms[1].destroy()
        await kit.settle()
        assert rooms[0].members() == rooms[1].members() == []
        assert len(frontend_of(kit, "connector-2").remote.mirror) == 0
        assert spy.of(JOIN) == []
