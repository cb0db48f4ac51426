"""What reaches over the cluster, for real: both stores, real sockets, real Ray, real kills."""

import asyncio
import contextlib
import os
import re
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any

import pytest
from pomelo_client import PomeloClient
from reaching import soon
from redis_server import RedisServer
from running import ROOT, RunningGame
from waiting import eventually

pytestmark = pytest.mark.real

STORES = ["embedded", "redis"]


@pytest.fixture(scope="module", params=STORES)
def reach(request: pytest.FixtureRequest) -> Iterator[RunningGame]:
    """A game with two frontends that allow several sessions, two that do not, and two back servers."""
    if request.param == "embedded":
        with RunningGame(ROOT / "tests" / "reach" / "servers.yaml", ready=180) as running:
            yield running
        return
    with (
        RedisServer() as server,
        RunningGame(ROOT / "tests" / "reach" / "redis.yaml", env={"REACH_REDIS": server.url}, ready=180) as running,
    ):
        running.redis = server  # type: ignore[attr-defined]
        yield running


class Asker:
    """A client that has back servers do things."""

    def __init__(self, client: PomeloClient) -> None:
        self._client = client

    async def __call__(self, what: str, at: int = 1, **more: Any) -> Any:
        answer = await self._client.request("back.reach.do", {"what": what, "at": f"back-{at}", **more})
        return answer.get("did", answer)

    async def pid(self, at: int) -> int:
        answer = await self._client.request("back.reach.do", {"what": "count", "at": f"back-{at}"})
        return int(answer["pid"])

    def where(self, uid: str) -> Any:
        return self("where", uid=uid)


@contextlib.asynccontextmanager
async def asker(game: RunningGame) -> AsyncIterator[Asker]:
    async with PomeloClient(game.urls["connector-2"]) as client:
        yield Asker(client)


@contextlib.asynccontextmanager
async def user(game: RunningGame, uid: str, place: str) -> AsyncIterator[PomeloClient]:
    async with PomeloClient(game.urls[place]) as client:
        await client.request(f"{place.partition('-')[0]}.entry.login", {"uid": uid})
        yield client


async def pid_of(game: RunningGame, place: str) -> int:
    async with PomeloClient(game.urls[place]) as client:
        answer = await client.request(f"{place.partition('-')[0]}.entry.login", {"uid": f"pid of {place}"})
        return int(answer["pid"])


async def pushed(client: PomeloClient, route: str = "on") -> Any:
    return await client.pushed(route, timeout=5)


def test_users_are_found_pushed_to_and_kicked_from_any_server(reach: RunningGame) -> None:
    async def scenario() -> None:
        async with asker(reach) as ask, user(reach, "u", "connector-1") as one, user(reach, "u", "connector-2") as two:
            for at in (1, 2):
                await soon(partial(ask, "where", at, uid="u"), ["connector-1", "connector-2"])
            assert await ask("online", uids=["u", "nobody"]) == {"u": True, "nobody": False}
            assert await ask("push", 2, uids=["u", "nobody"], body={"n": 1}) == ["nobody"]
            assert [await pushed(one), await pushed(two)] == [{"n": 1}, {"n": 1}]
            assert await ask("kick", uid="u", reason="enough") == 2
            await one.until_closed()
            await two.until_closed()
            await soon(lambda: ask.where("u"), [])

    asyncio.run(scenario())


def test_a_second_login_on_another_frontend_ends_the_first(reach: RunningGame) -> None:
    async def scenario() -> None:
        async with asker(reach) as ask, user(reach, "s", "single-1") as first:
            await soon(lambda: ask.where("s"), ["single-1"])
            async with user(reach, "s", "single-2") as second:
                await first.until_closed()
                await soon(lambda: ask.where("s"), ["single-2"])
                assert await ask("push", uids=["s"], body=1) == []
                assert await pushed(second) == 1

    asyncio.run(scenario())


def test_logins_that_race_leave_exactly_one(reach: RunningGame) -> None:
    async def scenario() -> None:
        async with asker(reach) as ask, contextlib.AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(PomeloClient(reach.urls[f"single-{1 + n % 2}"])) for n in range(10)
            ]
            logins = [client.send_request("single.entry.login", {"uid": "racer"}) for client in clients]
            answers = await asyncio.gather(*logins)
            await asyncio.gather(*answers, return_exceptions=True)

            async def alive() -> int:
                return sum(not client.closed for client in clients)

            await soon(alive, 1)
            assert len(await ask.where("racer")) == 1

    asyncio.run(scenario())


