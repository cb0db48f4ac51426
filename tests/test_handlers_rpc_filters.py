"""Filters of calls between servers (pomelo's filters/rpc/rpcLog.js and toobusy.js)."""

import asyncio
import logging
from typing import Any

import pytest
from support_handlers import Stage, elapse, virtual

from handlers import HandlerError, NotFound, Reply, RpcAllError, RpcCall, Server, Session, Unavailable, rpc_filters
from handlers.clock import VirtualClockLoop


def stage_with_remotes() -> Stage:
    stage = Stage()

    @stage.app.remote("chat.t.echo")
    async def echo(server: Server, value: Any) -> Any:
        return [server.id, value]

    @stage.app.remote("chat.t.fail")
    async def fail(server: Server) -> None:
        raise HandlerError(1001, "no")

    @stage.app.remote("chat.t.slow")
    async def slow(server: Server, seconds: float) -> None:
        await elapse(seconds)

    return stage


@virtual
async def test_filters_run_before_in_order_and_after_in_reverse_also_for_calls_that_fail() -> None:
    stage, calls = stage_with_remotes(), list[Any]()

    for name in ("first", "second"):

        @stage.app.rpc_before
        async def before(call: RpcCall, server: Server, name: str = name) -> None:
            calls.append((name, server.id, call.server_id, call.route, call.arguments()))
            call.local[name] = True

        @stage.app.rpc_after
        def after(call: RpcCall, reply: Reply, server: Server, name: str = name) -> None:
            calls.append((name, sorted(call.local), reply.value, str(reply.error)))

    async with stage.kit() as kit:
        rpc = kit.server("connector-1").rpc
        assert await rpc.to("chat-1").call("chat.t.echo", 5) == ["chat-1", 5]
        begin: tuple[Any, ...] = ("connector-1", "chat-1", "chat.t.echo", ([5], {}))
        end = (["first", "second"], ["chat-1", 5], "None")
        assert calls == [("first", *begin), ("second", *begin), ("second", *end), ("first", *end)]
        calls.clear()
        with pytest.raises(HandlerError, match="1001 no"):
            await rpc.by("key").call("chat.t.fail")
        assert [call[-1] for call in calls[2:]] == ["1001 no"] * 2


@virtual
async def test_a_before_filter_redirects_a_call_to_another_server() -> None:
    stage = stage_with_remotes()

    @stage.app.rpc_before
    def redirect(call: RpcCall, server: Server) -> None:
        call.server_id = {"chat-1": "chat-2", "chat-2": "moon-1"}[call.server_id]

    async with stage.kit(chats=2) as kit:
        rpc = kit.server("connector-1").rpc
        assert await rpc.to("chat-1").call("chat.t.echo", 1) == ["chat-2", 1]
        with pytest.raises(NotFound, match="there is no server 'moon-1'"):
            await rpc.to("chat-2").call("chat.t.echo", 1)


@virtual
async def test_a_before_filter_that_raises_refuses_the_call_and_nothing_leaves() -> None:
    stage, ran = stage_with_remotes(), list[str]()

    @stage.app.remote("chat.t.note")
    async def note() -> None:
        ran.append("note")

    @stage.app.rpc_before("connector")
    def refuse(call: RpcCall, server: Server) -> None:
        raise HandlerError(403, "not from here")

    async with stage.kit() as kit:
        with pytest.raises(HandlerError, match="403 not from here"):
            await kit.server("connector-1").rpc.to("chat-1").call(note)
        assert not ran
        await kit.server("chat-1").rpc.to("chat-1").call(note)
        assert ran == ["note"]


