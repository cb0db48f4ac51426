"""Sessions of one user on many devices, kicks, look-ups from any server, and goodbyes (pomelo's sessionService: bind,
kick by uid and by sid, unknown ones; backendSessionService)."""

import time
from typing import Any

import pytest
from support_handlers import Stage, elapse, virtual

from handlers import HandlerError, NotFound, Server, Session, Unavailable
from handlers.settings import Settings

HERE_AND_THERE = pytest.mark.parametrize("server_type", ["connector", "chat"])


@virtual
async def test_a_user_may_have_sessions_on_two_devices_of_two_frontends() -> None:
    stage = Stage()
    async with stage.kit(connectors=2) as kit:
        devices = [await stage.bound(kit, f"connector-{number}", "alice") for number in (1, 1, 2)]
        found = [await kit.server("chat-1").sessions.get_by_uid(f"connector-{n}", "alice") for n in (1, 2)]
        assert [[session.id for session in some] for some in found] == [
            [devices[0].session.id, devices[1].session.id],
            [devices[2].session.id],
        ]
        kit.server("chat-1").channels.push_to([("alice", "connector-1"), ("alice", "connector-2")], "onNews", {"n": 1})
        for device in devices:
            assert await device.pushed("onNews") == {"n": 1}
            assert device.kicked is None


@pytest.mark.parametrize("server_type", ["connector", "chat"])
@virtual
async def test_with_single_session_a_new_login_kicks_the_earlier_one(server_type: str) -> None:
    stage = Stage()
    async with stage.kit(settings=Settings(single_session=True)) as kit:
        room = kit.server("chat-1").channels.create("tea")
        first = await stage.bound(kit, "connector-1", "alice")
        room.add("alice", "connector-1")
        second = await kit.connect("connector-1")
        await stage.within(second, server_type, lambda session, server: session.bind("alice"))
        assert first.kicked == "logged in elsewhere"
        assert first.closed
        assert second.kicked is None
        await kit.settle()
        room.push("onNews", {})
        assert await second.pushed("onNews") == {}
        assert first.pushes == []


@HERE_AND_THERE
@virtual
async def test_a_session_is_kicked_with_the_reason_that_the_handler_gives(server_type: str) -> None:
    stage = Stage()
    async with stage.kit() as kit:
        rude, quiet = await kit.connect("connector-1"), await kit.connect("connector-1")
        session = await stage.within(rude, server_type, lambda session, server: session)
        await session.kick("mind your language")
        assert rude.kicked == "mind your language"
        assert rude.closed
        other = await stage.within(quiet, server_type, lambda session, server: session)
        await other.kick()
        assert quiet.kicked == "kick"


@virtual
async def test_a_handler_that_kicks_its_own_session_finishes() -> None:
    stage = Stage()
    async with stage.kit() as kit:
        client = await kit.connect("connector-1")
        finished: list[str] = []

        async def leave(session: Session, server: Server) -> None:
            await session.kick("bye")
            finished.append(session.frontend_id)

        with pytest.raises(ConnectionError, match="kick: bye"):
            await stage.within(client, "chat", leave)
        await kit.settle()
        assert finished == ["connector-1"]


