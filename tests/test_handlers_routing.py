"""Which server a request goes to: the hash, the app's route functions, servers that are down."""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support_handlers import LinkSpy, Stage, virtual

from handlers import HandlerError, Member, NotFound, Request, rendezvous
from handlers.link import FORWARD
from handlers.members import Members

server_sets = st.sets(st.text("abcdefgh-0123456789", min_size=1), min_size=2, max_size=12).map(
    lambda servers: tuple(sorted(servers))
)


@given(st.text(), server_sets)
def test_the_hash_is_the_same_in_every_order_of_the_servers(key: str, servers: tuple[str, ...]) -> None:
    assert rendezvous(key, servers) in servers
    assert rendezvous(key, servers) == rendezvous(key, servers[::-1])


@given(st.lists(st.text(), max_size=50), server_sets, st.data())
def test_removing_a_server_moves_only_its_keys(keys: list[str], servers: tuple[str, ...], data: st.DataObject) -> None:
    gone = data.draw(st.sampled_from(servers))
    left = tuple(server for server in servers if server != gone)
    for key in keys:
        before = rendezvous(key, servers)
        assert before == gone or rendezvous(key, left) == before


def test_the_hash_is_the_same_in_every_run_and_release() -> None:
    servers = ("chat-1", "chat-2", "chat-3")
    homes = {"": "chat-3", "alice": "chat-2", "bob": "chat-1", "柚子": "chat-1"}
    assert {key: rendezvous(key, servers) for key in homes} == homes


@pytest.mark.parametrize("count", [2, 3, 10])
@pytest.mark.parametrize("keys", [[str(n) for n in range(20_000)], [f"user{n}@example.com" for n in range(20_000)]])
def test_the_hash_spreads_users_evenly(count: int, keys: list[str]) -> None:
    servers = tuple(f"chat-{number}" for number in range(1, count + 1))
    shares = Counter(rendezvous(key, servers) for key in keys)
    assert len(shares) == count
    for share in shares.values():
        assert share == pytest.approx(len(keys) / count, rel=0.1)


@virtual
async def test_a_bound_users_requests_go_to_the_server_of_its_hash() -> None:
    stage = Stage()
    async with stage.kit(connectors=2, chats=5) as kit:
        chats = tuple(f"chat-{number}" for number in range(1, 6))
        for number in range(10):
            client = await stage.bound(kit, f"connector-{1 + number % 2}", f"user{number}")
            served = await stage.within(client, "chat", lambda session, server: server.id)
            assert served == rendezvous(f"user{number}", chats)


@virtual
async def test_unbound_sessions_are_spread_and_each_keeps_its_server() -> None:
    stage = Stage()
    async with stage.kit(chats=3) as kit:
        served = Counter[str]()
        for _ in range(60):
            client = await kit.connect("connector-1")
            first, second = [await stage.within(client, "chat", lambda _, server: server.id) for _ in range(2)]
            assert first == second
            served[first] += 1
        assert len(served) == 3
        assert min(served.values()) > 8


@virtual
async def test_a_bound_user_keeps_a_server_that_is_down_and_an_unbound_session_goes_to_one_that_is_up() -> None:
    stage = Stage()
    async with stage.kit(chats=2) as kit:
        bound = [await stage.bound(kit, "connector-1", f"user{number}") for number in range(10)]
        unbound = [await kit.connect("connector-1") for _ in range(10)]
        kit.lose("chat-1")
        for number, client in enumerate(bound):
            answer = await client.request("chat.stage.echo", {"n": 1})
            home = rendezvous(f"user{number}", ("chat-1", "chat-2"))
            lost = {"code": 503, "message": "chat-1 is unavailable"}
            assert answer == (lost if home == "chat-1" else {"n": 1})
            assert not client.closed
        for client in unbound:
            assert await client.request("chat.stage.echo", {"n": 1}) == {"n": 1}
        kit.lose("chat-2")
        for client in (*bound, *unbound):
            assert (await client.request("chat.stage.echo"))["code"] == 503


@virtual
async def test_a_server_declared_gone_gives_its_users_to_the_others() -> None:
    stage = Stage()
    async with stage.kit(chats=2) as kit:
        clients = [await stage.bound(kit, "connector-1", f"user{number}") for number in range(8)]
        kit.lose("chat-1")
        members = kit.nodes["connector-1"].members
        assert members.replace([member for member in members if member.id != "chat-1"]) == {"chat-1"}
        for client in clients:
            assert await stage.within(client, "chat", lambda session, server: server.id) == "chat-2"


@virtual
async def test_a_request_in_flight_to_a_server_that_dies_is_answered_503_at_once() -> None:
    stage = Stage()
    async with stage.kit() as kit:
        client = await kit.connect("connector-1")
        answer = client.send_request("chat.stage.slow", {"seconds": 20})
        await kit.settle()
        kit.lose("chat-1")
        assert await answer == {"code": 503, "message": "chat-1 is unavailable"}
        assert not client.closed


