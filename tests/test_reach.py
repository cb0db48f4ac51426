"""What holds with either store: users found anywhere, single sessions over the cluster, global channels, presence."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from functools import partial, wraps
from typing import Any

import pytest
from reaching import Cluster, Game, soon
from redis_server import RedisServer

from handlers.global_channels import METADATA, Presence
from handlers.kit import KitClient
from handlers.store import JOINED, ONLINE

Test = Callable[..., Coroutine[Any, Any, None]]


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture(params=["embedded", "redis"])
def game(request: pytest.FixtureRequest) -> Game:
    """Make a game whose directory is the store of the parameter."""
    if request.param == "embedded":
        return Cluster
    return partial(Cluster, request.getfixturevalue("redis_server").url)


def real_time(test: Test) -> Callable[..., None]:
    @wraps(test)
    def run(game: Game) -> None:
        asyncio.run(test(game))

    return run


def bodies(client: KitClient, route: str = "on") -> list[Any]:
    return [body for one, body in client.pushes if one == route]


# -- users


@real_time
async def test_a_user_is_found_from_any_server_on_every_frontend_where_it_is(game: Game) -> None:
    async with game() as cluster:
        first = await cluster.login("u", "c-1")
        second = await cluster.login("u", "c-2")
        for asker in ("b-1", "b-2", "c-1", "c-2"):
            await soon(partial(cluster.server(asker).where, "u"), ["c-1", "c-2"])
        assert await cluster.server().is_online(["u", "v", 7]) == {"u": True, "v": False, "7": False}
        first.close()
        await soon(partial(cluster.server().where, "u"), ["c-2"])
        second.close()
        await soon(partial(cluster.server().where, "u"), [])


@real_time
async def test_a_user_with_two_sessions_on_a_frontend_is_online_until_the_last_one_closes(game: Game) -> None:
    async with game() as cluster:
        first, second = await cluster.login("u"), await cluster.login("u")
        await soon(partial(cluster.server().where, "u"), ["c-1"])
        first.close()
        await cluster.login("mark")
        await soon(partial(cluster.server().where, "mark"), ["c-1"])
        assert await cluster.server().where("u") == ["c-1"]
        second.close()
        await soon(partial(cluster.server().where, "u"), [])


@real_time
async def test_an_unbound_user_is_not_online(game: Game) -> None:
    async with game() as cluster:
        client = await cluster.login("u")
        await soon(partial(cluster.server().where, "u"), ["c-1"])
        frontend = cluster.kit.nodes["c-1"].frontend
        assert frontend is not None
        frontend.sessions.unbind(client.session.id, "u")
        await soon(partial(cluster.server().where, "u"), [])


@real_time
async def test_a_push_reaches_users_wherever_they_are_and_tells_who_was_not_reached(game: Game) -> None:
    async with game() as cluster:
        clients = [await cluster.login(f"u{n}", f"c-{1 + n % 2}") for n in range(10)]
        both = [await cluster.login("both", "c-1"), await cluster.login("both", "c-2")]
        await soon(partial(cluster.server().where, "both"), ["c-1", "c-2"])
        await soon(partial(cluster.server().where, "u9"), ["c-2"])
        for number, asker in enumerate(("b-1", "c-1")):
            uids: list[str | int] = ["nobody", *(f"u{n}" for n in range(10)), "both", "nobody", 5]
            assert await cluster.server(asker).push_to_users(uids, "on", number) == ["nobody", "5"]
        for client in [*clients, *both]:
            await soon(partial(bodies, client), [0, 1])


@real_time
async def test_a_kick_ends_every_session_of_a_user_and_counts_them(game: Game) -> None:
    async with game() as cluster:
        clients = [await cluster.login("u", place) for place in ("c-1", "c-1", "c-2")]
        other = await cluster.login("v", "c-2")
        await soon(partial(cluster.server().where, "u"), ["c-1", "c-2"])
        assert await cluster.server().kick("u", "enough") == 3
        assert [client.kicked for client in clients] == ["enough"] * 3
        assert other.kicked is None
        await soon(partial(cluster.server().where, "u"), [])
        assert await cluster.server().kick("u") == 0


# -- one session for each user


@real_time
async def test_a_login_ends_the_earlier_one_on_another_frontend(game: Game) -> None:
    async with game(single=True) as cluster:
        first = await cluster.login("u", "c-1")
        await soon(partial(cluster.server().where, "u"), ["c-1"])
        second = await cluster.login("u", "c-2")
        await soon(lambda: first.kicked, "logged in elsewhere")
        await soon(partial(cluster.server().where, "u"), ["c-2"])
        assert second.kicked is None


@real_time
async def test_of_logins_that_race_on_two_frontends_exactly_one_session_survives(game: Game) -> None:
    async with game(single=True, connectors=3) as cluster:
        logins: dict[str, list[KitClient]] = {}
        for round_ in range(3):
            for number in range(20):
                for place in ("c-1", "c-2", "c-3"):
                    logins.setdefault(f"u{number}", []).append(await cluster.login(f"u{number}", place))
                    if (number + round_) % 4 == 0:
                        await asyncio.sleep(0)

        def alive(uid: str) -> list[int]:
            return [n for n, client in enumerate(logins[uid]) if not client.closed]

        for uid in logins:
            await soon(lambda: len(alive(uid)), 1)  # noqa: B023 - read before the next one
        for uid, clients in logins.items():
            places = await cluster.server().where(uid)
            assert places == [clients[alive(uid)[0]]._node.id]


@real_time
async def test_sessions_of_users_who_are_not_single_are_left_alone(game: Game) -> None:
    async with game() as cluster:
        first, second = await cluster.login("u", "c-1"), await cluster.login("u", "c-2")
        await soon(partial(cluster.server().where, "u"), ["c-1", "c-2"])
        assert not first.closed
        assert not second.closed


# -- global channels


@real_time
async def test_any_server_adds_to_and_pushes_to_a_global_channel_over_all_frontends(game: Game) -> None:
    async with game() as cluster:
        one, two = await cluster.login("one", "c-1"), await cluster.login("two", "c-2")
        outside = await cluster.login("outside", "c-2")
        cluster.channel(server_id="b-1").add("one", "c-1")
        cluster.channel(server_id="b-1").push("on", "mine")
        assert await cluster.channel(server_id="c-1").add_confirmed("two", "c-2")
        for server_id in ("b-1", "b-2", "c-1", "c-2"):
            assert await cluster.channel(server_id=server_id).push_confirmed("on", server_id) == []
        assert bodies(one) == ["mine", "b-1", "b-2", "c-1", "c-2"]
        assert bodies(two) == ["b-1", "b-2", "c-1", "c-2"]
        assert bodies(outside) == []
        await soon(cluster.channel(server_id="c-2").members, ["one", "two"])
        assert await cluster.channel().frontends("two") == ["c-2"]
        assert await cluster.channel().count() == 2


@real_time
async def test_a_uid_without_a_session_there_does_not_become_a_member(game: Game) -> None:
    async with game() as cluster:
        await cluster.login("u", "c-1")
        assert not await cluster.channel().add_confirmed("u", "c-2")
        cluster.channel().add("nobody", "c-1")
        assert await cluster.channel().push_confirmed("on", 1) == []
        await asyncio.sleep(0.1)
        assert await cluster.channel().members() == []
        assert await cluster.channel().count() == 0


@real_time
async def test_a_member_who_leaves_at_one_frontend_or_at_all_is_pushed_to_there_no_more(game: Game) -> None:
    async with game() as cluster:
        clients = [await cluster.login("u", "c-1"), await cluster.login("u", "c-2")]
        for place in ("c-1", "c-2"):
            assert await cluster.channel().add_confirmed("u", place)
        await soon(cluster.channel().count, 1)
        await soon(partial(cluster.channel().frontends, "u"), ["c-1", "c-2"])
        assert await cluster.channel(server_id="b-2").leave_confirmed("u", "c-1")
        assert not await cluster.channel().leave_confirmed("u", "c-1")
        await cluster.channel().push_confirmed("on", 1)
        assert [bodies(client) for client in clients] == [[], [1]]
        await soon(partial(cluster.channel().frontends, "u"), ["c-2"])
        assert await cluster.channel().count() == 1
        cluster.channel().leave("u")
        await cluster.channel().push_confirmed("on", 2)
        assert [bodies(client) for client in clients] == [[], [1]]
        await soon(cluster.channel().members, [])


@real_time
async def test_a_member_whose_last_session_closes_leaves_every_global_channel(game: Game) -> None:
    async with game() as cluster:
        first, second = await cluster.login("u"), await cluster.login("u")
        for name in ("tea", "milk"):
            await cluster.channel(name).add_confirmed("u", "c-1")
        await soon(cluster.channel("milk").members, ["u"])
        first.close()
        assert await cluster.channel("tea").push_confirmed("on", 1) == []
        assert bodies(second) == [1]
        second.close()
        for name in ("tea", "milk"):
            await soon(cluster.channel(name).members, [])


@real_time
async def test_a_destroyed_channel_has_no_members_until_somebody_is_added(game: Game) -> None:
    async with game() as cluster:
        clients = [await cluster.login(f"u{n}", f"c-{n}") for n in (1, 2)]
        for n in (1, 2):
            await cluster.channel().add_confirmed(f"u{n}", f"c-{n}")
        await soon(cluster.channel().count, 2)
        cluster.channel(server_id="b-2").destroy()
        await soon(cluster.channel().count, 0)
        cluster.channel().add("u1", "c-1")
        await cluster.channel().push_confirmed("on", 1)
        assert [bodies(client) for client in clients] == [[1], []]


@real_time
async def test_members_are_listed_with_their_metadata(game: Game) -> None:
    async with game() as cluster:
        for n in (1, 2):
            await cluster.login("u", f"c-{n}")
            await cluster.channel().add_confirmed("u", f"c-{n}", {"at": n, "ö": [None, 1.5]})
        await cluster.login("plain", "c-2")
        await cluster.channel().add_confirmed("plain", "c-2")
        await soon(cluster.channel().count, 2)
        expected = [Presence("u", {"at": 1, "ö": [None, 1.5]}, ("c-1", "c-2")), Presence("plain", None, ("c-2",))]
        found = await cluster.channel().presence()
        assert sorted(found, key=lambda one: one.uid, reverse=True) == expected
        await cluster.channel().add_confirmed("plain", "c-2", "new")
        await soon(partial(metadata_of, cluster, "plain"), "new")
        with pytest.raises(ValueError, match="metadata"):
            cluster.channel().add("u", "c-1", "x" * METADATA)
        with pytest.raises(TypeError):
            cluster.channel().add("u", "c-1", object())


async def metadata_of(cluster: Cluster, uid: str) -> Any:
    return {one.uid: one.metadata for one in await cluster.channel().presence()}[uid]


# -- presence


def told(client: KitClient) -> dict[str, Any]:
    """Return who is there as a client knows it that follows what it is pushed."""
    known: dict[str, Any] = {}
    for body in bodies(client, "onPresence"):
        assert body["channel"] == "room"
        if body.get("reset"):
            known = {}
        known |= {one["uid"]: one["meta"] for one in body["joined"]}
        for uid in body["left"]:
            del known[uid]
        assert body["count"] == len(known)
    return known


@real_time
async def test_who_watches_hears_who_is_there_and_then_who_joins_and_leaves(game: Game) -> None:
    async with game() as cluster:
        early = await cluster.login("early", "c-1")
        await cluster.channel().add_confirmed("early", "c-1", 1)
        watcher = await cluster.login("watcher", "c-2")
        await cluster.channel().add_confirmed("watcher", "c-2", watch=True)
        await soon(partial(told, watcher), {"early": 1, "watcher": None})
        late = await cluster.login("late", "c-1")
        await cluster.channel().add_confirmed("late", "c-1", {"n": 2})
        await soon(partial(told, watcher), {"early": 1, "watcher": None, "late": {"n": 2}})
        early.close()
        await soon(partial(told, watcher), {"watcher": None, "late": {"n": 2}})
        await cluster.channel().add_confirmed("late", "c-1", {"n": 3})
        await soon(partial(told, watcher), {"watcher": None, "late": {"n": 3}})
        assert bodies(early, "onPresence") == bodies(late, "onPresence") == []


@real_time
async def test_a_crowd_that_joins_is_told_in_few_pushes_and_who_came_and_went_in_none(game: Game) -> None:
    async with game() as cluster:
        watcher = await cluster.login("watcher", "c-2")
        await cluster.channel().add_confirmed("watcher", "c-2", watch=True)
        await soon(partial(told, watcher), {"watcher": None})
        before = len(bodies(watcher, "onPresence"))
        for n in range(300):
            client = await cluster.login(f"u{n}", "c-1")
            cluster.channel().add(f"u{n}", "c-1")
            passing = await cluster.login(f"p{n}", "c-1")
            cluster.channel().add(f"p{n}", "c-1")
            await cluster.kit.settle() if n % 50 == 0 else None
            passing.close()
            assert not client.closed
        await soon(lambda: len(told(watcher)), 301)
        assert len(bodies(watcher, "onPresence")) - before < 15
        mentioned = sum(len(body["joined"]) for body in bodies(watcher, "onPresence")[before:])
        assert mentioned < 420


@real_time
async def test_who_watches_no_more_hears_no_more(game: Game) -> None:
    async with game() as cluster:
        watcher, other = await cluster.login("watcher", "c-2"), await cluster.login("other", "c-2")
        for uid in ("watcher", "other"):
            await cluster.channel().add_confirmed(uid, "c-2", watch=True)
        await soon(partial(told, watcher), {"watcher": None, "other": None})
        await cluster.channel().add_confirmed("watcher", "c-2", watch=False)
        await cluster.login("third", "c-1")
        await cluster.channel().add_confirmed("third", "c-1")
        await soon(lambda: "third" in told(other))
        assert "third" not in told(watcher)


# -- faults


@real_time
async def test_a_dead_frontends_users_and_members_are_gone_within_two_seconds_and_told_as_left(game: Game) -> None:
    async with game() as cluster:
        watcher = await cluster.login("watcher", "c-2")
        await cluster.channel().add_confirmed("watcher", "c-2", watch=True)
        for n in range(20):
            await cluster.login(f"u{n}", "c-1")
            await cluster.channel().add_confirmed(f"u{n}", "c-1")
        await soon(lambda: len(told(watcher)), 21)
        await cluster.kill("c-1")
        await soon(cluster.channel().members, ["watcher"], 2)
        await soon(partial(cluster.server().where, "u3"), [], 2)
        await soon(partial(told, watcher), {"watcher": None}, 2)
        assert await cluster.channel().count() == 1
        cluster.channel().push("on", "still")
        await soon(partial(bodies, watcher), ["still"])
        await cluster.revive("c-1")
        again = await cluster.login("u3", "c-1")
        assert await cluster.channel().add_confirmed("u3", "c-1")
        await soon(cluster.channel().count, 2)
        assert await cluster.server().push_to_users(["u3"], "on", 5) == []
        assert bodies(again) == [5]


@real_time
async def test_the_death_of_the_server_that_added_and_pushed_changes_nothing(game: Game) -> None:
    async with game() as cluster:
        client = await cluster.login("u")
        await cluster.channel(server_id="b-1").add_confirmed("u", "c-1")
        await cluster.kill("b-1")
        assert await cluster.channel(server_id="b-2").push_confirmed("on", 1) == []
        assert bodies(client) == [1]
        await soon(cluster.channel(server_id="b-2").members, ["u"])


@real_time
async def test_of_two_logins_in_a_split_view_the_later_one_stays_once_it_is_healed(game: Game) -> None:
    async with game(single=True, shards=1) as cluster:
        first = await cluster.login("u", "c-1")
        await soon(partial(cluster.server().where, "u"), ["c-1"])
        for other in ("c-2", *cluster.shards):
            cluster.cut("c-1", other)
        second = await cluster.login("u", "c-2")
        await soon(partial(cluster.server("c-2").where, "u"), ["c-1", "c-2"] if cluster.url else ["c-2"])
        assert not first.closed
        for other in ("c-2", *cluster.shards):
            cluster.mend("c-1", other)
        await soon(lambda: first.kicked, "logged in elsewhere")
        assert not second.closed
        await soon(partial(cluster.server().where, "u"), ["c-2"])


@real_time
async def test_a_link_that_breaks_for_a_moment_makes_nobody_leave(game: Game) -> None:
    async with game() as cluster:
        watcher = await cluster.login("watcher", "c-2")
        await cluster.channel().add_confirmed("watcher", "c-2", watch=True)
        clients = [await cluster.login(f"u{n}", "c-1") for n in range(3)]
        for n in range(3):
            await cluster.channel().add_confirmed(f"u{n}", "c-1")
        await soon(cluster.channel().count, 4)
        for other in ("c-2", "b-1", *cluster.shards):
            cluster.cut("c-1", other)
        clients[0].close()
        for _ in range(10):
            await asyncio.sleep(0.02)
            assert await cluster.channel(server_id="b-2").count() >= 3
        for other in ("c-2", "b-1", *cluster.shards):
            cluster.mend("c-1", other)
        await soon(cluster.channel().count, 3)
        await soon(lambda: sorted(told(watcher)), ["u1", "u2", "watcher"])
        assert all("u1" not in body["left"] for body in bodies(watcher, "onPresence"))


@real_time
async def test_a_stopped_frontend_leaves_nothing(game: Game) -> None:
    async with game() as cluster:
        await cluster.login("u", "c-1")
        await cluster.channel().add_confirmed("u", "c-1")
        await soon(cluster.channel().count, 1)
        await cluster.kit.nodes["c-1"].stop(0)
        cluster.kit.lose("c-1")
        await soon(partial(cluster.server().where, "u"), [], 2)
        await soon(cluster.channel().count, 0, 2)


@real_time
async def test_who_left_while_a_link_was_broken_is_out_once_it_is_up_again(game: Game) -> None:
    async with game() as cluster:
        clients = [await cluster.login(f"u{n}", "c-1") for n in range(3)]
        for n in range(3):
            await cluster.channel().add_confirmed(f"u{n}", "c-1")
        await cluster.channel("other").add_confirmed("u2", "c-1")
        cluster.cut("b-1", "c-1")
        cluster.channel().leave("u0")
        assert not await cluster.channel().leave_confirmed("u1")
        cluster.channel("other").destroy()
        cluster.mend("b-1", "c-1")
        for name in ("room", "other"):
            assert await cluster.channel(name).push_confirmed("on", name) == []
        assert [bodies(client) for client in clients] == [[], [], ["room"]]
        await soon(cluster.channel().members, ["u2"])
        await soon(cluster.channel("other").members, [])


@real_time
async def test_who_left_an_earlier_life_of_a_frontend_may_be_in_at_a_later_one(game: Game) -> None:
    async with game() as cluster:
        await cluster.login("u", "c-1")
        await cluster.channel().add_confirmed("u", "c-1")
        await cluster.kill("c-1")
        cluster.channel().leave("u")
        await cluster.revive("c-1")
        await cluster.login("u", "c-1")
        assert await cluster.channel(server_id="b-2").add_confirmed("u", "c-1")
        assert await cluster.channel().push_confirmed("on", 1) == []
        await soon(cluster.channel().members, ["u"])


@real_time
async def test_uids_and_channels_are_any_text_that_utf_8_has(game: Game) -> None:
    odd = ["a:b", "c-1", "\0\n", "ö*😀", "{x}", "online:", "%d'\"\\", "x" * 5000]
    async with game() as cluster:
        clients = [await cluster.login(uid, "c-1") for uid in odd]
        for uid in odd:
            assert await cluster.channel(uid).add_confirmed(uid, "c-1", uid[:300])
        for uid, client in zip(odd, clients, strict=True):
            await soon(partial(cluster.server().where, uid), ["c-1"])
            await soon(cluster.channel(uid).members, [uid])
            assert await cluster.server().push_to_users([uid], "on", uid) == []
            assert bodies(client) == [uid]
        for wrong in ("\ud800", ""):
            with pytest.raises(ValueError, match=r"surrogates|empty"):
                await cluster.server().where(wrong)
            with pytest.raises(ValueError, match=r"surrogates|empty"):
                cluster.channel(wrong)


@real_time
async def test_100_000_users_are_in_the_directory_and_found(game: Game) -> None:
    """Simulated users: what the frontends would tell of them, by way of the store."""
    async with game() as cluster:
        for place in ("c-1", "c-2"):
            await cluster.login(place, place)
            await soon(partial(cluster.server().where, place), [place])
        for number in range(100_000):
            place = f"c-{1 + number % 2}"
            cluster.kit.nodes[place].reach.store.tell((ONLINE, f"user-{number:06}", 1.7e9 + number))
            cluster.kit.nodes[place].reach.store.tell((JOINED, f"room-{number // 1000}", f"user-{number:06}", b""))
            if number % 1000 == 999:
                await asyncio.sleep(0)
        await soon(partial(cluster.server().where, "user-099999"), ["c-2"], 60)
        await soon(cluster.channel("room-99").count, 1000, 60)
        uids = [f"user-{number:06}" for number in range(100_000)]
        online = await cluster.server().is_online([*uids, "nobody"])
        assert sum(online.values()) == 100_000
        assert not online["nobody"]
        assert [await cluster.channel(f"room-{n}").count() for n in range(100)] == [1000] * 100
        # A frontend that dies takes its 50,000 along.
        await cluster.kill("c-1")
        await soon(cluster.channel("room-0").count, 500, 10)
        assert sum((await cluster.server().is_online(uids)).values()) == 50_000


# -- what is told surely


@real_time
async def test_a_leave_and_a_destroy_that_are_lost_with_the_link_are_told_again(game: Game) -> None:
    async with game() as cluster:
        clients = [await cluster.login(f"u{n}", "c-1") for n in range(3)]
        for uid, name in (("u0", "room"), ("u1", "room"), ("u2", "other")):
            await cluster.channel(name).add_confirmed(uid, "c-1")
        # Accepted while the link is up, and lost as it breaks; then lost with two more beginnings.
        hang(cluster)
        cluster.channel().leave("u0", "c-1")
        confirmed = asyncio.create_task(cluster.channel().leave_confirmed("u1", "c-1"))
        cluster.channel("other").destroy()
        await asyncio.sleep(0)
        for _ in range(2):
            cluster.cut("b-1", "c-1")
            cluster.mend("b-1", "c-1")
        cluster.cut("b-1", "c-1")
        await confirmed
        residents: Any = cluster.kit.nodes["c-1"].reach.residents
        assert sorted(residents._members) == ["other", "room"]
        cluster.mend("b-1", "c-1")
        for name in ("room", "other"):
            assert await cluster.channel(name).push_confirmed("on", name) == []
        assert [bodies(client) for client in clients] == [[], [], []]
        await soon(cluster.channel().members, [])
        await soon(cluster.channel("other").members, [])
        assert not cluster.kit.nodes["b-1"].reach._owed._debts


@real_time
async def test_a_leave_that_was_lost_does_not_undo_a_later_add_of_the_same_server(game: Game) -> None:
    async with game() as cluster:
        clients = [await cluster.login(uid, "c-1") for uid in ("left", "destroyed", "other")]
        await cluster.channel().add_confirmed("left", "c-1")
        for uid in ("destroyed", "other"):
            await cluster.channel("hall").add_confirmed(uid, "c-1")
        hang(cluster)
        confirmed = asyncio.create_task(cluster.channel().leave_confirmed("left", "c-1"))
        await asyncio.sleep(0)
        cluster.channel("hall").destroy()
        cluster.channel().add("left", "c-1", "again")
        cluster.channel("hall").add("destroyed", "c-1", "again")
        cluster.cut("b-1", "c-1")
        cluster.mend("b-1", "c-1")
        await confirmed
        for name in ("room", "hall"):
            assert await cluster.channel(name).push_confirmed("on", name) == []
        assert [bodies(client) for client in clients] == [["room"], ["hall"], []]


def hang(cluster: Cluster) -> None:
    """Have the back server's link to c-1 take entries and carry none, until it begins anew."""
    link: Any = cluster.kit.nodes["b-1"].links.to("c-1")
    link._arrive = lambda packed: None


@real_time
async def test_a_leave_that_is_told_late_does_not_undo_what_another_server_added_meanwhile(game: Game) -> None:
    async with game() as cluster:
        clients = [await cluster.login(f"u{n}", "c-1") for n in range(3)]
        for n, name in enumerate(("room", "other", "other")):
            await cluster.channel(name).add_confirmed(f"u{n}", "c-1")
        cluster.cut("b-1", "c-1")
        cluster.channel().leave("u0")
        cluster.channel("other").destroy()
        await asyncio.sleep(0.02)
        assert await cluster.channel(server_id="b-2").add_confirmed("u0", "c-1")
        assert await cluster.channel("other", "b-2").add_confirmed("u1", "c-1")
        await asyncio.sleep(0.02)
        cluster.mend("b-1", "c-1")
        for name in ("room", "other"):
            assert await cluster.channel(name).push_confirmed("on", name) == []
        assert [bodies(client) for client in clients] == [["room"], ["other"], []]
