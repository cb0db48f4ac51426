"""Filters around handlers (pomelo's filterService: before/after order, function filters, errors short-circuit with an
answer; filters/handler/time and timeout: what a before filter leaves, the after filter finds)."""

import asyncio
from typing import Any

import pytest
from support_handlers import Stage, elapse, virtual

from handlers import App, BadRequest, HandlerError, Reply, Request, Server, Session
from handlers.chain import build_chain
from handlers.kit import Kit

HERE_AND_THERE = pytest.mark.parametrize("server_type", ["connector", "chat"])


def kit_of(app: App) -> Kit:
    return Kit(app, frontends={"connector": 1}, backends={"chat": 1})


def traced_app(calls: list[str]) -> App:
    """Return an app whose two before and two after filters and handlers note their turn."""
    app = App("traced")

    @app.before
    def first(request: Request, server: Server) -> None:
        calls.append(f"first {server.id}")

    @app.before
    async def second(request: Request, server: Server) -> None:
        await elapse(1)
        calls.append("second")

    @app.after
    def outer(request: Request, reply: Reply, server: Server) -> None:
        calls.append(f"outer {reply.value!r} {reply.error!r}")

    @app.after
    async def inner(request: Request, reply: Reply, server: Server) -> None:
        await elapse(1)
        calls.append(f"inner {reply.value!r} {reply.error!r}")

    for server_type in ("connector", "chat"):

        @app.handler(f"{server_type}.t.say")
        async def say(msg: dict[str, Any]) -> dict[str, Any]:
            calls.append("handler")
            return {"said": msg.get("what")}

        @app.handler(f"{server_type}.t.fail")
        async def fail() -> None:
            calls.append("handler")
            raise HandlerError(1001, "no")

    return app


@HERE_AND_THERE
@virtual
async def test_before_filters_run_in_order_and_after_filters_in_reverse(server_type: str) -> None:
    calls: list[str] = []
    async with kit_of(traced_app(calls)) as kit:
        client = await kit.connect("connector-1")
        assert await client.request(f"{server_type}.t.say", {"what": 1}) == {"said": 1}
        said = "{'said': 1} None"
        assert calls == [f"first {server_type}-1", "second", "handler", f"inner {said}", f"outer {said}"]


@HERE_AND_THERE
@virtual
async def test_after_filters_see_the_handlers_error(server_type: str) -> None:
    calls: list[str] = []
    async with kit_of(traced_app(calls)) as kit:
        client = await kit.connect("connector-1")
        assert await client.request(f"{server_type}.t.fail") == {"code": 1001, "message": "no"}
        assert calls[2:] == ["handler", "inner None HandlerError('no')", "outer None HandlerError('no')"]


@HERE_AND_THERE
@pytest.mark.parametrize("asynchronous", [False, True])
@virtual
async def test_an_error_in_a_before_filter_is_the_answer_and_skips_all_but_the_after_filters(
    server_type: str, asynchronous: bool
) -> None:
    calls: list[str] = []
    app = traced_app(calls)

    def refuse(request: Request, server: Server) -> None:
        raise HandlerError(403, "not you")

    async def refuse_later(request: Request, server: Server) -> None:
        refuse(request, server)

    app.before(refuse_later if asynchronous else refuse)
    app.before(lambda request, server: calls.append("never"))
    async with kit_of(app) as kit:
        client = await kit.connect("connector-1")
        assert await client.request(f"{server_type}.t.say") == {"code": 403, "message": "not you"}
        assert calls == [
            f"first {server_type}-1",
            "second",
            "inner None HandlerError('not you')",
            "outer None HandlerError('not you')",
        ]


@HERE_AND_THERE
@virtual
async def test_an_after_filter_may_replace_the_value_and_the_error(server_type: str) -> None:
    app = traced_app([])

    @app.after
    def mend(request: Request, reply: Reply, server: Server) -> None:
        if isinstance(reply.error, HandlerError):
            reply.value, reply.error = {"mended": reply.error.code}, None
        elif reply.value == {"said": "secret"}:
            reply.error = HandlerError(451, "censored")
        else:
            reply.value = {**reply.value, "stamped": True}

    async with kit_of(app) as kit:
        client = await kit.connect("connector-1")
        assert await client.request(f"{server_type}.t.say", {"what": 1}) == {"said": 1, "stamped": True}
        assert await client.request(f"{server_type}.t.fail") == {"mended": 1001}
        assert await client.request(f"{server_type}.t.say", {"what": "secret"}) == {"code": 451, "message": "censored"}


