"""Routing policies that an app selects for a type (application.js: route)."""

import asyncio
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support_handlers import Stage, virtual

from handlers import App, AppError, Server, Session, policies, rendezvous
from handlers.kit import Kit
from handlers.members import Member, Members

CHATS = ("chat-1", "chat-2", "chat-3")


class Fixed:
    """A cluster of given weights and requests in flight."""

    def __init__(self, weights: dict[str, int] | None = None, flying: dict[str, int] | None = None) -> None:
        self.weights = weights or {}
        self.flying = flying or {}

    def weight(self, server_id: str) -> int:
        return self.weights.get(server_id, 1)

    def in_flight(self, server_id: str) -> int:
        return self.flying.get(server_id, 0)


async def served_by(stage: Stage, client: Any, times: int) -> list[str]:
    return [await stage.within(client, "chat", lambda _, server: server.id) for _ in range(times)]


@pytest.mark.parametrize(
    ("uid", "value", "count", "place"),
    [("u1", 1112514422, 3, 2), ("a", -390611389, 3, 1), ("user123", 1231517047, 4, 3), ("", 0, 3, 0)],
)
def test_pomelos_hash_gives_pomelos_vectors(uid: str, value: int, count: int, place: int) -> None:
    servers = tuple(f"chat-{number}" for number in range(count))
    assert policies.pomelo_hash(uid) == value
    assert policies.PomeloHash(Fixed()).pick(uid, True, servers) == servers[place]


@virtual
async def test_pomelos_hash_counts_servers_by_their_numbers_as_pomelos_files_list_them() -> None:
    stage = Stage()
    stage.app.route_by("chat", policies.PomeloHash)
    async with stage.kit(chats=12) as kit:
        members = kit.server("connector-1").members("chat")
        assert [member.id for member in members] == [f"chat-{number}" for number in range(1, 13)]
        client = await stage.bound(kit, "connector-1", "u1")
        assert policies.pomelo_hash("u1") % 12 == 2
        assert await served_by(stage, client, 1) == ["chat-3"]


def test_ids_with_equal_numbers_have_an_order_too() -> None:
    ids = ["a-2", "a-02", "a-b", "a", "a-2-10", "a-2-9", "10", "9"]
    tables = [Members(Member(id=one, type="a") for one in order).ids("a") for order in (ids, ids[::-1])]
    assert tables == [("9", "10", "a", "a-02", "a-2", "a-2-9", "a-2-10", "a-b")] * 2


def test_pomelos_hash_takes_the_low_byte_of_each_utf_16_unit() -> None:
    assert policies.pomelo_hash("\u0161") == policies.pomelo_hash("a")
    assert policies.pomelo_hash("\U0001f600") == policies.pomelo_hash("\x3d\x00")


def test_pomelos_hash_sends_sessions_without_uid_to_the_first_server() -> None:
    policy = policies.PomeloHash(Fixed())
    assert {policy.pick(str(session), False, CHATS) for session in range(50)} == {"chat-1"}


@given(st.text(), st.sets(st.sampled_from("abcdefgh"), min_size=2).map(lambda ids: tuple(sorted(ids))), st.data())
def test_the_ring_moves_only_the_keys_of_a_server_that_goes(
    key: str, servers: tuple[str, ...], data: st.DataObject
) -> None:
    policy = policies.ConsistentHash(Fixed())
    gone = data.draw(st.sampled_from(servers))
    before = policy.pick(key, True, servers)
    assert before in servers
    assert before == gone or policy.pick(key, True, tuple(s for s in servers if s != gone)) == before


def test_the_ring_is_the_same_on_every_server_and_the_more_replicas_the_more_even() -> None:
    keys = [f"user{number}" for number in range(6000)]

    def shares(replicas: int) -> Counter[str]:
        policy = policies.ConsistentHash(Fixed(), replicas=replicas)
        return Counter(policy.pick(key, True, CHATS) for key in keys)

    assert shares(100) == shares(100)
    assert min(shares(100).values()) > 1200
    assert min(shares(2000).values()) > 1800


def test_round_robin_takes_one_after_the_other() -> None:
    policy = policies.RoundRobin(Fixed())
    assert [policy.pick("", True, CHATS) for _ in range(7)] == ["chat-1", "chat-2", "chat-3"] * 2 + ["chat-1"]


