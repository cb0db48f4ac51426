"""A server that is killed, or restarted on purpose, comes back with its channels; for real, under load."""

import asyncio
import contextlib
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import GAME
from pomelo_client import PomeloClient
from running import RunningGame
from test_real_sessions import AREAS

from handlers.members import rendezvous

pytestmark = pytest.mark.real

ROOMS = ["tea", "cake", "garden"]
USERS = 12


@pytest.fixture(scope="module")
def restarting() -> Iterator[RunningGame]:
    """A game whose servers are killed."""
    with RunningGame(GAME) as running:
        yield running


def uids_on(server_id: str, number: int, prefix: str) -> list[str]:
    """Return uids whose requests go to a server."""
    uids = (f"{prefix}{n}" for n in range(1000))
    return [uid for uid in uids if rendezvous(uid, AREAS) == server_id][:number]


async def arrived(stack: contextlib.AsyncExitStack, game: RunningGame, uids: list[str]) -> dict[str, PomeloClient]:
    """Return a client for each uid, logged in, by turns at two frontends of different types."""
    clients: dict[str, PomeloClient] = {}
    for number, uid in enumerate(uids):
        url = game.urls[("connector-1", "single-1")[number % 2]]
        clients[uid] = await stack.enter_async_context(PomeloClient(url))
        await clients[uid].request("connector.entry.login", {"uid": uid})
    return clients


def rooms_of(uids: list[str]) -> dict[str, list[str]]:
    """Return who is to be in which room: everybody in one, some in two."""
    return {
        room: [uid for n, uid in enumerate(uids) if n % 3 == number or n % 4 == 0] for number, room in enumerate(ROOMS)
    }


async def keep_asking(client: PomeloClient, codes: Counter[int], stop: asyncio.Event) -> None:
    """Ask the area server again and again; count the answers by code."""
    while not stop.is_set():
        answer = await client.request("area.test.echo", {"x": 1})
        codes[answer.get("code", 200)] += 1


async def until_served(client: PomeloClient) -> int:
    """Wait until the user's area server answers; returns its process id."""
    async with asyncio.timeout(30):
        while "pid" not in (answer := await client.request("area.test.echo")):
            assert answer["code"] == 503
    return int(answer["pid"])


async def said_in(clients: dict[str, PomeloClient], rooms: dict[str, list[str]]) -> None:
    """Say something in each room; every member hears it once, nobody else does."""
    for client in clients.values():
        client.pushes.clear()
    for room, uids in rooms.items():
        said = await clients[uids[0]].request("area.room.say", {"room": room, "text": room})
        assert said == {"failed": []}
    # What follows on the same way says that no push is on its way any more.
    await asyncio.gather(*(client.request("area.test.none") for client in clients.values()))
    for uid, client in clients.items():
        heard = Counter(message["text"] for _, message in client.pushes)
        assert heard == {room: 1 for room, uids in rooms.items() if uid in uids}


def _sorted(rooms: dict[str, list[str]]) -> dict[str, list[str]]:
    return {room: sorted(members) for room, members in rooms.items()}


def test_a_killed_backend_comes_back_with_every_member_of_its_channels_and_none_twice(restarting: RunningGame) -> None:
    async def scenario() -> None:
        async with contextlib.AsyncExitStack() as stack:
            uids = uids_on("area-1", USERS, "member")
            clients = await arrived(stack, restarting, uids)
            rooms = rooms_of(uids)
            for room, members in rooms.items():
                for uid in members:
                    assert (await clients[uid].request("area.room.join", {"room": room}))["present"]
            await said_in(clients, rooms)
            codes: Counter[int] = Counter()
            for _ in range(2):
                stop = asyncio.Event()
                asking = [asyncio.create_task(keep_asking(clients[uid], codes, stop)) for uid in uids[1:-1]]
                pid = await until_served(clients[uids[0]])
                os.kill(pid, signal.SIGKILL)
                # One of them goes while nobody holds the rooms.
                gone = uids.pop()
                await clients.pop(gone).close()
                rooms = {room: [uid for uid in members if uid != gone] for room, members in rooms.items()}
                async with asyncio.timeout(30):
                    while await until_served(clients[uids[0]]) == pid:
                        continue
                known = await clients[uids[0]].request("area.room.rebuilt")
                assert _sorted(known) == _sorted(rooms)
                stop.set()
                await asyncio.gather(*asking)
                await said_in(clients, rooms)
            assert set(codes) == {200, 503}
            # What follows goes as before.
            assert await clients[uids[0]].request("area.room.leave", {"room": "tea"}) == {"left": True}
            rooms["tea"].remove(uids[0])
            assert sorted(await clients[uids[1]].request("area.room.members", {"room": "tea"})) == sorted(rooms["tea"])
            await said_in(clients, rooms)

    asyncio.run(scenario())


async def operated(game: RunningGame, *arguments: str) -> str:
    """Run a tool command on the game; returns what it printed."""
    pummelo = Path(sys.executable).with_name("pummelo")
    process = await asyncio.create_subprocess_exec(
        pummelo, *arguments, "--name", game.name, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, errors = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == 0, errors.decode()
    return out.decode()


async def keep_napping(client: PomeloClient, codes: Counter[int], stop: asyncio.Event) -> None:
    """Have requests under way that take a while, some at a time."""
    while not stop.is_set():
        naps = [await client.send_request("area.test.nap", {"number": n, "seconds": 0.2}) for n in range(3)]
        for answer in await asyncio.wait_for(asyncio.gather(*naps), 20):
            codes[answer.get("code", 200)] += 1


def test_backends_restarted_on_purpose_under_load_lose_not_one_request_and_no_member(restarting: RunningGame) -> None:
    async def scenario() -> None:
        async with contextlib.AsyncExitStack() as stack:
            uids = uids_on("area-1", USERS, "calm")
            clients = await arrived(stack, restarting, uids)
            rooms = rooms_of(uids)
            for room, members in rooms.items():
                for uid in members:
                    assert (await clients[uid].request("area.room.join", {"room": room}))["present"]
            pids = {(await clients[uid].request("area.test.echo"))["pid"] for uid in uids}
            codes: Counter[int] = Counter()
            stop = asyncio.Event()
            asking = [asyncio.create_task(keep_asking(clients[uid], codes, stop)) for uid in uids[:-2]]
            asking += [asyncio.create_task(keep_napping(clients[uid], codes, stop)) for uid in uids[-2:]]
            await operated(restarting, "restart", "area")
            stop.set()
            await asyncio.gather(*asking)
            assert set(codes) == {200}
            assert pids.isdisjoint({(await clients[uid].request("area.test.echo"))["pid"] for uid in uids})
            assert _sorted(await clients[uids[0]].request("area.room.rebuilt")) == _sorted(rooms)
            await said_in(clients, rooms)

    asyncio.run(scenario())
