"""The chat example, through the kit: what pomelo's own chat demo does."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from support_handlers import elapse, virtual

from handlers.kit import Kit, KitClient
from handlers.store import DirectorySettings

ENTER = "connector.entryHandler.enter"
SEND = "chat.chatHandler.send"


def chat_kit(directory: DirectorySettings | None = None) -> Kit:
    path = Path(__file__).parents[1] / "examples" / "chat" / "app.py"
    spec = importlib.util.spec_from_file_location("chat_example", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return Kit(module.app, frontends={"gate": 1, "connector": 2}, backends={"chat": 3}, directory=directory)


async def entered(kit: Kit, connector: int, name: str, room: str = "tea") -> KitClient:
    client = await kit.connect(f"connector-{connector}")
    answer = await client.request(ENTER, {"username": name, "rid": room})
    assert answer["code"] == 200
    assert name in answer["users"]
    return client


def rooms(kit: Kit) -> list[str]:
    return [name for number in (1, 2, 3) for name in kit.server(f"chat-{number}").channels.names()]


@virtual
async def test_the_gate_names_the_connector_with_the_fewest_clients_and_none_that_is_dead() -> None:
    async with chat_kit() as kit:
        gate = await kit.connect("gate-1")

        async def asked() -> Any:
            return await gate.request("gate.gateHandler.queryEntry", {"uid": "ada"})

        one = {"code": 200, "host": "127.0.0.1", "port": 3000}
        other = one | {"port": 3001}
        assert {(await asked())["port"] for _ in range(64)} == {3000, 3001}  # of equals any one
        client = await kit.connect("connector-1")
        assert [await asked() for _ in range(20)] == [other] * 20
        client.close()
        for _ in range(2):
            await kit.connect("connector-2")
        assert [await asked() for _ in range(20)] == [one] * 20
        kit.lose("connector-1")
        assert [await asked() for _ in range(20)] == [other] * 20
        kit.lose("connector-2")
        assert (await asked())["code"] == 503


@virtual
async def test_who_enters_gets_the_names_and_the_others_are_told() -> None:
    async with chat_kit() as kit:
        alice = await entered(kit, 1, "alice")
        bob = await kit.connect("connector-2")
        answer = await bob.request(ENTER, {"username": "bob", "rid": "tea"})
        assert answer == {"code": 200, "users": ["alice", "bob"]}
        assert await alice.pushed("onAdd") == {"user": "bob"}
        assert bob.pushes == []
        await entered(kit, 1, "carol", "milk")
        await kit.settle()
        assert len(alice.pushes) == 1
        assert sorted(rooms(kit)) == ["milk", "tea"]


@pytest.mark.parametrize("connector", [1, 2])
@virtual
async def test_a_name_taken_in_the_room_is_refused_on_any_connector_but_free_in_another_room(connector: int) -> None:
    async with chat_kit() as kit:
        alice = await entered(kit, 1, "alice")
        second = await kit.connect(f"connector-{connector}")
        assert await second.request(ENTER, {"username": "alice", "rid": "tea"}) == {"code": 500, "error": True}
        assert second.session.uid is None
        assert (await second.request(ENTER, {"username": "alice", "rid": "milk"}))["users"] == ["alice"]
        assert alice.pushes == []


@virtual
async def test_what_is_said_to_the_room_is_heard_by_all_in_it() -> None:
    async with chat_kit() as kit:
        inside = [await entered(kit, 1 + n % 2, f"u{n}") for n in range(5)]
        outside = await entered(kit, 1, "stranger", "milk")
        assert await inside[0].request(SEND, {"content": "hello", "target": "*"}) == {"code": 200}
        for client in inside:
            assert await client.pushed("onChat") == {"msg": "hello", "from": "u0", "target": "*"}
        await kit.settle()
        assert outside.pushes == []


@virtual
async def test_what_is_said_to_one_is_heard_by_that_one() -> None:
    async with chat_kit() as kit:
        alice, bob, carol = [await entered(kit, 1 + n % 2, name) for n, name in enumerate(("alice", "bob", "carol"))]
        assert await alice.request(SEND, {"content": "psst", "target": "bob"}) == {"code": 200}
        assert await bob.pushed("onChat") == {"msg": "psst", "from": "alice", "target": "bob"}
        answer = await alice.request(SEND, {"content": "hm", "target": "nobody"})
        assert answer == {"code": 404, "message": "nobody is not in the room"}
        assert [route for route, _ in carol.pushes] == []


@virtual
async def test_the_others_are_told_who_leaves_and_an_empty_room_ends() -> None:
    async with chat_kit() as kit:
        alice, bob = await entered(kit, 1, "alice"), await entered(kit, 2, "bob")
        alice.close()
        assert await bob.pushed("onLeave") == {"user": "alice"}
        again = await entered(kit, 2, "alice")
        assert await bob.pushed("onAdd") == {"user": "alice"}
        bob.close()
        again.close()
        await kit.settle()
        assert rooms(kit) == []


@pytest.mark.parametrize(
    ("message", "code", "said"),
    [
        ({"username": "alice"}, 400, "missing required field `rid`"),
        ({"username": 5, "rid": "tea"}, 400, "`$.username`"),
        ({"username": "", "rid": "tea"}, 400, "`$.username`"),
        ({"username": "a*b", "rid": "tea"}, 400, "no * in it"),
        ([], 400, "Expected `object`"),
    ],
)
@virtual
async def test_a_wrong_entry_is_refused_and_can_be_tried_again(message: Any, code: int, said: str) -> None:
    async with chat_kit() as kit:
        client = await kit.connect("connector-1")
        answer = await client.request(ENTER, message)
        assert answer["code"] == code
        assert said in answer["message"]
        assert (await client.request(ENTER, {"username": "alice", "rid": "tea"}))["code"] == 200
        again = await client.request(ENTER, {"username": "alice", "rid": "tea"})
        assert again == {"code": 409, "message": "this connection is in a room already"}


@virtual
async def test_nobody_speaks_before_entering_a_room() -> None:
    async with chat_kit() as kit:
        client = await kit.connect("connector-1")
        assert (await client.request(SEND, {"content": "hello"}))["code"] == 403


@virtual
async def test_who_asks_is_told_who_is_online_in_rooms_on_all_the_chat_servers() -> None:
    async with chat_kit(DirectorySettings()) as kit:
        alice = await kit.connect("connector-1")
        await alice.request(ENTER, {"username": "alice", "rid": "tea", "presence": True})
        assert (await alice.pushed("onPresence"))["count"] == 1
        others = [await entered(kit, 1 + n % 2, f"u{n}", f"room{n}") for n in range(6)]
        homes = [
            n for n in (1, 2, 3) if any(name.startswith("room") for name in kit.server(f"chat-{n}").channels.names())
        ]
        assert len(homes) > 1
        told = await alice.pushed("onPresence")
        assert {one["uid"]: one["meta"] for one in told["joined"]} == {
            f"u{n}*room{n}": {"name": f"u{n}", "room": f"room{n}"} for n in range(6)
        }
        others[0].close()
        kit.lose("connector-2")
        assert sorted((await alice.pushed("onPresence"))["left"]) == ["u0*room0", "u1*room1", "u3*room3", "u5*room5"]
        assert all(route != "onPresence" for other in others for route, _ in other.pushes)


@virtual
async def test_a_room_is_told_of_those_whose_connector_died() -> None:
    async with chat_kit() as kit:
        alice, bob = await kit.connect("connector-1"), await kit.connect("connector-2")
        await alice.request(ENTER, {"username": "alice", "rid": "tea"})
        await bob.request(ENTER, {"username": "bob", "rid": "tea"})
        kit.lose("connector-2")
        assert await alice.pushed("onLeave") == {"user": "bob"}
        alice.close()
        await elapse(2)
        assert not any("tea" in kit.server(f"chat-{number}").channels for number in (1, 2))
