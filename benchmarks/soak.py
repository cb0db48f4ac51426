"""A soak: mixed load for twenty minutes, a random kill every twenty seconds, and an account of it.

    python benchmarks/soak.py [--minutes 20] [--every 20] [--clients 100] [--json FILE]

Clients log in, join and leave rooms, talk, ask for echoes, disconnect and come back. Every 20 seconds one process of
the game, the master included, gets SIGKILL. Each request must be answered, or fail with its connection, within its
deadline. In the end all stand still, and who is in which room is compared with what each client believes; then all
leave, and nothing may be left. Exits with 1 if anything did not hold.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
from subjects import HERE, Subject

from gateway import MessageType, PackageDecoder, PackageType, decode_message, encode_package, encode_request

PORTS = (13120, 13121)
ROOMS = 20
DEADLINE = 35.0
"""Seconds in which a request is answered or has failed: the frontend's 30 s, and some."""
REST = 45.0
"""Seconds without kills and changes before accounts are compared: a dead server's place is kept for 30 s."""
SAMPLE = 10.0
"""Seconds between looks at memory."""
GROWTH_AT_MOST = 5.0


class Soak(Subject):
    """The game of benchmarks/soak."""

    name = "soak"
    port = PORTS[0]

    def __init__(self, folder: Path) -> None:
        pummelo = str(Path(sys.executable).with_name("pummelo"))
        super().__init__([pummelo, "run", str(HERE / "soak" / "servers.yaml")], folder=folder)

    def serves(self) -> bool:
        """Whether it said that it is ready."""
        return "\nready\n" in Path(self.log.name).read_text(errors="replace")

    def victims(self) -> dict[int, str]:
        """Return the processes that may be killed: the servers and the master, by id."""
        found = {}
        for pid in self.pids():
            with contextlib.suppress(OSError):
                title = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode()
                if title.startswith(("ray::FrontendServer", "ray::BackendServer", "ray::Master")):
                    found[pid] = title
        return found

    def memory(self) -> int:
        """Return the resident bytes of all processes of the game, Ray's included."""
        total = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                total += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return total * resource.getpagesize()


class Lost(Exception):
    """The connection is gone, and what was in flight with it."""