@HERE_AND_THERE
@virtual
async def test_what_goes_wrong_on_the_frontend_is_an_internal_error_for_whoever_asked_and_is_logged(
    server_type: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stage = Stage()
    async with stage.kit() as kit:
        client = await kit.connect("connector-1")
        session = await stage.within(client, server_type, lambda session, server: session)

        def broken(reason: str) -> None:
            raise RuntimeError("a defect of the frontend")

        monkeypatch.setattr(client, "kick", broken)
        with pytest.raises(HandlerError, match=r"^500 internal error$"):
            await session.kick()
        assert "a defect of the frontend" in caplog.text


@HERE_AND_THERE
@virtual
async def test_a_frontend_that_takes_no_clients_tells_whoever_asks_for_its_counts(server_type: str) -> None:
    async with Stage().kit() as kit:
        frontend = kit.nodes["connector-1"].frontend
        assert frontend is not None
        frontend.takes_clients = False
        with pytest.raises(Unavailable, match="503 connector-1 takes no clients"):
            await kit.server(f"{server_type}-1").sessions.count("connector-1")


@HERE_AND_THERE
@virtual
async def test_any_server_looks_up_a_session_as_its_frontend_has_it_now(server_type: str) -> None:
    stage = Stage()
    async with stage.kit(connectors=2) as kit:
        client = await stage.bound(kit, "connector-1", "alice")

        async def put(session: Session, server: Server) -> None:
            session["level"] = 7
            await session.push("level")

        await stage.within(client, "connector", put)
        sessions = kit.server(f"{server_type}-1").sessions
        found = await sessions.get("connector-1", client.session.id)
        assert found is not None
        assert (found.id, found.uid, found.frontend_id, dict(found)) == (
            client.session.id,
            "alice",
            "connector-1",
            {"level": 7},
        )
        found["level"] = 8
        await found.push("level")
        assert client.session.values == {"level": 8}


@HERE_AND_THERE
@virtual
async def test_a_session_that_is_not_there_is_none_and_kicking_it_is_success(server_type: str) -> None:
    stage = Stage()
    async with stage.kit(connectors=2) as kit:
        client = await stage.bound(kit, "connector-1", "alice")
        sessions = kit.server(f"{server_type}-1").sessions
        assert await sessions.get("connector-2", client.session.id) is None
        assert await sessions.get("connector-1", 99) is None
        assert await sessions.get_by_uid("connector-1", "bob") == []
        await sessions.kick("connector-1", 99)
        await sessions.kick_by_uid("connector-1", "bob")
        await sessions.kick_by_uid("connector-2", "alice")
        assert client.kicked is None


@HERE_AND_THERE
@virtual
async def test_sessions_are_kicked_by_id_and_by_uid_from_any_server(server_type: str) -> None:
    stage = Stage()
    async with stage.kit() as kit:
        clients = [await stage.bound(kit, "connector-1", uid) for uid in ("alice", "alice", "7", "carol")]
        sessions = kit.server(f"{server_type}-1").sessions
        await sessions.kick_by_uid("connector-1", "alice", "both devices")
        await sessions.kick_by_uid("connector-1", 7)
        await sessions.kick("connector-1", clients[3].session.id, "by id")
        assert [client.kicked for client in clients] == ["both devices", "both devices", "kick", "by id"]


@virtual
async def test_asking_a_frontend_that_is_lost_or_never_was_raises() -> None:
    async with Stage().kit(connectors=2) as kit:
        sessions = kit.server("chat-1").sessions
        kit.lose("connector-2")
        with pytest.raises(Unavailable):
            await sessions.get("connector-2", 1)
        with pytest.raises(NotFound, match="there is no server 'connector-3'"):
            await sessions.get("connector-3", 1)


# -- goodbyes


@pytest.mark.parametrize("server_type", ["connector", "chat"])
@virtual
async def test_a_closed_callback_is_called_once_with_the_session_and_the_reason(server_type: str) -> None:
    stage = Stage()
    async with stage.kit() as kit:
        client = await stage.bound(kit, "connector-1", "alice")
        heard: list[Any] = []

        async def watch(session: Session, server: Server) -> Session:
            async def gone(session: Session, reason: str) -> None:
                await elapse(1)
                heard.append((session.uid, reason))

            session.on_closed(gone)
            session.on_closed(lambda session, reason: heard.append(("plain", reason)))
            return session

        await stage.within(client, server_type, watch)
        client.close("went to bed")
        await elapse(2)
        assert sorted(heard) == [("alice", "went to bed"), ("plain", "went to bed")]


@HERE_AND_THERE
@virtual
async def test_a_closed_callback_registered_after_the_close_comes_soon(server_type: str) -> None:
    stage = Stage()
    async with stage.kit() as kit:
        client = await kit.connect("connector-1")
        session = await stage.within(client, server_type, lambda session, server: session)
        client.close()
        await kit.settle()
        heard: list[str] = []
        session.on_closed(lambda session, reason: heard.append(reason))
        await kit.settle()
        assert heard == ["closed before"]
        assert kit.nodes[f"{server_type}-1"].closings._watches == {}


@virtual
async def test_a_closed_callback_hears_that_the_frontend_is_lost() -> None:
    stage = Stage()
    async with stage.kit(connectors=2) as kit:
        heard: list[tuple[str, str]] = []
        for number in (1, 2):
            client = await kit.connect(f"connector-{number}")
            session = await stage.within(client, "chat", lambda session, server: session)
            session.on_closed(lambda session, reason: heard.append((session.frontend_id, reason)))
        await kit.settle()
        kit.lose("connector-1")
        await kit.settle()
        assert heard == [("connector-1", "frontend lost")]
        with pytest.raises(Unavailable):
            Session(1 << 32, "connector-1", None, b"", kit.nodes["chat-1"]).on_closed(print)
        kit.nodes["chat-1"].lost("connector-1")
        await kit.settle()
        assert heard == [("connector-1", "frontend lost")]


@virtual
async def test_a_closed_callback_that_raises_is_logged_and_the_others_still_run(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stage = Stage()
    async with stage.kit() as kit:
        client = await kit.connect("connector-1")
        session = await stage.within(client, "chat", lambda session, server: session)
        heard: list[str] = []

        def broken(session: Session, reason: str) -> None:
            raise RuntimeError("cannot say goodbye")

        session.on_closed(broken)
        session.on_closed(lambda session, reason: heard.append(reason))
        client.close()
        await kit.settle()
        assert heard == ["client closed"]
        assert "cannot say goodbye" in caplog.text


@virtual
async def test_close_hooks_run_once_on_the_frontend_and_on_each_backend_that_dealt_with_the_session() -> None:
    stage = Stage()
    heard: list[tuple[str, str | None, str, dict[str, Any]]] = []

    @stage.app.on_close
    async def everywhere(session: Session, reason: str, server: Server) -> None:
        heard.append((server.id, session.uid, reason, dict(session)))

    @stage.app.on_close("gate")
    async def elsewhere(session: Session, reason: str, server: Server) -> None:
        raise AssertionError("this session has nothing to do with a gate")

    async with stage.kit(connectors=2, chats=3) as kit:
        client = await stage.bound(kit, "connector-1", "alice")

        async def put(session: Session, server: Server) -> str:
            session["level"] = 7
            await session.push("level")
            return server.id

        chat = await stage.within(client, "chat", put)
        await kit.server("chat-1").sessions.get("connector-1", client.session.id)
        client.close("bye")
        client.close("again")
        await kit.settle()
        dealt = {"connector-1", "chat-1", chat}
        assert sorted(heard) == [(server_id, "alice", "bye", {"level": 7}) for server_id in sorted(dealt)]


@virtual
async def test_the_close_hook_of_a_session_that_spoke_to_nobody_runs_on_its_frontend() -> None:
    stage = Stage()
    heard: list[str] = []
    stage.app.on_close(lambda session, reason, server: heard.append(f"{server.id} {reason}"))
    async with stage.kit() as kit:
        client = await kit.connect("connector-1")
        client.close()
        await kit.settle()
        assert heard == ["connector-1 client closed"]


@virtual
async def test_a_close_hook_that_raises_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    stage = Stage()

    @stage.app.on_close("connector")
    async def broken(session: Session, reason: str, server: Server) -> None:
        raise RuntimeError("cannot tidy up")

    async with stage.kit() as kit:
        (await kit.connect("connector-1")).close()
        await kit.settle()
        assert "cannot tidy up" in caplog.text


@virtual
async def test_connection_service_js_logins_are_counted_listed_and_never_below_zero() -> None:
    stage = Stage()
    async with stage.kit() as kit:
        frontend = kit.nodes["connector-1"].frontend
        assert frontend is not None
        service = frontend.sessions
        clients = [await stage.bound(kit, "connector-1", uid) for uid in ("ada", "ada", "bob")]
        await kit.connect("connector-1")
        assert (len(service), service.logged_in) == (4, 3)
        logins = service.logins()
        assert [login[:2] for login in logins] == [
            (uid, client.session.id) for uid, client in zip(("ada", "ada", "bob"), clients, strict=True)
        ]
        assert all(abs(since - time.time()) < 60 for _, _, since in logins)
        await stage.within(clients[0], "connector", lambda session, server: session.unbind())
        assert (len(service), service.logged_in) == (4, 2)
        for client in (*clients, *clients):
            client.close()
            service.close(client.session)
        assert (len(service), service.logged_in, service.logins()) == (1, 0, [])


@virtual
async def test_what_a_request_queued_of_a_closed_session_is_answered_to_the_frontend_and_never_runs() -> None:
    stage = Stage()
    async with stage.kit(connectors=2) as kit:
        client = await kit.connect("connector-1")
        for _ in range(5):
            client.send_request("chat.stage.slow", {"seconds": 5})
        await kit.settle()
        kit.lose("connector-1")
        await elapse(6)
        assert kit.nodes["chat-1"].dispatcher.running == 0
