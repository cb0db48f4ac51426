"""The app's handshake hook: who is let in, under which name, and what they are told."""

from typing import Any

import pytest
from support_handlers import Stage, elapse, virtual

from handlers import Accepted, Handshake, Refused, Server
from handlers.settings import Settings


@virtual
async def test_without_a_hook_everybody_is_let_in() -> None:
    async with Stage().kit() as kit:
        client = await kit.connect("connector-1", user={"token": "x"})
        assert client.welcome is None
        assert client.session.uid is None


@pytest.mark.parametrize("asynchronous", [False, True])
@virtual
async def test_the_hook_sees_the_clients_data_and_answers_with_its_own_and_a_uid(asynchronous: bool) -> None:
    stage = Stage()
    asked: list[Any] = []

    def check(handshake: Handshake, server: Server) -> Accepted:
        asked.append((handshake.user, handshake.address[0], handshake.client_type, server.id))
        return Accepted(user={"hello": handshake.user["name"]}, uid=handshake.user["id"])

    async def check_later(handshake: Handshake, server: Server) -> Accepted:
        await elapse(1)
        return check(handshake, server)

    stage.app.handshake(check_later if asynchronous else check)
    async with stage.kit() as kit:
        client = await kit.connect("connector-1", user={"name": "alice", "id": 7})
        assert asked == [({"name": "alice", "id": 7}, "127.0.0.1", "kit", "connector-1")]
        assert client.welcome == {"hello": "alice"}
        assert await stage.within(client, "chat", lambda session, server: session.uid) == "7"
        assert len(await kit.server("chat-1").sessions.get_by_uid("connector-1", 7)) == 1


@virtual
async def test_a_uid_of_the_handshake_kicks_the_earlier_login_with_single_session() -> None:
    stage = Stage()
    stage.app.handshake(lambda handshake, server: Accepted(uid=handshake.user))
    async with stage.kit(settings=Settings(single_session=True)) as kit:
        first, second = await kit.connect("connector-1", "alice"), await kit.connect("connector-1", "alice")
        assert first.kicked == "logged in elsewhere"
        assert not second.closed


@virtual
async def test_a_hook_that_returns_nothing_lets_the_client_in() -> None:
    stage = Stage()
    stage.app.handshake(lambda handshake, server: None)
    async with stage.kit() as kit:
        assert (await kit.connect("connector-1")).welcome is None


@pytest.mark.parametrize("asynchronous", [False, True])
@virtual
async def test_a_refused_client_gets_the_code_and_opens_no_session(asynchronous: bool) -> None:
    stage = Stage()

    def check(handshake: Handshake, server: Server) -> Accepted:
        raise Refused(401, {"why": "no token"})

    async def check_later(handshake: Handshake, server: Server) -> Accepted:
        return check(handshake, server)

    stage.app.handshake(check_later if asynchronous else check)
    async with stage.kit() as kit:
        with pytest.raises(Refused) as caught:
            await kit.connect("connector-1")
        assert (caught.value.code, caught.value.user) == (401, {"why": "no token"})
        frontend = kit.nodes["connector-1"].frontend
        assert frontend is not None
        assert len(frontend.sessions) == 0


@pytest.mark.parametrize("uid", ["", True, 1.5])
def test_a_uid_that_could_not_be_bound_cannot_be_accepted(uid: Any) -> None:
    with pytest.raises(ValueError, match="a uid is text or an integer"):
        Accepted(uid=uid)


def test_a_refusal_is_500_unless_it_says_otherwise() -> None:
    assert (Refused().code, Refused().user) == (500, None)
