"""Calls between servers: whom they reach, what crosses, what goes wrong."""

import asyncio
import inspect
from typing import Any

import msgpack
import pytest
from support_handlers import Stage, elapse, virtual

from handlers import (
    App,
    BadRequest,
    HandlerError,
    NotFound,
    Remote,
    Request,
    RpcAllError,
    Server,
    Session,
    TimedOut,
    Unavailable,
    rendezvous,
)
from handlers.kit import Kit

stage = Stage()
CHATS = ("chat-1", "chat-2", "chat-3")


@stage.app.remote("chat.t.add")
async def add(server: Server, one: int, other: int = 10) -> list[Any]:
    """Add two numbers."""
    return [server.id, one + other]


@stage.app.remote("chat.t.plain")
async def plain(*values: Any, **named: Any) -> Any:
    return [values, named]


@stage.app.remote("chat.t.fail")
async def fail(server: Server, code: int, only: str = "") -> str:
    if only in ("", server.id):
        if not code:
            raise RuntimeError("the secret of the remote")
        raise HandlerError(code, f"no gold on {server.id}")
    return "fine"


@stage.app.remote("chat.t.slow")
async def slow(server: Server, seconds: float) -> str:
    await elapse(seconds)
    return server.id


@stage.app.remote("chat.t.unpackable")
async def unpackable() -> Any:
    return object()


@stage.app.remote("area.t.nowhere")
async def nowhere() -> None: ...


@stage.app.handler("connector.t.ask")
async def ask(msg: int, server: Server) -> str:
    return await server.rpc.to("chat-2").call(fail, msg)


@stage.app.remote("connector.t.back")
async def back(server: Server, chat_id: str, depth: int) -> list[str]:
    return [server.id, *await server.rpc.to(chat_id).call(circle, server.id, depth - 1)]


@stage.app.remote("chat.t.circle")
async def circle(server: Server, connector_id: str, depth: int) -> list[str]:
    if depth <= 0:
        return [server.id]
    return [server.id, *await server.rpc.to(connector_id).call(back, server.id, depth - 1)]


def kit_of(chats: int = 3) -> Kit:
    return stage.kit(connectors=2, chats=chats)


@virtual
async def test_a_remote_is_called_by_key_by_server_id_and_by_its_name() -> None:
    async with kit_of() as kit:
        rpc = kit.server("connector-1").rpc
        home = rendezvous("room 7", CHATS)
        assert await rpc.by("room 7").call(add, 1, 2) == [home, 3]
        assert await rpc.by("room 7").call("chat.t.add", 1, other=5) == [home, 6]
        assert await rpc.to("chat-2").call(add, 1) == ["chat-2", 11]
        assert await rpc.to("chat-3").call("chat.t.add", one=1) == ["chat-3", 11]


@virtual
async def test_a_remote_is_called_by_session_as_the_sessions_requests_are_routed() -> None:
    async with kit_of() as kit:
        for number in range(6):
            client = await stage.bound(kit, "connector-1", f"user{number}")

            async def call(session: Session, server: Server) -> list[Any]:
                return await server.rpc.by(session).call(add, 1)

            home = rendezvous(f"user{number}", CHATS)
            assert (await stage.within(client, "connector", call))[0] == home
            assert await stage.within(client, "chat", lambda session, server: server.id) == home


@virtual
async def test_the_types_route_function_decides_for_calls_by_session() -> None:
    app = App("routed")
    asked: list[Any] = []

    @app.route("chat")
    async def pick(request: Request, servers: tuple[str, ...]) -> str:
        asked.append((request.route, request.session.uid))
        return servers[-1]

    @app.remote("chat.t.where")
    async def where(server: Server) -> str:
        return server.id

    @app.handler("connector.t.ask")
    async def ask(session: Session, server: Server) -> list[str]:
        by_key = await server.rpc.by("user1").call(where)
        return [await server.rpc.by(session).call(where), by_key]

    async with Kit(app, frontends={"connector": 1}, backends={"chat": 3}) as kit:
        client = await kit.connect("connector-1")
        assert await client.request("connector.t.ask") == ["chat-3", rendezvous("user1", CHATS)]
        assert asked == [("chat.t.where", None)]


@virtual
async def test_a_call_to_all_returns_every_result() -> None:
    async with kit_of() as kit:
        rpc = kit.server("chat-2").rpc
        assert await rpc.to_all().call(add, 1) == {server_id: [server_id, 11] for server_id in CHATS}
        assert await rpc.to_all().call("chat.t.plain", "x") == {server_id: [["x"], {}] for server_id in CHATS}


@virtual
async def test_a_call_to_all_of_which_some_failed_holds_the_results_and_the_errors() -> None:
    async with kit_of() as kit:
        kit.lose("chat-3")
        with pytest.raises(
            RpcAllError, match=r"chat\.t\.fail failed on 2 of 3 servers \(chat-1: 1001 no gold"
        ) as caught:
            await kit.server("connector-1").rpc.to_all().call(fail, 1001, only="chat-1")
        assert caught.value.results == {"chat-2": "fine"}
        assert {server_id: error.code for server_id, error in caught.value.errors.items()} == {
            "chat-1": 1001,
            "chat-3": 503,
        }


