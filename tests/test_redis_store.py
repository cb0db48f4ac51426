"""What is the redis store's own: a redis that is away or has lost all, lives that ended without a word, older lives."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from functools import partial, wraps
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import redis
from reaching import Cluster, soon
from redis_server import RedisServer

from actors import redis_scripts, redis_store
from actors.directory_keys import INTERVAL
from actors.redis_store import RedisStore
from handlers.errors import Unavailable
from handlers.kit import KitClient
from handlers.store import ONLINE

Test = Callable[[RedisServer], Coroutine[Any, Any, None]]


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as running:
        yield running


def real_time(test: Test) -> Callable[..., None]:
    @wraps(test)
    def run(server: RedisServer) -> None:
        asyncio.run(test(server))

    return run


def keys(cluster: Cluster, server: RedisServer) -> list[str]:
    """Return what is in redis of a game, without its prefix; but for the number of the last change."""
    with redis.Redis(port=server.port) as client:
        found: Any = client.keys(f"{cluster.prefix}*")
    return sorted(key.decode().removeprefix(cluster.prefix) for key in found if not key.endswith(b":seq"))


@real_time
async def test_a_redis_that_comes_back_empty_is_told_all_again(server: RedisServer) -> None:
    async with Cluster(server.url, single=True) as cluster:
        watcher = await cluster.login("watcher", "c-1")
        await cluster.login("u", "c-2")
        await cluster.channel().add_confirmed("watcher", "c-1", watch=True)
        await cluster.channel().add_confirmed("u", "c-2", 5)
        await soon(cluster.channel().count, 2)
        server.stop()
        with pytest.raises(Unavailable, match=r"the directory, redis at 127\.0\.0\.1"):
            await cluster.server().where("u")
        # Pushes need no redis, and who comes and goes meanwhile is known afterwards.
        assert await cluster.channel().push_confirmed("on", 1) == []
        assert ("on", 1) in watcher.pushes
        await cluster.login("meanwhile", "c-2")
        await cluster.channel().add_confirmed("meanwhile", "c-2")
        server.start()
        await soon(partial(ask, cluster.channel().members), ["meanwhile", "u", "watcher"], 10)
        await soon(partial(ask, partial(cluster.server().where, "meanwhile")), ["c-2"], 10)
        await soon(lambda: watcher.pushes[-1][0], "onPresence")
        await soon(lambda: watcher.pushes[-1][1]["count"], 3)
        assert any(body.get("reset") for route, body in watcher.pushes if route == "onPresence")


async def ask(question: Callable[[], Any]) -> Any:
    try:
        return sorted(await question())
    except Unavailable:
        return None


@real_time
async def test_nothing_stays_in_redis_of_those_who_left(server: RedisServer) -> None:
    async with Cluster(server.url) as cluster:
        clients = [await cluster.login(f"u{n}", f"c-{1 + n % 2}") for n in range(10)]
        for n in range(10):
            await cluster.channel().add_confirmed(f"u{n}", f"c-{1 + n % 2}", n, watch=n == 0)
        await soon(cluster.channel().count, 10)
        assert "online:u3" in keys(cluster, server)
        for client in clients:
            client.close()
        await soon(
            lambda: [key for key in keys(cluster, server) if not key.startswith("log:")],
            ["alive:c-1", "alive:c-2", "known"],
        )
    assert [key for key in keys(cluster, server) if not key.startswith("log:")] == []


@real_time
async def test_a_whole_game_that_died_counts_for_nobody_and_is_swept_by_the_next(server: RedisServer) -> None:
    dead = Cluster(server.url)
    async with dead:
        for place in ("c-1", "c-2"):
            await dead.login(place, place)
            await dead.channel().add_confirmed(place, place)
        await soon(dead.channel().count, 2)
        for server_id in list(dead.stores):
            await dead.kill(server_id)
    assert "online:c-1" in keys(dead, server)
    async with Cluster(server.url, prefix=dead.prefix) as born:
        await soon(born.channel().count, 0)
        await soon(partial(born.server().where, "c-1"), [])
        await soon(lambda: [key for key in keys(born, server) if key.startswith(("online", "channel"))], [])


def test_a_frontend_without_a_sign_of_life_counts_for_nothing(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_scripts, "TTL", 1200)

    async def scenario() -> None:
        async with Cluster(server.url) as cluster:
            await cluster.login("u", "c-1")
            await cluster.channel().add_confirmed("u", "c-1")
            await soon(cluster.channel().count, 1)
            # Its links are up and it serves, but it does not get to redis.
            store: Any = cluster.stores["c-1"]
            await store._end_work()
            await soon(partial(cluster.server().where, "u"), [], 3)
            await soon(cluster.channel().count, 0)
            store._ended = False
            store._worker = asyncio.get_running_loop().create_task(store._work())
            await soon(partial(cluster.server().where, "u"), ["c-1"])
            await soon(cluster.channel().count, 1)

    asyncio.run(scenario())


@real_time
async def test_an_older_life_of_a_frontend_writes_nothing_over_a_later_one(server: RedisServer) -> None:
    truth: Any = type(
        "Truth", (), {"single_session": False, "facts": staticmethod(lambda: iter([(ONLINE, "old", 1.0)]))}
    )()
    newer: Any = type(
        "Truth", (), {"single_session": False, "facts": staticmethod(lambda: iter([(ONLINE, "new", 2.0)]))}
    )()
    later, earlier = (RedisStore(server.url, "lives:", "c-1", incarnation) for incarnation in (8, 7))
    await later.start(newer)
    await soon(partial(later.where, ["new", "old"]), {"new": ["c-1"]})
    with mock.patch.object(redis_store.logger, "error") as refused:
        await earlier.start(truth)
        async with asyncio.timeout(10):
            while refused.call_count < 2:  # it tries again
                assert await later.where(["new", "old"]) == {"new": ["c-1"]}
    assert "a later life of this server" in refused.call_args.args[0]
    await earlier.stop()
    assert await later.where(["new", "old"]) == {"new": ["c-1"]}
    await later.stop()


@real_time
async def test_a_redis_that_comes_back_with_an_earlier_state_is_told_all_again(server: RedisServer) -> None:
    async with Cluster(server.url) as cluster:
        early = await cluster.login("early", "c-1")
        await soon(partial(cluster.server().where, "early"), ["c-1"])
        with redis.Redis(port=server.port) as client:
            client.save()
        await cluster.login("late", "c-1")
        early.close()
        await soon(partial(cluster.server().where, "late"), ["c-1"])
        await soon(partial(cluster.server().where, "early"), [])
        # So short, and without a turn of the loop, that nobody sees a connection fail; replicas take over like this.
        server.stop()
        server.start()
        await soon(partial(ask, partial(cluster.server().where, "late")), ["c-1"])
        await soon(partial(ask, partial(cluster.server().where, "early")), [])
    (server.folder / "dump.rdb").unlink()


def test_a_redis_that_hangs_keeps_askers_waiting_so_long_and_no_more_connections_than_so_many(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_store, "TIMEOUT", 0.5)

    async def scenario() -> None:
        async with Cluster(server.url) as cluster:
            client = await cluster.login("u", "c-1")
            await cluster.channel().add_confirmed("u", "c-1")
            await soon(partial(cluster.server().where, "u"), ["c-1"])
            server.pause()
            began = asyncio.get_running_loop().time()
            questions = [cluster.server().where(f"v{number}") for number in range(300)]
            found = await asyncio.gather(*questions, return_exceptions=True)
            assert asyncio.get_running_loop().time() - began < 1.5
            assert {type(one) for one in found} == {Unavailable}
            # Logins, logouts and pushes do not wait for it.
            await cluster.login("meanwhile", "c-1")
            assert await cluster.channel().push_confirmed("on", 1) == []
            assert ("on", 1) in client.pushes
            server.resume()
            await soon(partial(ask, partial(cluster.server().where, "meanwhile")), ["c-1"])
            with redis.Redis(port=server.port) as own:
                # Of the one that asked, and of four that have facts of their own or a look at who is silent.
                connected: Any = own.info("clients")
                assert connected["connected_clients"] < redis_store.LINES + 10

    try:
        asyncio.run(scenario())
    finally:
        server.resume()


@real_time
async def test_a_fact_that_cannot_be_told_keeps_no_other_from_being_told(server: RedisServer) -> None:
    async with Cluster(server.url) as cluster:
        await cluster.login("before", "c-1")
        await soon(partial(cluster.server().where, "before"), ["c-1"])
        cluster.stores["c-1"].tell((ONLINE, "\ud800", 1.0))
        await cluster.login("after", "c-1")
        await soon(partial(cluster.server().where, "after"), ["c-1"])
        assert await cluster.server().where("before") == ["c-1"]


@real_time
async def test_presence_that_cannot_be_pushed_keeps_nothing_else_from_being_told(server: RedisServer) -> None:
    async with Cluster(server.url) as cluster:
        watcher = await cluster.login("watcher", "c-1")
        residents: Any = cluster.kit.nodes["c-1"].reach.residents
        failed: list[str] = []

        def refuse(clients: Any, route: str, body: bytes, options: bytes) -> None:
            failed.append(route)
            raise ValueError("a message too long to be pushed")

        pushes = SimpleNamespace(group=residents._pushes.group, deliver=refuse)
        refusing = mock.patch.object(residents, "_pushes", pushes)
        refusing.start()
        await cluster.channel().add_confirmed("watcher", "c-1", watch=True)
        await soon(lambda: bool(failed))
        await cluster.login("after", "c-1")
        await soon(partial(cluster.server().where, "after"), ["c-1"])
        refusing.stop()
        await cluster.channel().add_confirmed("after", "c-1")
        await soon(lambda: [body["count"] for _, body in watcher.pushes][-1:], [2])


@real_time
async def test_a_session_that_lost_is_ended_though_nobody_tells_its_frontend(server: RedisServer) -> None:
    async with Cluster(server.url, single=True) as cluster:
        told: list[str] = []
        winner: Any = cluster.kit.nodes["c-2"].reach.residents
        # Accepted by the link, and lost with it.
        winner.displace = lambda frontend_id, uid, until: told.append(frontend_id)
        first = await cluster.login("u", "c-1")
        await soon(partial(cluster.server().where, "u"), ["c-1"])
        second = await cluster.login("u", "c-2")
        await soon(lambda: first.kicked, "logged in elsewhere", 2)
        assert told == ["c-1"]
        await soon(partial(cluster.server().where, "u"), ["c-2"])
        assert not second.closed
        await soon(lambda: [key for key in keys(cluster, server) if key.startswith("lost:")], [])


@real_time
async def test_a_session_that_lost_does_not_win_when_its_frontend_tells_all_again(server: RedisServer) -> None:
    async with Cluster(server.url, single=True) as cluster:
        winner: Any = cluster.kit.nodes["c-2"].reach.residents
        winner.displace = lambda frontend_id, uid, until: None
        loser: Any = cluster.stores["c-1"]
        first = await cluster.login("u", "c-1")
        await soon(partial(cluster.server().where, "u"), ["c-1"])
        await loser._end_work()
        # By the clocks it is the later one, though it was told first.
        first.session.bound_at += 1000
        with redis.Redis(port=server.port) as client:
            client.hset(f"{cluster.prefix}online:u", "c-1", f"1 {first.session.bound_at!r}")
        second = await cluster.login("u", "c-2")
        await soon(lambda: "lost:c-1" in keys(cluster, server))
        loser._ended = False
        loser._fall_behind()
        loser._worker = asyncio.get_running_loop().create_task(loser._work())
        await soon(lambda: first.kicked, "logged in elsewhere")
        await soon(partial(cluster.server().where, "u"), ["c-2"])
        assert not second.closed


class Snapshot:
    """All that is in a redis, for it to go back to, without its noticing and as a whole."""

    def __init__(self, server: RedisServer) -> None:
        self._port = server.port
        with redis.Redis(port=server.port) as client:
            found: Any = client.keys("*")
            self._keys: list[Any] = [(key, client.dump(key), client.pttl(key)) for key in found]

    def restore(self) -> None:
        with redis.Redis(port=self._port) as client, client.pipeline() as together:
            together.flushdb()
            for key, value, left in self._keys:
                together.restore(key, max(0, left), value)
            together.execute()


@real_time
async def test_who_watches_at_an_idle_frontend_hears_all_anew_when_redis_goes_back(server: RedisServer) -> None:
    async with Cluster(server.url) as cluster:
        watcher = await cluster.login("watcher", "c-1")
        await cluster.channel().add_confirmed("watcher", "c-1", watch=True)
        await soon(lambda: counts(watcher), [1])
        before = Snapshot(server)
        for number in range(3):
            await cluster.login(f"lost-{number}", "c-2")
            await cluster.channel().add_confirmed(f"lost-{number}", "c-2")
            await soon(lambda: counts(watcher)[-1], 2 + number)
        # Nobody is left to tell of these, and the watcher's frontend has told nothing that redis lacks.
        await cluster.stores["c-2"].close()  # type: ignore[attr-defined]
        generation = cluster.stores["c-1"]._generation  # type: ignore[attr-defined]
        before.restore()
        await soon(lambda: watcher.pushes[-1][1].get("reset"))
        assert [one["uid"] for one in watcher.pushes[-1][1]["joined"]] == ["watcher"]
        assert cluster.stores["c-1"]._generation == generation  # type: ignore[attr-defined]


@real_time
async def test_numbers_of_changes_do_not_come_again_when_redis_goes_back(server: RedisServer) -> None:
    async with Cluster(server.url) as cluster:
        watcher = await cluster.login("watcher", "c-1")
        await cluster.channel().add_confirmed("watcher", "c-1", watch=True)
        await soon(lambda: counts(watcher), [1])
        await cluster.login("first", "c-2")
        await cluster.channel().add_confirmed("first", "c-2")
        await soon(lambda: counts(watcher)[-1], 2)
        with redis.Redis(port=server.port) as client:
            before: Any = client.get(f"{cluster.prefix}seq")
            seconds, microseconds = client.time()
            assert int(before) <= seconds * 1_000_000 + microseconds
            client.set(f"{cluster.prefix}seq", int(before) - 1)
            await cluster.login("u", "c-2")
            await cluster.channel().add_confirmed("u", "c-2")
            await soon(lambda: counts(watcher)[-1], 3)
            after: Any = client.get(f"{cluster.prefix}seq")
            assert int(after) > int(before)


def counts(client: KitClient) -> list[int]:
    return [body["count"] for route, body in client.pushes if route == "onPresence"]


def test_a_frontend_that_finds_redis_behind_tells_all_at_once(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_store, "SIGN", 60.0)

    async def scenario() -> None:
        async with Cluster(server.url) as cluster:
            await cluster.login("early", "c-1")
            await soon(partial(cluster.server().where, "early"), ["c-1"])
            with redis.Redis(port=server.port) as client:
                client.delete(f"{cluster.prefix}alive:c-1")
            await cluster.login("late", "c-1")
            await soon(partial(cluster.server().where, "late"), ["c-1"])
            assert await cluster.server().where("early") == ["c-1"]

    asyncio.run(scenario())


@real_time
async def test_a_frontend_that_stops_takes_all_back_though_its_last_batch_did_not_come(server: RedisServer) -> None:
    async with Cluster(server.url) as cluster:
        await cluster.login("u", "c-1")
        await soon(partial(cluster.server().where, "u"), ["c-1"])
        store: Any = cluster.stores["c-1"]
        await store._end_work()
        store._batch += 1
        store._ended = False
        await store.stop()
        assert await cluster.server().where("u") == []
        assert not [key for key in keys(cluster, server) if key.endswith(":c-1")]


def test_changes_are_kept_for_longer_than_the_longest_interval_between_looks() -> None:
    assert 2000 * INTERVAL[1] <= redis_scripts.LOG_LIFE
