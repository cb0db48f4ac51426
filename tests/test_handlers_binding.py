"""Hooks for sessions that are bound and unbound (pomelo's events bind_session and unbind_session), and what any server
can ask about a frontend's clients (getClientAddressBySessionId, getSessionsCount)."""

import asyncio
from typing import Any

import pytest
from support_handlers import Stage, elapse, virtual

from handlers import Accepted, Conflict, Handshake, NotFound, Server, Session

HERE_AND_THERE = pytest.mark.parametrize("server_type", ["connector", "chat"])


def noting(stage: Stage) -> list[tuple[str, str, str | None]]:
    """Return the list in which bind and unbind hooks note what they are told."""
    noted: list[tuple[str, str, str | None]] = []

    @stage.app.on_bind
    def bound(session: Session, server: Server) -> None:
        noted.append(("bound", server.id, session.uid))

    @stage.app.on_unbind("connector")
    async def unbound(session: Session, server: Server) -> None:
        noted.append(("unbound", server.id, session.uid))

    return noted


async def bind(session: Session, server: Server) -> None:
    await session.bind("ada")


async def unbind(session: Session, server: Server) -> None:
    await session.unbind()


@HERE_AND_THERE
@virtual
async def test_the_frontend_alone_is_told_of_each_bind_and_unbind_whoever_asked_for_it(server_type: str) -> None:
    stage = Stage()
    noted = noting(stage)
    async with stage.kit(connectors=2) as kit:
        client = await kit.connect("connector-2")
        for act in (bind, bind, unbind, bind):
            await stage.within(client, server_type, act)
        assert noted == [(what, "connector-2", "ada") for what in ("bound", "unbound", "bound")]


@virtual
async def test_a_bind_or_unbind_that_fails_and_a_close_tell_nothing() -> None:
    stage = Stage()
    noted = noting(stage)
    async with stage.kit() as kit:
        client = await kit.connect("connector-1")
        with pytest.raises(NotFound):
            await stage.within(client, "connector", unbind)
        await stage.within(client, "connector", bind)
        with pytest.raises(Conflict):
            await stage.within(client, "connector", lambda session, server: session.bind("bob"))
        client.close()
        await kit.settle()
        assert noted == [("bound", "connector-1", "ada")]


@virtual
async def test_a_session_that_the_handshake_hook_binds_is_told_of_too() -> None:
    stage = Stage()
    noted = noting(stage)

    @stage.app.handshake
    def accept(handshake: Handshake, server: Server) -> Accepted:
        return Accepted(uid=handshake.user)

    async with stage.kit() as kit:
        await kit.connect("connector-1", "bob")
        await kit.settle()
        assert noted == [("bound", "connector-1", "bob")]


@virtual
async def test_a_bind_hook_can_use_the_session_and_holds_up_no_request() -> None:
    stage = Stage()

    @stage.app.on_bind
    async def greet(session: Session, server: Server) -> None:
        await elapse(5)
        session["greeted"] = session.uid
        await session.push("greeted")

    async with stage.kit() as kit:
        client = await kit.connect("connector-1")
        await stage.within(client, "chat", bind)
        assert asyncio.get_running_loop().time() == 0
        await elapse(6)
        assert await stage.within(client, "chat", lambda session, server: dict(session)) == {"greeted": "ada"}


@virtual
async def test_a_bind_hook_that_raises_is_logged_and_the_others_still_run(caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage()

    @stage.app.on_bind
    def broken(session: Session, server: Server) -> None:
        raise RuntimeError("no luck")

    noted = noting(stage)
    async with stage.kit() as kit:
        await stage.bound(kit, "connector-1", "ada")
        await kit.settle()
    assert noted == [("bound", "connector-1", "ada")]
    assert "no luck" in caplog.text


@HERE_AND_THERE
@virtual
async def test_any_server_learns_a_clients_address_until_the_session_closes(server_type: str) -> None:
    stage = Stage()

    async def ask(session: Session, server: Server) -> Any:
        return await server.sessions.address(session.frontend_id, session.id)

    async with stage.kit() as kit:
        first, second = await kit.connect("connector-1"), await kit.connect("connector-1")
        assert [await stage.within(client, server_type, ask) for client in (first, second)] == [
            ("127.0.0.1", 40000),
            ("127.0.0.1", 40001),
        ]
        first.close()
        assert await kit.server(f"{server_type}-1").sessions.address("connector-1", first.session.id) is None


@HERE_AND_THERE
@virtual
async def test_any_server_learns_how_many_sessions_a_frontend_has_and_how_many_logged_in(server_type: str) -> None:
    stage = Stage()
    async with stage.kit(connectors=2) as kit:
        sessions = kit.server(f"{server_type}-1").sessions
        devices = [await stage.bound(kit, "connector-2", uid) for uid in ("ada", "ada", "bob")]
        await kit.connect("connector-2")
        assert await sessions.count("connector-2") == {"sessions": 4, "logged_in": 3}
        assert await sessions.count("connector-1") == {"sessions": 0, "logged_in": 0}
        devices[0].close()
        await stage.within(devices[1], "connector", unbind)
        assert await sessions.count("connector-2") == {"sessions": 3, "logged_in": 1}
        with pytest.raises(NotFound):
            await sessions.count("chat-1")
