"""A server's life: its hooks in their order, and plugins (application.js: start, beforeStopHook, use; lifecycle.js)."""

import asyncio
from typing import Any

import pytest
from support_handlers import Stage, elapse, virtual

from handlers import App, AppError, Server, Session, policies
from handlers.kit import Kit

HOOKS = ("before_start", "on_start", "on_all_started", "before_stop", "on_stop")


def noting(calls: list[str], name: str, *, asynchronous: bool) -> Any:
    def note(server: Server) -> None:
        calls.append(f"{name} {server.id}")

    async def note_later(server: Server) -> None:
        await elapse(0.1)
        note(server)

    return note_later if asynchronous else note


@pytest.mark.parametrize("asynchronous", [False, True])
@virtual
async def test_application_js_hooks_run_in_the_order_of_a_servers_life(asynchronous: bool) -> None:
    stage, calls = Stage(), list[str]()
    for name in HOOKS:
        getattr(stage.app, name)(noting(calls, name, asynchronous=asynchronous))
    async with stage.kit() as kit:
        servers = list(kit.nodes)
        begun = [f"{name} {server_id}" for name in HOOKS[:3] for server_id in servers]
        assert calls[:4] == begun[:4]
        assert sorted(calls) == sorted(begun)
        calls.clear()
        client = await kit.connect("connector-1")
        stage.app.on_close._declared.append((None, lambda session, reason, server: calls.append("close")))
        assert await client.request("chat.stage.echo", 1) == 1
    assert calls == [f"{name} {server_id}" for name in HOOKS[3:] for server_id in servers]


@virtual
async def test_hooks_of_a_type_run_on_its_servers_alone() -> None:
    stage, calls = Stage(), list[str]()
    for name in HOOKS:
        getattr(stage.app, name)("chat")(noting(calls, name, asynchronous=False))
    async with stage.kit(chats=1):
        pass
    assert calls == [f"{name} chat-1" for name in HOOKS]


@virtual
async def test_before_the_stop_clients_are_still_connected_and_others_can_be_called() -> None:
    stage, said = Stage(), list[Any]()

    @stage.app.remote("connector.t.where")
    async def where(server: Server) -> str:
        return server.id

    @stage.app.before_stop("chat")
    async def goodbye(server: Server) -> None:
        said.append(await server.rpc.to("connector-1").call(where))
        server.channels.broadcast("connector", "onGoodbye", {}, everyone=True)

    async with stage.kit() as kit:
        client = await kit.connect("connector-1")
    assert said == ["connector-1"]
    assert client.pushes == [("onGoodbye", {})]


@pytest.mark.parametrize("name", ["before_start", "on_start"])
@virtual
async def test_a_hook_before_serving_that_raises_keeps_the_server_from_starting(name: str) -> None:
    stage = Stage()

    @getattr(stage.app, name)  # type: ignore[untyped-decorator]
    def broken(server: Server) -> None:
        raise RuntimeError("no database")

    with pytest.raises(RuntimeError, match="no database"):
        await stage.kit().__aenter__()


@pytest.mark.parametrize("name", ["on_all_started", "before_stop", "on_stop"])
@virtual
async def test_a_later_hook_that_raises_is_logged_and_the_others_still_run(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    stage, calls = Stage(), list[str]()
    hooks = getattr(stage.app, name)
    hooks("chat")(noting(calls, "first", asynchronous=False))

    @hooks("chat")  # type: ignore[untyped-decorator]
    def broken(server: Server) -> None:
        raise RuntimeError("a broken hook")

    hooks("chat")(noting(calls, "last", asynchronous=False))
    async with stage.kit():
        pass
    assert sorted(calls) == ["first chat-1", "last chat-1"]
    assert "RuntimeError: a broken hook" in caplog.text


@virtual
async def test_hooks_before_the_stop_have_five_seconds(caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage()

    @stage.app.before_stop("chat")
    async def endless(server: Server) -> None:
        await elapse(1000)

    async with stage.kit():
        began = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - began == pytest.approx(5)
    assert "chat-1: the before-stop hooks are not done after 5 s" in caplog.text


@virtual
async def test_a_server_is_told_once_that_all_have_started_and_one_that_never_served_has_no_before_stop() -> None:
    stage, calls = Stage(), list[str]()
    stage.app.on_all_started("chat")(noting(calls, "all", asynchronous=False))
    stage.app.before_stop("chat")(noting(calls, "stop", asynchronous=False))
    kit = stage.kit()
    await kit.nodes["chat-1"].life.before_stop()
    assert calls == []
    async with kit:
        assert kit.nodes["chat-1"].life.all_started() is None
    assert calls == ["all chat-1", "stop chat-1"]


@virtual
async def test_application_js_use_hands_the_app_to_a_plugin_which_declares_what_it_brings() -> None:
    stage = Stage()

    def greeter(app: App, *, greeting: str = "hi") -> None:
        @app.handler("chat.greeter.greet")
        async def greet(server: Server) -> str:
            return f"{greeting} from {server.state}"

        @app.on_start("chat")
        def start(server: Server) -> None:
            server.state = f"the plugin on {server.id}"

    stage.app.use(greeter, greeting="hello")
    async with stage.kit() as kit:
        client = await kit.connect("connector-1")
        assert await client.request("chat.greeter.greet") == "hello from the plugin on chat-1"
        with pytest.raises(AppError, match="has started"):
            stage.app.use(greeter)


@virtual
async def test_application_js_nothing_can_be_declared_once_the_app_has_started() -> None:
    stage = Stage()
    async with Kit(stage.app, frontends={"connector": 1}):
        late: list[Any] = [
            lambda: stage.app.before_start(print),
            lambda: stage.app.filter(type("F", (), {"before": print})()),
            lambda: stage.app.route_by("chat", policies.Random),
            lambda: stage.app.scheduler("late"),
            lambda: stage.app.cron("* * * * *")(print),
            lambda: stage.app.broadcast_filter("late")(print),
        ]
        for declare in late:
            with pytest.raises(AppError, match="has started"):
                declare()


def test_a_hook_for_a_type_that_does_not_exist_is_a_mistake() -> None:
    app = App("test")
    app.before_stop("moon")(print)
    app.on_error("moon")(print)
    app.rpc_before("moon")(print)
    assert app.mistakes(["chat"]) == [
        "an error handler is for the server type 'moon', which does not exist",
        "an RPC before filter is for the server type 'moon', which does not exist",
        "a before-stop hook is for the server type 'moon', which does not exist",
    ]


@virtual
async def test_a_close_hook_that_runs_when_its_server_stops_comes_to_its_end() -> None:
    stage = Stage()
    ended: list[str] = []

    @stage.app.on_close("connector")
    async def say_goodbye(session: Session, reason: str, server: Server) -> None:
        await elapse(0.5)
        ended.append(reason)

    async with stage.kit() as kit:
        client = await kit.connect("connector-1")
        client.close()
        await kit.nodes["connector-1"].stop()
        assert ended == ["client closed"]
