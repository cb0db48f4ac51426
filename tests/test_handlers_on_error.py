"""Error handlers: what the app answers in place of an error (pomelo's errorHandler and globalErrorHandler)."""

from typing import Any

import pytest
from support_handlers import Stage, virtual

from handlers import HandlerError, Reply, Request, Server, Unavailable

INTERNAL = {"code": 500, "message": "internal error"}


@pytest.mark.parametrize("asynchronous", [False, True])
@virtual
async def test_an_error_handler_chooses_the_answer_of_a_handlers_error(
    asynchronous: bool, caplog: pytest.LogCaptureFixture
) -> None:
    stage, asked = Stage(), list[Any]()

    def answer(error: Exception, request: Request, server: Server) -> Any:
        asked.append((str(error), request.route, server.id))
        return {"code": 7, "sorry": True}

    async def answer_later(error: Exception, request: Request, server: Server) -> Any:
        return answer(error, request, server)

    stage.app.on_error(answer_later if asynchronous else answer)
    async with stage.kit() as kit:
        client = await kit.connect("connector-1")
        assert await client.request("chat.stage.crash") == {"code": 7, "sorry": True}
        assert await client.request("connector.stage.crash") == {"code": 7, "sorry": True}
        assert await client.request("chat.stage.echo", 1) == 1
        assert asked == [("the secret of the crash", f"{t}.stage.crash", f"{t}-1") for t in ("chat", "connector")]
    assert not caplog.records


@virtual
async def test_error_handlers_are_asked_in_order_until_one_decides_and_after_filters_see_its_choice() -> None:
    stage, calls = Stage(), list[str]()

    @stage.app.on_error
    def first(error: Exception, request: Request, server: Server) -> None:
        calls.append("first")

    @stage.app.on_error("chat")
    def second(error: Exception, request: Request, server: Server) -> int:
        calls.append("second")
        return 0

    @stage.app.on_error
    def third(error: Exception, request: Request, server: Server) -> str:
        calls.append("third")
        return "third"

    @stage.app.after
    def after(request: Request, reply: Reply, server: Server) -> None:
        calls.append(f"after {reply.value!r} {reply.error!r}")

    async with stage.kit() as kit:
        client = await kit.connect("connector-1")
        assert await client.request("chat.stage.crash") == 0
        assert await client.request("connector.stage.crash") == "third"
        assert calls == ["first", "second", "after 0 None", "first", "third", "after 'third' None"]


@virtual
async def test_what_an_error_handler_raises_is_the_answer_and_none_leaves_the_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stage = Stage()
    choice: list[Any] = [HandlerError(1001, "try later"), KeyError("broken"), None]

    @stage.app.on_error
    def raise_it(error: Exception, request: Request, server: Server) -> None:
        raised = choice.pop(0)
        if raised is not None:
            raise raised

    async with stage.kit() as kit:
        client = await kit.connect("connector-1")
        assert await client.request("chat.stage.crash") == {"code": 1001, "message": "try later"}
        assert not caplog.records
        assert await client.request("chat.stage.crash") == INTERNAL
        assert "KeyError: 'broken'" in caplog.text
        assert "the secret of the crash" in caplog.text  # both are in the log, the first as the second's context
        assert await client.request("chat.stage.crash") == INTERNAL


@virtual
async def test_filter_service_js_a_before_filters_error_goes_to_the_error_handler_and_skips_the_handler() -> None:
    stage = Stage()

    @stage.app.before("chat")
    def refuse(request: Request, server: Server) -> None:
        raise HandlerError(403, "not you")

    @stage.app.on_error
    def answer(error: Exception, request: Request, server: Server) -> Any:
        assert isinstance(error, HandlerError)
        return {"was": error.code}

    async with stage.kit() as kit:
        client = await kit.connect("connector-1")
        assert await client.request("chat.stage.echo", 1) == {"was": 403}


@virtual
async def test_global_error_handlers_choose_the_answer_of_global_filters_and_of_routing() -> None:
    stage, told = Stage(), list[str]()

    @stage.app.global_before
    def refuse(request: Request, server: Server) -> None:
        if request.route == "chat.stage.crash":
            raise RuntimeError("refused")

    @stage.app.on_global_error
    async def answer(error: Exception, request: Request, server: Server) -> Any:
        told.append(f"{type(error).__name__} on {server.id}")
        return {"code": 600} if isinstance(error, RuntimeError) else None

    @stage.app.global_after
    def after(request: Request, reply: Reply, server: Server) -> None:
        told.append(f"after {reply.value!r}")

    async with stage.kit() as kit:
        client = await kit.connect("connector-1")
        assert await client.request("chat.stage.crash") == {"code": 600}
        assert await client.request("area.stage.echo") == {"code": 503, "message": "there is no area server"}
        await kit.settle()
        assert told[0] == "RuntimeError on connector-1"
        assert "after b'{\"code\":600}'" in told
        assert f"{Unavailable.__name__} on connector-1" in told
        # What a handler raises is not its affair.
        told.clear()
        assert await client.request("connector.stage.crash") == INTERNAL
        await kit.settle()
        assert told == ["after b'internal error'"]


@virtual
async def test_a_global_error_handler_whose_answer_is_no_json_is_500_and_a_notify_has_no_answer() -> None:
    stage = Stage()

    @stage.app.on_global_error
    def answer(error: Exception, request: Request, server: Server) -> Any:
        return object()

    async with stage.kit() as kit:
        client = await kit.connect("connector-1")
        client.notify("area.stage.echo")
        assert await client.request("area.stage.echo") == INTERNAL


@virtual
async def test_a_route_that_is_not_there_is_404_before_any_filter_or_error_handler_is_asked() -> None:
    stage, asked = Stage(), list[str]()

    def before(request: Request, server: Server) -> None:
        asked.append(f"before {request.route}")

    def after(request: Request, reply: Reply, server: Server) -> None:
        asked.append(f"after {request.route}")

    def answer(error: Exception, request: Request, server: Server) -> Any:
        asked.append(f"error {request.route}")

    stage.app.global_before(before)
    stage.app.global_after(after)
    stage.app.on_global_error(answer)
    stage.app.on_error(answer)
    async with stage.kit() as kit:
        client = await kit.connect("connector-1")
        for route in ("chat.stage.nothing", "moon.stage.echo", "chat", "connector.stage.nothing"):
            assert await client.request(route) == {"code": 404, "message": f"no such route: {route}"}
        assert asked == []
        assert await client.request("chat.stage.echo", 1) == 1
        assert asked == ["before chat.stage.echo", "after chat.stage.echo"]
