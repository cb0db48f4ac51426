"""The session that handlers hold: what is local, what travels, and when (pomelo's BackendSession and FrontendSession;
pomelo's sessionService tests of frontend sessions: set/get isolation, push, pushAll)."""

from typing import Any

import pytest
from support_handlers import Stage, virtual

from handlers import Conflict, NotFound, Server, Session, Unavailable
from handlers.kit import Kit, KitClient

HERE_AND_THERE = pytest.mark.parametrize("server_type", ["connector", "chat"])
UNPACKABLE: list[Any] = [object(), {1, 2}, 2**70, "\ud800", print, [[object()]], -(2**64)]


async def seen(stage: Stage, client: KitClient, server_type: str) -> dict[str, Any]:
    """Return the session's values as a new request sees them."""
    values: dict[str, Any] = await stage.within(client, server_type, lambda session, server: dict(session))
    return values


def deep() -> list[Any]:
    value: list[Any] = []
    for _ in range(5000):
        value = [value]
    return value


@HERE_AND_THERE
@virtual
async def test_what_is_set_stays_with_the_request_until_it_is_pushed(server_type: str) -> None:
    stage = Stage()
    async with stage.kit() as kit:
        client = await kit.connect("connector-1")

        async def unpushed(session: Session, server: Server) -> None:
            session["level"] = 3
            assert session["level"] == 3

        async def pushed(session: Session, server: Server) -> None:
            session["level"], session["gold"] = 4, 100
            await session.push("level")

        await stage.within(client, server_type, unpushed)
        assert await seen(stage, client, server_type) == {}
        await stage.within(client, server_type, pushed)
        assert await seen(stage, client, "connector") == {"level": 4}
        assert await seen(stage, client, "chat") == {"level": 4}


@HERE_AND_THERE
@virtual
async def test_push_all_sends_every_value_and_takes_away_what_was_deleted(server_type: str) -> None:
    stage = Stage()
    async with stage.kit() as kit:
        client = await kit.connect("connector-1")

        async def first(session: Session, server: Server) -> None:
            session.update({"a": 1, "b": [1, {"x": None}], "c": "c"})
            await session.push_all()

        async def second(session: Session, server: Server) -> None:
            del session["a"]
            session["d"] = 4.5
            await session.push_all()

        await stage.within(client, server_type, first)
        assert await seen(stage, client, "chat") == {"a": 1, "b": [1, {"x": None}], "c": "c"}
        await stage.within(client, server_type, second)
        assert await seen(stage, client, "connector") == {"b": [1, {"x": None}], "c": "c", "d": 4.5}


@HERE_AND_THERE
@virtual
async def test_pushing_a_deleted_key_deletes_it_for_every_later_request(server_type: str) -> None:
    stage = Stage()
    async with stage.kit() as kit:
        client = await kit.connect("connector-1")

        async def put(session: Session, server: Server) -> None:
            session.update(a=1, b=2)
            await session.push("a", "b", "never")

        async def delete(session: Session, server: Server) -> None:
            del session["a"]
            del session["b"]
            assert "a" not in session
            await session.push("a")

        await stage.within(client, server_type, put)
        await stage.within(client, server_type, delete)
        assert await seen(stage, client, "chat") == {"b": 2}


@HERE_AND_THERE
@virtual
async def test_changing_a_value_after_the_push_changes_nothing_elsewhere(server_type: str) -> None:
    stage = Stage()
    async with stage.kit() as kit:
        client = await kit.connect("connector-1")

        async def meddle(session: Session, server: Server) -> None:
            bag: list[Any] = ["sword"]
            session["bag"] = bag
            await session.push("bag")
            bag.append("stolen")
            session["other"] = {"kept": True}
            await session.push_all()
            session["late"] = True
            session["other"]["kept"] = False
            del session["bag"]

        await stage.within(client, server_type, meddle)
        assert await seen(stage, client, "connector") == {"bag": ["sword", "stolen"], "other": {"kept": True}}
        assert await seen(stage, client, "chat") == {"bag": ["sword", "stolen"], "other": {"kept": True}}


