"""Sessions and errors over real sockets, Ray and processes."""

import asyncio
from typing import Any

import pytest
from pomelo_client import PomeloClient
from running import RunningGame
from waiting import eventually

from handlers import rendezvous

pytestmark = pytest.mark.real
AREAS = ("area-1", "area-2")


def uid_on(server_id: str, prefix: str = "user") -> str:
    """Return a uid whose requests go to a server."""
    return next(uid for number in range(1000) if rendezvous(uid := f"{prefix}{number}", AREAS) == server_id)


def test_two_devices_of_one_user_on_two_connectors_both_hear_the_room(game: RunningGame) -> None:
    async def scenario() -> None:
        async with PomeloClient(game.urls["connector-1"]) as phone, PomeloClient(game.urls["connector-2"]) as desk:
            for device in (phone, desk):
                assert await device.request("connector.entry.login", {"uid": "dora"}) == {}
                assert (await device.request("area.room.join", {"room": "home"}))["present"]
            assert await phone.request("area.room.members", {"room": "home"}) == ["dora"]
            assert await phone.request("area.room.say", {"room": "home", "text": "hi"}) == {"failed": []}
            for device in (phone, desk):
                assert await device.pushed("onSaid") == {"text": "hi", "from": "dora"}

    asyncio.run(scenario())


def test_a_member_whose_connection_closes_leaves_the_channel_by_itself(game: RunningGame) -> None:
    async def scenario() -> None:
        async with PomeloClient(game.urls["connector-1"]) as stays:
            await stays.request("connector.entry.login", {"uid": uid_on("area-1", "stays")})
            server = await stays.request("area.room.join", {"room": "leaving"})
            async with PomeloClient(game.urls["connector-2"]) as goes:
                await goes.request("connector.entry.login", {"uid": uid_on(server["server"], "goes")})
                assert await goes.request("area.room.join", {"room": "leaving"}) == server
                assert len(await stays.request("area.room.members", {"room": "leaving"})) == 2
            await until(stays, "area.room.members", {"room": "leaving"}, lambda members: len(members) == 1)

    asyncio.run(scenario())


def test_asking_another_server_for_a_channel_gives_the_clear_error(game: RunningGame) -> None:
    async def scenario() -> None:
        async with PomeloClient(game.urls["connector-1"]) as one, PomeloClient(game.urls["connector-1"]) as other:
            await one.request("connector.entry.login", {"uid": uid_on("area-1")})
            await other.request("connector.entry.login", {"uid": uid_on("area-2")})
            assert await one.request("area.room.join", {"room": "mine"}) == {"present": True, "server": "area-1"}
            answer = await other.request("area.room.look", {"room": "mine"})
            assert answer["code"] == 404
            assert "no such channel here: 'mine' on area-2" in answer["message"]

    asyncio.run(scenario())


def test_a_new_login_ends_the_earlier_one_where_sessions_are_single(game: RunningGame) -> None:
    async def scenario() -> None:
        async with PomeloClient(game.urls["single-1"]) as first, PomeloClient(game.urls["single-1"]) as second:
            await first.request("area.session.bind", {"uid": "solo"})
            await second.request("area.session.bind", {"uid": "solo"})
            await first.until_closed()
            assert first.kicked == "logged in elsewhere"
            assert (await second.request("area.session.get"))["uid"] == "solo"

    asyncio.run(scenario())


def test_what_is_set_without_push_is_seen_nowhere_else(game: RunningGame) -> None:
    async def scenario() -> None:
        async with PomeloClient(game.urls["connector-1"]) as client:
            assert await client.request("area.session.set", {"key": "a", "value": 1}) == {"a": 1}
            assert (await client.request("area.session.get"))["values"] == {}
            assert (await client.request("connector.entry.show"))["values"] == {}

    asyncio.run(scenario())


def test_what_is_pushed_is_seen_by_the_next_request_everywhere(game: RunningGame) -> None:
    async def scenario() -> None:
        async with PomeloClient(game.urls["connector-1"]) as client:
            assert await client.request("area.session.push", {"key": "a", "value": [1, {"b": None}]}) == {}
            assert (await client.request("area.session.get"))["values"] == {"a": [1, {"b": None}]}
            assert (await client.request("connector.entry.show"))["values"] == {"a": [1, {"b": None}]}

    asyncio.run(scenario())


def test_binding_to_another_user_is_refused_and_unbinding_allows_it(game: RunningGame) -> None:
    async def scenario() -> None:
        async with PomeloClient(game.urls["connector-1"]) as client:
            await client.request("connector.entry.login", {"uid": "one"})
            assert await client.request("connector.entry.login", {"uid": "one"}) == {}
            answer = await client.request("connector.entry.login", {"uid": "two"})
            assert answer == {"code": 409, "message": "the session is bound to another uid"}
            assert await client.request("connector.entry.logout") == {}
            assert await client.request("connector.entry.login", {"uid": "two"}) == {}

    asyncio.run(scenario())


def test_a_backend_kicks_a_client_with_a_reason(game: RunningGame) -> None:
    async def scenario() -> None:
        async with PomeloClient(game.urls["connector-2"]) as client:
            await client.notify("area.session.kick")
            await client.until_closed()
            assert client.kicked == "enough"

    asyncio.run(scenario())


def test_a_backend_hears_that_a_session_it_watches_closed(game: RunningGame) -> None:
    async def scenario() -> None:
        uid = uid_on("area-1", "watched")
        async with PomeloClient(game.urls["connector-2"]) as other:
            await other.request("connector.entry.login", {"uid": uid_on("area-1", "watcher")})
            async with PomeloClient(game.urls["connector-1"]) as client:
                await client.request("connector.entry.login", {"uid": uid})
                assert await client.request("area.session.watch") == {}
            noted = await until(other, "area.session.closed", None, lambda noted: uid in [one[0] for one in noted])
            assert [one for one in noted if one[0] == uid] == [[uid, "client closed"]]

    asyncio.run(scenario())


def test_every_failure_is_answered_with_its_code_and_nothing_more(game: RunningGame) -> None:
    async def scenario() -> None:
        async with PomeloClient(game.urls["connector-1"]) as client:
            assert await client.request("area.test.crash") == {"code": 500, "message": "internal error"}
            assert await client.request("area.test.refuse") == {"code": 418, "message": "a teapot"}
            answer = await client.request("area.test.sleep", {"number": "one"})
            assert answer == {"code": 400, "message": "Expected `int`, got `str` - at `$.number`"}
            assert (await client.request("area.nothing.here"))["code"] == 404
            assert (await client.request("nowhere"))["code"] == 404
            # The connection lives.
            assert (await client.request("area.test.echo", {"a": 1}))["body"] == {"a": 1}

    asyncio.run(scenario())
    # The operator sees it all; Ray brings the servers' logs after a moment.
    assert eventually(lambda: "RuntimeError: a secret detail" in game.stderr())
    assert "Traceback" in game.stderr()


def test_a_remote_is_called_on_every_server_of_its_type(game: RunningGame) -> None:
    async def scenario() -> None:
        async with PomeloClient(game.urls["connector-1"]) as client:
            found = await client.request("area.rpc.all")
            assert set(found) == set(AREAS)
            assert len(set(found.values())) == 2

    asyncio.run(scenario())


async def until(client: PomeloClient, route: str, message: Any, holds: Any) -> Any:
    """Ask again until the answer is as it should be."""
    async with asyncio.timeout(10):
        while not holds(answer := await client.request(route, message)):
            pass
    return answer