def test_a_frontend_that_is_killed_takes_its_users_along_within_two_seconds(reach: RunningGame) -> None:
    async def scenario() -> None:
        async with asker(reach) as ask, user(reach, "watcher", "connector-2") as watcher:
            await ask("add", channel="dying", uid="watcher", place="connector-2", watch=True)
            async with user(reach, "lost", "connector-1") as lost:
                await ask("add", channel="dying", uid="lost", place="connector-1", meta={"level": 3})
                known: dict[str, Any] = {}
                while "lost" not in known:
                    body = await pushed(watcher, "onPresence")
                    known |= {one["uid"]: one["meta"] for one in body["joined"]}
                assert known == {"watcher": None, "lost": {"level": 3}}
                os.kill(await pid_of(reach, "connector-1"), signal.SIGKILL)
                killed = time.monotonic()
                await lost.until_closed()
                await soon(lambda: ask("members", channel="dying"), ["watcher"])
                await soon(lambda: ask.where("lost"), [])
                assert time.monotonic() - killed < 2
                while "lost" not in (body := await pushed(watcher, "onPresence"))["left"]:
                    assert not body["left"]
                assert time.monotonic() - killed < 2.5
                assert body["count"] == 1
                assert await ask("say", channel="dying", body="still here") == []
                assert await pushed(watcher) == "still here"
            await serves(reach, "connector-1")
            async with user(reach, "lost", "connector-1") as again:
                assert await ask("add", channel="dying", uid="lost", place="connector-1")
                await soon(lambda: ask("count", channel="dying"), 2)
                await ask("say", channel="dying", body="again")
                assert await pushed(again) == "again"

    asyncio.run(scenario())


async def serves(game: RunningGame, place: str) -> None:
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(OSError, TimeoutError):
                await pid_of(game, place)
                return
            await asyncio.sleep(0.1)


def test_the_server_that_made_a_global_channel_may_die(reach: RunningGame) -> None:
    async def scenario() -> None:
        async with asker(reach) as ask, user(reach, "m", "connector-1") as member:
            await ask("add", at=1, channel="orphan", uid="m", place="connector-1")
            pid = await ask.pid(1)
            os.kill(pid, signal.SIGKILL)
            assert await ask("say", at=2, channel="orphan", body=1) == []
            assert await pushed(member) == 1
            await soon(lambda: ask("members", at=2, channel="orphan"), ["m"])

            async def back() -> bool:
                with contextlib.suppress(KeyError):
                    return await ask.pid(1) != pid
                return False

            await soon(back, deadline=20)
            assert await ask("say", at=1, channel="orphan", body=2) == []
            assert await pushed(member) == 2

    asyncio.run(scenario())


def end_store(game: RunningGame) -> None:
    """Kill what holds the store, and have it begin again with nothing."""
    server: RedisServer | None = getattr(game, "redis", None)
    if server is not None:
        server.stop()
        server.start()
        return
    os.kill(shard_pid(game), signal.SIGKILL)


def shard_pid(game: RunningGame) -> int:
    """Return the process of the directory server's latest life."""

    def shard() -> list[str]:
        return re.findall(r"\(directory-1 \(directory of [\w-]+\) pid=(\d+)\)", game.stderr())

    return int(eventually(shard)[-1])


def hang_store(game: RunningGame) -> Callable[[], None]:
    """Stop what holds the store, without ending it; returns what has it go on."""
    server: RedisServer | None = getattr(game, "redis", None)
    if server is not None:
        server.pause()
        return server.resume
    pid = shard_pid(game)
    os.kill(pid, signal.SIGSTOP)
    return partial(os.kill, pid, signal.SIGCONT)


def test_a_store_that_hangs_keeps_nobody_from_logging_in_joining_and_hearing_pushes(reach: RunningGame) -> None:
    async def scenario() -> None:
        async with asker(reach) as ask:
            resume = hang_store(reach)
            try:
                question = asyncio.create_task(ask.where("h"))
                async with user(reach, "h", "connector-1") as one:
                    assert await ask("add", channel="hung", uid="h", place="connector-1")
                    assert await ask("say", channel="hung", body=1) == []
                    assert await pushed(one) == 1
                    assert not question.done()
                    resume()
                    await soon(lambda: ask.where("h"), ["connector-1"])
                    await soon(lambda: ask("members", channel="hung"), ["h"])
                assert await question in ([], ["connector-1"])
            finally:
                resume()

    asyncio.run(scenario())


def test_a_store_that_is_killed_knows_all_again_and_pushes_did_not_need_it(reach: RunningGame) -> None:
    async def scenario() -> None:
        async with (
            asker(reach) as ask,
            user(reach, "k1", "connector-1") as one,
            user(reach, "k2", "connector-2") as two,
            user(reach, "ks", "single-1") as single,
        ):
            for number in (1, 2):
                await ask("add", channel="kept", uid=f"k{number}", place=f"connector-{number}", meta=number, watch=True)
            await soon(lambda: ask("count", channel="kept"), 2)
            await soon(lambda: ask.where("ks"), ["single-1"])
            end_store(reach)
            for number in range(20):
                ask_again = await ask("say", channel="kept", body=number)
                assert ask_again == []
                assert [await pushed(one), await pushed(two)] == [number, number]
            async with user(reach, "ks", "single-2"):
                # The order of the two is found out when the store is back.
                await asyncio.wait_for(single.until_closed(), 20)
            await soon(lambda: ask("members", channel="kept"), ["k1", "k2"], 20)
            await soon(lambda: ask.where("k1"), ["connector-1"], 20)
            async with user(reach, "k3", "connector-1"):
                await ask("add", channel="kept", uid="k3", place="connector-1")
                known: set[str] = set()
                while "k3" not in known:
                    body = await pushed(one, "onPresence")
                    known = set() if body.get("reset") else known
                    known = (known | {one["uid"] for one in body["joined"]}) - set(body["left"])
                assert known == {"k1", "k2", "k3"}

    asyncio.run(scenario())