@virtual
async def test_a_request_under_way_does_not_see_what_a_later_one_pushed() -> None:
    stage = Stage()
    async with stage.kit() as kit:
        client = await kit.connect("connector-1")

        async def outer(session: Session, server: Server) -> None:
            async def inner(session: Session, server: Server) -> None:
                session["who"] = "inner"
                await session.push("who")

            session["mine"] = 1
            await stage.within(client, "connector", inner)
            assert dict(session) == {"mine": 1}

        await stage.within(client, "chat", outer)
        assert await seen(stage, client, "chat") == {"who": "inner"}


@virtual
async def test_of_two_pushes_of_one_key_the_last_one_wins() -> None:
    stage = Stage()
    async with stage.kit(chats=2) as kit:
        client = await kit.connect("connector-1")
        sessions = [
            await kit.server(server_id).sessions.get("connector-1", client.session.id) for server_id in kit.nodes
        ]
        for number, session in enumerate(sessions):
            assert session is not None
            session["winner"] = number
        for session in sessions:
            assert session is not None
            await session.push("winner")
        assert await seen(stage, client, "chat") == {"winner": 2}


@HERE_AND_THERE
@virtual
async def test_local_values_are_of_any_kind_and_never_travel(server_type: str) -> None:
    stage = Stage()
    async with stage.kit() as kit:
        client = await kit.connect("connector-1")

        async def keep(session: Session, server: Server) -> None:
            session.local["timer"] = object()
            await session.push_all()

        await stage.within(client, server_type, keep)
        assert await seen(stage, client, server_type) == {}
        assert await stage.within(client, server_type, lambda session, server: dict(session.local)) == {}


@pytest.mark.parametrize("value", [*UNPACKABLE, deep()], ids=lambda value: type(value).__name__)
@virtual
async def test_a_value_that_cannot_travel_raises_when_it_is_set(value: Any) -> None:
    stage = Stage()
    async with stage.kit() as kit:
        client = await kit.connect("connector-1")

        async def put(session: Session, server: Server) -> None:
            session["kept"] = 1
            with pytest.raises(TypeError):
                session["x"] = value
            with pytest.raises(TypeError):
                session.update({"x": value})
            assert dict(session) == {"kept": 1}

        await stage.within(client, "connector", put)
        await stage.within(client, "chat", put)


@HERE_AND_THERE
@virtual
async def test_a_value_that_was_spoilt_after_it_was_set_raises_at_the_push_and_harms_nobody(server_type: str) -> None:
    stage = Stage()
    async with stage.kit() as kit:
        client = await kit.connect("connector-1")

        async def spoil(session: Session, server: Server) -> None:
            session["bag"] = []
            session["bag"].append(object())
            with pytest.raises(TypeError):
                await session.push("bag")
            with pytest.raises(TypeError):
                await session.push_all()

        await stage.within(client, server_type, spoil)
        assert await seen(stage, client, "chat") == {}


@virtual
async def test_a_session_is_itself_and_not_its_values() -> None:
    stage = Stage()
    async with stage.kit() as kit:
        client, other = await kit.connect("connector-1"), await kit.connect("connector-1")
        one = await stage.within(client, "chat", lambda session, server: session)
        two = await stage.within(other, "chat", lambda session, server: session)
        assert one != two
        assert len({one, two}) == 2
        assert bool(one)
        assert len(one) == 0
        assert repr(one) == f"<Session {client.session.id} uid=None on connector-1>"


@virtual
async def test_a_session_of_one_client_is_invisible_to_another() -> None:
    stage = Stage()
    async with stage.kit() as kit:
        client, other = await kit.connect("connector-1"), await kit.connect("connector-1")

        async def put(session: Session, server: Server) -> None:
            session["secret"] = "alice's"
            await session.push_all()

        await stage.within(client, "chat", put)
        assert await seen(stage, other, "chat") == {}


@HERE_AND_THERE
@virtual
async def test_bind_gives_the_session_its_user_for_this_and_every_later_request(server_type: str) -> None:
    stage = Stage()
    async with stage.kit() as kit:
        client = await kit.connect("connector-1")

        async def bind(session: Session, server: Server) -> str | None:
            assert session.uid is None
            await session.bind("alice")
            await session.bind("alice")
            return session.uid

        assert await stage.within(client, server_type, bind) == "alice"
        assert await stage.within(client, "chat", lambda session, server: session.uid) == "alice"
        assert client.session.uid == "alice"