@HERE_AND_THERE
@virtual
async def test_an_error_inside_an_after_filter_is_the_answer_and_the_others_still_run(
    server_type: str, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[str] = []
    app = traced_app(calls)

    @app.after
    def broken(request: Request, reply: Reply, server: Server) -> None:
        raise RuntimeError("a broken filter")

    async with kit_of(app) as kit:
        client = await kit.connect("connector-1")
        assert await client.request(f"{server_type}.t.say") == {"code": 500, "message": "internal error"}
    assert calls[3:] == [f"{name} {{'said': None}} RuntimeError('a broken filter')" for name in ("inner", "outer")]
    assert "a broken filter" in caplog.text


@virtual
async def test_filters_for_a_type_run_on_servers_of_that_type_alone() -> None:
    stage = Stage()
    calls: list[str] = []
    for server_type in ("connector", "chat"):
        stage.app.before(server_type)(lambda request, server, t=server_type: calls.append(f"before {t} {server.id}"))
        stage.app.after(server_type)(lambda request, reply, server, t=server_type: calls.append(f"after {t}"))
    async with stage.kit() as kit:
        client = await kit.connect("connector-1")
        await client.request("chat.stage.echo")
        assert calls == ["before chat chat-1", "after chat"]
        calls.clear()
        await client.request("connector.stage.echo")
        assert calls == ["before connector connector-1", "after connector"]


@HERE_AND_THERE
@virtual
async def test_what_a_before_filter_leaves_the_handler_and_the_after_filter_find(server_type: str) -> None:
    stage = Stage()
    took: list[float] = []

    @stage.app.before
    def stamp(request: Request, server: Server) -> None:
        request.session.local["start"] = asyncio.get_running_loop().time()
        request.session["seen"] = True

    @stage.app.after
    def measure(request: Request, reply: Reply, server: Server) -> None:
        took.append(asyncio.get_running_loop().time() - request.session.local["start"])

    async with stage.kit() as kit:
        client = await kit.connect("connector-1")
        await client.request(f"{server_type}.stage.slow", {"seconds": 2.5})
        assert took == [2.5]
        assert await stage.within(client, server_type, lambda session, server: session["seen"])


@virtual
async def test_a_filter_reads_the_body_and_may_exchange_its_bytes() -> None:
    stage = Stage()

    @stage.app.before("chat")
    def exchange(request: Request, server: Server) -> None:
        if request.body(dict[str, int])["n"] == 1:
            request.data = b'{"n": 2}'

    async with stage.kit() as kit:
        client = await kit.connect("connector-1")
        assert await client.request("chat.stage.echo", {"n": 1}) == {"n": 2}
        answer = await client.request("chat.stage.echo", {"n": "x"})
        assert answer == {"code": 400, "message": "Expected `int`, got `str` - at `$[...]`"}


@virtual
async def test_filters_know_a_notify_from_a_request() -> None:
    stage = Stage()
    noted: list[tuple[str, bool]] = []
    stage.app.before(lambda request, server: noted.append((server.type, request.notify)))
    stage.app.global_before(lambda request, server: noted.append(("global", request.notify)))
    async with stage.kit() as kit:
        client = await kit.connect("connector-1")
        for server_type in ("connector", "chat"):
            client.notify(f"{server_type}.stage.echo")
            await kit.settle()
            await client.request(f"{server_type}.stage.echo")
    assert noted == [
        *(("global", True), ("connector", True), ("global", False), ("connector", False)),
        *(("global", True), ("chat", True), ("global", False), ("chat", False)),
    ]


# -- global filters


@HERE_AND_THERE
@virtual
async def test_global_filters_run_on_the_frontend_around_everything_and_after_ones_when_the_answer_is_out(
    server_type: str,
) -> None:
    stage = Stage()
    calls: list[str] = []
    stage.app.before(lambda request, server: calls.append(f"before {server.id}"))
    stage.app.after(lambda request, reply, server: calls.append(f"after {server.id}"))

    @stage.app.global_before
    async def early(request: Request, server: Server) -> None:
        await elapse(1)
        calls.append(f"global before {server.id}")
        request.session.local["mark"] = "left by the global before filter"

    @stage.app.global_after
    def late(request: Request, reply: Reply, server: Server) -> None:
        calls.append(f"global after {server.id} {reply.value!r} {request.session.local['mark']}")
        reply.value, reply.error = {"changed": True}, None

    stage.app.global_before("chat")(lambda request, server: calls.append("never: chat is no frontend"))
    async with stage.kit() as kit:
        client = await kit.connect("connector-1")
        client.respond = lambda request_id, body: calls.append(f"answer {body!r}")  # type: ignore[method-assign]
        client.send_request(f"{server_type}.stage.echo", {"n": 1})
        await elapse(2)
    assert calls == [
        "global before connector-1",
        f"before {server_type}-1",
        f"after {server_type}-1",
        "answer b'{\"n\":1}'",
        "global after connector-1 b'{\"n\":1}' left by the global before filter",
    ]


@virtual
async def test_global_filters_run_in_the_order_of_declaration_and_in_reverse() -> None:
    stage = Stage()
    calls: list[str] = []
    for name in ("one", "two"):
        stage.app.global_before("connector")(lambda request, server, name=name: calls.append(f"before {name}"))
        stage.app.global_after("connector")(lambda request, reply, server, name=name: calls.append(f"after {name}"))
    async with stage.kit() as kit:
        client = await kit.connect("connector-1")
        await client.request("chat.stage.echo")
        await kit.settle()
    assert calls == ["before one", "before two", "after two", "after one"]


@HERE_AND_THERE
@virtual
async def test_a_global_before_filter_that_raises_is_the_answer_and_nothing_leaves_the_frontend(
    server_type: str,
) -> None:
    stage = Stage()
    after: list[Any] = []

    @stage.app.global_before
    def refuse(request: Request, server: Server) -> None:
        if request.session.uid is None:
            raise HandlerError(401, "log in first")

    stage.app.global_after(lambda request, reply, server: after.append(reply.error))
    stage.app.before(lambda request, server: after.append("never"))
    async with stage.kit() as kit:
        client = await kit.connect("connector-1")
        answer = await client.request(f"{server_type}.stage.echo")
        assert answer == {"code": 401, "message": "log in first"}
        await kit.settle()
    assert [str(error) for error in after] == ["401 log in first"]


@virtual
async def test_global_after_filters_see_errors_of_backends_and_of_routing_and_their_own_are_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stage = Stage()
    seen: list[str] = []

    @stage.app.global_after
    async def late(request: Request, reply: Reply, server: Server) -> None:
        seen.append(f"{request.route} {reply.error}")
        raise RuntimeError("a broken global filter")

    async with stage.kit() as kit:
        client = await kit.connect("connector-1")
        assert await client.request("chat.stage.slow", {}) == {"code": 500, "message": "internal error"}
        assert (await client.request("area.stage.echo"))["code"] == 503
        await kit.settle()
    assert seen == ["chat.stage.slow 500 internal error", "area.stage.echo 503 there is no area server"]
    assert caplog.text.count("RuntimeError: a broken global filter") == 2


@virtual
async def test_a_chain_can_be_called_alone() -> None:
    stage = Stage()
    async with stage.kit() as kit:
        server = kit.server("chat-1")
        app = stage.app
        chain = build_chain(app, app.handlers["chat.stage.echo"], server)
        client = await kit.connect("connector-1")
        session = await stage.within(client, "chat", lambda session, server: session)
        assert await chain(Request("chat.stage.echo", session, b"[1]")) == [1]
        with pytest.raises(BadRequest):
            await chain(Request("chat.stage.echo", session, b"["))


@virtual
async def test_a_filter_whose_waiting_is_cancelled_does_not_stop_the_session() -> None:
    stage = Stage()

    @stage.app.global_before
    async def cancelled(request: Request, server: Server) -> None:
        if request.data == b"1":
            task = asyncio.create_task(elapse(1))
            task.cancel()
            await task

    async with stage.kit() as kit:
        client = await kit.connect("connector-1")
        assert await client.request("chat.stage.echo", 1) == {"code": 500, "message": "internal error"}
        assert await client.request("chat.stage.echo", 2) == 2


@virtual
async def test_global_after_filters_run_for_notifies_too() -> None:
    stage = Stage()
    seen: list[tuple[str, bool]] = []
    stage.app.global_after(lambda request, reply, server: seen.append((request.route, request.notify)))
    async with stage.kit() as kit:
        client = await kit.connect("connector-1")
        client.notify("chat.stage.echo", {})
        client.notify("connector.stage.echo", {})
        client.notify("chat.stage.nothing_here", {})
        await kit.settle()
    assert seen == [("connector.stage.echo", True), ("chat.stage.echo", True)]


@virtual
async def test_what_a_global_before_filter_sets_goes_along_with_that_request_alone() -> None:
    stage = Stage()

    def speak(request: Request, server: Server) -> None:
        if request.body(dict).get("german"):
            request.session["language"] = "de"

    stage.app.global_before(speak)

    @stage.app.handler("chat.stage.language")
    @stage.app.handler("connector.stage.language")
    async def language(session: Session) -> dict[str, str | None]:
        return {"language": session.get("language")}

    async with stage.kit() as kit:
        client = await kit.connect("connector-1")
        for server_type in ("chat", "connector"):
            route = f"{server_type}.stage.language"
            assert await client.request(route, {"german": True}) == {"language": "de"}
            assert await client.request(route) == {"language": None}
