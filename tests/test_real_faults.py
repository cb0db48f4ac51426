"""Faults, with real kills, in games of their own."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import GAME
from load import Load
from pomelo_client import PomeloClient
from running import RunningGame
from test_real_sessions import uid_on
from waiting import eventually

pytestmark = pytest.mark.real
BUSY = {"code": 503, "message": "area-1 is busy"}


@pytest.fixture(scope="module")
def fragile() -> Iterator[RunningGame]:
    """A game whose servers are killed."""
    with RunningGame(GAME, sets=["connector.count=1", "connector.link_queue=100000"]) as running:
        yield running


async def logged_in(client: PomeloClient, uid: str) -> int:
    """Log in and return the process id of the user's area server."""
    await client.request("connector.entry.login", {"uid": uid})
    pid: int = (await client.request("area.test.echo"))["pid"]
    return pid


@contextlib.contextmanager
def standing_still(pid: int) -> Iterator[None]:
    """Have a process stand still in the context."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def serves_again(client: PomeloClient, deadline: float) -> int:
    """Wait until the user's area server answers; returns its process id."""
    async with asyncio.timeout(deadline):
        while "pid" not in (answer := await client.request("area.test.echo")):
            assert answer["code"] == 503
    return int(answer["pid"])


def test_requests_in_flight_to_a_killed_backend_are_answered_503_within_a_second_and_it_serves_again(
    fragile: RunningGame,
) -> None:
    async def scenario() -> None:
        async with PomeloClient(fragile.urls["connector-1"]) as client, PomeloClient(fragile.urls["single-1"]) as other:
            pid = await logged_in(client, uid_on("area-1"))
            await logged_in(other, uid_on("area-2"))
            naps = [await client.send_request("area.test.nap", {"number": n, "seconds": 60}) for n in range(50)]
            await client.request("area.test.echo")
            os.kill(pid, signal.SIGKILL)
            killed = time.monotonic()
            answers = await asyncio.gather(*naps)
            assert time.monotonic() - killed < 1
            assert {answer["code"] for answer in answers} == {503}
            # Others are served, this user keeps its place, and its session lives.
            assert (await other.request("area.test.echo"))["server"] == "area-2"
            assert (await client.request("connector.entry.show"))["uid"] == uid_on("area-1")
            assert (await client.request("area.test.echo"))["code"] == 503
            assert await serves_again(client, 20) != pid
            assert (await client.request("area.test.echo"))["server"] == "area-1"

    asyncio.run(scenario())


def test_a_killed_backend_is_noticed_at_once_and_not_after_ray_has_thought_about_it(fragile: RunningGame) -> None:
    """Fails without RAY_timeout_ms_task_wait_for_death_info=0 in the servers' environment: Ray then waits 1 to 2 s."""

    async def scenario() -> None:
        async with PomeloClient(fragile.urls["connector-1"]) as client:
            pid = await logged_in(client, uid_on("area-2", "quick"))
            in_flight = await client.send_request("area.test.nap", {"number": 1, "seconds": 60})
            os.kill(pid, signal.SIGKILL)
            killed = time.monotonic()
            assert (await in_flight)["code"] == 503
            assert time.monotonic() - killed < 0.3
            await serves_again(client, 20)

    asyncio.run(scenario())


def test_a_stopped_backend_is_refused_within_six_seconds_and_well_again_when_it_goes_on(fragile: RunningGame) -> None:
    async def scenario() -> None:
        async with PomeloClient(fragile.urls["connector-1"]) as client, PomeloClient(fragile.urls["connector-1"]) as b:
            pid = await logged_in(client, uid_on("area-1", "hung"))
            await logged_in(b, uid_on("area-2", "well"))
            with standing_still(pid):
                stopped = time.monotonic()
                in_flight = await client.send_request("area.test.nap", {"number": 1})
                refused = await refused_at(client)
                assert refused - stopped < 6
                for _ in range(20):
                    assert (await b.request("area.test.echo", timeout=1))["server"] == "area-2"
                assert not in_flight.done()
                # Those who are bound to nobody go to the server that responds.
                async with PomeloClient(fragile.urls["connector-1"]) as unbound:
                    assert (await unbound.request("area.test.echo", timeout=1))["server"] == "area-2"
            assert await in_flight == {"number": 1}
            assert await serves_again(client, 10) == pid

    asyncio.run(scenario())


def test_what_finds_the_queue_to_a_stopped_backend_full_is_answered_503_at_once_and_what_waits_is_served_later(
    fragile: RunningGame,
) -> None:
    async def scenario() -> None:
        async with PomeloClient(fragile.urls["connector-1"]) as client:
            pid = await logged_in(client, uid_on("area-1", "busy"))
            with standing_still(pid):
                # What a call or a return takes along leaves room for one more, so how many it takes is not ours to say.
                sent: list[asyncio.Future[Any]] = []
                refused: set[asyncio.Future[Any]] = set()
                async with asyncio.timeout(3):
                    while not refused:
                        sent.append(await client.send_request("area.test.echo", {"text": "x" * 60_000}))
                        refused, _ = await asyncio.wait(sent, timeout=0.1)
                assert all(answer.result() == BUSY for answer in refused)
                waiting = [answer for answer in sent if answer not in refused]
                assert waiting
            assert {answer["pid"] for answer in await asyncio.gather(*waiting)} == {pid}

    asyncio.run(scenario())