class Client:
    """One client's connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._decoder = PackageDecoder(0xFFFFFF)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._number = 0
        self.pushes = 0
        self.lost = False
        self._shaken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._reading = asyncio.ensure_future(self._read())

    @classmethod
    async def connect(cls, port: int) -> "Client":
        """Connect and shake hands. Raises OSError, Lost or TimeoutError."""
        async with asyncio.timeout(DEADLINE):
            client = cls(*await asyncio.open_connection("127.0.0.1", port))
            client._writer.write(encode_package(PackageType.HANDSHAKE, b'{"sys":{"version":"1","type":"soak"}}'))
            await client._shaken
        return client

    async def request(self, route: str, **message: Any) -> dict[str, Any]:
        """Return the answer. Raises Lost, or TimeoutError where none came in time."""
        if self.lost:
            raise Lost
        self._number += 1
        answer = self._waiting[self._number] = asyncio.get_running_loop().create_future()
        body = encode_request(self._number, route, msgspec.json.encode(message))
        self._writer.write(encode_package(PackageType.DATA, body))
        async with asyncio.timeout(DEADLINE):
            answered: dict[str, Any] = await answer
        return answered

    def close(self) -> None:
        """Leave."""
        self._writer.close()

    async def _read(self) -> None:
        with contextlib.suppress(OSError):
            while data := await self._reader.read(65536):
                for kind, body in self._decoder.feed(data):
                    self._take(kind, body)
        self.lost = True
        self._writer.close()
        for waiting in (*self._waiting.values(), self._shaken):
            if not waiting.done():
                waiting.set_exception(Lost())
                waiting.exception()

    def _take(self, kind: PackageType, body: bytes) -> None:
        if kind is PackageType.HANDSHAKE:
            self._writer.write(encode_package(PackageType.HANDSHAKE_ACK))
            self._shaken.set_result(None)
        elif kind is PackageType.HEARTBEAT:
            asyncio.get_running_loop().call_later(
                30, lambda: self.lost or self._writer.write(encode_package(PackageType.HEARTBEAT))
            )
        elif kind is PackageType.DATA:
            message = decode_message(body, {})
            if message.type is MessageType.PUSH:
                self.pushes += 1
            elif (waiting := self._waiting.pop(message.id, None)) is not None and not waiting.done():
                waiting.set_result(msgspec.json.decode(message.body))


class User:
    """One user: logs in, does this and that, comes back when cut. ``room`` is where it believes to be."""

    def __init__(self, number: int, account: Counter[str], overdue: list[str]) -> None:
        self.uid = f"user-{number}"
        self.room: str | None = None
        self.client: Client | None = None
        self.acting = True
        self._account = account
        self._overdue = overdue

    async def live(self, until: float) -> None:
        """Be a user until then; what began is brought to its end."""
        while time.monotonic() < until:
            try:
                if self.client is None or self.client.lost:
                    await self._come_in()
                await self._act()
            except Lost:
                self._account["failed with the connection"] += 1
                self.client, self.room = None, None
            await asyncio.sleep(random.uniform(0.02, 0.3))

    async def settle(self) -> None:
        """Come in if cut, and be in a room for certain."""
        while self.client is None or self.client.lost or self.room is None:
            try:
                if self.client is None or self.client.lost:
                    await self._come_in()
                await self._join(f"room-{random.randrange(ROOMS)}")
            except Lost:
                self.client, self.room = None, None
            await asyncio.sleep(0.2)

    async def ask(self, route: str, **message: Any) -> dict[str, Any]:
        """Make a request and keep account of how it ended."""
        assert self.client is not None
        self._account["requests"] += 1
        try:
            answer = await self.client.request(route, **message)
        except TimeoutError:
            self._overdue.append(f"{self.uid}: {route}")
            raise Lost from None
        self._account[f"answered {answer.get('code')}"] += 1
        return answer

    async def _come_in(self) -> None:
        self.room = None
        try:
            self.client = await Client.connect(random.choice(PORTS))
        except (OSError, TimeoutError):
            self._account["refused connections"] += 1
            await asyncio.sleep(0.5)
            raise Lost from None
        self._account["connections"] += 1
        await self.ask("connector.entry.login", uid=self.uid)

    async def _act(self) -> None:
        chance = random.random()
        if self.room is None or chance < 0.1:
            await self._move()
        elif chance < 0.5:
            await self.ask("chat.room.say")
        elif chance < 0.98:
            await self.ask("chat.room.echo")
        else:
            assert self.client is not None
            self.client.close()
            self.client, self.room = None, None

    async def _move(self) -> None:
        if self.room is not None and (await self.ask("chat.room.leave")).get("code") != 200:
            return
        self.room = None
        await self._join(f"room-{random.randrange(ROOMS)}")

    async def _join(self, room: str) -> None:
        if (await self.ask("connector.entry.room", room=room)).get("code") != 200:
            return
        # A join that failed may have been carried out all the same: it is made again until its outcome is known.
        while self.room is None:
            if (await self.ask("chat.room.join")).get("code") == 200:
                self.room = room
            else:
                await asyncio.sleep(0.2)


async def kill(soak: Soak, every: float, until: float, killed: Counter[str]) -> None:
    """Kill one process after the other."""
    while time.monotonic() + every < until:
        await asyncio.sleep(every)
        victims = soak.victims()
        if victims:
            pid = random.choice(list(victims))
            os.kill(pid, signal.SIGKILL)
            killed[victims[pid].removeprefix("ray::").split(".")[0]] += 1


async def watch(soak: Soak, until: float, samples: list[tuple[float, int]]) -> None:
    """Note the game's memory again and again."""
    begun = time.monotonic()
    while time.monotonic() < until:
        samples.append((time.monotonic() - begun, soak.memory()))
        await asyncio.sleep(SAMPLE)