@virtual
async def test_a_backend_that_does_not_answer_in_time_is_504() -> None:
    stage = Stage()
    async with stage.kit() as kit:
        client = await kit.connect("connector-1")
        answer = await client.request("chat.stage.slow", {"seconds": 31})
        assert answer == {"code": 504, "message": "timed out"}
        assert await client.request("connector.stage.slow", {"seconds": 31}) == {"seconds": 31}


@pytest.mark.parametrize("asynchronous", [False, True])
@virtual
async def test_a_route_function_picks_the_server_from_the_request_and_the_ids(asynchronous: bool) -> None:
    stage = Stage()
    asked: list[Any] = []

    def pick(request: Request, servers: tuple[str, ...]) -> str:
        asked.append((request.route, request.session.uid, servers, request.session.get("room")))
        body: dict[str, int] = request.body(dict[str, int])
        return servers[body["n"]]

    async def pick_later(request: Request, servers: tuple[str, ...]) -> str:
        return pick(request, servers)

    stage.app.before("chat")(lambda request, server: asked.append(server.id))
    stage.app.route("chat")(pick_later if asynchronous else pick)
    async with stage.kit(chats=3) as kit:
        client = await stage.bound(kit, "connector-1", "alice")
        for number in range(3):
            await client.request("chat.stage.echo", {"n": number})
        ids = ("chat-1", "chat-2", "chat-3")
        expected = [x for n in ids for x in (("chat.stage.echo", "alice", ids, None), n)]
        assert asked == expected


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize(
    ("result", "answer"),
    [
        (
            "connector-1",
            {
                "code": 503,
                "message": "the route function of chat chose 'connector-1', which is none of its servers",
            },
        ),
        (None, {"code": 503, "message": "the route function of chat chose None, which is none of its servers"}),
        (HandlerError(1001, "full"), {"code": 1001, "message": "full"}),
        (KeyError("room"), {"code": 500, "message": "internal error"}),
    ],
    ids=["another type", "none", "handler error", "any error"],
)
@virtual
async def test_what_a_route_function_does_wrong_is_an_answer(result: Any, answer: Any, asynchronous: bool) -> None:
    stage = Stage()

    def pick(request: Request, servers: tuple[str, ...]) -> Any:
        if isinstance(result, Exception):
            raise result
        return result

    async def pick_later(request: Request, servers: tuple[str, ...]) -> Any:
        return pick(request, servers)

    stage.app.route("chat")(pick_later if asynchronous else pick)
    async with stage.kit() as kit:
        client = await kit.connect("connector-1")
        assert await client.request("chat.stage.echo") == answer
        assert await client.request("connector.stage.echo", 1) == 1


@pytest.mark.parametrize("asynchronous", [False, True])
@virtual
async def test_a_route_function_is_not_asked_about_no_servers_at_all(asynchronous: bool) -> None:
    stage = Stage()

    def pick(request: Request, servers: tuple[str, ...]) -> str:
        return rendezvous("room", servers)

    async def pick_later(request: Request, servers: tuple[str, ...]) -> str:
        return pick(request, servers)

    stage.app.route("area")(pick_later if asynchronous else pick)
    async with stage.kit() as kit:
        client = await kit.connect("connector-1")
        assert await client.request("area.stage.echo") == {"code": 503, "message": "there is no area server"}


@virtual
async def test_a_route_of_the_frontends_own_type_never_leaves_it() -> None:
    stage = Stage()

    @stage.app.route("connector")
    def elsewhere(request: Request, servers: tuple[str, ...]) -> str:
        raise AssertionError("a frontend serves its own type")

    async with stage.kit(connectors=3) as kit:
        spies = [LinkSpy(kit, server_id) for server_id in kit.nodes]
        for number in (1, 2, 3):
            client = await kit.connect(f"connector-{number}")
            served = await stage.within(client, "connector", lambda session, server: server.id)
            assert served == f"connector-{number}"
        assert [spy.of(FORWARD) for spy in spies] == [[]] * 4


def test_the_table_of_members_knows_ids_and_types_in_order() -> None:
    members = Members(
        Member(id=f"chat-{number}", type="chat", incarnation=number, frontend=False) for number in (3, 1, 2)
    )
    assert members.ids("chat") == ("chat-1", "chat-2", "chat-3")
    assert [member.incarnation for member in members.of("chat")] == [1, 2, 3]
    assert members.ids("area") == ()
    assert members.of("area") == []
    assert "chat-1" in members
    assert members.get("chat-2").incarnation == 2
    with pytest.raises(NotFound, match="there is no server 'chat-9'"):
        members.get("chat-9")
    assert members.replace([members.get("chat-2"), Member(id="area-1", type="area")]) == {"chat-1", "chat-3"}
    assert sorted(member.id for member in members) == ["area-1", "chat-2"]


def test_the_url_of_a_frontend_is_where_clients_reach_it() -> None:
    frontend = {"id": "connector-1", "type": "connector", "frontend": True, "port": 3050}
    assert Member(**frontend, host="127.0.0.1").url == "ws://127.0.0.1:3050"  # type: ignore[arg-type]
    assert Member(**frontend, host="::1").url == "ws://[::1]:3050"  # type: ignore[arg-type]
    assert Member(id="chat-1", type="chat").url == ""
