"""What a game declares, and what is refused (what of pomelo's application.js and handlerService.js is about it)."""

from typing import Annotated, Any

import msgspec
import pytest
from support_handlers import Stage, virtual

from handlers import App, AppError, Server, Session
from handlers.kit import Kit

Name = Annotated[str, msgspec.Meta(min_length=1)]


class Here(msgspec.Struct):
    x: int


class There(msgspec.Struct):
    x: int


async def nothing() -> None: ...


@pytest.mark.parametrize("route", ["", "a", "a.b", "a.b.c.d", ".b.c", "a..c", "a.b.", "x" * 250 + ".b.cde"])
def test_a_route_that_is_not_three_parts_of_255_bytes_is_refused(route: str) -> None:
    app = App("test")
    with pytest.raises(AppError, match="a route is"):
        app.handler(route)(nothing)
    with pytest.raises(AppError, match="a route is"):
        app.remote(route)
    assert not app.handlers
    assert not app.remotes


def test_the_255_bytes_of_a_route_are_counted_in_utf_8() -> None:
    app = App("test")
    app.handler("柚" * 83 + ".ab.cd")(nothing)
    with pytest.raises(AppError, match="at most 255 bytes"):
        app.handler("柚" * 84 + ".ab.cd")(nothing)


def test_a_route_is_declared_once_but_a_remote_may_have_a_handlers_name() -> None:
    app = App("test")
    app.handler("chat.room.say")(nothing)
    app.remote("chat.room.say")(nothing)
    with pytest.raises(AppError, match=r"the route 'chat\.room\.say' is declared twice"):
        app.handler("chat.room.say")(nothing)
    with pytest.raises(AppError, match=r"the remote 'chat\.room\.say' is declared twice"):
        app.remote("chat.room.say")(nothing)


def test_the_decorated_handler_stays_the_function_it_was() -> None:
    assert App("test").handler("chat.room.say")(nothing) is nothing


def test_a_handler_and_a_remote_must_be_async() -> None:
    app = App("test")
    plain: Any = lambda msg: msg  # noqa: E731
    with pytest.raises(AppError, match=r"the handler of 'chat\.room\.say' must be an async function"):
        app.handler("chat.room.say")(plain)
    with pytest.raises(AppError, match=r"the remote 'chat\.room\.say' must be an async function"):
        app.remote("chat.room.say")(plain)


def test_a_handler_asks_for_msg_session_and_server_and_nothing_else() -> None:
    app = App("test")

    async def wanting(msg: Any, sessions: Any, next_: Any) -> None: ...
    async def starred(*msg: Any) -> None: ...
    async def positional(msg: Any, /) -> None: ...

    with pytest.raises(AppError, match="asks for next_, sessions; there are msg, session and server"):
        app.handler("chat.room.say")(wanting)
    for function in (starred, positional):
        with pytest.raises(AppError, match="asks for msg"):
            app.handler("chat.room.say")(function)


def test_the_second_route_function_of_a_type_and_the_second_handshake_hook_are_refused() -> None:
    app = App("test")
    app.route("chat")(lambda request, servers: servers[0])
    app.handshake(lambda handshake, server: None)
    with pytest.raises(AppError, match="the route function of 'chat' is declared twice"):
        app.route("chat")(lambda request, servers: servers[0])
    with pytest.raises(AppError, match="the handshake hook is declared twice"):
        app.handshake(lambda handshake, server: None)


@virtual
async def test_nothing_can_be_declared_once_a_server_has_started() -> None:
    app = App("game")
    declarations: list[Any] = [
        app.handler("chat.room.late"),
        app.remote("chat.room.late"),
        app.route("chat"),
        app.handshake,
        *(app.before, app.after, app.global_before, app.global_after, app.on_start, app.on_stop, app.on_close),
        app.before("chat"),
    ]
    async with Kit(app, frontends={"connector": 1}):
        for declare in declarations:
            with pytest.raises(AppError, match="the app 'game' has started"):
                declare(nothing)


def test_mistakes_lists_every_one_of_them() -> None:
    app = App("test")
    app.handler("chat.room.say")(nothing)
    known: list[Any] = [app.before("chat"), app.after("connector"), app.route("gate"), app.on_close]
    wrong: list[Any] = [app.before("b"), app.after("a"), app.global_before("gb"), app.global_after("ga")]
    wrong += [app.on_start("start"), app.on_stop("stop"), app.on_close("close"), app.before("a"), app.route("r")]
    for declare in (*known, *wrong):
        declare(nothing)

    async def unresolved(msg: "Missing") -> None: ...  # type: ignore[name-defined]  # noqa: F821
    async def attributed(msg: "msgspec.Strukt") -> None: ...  # type: ignore[name-defined]
    async def undecodable(msg: Here | There) -> None: ...

    app.handler("chat.room.unresolved")(unresolved)
    app.handler("chat.room.attributed")(attributed)
    app.handler("chat.room.undecodable")(undecodable)
    mistakes = app.mistakes(["connector", "gate"])
    for server_type in ("a", "b", "gb", "ga", "start", "stop", "close", "r"):
        assert any(f"the server type {server_type!r}, which does not exist" in line for line in mistakes), server_type
    for route in ("unresolved", "attributed", "undecodable"):
        assert any(f"the handler of 'chat.room.{route}'" in line for line in mistakes), route
    assert len(mistakes) == 12
    assert mistakes == app.mistakes(["gate", "connector"])
    with pytest.raises(AppError, match="which does not exist; "):
        Kit(app, frontends={"connector": 1})


def test_a_sound_app_has_no_mistakes() -> None:
    assert Stage().app.mistakes(["connector", "chat"]) == []


def test_the_server_types_are_those_of_handlers_and_remotes() -> None:
    app = App("test")
    app.handler("chat.room.say")(nothing)
    app.remote("area.map.enter")(nothing)
    assert app.server_types() == {"chat", "area"}


def test_a_handlers_schema_is_the_annotation_of_msg_with_its_constraints() -> None:
    app = App("test")

    async def typed(msg: Name, session: Session, server: Server) -> None: ...

    app.handler("chat.room.typed")(typed)
    app.handler("chat.room.untyped")(nothing)
    assert app.handlers["chat.room.typed"].schema == Name
    assert app.handlers["chat.room.untyped"].schema is Any


@virtual
async def test_a_start_hook_that_raises_keeps_the_server_from_starting() -> None:
    app = App("test")

    @app.on_start("chat")
    def broken(server: Server) -> None:
        raise RuntimeError(f"no map for {server.id}")

    with pytest.raises(RuntimeError, match="no map for chat-1"):
        async with Kit(app, frontends={"connector": 1}, backends={"chat": 1}):
            pass  # pragma: no cover


@virtual
async def test_start_hooks_run_in_order_and_stop_hooks_in_reverse_even_if_one_raises(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = App("test")
    calls: list[str] = []

    @app.on_start
    async def first(server: Server) -> None:
        calls.append(f"first {server.id}")

    @app.on_start("chat")
    def second(server: Server) -> None:
        calls.append(f"second {server.id}")

    @app.on_stop
    async def last(server: Server) -> None:
        calls.append(f"last {server.id}")

    @app.on_stop("chat")
    def broken(server: Server) -> None:
        calls.append("broken")
        raise RuntimeError("cannot save")

    async with Kit(app, frontends={"connector": 1}, backends={"chat": 1}):
        assert calls == ["first connector-1", "first chat-1", "second chat-1"]
        calls.clear()
    assert calls == ["last connector-1", "broken", "last chat-1"]
    assert "cannot save" in caplog.text