async def compared(users: list[User]) -> list[str]:
    """Return where the rooms' members are not those who believe to be in them."""
    believed: dict[str, set[str]] = {f"room-{number}": set() for number in range(ROOMS)}
    for user in users:
        if user.room is not None:
            believed[user.room].add(user.uid)
    wrong = []
    asker = User(len(users), Counter(), [])
    await asker.settle()
    for room, uids in believed.items():
        await asker.ask("connector.entry.room", room=room)
        members = await asker.ask("chat.room.members")
        found = members.get("members", [])
        if sorted(set(found) - {asker.uid}) != sorted(uids) or len(found) != len(set(found)):
            wrong.append(f"{room}: {sorted(found)} instead of {sorted(uids)}")
    assert asker.client is not None
    asker.client.close()
    return wrong


async def run(soak: Soak, options: argparse.Namespace) -> dict[str, Any]:
    """Soak, and return the account."""
    account: Counter[str] = Counter()
    killed: Counter[str] = Counter()
    overdue: list[str] = []
    samples: list[tuple[float, int]] = []
    users = [User(number, account, overdue) for number in range(options.clients)]
    until = time.monotonic() + options.minutes * 60
    await asyncio.gather(
        *(user.live(until) for user in users),
        kill(soak, options.every, until, killed),
        watch(soak, until, samples),
    )
    await asyncio.sleep(REST)
    await asyncio.gather(*(user.settle() for user in users))
    wrong = await compared(users)
    for user in users:
        if user.client is not None:
            user.client.close()
    await asyncio.sleep(3)
    return {
        "minutes": options.minutes,
        "clients": options.clients,
        "account": dict(sorted(account.items())),
        "killed": dict(killed),
        "overdue": overdue,
        "wrong_rooms": wrong,
        "left": left(soak),
        "memory_growth_percent": growth(samples),
        "memory_mib": [round(size / 2**20) for _, size in samples],
    }


def left(soak: Soak) -> dict[str, Any]:
    """Return what is there though nobody is: sessions and members as an operator sees them, and doubled processes."""
    pummelo = str(Path(sys.executable).with_name("pummelo"))
    told: dict[str, Any] = {"processes": sorted(soak.victims().values())}
    for server in ("connector-1", "connector-2", "chat-1", "chat-2"):
        done = subprocess.run(
            [pummelo, "inspect", server, "--json"], capture_output=True, text=True, check=True, timeout=60
        )
        state = json.loads(done.stdout)
        told[server] = {
            "sessions": state.get("sessions_total", state.get("sessions")),
            "members": sum(channel["members"] for channel in state["channels"]),
            "mirrors": sum(mirror["members"] for mirror in state["mirrors"]),
        }
    return told


def growth(samples: list[tuple[float, int]]) -> float:
    """Return by how much percent the memory of the last minute is above that of the minute ten minutes earlier."""
    end = samples[-1][0]
    late = [size for at, size in samples if at > end - 60]
    early = [size for at, size in samples if end - 660 < at <= end - 600] or [size for _, size in samples[:6]]
    return round(100 * (sum(late) / len(late) / (sum(early) / len(early)) - 1), 2)


def failures(told: dict[str, Any]) -> list[str]:
    """Return what did not hold."""
    failed = []
    if told["overdue"]:
        failed.append(f"{len(told['overdue'])} requests were not answered within {DEADLINE:g} s")
    failed += told["wrong_rooms"]
    if told["memory_growth_percent"] > GROWTH_AT_MOST:
        failed.append(f"memory grew by {told['memory_growth_percent']} % in the last ten minutes")
    left_over = {server: state for server, state in told["left"].items() if server != "processes"}
    failed += [f"{server} holds {state}" for server, state in left_over.items() if any(state.values())]
    if len(told["left"]["processes"]) != 5:
        failed.append(f"instead of four servers and a master there are {told['left']['processes']}")
    return failed


def main() -> int:
    """Soak, print the account, and return 1 if anything did not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--every", type=float, default=20.0, help="seconds between kills")
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--json", type=Path, help="a file for the account")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pm-") as folder, Soak(Path(folder)) as soak:
        told = asyncio.run(run(soak, options))
    text = json.dumps(told, indent=1)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")
    failed = failures(told)
    print("\n".join(f"FAILED: {line}" for line in failed) or "everything held")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