@virtual
async def test_arguments_and_results_travel_as_msgpack_carries_them() -> None:
    value = {"n": [1, None, 2.5, "ü", True], "b": b"\x00\xff", "big": 2**64 - 1, 7: {"deep": {}}}
    async with kit_of() as kit:
        for server_id in ("connector-1", "chat-1"):  # from another server and from itself
            target = kit.server(server_id).rpc.to("chat-1")
            assert await target.call(plain, value, key=value) == [[value], {"key": value}]
            assert await target.call(plain, (1, 2)) == [[[1, 2]], {}]


@pytest.mark.parametrize("value", [object(), {1, 2}, 2**70, "\ud800"], ids=lambda value: type(value).__name__)
@virtual
async def test_an_argument_that_cannot_travel_is_a_type_error_at_the_call(value: Any) -> None:
    async with kit_of() as kit:
        rpc = kit.server("connector-1").rpc
        for target in (rpc.to("chat-1"), rpc.by("key"), kit.server("chat-1").rpc.to("chat-1")):
            with pytest.raises(TypeError, match=r"an argument of chat\.t\.plain cannot travel between servers"):
                await target.call(plain, value)
        with pytest.raises(TypeError, match="cannot travel"):
            await rpc.to_all().call(plain, value)


@virtual
async def test_a_result_that_cannot_travel_is_500_and_logged_where_it_was_made(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with kit_of() as kit:
        with pytest.raises(HandlerError, match="500 internal error"):
            await kit.server("connector-1").rpc.to("chat-1").call(unpackable)
    assert "chat-1: the remote chat.t.unpackable failed" in caplog.text
    assert "the result of chat.t.unpackable cannot travel" in caplog.text


@pytest.mark.parametrize("caller", ["connector-1", "chat-1"])
@virtual
async def test_an_error_crosses_with_its_code_and_message_and_any_other_one_without_detail(
    caller: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with kit_of() as kit:
        target = kit.server(caller).rpc.to("chat-1")
        with pytest.raises(HandlerError) as caught:
            await target.call(fail, 1001)
        assert (caught.value.code, caught.value.message) == (1001, "no gold on chat-1")
        with pytest.raises(NotFound):
            await target.call(fail, 404)
        with pytest.raises(HandlerError) as hidden:
            await target.call(fail, 0)
        assert (hidden.value.code, hidden.value.message) == (500, "internal error")
    assert "the secret of the remote" in caplog.text


@virtual
async def test_a_remotes_error_that_a_handler_lets_pass_is_the_clients_answer() -> None:
    async with kit_of() as kit:
        client = await kit.connect("connector-1")
        assert await client.request("connector.t.ask", 1001) == {"code": 1001, "message": "no gold on chat-2"}
        assert await client.request("connector.t.ask", 0) == {"code": 500, "message": "internal error"}


@pytest.mark.parametrize("arguments", [[], [1, 2, 3]])
@virtual
async def test_arguments_that_do_not_fit_the_remote_are_400(arguments: list[Any]) -> None:
    async with kit_of() as kit:
        target = kit.server("connector-1").rpc.to("chat-1")
        with pytest.raises(BadRequest, match=r"chat\.t\.add: "):
            await target.call("chat.t.add", *arguments)
        for named in ({"server": "chat-9", "one": 1}, {"one": 1, "third": 2}):
            with pytest.raises(BadRequest, match=r"chat\.t\.add: "):
                await target.call("chat.t.add", **named)


@virtual
async def test_an_unknown_remote_or_server_is_404() -> None:
    async with kit_of() as kit:
        rpc = kit.server("connector-1").rpc
        with pytest.raises(NotFound, match=r"no remote 'chat\.t\.nothing' on chat-1"):
            await rpc.to("chat-1").call("chat.t.nothing")
        with pytest.raises(NotFound, match="there is no server 'chat-9'"):
            await rpc.to("chat-9").call(add, 1)
        with pytest.raises(Unavailable, match="there is no area server"):
            await rpc.to_all().call(nowhere)
        with pytest.raises(Unavailable, match="there is no area server"):
            await rpc.by("key").call(nowhere)


@virtual
async def test_a_remote_runs_on_servers_of_its_own_type_alone() -> None:
    async with kit_of() as kit:
        with pytest.raises(NotFound, match=r"no remote 'chat\.t\.add' on connector-2"):
            await kit.server("connector-1").rpc.to("connector-2").call(add, 1)


@pytest.mark.parametrize("caller", ["connector-1", "chat-1"])
@virtual
async def test_a_call_that_is_not_answered_in_time_is_timed_out(caller: str) -> None:
    async with kit_of() as kit:
        loop = asyncio.get_running_loop()
        rpc = kit.server(caller).rpc
        with pytest.raises(TimedOut) as caught:
            await rpc.to("chat-1", timeout=3).call(slow, 5)
        assert caught.value.code == 504
        assert loop.time() == pytest.approx(3)
        with pytest.raises(TimedOut):
            await rpc.by("key").call(slow, 100)
        assert loop.time() == pytest.approx(13)
        with pytest.raises(RpcAllError) as failed:
            await rpc.to_all(timeout=2).call(slow, 100)
        assert {type(error) for error in failed.value.errors.values()} == {TimedOut}
        assert await rpc.to("chat-1", timeout=3).call(slow, 2) == "chat-1"
        await elapse(200)  # late answers find nobody, and that is no error


@virtual
async def test_a_call_to_a_server_that_dies_fails_at_once() -> None:
    async with kit_of() as kit:
        call = asyncio.ensure_future(kit.server("connector-1").rpc.to("chat-1").call(slow, 5))
        await elapse(1)
        kit.lose("chat-1")
        with pytest.raises(Unavailable, match="chat-1 is unavailable"):
            await call
        assert asyncio.get_running_loop().time() == pytest.approx(1)
        with pytest.raises(Unavailable):
            await kit.server("connector-1").rpc.to("chat-1").call(add, 1)


@virtual
async def test_calls_in_a_circle_do_not_lock() -> None:
    async with kit_of(chats=1) as kit:
        client = await kit.connect("connector-1")

        async def ask(session: Session, server: Server) -> list[str]:
            return await server.rpc.to("connector-1").call(back, server.id, 4)

        assert await stage.within(client, "chat", ask) == ["connector-1", "chat-1"] * 3
        assert asyncio.get_running_loop().time() == 0


@virtual
async def test_clients_cannot_reach_a_remote() -> None:
    async with kit_of() as kit:
        client = await kit.connect("connector-1")
        answer = await client.request("chat.t.add", {"one": 1})
        assert answer == {"code": 404, "message": "no such route: chat.t.add"}


@virtual
async def test_a_remote_called_as_a_function_runs_here() -> None:
    async with kit_of() as kit:
        assert isinstance(add, Remote)
        assert add.server_type == "chat"
        assert add.__doc__ == "Add two numbers."
        assert await plain(1, x=2) == [(1,), {"x": 2}]
        untyped: Any = add
        assert await untyped(kit.server("chat-1"), 1, 2) == ["chat-1", 3]


@virtual
async def test_a_server_that_stops_answers_the_remotes_that_still_run_503() -> None:
    async with kit_of() as kit:
        call = asyncio.ensure_future(kit.server("connector-1").rpc.to("chat-1").call(slow, 5))
        await elapse(1)
        await kit.nodes["chat-1"].stop()
        with pytest.raises(Unavailable, match="the server is stopping"):
            await call


async def nothing() -> Any:
    return []


async def server_and_one(server: Any, one: Any) -> Any:
    return [server, one]


async def server_and_perhaps_one(server: Any, one: Any = 1) -> Any:
    return [server, one]


async def server_and_more(server: Any, *more: Any) -> Any:
    return [server, *more]


async def named_server(*, server: Any = None) -> Any:
    return [server]


async def one_or_two(one: Any, two: Any = 2, /) -> Any:
    return [one, two]


async def at_least_one(one: Any, *more: Any) -> Any:
    return [one, *more]


async def needs_a_name(one: Any = 1, *, name: Any) -> Any:
    return [one, name]


async def takes_a_name(one: Any, *, name: Any = 3) -> Any:
    return [one, name]


WITH_SERVER = [server_and_one, server_and_perhaps_one, server_and_more, named_server]


@pytest.mark.parametrize("named", [{}, {"name": 7}, {"one": 7}], ids=str)
@pytest.mark.parametrize("count", range(5))
@pytest.mark.parametrize("function", [*WITH_SERVER, nothing, one_or_two, at_least_one, needs_a_name, takes_a_name])
def test_a_remote_runs_with_the_arguments_that_its_function_could_be_called_with_and_no_others(
    function: Any, count: int, named: dict[str, int]
) -> None:
    remote: Remote[..., Any] = Remote("chat.t.any", function)
    packed = msgpack.packb([list(range(count)), named])
    given = (["server"] if function in WITH_SERVER else []) + list(range(count))
    refusal = why_not(function, given, named)
    if refusal is None:
        expected = asyncio.run(function(*given, **named))
        assert msgpack.unpackb(asyncio.run(remote.run("server", packed))) == expected
    else:
        with pytest.raises(BadRequest) as caught:
            asyncio.run(remote.run("server", packed))
        assert caught.value.message == f"chat.t.any: {refusal}"


def why_not(function: Any, given: list[Any], named: dict[str, int]) -> str | None:
    """Return why a function cannot be called with these, None where it can."""
    try:
        inspect.signature(function).bind(*given, **named)
    except TypeError as error:
        return str(error)
    return None