def test_random_takes_all_of_them() -> None:
    policy = policies.Random(Fixed())
    assert {policy.pick("", True, CHATS) for _ in range(200)} == set(CHATS)


def test_weighted_round_robin_deals_by_weight_and_evenly_mixed() -> None:
    policy = policies.WeightedRoundRobin(Fixed({"chat-1": 5}))
    picked = [policy.pick("", True, CHATS) for _ in range(7)]
    assert Counter(picked) == {"chat-1": 5, "chat-2": 1, "chat-3": 1}
    assert picked == ["chat-1", "chat-1", "chat-2", "chat-1", "chat-3", "chat-1", "chat-1"]
    assert {policy.pick("", True, CHATS[:2]) for _ in range(6)} == {"chat-1", "chat-2"}


def test_least_active_takes_the_one_with_the_least_and_equals_in_turn() -> None:
    cluster = Fixed(flying={"chat-1": 2, "chat-2": 1})
    policy = policies.LeastActive(cluster)
    assert policy.pick("", True, CHATS) == "chat-3"
    cluster.flying = {"chat-1": 2}
    assert {policy.pick("", True, CHATS) for _ in range(4)} == {"chat-2", "chat-3"}


@virtual
async def test_least_active_really_counts_down() -> None:
    stage = Stage()
    stage.app.route_by("chat", policies.LeastActive)
    async with stage.kit(chats=3) as kit:
        client = await kit.connect("connector-1")
        clients = [await kit.connect("connector-1") for _ in range(6)]
        busy = [one.send_request("chat.stage.slow", {"seconds": 5}) for one in clients]
        await kit.settle()
        links = kit.nodes["connector-1"].links
        assert [links.in_flight(chat) for chat in CHATS] == [2, 2, 2]
        await asyncio.gather(*busy)
        assert [links.in_flight(chat) for chat in CHATS] == [0, 0, 0]
        assert sorted(set(await served_by(stage, client, 6))) == list(CHATS)


@virtual
async def test_least_active_forgets_what_a_server_that_died_had_under_way_and_does_not_go_there() -> None:
    stage = Stage()
    stage.app.route_by("chat", policies.LeastActive)
    async with stage.kit(chats=2) as kit:
        client = await kit.connect("connector-1")
        lost = [client.send_request("chat.stage.slow", {"seconds": 50}) for _ in range(4)]
        await kit.settle()
        kit.lose("chat-1")
        await kit.settle()
        assert kit.nodes["connector-1"].links.in_flight("chat-1") == 0
        assert sum(answer.done() for answer in lost) == 2
        other = await kit.connect("connector-1")
        assert set(await served_by(stage, other, 5)) == {"chat-2"}


@pytest.mark.parametrize("bound", [False, True])
@virtual
async def test_policies_that_are_not_sticky_go_to_servers_that_are_up(bound: bool) -> None:
    stage = Stage()
    stage.app.route_by("chat", policies.RoundRobin)
    async with stage.kit(chats=3) as kit:
        client = await (stage.bound(kit, "connector-1", "ada") if bound else kit.connect("connector-1"))
        assert await served_by(stage, client, 3) == list(CHATS)
        kit.lose("chat-2")
        assert Counter(await served_by(stage, client, 4)) == {"chat-1": 2, "chat-3": 2}
        kit.lose("chat-1")
        kit.lose("chat-3")
        assert (await client.request("chat.stage.echo"))["code"] == 503


@pytest.mark.parametrize("policy", [policies.PomeloHash, policies.ConsistentHash, policies.Rendezvous])
@virtual
async def test_sticky_policies_keep_a_bound_user_at_a_server_that_is_down(policy: type[policies.Policy]) -> None:
    stage = Stage()
    stage.app.route_by("chat", policy)
    async with stage.kit(chats=3) as kit:
        client = await stage.bound(kit, "connector-1", "ada")
        (home,) = set(await served_by(stage, client, 3))
        assert home == policy(Fixed()).pick("ada", True, CHATS)
        kit.lose(home)
        assert await client.request("chat.stage.echo") == {"code": 503, "message": f"{home} is unavailable"}