@HERE_AND_THERE
@virtual
async def test_a_bound_session_cannot_be_bound_to_another_user(server_type: str) -> None:
    stage = Stage()
    async with stage.kit() as kit:
        client = await stage.bound(kit, "connector-1", "alice")

        async def rebind(session: Session, server: Server) -> None:
            with pytest.raises(Conflict, match="bound to another uid"):
                await session.bind("bob")
            assert session.uid == "alice"

        await stage.within(client, server_type, rebind)


@HERE_AND_THERE
@virtual
async def test_unbind_takes_the_user_off_and_another_may_be_bound(server_type: str) -> None:
    stage = Stage()
    async with stage.kit() as kit:
        client = await stage.bound(kit, "connector-1", "alice")

        async def exchange(session: Session, server: Server) -> str | None:
            await session.unbind()
            assert session.uid is None
            with pytest.raises(NotFound, match="not bound"):
                await session.unbind()
            await session.bind("bob")
            return session.uid

        assert await stage.within(client, server_type, exchange) == "bob"
        assert await kit.server("chat-1").sessions.get_by_uid("connector-1", "alice") == []


@virtual
async def test_an_integer_uid_is_converted_to_text() -> None:
    stage = Stage()
    async with stage.kit() as kit:
        client = await kit.connect("connector-1")
        await stage.within(client, "chat", lambda session, server: session.bind(10001))
        assert client.session.uid == "10001"
        assert len(await kit.server("chat-1").sessions.get_by_uid("connector-1", 10001)) == 1


@pytest.mark.parametrize("uid", ["", None, True, 1.5, b"alice"])
@virtual
async def test_what_is_no_uid_is_refused_before_anything_is_asked(uid: Any) -> None:
    stage = Stage()
    async with stage.kit() as kit:
        client = await kit.connect("connector-1")
        with pytest.raises(ValueError, match="a uid is text or an integer"):
            await stage.within(client, "chat", lambda session, server: session.bind(uid))
        assert client.session.uid is None


@HERE_AND_THERE
@virtual
async def test_on_a_closed_session_bind_and_push_raise_and_kick_is_success(server_type: str) -> None:
    stage = Stage()
    async with stage.kit() as kit:
        client = await stage.bound(kit, "connector-1", "alice")
        session = await stage.within(client, server_type, lambda session, server: session)
        client.close()
        for operation in (session.bind("alice"), session.unbind(), session.push("x"), session.push_all()):
            with pytest.raises(NotFound, match="the session is closed"):
                await operation
        await session.kick("too late")


@virtual
async def test_on_a_lost_frontend_every_operation_raises_unavailable() -> None:
    stage = Stage()
    async with stage.kit() as kit:
        client = await kit.connect("connector-1")
        session = await stage.within(client, "chat", lambda session, server: session)
        kit.lose("connector-1")
        for operation in (session.bind("alice"), session.push_all(), session.kick()):
            with pytest.raises(Unavailable):
                await operation


@virtual
async def test_the_ids_of_two_frontends_and_of_two_lives_never_meet() -> None:
    async with Stage().kit(connectors=2) as kit:
        ids = [(await kit.connect(f"connector-{number}")).session.id for number in (1, 1, 2, 2)]
        assert len(set(ids)) == 4
        assert len({session_id >> 32 for session_id in ids}) == 2


@virtual
async def test_operations_on_a_session_that_no_frontend_holds_find_nothing() -> None:
    stage = Stage()
    async with Kit(stage.app, frontends={"connector": 1}, backends={"chat": 1}) as kit:
        session = Session(12345, "connector-1", None, b"", kit.nodes["chat-1"])
        with pytest.raises(NotFound):
            await session.push_all()
        stranger = Session(12345, "connector-9", None, b"", kit.nodes["chat-1"])
        with pytest.raises(NotFound, match="there is no server 'connector-9'"):
            await stranger.push_all()