@virtual
async def test_a_filter_that_fails_for_one_server_takes_nothing_from_what_the_others_answer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stage = stage_with_remotes()

    @stage.app.rpc_before
    def broken(call: RpcCall, server: Server) -> None:
        if call.server_id == "chat-2":
            raise ValueError("a broken filter")

    async with stage.kit(chats=3) as kit:
        with pytest.raises(RpcAllError) as caught:
            await kit.server("connector-1").rpc.to_all().call("chat.t.echo", 1)
    assert caught.value.results == {"chat-1": ["chat-1", 1], "chat-3": ["chat-3", 1]}
    assert str(caught.value.errors["chat-2"]) == "500 internal error"
    assert "ValueError: a broken filter" in caplog.text
    assert "connector-1: calling chat.t.echo on chat-2 failed" in caplog.text


@virtual
async def test_filters_see_the_calls_of_server_rpc_and_not_the_requests_that_are_forwarded() -> None:
    stage, seen = stage_with_remotes(), list[str]()

    @stage.app.rpc_before
    def look(call: RpcCall, server: Server) -> None:
        seen.append(call.route)

    async def push(session: Session, server: Server) -> None:
        session["key"] = 1
        await session.push("key")
        await server.rpc.to("chat-1").call("chat.t.echo", 1)

    async with stage.kit() as kit:
        await stage.within(await kit.connect("connector-1"), "chat", push)
    assert seen == ["chat.t.echo"]


@virtual
async def test_an_after_filter_that_raises_is_logged_and_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    stage = stage_with_remotes()

    @stage.app.rpc_after
    def broken(call: RpcCall, reply: Reply, server: Server) -> None:
        reply.value = "changed"
        raise RuntimeError("a broken filter")

    async with stage.kit() as kit:
        assert await kit.server("connector-1").rpc.to("chat-1").call("chat.t.echo", 1) == ["chat-1", 1]
    assert "RuntimeError: a broken filter" in caplog.text


@virtual
async def test_rpc_log_js_tells_where_a_call_went_and_how_long_it_took(caplog: pytest.LogCaptureFixture) -> None:
    stage = stage_with_remotes()
    stage.app.rpc_filter(rpc_filters.rpc_log(0.5))
    async with stage.kit() as kit:
        rpc = kit.server("connector-1").rpc
        with caplog.at_level(logging.INFO, "handlers.rpc_filters"):
            await rpc.to("chat-1").call("chat.t.slow", 0.75)
            await rpc.to("chat-1").call("chat.t.slow", 0.25)
            with pytest.raises(HandlerError):
                await rpc.to("chat-1", timeout=1).call("chat.t.slow", 3)
    assert [record.getMessage() for record in caplog.records] == [
        "connector-1: chat.t.slow on chat-1 done in 750.0 ms",
        "connector-1: chat.t.slow on chat-1 failed (504 chat.t.slow on chat-1: no answer within 1 s) in 1000.0 ms",
    ]


@virtual
async def test_rpc_toobusy_js_refuses_outgoing_calls_while_the_loop_is_late() -> None:
    stage = stage_with_remotes()
    stage.app.rpc_filter(rpc_filters.toobusy(), "connector")
    async with stage.kit() as kit:
        rpc = kit.server("connector-1").rpc
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualClockLoop)
        assert await rpc.to("chat-1").call("chat.t.echo", 1) == ["chat-1", 1]
        await elapse(0.05)
        loop.block(1)
        with pytest.raises(Unavailable, match="the server is too busy"):
            await rpc.to("chat-1").call("chat.t.echo", 1)
        await elapse(3)
        assert await rpc.to("chat-1").call("chat.t.echo", 1) == ["chat-1", 1]


@virtual
async def test_a_caller_that_is_cancelled_lets_the_after_filters_know() -> None:
    stage, seen = stage_with_remotes(), list[str]()

    @stage.app.rpc_after
    def after(call: RpcCall, reply: Reply, server: Server) -> None:
        seen.append(str(reply.error))

    async with stage.kit() as kit:
        task = kit.server("connector-1").spawn(kit.server("connector-1").rpc.to("chat-1").call("chat.t.slow", 5))
        await kit.settle()
        task.cancel()
        await kit.settle()
        assert seen == ["503 the caller was cancelled"]
