"""``python benchmarks/reach.py``: what reaching the whole cluster costs, beside what is local.

    push      a global channel of 10,000 members over two frontends beside a local one: the seconds from the push until
              both frontends have written it to every socket, and until the clients have read it
    users     what a directory server's table takes of memory for each of 100,000 users, and of time to find one

The first is a real game with real sockets; local and global pushes alternate.
"""

import argparse
import asyncio
import json
import statistics
import sys
import time
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from pomelo_client import PomeloClient
from reaching import soon
from running import RunningGame

from handlers.directory import Directory
from handlers.store import JOINED, ONLINE

HERE = Path(__file__).resolve().parent
HANDSHAKE = json.dumps({"sys": {"version": "1", "type": "bench"}}).encode()


class Member(asyncio.Protocol):
    """A client that enters and then counts the pushes it reads, as little as can be done for one."""

    def __init__(self, uid: str, crowd: "Crowd") -> None:
        self._uid = uid
        self._crowd = crowd
        self._data = b""
        self._entered = False

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._transport.write(_package(1, HANDSHAKE))

    def data_received(self, data: bytes) -> None:
        data = self._data + data
        at = 0
        while len(data) - at >= 4 and len(data) - at >= (size := 4 + int.from_bytes(data[at + 1 : at + 4], "big")):
            self._package(data[at], data[at + 4 : at + size])
            at += size
        self._data = data[at:]

    def _package(self, kind: int, body: bytes) -> None:
        if kind == 1:
            route = b"connector.entry.enter"
            head = bytes([0, 1, len(route)]) + route
            self._transport.write(_package(2, b"") + _package(4, head + json.dumps({"uid": self._uid}).encode()))
        elif kind == 4 and not self._entered:
            self._entered = True
            self._crowd.count()
        elif kind == 4:
            self._crowd.count()

    def connection_lost(self, exc: Exception | None) -> None:
        self._crowd.lost += 1

    def close(self) -> None:
        self._transport.close()


class Crowd:
    """Members, and a count of what they were waiting for."""

    def __init__(self) -> None:
        self.members: list[Member] = []
        self.lost = 0
        self._left = 0
        self._done = asyncio.Event()

    def expect(self, count: int) -> None:
        """Begin to count."""
        self._left = count
        self._done.clear()

    def count(self) -> None:
        """Take note of one."""
        self._left -= 1
        if self._left <= 0:
            self._done.set()

    async def all_here(self, seconds: float = 120) -> None:
        """Wait for all that is expected."""
        await asyncio.wait_for(self._done.wait(), seconds)


def _package(kind: int, body: bytes) -> bytes:
    return bytes([kind]) + len(body).to_bytes(3, "big") + body


async def entered(game: RunningGame, count: int) -> Crowd:
    """Return so many clients, half on each connector, who are in both channels."""
    crowd, loop = Crowd(), asyncio.get_running_loop()
    ports = [game.port("connector-1"), game.port("connector-2")]
    for start in range(0, count, 200):
        batch = range(start, min(start + 200, count))
        crowd.expect(len(batch))
        for number in batch:
            member = Member(f"user-{number}", crowd)
            await loop.create_connection(lambda member=member: member, "127.0.0.1", ports[number % 2])  # type: ignore[misc]
            crowd.members.append(member)
        await crowd.all_here()
    return crowd


async def pushed(controller: PomeloClient, crowd: Crowd, times: int, *, everywhere: bool) -> tuple[float, float]:
    """Return the seconds until the frontends had written, and until the clients had read, for each push."""
    crowd.expect(times * len(crowd.members))
    began = time.perf_counter()
    message = {"everywhere": everywhere, "times": times}
    answer = await controller.request("chat.hall.say", message, timeout=120)
    await crowd.all_here()
    return answer["seconds"] / times, (time.perf_counter() - began) / times


async def shown(controller: PomeloClient) -> tuple[int, int]:
    """Return how many are in the local channel and in the global one."""
    answer = await controller.request("chat.hall.show")
    return answer["members"], answer["everywhere"]


async def measured(game: RunningGame, count: int, rounds: int, times: int) -> dict[str, Any]:
    """Return the medians of the rounds."""
    async with PomeloClient(game.urls["connector-1"]) as controller:
        began = time.perf_counter()
        crowd = await entered(game, count)
        entering = time.perf_counter() - began
        await soon(lambda: shown(controller), (count, count), 60)
        results: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
        for _ in range(rounds + 1):
            for everywhere, taken in results.items():
                taken.append(await pushed(controller, crowd, times, everywhere=everywhere))
        written = {e: statistics.median(one[0] for one in taken[1:]) for e, taken in results.items()}
        read = {e: statistics.median(one[1] for one in taken[1:]) for e, taken in results.items()}
        for member in crowd.members:
            member.close()
        return {
            "members": count,
            "enter_s": round(entering, 2),
            "written_ms": {"local": round(1e3 * written[False], 2), "global": round(1e3 * written[True], 2)},
            "written_ratio": round(written[True] / written[False], 3),
            "read_ms": {"local": round(1e3 * read[False], 2), "global": round(1e3 * read[True], 2)},
            "read_ratio": round(read[True] / read[False], 3),
        }


def users(count: int = 100_000) -> dict[str, float]:
    """Return the bytes that a directory's table takes for each user: online, and in a room of 100, too."""
    table = Directory(lambda channel: None)
    for number in range(4):
        table.retell(f"connector-{number}", False, [])
    tracemalloc.start()
    for number in range(count):
        table.tell(f"connector-{number % 4}", (ONLINE, f"user-{number:012}", 1.7e9 + number))
    online = tracemalloc.get_traced_memory()[0] / count
    for number in range(count):
        table.tell(f"connector-{number % 4}", (JOINED, f"room-{number // 100}", f"user-{number:012}", b""))
    joined = tracemalloc.get_traced_memory()[0] / count
    tracemalloc.stop()
    began = time.perf_counter()
    for number in range(count):
        table.where([f"user-{number:012}"])
    return {
        "users": count,
        "bytes_online": round(online),
        "bytes_online_and_in_a_room": round(joined),
        "where_us": round((time.perf_counter() - began) / count * 1e6, 2),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print, as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=7, help="of which the median counts")
    parser.add_argument("--times", type=int, default=5, help="pushes in a round, one after the other")
    options = parser.parse_args(arguments)
    found: dict[str, Any] = {"users": users()}
    with RunningGame(HERE / "hall" / "servers.yaml", ready=180) as game:
        found["push"] = asyncio.run(measured(game, options.members, options.rounds, options.times))
    print(json.dumps(found, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
