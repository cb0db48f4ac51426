"""What clients see when something goes wrong, and what the log keeps."""

import asyncio
import pickle
from typing import Any

import pytest
from support_handlers import Stage, elapse, virtual

from handlers import (
    App,
    BadRequest,
    ChannelNotFound,
    Conflict,
    HandlerError,
    NotFound,
    PummeloError,
    TimedOut,
    TooMany,
    Unavailable,
)
from handlers.errors import error_for, error_from
from handlers.kit import Kit

CODED = {400: BadRequest, 404: NotFound, 409: Conflict, 429: TooMany, 503: Unavailable, 504: TimedOut}
HERE_AND_THERE = pytest.mark.parametrize("server_type", ["connector", "chat"])


async def answer_of(error: Exception, server_type: str) -> Any:
    """Return what a client is answered when a handler raises ``error``."""
    app = App("test")

    @app.handler(f"{server_type}.t.failing")
    async def failing() -> None:
        raise error

    async with Kit(app, frontends={"connector": 1}, backends={"chat": 1}) as kit:
        client = await kit.connect("connector-1")
        answer = await client.request(f"{server_type}.t.failing")
        assert not client.closed
        return answer


@HERE_AND_THERE
@virtual
async def test_a_handler_error_is_answered_with_its_code_and_message(server_type: str) -> None:
    assert await answer_of(HandlerError(1234, "no gold: ü"), server_type) == {"code": 1234, "message": "no gold: ü"}
    assert await answer_of(Conflict("taken"), server_type) == {"code": 409, "message": "taken"}


@HERE_AND_THERE
@virtual
async def test_any_other_exception_is_500_without_detail_and_logged_with_its_traceback(
    server_type: str, caplog: pytest.LogCaptureFixture
) -> None:
    stage = Stage()
    async with stage.kit() as kit:
        client = await kit.connect("connector-1")
        assert await client.request(f"{server_type}.stage.crash") == {"code": 500, "message": "internal error"}
        assert await client.request(f"{server_type}.stage.echo", {"still": "here"}) == {"still": "here"}
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.getMessage().startswith(f"{server_type}-1: <Request {server_type}.stage.crash of <Session")
    assert "the secret of the crash" in caplog.text
    assert "Traceback" in caplog.text


@virtual
async def test_a_pummelo_error_that_is_no_answer_stays_inside(caplog: pytest.LogCaptureFixture) -> None:
    answer = await answer_of(ChannelNotFound("no such channel here: 'vault'"), "chat")
    assert answer == {"code": 500, "message": "internal error"}
    assert "vault" in caplog.text


@HERE_AND_THERE
@virtual
async def test_a_cancellation_that_a_handler_met_is_an_error_like_any_other(
    server_type: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = App("test")

    @app.handler(f"{server_type}.t.cancelled")
    async def cancelled() -> None:
        task = asyncio.create_task(elapse(60))
        task.cancel()
        await task

    async with Kit(app, frontends={"connector": 1}, backends={"chat": 1}) as kit:
        client = await kit.connect("connector-1")
        answers = [client.send_request(f"{server_type}.t.cancelled") for _ in range(2)]
        for answer in answers:
            assert await answer == {"code": 500, "message": "internal error"}
    assert "CancelledError" in caplog.text


@HERE_AND_THERE
@pytest.mark.parametrize("message", [5, None, "\ud800", {"a": 1}])
@virtual
async def test_an_odd_message_of_an_error_still_becomes_an_answer(server_type: str, message: Any) -> None:
    answer = await answer_of(HandlerError(400, message), server_type)
    assert answer["code"] == 400
    assert isinstance(answer["message"], str)


@HERE_AND_THERE
@virtual
async def test_an_error_whose_code_was_changed_to_no_number_still_becomes_an_answer(server_type: str) -> None:
    error: Any = HandlerError(400, "odd")
    error.code = "strange"
    assert await answer_of(error, server_type) == {"code": 500, "message": "odd"}


@pytest.mark.parametrize("code", [0, None, "500"])
def test_an_error_without_a_real_code_is_refused_where_it_is_made(code: Any) -> None:
    with pytest.raises(ValueError, match="an error's code is a number, and not 0"):
        HandlerError(code, "nothing wrong")


@HERE_AND_THERE
@virtual
async def test_a_code_of_the_handlers_own_is_kept(server_type: str) -> None:
    stage = Stage()
    async with stage.kit() as kit:
        client = await kit.connect("connector-1")
        answer = await client.request(f"{server_type}.stage.echo", {"code": 1001, "x": 1})
        assert answer == {"code": 1001, "x": 1}


@pytest.mark.parametrize("route", ["chat.stage.nothing", "nowhere.a.b", "chat.stage", "x", "a.b.c.d", "chat.stage."])
@virtual
async def test_an_unknown_route_is_404_and_names_it(route: str) -> None:
    async with Stage().kit() as kit:
        client = await kit.connect("connector-1")
        assert await client.request(route) == {"code": 404, "message": f"no such route: {route}"}


@pytest.mark.parametrize("route", [None, ""])
@virtual
async def test_an_unknown_dictionary_code_and_an_empty_route_are_404(route: str | None) -> None:
    async with Stage().kit() as kit:
        client = await kit.connect("connector-1")
        answer = client.send_request("chat.stage.echo")
        frontend = kit.nodes["connector-1"].frontend
        assert frontend is not None
        await answer
        waiting = client._answers[99] = asyncio.get_running_loop().create_future()
        frontend.message(client.session, 99, route, b"{}")
        assert await waiting == {"code": 404, "message": "no such route"}


@virtual
async def test_a_type_without_servers_is_503() -> None:
    async with Stage().kit() as kit:
        client = await kit.connect("connector-1")
        answer = await client.request("area.stage.echo")
        assert answer == {"code": 503, "message": "there is no area server"}


@virtual
async def test_a_notify_is_answered_nothing_whatever_happens_to_it(caplog: pytest.LogCaptureFixture) -> None:
    async with Stage().kit() as kit:
        client = await kit.connect("connector-1")
        responses: list[int] = []
        client.respond = lambda request_id, body: responses.append(request_id)  # type: ignore[method-assign]
        for server_type in ("connector", "chat", "area"):
            for method in ("echo", "crash", "nothing"):
                client.notify(f"{server_type}.stage.{method}", {})
        await kit.settle()
        assert responses == []
        assert not client.closed
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]


@pytest.mark.parametrize(("code", "kind"), CODED.items())
def test_each_error_keeps_its_class_from_server_to_server(code: int, kind: type[HandlerError]) -> None:
    error = error_from(code, "why")
    assert type(error) is kind
    assert (error.code, error.message, str(error)) == (code, "why", f"{code} why")
    assert type(pickle.loads(pickle.dumps(error))) is kind


def test_a_code_of_the_games_own_comes_back_as_a_handler_error() -> None:
    error = error_from(1001, "no gold")
    assert type(error) is HandlerError
    assert error_for(error, "unused") == (1001, "no gold")


def test_every_error_has_the_same_root_and_channel_not_found_is_a_lookup_error() -> None:
    assert issubclass(HandlerError, PummeloError)
    assert issubclass(ChannelNotFound, (PummeloError, LookupError))
    assert not issubclass(ChannelNotFound, HandlerError)