def test_users_of_a_backend_that_stands_still_for_long_go_to_another_and_back_when_it_goes_on(
    fragile: RunningGame,
) -> None:
    async def scenario() -> None:
        async with PomeloClient(fragile.urls["connector-1"]) as client:
            pid = await logged_in(client, uid_on("area-1", "patient"))
            assert (await client.request("area.room.join", {"room": "still"}))["present"]
            with standing_still(pid):
                said = ("area-1: does not answer", "area-1: gone; users go to others")
                for line in said:
                    await asyncio.to_thread(eventually, lambda line=line: line in fragile.stderr(), 60)
                assert await serves_again(client, 10) != pid
            async with asyncio.timeout(20):
                while await serves_again(client, 10) != pid:
                    pass
            # It had lost its place, and its channels their members with it.
            assert await client.request("area.room.members", {"room": "still"}) == []
            assert (await client.request("area.room.join", {"room": "still"}))["present"]
            assert await client.request("area.room.say", {"room": "still", "text": "on"}) == {"failed": []}
            assert (await client.pushed("onSaid"))["text"] == "on"

    asyncio.run(scenario())


async def refused_at(client: PomeloClient) -> float:
    """Ask concurrently until a request is refused; returns when."""
    async with asyncio.timeout(10):
        while True:
            answer = await client.send_request("area.test.nap", {"number": 2})
            with contextlib.suppress(TimeoutError):
                result: Any = await asyncio.wait_for(asyncio.shield(answer), 0.1)
                if result.get("code") == 503:
                    return time.monotonic()


def test_a_killed_frontend_serves_on_its_old_port_and_backends_forget_its_members(fragile: RunningGame) -> None:
    async def scenario() -> None:
        async with PomeloClient(fragile.urls["single-1"]) as watcher:
            await logged_in(watcher, uid_on("area-1", "watcher"))
            async with PomeloClient(fragile.urls["connector-1"]) as client:
                lost = uid_on("area-1", "lost")
                await logged_in(client, lost)
                await client.request("area.room.join", {"room": "left"})
                await watcher.request("area.room.join", {"room": "left"})
                assert len(await watcher.request("area.room.members", {"room": "left"})) == 2
                pid = (await client.request("connector.entry.show"))["pid"]
                async with PomeloClient(fragile.urls["single-1"]) as other, Load([other], "area.test.echo") as load:
                    await load.answered()
                    os.kill(pid, signal.SIGKILL)
                    killed = time.monotonic()
                    async with asyncio.timeout(20):
                        while len(await watcher.request("area.room.members", {"room": "left"})) == 2:
                            pass
                    assert time.monotonic() - killed < 2
                    await load.answered(20)
                assert set(load.codes) == {200}
                # The backend that served the session hears of its end too, and once.
                hooked = await watcher.request("area.session.hooked")
                assert [reason for uid, reason in hooked if uid == lost] == ["frontend lost"]
                await client.until_closed()
            assert await reconnected(fragile.urls["connector-1"]) != pid

    asyncio.run(scenario())


async def reconnected(url: str) -> int:
    """Connect again and again until the frontend takes it; returns its process id."""
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(OSError):
                async with PomeloClient(url) as client:
                    return int((await client.request("connector.entry.show"))["pid"])


def test_a_killed_master_stops_nothing_and_finds_the_living_servers_by_itself(fragile: RunningGame) -> None:
    def master() -> int | None:
        found = [pid for pid, line in fragile.processes().items() if line.startswith("ray::") and "aster" in line]
        return found[0] if len(found) == 1 else None

    async def scenario() -> None:
        async with PomeloClient(fragile.urls["single-1"]) as client:
            pid = await logged_in(client, uid_on("area-1", "calm"))
            first = eventually(master)
            assert first is not None
            async with Load([client], "area.test.echo") as load:
                await load.answered()
                os.kill(first, signal.SIGKILL)
                back = "the master is back; it found"
                assert await asyncio.to_thread(eventually, lambda: (again := master()) and again != first, 20)
                assert await asyncio.to_thread(eventually, lambda: back in fragile.stderr(), 20)
                await load.answered(100)
            assert set(load.codes) == {200}
            # It does its work: a server that dies now comes back, under a greater incarnation that others accept.
            os.kill(pid, signal.SIGKILL)
            assert await serves_again(client, 20) != pid

    asyncio.run(scenario())