@virtual
async def test_a_policy_decides_for_rpc_by_key_and_by_session_too() -> None:
    stage = Stage()
    stage.app.route_by("chat", policies.PomeloHash)

    @stage.app.remote("chat.t.where")
    async def where(server: Server) -> str:
        return server.id

    async with stage.kit(chats=3) as kit:
        rpc = kit.server("connector-1").rpc
        assert await rpc.by("u1").call(where) == "chat-3"
        client = await stage.bound(kit, "connector-1", "u1")

        async def by_session(session: Session, server: Server) -> str:
            return await server.rpc.by(session).call(where)

        assert await stage.within(client, "connector", by_session) == "chat-3"


@virtual
async def test_application_js_route_default_is_for_every_type_without_its_own() -> None:
    app = App("defaults")
    for server_type in ("chat", "area", "hall"):

        @app.handler(f"{server_type}.t.where")
        async def where(server: Server) -> str:
            return server.id

    app.route("default")(lambda request, servers: servers[-1])
    app.route("chat")(lambda request, servers: servers[0])
    app.route_by("area", policies.RoundRobin)
    async with Kit(app, frontends={"gate": 1}, backends={"chat": 2, "area": 2, "hall": 2}) as kit:
        client = await kit.connect("gate-1")
        answers = [[await client.request(f"{t}.t.where") for _ in range(2)] for t in ("chat", "area", "hall")]
        assert answers == [["chat-1", "chat-1"], ["area-1", "area-2"], ["hall-2", "hall-2"]]


@virtual
async def test_a_default_policy_counts_for_each_type_by_itself() -> None:
    app = App("defaults")
    for server_type in ("chat", "area"):

        @app.handler(f"{server_type}.t.where")
        async def where(server: Server) -> str:
            return server.id

    app.route_by("default", policies.RoundRobin)
    app.route_by("gate", policies.Rendezvous)
    async with Kit(app, frontends={"gate": 1}, backends={"chat": 2, "area": 2}) as kit:
        client = await kit.connect("gate-1")
        answers = [await client.request(f"{t}.t.where") for t in ("chat", "area", "chat", "area")]
        assert answers == ["chat-1", "area-1", "chat-2", "area-2"]


@virtual
async def test_weights_are_those_of_the_members() -> None:
    stage = Stage()
    stage.app.route_by("chat", policies.WeightedRoundRobin)
    async with stage.kit(chats=2, weights={"chat-2": 3}) as kit:
        client = await kit.connect("connector-1")
        assert Counter(await served_by(stage, client, 8)) == {"chat-1": 2, "chat-2": 6}


@virtual
async def test_where_no_server_of_a_type_is_alive_that_is_said() -> None:
    stage = Stage()
    stage.app.route_by("chat", policies.RoundRobin)
    async with stage.kit(chats=1) as kit:
        client = await kit.connect("connector-1")
        members: Members = kit.nodes["connector-1"].members
        members.replace([member for member in members if member.type != "chat"])
        assert await client.request("chat.stage.echo") == {"code": 503, "message": "there is no chat server"}


@virtual
async def test_a_policy_that_picks_a_stranger_is_503() -> None:
    class Wrong(policies.Policy):
        def pick(self, key: str, bound: bool, servers: tuple[str, ...]) -> str:
            return "moon-1"

    stage = Stage()
    stage.app.route_by("chat", Wrong)
    async with stage.kit() as kit:
        answer = await (await kit.connect("connector-1")).request("chat.stage.echo")
        assert answer == {"code": 503, "message": "Wrong chose 'moon-1', which is none of the servers"}


def test_a_policy_is_declared_once_and_for_a_type_that_exists() -> None:
    app = App("test")
    app.route_by("chat", policies.Random)
    with pytest.raises(AppError, match="the routing policy of 'chat' is declared twice"):
        app.route_by("chat", policies.Random)
    app.route_by("moon", policies.Random)
    app.route_by("default", policies.Random)
    assert app.mistakes(["chat"]) == ["a route function or policy is for the server type 'moon', which does not exist"]


def test_the_default_policy_is_the_rendezvous_hash() -> None:
    assert policies.Rendezvous(Fixed()).pick("ada", True, CHATS) == rendezvous("ada", CHATS)
